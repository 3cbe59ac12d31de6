// Minimises a convex function over mixtures: w sums to 1, low <= w <= high, and every constraint's room is >= 0.
//
// A primal-dual interior point method (Boyd and Vandenberghe, Convex Optimization, section 11.7) with a slack for every
// constraint, so that a start need not be within them. A domain or two dozen make systems so small that a Newton step
// takes microseconds, and it finds to eight digits what a projected gradient would creep up to.
//
// goal:        {value(w), gradient(w), hessian(w)}
// constraints: {room(w), slope(w), bend, bendOfLogarithms(w, k)}, concave; the Hessian of the room is -bend * curved, less
//              bendOfLogarithms on the diagonal

const LEAST_WIDTH = 1e-9; // a narrower range holds a weight
const TOLERANCE = 1e-10; // of complementarity
const RELAXED = 1e-8; // by how much constraints give way: some leave a single mixture, and no inside
const MOST_STEPS = 300;

function minimise(goal, curved, low, high, constraints) {
  const free = low.map((_, k) => k).filter((k) => high[k] - low[k] > LEAST_WIDTH);
  const start = startWithin(low, high);
  if (start === null) return null;
  if (free.length < 2 || start.isCorner) return isWithin(start.w, constraints) ? start.w : null;
  const problem = { goal, curved, low, high, constraints, free };
  let point = firstPoint(problem, start.w);
  for (let step = 0; step < MOST_STEPS; step += 1) {
    const gap = dot(point.s, point.z) / point.s.length;
    const residual = residuals(problem, point, 0.15 * gap);
    if (gap < TOLERANCE && residual.infeasible < 1e-9 && residual.dual < 1e-7) break;
    const next = lineSearch(problem, point, newton(problem, point, residual), residual, 0.15 * gap);
    if (next === null) break;
    point = next;
  }
  return isWithin(point.w, constraints) && Math.abs(sum(point.w) - 1) < 1e-6 ? point.w : null;
}

/** The mixture that lies as far between low and high for every weight; null where there is none. */
function startWithin(low, high) {
  const [least, most] = [sum(low), sum(high)];
  if (least > 1 + 1e-9 || most < 1 - 1e-9 || low.some((value, k) => value > high[k] + 1e-12)) return null;
  const share = most > least ? Math.min(1, Math.max(0, (1 - least) / (most - least))) : 0;
  return { w: low.map((value, k) => value + share * (high[k] - value)), isCorner: share < 1e-12 || share > 1 - 1e-12 };
}

function isWithin(w, constraints) {
  return constraints.every((one) => one.room(w) > -1e-6);
}

/** Slacks are those of the box, then those of the constraints. */
function rooms(problem, w) {
  const { low, high, free, constraints } = problem;
  return [
    ...free.map((k) => w[k] - low[k]),
    ...free.map((k) => high[k] - w[k]),
    ...constraints.map((one) => one.room(w) + RELAXED),
  ];
}

function firstPoint(problem, w) {
  const s = rooms(problem, w).map((room, i) => (i < 2 * problem.free.length ? room : Math.max(room, 0.05)));
  return { w, s, z: s.map((slack) => 0.1 / Math.max(slack, 0.01)), nu: 0 };
}

/** What each condition of the optimum is off by, for a complementarity of `centre`. */
function residuals(problem, point, centre) {
  const { free, goal, constraints } = problem;
  const { w, s, z, nu } = point;
  const slopes = constraints.map((one) => one.slope(w));
  const gradient = goal.gradient(w);
  const dual = free.map((k, i) => {
    const held = z[i] - z[free.length + i] + slopes.reduce((all, slope, c) => all + slope[k] * z[2 * free.length + c], 0);
    return gradient[k] - held + nu;
  });
  const primal = rooms(problem, w).map((room, i) => room - s[i]);
  const total = sum(w) - 1;
  const centred = s.map((slack, i) => slack * z[i] - centre);
  const infeasible = Math.max(Math.abs(total), ...primal.map(Math.abs));
  const norm = Math.sqrt(dot(dual, dual) + dot(primal, primal) + total * total + dot(centred, centred));
  return { dualRow: dual, primal, total, centred, slopes, norm, infeasible, dual: Math.max(...dual.map(Math.abs)) };
}

