// The flow of the plane: its couplings both ways, and the page that goes through them layer by layer.

function flowOf({bound, couplings}, change = own => own) { // change: of the function that gives a coupling's scale and shift
  const parts = couplings.map(own => {
    const net = layers(own);
    const scaleAndShift = value => {
      const [raw, shift] = net.reduce(pass, Float32Array.of(value));
      return [bound * Math.tanh(raw / bound), shift];
    };
    return {moved: own.moved, of: change(scaleAndShift)};
  });
  // a point, and log |det|. A part of a layer, as in 2.25 of them, goes straight from where it begins to where it ends,
  // which is an affine coupling, too
  const at = (part, point, share) => {
    const [scale, shift] = part.of(point[1 - part.moved]);
    return [1 - share + share * Math.exp(scale), share * shift];
  };
  const forward = (x, depth = parts.length) => {
    const point = [...x];
    let logDet = 0;
    for (let i = 0; i < depth; i++) {
      const [factor, shift] = at(parts[i], point, Math.min(1, depth - i));
      point[parts[i].moved] = factor * point[parts[i].moved] + shift;
      logDet += Math.log(factor);
    }
    return {point, logDet};
  };
  const inverse = (h, depth = parts.length) => {
    const point = [...h];
    let logDet = 0;
    for (let i = Math.ceil(depth) - 1; i >= 0; i--) {
      const [factor, shift] = at(parts[i], point, Math.min(1, depth - i));
      point[parts[i].moved] = (point[parts[i].moved] - shift) / factor;
      logDet -= Math.log(factor);
    }
    return {point, logDet};
  };
  const logDensity = (h, depth) => {                   // of what the layers up to there make of the flow's samples, in nats
    const back = inverse(h, depth), through = forward(back.point);
    return logNormal(through.point) + through.logDet + back.logDet;
  };
  return {depth: parts.length, forward, inverse, logDensity};
}

function tabled(f) {                                   // linear between nodes, each computed when it is first asked for
  const NODES = 50, nodes = new Map();                 // nodes for each unit: to draw with
  const node = i => {
    if (!nodes.has(i)) nodes.set(i, f(i / NODES));
    return nodes.get(i);
  };
  return value => {
    const i = Math.floor(value * NODES), share = value * NODES - i, [a, b] = [node(i), node(i + 1)];
    return [0, 1].map(own => a[own] + share * (b[own] - a[own]));
  };
}

const logNormal = z => -Math.log(2 * Math.PI) - (z[0] ** 2 + z[1] ** 2) / 2;

function gridLines() {                                 // of the data's plane, as lists of points
  const range = (count, reach) => Array.from({length: count}, (_, i) => (2 * i / (count - 1) - 1) * reach);
  const upright = range(17, 2).map(x => range(100, 1.5).map(y => [x, y]));
  return [...upright, ...range(17, 1.5).map(y => range(100, 2).map(x => [x, y]))];
}

function colourOf(x) {                                 // blue on the left, orange on the right
  const share = Math.max(0, Math.min(1, x / 3 + 0.5));
  return `rgb(${[[0, 213], [114, 94], [178, 0]].map(([from, to]) => Math.round(from + share * (to - from)))})`;
}

