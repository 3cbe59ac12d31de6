// The decision of second order: objective, constraints, gains and their errors, as src/tikmix_pipeline/mixture has them
// (response.py, objective.py, fairness.py, guardrails.py, own_share.py). `problem` is a WhatIfProblem and `settings`
// WhatIfSettings of report/whatif_records.py. Names of axes: T tasks, U targets, K domains.

const KINK = 1e-5; // rounds off the standard deviation where all targets gain alike
const GAINS_OF_PAPER = 9;
const NO_LOGARITHMS = { log_K: [], floor_K: [] };

/** The position of the controls that is the decision's own. */
function settingsOf(problem) {
  const { objective } = problem;
  const names = [...problem.tasks, ...Object.keys(objective.task_groups)];
  const sides = { lower: "min", upper: "max" };
  return {
    task_weights: Object.fromEntries(names.map((name) => [name, own(objective.task_weights, name, 1)])),
    tolerances: Object.fromEntries(problem.guardrails.map((one) => [one.name, one.tolerance])),
    entropy: objective.entropy,
    pareto: objective.pareto,
    max_weight: 1,
    bounds: Object.fromEntries(problem.domains.map((name, k) => [name, { ...problem.bounds[k] }])),
    groups: Object.fromEntries(problem.groups.map((one) => [`${one.name}.${sides[one.side]}`, one.weight])),
  };
}

/** A field by a name that a user chose: `constructor` is a name like any other. */
function own(fields, name, otherwise) {
  return Object.hasOwn(fields, name) ? fields[name] : otherwise;
}

/** The mixture by these settings, or null where none is within them. */
function decide(problem, settings) {
  const [low, high] = boxOf(problem, settings);
  const groups = groupConstraints(problem, settings);
  const reference = nearest(problem, low, high, groups);
  if (reference === null) return null;
  const targets = targetsOf(problem, settings);
  if (targets.length === 0) return null;
  const goal = goalOf(problem, settings, targets);
  const held = [...groups, ...paretoConstraints(problem, settings, reference)];
  const solve = (constraints) => minimise(goal, problem.curved_KK, low, high, constraints);
  const asksForErrors = problem.guardrails.some((one) => one.unit === "stderr");
  const unguarded = asksForErrors ? solve(held) ?? reference : reference;
  const guards = guardrails(problem, settings, targets, reference, plus(unguarded, reference, -1));
  const found = solve([...held, ...guards.map((one) => one.constraint)]);
  // the reference is within every constraint, so that it is the worst that may come of this
  const w = found === null || goal.value(reference) < goal.value(found) - 1e-9 ? reference : found;
  return { w, reference, targets, guards, low, high, objective: goal.value(w) };
}

function boxOf(problem, settings) {
  const bounds = problem.domains.map((name) => settings.bounds[name]);
  const low = bounds.map((one) => one.low);
  return [low, bounds.map((one) => Math.min(one.high, Math.max(settings.max_weight, 0)))];
}

function groupConstraints(problem, settings) {
  return problem.groups.map((group) => {
    const [sign, side] = group.side === "lower" ? [1, "min"] : [-1, "max"];
    const row = problem.domains.map((_, k) => (group.members.includes(k) ? sign : 0));
    return constraint(row, 0, sign * settings.groups[`${group.name}.${side}`], problem.curved_KK);
  });
}

/** a w - bend/2 w'Qw + b ln(w + floor) >= least; `logarithms` are b and floor, for those that have any. */
function constraint(row, bend, least, curved, logarithms = NO_LOGARITHMS) {
  const { log_K: b, floor_K: floor } = logarithms;
  return {
    bend,
    room: (w) => dot(row, w) - (bend ? (bend / 2) * dot(w, times(curved, w)) : 0) + logarithm(logarithms, w) - least,
    slope: (w) => {
      const linear = bend ? plus(row, times(curved, w), -bend) : row;
      return b.length ? linear.map((slope, k) => slope + (b[k] ? b[k] / (w[k] + floor[k]) : 0)) : linear;
    },
    bendOfLogarithms: (w, k) => (b[k] ? b[k] / (w[k] + floor[k]) ** 2 : 0),
  };
}

