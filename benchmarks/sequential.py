"""How soon do branches that are chosen one by one tell the best mixture? All surfaces of benchmarks/surfaces.

    make bench NAME=sequential

trains nothing: a branch that is chosen is one of a surface's, known by its query half; what it is judged by are the
evaluation halves. Each run starts with the prior's branch, the best by second order and two that fill the space, and
goes on by expected improvement under `mixture.sweep.response_process`, one at a time. Rows, each the mean over `SEEDS`
starts:

- regret: what the mixture that the posterior likes best gains less than the best of the surface, nats per token;
- Spearman: of the posterior's mean with what was measured, over the branches that were not chosen. Choosing takes the
  best away, and leaves what is harder to tell apart: `at random` has the same after so many branches at random;
- coverage: how many of those are inside their 90 % interval;
- `with elsewhere`: the same rows, learned beside all branches of the other seed's surface, another model's;
- `process`: a Gaussian process on the square roots of the weights, from 32 at random.

The last line is one JSON object, of the surfaces that nothing was chosen on.

Axes: N branches, T tasks, K domains.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr, t

from common import print_figures, print_table
from response import CHOSEN_ON, CURVATURE, MANY, FloatArray, Surface, correlation, gaussian_process, surfaces

if TYPE_CHECKING:
    from tikmix_pipeline.mixture.sweep.evidence import Evidence
    from tikmix_pipeline.mixture.sweep.response_process import ResponseProcesses

SEEDS, COUNTS, START, LEVEL = 6, (8, 16), 4, 0.9


def main() -> None:
    """Print a table of all surfaces, and the mean over those that nothing was chosen on."""
    found = {surface.name: _told(surface) for surface in surfaces()}
    columns = list(next(iter(found.values())))
    print_table(["surface", *columns], [[name, *(f"{row[c]:.3f}" for c in columns)] for name, row in found.items()])
    judged = [row for name, row in found.items() if name != CHOSEN_ON]
    figures = {_key(column): float(np.mean([row[column] for row in judged])) for column in columns}
    figures["coverage"] = figures["coverage_after_8"]
    print_figures({"surfaces": float(len(judged)), **figures})


def _key(column: str) -> str:
    """Return the name of a column's figure."""
    named = column.replace(f"process of {MANY}", f"gp after {MANY}").replace(",", "").replace(" ", "_")
    return named.lower()


def _told(surface: Surface) -> dict[str, float]:
    runs = [dict(_figures(surface, seed)) for seed in range(SEEDS)]
    return {column: float(np.mean([run[column] for run in runs])) for column in runs[0]}


def _figures(surface: Surface, seed: int) -> Iterator[tuple[str, float]]:
    from tikmix_pipeline.mixture.sweep.sequential import next_mixtures

    rng, weights_NK = np.random.default_rng(seed), surface.weights_NK
    gain_N = -surface.evaluation_NT.mean(axis=1)
    others = np.flatnonzero(np.arange(len(gain_N)) != surface.reference)
    share_T = np.full(len(surface.tasks), 1 / len(surface.tasks))
    without_N = _without_branches(surface)
    chosen = _start(surface, without_N, rng)
    best = gain_N[others].max()
    yield "regret, no branch", float(best - gain_N[others][without_N[others].argmax()])
    elsewhere = _elsewhere(surface)
    for count in range(START, max(COUNTS) + 1):
        fitted = _fitted(surface, chosen)
        if count in COUNTS:
            yield from _judged(fitted, surface, chosen, f"{count}")
            yield from _judged(_fitted(surface, chosen, elsewhere), surface, chosen, f"{count} with elsewhere")
            at_random = [surface.reference, *rng.permutation(others)[: count - 1].tolist()]
            yield from _judged(_fitted(surface, at_random), surface, at_random, f"{count} at random")
        pool = np.setdiff1d(others, chosen)
        reference_K = weights_NK[surface.reference]
        (pick,) = next_mixtures(fitted, weights_NK[pool], weights_NK[chosen], share_T, reference_K=reference_K, count=1)
        chosen = [*chosen, int(pool[pick.index])]
    learned = rng.permutation(others)[:MANY]
    predict = gaussian_process(weights_NK[learned], -surface.query_NT[learned].mean(axis=1))
    process_N = predict(weights_NK)
    rest = np.setdiff1d(others, learned)
    yield f"regret, process of {MANY}", float(best - gain_N[others][process_N[others].argmax()])
    yield f"Spearman, process of {MANY}", float(spearmanr(process_N[rest], gain_N[rest])[0])
    yield "Pearson, no branch", correlation(without_N[others], gain_N[others])


