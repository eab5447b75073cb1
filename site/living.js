// What lives on the site: pages in the chapters, and on the home page the three families side by side. Weights are scripts
// of their own, because a page that is a file may fetch nothing; they are added when the place comes into view.

// What a page has loaded, and (decode, generate, flow) what it computes with, for a look from the console and for tests.
const GM = {models: {}, waiting: {}, arrived(name, data) { this.models[name] = data; this.waiting[name].forEach(own => own.resolve(data)); }};

function weights(name) {
  return new Promise((resolve, reject) => {
    if (GM.models[name]) return resolve(GM.models[name]);
    if (GM.waiting[name]) return GM.waiting[name].push({resolve, reject});
    GM.waiting[name] = [{resolve, reject}];
    const script = document.head.appendChild(document.createElement("script"));
    script.src = `_static/weights/${name}.js`;
    script.onerror = () => {
      GM.waiting[name].forEach(own => own.reject());
      delete GM.waiting[name];
    };
  });
}

function whenSeen(place, build) {
  const observer = new IntersectionObserver(seen => {
    if (!seen.some(own => own.isIntersecting)) return;
    observer.disconnect();
    build(place);
  });
  observer.observe(place);
}

async function filled(place, build) {                  // from weights to picture, measured to the frame that shows it
  const data = await weights(place.dataset.model).catch(() => null), started = performance.now();
  if (!data) return void (place.textContent = "The weights of this model did not arrive: load the page again.");
  build(place, data);
  requestAnimationFrame(() => { place.dataset.ms = (performance.now() - started).toFixed(0); });
}

// ---------------------------------------------------------------- paths: closed, so that 1 is where 0 was

const circle = radius => t => [Math.cos(2 * Math.PI * t), Math.sin(2 * Math.PI * t)].map(own => radius * own);

function round(codes) {                                // from code to code and back to the first, spherically
  return t => {
    const at = (t % 1) * codes.length, i = Math.floor(at);
    return spherical(codes[i], codes[(i + 1) % codes.length], at - i);
  };
}

const seeded = seed => () => {                         // the same draws each time: mulberry32
  seed = seed + 0x6D2B79F5 | 0;
  let own = Math.imul(seed ^ seed >>> 15, 1 | seed);
  own = own + Math.imul(own ^ own >>> 7, 61 | own) ^ own;
  return ((own ^ own >>> 14) >>> 0) / 4294967296;
};

function cloud(flow, count) {                          // samples of the flow, from normal draws by Box and Muller
  const uniform = seeded(1);
  return Array.from({length: count}, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    return flow.inverse([radius * Math.cos(angle), radius * Math.sin(angle)]).point;
  });
}

// ---------------------------------------------------------------- the page's part

const SIDE = 168;                                      // pixels of each picture's side

function figure(parent, title, latent) {
  const own = add(parent, "figure");
  add(own, "figcaption", {class: "gm-title"}, title);
  return {own, told: () => add(own, "div", {class: "gm-told"}, latent)};
}

function digit(parent, title, latent) {
  const {own, told} = figure(parent, title, latent), paint = pictures(own, 1, SIDE / 28);
  told();
  return paint;
}

function moons(parent, title, latent, flow, path) {
  const {own, told} = figure(parent, title, latent), reach = 1.8;
  const canvas = add(own, "canvas", {width: 2 * SIDE, height: 2 * SIDE, role: "img"});
  canvas.style.cssText = `display:block; width:${SIDE}px; height:${SIDE}px; background:white; margin-bottom:4px`;
  told();
  const at = ([x, y]) => [(x + reach) / (2 * reach) * 2 * SIDE, (reach - y) / (2 * reach) * 2 * SIDE];
  const points = cloud(flow, 500), trail = Array.from({length: 801}, (_, i) => flow.inverse(path(i / 800)).point);
  const context = canvas.getContext("2d");
  return z => {
    const {point} = flow.inverse(z);
    context.clearRect(0, 0, 2 * SIDE, 2 * SIDE);
    context.fillStyle = "#0072B2";
    points.forEach(own => context.fillRect(...at(own), 3, 3));
    context.strokeStyle = "#D55E00";
    context.lineWidth = 2;
    context.beginPath();
    trail.forEach(own => context.lineTo(...at(own)));
    context.stroke();
    context.fillStyle = "black";
    context.beginPath();
    context.arc(...at(point), 9, 0, 2 * Math.PI);
    context.fill();
    canvas.setAttribute("aria-label", `two moons of samples, and the sample at (${point.map(fixed).join(", ")})`);
  };
}

const PANELS = {                                       // name -> what is built of its weights: a function that paints it at t
  "vae-2d": (place, data) => {
    const paint = digit(place, "VAE", "2 latents, on a circle"), path = circle(1.5);
    GM.decode = network(layers(data), data.black);
    return t => paint(GM.decode(path(t)), `digit decoded by the VAE, ${t.toFixed(2)} of the path`);
  },
  "gan": (place, data) => {
    const paint = digit(place, "GAN", "100 latents, through four draws");
    const path = round([0, 3, 7, 9].map(own => data.codes[data.labels.indexOf(own)]));  // and back to the first
    GM.generate = network(layers(data), data.black);
    return t => paint(GM.generate(path(t)), `digit generated by the GAN, ${t.toFixed(2)} of the path`);
  },
  "flow-2d": (place, data) => {
    const path = circle(1);
    GM.flow = flowOf(data);
    const paint = moons(place, "flow", "2 latents, on a circle", flowOf(data, tabled), path);
    return t => paint(path(t));
  },
};

function sideBySide(page) {
  const row = add(page, "div", {class: "gm-three"}), painters = [];
  const control = add(page, "label", {class: "gm-path"});
  add(control, "span", {}, "along the path");
  const slider = add(control, "input", {type: "range", min: 0, max: 1, step: 0.005, value: 0.1, "aria-label": "along the path"});
  const show = newest(() => painters.forEach(own => own(+slider.value)));
  slider.addEventListener("input", show);
  for (const [name, build] of Object.entries(PANELS)) {
    filled(add(row, "div", {"data-model": name}, "…"), (place, data) => {
      place.textContent = "";
      painters.push(build(place, data));
      painters.at(-1)(+slider.value);
    });
  }
}

const BUILDS = {latentPad, latentSliders, latentWalk, flowLayers, flowInTime};
document.querySelectorAll(".gm-side-by-side").forEach(own => whenSeen(own, sideBySide));
document.querySelectorAll(".gm-page[data-build]").forEach(own => whenSeen(own, place => filled(place, (page, data) => {
  begin(page, BUILDS[page.dataset.build], data);
})));
