"""Which branch to train next: the one whose mixture is expected to improve most on the best that is known.

    EI(w) = E max(J(w) − J*, 0) = σ(w) [u Φ(u) + φ(u)],        u = (m(w) − J*) / σ(w)

J is minus the mean loss of the targets, with mean m and deviation σ by `response_process`, and J* the largest m of the
mixtures that were trained (Mockus 1978; Jones et al. 1998). Of a batch each is chosen as if those before it had come
out as expected. Only mixtures are looked at that the decision may take.

It starts with the reference, D's mixture, the one between them and some that fill the space, and ends when the branches
are spent, or when the expected improvement is below the noise of a single branch.

Axes: N mixtures that were trained, M others, T targets, K domains.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.response_branches import DIRECT, FEWEST, REFERENCE, branch_mixtures
from tikmix_pipeline.mixture.simplex import FloatArray, project, round_to_simplex
from tikmix_pipeline.mixture.sweep.guard import SearchGuard
from tikmix_pipeline.mixture.sweep.response_mean import ResponseMean
from tikmix_pipeline.mixture.sweep.response_process import ResponseProcesses

if TYPE_CHECKING:
    import pandas as pd

Measure = Callable[[Mapping[str, FloatArray]], Mapping[str, FloatArray]]
"""From mixtures by name to the losses (T,) of those whose branches came through."""

_START = 5
_JUDGED = 8
"""So many branches are needed to judge what was learned; from there on little to expect is a reason to stop."""
_STRENGTHS = (0.5, 2.0, 8.0, 32.0)
"""Concentrations, in units of K, of the pool's draws around each of the mixtures that it is drawn around."""
_DRAWS = 250
_DECIMALS = 6
_SAME = 1e-6


@dataclass(frozen=True)
class Pick:
    """A mixture to train next, and why."""

    index: int
    """In the pool."""
    expected_gain: float
    """m, over that of the reference, in the unit of the losses."""
    deviation: float
    """σ, of the gain's own uncertainty."""
    expected_improvement: float


