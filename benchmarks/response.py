"""How well are the losses of real branches told, without any and from a few? All surfaces of benchmarks/surfaces.

    make bench NAME=response

trains nothing. What is told is the gain of each branch over the prior's, in nats per token on the tasks' evaluation
halves; branches that a fit learns from are known by their query halves. Rows:

- `S w`: influence alone, the paper's;
- `rule`: gains of second order with the default r, and no branch;
- `six`: c₁ and r fitted to the prior's branch and six others, on all the rest; means over draws;
- `process`: a Gaussian process on the square roots of the weights, from the same six; and from 32;
- `held-out`: the rule on the mean of the domains' held-out text, and `strength`, how many times as many nats a unit of
  that is as of the tasks' (`optimize.heldout_strength`).

`coverage` is how many of the branches that were not learned from are inside their 90 % interval, and `decided` how many
of the mixtures that are decided there (second order, guarded, the paper's) are within two standard errors. The last
line is one JSON object; the surface that the rule was chosen on, the default corpus with seed 0 after round 0, is not
in it.

Axes: N branches, T tasks, K domains.
"""

import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from common import print_figures, print_table

FloatArray = npt.NDArray[np.float64]
SURFACES = Path(__file__).resolve().parent / "surfaces"
CURVATURE = "kfac 0.1"
CHOSEN_ON = "default-llama-tiny-seed0-round0"
FEW, MANY, DRAWS, LEVEL, TWO_ERRORS = 6, 32, 200, 0.9, 0.9545
PROCESS_DRAWS = 20
"""A Gaussian process takes a second to learn."""

DECIDED = {
    "second r=0.5": (0.5, 0.0),
    "second r=0.7": (0.7, 0.0),
    "second r=1": (1.0, 0.0),
    "guarded r=0.6 0.3": (0.6, 0.3),
    "guarded r=0.6 1": (0.6, 1.0),
}
"""Mixtures by second order that every surface has a branch of: r, and what the mean of held-out text counts beside the
mean of the tasks."""


def main() -> None:
    """Print a table of all surfaces, and the mean over those that nothing was chosen on."""
    from tikmix_pipeline.parameters import OptimizeParameters

    rule = OptimizeParameters().saturation
    found = {surface.name: _told(surface, rule) for surface in surfaces()}
    columns = list(next(iter(found.values())))
    print(f"r = {rule}; {DRAWS} draws of {FEW} branches, {PROCESS_DRAWS} for the processes")
    print_table(["surface", *columns], [[name, *(f"{row[c]:.2f}" for c in columns)] for name, row in found.items()])
    judged = {name: row for name, row in found.items() if name != CHOSEN_ON}
    figures = {"surfaces": float(len(judged))}
    for corpus in ("default", "extended"):
        rows = [row for name, row in judged.items() if name.startswith(corpus)]
        if rows:
            means = {column: float(np.mean([row[column] for row in rows])) for column in columns}
            figures |= {
                f"pearson_without_branches_{corpus}": means["rule"],
                f"pearson_per_task_{corpus}": means["rule/task"],
                f"pearson_linear_{corpus}": means["S w"],
                f"pearson_with_six_{corpus}": means["six"],
                f"heldout_strength_{corpus}": means["strength"],
            }
    if judged:
        named = {
            "pearson_without_branches": "rule",
            "pearson_with_six": "six",
            "coverage": "coverage",
            "decided": "decided",
        }
        figures |= {name: float(np.mean([row[column] for row in judged.values()])) for name, column in named.items()}
    print_figures(figures)


def _told(surface: "Surface", rule: float) -> dict[str, float]:
    """Return how well each way agrees with what the branches gained."""
    from scipy.stats import spearmanr

    from tikmix_pipeline.mixture.response_fit import coordinates, fit_response
    from tikmix_pipeline.mixture.second_order import second_order_gains

    influence_TK, curved_KK = surface.products[CURVATURE, "influence"], surface.convex()
    reference_K = surface.weights_NK[surface.reference]
    gain_NT, query_NT = (losses[surface.reference] - losses for losses in (surface.evaluation_NT, surface.query_NT))
    gain_N, query_N = gain_NT.mean(axis=1), query_NT.mean(axis=1)
    x_N, z_N = coordinates(influence_TK.mean(axis=0), curved_KK, surface.weights_NK, reference_K)
    told_NT = second_order_gains(influence_TK, curved_KK, rule, surface.weights_NK, reference_K)
    others = np.flatnonzero(np.arange(len(gain_N)) != surface.reference)
    rng = np.random.default_rng(0)
    six, inside, process, many, decided = [], [], [], [], []
    are_decided = [surface.branches.index(name) for name in (*DECIDED, "paper")]
    for draw in range(DRAWS):
        order = rng.permutation(others)
        few, rest = order[:FEW], order[FEW:]
        fitted = fit_response(x_N[few], z_N[few], query_N[few], rule)
        expected_N = fitted.mean_gain(x_N[rest], z_N[rest])
        six.append(correlation(expected_N, gain_N[rest]))
        half_N = fitted.half_width(x_N[rest], z_N[rest], LEVEL)
        inside.append(np.mean(np.abs(expected_N - gain_N[rest]) <= half_N))
        told_half_N = fitted.half_width(x_N[are_decided], z_N[are_decided], TWO_ERRORS)
        off_N = fitted.mean_gain(x_N[are_decided], z_N[are_decided]) - gain_N[are_decided]
        decided.append(np.mean(np.abs(off_N) <= told_half_N) if not set(few) & set(are_decided) else np.nan)
        for count, kept in ((FEW, process), (MANY, many)) if draw < PROCESS_DRAWS else ():
            predict = gaussian_process(surface.weights_NK[order[:count]], query_N[order[:count]])
            kept.append(correlation(predict(surface.weights_NK[order[count:]]), gain_N[order[count:]]))
    per_task = [correlation(told_NT[:, t], gain_NT[:, t]) for t in range(gain_NT.shape[1])]
    told_N = x_N - rule * z_N
    return {
        "S w": correlation(x_N, gain_N),
        "rule": correlation(told_N, gain_N),
        "rule, ranks": float(spearmanr(told_N, gain_N)[0]),
        "rule/task": float(np.mean(per_task)),
        "six": float(np.mean(six)),
        "coverage": float(np.mean(inside)),
        "decided": float(np.nanmean(decided)),
        "process": float(np.mean(process)),
        "process of 32": float(np.mean(many)),
        **_of_heldout(surface, curved_KK, rule, nats_per_unit(told_N, gain_N)),
    }