/** What own shares count (mixture/own_share.py). */
function logarithm({ log_K: b, floor_K: floor }, w) {
  return sum(b.map((value, k) => (value ? value * Math.log(Math.max(w[k], 0) + floor[k]) : 0)));
}

/** The mixture within the bounds that is nearest to the prior. */
function nearest(problem, low, high, groups) {
  const prior = problem.prior_K;
  const isInside = prior.every((value, k) => value >= low[k] - 1e-12 && value <= high[k] + 1e-12);
  if (isInside && groups.every((one) => one.room(prior) > -1e-9)) return prior;
  const identity = prior.map((_, k) => prior.map((__, l) => (k === l ? 1 : 0)));
  const goal = {
    value: (w) => dot(plus(w, prior, -1), plus(w, prior, -1)) / 2,
    gradient: (w) => plus(w, prior, -1),
    hessian: () => identity,
  };
  return minimise(goal, problem.curved_KK, low, high, groups);
}

/** Targets: {members: [[task, share]], weight}; the weights are scaled to sum to how many they are. */
function targetsOf(problem, settings) {
  const groupOf = new Map();
  for (const [group, members] of Object.entries(problem.objective.task_groups)) for (const task of members) groupOf.set(task, group);
  const found = new Map();
  problem.tasks.forEach((task, t) => {
    if (!problem.counts_T[t]) return;
    const group = groupOf.get(task);
    const weight = settings.task_weights[group ?? task];
    const share = group === undefined ? 1 : settings.task_weights[task];
    if (!(weight > 0) || !(share > 0)) return;
    const key = group === undefined ? `task ${task}` : `group ${group}`;
    if (!found.has(key)) found.set(key, { members: [], weight });
    found.get(key).members.push([t, share]);
  });
  const targets = [...found.values()];
  const all = sum(targets.map((target) => target.weight));
  return targets.map(({ members, weight }) => {
    const whole = sum(members.map(([, share]) => share));
    return { members: members.map(([t, share]) => [t, share / whole]), weight: (weight * targets.length) / all };
  });
}

/** What each task has of the mean of the targets; they sum to 1. */
function taskShares(problem, targets) {
  const shares = problem.tasks.map(() => 0);
  for (const { members, weight } of targets) for (const [t, share] of members) shares[t] += (weight * share) / targets.length;
  return shares;
}

function meanRow(problem, targets) {
  const shares = taskShares(problem, targets);
  return problem.domains.map((_, k) => dot(shares, problem.contrast_TK.map((row) => row[k])));
}

/** What the gain of each task is divided by. */
function unitsOf(problem, targets) {
  if (problem.objective.normaliser === "best") return problem.scale_T;
  const common = dot(taskShares(problem, targets), problem.scale_T) || 1;
  return problem.scale_T.map(() => common);
}

/** Rows and bends of the targets' normalised gains: row w - bend/2 w'Qw. */
function targetRows(problem, targets) {
  const units = unitsOf(problem, targets);
  return targets.map(({ members, weight }) => ({
    weight,
    row: problem.domains.map((_, k) => sum(members.map(([t, share]) => (share * problem.contrast_TK[t][k]) / units[t]))),
    bend: problem.saturation * sum(members.map(([t, share]) => share / units[t])),
  }));
}

