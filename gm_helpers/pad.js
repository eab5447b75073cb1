// A VAE's decoder in the page: no kernel, no network, no framework. `start` finds the page's empty place and builds
// a pad or sliders there. What is written here is what gm_helpers/pages.py sends with its data.

const PICTURE = 168;                                   // screen pixels of a decoded digit, as in every widget
const ALLOW_ARROWS = {"data-lm-suppress-shortcuts": "true"};  // else JupyterLab takes the arrow keys for itself

function start(name, build, data) {
  for (const page of document.querySelectorAll(`.gm-page[data-page="${name}"]:not([data-alive])`)) {
    page.setAttribute("data-alive", "");
    page.style.cssText = "display:flex; flex-wrap:wrap; gap:16px; align-items:flex-start; max-width:900px; font:14px sans-serif";
    build(page, data, decoder(data.sizes, halves(data.weights)));
  }
}

// ---------------------------------------------------------------- the decoder

function halves(base64) {                              // float16 numbers, as text, to float32
  const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
  const words = new DataView(bytes.buffer), numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const word = words.getUint16(2 * i, true), exponent = word >> 10 & 31, fraction = word & 1023;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * fraction / 1024;
    numbers[i] = word >> 15 ? -size : size;
  }
  return numbers;
}

function linear(weight, bias, input) {                 // weight: one row for each output
  return bias.map((own, row) => {
    for (let i = 0, at = row * input.length; i < input.length; i++) own += weight[at + i] * input[i];
    return own;
  });
}

function decoder([latents, hidden, pixels], numbers) { // latents → tanh → sigmoid → grey values 0…255
  let at = 0;
  const take = count => numbers.subarray(at, at += count);
  const [w1, b1, w2, b2] = [latents * hidden, hidden, hidden * pixels, pixels].map(take);
  return z => linear(w2, b2, linear(w1, b1, z).map(Math.tanh)).map(a => Math.round(255 / (1 + Math.exp(-a))));
}

// ---------------------------------------------------------------- parts of a page

function add(parent, tag, attributes = {}, text = "") {
  const element = parent.appendChild(document.createElement(tag));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function digit(parent) {                               // a canvas, and the function that paints grey values on it
  const canvas = add(parent, "canvas", {width: 28, height: 28, role: "img", class: "gm-digit"});
  canvas.style.cssText = `width:${PICTURE}px; height:${PICTURE}px; image-rendering:pixelated`;
  const context = canvas.getContext("2d"), image = context.createImageData(28, 28);
  return (grey, label) => {
    grey.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    context.putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", label);
  };
}

function newest(paint) {                               // at most one painting for each frame of the screen
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  };
}

function focusRing(element) {
  element.addEventListener("focus", () => { element.style.outline = "3px solid #0072B2"; });
  element.addEventListener("blur", () => { element.style.outline = "1px solid #767676"; });
  element.style.outline = "1px solid #767676";
}

const fixed = value => value.toFixed(2).replace("-", "−");

// ---------------------------------------------------------------- the plane of two latents

