// Stored stages of a game in the page: no kernel, no network, no framework. `start` finds the page's empty place and
// builds a picture there with a choice, a slider and a button. gm_helpers/playground.py sends this with its data:
// name of a choice -> stages in their order, each a PNG in base64 and its text.

const PAUSE = 900;                                     // ms that a stage stays while it is played

function start(name, data) {
  for (const page of document.querySelectorAll(`.gm-page[data-page="${name}"]:not([data-alive])`)) {
    page.setAttribute("data-alive", "");
    build(page, data);
  }
}

function add(parent, tag, attributes = {}, text = "") {
  const element = parent.appendChild(document.createElement(tag));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function control(parent, tag, label, attributes = {}) { // with its label before it; JupyterLab leaves it its keys
  const outer = add(parent, "label", {}, `${label} `);
  return add(outer, tag, {"data-lm-suppress-shortcuts": "true", ...attributes});
}

function build(page, data) {
  page.style.cssText = "max-width:640px; font:14px/1.45 sans-serif";
  const row = add(page, "div"), last = Object.values(data)[0].length - 1;
  row.style.cssText = "display:flex; flex-wrap:wrap; gap:8px 16px; align-items:center";
  const choice = control(row, "select", "loss");
  for (const own of Object.keys(data)) add(choice, "option", {}, own);
  const slider = control(row, "input", "stage", {type: "range", min: 0, max: last, step: 1, value: 0});
  slider.style.verticalAlign = "middle";
  const button = add(row, "button", {type: "button", "data-lm-suppress-shortcuts": "true"});
  const picture = add(page, "img"), reading = add(page, "div");  // in this order: no change of its height moves anything
  picture.style.cssText = "display:block; max-width:100%; height:auto";
  let timer = 0;
  const show = () => {
    const stage = data[choice.value][slider.value], steps = stage.reading.split(";")[0];
    picture.src = `data:image/png;base64,${stage.picture}`;
    picture.alt = reading.textContent = stage.reading;
    slider.setAttribute("aria-valuetext", `stage ${slider.value} of ${last}. ${steps}`);
  };
  const play = on => {
    clearInterval(timer);
    timer = on ? setInterval(step, PAUSE) : 0;
    button.textContent = on ? "pause" : "play";
    reading.setAttribute("aria-live", on ? "off" : "polite"); // a screen reader could not follow
  };
  const step = () => {
    if (!page.isConnected || +slider.value === last) return play(false);
    slider.value = +slider.value + 1;
    show();
  };
  choice.addEventListener("change", show);
  slider.addEventListener("input", () => { play(false); show(); });
  button.addEventListener("click", () => {
    if (timer) return play(false);
    if (+slider.value === last) { slider.value = 0; show(); }
    play(true);
  });
  new IntersectionObserver(([own]) => { if (!own.isIntersecting) play(false); }).observe(page);  // nobody looks
  play(false);
  show();
}
