// Flow matching in the plane: a velocity that carries noise to data, and the page that goes through its time.

ACTIVATIONS.silu = a => a / (1 + Math.exp(-a));

function fieldOf({frequencies, ...network}, steps = 50) { // steps: of the way from time 0 to 1, by midpoint
  const net = layers(network);
  const velocity = (x, t) => {
    const angles = frequencies.map(own => own * t);
    return net.reduce(pass, Float32Array.of(...x, ...angles.map(Math.sin), ...angles.map(Math.cos)));
  };
  const along = (x, v, h) => x.map((own, i) => own + h * v[i]);
  const divergence = (x, t) => {
    const D = 5e-3;                                    // wide enough for float32
    return [0, 1].reduce((sum, i) => {
      const [after, before] = [D, -D].map(own => velocity(x.map((value, j) => value + own * (i === j)), t)[i]);
      return sum + (after - before) / (2 * D);
    }, 0);
  };
  const step = (x, k, way, measured) => {              // from step k to step k + way
    const h = way / steps, t = k / steps, middle = along(x, velocity(x, t), h / 2);
    return {point: along(x, velocity(middle, t + h / 2), h), integral: measured ? h * divergence(middle, t + h / 2) : 0};
  };
  const back = (x, k) => { for (; k > 0; k--) x = step(x, k, -1).point; return x; };
  const path = start => {                              // from noise to data: at each step the point, and ∫ div v until there
    const all = [{point: start, integral: 0}];
    for (let k = 0; k < steps; k++) {
      const next = step(all[k].point, k, 1, true);
      all.push({point: next.point, integral: all[k].integral + next.integral});
    }
    return all;
  };
  return {steps, velocity, step, back, path};
}

function flowInTime(page, data) {
  const REACH = 2.6, SECONDS = 4, field = fieldOf(data), side = Array.from({length: 12}, (_, i) => (2 * i / 11 - 1) * 2.4);
  const grid = side.flatMap(x => side.map(y => [x, y]));
  let time = 0, clouds = [], colours = [], path = field.path([-0.6, 0.9]);
  const at = () => Math.round(time * field.steps);     // the step that is shown
  const {plane, slider, anew, checked, read, moved, played} = planePage(page, {
    reach: REACH, letter: "x", name: "time τ", range: {min: 0, max: 1, step: 1 / field.steps, value: 0}, box: "velocity",
    help: "Drag the circle, or use the arrow keys: the line is the whole way of its point, from noise at τ = 0 to data at τ = 1.",
  });
  checked.checked = true;

  const cloud = k => {                                 // computed when it is first asked for
    for (let i = clouds.length; i <= k; i++) clouds.push(clouds[i - 1].map(own => field.step(own, i - 1, 1).point));
    return clouds[k];
  };
  const paint = newest(() => {
    const k = at(), {point, integral} = path[k], [start, end] = [path[0].point, path.at(-1)], t = k / field.steps;
    plane.clear();
    plane.points(cloud(k), colours);
    if (checked.checked) for (const own of grid) {
      const v = field.velocity(own, t);
      plane.arrow(own, own.map((value, i) => value + 0.1 * v[i]));
    }
    plane.lines([path.map(own => own.point)], "#111111", 2);
    plane.mark(point);
    plane.axes();
    const noise = logNormal(start);
    read(point, `τ = ${fixed(t)}: x = ${pair(point)}, log p = ${fixed(noise - integral)} nats`,
      `from ε = ${pair(start)} to x = ${pair(end.point)}\nlog p(x) = log p(ε) − ∫ div v dτ:\n`
      + `${fixed(noise - end.integral)} = ${fixed(noise)} ${end.integral < 0 ? "+" : "−"} ${fixed(Math.abs(end.integral))} nats`);
  });
  const draw = () => {
    clouds = [Array.from({length: 300}, () => [normal(), normal()])];
    colours = clouds[0].map(own => colourOf(own[0]));
    paint();
  };
  const pause = played(seconds => {
    time = Math.min(1, time + seconds / SECONDS);
    slider.value = time;
    paint();
    return time < 1;
  }, () => { if (time === 1) time = 0; });
  moved(to => {
    path = field.path(field.back(to.map(own => Math.max(-REACH, Math.min(REACH, own))), at()));
    paint();
  }, () => path[at()].point);
  slider.addEventListener("input", () => { pause(); time = +slider.value; paint(); });
  checked.addEventListener("change", paint);
  anew.addEventListener("click", draw);
  draw();
}
