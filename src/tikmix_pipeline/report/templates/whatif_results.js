// What a reader sees of a solution: tiles, the mixture, the gains and the guardrails, each beside the decision.

const ERRORS = 2; // standard errors from zero that count as distinguishable, as in the report
const [WIDTH, EDGE] = [240, 6];
const UNIT_NAMES = { share: "shares of the best possible", nats: "nats per token" };

/** All that is shown of one solution: numbers only. */
function outcome(content, solution) {
  const { problem, spread, unit_T: units } = content;
  const { w } = solution;
  const move = plus(w, problem.current_K, -1);
  const errors = gainErrors(spread, move);
  const tasks = problem.tasks.map((name, t) => {
    const raw = gainOver(problem, problem.contrast_TK[t], w, problem.current_K);
    return { name, raw, gain: raw / units[t], stderr: errors[t] / units[t] };
  });
  const shares = taskShares(problem, solution.targets);
  return {
    w, tasks,
    moved: sum(move.map(Math.abs)) / 2,
    mean: dot(shares, tasks.map((task) => task.gain)),
    nats: meanInNats(problem, solution.targets, w, problem.current_K),
    guards: solution.guards.map((guard) => ({
      guard,
      paid: paid(problem, guard, w, problem.prior_K),
      isBinding: guard.constraint.room(w) < 1e-5,
    })),
    epochs: w.map((weight, k) => (content.consumed_K[k] + weight * content.chunk_tokens) / content.available_K[k]),
    isOutside: largest(plus(solution.reference, problem.prior_K, -1)) > 5e-4,
    low: solution.low, high: solution.high, objective: solution.objective,
  };
}

function reading(task) {
  if (task.gain === 0) return "unchanged";
  if (Number.isFinite(task.stderr) && Math.abs(task.gain) < ERRORS * task.stderr) return "not distinguishable from zero";
  return task.gain > 0 ? "gains" : "loses";
}

/** How many decimals show the largest of some figures with three digits. */
function decimalsOf(figures) {
  const most = Math.max(1e-12, ...figures.filter(Number.isFinite).map(Math.abs));
  return Math.min(8, Math.max(1, 2 - Math.floor(Math.log10(most))));
}

/** With its sign; what rounds to nothing has none. */
function signed(value, digits) {
  const text = minus(value.toFixed(digits));
  return Number(text) > 0 ? `+${text}` : text;
}

function withError(value, error, digits) {
  return Number.isFinite(error) ? `${signed(value, digits)} ± ${error.toFixed(digits)}` : signed(value, digits);
}

// ---- tiles: what it is, the figure, its unit, and the decision's figure

function showTiles(place, content, now, decided) {
  const clear = (one) => one.tasks.filter((task) => reading(task) === "gains").length;
  const guard = now.guards.find((one) => one.guard.name === "heldout") ?? now.guards[0];
  const tiles = [
    now.nats ? natsTile(now.nats, decided.nats) : meanTile(UNIT_NAMES[content.unit], now.mean, decided.mean),
    ["Tasks that gain clearly", `${clear(now)} of ${now.tasks.length}`, "", `decision: ${clear(decided)}`],
    ["Tokens that move to other domains", percent(now.moved), "", `decision: ${percent(decided.moved)}`],
    ...(guard ? [guardTile(guard)] : []),
  ];
  place.replaceChildren(...tiles.map(([term, shown, unit, aside]) => el("div", {},
    el("dt", {}, term),
    el("dd", {}, shown, unit ? el("small", {}, unit) : null, el("small", { class: "aside" }, aside)))));
}

const MEAN = "Mean gain of the tasks, by their weights";

function meanTile(unit, now, decided) {
  const digits = decimalsOf([now, decided]);
  return [MEAN, signed(now, digits), unit, `decision: ${signed(decided, digits)}`];
}