function planeOf(canvas, reach, letter) {              // the drawing: density, grid, arrows, points, the point that is moved
  const side = canvas.width, context = canvas.getContext("2d");
  const at = ([x, y]) => [(x + reach) / (2 * reach) * side, (reach - y) / (2 * reach) * side];
  const axes = () => {
    context.fillStyle = context.strokeStyle = "#555555";
    context.font = `${side / 32}px sans-serif`;
    for (const value of [-3, -2, -1, 0, 1, 2, 3]) {
      const [x, y] = at([value, value]), text = String(value).replace("-", "−");
      context.fillRect(x, side - 8, 1.5, 8);
      context.fillRect(0, y, 8, 1.5);
      context.fillText(text, x - side / 80, side - 14);
      if (value) context.fillText(text, 14, y + side / 90);
    }
    context.fillText(`${letter}₁`, side - 40, side - 14);
    context.fillText(`${letter}₂`, 14, side / 24);
  };
  return {
    clear() { context.fillStyle = "white"; context.fillRect(0, 0, side, side); },
    density(logDensity) {
      const cells = 90, size = side / cells;
      for (let row = 0; row < cells; row++) for (let column = 0; column < cells; column++) {
        const h = [(2 * (column + 0.5) / cells - 1) * reach, (1 - 2 * (row + 0.5) / cells) * reach];
        context.fillStyle = `rgba(0, 0, 0, ${Math.min(0.75, 1.5 * Math.exp(logDensity(h))).toFixed(3)})`;
        context.fillRect(column * size, row * size, size, size);
      }
    },
    lines(all, colour = "#999999", width = 1) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      for (const line of all) {
        context.beginPath();
        line.forEach(own => context.lineTo(...at(own)));
        context.stroke();
      }
    },
    points(all, colours) {
      all.forEach((own, i) => {
        const [x, y] = at(own);
        context.fillStyle = colours[i];
        context.fillRect(x - 2.5, y - 2.5, 5, 5);
      });
    },
    arrow(from, to) {
      const [a, b] = [at(from), at(to)], angle = Math.atan2(b[1] - a[1], b[0] - a[0]), head = side / 70;
      context.strokeStyle = "#767676";
      context.lineWidth = 2;
      context.beginPath();
      context.moveTo(...a);
      context.lineTo(...b);
      for (const turn of [2.6, -2.6]) {
        context.moveTo(...b);
        context.lineTo(b[0] + head * Math.cos(angle + turn), b[1] + head * Math.sin(angle + turn));
      }
      context.stroke();
    },
    mark(point) {
      for (const [width, colour] of [[9, "white"], [4, "black"]]) {
        context.lineWidth = width;
        context.strokeStyle = colour;
        context.beginPath();
        context.arc(...at(point), 14, 0, 2 * Math.PI);
        context.stroke();
      }
    },
    axes,
  };
}

// A canvas with a point that mouse, finger or keys move, a slider that can be played, a button, a box to check, a reading.
function planePage(page, {reach, name, range, box, help, letter}) {
  const SIDE = 450;
  const canvas = add(page, "canvas", {width: 2 * SIDE, height: 2 * SIDE, tabindex: 0, role: "slider", class: "gm-pad",
    "aria-label": "a point of the plane: arrow keys move it", "aria-valuemin": -reach, "aria-valuemax": reach});
  canvas.style.cssText = `touch-action:none; cursor:crosshair; width:${SIDE}px; max-width:100%; outline-offset:-3px`;
  focusRing(canvas);
  const side = add(page, "div"), label = add(side, "label", {}, `${name} `), plane = planeOf(canvas, reach, letter);
  side.style.cssText = "flex:1 1 240px; max-width:450px";
  label.style.display = "block";
  const slider = add(label, "input", {type: "range", ...range, "aria-label": name});
  slider.style.cssText = "display:block; width:100%; margin:4px 0 8px";
  const button = text => add(side, "button", {type: "button"}, text), play = button("▶ play"), anew = button("draw anew");
  const choice = add(side, "label"), checked = add(choice, "input", {type: "checkbox"});
  choice.style.cssText = "display:block; margin-top:8px";
  add(choice, "span", {}, ` ${box}`);
  const reading = add(side, "div", {"aria-live": "polite"});
  reading.style.cssText = "margin-top:8px; min-height:5em; white-space:pre-line";
  add(side, "p", {}, help);
  [slider, play, anew].forEach(focusRing);
  return {
    plane, slider, anew, checked,
    read(point, where, more) {
      reading.textContent = `${where}\n${more}`;
      canvas.setAttribute("aria-valuenow", Math.max(-reach, Math.min(reach, point[0])));
      canvas.setAttribute("aria-valuetext", where);
    },
    moved(move, point) {                               // move(to) for what is pointed at, or a key's step from point()
      const pointed = event => {
        const at = canvas.getBoundingClientRect(), share = (own, low, size) => (2 * (own - low) / size - 1) * reach;
        move([share(event.clientX, at.left, at.width), -share(event.clientY, at.top, at.height)]);
      };
      canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); canvas.focus(); pointed(event); });
      canvas.addEventListener("pointermove", event => { if (event.buttons) pointed(event); });
      canvas.addEventListener("keydown", event => {
        const step = stepOf(event);
        if (step) move(point().map((own, i) => own + step[i]));
      });
    },
    played(advance, rewind) {                          // advance(seconds) says whether to go on; returns what makes it pause
      let frame = 0, last = 0;
      const pause = () => {
        cancelAnimationFrame(frame);
        frame = last = 0;
        play.textContent = "▶ play";
        reading.setAttribute("aria-live", "polite");
      };
      const step = now => {
        const on = advance(last ? Math.min(now - last, 100) / 1000 : 0);
        last = now;
        if (on) frame = requestAnimationFrame(step);
        else pause();
      };
      play.addEventListener("click", () => {
        if (frame) return pause();
        rewind();
        play.textContent = "pause";
        reading.setAttribute("aria-live", "off");
        frame = requestAnimationFrame(step);
      });
      new IntersectionObserver(seen => { if (!seen.at(-1).isIntersecting) pause(); }).observe(page);
      return pause;
    },
  };
}