def _of_heldout(surface: "Surface", curved_KK: FloatArray, rule: float, of_tasks: float) -> dict[str, float]:
    """Return how well the rule tells held-out text, and its nats per unit over those of the tasks."""
    from tikmix_pipeline.mixture.response_fit import coordinates

    heldout_N = (surface.heldout_NK[surface.reference] - surface.heldout_NK).mean(axis=1)
    mean_K = surface.products[CURVATURE, "linear"].mean(axis=0)
    x_N, z_N = coordinates(mean_K, curved_KK, surface.weights_NK, surface.weights_NK[surface.reference])
    told_N = x_N - rule * z_N
    strength = nats_per_unit(told_N, heldout_N) / of_tasks
    return {"held-out": correlation(told_N, heldout_N), "strength": strength}


def nats_per_unit(told_N: FloatArray, gain_N: FloatArray) -> float:
    """Return the slope, by least squares, of gains on what is told of them; the reference has neither."""
    return float(told_N @ gain_N) / float(told_N @ told_N)


def correlation(one_N: FloatArray, other_N: FloatArray) -> float:
    """Return Pearson's; 0 where one side is the same everywhere, as a process may be that has learned nothing."""
    return float(np.corrcoef(one_N, other_N)[0, 1]) if min(np.std(one_N), np.std(other_N)) > 0 else 0.0


def gaussian_process(weights_NK: FloatArray, gain_N: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Fit a Gaussian process on √w; return what predicts."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.01)
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(np.sqrt(weights_NK), gain_N)
    return lambda others_NK: np.asarray(process.predict(np.sqrt(others_NK)))


def best_mixture(
    influence_TK: FloatArray,
    linear_KK: FloatArray,
    curved_KK: FloatArray,
    *,
    r: float,
    guard: float,
    box: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Return what maximises `mean_t S_t w + guard · mean_k D_k w − (1 + guard) r/2 · wᵀQw` within a box."""
    slope_K = influence_TK.mean(axis=0) + guard * linear_KK.mean(axis=0)
    curved_KK = (1 + guard) * r * (curved_KK + curved_KK.T) / 2
    scale = np.abs(slope_K).max()
    low_K, high_K = box
    best = None
    for start_K in (np.full(len(slope_K), 1 / len(slope_K)), np.eye(len(slope_K))[slope_K.argmax()]):
        found = minimize(
            lambda w_K: (w_K @ curved_KK @ w_K / 2 - slope_K @ w_K) / scale,
            np.clip(start_K, low_K, high_K),
            jac=lambda w_K: (curved_KK @ w_K - slope_K) / scale,
            bounds=np.column_stack(box),
            constraints={"type": "eq", "fun": lambda w_K: w_K.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-10},
        )
        best = found if best is None or found.fun < best.fun else best
    assert best is not None
    weights_K: FloatArray = np.clip(best.x, low_K, high_K)
    return weights_K / weights_K.sum()


@dataclass(frozen=True)
class Surface:
    """The files of a surface, as arrays."""

    name: str
    domains: list[str]
    tasks: list[str]
    branches: list[str]
    weights_NK: FloatArray
    query_NT: FloatArray
    evaluation_NT: FloatArray
    heldout_NK: FloatArray
    products: dict[tuple[str, str], FloatArray]

    @classmethod
    def read(cls, folder: Path) -> "Surface":
        """Read a folder that `surfaces.py` has written."""
        with (folder / "branches.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {
            kind: [name for name in rows[0] if name.startswith(f"{kind}/")]
            for kind in ("weight", "query", "evaluation", "heldout")
        }
        arrays = {kind: np.array([[float(row[n]) for n in names] for row in rows]) for kind, names in columns.items()}
        products: dict[tuple[str, str], list[list[float]]] = {}
        domains = [name.partition("/")[2] for name in columns["weight"]]
        with (folder / "products.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                products.setdefault((row["curvature"], row["kind"]), []).append([float(row[d]) for d in domains])
        return cls(
            folder.name,
            domains,
            [name.partition("/")[2] for name in columns["evaluation"]],
            [row["branch"] for row in rows],
            arrays["weight"],
            arrays["query"],
            arrays["evaluation"],
            arrays["heldout"],
            {key: np.array(values) for key, values in products.items()},
        )

    @property
    def reference(self) -> int:
        """Which branch is the prior's."""
        return self.branches.index("prior")

    def convex(self) -> FloatArray:
        """Return Q without its negative part."""
        from tikmix_pipeline.influence.between_domains import convex_part

        return convex_part(self.products[CURVATURE, "curved"])


def surfaces() -> list[Surface]:
    """Return all that are finished."""
    return [Surface.read(path.parent) for path in sorted(SURFACES.glob("*/made.json"))]


if __name__ == "__main__":
    main()