function latentPad(page, data, decode) {
  const SIDE = 450, [left, top, right, bottom] = data.frame.map(own => own * SIDE), reach = data.reach;
  const pad = add(page, "canvas", {width: SIDE, height: SIDE, tabindex: 0, role: "slider", "aria-label":
    "latent code z1, z2: arrow keys move the point", "aria-valuemin": -reach, "aria-valuemax": reach, class: "gm-pad", ...ALLOW_ARROWS});
  pad.style.cssText = "touch-action:none; cursor:crosshair; max-width:100%; outline-offset:-3px; background:0 0 / 100% 100%";
  pad.style.backgroundImage = `url(data:image/png;base64,${data.still})`;  // with its axes and their names
  focusRing(pad);
  const side = add(page, "div"), paintDigit = digit(side), reading = add(side, "div", {"aria-live": "polite"});
  side.style.width = "180px";
  add(side, "p", {}, "Drag, or use the arrow keys; Page Up and Down, Home and End go further.");
  const choice = add(side, "label"), underlay = add(choice, "input", {type: "checkbox"});
  add(choice, "span", {}, " digits over the plane");
  let digits = null;                                   // drawn once, when they are first asked for
  underlay.addEventListener("change", () => { digits ??= plane(decode, reach); paint(); });
  const across = v => left + (v + reach) / (2 * reach) * (right - left);
  const down = v => bottom - (v + reach) / (2 * reach) * (bottom - top);

  const z = [0, 0];
  const paint = newest(() => {
    const context = pad.getContext("2d"), [x, y] = [across(z[0]), down(z[1])];
    context.clearRect(0, 0, SIDE, SIDE);
    if (underlay.checked) context.drawImage(digits, left, top, right - left, bottom - top);
    for (const [width, colour] of [[7, "white"], [3, "black"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.beginPath();
      context.arc(x, y, 8, 0, 2 * Math.PI);
      context.moveTo(x - 14, y); context.lineTo(x + 14, y);
      context.moveTo(x, y - 14); context.lineTo(x, y + 14);
      context.stroke();
    }
    const text = `z₁ = ${fixed(z[0])}, z₂ = ${fixed(z[1])}`;
    reading.textContent = text;
    pad.setAttribute("aria-valuenow", z[0]);
    pad.setAttribute("aria-valuetext", text);
    paintDigit(decode(z), `digit decoded at ${text}`);
  });
  const move = (x, y) => {
    [x, y].forEach((value, i) => { z[i] = Math.max(-reach, Math.min(reach, value)); });
    paint();
  };
  const point = event => {
    const box = pad.getBoundingClientRect(), share = (at, low, high) => ((at * SIDE - low) / (high - low) * 2 - 1) * reach;
    move(share((event.clientX - box.left) / box.width, left, right), -share((event.clientY - box.top) / box.height, top, bottom));
  };
  pad.addEventListener("pointerdown", event => { pad.setPointerCapture(event.pointerId); pad.focus(); point(event); });
  pad.addEventListener("pointermove", event => { if (event.buttons) point(event); });
  const steps = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowDown: [0, -0.1], ArrowUp: [0, 0.1],
                 PageDown: [0, -1], PageUp: [0, 1], Home: [-1, 0], End: [1, 0]};
  pad.addEventListener("keydown", event => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    event.stopPropagation();
    move(z[0] + steps[event.key][0], z[1] + steps[event.key][1]);
  });
  paint();
}

function plane(decode, reach) {                        // decoded digits, dark on white, at the centres of a grid of cells
  const CELLS = 15, picture = document.createElement("canvas");
  picture.width = picture.height = CELLS * 28;
  const context = picture.getContext("2d"), image = context.createImageData(28, 28);
  for (let row = 0; row < CELLS; row++) for (let column = 0; column < CELLS; column++) {
    const z = [column, CELLS - 1 - row].map(own => ((own + 0.5) / CELLS * 2 - 1) * reach);
    decode(z).forEach((value, i) => image.data.set([255 - value, 255 - value, 255 - value, 255], 4 * i));
    context.putImageData(image, column * 28, row * 28);
  }
  return picture;
}

// ---------------------------------------------------------------- one slider for each latent

function latentSliders(page, data, decode) {
  const left = add(page, "div"), paintDigit = digit(left), reading = add(left, "div", {"aria-live": "polite"});
  const grid = add(page, "div");
  grid.style.cssText = "flex:1 1 285px; display:grid; grid-template-columns:repeat(auto-fit, 285px); gap:2px 16px";
  const inputs = [], z = [];                            // z exactly; a slider shows it rounded to its steps
  let code = 0, origin = "";
  const paint = newest(() => {
    paintDigit(decode(z), "digit decoded from the sliders");
    reading.textContent = `${origin}; norm of z: ${Math.hypot(...z).toFixed(2)}`;
  });
  for (const latent of data.order) {
    const row = add(grid, "label"), name = `z${latent + 1}`;
    row.style.cssText = "display:flex; gap:6px; align-items:center";
    add(row, "span", {}, `${name} (${data.kl[latent].toFixed(2)} nats)`).style.width = "110px";
    const input = add(row, "input", {type: "range", min: -4, max: 4, step: 0.05, "aria-label": `latent ${name}`, ...ALLOW_ARROWS});
    const output = add(row, "output");
    output.style.width = "40px";
    focusRing(input);
    input.show = () => { output.textContent = fixed(z[latent]); };
    input.addEventListener("input", () => {
      z[latent] = +input.value;
      if (!origin.endsWith("moved")) origin += ", moved";
      input.show();
      paint();
    });
    inputs[latent] = input;
  }
  const set = (values, from) => {
    origin = from;
    inputs.forEach((input, latent) => { input.value = z[latent] = values[latent]; input.show(); });
    paint();
  };
  const encoded = () => set(data.codes[code], `the code of a ${data.labels[code]}`);
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  const buttons = {
    "reset": encoded,
    "random": () => set(inputs.map(normal), "a draw of N(0, I)"),
    "encode another digit": () => { code = (code + 1) % data.codes.length; encoded(); },
  };
  for (const [label, action] of Object.entries(buttons)) add(left, "button", {type: "button"}, label).addEventListener("click", action);
  encoded();
}
