// The page itself: settings in, solution out, and the file that records a prediction.

const WIDEST_NAME = 22; // characters that a table makes room for on one line, as in the report

/** Why no mixture is within the settings, in a sentence. */
function whyNone(problem, settings) {
  const [low, high] = boxOf(problem, settings);
  if (targetsOf(problem, settings).length === 0) return "Every task counts nothing: give one of them a weight.";
  const crossed = problem.domains.filter((_, k) => low[k] > high[k] + 1e-12);
  if (crossed.length) return `The most for any one domain is below what ${crossed[0]} must have at least.`;
  if (sum(high) < 1 - 1e-9) return `The domains may have at most ${percent(sum(high))} together: let some of them have more.`;
  if (sum(low) > 1 + 1e-9) return `The domains must have at least ${percent(sum(low))} together: let some of them have less.`;
  return "No mixture is within the limits of the groups and the bounds of the domains.";
}

/** The record of what is shown (Prediction of report/whatif_records.py). */
function predictionOf(content, settings, now, recorded) {
  const { problem } = content;
  const named = (weights) => Object.fromEntries(problem.domains.map((name, k) => [name, weights[k]]));
  const nats = (task) => (content.nats_per_unit === null ? null : task.raw * content.nats_per_unit);
  const known = (error) => (Number.isFinite(error) ? error : null);
  return {
    kind: "tikmix-prediction", version: 1,
    experiment: content.experiment, round: content.round, checkpoint: content.checkpoint, recorded,
    chunk_tokens: content.chunk_tokens,
    settings: structuredClone(settings),
    current: named(problem.current_K), decided: named(content.decided_K), mixture: named(now.w),
    unit: content.unit,
    gains: Object.fromEntries(now.tasks.map((task) => [task.name, { gain: task.gain, stderr: known(task.stderr), nats: nats(task) }])),
    mean: now.nats,
    objective: now.objective,
  };
}

function download(name, record) {
  const blob = new Blob([`${JSON.stringify(record, null, 2)}\n`], { type: "application/json" });
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function sayNothingSolves(at) {
  at("alert").hidden = false;
  at("alert").textContent = "This page's solver finds no mixture for the round's own settings, so that it has nothing to show.";
  at("back").disabled = at("record").disabled = true;
}

/** Connects the controls with what is shown. */
function main() {
  const content = JSON.parse(document.getElementById("data").textContent);
  const { problem } = content;
  const at = (id) => document.getElementById(id);
  const longest = Math.max(...[...problem.domains, ...problem.tasks].map((name) => name.length));
  document.body.style.setProperty("--name", `${Math.min(longest + 2, WIDEST_NAME)}ch`);
  let settings = settingsOf(problem);
  let now = null;
  const first = decide(problem, settings);
  if (first === null) { sayNothingSolves(at); return; }
  // the decision by the same weights of tasks, so that the two compare
  const decidedBy = (targets) => outcome(content, { ...first, targets, w: content.decided_K });
  const show = buildControls(at("controls"), problem, () => settings, refreshSoon);

  function refresh() {
    const solution = decide(problem, settings);
    now = solution === null ? null : outcome(content, solution);
    show();
    at("alert").hidden = now !== null;
    at("record").disabled = now === null;
    at("results").classList.toggle("stale", now === null);
    if (now === null) { at("alert").textContent = whyNone(problem, settings); return; }
    const decided = decidedBy(solution.targets);
    showTiles(at("tiles"), content, now, decided);
    showResults(at("results"), content, now, decided);
  }

  let isAsked = false;
  function refreshSoon() {
    at("status").textContent = "";
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => { isAsked = false; refresh(); });
  }

  at("back").addEventListener("click", () => {
    settings = settingsOf(problem);
    refresh();
    at("status").textContent = "These are the settings of the decision.";
  });
  at("record").addEventListener("click", () => {
    const record = predictionOf(content, settings, now, new Date().toISOString());
    const name = `prediction-${content.experiment.replace(/[^\w.-]+/g, "_")}-round-${content.round}.json`;
    download(name, record);
    at("status").textContent = `Recorded in ${name}.`;
  });
  refresh();
  const apart = sum(plus(now.w, content.decided_K, -1).map(Math.abs)) / 2;
  document.body.dataset.apart = apart;
  if (apart > 1e-3) at("status").textContent = `This page's own solution is ${percent(apart, 2)} of the tokens from the decided mixture.`;
}

if (document.getElementById("data")) main();
