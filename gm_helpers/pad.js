// A VAE's decoder in the page: no kernel, no network, no framework. `start` finds the page's static picture and puts
// a pad or sliders in its place. What is written here is what gm_helpers/pages.py sends with its data.

const PICTURE = 224;                                   // screen pixels of a decoded digit
const ALLOW_ARROWS = {"data-lm-suppress-shortcuts": "true"};  // else JupyterLab takes the arrow keys for itself

function start(name, build, data) {
  for (const page of document.querySelectorAll(`.gm-page[data-page="${name}"]:not([data-alive])`)) {
    page.setAttribute("data-alive", "");
    page.replaceChildren();
    page.style.cssText = "display:flex; flex-wrap:wrap; gap:16px; align-items:flex-start; max-width:860px; font:14px sans-serif";
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
  const SIDE = 340, REACH = 4;                         // the plane from −4 to 4
  const pad = add(page, "canvas", {width: SIDE, height: SIDE, tabindex: 0, role: "slider", "aria-label":
    "latent code z1, z2: arrow keys move the point", "aria-valuemin": -REACH, "aria-valuemax": REACH, class: "gm-pad", ...ALLOW_ARROWS});
  pad.style.cssText = "touch-action:none; cursor:crosshair; background:white; outline-offset:-3px";  // else the cell cuts it off
  focusRing(pad);
  const side = add(page, "div"), paintDigit = digit(side), reading = add(side, "div", {"aria-live": "polite"});
  side.style.width = `${PICTURE}px`;
  add(side, "div", {}, "Drag, or use the arrow keys; Page Up and Down, Home and End go further.");
  const scatter = document.createElement("canvas");
  scatter.width = scatter.height = SIDE;
  const ink = scatter.getContext("2d"), screen = v => (v + REACH) / (2 * REACH) * SIDE;
  ink.font = "9px sans-serif";
  data.codes.forEach(([x, y], i) => {
    ink.fillStyle = data.colours[data.labels[i]];
    ink.fillText(data.labels[i], screen(x) - 3, SIDE - screen(y) + 3);
  });

  const z = [0, 0];
  const paint = newest(() => {
    const context = pad.getContext("2d"), [x, y] = [screen(z[0]), SIDE - screen(z[1])];
    context.clearRect(0, 0, SIDE, SIDE);
    context.drawImage(scatter, 0, 0);
    context.lineWidth = 3;
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.moveTo(x - 14, y); context.lineTo(x + 14, y);
    context.moveTo(x, y - 14); context.lineTo(x, y + 14);
    context.stroke();
    const text = `z₁ = ${fixed(z[0])}, z₂ = ${fixed(z[1])}`;
    reading.textContent = text;
    pad.setAttribute("aria-valuenow", z[0]);
    pad.setAttribute("aria-valuetext", text);
    paintDigit(decode(z), `digit decoded at ${text}`);
  });
  const move = (x, y) => {
    [x, y].forEach((value, i) => { z[i] = Math.max(-REACH, Math.min(REACH, value)); });
    paint();
  };
  const point = event => {
    const box = pad.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width * 2 - 1) * REACH, (1 - (event.clientY - box.top) / box.height * 2) * REACH);
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

// ---------------------------------------------------------------- one slider for each latent

function latentSliders(page, data, decode) {
  const left = add(page, "div"), paintDigit = digit(left), reading = add(left, "div", {"aria-live": "polite"});
  const grid = add(page, "div");
  grid.style.cssText = "flex:1 1 285px; display:grid; grid-template-columns:repeat(auto-fit, 285px); gap:2px 16px";
  const inputs = [], z = [];                            // z exactly; a slider shows it rounded to its steps
  let code = 0;
  const paint = newest(() => {
    paintDigit(decode(z), "digit decoded from the sliders");
    reading.textContent = `from the code of a ${data.labels[code]}; norm of z: ${Math.hypot(...z).toFixed(2)}`;
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
    input.addEventListener("input", () => { z[latent] = +input.value; input.show(); paint(); });
    inputs[latent] = input;
  }
  const set = values => {
    inputs.forEach((input, latent) => { input.value = z[latent] = values[latent]; input.show(); });
    paint();
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  const buttons = {
    "reset": () => set(data.codes[code]),
    "random": () => set(inputs.map(normal)),
    "encode another digit": () => { code = (code + 1) % data.codes.length; set(data.codes[code]); },
  };
  for (const [label, action] of Object.entries(buttons)) add(left, "button", {type: "button"}, label).addEventListener("click", action);
  set(data.codes[code]);
}