/** F(w) = uneven - beta (sum of gains) - gamma (H(w) + w ln q) with its derivatives. */
function goalOf(problem, settings, targets) {
  const { objective, curved_KK: curved, prior_K: prior } = problem;
  const rows = targetRows(problem, targets);
  const beta = objective.gain ?? GAINS_OF_PAPER / Math.max(rows.length, 1);
  const bend = sum(rows.map((one) => one.weight * one.bend));
  const linear = problem.domains.map((_, k) => sum(rows.map((one) => one.weight * one.row[k])));
  const pull = (objective.anchor_K ?? prior.map(() => 1)).map((value) => settings.entropy * Math.log(value));
  const uneven = objective.fairness === "softmin" ? softLeast(objective, rows, curved, prior) : spread(rows);
  const [alpha, gamma] = [objective.uniformity, settings.entropy];
  return {
    value: (w) => {
      const gains = dot(linear, w) - (bend / 2) * dot(w, times(curved, w));
      const entropy = -sum(w.map((value) => (value > 0 ? value * Math.log(value) : 0)));
      return (alpha ? alpha * uneven.value(w) : 0) - beta * gains - gamma * entropy - dot(pull, w);
    },
    gradient: (w) => {
      const bent = plus(linear, times(curved, w), -bend);
      const slope = alpha ? scaled(uneven.gradient(w), alpha) : w.map(() => 0);
      return slope.map((value, k) => value - beta * bent[k] + (gamma ? gamma * (Math.log(Math.max(w[k], 1e-12)) + 1) : 0) - pull[k]);
    },
    hessian: (w) => {
      const bows = alpha ? uneven.hessian(w) : null;
      return curved.map((row, k) => row.map((value, l) => {
        const itself = k === l && gamma ? gamma / Math.max(w[k], 1e-12) : 0;
        return beta * bend * value + itself + (bows ? alpha * bows[k][l] : 0);
      }));
    },
  };
}

/** The weighted standard deviation of the targets' linear gains; its value is exact, its derivatives without the kink. */
function spread(rows) {
  const count = rows.length;
  const mean = rows[0].row.map((_, k) => sum(rows.map((one) => one.weight * one.row[k])) / count);
  const apart = rows.map((one) => plus(one.row, mean, -1));
  const square = (w) => sum(apart.map((row, u) => rows[u].weight * dot(row, w) ** 2)) / count;
  const rounded = (w) => Math.hypot(Math.sqrt(square(w)), KINK);
  const gradient = (w) => {
    const width = rounded(w);
    return mean.map((_, k) => sum(apart.map((row, u) => rows[u].weight * dot(row, w) * row[k])) / (count * width));
  };
  return {
    value: (w) => Math.sqrt(square(w)),
    gradient,
    hessian: (w) => {
      const [width, slope] = [rounded(w), gradient(w)];
      const outer = (k, l) => sum(apart.map((row, u) => rows[u].weight * row[k] * row[l])) / count;
      return mean.map((_, k) => mean.map((__, l) => (outer(k, l) - slope[k] * slope[l]) / width));
    },
  };
}

/** Minus the soft minimum of the targets' gains. */
function softLeast(objective, rows, curved, prior) {
  const [tau, count] = [objective.temperature, rows.length];
  const before = dot(prior, times(curved, prior));
  const gains = (w) => {
    const bent = (dot(w, times(curved, w)) - before) / 2;
    return rows.map((one) => dot(one.row, w) - one.bend * bent);
  };
  const say = (w) => {
    const gain = gains(w);
    const least = Math.min(...gain);
    const raw = gain.map((value, u) => (rows[u].weight / count) * Math.exp(-(value - least) / tau));
    return { least, whole: sum(raw), shares: scaled(raw, 1 / sum(raw)) };
  };
  const slopes = (w) => { const bent = times(curved, w); return rows.map((one) => plus(one.row, bent, -one.bend)); };
  const mean = (w, shares, slope) => w.map((_, k) => sum(slope.map((row, u) => shares[u] * row[k])));
  return {
    value: (w) => { const { least, whole } = say(w); return tau * Math.log(whole) - least; },
    gradient: (w) => scaled(mean(w, say(w).shares, slopes(w)), -1),
    hessian: (w) => {
      const [{ shares }, slope] = [say(w), slopes(w)];
      const [middle, bend] = [mean(w, shares, slope), sum(rows.map((one, u) => shares[u] * one.bend))];
      return w.map((_, k) => w.map((__, l) => {
        const both = sum(slope.map((row, u) => shares[u] * row[k] * row[l])) - middle[k] * middle[l];
        return bend * curved[k][l] + both / tau;
      }));
    },
  };
}

/** No task may gain less than under the reference. */
function paretoConstraints(problem, settings, reference) {
  if (!settings.pareto) return [];
  const held = problem.tasks.map((_, t) => t).filter((t) => problem.counts_T[t]);
  return held.map((t) => {
    const [row, bend] = [scaled(problem.contrast_TK[t], 1 / problem.scale_T[t]), problem.saturation / problem.scale_T[t]];
    return leastGain(row, bend, 0, reference, problem.curved_KK);
  });
}

