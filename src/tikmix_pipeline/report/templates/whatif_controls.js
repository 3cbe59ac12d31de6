// The controls: one slider for each thing that a decision depends on. They change `settings` in place and call `onChange`.
// Names are the user's own: they reach the page as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; null among these is left out. */
function el(tag, attributes = {}, ...children) {
  const isSvg = ["svg", "rect", "line", "circle", "path", "text"].includes(tag);
  const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function percent(share, digits = 1) {
  const least = 10 ** -digits;
  if (share > 0 && share * 100 < least / 2) return `<\u00a0${least.toFixed(digits)}\u00a0%`;
  return `${minus((share * 100).toFixed(digits))}\u00a0%`;
}

/** A true minus sign, and none for nothing. */
const minus = (text) => (Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−"));

let lastId = 0;

/** A labelled slider. `one` has name, read(), write(value), start, min, max, step, words(value) and perhaps a hint. */
function slider(one, onChange) {
  const id = `control-${lastId += 1}`;
  const input = el("input", { type: "range", id, min: one.min, max: one.max, step: one.step });
  const output = el("output", { for: id });
  const hint = one.hint ? el("p", { class: "hint", id: `${id}-hint` }, one.hint) : null;
  if (hint) input.setAttribute("aria-describedby", hint.id);
  if (one.spoken) input.setAttribute("aria-label", one.spoken);
  const row = el("div", { class: "control" }, el("label", { for: id }, one.name), output, input, hint);
  const show = () => {
    const value = one.read();
    input.value = value;
    output.textContent = one.words(value);
    input.setAttribute("aria-valuetext", one.words(value));
    row.classList.toggle("moved", Math.abs(value - one.start) > 1e-12);
  };
  input.addEventListener("input", () => { one.write(Number(input.value)); onChange(); });
  return { row, show };
}

/** All controls; returns what shows where `settings()` stands. */
function buildControls(form, problem, settings, onChange) {
  const start = settingsOf(problem);
  const shows = [];
  const add = (one) => { const made = slider(one, onChange); shows.push(made.show); return made.row; };
  form.append(el("h2", {}, "What decides"));
  form.append(fieldset("What each task counts", taskSliders(problem, settings, start).map(add)));
  form.append(fieldset("What may get worse", [...guardrailSliders(problem, settings, start).map(add), paretoBox(problem, settings, shows, onChange)]));
  form.append(fieldset("All domains", limitSliders(problem, settings, start).map(add)));
  if (problem.groups.length) form.append(fieldset("Groups of domains", groupSliders(problem, settings, start).map(add)));
  form.append(domainBounds(problem, settings, start, add));
  return () => shows.forEach((show) => show());
}

function fieldset(title, rows) {
  return el("fieldset", {}, el("legend", {}, title), ...rows);
}

function taskSliders(problem, settings, start) {
  const groups = problem.objective.task_groups;
  const groupOf = (task) => Object.keys(groups).find((group) => groups[group].includes(task));
  const counted = problem.tasks.filter((_, t) => problem.counts_T[t]);
  return [...Object.keys(groups), ...counted].map((name) => ({
    name,
    hint: groupOf(name) ? `its share of the group ${groupOf(name)}` : groups[name] ? `a group: ${groups[name].join(", ")}` : null,
    start: start.task_weights[name],
    read: () => settings().task_weights[name],
    write: (value) => { settings().task_weights[name] = value; },
    min: 0, max: Math.max(4, 2 * start.task_weights[name]), step: 0.1,
    words: (value) => `${value.toFixed(1)}\u00a0×`,
  }));
}

/** Units of tolerances: how many decimals they take, their names, and the most that a slider goes to. */
const UNITS = {
  share: { decimals: 2, unit: "of what the tasks gain", most: 2 },
  stderr: { decimals: 2, unit: "standard errors", most: 4 },
  nats: { decimals: 4, unit: "nats per token", most: 0.05 },
  percent: { decimals: 2, unit: "% of its loss", most: 4 },
  bits_per_byte: { decimals: 4, unit: "bits per byte", most: 0.02 },
};

const figure = (value, unit) => minus(value.toFixed(UNITS[unit].decimals));
const inUnit = (value, unit) => `${figure(value, unit)} ${UNITS[unit].unit}`;

function guardrailName(guard) {
  return guard.name === "heldout" ? "Held-out text of all domains" : guard.name;
}

function guardrailSliders(problem, settings, start) {
  return problem.guardrails.map((guard) => {
    const most = Math.max(UNITS[guard.unit].most, 2 * guard.tolerance);
    return {
      name: `${guardrailName(guard)} may lose`,
      start: start.tolerances[guard.name],
      read: () => settings().tolerances[guard.name],
      write: (value) => { settings().tolerances[guard.name] = value; },
      min: 0, max: most, step: most / 200,
      words: (value) => inUnit(value, guard.unit),
    };
  });
}

function paretoBox(problem, settings, shows, onChange) {
  const input = el("input", { type: "checkbox", id: "pareto" });
  shows.push(() => { input.checked = settings().pareto; });
  input.addEventListener("change", () => { settings().pareto = input.checked; onChange(); });
  return el("p", { class: "check" }, input, el("label", { for: "pareto" }, "No task may end worse than under the current mixture"));
}

function limitSliders(problem, settings, start) {
  const anchor = { uniform: "equal weights", current: "the current mixture", ngram: "the mixture of n-gram models" }[problem.objective.anchor];
  const most = Math.max(6, 2 * problem.objective.entropy);
  return [
    {
      name: "Most for any one domain", start: start.max_weight,
      read: () => settings().max_weight, write: (value) => { settings().max_weight = value; },
      min: 0, max: 1, step: 0.01, words: (value) => percent(value, 0),
    },
    {
      name: `Pull towards ${anchor}`, hint: "optimize.entropy; 0: gains and limits alone", start: start.entropy,
      read: () => settings().entropy, write: (value) => { settings().entropy = value; },
      min: 0, max: most, step: most / 120, words: (value) => `γ = ${value.toFixed(2)}`,
    },
  ];
}

function groupSliders(problem, settings, start) {
  return problem.groups.map((group) => {
    const key = `${group.name}.${group.side === "lower" ? "min" : "max"}`;
    return {
      name: `${group.name}: at ${group.side === "lower" ? "least" : "most"}`,
      hint: group.members.map((k) => problem.domains[k]).join(" + "),
      start: start.groups[key],
      read: () => settings().groups[key], write: (value) => { settings().groups[key] = value; },
      min: 0, max: 1, step: 0.005, words: (value) => percent(value),
    };
  });
}

function domainBounds(problem, settings, start, add) {
  const blocks = problem.domains.map((name) => {
    const bound = (side, words) => ({
      name: words, spoken: `${name}: ${words}`,
      hint: start.bounds[name][`${side}_parameter`] || null,
      start: start.bounds[name][side],
      read: () => settings().bounds[name][side],
      write: (value) => moveBound(settings().bounds[name], side, value),
      min: 0, max: 1, step: 0.005, words: (value) => percent(value),
    });
    return el("div", { class: "domain", role: "group", "aria-label": name }, el("span", {}, name), add(bound("low", "at least")), add(bound("high", "at most")));
  });
  const isOpen = problem.domains.length <= 8 && !window.matchMedia("(max-width: 900px)").matches;
  return el("details", { open: isOpen ? "" : null }, el("summary", {}, "Bounds of single domains"), ...blocks);
}

/** One bound takes the other along where they would cross. */
function moveBound(bounds, side, value) {
  bounds[side] = value;
  if (side === "low") bounds.high = Math.max(bounds.high, value);
  else bounds.low = Math.min(bounds.low, value);
}