def mean_gain(
    processes: ResponseProcesses, weights_MK: FloatArray, share_T: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean and deviation of J, each (M,); what is not known of one target is not known of the others either."""
    found = processes.posterior(weights_MK)
    return -found.mean_MT @ share_T, found.deviation_MT @ share_T


def noise_of_branch(processes: ResponseProcesses, share_T: FloatArray) -> float:
    """Return the deviation of J of one branch, as if all targets were off together."""
    return float(np.array([process.noise for process in processes.processes_]) @ share_T)


def expected_improvement(mean_M: FloatArray, deviation_M: FloatArray, best: float) -> FloatArray:
    """Return EI, (M,)."""
    from scipy.stats import norm

    safe_M = np.maximum(deviation_M, np.finfo(np.float64).tiny)
    u_M = (mean_M - best) / safe_M
    improvement_M: FloatArray = safe_M * (u_M * norm.cdf(u_M) + norm.pdf(u_M))
    return improvement_M


def next_mixtures(
    processes: ResponseProcesses,
    pool_MK: FloatArray,
    trained_NK: FloatArray,
    share_T: FloatArray,
    *,
    reference_K: FloatArray,
    count: int,
) -> Iterator[Pick]:
    """Choose the next `count` mixtures of a pool, none of which was trained.

    Args:
        processes: fitted to what was trained.
        share_T: of the targets in J; they sum to 1.
        reference_K: what gains are told over.
    """
    for _ in range(min(count, len(pool_MK))):
        mean_M, deviation_M = mean_gain(processes, pool_MK, share_T)
        known_N, _ = mean_gain(processes, trained_NK, share_T)
        (reference,), _ = mean_gain(processes, reference_K[None], share_T)
        improvement_M = expected_improvement(mean_M, deviation_M, float(known_N.max()))
        best = int(improvement_M.argmax())
        yield Pick(best, float(mean_M[best] - reference), float(deviation_M[best]), float(improvement_M[best]))
        processes = processes.told(pool_MK[best : best + 1])
        trained_NK = np.concatenate([trained_NK, pool_MK[best : best + 1]])


@dataclass(frozen=True)
class Step:
    """One branch of a sequential design."""

    run: str
    chosen_for: str
    """What it was to tell, in words."""
    expected_gain: float | None
    """Of the mean of the targets over the reference, in nats, before it was trained; None before anything was."""
    deviation: float | None
    expected_improvement: float | None


@dataclass(frozen=True, eq=False)
class SequentialDesign:
    """All branches, in the order of their training."""

    mixtures: dict[str, FloatArray]
    steps: list[Step]
    stopped_for: str
    """Why no more were trained, in a sentence."""

    def table(self, losses: Mapping[str, FloatArray], share_T: FloatArray) -> "pd.DataFrame":
        """Return a row per branch: the step, and `measured_gain` of the mean of the targets over the reference."""
        import pandas as pd

        def gain(run: str) -> float:
            known = run in losses and REFERENCE in losses
            return float(share_T @ (losses[REFERENCE] - losses[run])) if known else float("nan")

        return pd.DataFrame([{**vars(step), "measured_gain": gain(step.run)} for step in self.steps])


def design_sequentially(
    measure: Measure,
    mean: ResponseMean,
    *,
    direct_K: FloatArray,
    reference_K: FloatArray,
    bounds: Bounds,
    guard: SearchGuard | None,
    share_T: FloatArray,
    branches: int,
    batch: int,
    seed: int,
) -> SequentialDesign:
    """Train branches one batch after the other, each where most is to be expected.

    Args:
        measure: trains what is not trained yet.
        mean: what influence tells of branches.
        direct_K, reference_K: D's mixture and what gains are over, inside the bounds.
        guard: the guardrails of D's decision, which no mixture of the pool breaks.
        share_T: of the targets in what is improved; they sum to 1.
        branches: at most.
        batch: how many are chosen at a time.

    Raises:
        TikmixError: the bounds leave too few mixtures, or the reference's branch or too many others did not come
            through.
    """
    mixtures = branch_mixtures(reference_K, direct_K, bounds, count=min(_START, branches), seed=seed)
    steps = [Step(run, _why(run), None, None, None) for run in mixtures]
    pool_MK = _pool(bounds, guard, [reference_K, direct_K, *mixtures.values()], seed=seed)
    while True:
        losses = measure(mixtures)
        _require_enough(losses, mixtures)
        left = branches - len(mixtures)
        if not left:
            return SequentialDesign(mixtures, steps, f"All {branches} branches (sweep.branches) are spent.")
        trained_NK = np.stack([mixtures[run] for run in losses])
        processes = mean.processes().fit(trained_NK, np.stack([*losses.values()]))
        new_MK = pool_MK[_distance(pool_MK, np.stack([*mixtures.values()])) > _SAME]
        count = min(batch, left)
        picks = [*next_mixtures(processes, new_MK, trained_NK, share_T, reference_K=reference_K, count=count)]
        most, noise = (
            max((pick.expected_improvement for pick in picks), default=0.0),
            noise_of_branch(processes, share_T),
        )
        if not picks or (len(losses) >= _JUDGED and most < noise):
            return SequentialDesign(mixtures, steps, _little_to_expect(most, noise, len(mixtures)))
        for pick in picks:
            run = f"improvement {len(mixtures):02d}"
            mixtures[run] = new_MK[pick.index]
            told = (pick.expected_gain, pick.deviation, pick.expected_improvement)
            steps.append(Step(run, "expected improvement", *told))


def _why(run: str) -> str:
    known = {REFERENCE: "what gains are over", DIRECT: "TiKMiX-D's mixture", "between": "between these two"}
    return known.get(run, "fills the space")


def _little_to_expect(most: float, noise: float, count: int) -> str:
    return (
        f"Stopped after {count} branches: the most that another is expected to improve on, {most:.2g} nats, is below "
        f"what one branch is off by, {noise:.2g}."
    )


def _require_enough(losses: Mapping[str, FloatArray], mixtures: Mapping[str, FloatArray]) -> None:
    if REFERENCE in losses and len(losses) >= FEWEST:
        return
    raise TikmixError(
        f"Of the {len(mixtures)} branches of the sweep {len(losses)} came through ({', '.join(losses)}), and the "
        f"reference's and {FEWEST - 1} others are needed. The warnings above say which failed and why. Mend that and "
        "run again."
    )


def _pool(bounds: Bounds, guard: SearchGuard | None, centres: Sequence[FloatArray], *, seed: int) -> FloatArray:
    """Return mixtures that may be decided: draws around some, moved inside the bounds, that keep the guardrails."""
    rng, count = np.random.default_rng([seed, 1]), len(centres[0])
    alphas = [
        strength * count * centre_K + 0.05
        for centre_K in (np.full(count, 1 / count), *centres)
        for strength in _STRENGTHS
    ]
    drawn_MK = np.concatenate([rng.dirichlet(alpha_K, size=_DRAWS) for alpha_K in alphas])
    within_MK = project(drawn_MK, bounds.box(), bounds.halfspaces())
    pool_MK = np.stack([round_to_simplex(weights_K, _DECIMALS) for weights_K in within_MK])
    return pool_MK if guard is None else pool_MK[guard.shortfall(pool_MK) <= 0]


def _distance(pool_MK: FloatArray, others_NK: FloatArray) -> FloatArray:
    distance_M: FloatArray = np.abs(pool_MK[:, None] - others_NK[None]).sum(axis=-1).min(axis=1)
    return distance_M