/** A gain that may be less than under the reference by no more than a slack. */
function leastGain(row, bend, slack, reference, curved, logarithms = NO_LOGARITHMS) {
  const bent = (bend / 2) * dot(reference, times(curved, reference));
  const at = dot(row, reference) - bent + logarithm(logarithms, reference);
  return constraint(row, bend, at - slack, curved, logarithms);
}

/** The guardrails: gain + share * mean gain >= -slack over the reference, in the unit of the tasks' mean influence. */
function guardrails(problem, settings, targets, reference, movedTo) {
  const mean = meanRow(problem, targets);
  const unit = largest(mean) || 1;
  return problem.guardrails.map((one) => {
    const tolerance = settings.tolerances[one.name];
    const share = one.unit === "share" ? tolerance / one.strength : 0;
    const perUnit = one.unit === "stderr" ? errorOf(one.stderr_K, movedTo) : one.per_unit;
    const row = scaled(plus(one.row_K, mean, share), 1 / unit);
    const bend = (problem.saturation * ((one.bends ? 1 : 0) + share)) / unit;
    const slack = (perUnit * tolerance) / unit;
    const logarithms = { log_K: scaled(one.log_K, 1 / unit), floor_K: one.floor_K };
    const held = leastGain(row, bend, slack, reference, problem.curved_KK, logarithms);
    return { ...one, tolerance, perUnit, mean, constraint: held };
  });
}

function errorOf(errors, move) {
  return Math.sqrt(sum(errors.map((error, k) => (move[k] === 0 ? 0 : (error * move[k]) ** 2))));
}

/** The gain of a row over a mixture in the units of S, to second order unless another saturation says otherwise. */
function gainOver(problem, row, w, from, saturation = problem.saturation) {
  const move = plus(w, from, -1);
  return dot(row, move) - (saturation / 2) * dot(move, times(problem.curved_KK, plus(w, from)));
}

/** What a guarded text pays over the prior, in the unit of its tolerance; null where the tasks gain nothing that it could be a share of. */
function paid(problem, guard, w, prior) {
  const saturation = guard.bends ? problem.saturation : 0;
  const lost = logarithm(guard, prior) - logarithm(guard, w) - gainOver(problem, guard.row_K, w, prior, saturation);
  if (guard.unit !== "share") return guard.perUnit > 0 ? lost / guard.perUnit : null;
  const gained = gainOver(problem, guard.mean, w, prior);
  return gained > 1e-9 * (largest(guard.mean) || 1) ? (lost * guard.strength) / gained : null;
}

/** The standard error of each task's gain from the sampled sequences, to first order (influence/standard_error.py). */
function gainErrors(spreads, move) {
  return spreads.weight_TM.map((weight, t) => {
    const rows = spreads.row_TMK[t].map((row) => dot(row, move));
    const middle = dot(weight, rows);
    const squares = sum(weight.map((u, m) => u * u * (rows[m] - middle) ** 2));
    const ofTask = squares / (1 - dot(weight, weight));
    const apart = (parts) => sum(parts.map((part, k) => part * move[k] ** 2));
    const [ofDomains, both] = [apart(spreads.domain_TK[t]), apart(spreads.interaction_TK[t])];
    return Math.sqrt(ofTask + ofDomains - Math.min(both, ofTask, ofDomains));
  });
}

/** The mean gain of the tasks over a mixture in nats, and half its interval, where branches have told. */
function meanInNats(problem, targets, w, from) {
  const told = problem.branches;
  if (!told) return null;
  const [mean, move] = [meanRow(problem, targets), plus(w, from, -1)];
  const x = dot(mean, move);
  const z = dot(move, times(problem.curved_KK, plus(w, from))) / 2;
  const row = [x, -z];
  const variance = 1 + dot(row, times(told.covariance, row));
  const half = told.quantile * told.noise * Math.sqrt(variance);
  return { nats: told.scale * (x - problem.saturation * z), half_width: half, level: told.level };
}
