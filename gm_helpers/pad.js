// Networks in the page: no kernel, no download, no framework. `start` finds the page's empty place and builds a pad,
// sliders or a walk there. What is written here is what gm_helpers/pages.py sends with its data.

const PIXEL = 6;                                       // of the screen for each of a decoded digit, as in every widget
const STEPS = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowDown: [0, -0.1], ArrowUp: [0, 0.1],
               PageDown: [0, -1], PageUp: [0, 1], Home: [-1, 0], End: [1, 0]};  // of a point in a plane, by key
const ALLOW_ARROWS = {"data-lm-suppress-shortcuts": "true"};  // else JupyterLab takes the keys for itself

function start(name, build, data) {
  document.querySelectorAll(`.gm-page[data-page="${name}"]:not([data-alive])`).forEach(page => begin(page, build, data));
}

function begin(page, build, data) {
  page.setAttribute("data-alive", "");
  page.style.cssText = "display:flex; flex-wrap:wrap; gap:16px; align-items:flex-start; max-width:900px; padding:3px; font:14px sans-serif";
  build(page, data);
}

// ---------------------------------------------------------------- weights from text

function halves(base64) {                              // float16 numbers, as text, to float32
  const letters = atob(base64), numbers = new Float32Array(letters.length / 2);
  const sizes = Float64Array.from({length: 32}, (_, exponent) => 2 ** (Math.max(exponent, 1) - 25));
  for (let i = 0; i < numbers.length; i++) {
    const word = letters.charCodeAt(2 * i) | letters.charCodeAt(2 * i + 1) << 8, exponent = word >> 10 & 31;
    const size = sizes[exponent] * (word & 1023 | (exponent ? 1024 : 0));
    numbers[i] = word >> 15 ? -size : size;
  }
  return numbers;
}

function wholes(text, lengths) {                       // the whole numbers of rows of these lengths; quantize.py has the code
  const values = new Uint8Array(127), words = new Uint16Array(text.length / 2);
  [...Array(94).keys()].map(i => i + 33).filter(own => !'"\\<'.includes(String.fromCharCode(own)))
    .forEach((letter, value) => { values[letter] = value; });
  for (let i = 0; i < words.length; i++) words[i] = 91 * values[text.charCodeAt(2 * i)] + values[text.charCodeAt(2 * i + 1)];
  const numbers = new Float32Array(lengths.reduce((sum, own) => sum + own, 0));
  let next = 0, bits = 0, held = 0, at = 0;            // of each word 13 bits, the first one lowest
  for (const length of lengths) {
    for (; held < 4; held += 13) bits |= words[next++] << held;
    const k = bits & 15;
    bits >>>= 4;
    held -= 4;
    for (const end = at + length; at < end; at++) {
      let high = 0;                                    // zeros, which a 1 ends
      for (; !bits; held = 13) { high += held; bits = words[next++]; }
      const zeros = 31 - Math.clz32(bits & -bits);
      bits >>>= zeros + 1;
      held -= zeros + 1;
      for (; held < k; held += 13) bits |= words[next++] << held;
      const folded = high + zeros << k | bits & (1 << k) - 1;
      bits >>>= k;
      held -= k;
      numbers[at] = folded & 1 ? -(folded + 1) / 2 : folded / 2;
    }
  }
  return numbers;
}

function layers({sizes, activations, halves: base64, text}) { // weight: one row for each output
  const all = halves(base64), rows = sizes.slice(1).flatMap((outputs, i) => Array(outputs).fill(sizes[i]));
  let at = 0, from = 0;
  const take = count => all.subarray(at, at += count), whole = text && wholes(text, rows);
  return activations.map((activation, i) => {
    const [inputs, outputs] = [sizes[i], sizes[i + 1]];
    let weight = take(text ? outputs : inputs * outputs);
    if (text) {                                        // each row's step is here, its whole numbers are in the text
      const steps = weight;
      weight = whole.subarray(from, from += inputs * outputs);
      for (let j = 0; j < weight.length; j++) weight[j] *= steps[j / inputs | 0];
    }
    return {weight, bias: take(outputs), activation};
  });
}

// ---------------------------------------------------------------- the network

const ACTIVATIONS = {
  tanh: a => Math.tanh(a),
  sigmoid: a => 1 / (1 + Math.exp(-a)),
  leaky: a => Math.max(a, 0.2 * a),
  relu: a => Math.max(a, 0),
  "": a => a,
};