function natsTile(now, decided) {
  const digits = decimalsOf([now.nats, now.half_width]);
  const unit = `nats per token, ${Math.round(now.level * 100)}\u00a0% interval`;
  return [MEAN, `${signed(now.nats, digits)} ± ${now.half_width.toFixed(digits)}`, unit, `decision: ${signed(decided.nats, digits)}`];
}

function guardTile({ guard, paid: lost }) {
  const [name, allowed] = [guardrailName(guard), `may lose: ${figure(guard.tolerance, guard.unit)}`];
  if (lost === null) return [`${name} loses`, "–", "", allowed];
  return [`${name} ${lost < 0 ? "gains" : "loses"}`, figure(Math.abs(lost), guard.unit), UNITS[guard.unit].unit, allowed];
}

// ---- tables, whose rows are laid out as blocks on a narrow screen (style.css)

function table(heads, rows) {
  const head = heads.map(([text, className]) => el("th", { role: "columnheader", scope: "col", class: className || null, "aria-label": className === "chart" ? "Chart" : null }, text));
  return el("table", { class: "rows", role: "table" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)),
    el("tbody", { role: "rowgroup" }, ...rows.map((cells) => el("tr", { role: "row" }, ...cells))));
}

const nameCell = (text) => el("th", { role: "rowheader", scope: "row" }, text);
const cell = (label, text, className = "number") => el("td", { role: "cell", class: className, "data-label": text ? label : null }, text);

function chart(described, height, ...marks) {
  return el("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": described }, ...marks);
}

function diamond(x, y) {
  return el("path", { d: `M${x - 4.5} ${y}L${x} ${y - 4.5}L${x + 4.5} ${y}L${x} ${y + 4.5}Z`, style: "fill: var(--free); stroke: var(--paper)" });
}

function legend(...entries) {
  return el("p", { class: "legend" }, ...entries.map(([className, text]) => el("span", { class: `key ${className}` }, text)));
}

// ---- the mixture

function mixtureTable(content, now, decided) {
  const { problem } = content;
  const order = problem.domains.map((_, k) => k).sort((a, b) => decided.w[b] - decided.w[a]);
  const most = Math.max(...now.w, ...decided.w, ...problem.current_K);
  const rows = order.map((k) => {
    const [w, was, plan] = [now.w[k], problem.current_K[k], decided.w[k]];
    return [
      nameCell(problem.domains[k]),
      el("td", { role: "cell", class: "chart" }, mixtureBand(problem.domains[k], w, was, plan, most)),
      cell("Current", percent(was)), cell("Decision", percent(plan)), cell("What if", percent(w), "number strong"),
      cell("Change, points", signed((w - was) * 100, 1)),
      cell("Read", Number.isFinite(now.epochs[k]) ? `${now.epochs[k].toPrecision(2)}\u00a0×` : ""),
      cell("Held by", heldBy(now, k), "words quiet"),
    ];
  });
  const heads = [["Domain", ""], ["", "chart"], ["Current", "number"], ["Decision", "number"], ["What if", "number"],
    ["Change, points", "number"], ["Read", "number"], ["Held by", ""]];
  return [
    el("h2", {}, "The mixture"),
    legend(["current", "current"], ["recommended", "what if"], ["free", "decision"]),
    table(heads, rows),
  ];
}

function mixtureBand(name, w, was, plan, most) {
  const x = (share) => EDGE + (share / most) * (WIDTH - 2 * EDGE);
  const bar = (share, y, height, colour) => el("rect", { x: EDGE, y, height, width: Math.max(0, x(share) - EDGE), style: `fill: var(--${colour})` });
  const described = `${name}: current ${percent(was)}, decision ${percent(plan)}, what if ${percent(w)}`;
  return chart(described, 26, bar(was, 3, 7, "current"), bar(w, 12, 10, "recommended"), diamond(x(plan), 17));
}

