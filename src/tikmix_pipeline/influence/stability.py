"""How far two disjoint halves of a measurement agree.

Either half has half the parts of every task and every domain, so it is what a measurement on half the text would have
given, and the two share nothing but the checkpoint and its curvature. The difference between halves has twice the
standard error of the whole: agreement of halves is a cautious bound on how far the whole would come out the same again.

Axes: T tasks, K domains, M parts of a task, L parts of a domain.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.influence.standard_error import Counts, Floats, influence_of_parts
from tikmix_pipeline.statistics.correlations import mean_of_defined, spearman

SPLITS = 16
"""Random splits that an agreement is averaged over."""

_Indices = npt.NDArray[np.int64]


def rank_stability(products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts) -> Floats:
    """Return, per task, Spearman's correlation over domains between the influence from two halves: (T,).

    It is averaged over splits; nan where a task ranks nothing, as with a single domain or without any influence.
    """
    agreements_ST = np.array(
        [
            spearman(*halves)
            for halves in influence_of_halves(products_TMKL, task_tokens_TM, domain_tokens_KL, splits=SPLITS)
        ]
    )
    return mean_of_defined(agreements_ST, axis=0)


def influence_of_halves(
    products_TMKL: Floats, task_tokens_TM: Counts, domain_tokens_KL: Counts, *, splits: int, halve_tasks: bool = True
) -> Iterator[tuple[Floats, Floats]]:
    """Yield the influence (T, K) from either half, for so many random splits.

    Args:
        products_TMKL: part products.
        task_tokens_TM: loss-carrying tokens of task parts.
        domain_tokens_KL: loss-carrying tokens of domain parts.
        splits: how many.
        halve_tasks: False leaves all of the tasks' text in either half, to see the domains' error alone; the domains
            are split in the same ways.
    """
    of_tasks, of_domains = np.random.default_rng([0, 0]), np.random.default_rng([0, 1])
    everything = np.arange(products_TMKL.shape[1])
    for _ in range(splits):
        domain_halves = _halves(products_TMKL.shape[3], of_domains)
        task_halves = _halves(len(everything), of_tasks) if halve_tasks else (everything, everything)
        first, second = (
            influence_of_parts(products_TMKL[:, m][..., el], task_tokens_TM[:, m], domain_tokens_KL[:, el])
            for m, el in zip(task_halves, domain_halves, strict=True)
        )
        yield first, second


def _halves(parts: int, generator: np.random.Generator) -> tuple[_Indices, _Indices]:
    """Give either half one of every two neighbours, so that parts that grow stay balanced; an odd part is left out."""
    first = generator.integers(0, 2, parts // 2)
    pairs = 2 * np.arange(parts // 2)
    return pairs + first, pairs + 1 - first
