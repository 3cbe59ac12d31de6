"""`influence.tokens: auto`: how many tokens of each domain are enough.

The measurement grows by doubling. It begins with `influence.micro_batches` windows of every domain, one per chunk; each
growth adds as many chunks again, which together have as many windows as there were (`samples.window_growths`). What is
measured stays, and the number of chunks grows with the logarithm of the tokens. After each growth the chunks are split
into disjoint halves, the mixture that either half implies is solved for, and the total variation between the two,
½ Σ_j |w_j − w'_j|, is the share of the tokens they disagree on, averaged over splits. The whole measurement is about
half as far from the truth as its halves from each other. It stops when

    stable   halves of both sides agree within `influence.stable_within`;
    tasks    halves of the domains' text alone agree within it, so that the rest is the error of the tasks' items, which
             no further text lowers;
    cap      the next growth would pass `influence.max_tokens`.

Axes: T tasks, K domains, M chunks of a task, L chunks of a domain.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

import numpy as np
from torch import nn

from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.records import Growth, Stopping
from tikmix_pipeline.influence.samples import Chunks
from tikmix_pipeline.influence.standard_error import Counts, Floats, influence_of_halves, rank_stability
from tikmix_pipeline.influence.store import GradientStore, Sets
from tikmix_pipeline.lm.cost_records import NO_COST
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import GrowthParameters
from tikmix_pipeline.statistics import mean_of_defined

_SPLITS = 8
"""Splits that the total variation is averaged over; each takes four mixtures, of some 10 ms."""

ChunkTable = tuple[Floats, Counts, Counts]
"""products_TMKL, task_tokens_TM, domain_tokens_KL."""

ImpliedMixture = Callable[[Floats], Floats]
"""From influence_TK to the mixture weights_K that it leads to."""


def measure_until_stable(
    tables: Iterator[tuple[int, ChunkTable]], implied_mixture: ImpliedMixture, *, stable_within: float
) -> Stopping:
    """Let a measurement grow until the mixture that it implies is stable.

    `tables` yields tokens per domain and the chunk products, growing, each measured when it is asked for.
    """
    curve: list[Growth] = []
    for tokens, table in tables:
        both = _total_variation(table, implied_mixture, halve_tasks=True)
        domains = _total_variation(table, implied_mixture, halve_tasks=False)
        stability = float(mean_of_defined(rank_stability(*table), axis=0))
        curve.append(Growth(tokens, both, domains, None if np.isnan(stability) else stability))
        if both <= stable_within:
            return Stopping("stable", tuple(curve))
        if domains <= stable_within:
            return Stopping("tasks", tuple(curve))
    return Stopping("cap", tuple(curve))


def collect_until_stable(
    model: nn.Module,
    targets: Chunks,
    growths: Iterable[tuple[int, Chunks]],
    curvature: Curvature,
    store: GradientStore,
    *,
    key: str,
    implied_mixture: ImpliedMixture,
    parameters: GrowthParameters,
) -> Stopping:
    """Measure growing chunks of every domain; the store says when and why it stopped, and what finding that out took.

    Args:
        model: the checkpoint, on the device to work on.
        targets: chunks of every task, all of them from the start.
        growths: tokens of each domain and its chunks so far (`MeasuredText.growing_domain_chunks`).
        store: where the chunks go; those of an earlier run are taken from it.
        key: names the checkpoint and the code.
        implied_mixture: decides a mixture from an influence matrix over the store's tasks and domains.

    Raises:
        TikmixError: as `collect_gradients` and `group_influence`.
    """
    measured: Chunks = {}
    choosing = [curvature.cost]

    def tables() -> Iterator[tuple[int, ChunkTable]]:
        for tokens, chunks in growths:
            measured.update(chunks)
            collect_gradients(model, {"task": targets, "domain": chunks}, store, key=key)
            memory = parameters.memory_megabytes
            found = group_influence(store, curvature, memory_megabytes=memory, device=device_of(model))
            choosing.append(found.cost)
            yield tokens, (found.products_TMKL, found.task_tokens_TM, found.domain_tokens_KL)

    stopping = measure_until_stable(tables(), implied_mixture, stable_within=parameters.stable_within)
    # measures nothing: it writes down which chunks count, and why no more
    sets: Sets = {"task": targets, "domain": measured}
    collect_gradients(model, sets, store, key=key, notes=asdict(stopping), choosing=sum(choosing, NO_COST))
    return stopping


def _total_variation(table: ChunkTable, implied_mixture: ImpliedMixture, *, halve_tasks: bool) -> float:
    halves = influence_of_halves(*table, splits=_SPLITS, halve_tasks=halve_tasks)
    distances = [np.abs(implied_mixture(first) - implied_mixture(second)).sum() / 2 for first, second in halves]
    return float(np.mean(distances))