function heldBy(now, k) {
  if (now.high[k] - now.low[k] < 1e-9) return "fixed";
  if (now.w[k] > now.high[k] - 1e-5) return now.high[k] < 1 ? "its most" : "";
  return now.w[k] < now.low[k] + 1e-5 ? (now.low[k] > 0 ? "its least" : "zero") : "";
}

// ---- the gains

function gainTable(content, now, decided) {
  const unit = UNIT_NAMES[content.unit];
  const ends = [...now.tasks, ...decided.tasks].flatMap((task) => endsOf(task));
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const margin = 0.04 * (high - low || 1);
  const x = (value) => EDGE + ((value - low + margin) / (high - low + 2 * margin || 1)) * (WIDTH - 2 * EDGE);
  const digits = decimalsOf(ends);
  const rows = now.tasks.map((task, t) => {
    const [plan, said] = [decided.tasks[t], reading(task)];
    const gain = withError(task.gain, task.stderr, digits);
    return [
      nameCell(task.name),
      el("td", { role: "cell", class: "chart zero", style: `--zero: ${(x(0) / WIDTH).toFixed(4)}` }, gainBand(`${task.name}: ${gain} ${unit}, ${said}`, task, plan, x)),
      cell("Decision", signed(plan.gain, digits)), cell("What if ± standard error", gain, "number strong broad"),
      cell("Reading", said, `words ${said === "gains" || said === "loses" ? said : "quiet"}`),
    ];
  });
  const heads = [["Task", ""], ["", "chart"], ["Decision", "number"], ["What if ± standard error", "number"], ["Reading", ""]];
  return [
    el("h2", {}, "What each task is expected to gain"),
    el("p", { class: "how" }, `Over the current mixture, in ${unit}. The line through a point reaches two standard errors either way.`),
    legend(["point", "what if, ± 2 standard errors"], ["free", "decision"]),
    table(heads, rows),
  ];
}

function endsOf(task) {
  const reach = Number.isFinite(task.stderr) ? ERRORS * task.stderr : 0;
  return [task.gain - reach, task.gain + reach];
}

function gainBand(described, task, plan, x) {
  const [low, high] = endsOf(task).map(x);
  const isClear = ["gains", "loses"].includes(reading(task));
  const line = el("line", { x1: low, x2: high, y1: 11, y2: 11, style: "stroke: var(--recommended); stroke-width: 2" });
  const fill = `fill: var(--${isClear ? "recommended" : "paper"}); stroke: var(--recommended); stroke-width: 2`;
  return chart(described, 26, line, el("circle", { cx: x(task.gain), cy: 11, r: 4.5, style: fill }), diamond(x(plan.gain), 20));
}

// ---- the guardrails

function guardrailTable(now) {
  if (now.guards.length === 0) return [];
  const rows = now.guards.map((one) => {
    const { unit, tolerance } = one.guard;
    const expected = one.paid === null ? "not told: the tasks gain nothing" : `${one.paid < 0 ? "gains" : "loses"} ${inUnit(Math.abs(one.paid), unit)}`;
    return [
      nameCell(guardrailName(one.guard)),
      cell("Expected", expected, "words strong"),
      cell("May lose", inUnit(tolerance, unit), "words"),
      cell("State", one.isBinding ? "at its limit" : "has room", `words ${one.isBinding ? "loses" : "quiet"}`),
    ];
  });
  const from = "The current mixture is outside the bounds, so limits hold from the nearest mixture inside them, and figures are over the current one.";
  return [
    el("h2", {}, "What guarded text pays"),
    el("p", { class: "how" }, "A guardrail at its limit holds the mixture: allowing more would let the tasks gain more."),
    now.isOutside ? el("p", {}, from) : "",
    table([["Text", ""], ["Expected", ""], ["May lose", ""], ["State", ""]], rows),
  ];
}

function showResults(place, content, now, decided) {
  place.replaceChildren(...mixtureTable(content, now, decided), ...gainTable(content, now, decided), ...guardrailTable(now));
}