const pair = point => `(${point.map(fixed).join(", ")})`;

function flowLayers(page, data) {
  const REACH = 4, SECONDS = 6, flow = flowOf(data), rough = flowOf(data, tabled), lines = gridLines();
  let x = null, depth = flow.depth / 2, samples = [], colours = [];
  const {plane, slider, anew, checked, read, moved, played} = planePage(page, {
    reach: REACH, letter: "h", name: "depth (layers)", range: {min: 0, max: flow.depth, step: 0.25, value: depth},
    box: "density (the darker, the higher)",
    help: "Drag the circle, or use the arrow keys. At depth 0 the points are samples, at the last layer draws of a normal distribution.",
  });

  const paint = newest(() => {
    plane.clear();
    if (checked.checked) plane.density(h => rough.logDensity(h, depth));
    plane.lines(lines.map(line => line.map(own => rough.forward(own, depth).point)));
    plane.points(samples.map(own => rough.forward(own, depth).point), colours);
    const {point: z, logDet} = flow.forward(x), {point: here} = flow.forward(x, depth);
    plane.mark(here);
    plane.axes();
    const outside = here.some(own => Math.abs(own) > REACH) ? ", outside the picture" : "";
    read(here, `after ${+depth.toFixed(2)} layers: h = ${pair(here)}${outside}`,
      `x = ${pair(x)}, z = ${pair(z)}\nlog p(x) = log p(z) + log |det|:\n`
      + `${fixed(logNormal(z) + logDet)} = ${fixed(logNormal(z))} + ${fixed(logDet)} nats`);
  });
  const draw = () => {
    samples = Array.from({length: 500}, () => rough.inverse([normal(), normal()]).point);
    colours = samples.map(own => colourOf(own[0]));
    x ??= samples[0];
    paint();
  };
  const move = h => {
    x = flow.inverse(h.map(own => Math.max(-REACH, Math.min(REACH, own))), depth).point;
    paint();
  };
  const pause = played(seconds => {                    // from noise to data, where it stops
    depth = Math.max(0, depth - seconds / SECONDS * flow.depth);
    slider.value = depth;                              // which it shows rounded to its steps
    paint();
    return depth > 0;
  }, () => { if (!depth) depth = flow.depth; });
  moved(move, () => flow.forward(x, depth).point);
  slider.addEventListener("input", () => { pause(); depth = +slider.value; paint(); });
  checked.addEventListener("change", paint);
  anew.addEventListener("click", draw);
  draw();
}