/** The Newton step of the conditions, from the system that is left when slacks and multipliers are taken out. */
function newton(problem, point, residual) {
  const { free, goal, curved, constraints } = problem;
  const { w, s, z } = point;
  const [n, hessian] = [free.length, goal.hessian(w)];
  const bent = constraints.reduce((all, one, c) => all + z[2 * n + c] * one.bend, 0);
  const pull = s.map((slack, i) => (residual.centred[i] + z[i] * residual.primal[i]) / slack);
  const matrix = free.map((k, i) => [
    ...free.map((l, j) => {
      const box = i === j ? z[i] / s[i] + z[n + i] / s[n + i] : 0;
      const held = residual.slopes.reduce((all, a, c) => all + (z[2 * n + c] / s[2 * n + c]) * a[k] * a[l], 0);
      const own = i === j ? constraints.reduce((all, one, c) => all + z[2 * n + c] * one.bendOfLogarithms(w, k), 0) : 0;
      return hessian[k][l] + bent * curved[k][l] + own + box + held;
    }),
    1,
  ]);
  matrix.push([...free.map(() => 1), 0]);
  const right = free.map((k, i) => {
    const held = residual.slopes.reduce((all, a, c) => all + a[k] * pull[2 * n + c], 0);
    return -residual.dualRow[i] - (pull[i] - pull[n + i] + held);
  });
  const found = solveLinear(matrix, [...right, -residual.total]);
  return { dw: found.slice(0, n), dnu: found[n], ...slackSteps(problem, point, residual, found.slice(0, n)) };
}

function slackSteps(problem, point, residual, dw) {
  const along = residual.slopes.map((a) => problem.free.reduce((all, k, i) => all + a[k] * dw[i], 0));
  const ds = [...dw, ...dw.map((value) => -value), ...along].map((move, i) => move + residual.primal[i]);
  const dz = ds.map((move, i) => (-residual.centred[i] - point.z[i] * move) / point.s[i]);
  return { ds, dz };
}

/** The longest step, of those halved, that stays inside and brings the residual down; null where none does. */
function lineSearch(problem, point, step, residual, centre) {
  let length = Math.min(1, 0.995 * furthest(point.s, step.ds), 0.995 * furthest(point.z, step.dz));
  for (let attempt = 0; attempt < 40; attempt += 1, length /= 2) {
    const next = moved(problem, point, step, length);
    const norm = residuals(problem, next, centre).norm;
    if (norm <= (1 - 0.01 * length) * residual.norm || norm < 1e-12) return next;
  }
  return null;
}

function furthest(values, steps) {
  return values.reduce((least, value, i) => (steps[i] < 0 ? Math.min(least, -value / steps[i]) : least), Infinity);
}

function moved(problem, point, step, length) {
  const w = [...point.w];
  problem.free.forEach((k, i) => { w[k] += length * step.dw[i]; });
  return {
    w,
    s: point.s.map((value, i) => value + length * step.ds[i]),
    z: point.z.map((value, i) => value + length * step.dz[i]),
    nu: point.nu + length * step.dnu,
  };
}

// ---- vectors and matrices

function sum(values) { return values.reduce((all, value) => all + value, 0); }
function dot(a, b) { return a.reduce((all, value, k) => all + value * b[k], 0); }
function times(matrix, v) { return matrix.map((row) => dot(row, v)); }
function scaled(v, factor) { return v.map((value) => value * factor); }
function plus(a, b, factor = 1) { return a.map((value, k) => value + factor * b[k]); }
function largest(v) { return v.reduce((most, value) => Math.max(most, Math.abs(value)), 0); }

/** Gaussian elimination with the largest pivot of a column. */
function solveLinear(matrix, right) {
  const rows = matrix.map((row, i) => [...row, right[i]]);
  const n = rows.length;
  for (let k = 0; k < n; k += 1) {
    let pivot = k;
    for (let i = k + 1; i < n; i += 1) if (Math.abs(rows[i][k]) > Math.abs(rows[pivot][k])) pivot = i;
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    if (rows[k][k] === 0) rows[k][k] = 1e-300;
    for (let i = k + 1; i < n; i += 1) {
      const factor = rows[i][k] / rows[k][k];
      if (factor !== 0) for (let j = k; j <= n; j += 1) rows[i][j] -= factor * rows[k][j];
    }
  }
  const found = new Array(n).fill(0);
  for (let k = n - 1; k >= 0; k -= 1) {
    let rest = rows[k][n];
    for (let j = k + 1; j < n; j += 1) rest -= rows[k][j] * found[j];
    found[k] = rest / rows[k][k];
  }
  return found;
}