function pass(x, {weight, bias, activation}) {         // plain loops, which are several times as fast as `map`
  const y = new Float32Array(bias.length), size = x.length;
  for (let row = 0, at = 0; row < y.length; row++) {
    let even = bias[row], odd = 0, i = 0;              // two sums: neither addition waits for the other
    for (; i + 1 < size; i += 2, at += 2) {
      even += weight[at] * x[i];
      odd += weight[at + 1] * x[i + 1];
    }
    if (i < size) even += weight[at++] * x[i];
    y[row] = even + odd;
  }
  return y.map(ACTIVATIONS[activation]);
}

function network(layers, black) {                      // a code to grey values 0…255, from outputs between black and 1
  return z => layers.reduce(pass, Float32Array.from(z)).map(y => Math.round(255 * (y - black) / (1 - black)));
}

// ---------------------------------------------------------------- parts of a page

function add(parent, tag, attributes = {}, text = "") {
  const element = parent.appendChild(document.createElement(tag));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function pictures(parent, columns, pixel, style = "") { // a canvas, and the function that paints grey values into a column
  const canvas = add(parent, "canvas", {width: 28 * columns, height: 28, role: "img", class: columns > 1 ? "gm-row" : "gm-digit"});
  canvas.style.cssText = `display:block; margin-bottom:4px; width:${28 * columns * pixel}px; image-rendering:pixelated; ${style}`;
  const context = canvas.getContext("2d"), image = context.createImageData(28, 28);
  return (grey, label, column = 0) => {
    grey.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    context.putImageData(image, 28 * column, 0);
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

function stepOf(event) {                               // where a key leads, which nobody else gets then
  if (!(event.key in STEPS) || event.altKey || event.ctrlKey || event.metaKey) return null;
  event.preventDefault();
  event.stopPropagation();
  return STEPS[event.key];
}

function focusRing(element) {
  element.addEventListener("focus", () => { element.style.outline = "3px solid #0072B2"; });
  element.addEventListener("blur", () => { element.style.outline = "1px solid #767676"; });
  element.style.outline = "1px solid #767676";
}

const fixed = value => value.toFixed(2).replace("-", "−");
const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

// ---------------------------------------------------------------- the plane of two latents

function latentPad(page, data) {
  const decode = network(layers(data), data.black);
  const SIDE = 450, [left, top, right, bottom] = data.frame.map(own => own * SIDE), reach = data.reach;
  const pad = add(page, "canvas", {width: SIDE, height: SIDE, tabindex: 0, role: "slider", "aria-label":
    "latent code z1, z2: arrow keys move the point", "aria-valuemin": -reach, "aria-valuemax": reach, class: "gm-pad", ...ALLOW_ARROWS});
  pad.style.cssText = "touch-action:none; cursor:crosshair; max-width:100%; outline-offset:-3px; background:0 0 / 100% 100%";
  pad.style.backgroundImage = `url(data:image/png;base64,${data.still})`;  // with its axes and their names
  focusRing(pad);
  const side = add(page, "div"), paintDigit = pictures(side, 1, PIXEL), reading = add(side, "div", {"aria-live": "polite"});
  side.style.width = "180px";
  add(side, "p", {}, "Drag, or use the arrow keys; Page Up and Down, Home and End go further.");
  const choice = add(side, "label"), underlay = add(choice, "input", {type: "checkbox", ...ALLOW_ARROWS});
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
  pad.addEventListener("keydown", event => {
    const step = stepOf(event);
    if (step) move(z[0] + step[0], z[1] + step[1]);
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

function latentSliders(page, data) {
  const decode = network(layers(data), data.black);
  const left = add(page, "div"), paintDigit = pictures(left, 1, PIXEL), reading = add(left, "div", {"aria-live": "polite"});
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
  const buttons = {
    "reset": encoded,
    "random": () => set(inputs.map(normal), "a draw of N(0, I)"),
    "encode another digit": () => { code = (code + 1) % data.codes.length; encoded(); },
  };
  for (const [label, action] of Object.entries(buttons)) add(left, "button", {type: "button", ...ALLOW_ARROWS}, label).addEventListener("click", action);
  encoded();
}

// ---------------------------------------------------------------- ways between two codes, and a walk

function straight(start, end, t) {                     // as torch.lerp, which ends exactly at the end
  return start.map((own, i) => t < 0.5 ? own + t * (end[i] - own) : end[i] - (end[i] - own) * (1 - t));
}

function spherical(start, end, t) {                    // as nn.slerp
  if (start === end) return start;                     // a code and itself have no angle
  const cosine = start.reduce((sum, own, i) => sum + own * end[i], 0) / (Math.hypot(...start) * Math.hypot(...end));
  const angle = Math.acos(cosine);
  return start.map((own, i) => (Math.sin((1 - t) * angle) * own + Math.sin(t * angle) * end[i]) / Math.sin(angle));
}

function latentWalk(page, data) {
  const decode = network(layers(data), data.black);
  const STOPS = 9, SECONDS = 4;                        // images along the way; from one end to the other
  const samples = data.codes.map((code, i) => ({code, name: `a ${data.labels[i]}`}));
  const draw = () => ({code: samples[0].code.map(normal), name: "a draw of N(0, I)"});
  const ends = data.ends.map(own => samples[own]);
  let t = 0.5, frame = 0, last = 0;                    // frame: the one that is waited for, 0 while nothing plays

  const left = add(page, "div"), right = add(page, "div"), controls = add(left, "div");
  left.style.cssText = `flex:1 1 300px; min-width:0; max-width:${56 * STOPS}px`;
  controls.style.cssText = "display:flex; flex-wrap:wrap; gap:8px 16px; margin-bottom:12px";
  const list = (label, names) => {
    const row = add(controls, "label", {}, `${label} `), own = add(row, "select", {"aria-label": label, ...ALLOW_ARROWS});
    names.forEach((name, value) => add(own, "option", {value}, name));
    focusRing(own);
    return own;
  };
  const names = [...samples.map((_, i) => `${data.labels[i]}: no. ${data.numbers[i]}`), "a new draw"];
  const lists = ["from", "to"].map(label => list(label, names)), way = list("way", ["straight", "spherical"]);
  const paintStop = pictures(left, STOPS, 2, "max-width:100%"), mark = add(left, "div");
  mark.style.cssText = "position:relative; width:0; margin:2px 0 2px -7px; border:solid transparent; border-width:0 7px 10px";
  mark.style.borderBottomColor = "currentColor";       // a triangle
  const slider = add(left, "input", {type: "range", min: 0, max: 1, step: 0.01, "aria-label": "fraction t", ...ALLOW_ARROWS});
  slider.style.cssText = "display:block; box-sizing:border-box; margin-bottom:8px";  // from middle to middle of the ends
  slider.style.width = `calc(${100 - 100 / STOPS}% + 16px)`;
  slider.style.marginLeft = `calc(${50 / STOPS}% - 8px)`;
  const button = add(left, "button", {type: "button", ...ALLOW_ARROWS}, "walk");
  const reading = add(left, "div", {"aria-live": "polite"}), paintDigit = pictures(right, 1, PIXEL);
  reading.style.cssText = "margin-top:8px; min-height:3.6em; white-space:pre-line";  // no jumps where a line gets longer
  [slider, button].forEach(focusRing);

  const at = share => [straight, spherical][way.selectedIndex](ends[0].code, ends[1].code, share);
  const paint = newest(() => {
    const code = at(t), path = `from ${ends[0].name} to ${ends[1].name}`;
    const [first, here, end] = [ends[0].code, code, ends[1].code].map(own => Math.hypot(...own).toFixed(1));
    mark.style.left = `${(0.5 + t * (STOPS - 1)) / STOPS * 100}%`;
    reading.textContent = `${path}, t = ${t.toFixed(2)};\nnorm of z: ${first} at the start, ${here} here, ${end} at the end`;
    paintDigit(decode(code), `image ${path}, at t = ${t.toFixed(2)}`);
  });
  const paintRow = newest(() => {
    for (let stop = 0; stop < STOPS; stop++)
      paintStop(decode(at(stop / (STOPS - 1))), `${STOPS} images from ${ends[0].name} to ${ends[1].name}`, stop);
  });
  const update = () => { paintRow(); paint(); };
  const pause = () => {
    cancelAnimationFrame(frame);
    frame = last = 0;
    button.textContent = "walk";
    reading.setAttribute("aria-live", "polite");
  };
  const step = now => {
    t += last ? Math.min(now - last, 100) / 1000 / SECONDS : 0;  // a hidden tab has had no frames
    last = now;
    if (t >= 1) {                                      // the end is the next start
      t = 0;
      ends.splice(0, 2, ends[1], draw());
      lists[0].value = lists[1].value;
      lists[1].value = samples.length;
      paintRow();
    }
    slider.value = t;
    paint();
    frame = requestAnimationFrame(step);
  };
  button.addEventListener("click", () => {
    if (frame) return pause();
    button.textContent = "pause";
    reading.setAttribute("aria-live", "off");          // nobody can listen to all of it
    frame = requestAnimationFrame(step);
  });
  new IntersectionObserver(seen => { if (!seen.at(-1).isIntersecting) pause(); }).observe(page);
  lists.forEach((own, end) => {
    own.value = data.ends[end];
    own.addEventListener("change", () => { ends[end] = samples[own.value] ?? draw(); update(); });
  });
  way.addEventListener("change", update);
  slider.addEventListener("input", () => { pause(); t = +slider.value; paint(); });
  slider.value = t;
  update();
}