def _start(surface: Surface, without_N: FloatArray, rng: np.random.Generator) -> list[int]:
    """Choose the prior's branch, the best by second order, and those far from both, of a random half."""
    roots_NK = np.sqrt(surface.weights_NK)
    chosen = [surface.reference, int(without_N.argmax())]
    while len(chosen) < START:
        half = rng.permutation(np.setdiff1d(np.arange(len(without_N)), chosen))[: len(without_N) // 2]
        apart_NN = np.linalg.norm(roots_NK[half][:, None] - roots_NK[chosen][None], axis=-1)
        chosen.append(int(half[apart_NN.min(axis=1).argmax()]))
    return chosen


def _elsewhere(surface: Surface) -> "Evidence | None":
    """Return the branches of all other surfaces of this corpus and model, that of none if there is none."""
    from tikmix_pipeline.mixture.sweep.evidence import Evidence
    from tikmix_pipeline.mixture.sweep.responses import Responses

    kind = surface.name.partition("-seed")[0]
    others = [one for one in surfaces() if one.name != surface.name and one.name.partition("-seed")[0] == kind]
    sources = [
        Responses(tuple(one.branches), tuple(one.domains), tuple(one.tasks), one.weights_NK, one.query_NT)
        for one in others
    ]
    return Evidence.of(sources, surface.domains, surface.tasks)


def _fitted(surface: Surface, rows: list[int], evidence: "Evidence | None" = None) -> "ResponseProcesses":
    from tikmix_pipeline.mixture.sweep.response_process import ResponseProcesses
    from tikmix_pipeline.parameters import OptimizeParameters

    influence_TK, reference_K = surface.products[CURVATURE, "influence"], surface.weights_NK[surface.reference]
    rule = OptimizeParameters().saturation
    processes = ResponseProcesses(influence_TK, surface.convex(), reference_K, rule, evidence)
    return processes.fit(surface.weights_NK[rows], surface.query_NT[rows])


def _without_branches(surface: Surface) -> FloatArray:
    from tikmix_pipeline.mixture.second_order import second_order_gains
    from tikmix_pipeline.parameters import OptimizeParameters

    influence_TK, reference_K = surface.products[CURVATURE, "influence"], surface.weights_NK[surface.reference]
    rule = OptimizeParameters().saturation
    gain_NT = second_order_gains(influence_TK, surface.convex(), rule, surface.weights_NK, reference_K)
    told_N: FloatArray = gain_NT.mean(axis=1)
    return told_N


def _judged(
    fitted: "ResponseProcesses", surface: Surface, chosen: list[int], after: str
) -> Iterator[tuple[str, float]]:
    from tikmix_pipeline.mixture.sweep.sequential import mean_gain, noise_of_branch

    share_T = np.full(len(surface.tasks), 1 / len(surface.tasks))
    mean_N, deviation_N = mean_gain(fitted, surface.weights_NK, share_T)
    others = np.flatnonzero(np.arange(len(mean_N)) != surface.reference)
    rest = np.setdiff1d(others, chosen)
    gain_N = -surface.evaluation_NT.mean(axis=1)
    yield f"regret after {after}", float(gain_N[others].max() - gain_N[others][mean_N[others].argmax()])
    yield f"Spearman after {after}", float(spearmanr(mean_N[rest], gain_N[rest])[0])
    # the halves are of other items, and one may be the harder
    off_N = mean_N - gain_N - (surface.evaluation_NT.mean() - surface.query_NT.mean())
    half_N = t.ppf((1 + LEVEL) / 2, len(chosen) - 2) * np.hypot(deviation_N, noise_of_branch(fitted, share_T))
    yield f"coverage after {after}", float((np.abs(off_N) <= half_N)[rest].mean())


if __name__ == "__main__":
    main()
