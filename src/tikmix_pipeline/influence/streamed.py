"""Influence with no gradient of a domain on disk (`influence.gradients=stream`).

The gradient chunks of the tasks are measured, written and multiplied by the curvature (`task_rows`). Then each chunk of
each domain is measured, multiplied with all of them, and let go: T·M numbers are left of it. What is given up is that
another curvature, damping or unit costs the passes over the domains again. A kill loses one chunk.

Disk: T·M copies of the covered parameters in bfloat16. Memory: one gradient beside the model, and in between
`influence.memory_megabytes` for the curvature's products.

Axes: T tasks, K domains, M chunks of a task, L chunks of a domain, N = T·M.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.mesh import SINGLE_MESH
from tikmix_pipeline.influence.collect import measurement_key, training_flops
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.gradients import MeanGradient, mean_gradient, set_name, sum_dtype
from tikmix_pipeline.influence.rank_jobs import curvature_at
from tikmix_pipeline.influence.records import CurvatureReport
from tikmix_pipeline.influence.samples import MeasuredText
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.store import ChunkFigures, Sets, Side, chunk_identity
from tikmix_pipeline.influence.task_rows import TaskRows
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost import SequenceFlops
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.memory import give_back_freed_memory
from tikmix_pipeline.parameters.measurement import StreamedParameters
from tikmix_pipeline.parameters.training import GrowingParameters, LoadParameters
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.store.keyed import KeyedResults, key_of

_Chunk = tuple[str, Sequence[TokenBatch], str]
"""The set that a chunk is of, its batches and its identity."""


@dataclass(frozen=True)
class StreamedInfluence:
    """What is left of a measurement: the products of all chunks, and what the chunks say of themselves."""

    products_TMKL: Floats
    curvature: CurvatureReport
    chunks: Mapping[tuple[Side, str], list[ChunkFigures]]
    matrix_cost: Cost
    """Of decompositions and products."""

    def sets(self, side: Side) -> tuple[str, ...]:
        """Return the names of the sets of one side, in their order."""
        return tuple(name for of_side, name in self.chunks if of_side == side)

    def figures(self, side: Side, name: str) -> list[ChunkFigures]:
        """Return loss and size of every chunk of a set."""
        return self.chunks[side, name]

    @property
    def gradient_cost(self) -> Cost:
        """What the passes took."""
        return sum((figures.cost for figures in chain(*self.chunks.values())), NO_COST)


def stream_influence_at(
    checkpoint: Checkpoint,
    shards: TokenShards,
    folder: Path,
    *,
    model: LoadParameters,
    train: GrowingParameters,
    influence: StreamedParameters,
    seed: int,
    turn: int = 0,
    key: str,
    factors: Factors | None,
    horizon: float,
) -> StreamedInfluence:
    """Measure every task and `influence.tokens` of every domain, by one process.

    Args:
        folder: what is under way, found there and put there.
        turn: which part of the query halves is read (`MeasuredText`).
        key: names all that the result depends on; what is found of another counts for nothing.
        factors: of the curvature, where it has any.
        horizon: sum of the learning rates of the coming chunk.

    Raises:
        TikmixError: the checkpoint does not fit the corpus or the parameters, or as `stream_influence`.
    """
    text = MeasuredText.open(checkpoint, shards, model, train, influence, seed=seed, turn=turn)
    return stream_influence(
        text.model,
        {"task": text.target_chunks(), "domain": text.domain_chunks()},
        curvature_at(checkpoint, model, train, influence, factors, horizon, SINGLE_MESH),
        folder,
        key=measurement_key(text.model, key),
        memory_megabytes=influence.memory_megabytes,
    )


def stream_influence(
    model: nn.Module, sets: Sets, curvature: Curvature, folder: Path, *, key: str, memory_megabytes: float
) -> StreamedInfluence:
    """Measure chunks of tasks and domains and multiply them, without writing a gradient of a domain.

    Args:
        model: the checkpoint, on the device to work on; left as it was.
        sets: chunks by side and name (`gradients.deal_sets`), of one side equally many for each.
        curvature: C at the same checkpoint, on the same device.
        folder: what is under way, found there and put there.
        key: names the checkpoint, the code and the curvature.
        memory_megabytes: bound on the rows in memory and their temporaries while the tasks' are multiplied by C.

    Raises:
        TikmixError: the disk cannot hold the tasks' chunks, one row of a block does not fit into the memory, or a
            gradient is not finite.
    """
    streaming = _Streaming(model, sets, curvature, folder, key)
    rows = streaming.rows()
    is_complete = all(result is not None for result in streaming.found(rows))
    task_figures = streaming.measure_tasks(rows, with_rows=not is_complete)
    if not is_complete:
        rows.multiply(curvature, memory_megabytes=memory_megabytes, device=device_of(model))
        streaming.measure_domains(rows)
    report, decomposed = curvature.report, curvature.cost
    results = [result for result in streaming.found(rows) if result is not None]
    rows.discard()
    products_NL = np.array([result["products"] for result in results]).T
    figures = [ChunkFigures.of_dict(one["figures"]) for one in results]
    tasks, domains = len(sets["task"]), len(sets["domain"])
    met = Cost(flops=2.0 * products_NL.size * sum(outline.size for outline in curvature.outlines))
    return StreamedInfluence(
        products_NL.reshape(tasks, -1, domains, products_NL.shape[1] // domains),
        report,
        dict(_by_set(sets, [*task_figures, *figures])),
        decomposed + rows.multiplying_cost + met,
    )


@dataclass(frozen=True)
class _Streaming:
    """One measurement under way."""

    model: nn.Module
    sets: Sets
    curvature: Curvature
    folder: Path
    key: str

    def rows(self) -> TaskRows:
        """Return where the tasks' chunks are, or are to be."""
        parameters = dict(self.model.named_parameters())
        names = [name for outline in self.curvature.outlines for name in outline.names]
        identities = [identity for *_, identity in self._chunks("task")]
        return TaskRows(
            self.folder / "tasks",
            key_of([self.key, identities]),
            self.curvature.outlines,
            {name: tuple(parameters[name].shape) for name in names},
            len(identities),
            max((sum_dtype(parameters[name]) for name in names), key=lambda dtype: dtype.itemsize),
        )

    def found(self, rows: TaskRows) -> list[dict[str, Any] | None]:
        """Return the results of all chunks of all domains, in their order, None where one is missing."""
        return [self._kept.read(self._key(rows, identity)) for *_, identity in self._chunks("domain")]

    def measure_tasks(self, rows: TaskRows, *, with_rows: bool) -> list[ChunkFigures]:
        """Measure the tasks' chunks that are not there yet; return what all of them say of themselves."""
        figures = rows.measured(with_rows=with_rows)
        if with_rows:
            rows.require_space()

        def write(one: ChunkFigures, mean: MeanGradient) -> None:
            rows.write_measured(mean, one, figures)
            figures.append(one)

        self._measure("task", list(self._chunks("task"))[len(figures) :], write)
        return figures

    def measure_domains(self, rows: TaskRows) -> None:
        """Measure the domains' chunks that are not there yet, and keep the products of each."""
        pairs = zip(self._chunks("domain"), self.found(rows), strict=True)
        missing = [chunk for chunk, result in pairs if result is None]

        def multiply(figures: ChunkFigures, mean: MeanGradient) -> None:
            products_N = rows.products_with(mean.gradient).tolist()
            result = {"figures": dataclasses.asdict(figures), "products": products_N}
            self._kept.write(self._key(rows, figures.identity), result)

        self._measure("domain", missing, multiply)

    def _measure(self, side: Side, chunks: Sequence[_Chunk], use: Callable[[ChunkFigures, MeanGradient], None]) -> None:
        if not chunks:
            return
        flops = self._flops()
        total = sum(batch.loss_tokens for _, batches, _ in chunks for batch in batches)
        with progress_bar(f"gradients, {side} side", total, "tok") as bar:
            for name, batches, identity in chunks:
                mean = mean_gradient(self.model, batches, of=set_name(side, name), advance=bar.update)
                use(ChunkFigures(self.key, identity, mean.loss, mean.loss_tokens, flops.cost(batches)), mean)
                del mean  # or it would live on beside the next
                give_back_freed_memory()  # or what each leaves between the tensors adds up

    @property
    def _kept(self) -> KeyedResults:
        return KeyedResults(self.folder / "domains")

    def _key(self, rows: TaskRows, identity: str) -> str:
        return key_of([rows.key, identity])

    def _chunks(self, side: Side) -> Iterator[_Chunk]:
        for name, chunks in self.sets[side].items():
            for batches in chunks:
                yield name, batches, chunk_identity(batches, self.key, "streamed")

    def _flops(self) -> SequenceFlops:
        every = (batch for side in self.sets.values() for chunks in side.values() for one in chunks for batch in one)
        return training_flops(self.model, every)


def _by_set(sets: Sets, figures: Sequence[ChunkFigures]) -> Iterator[tuple[tuple[Side, str], list[ChunkFigures]]]:
    left = iter(figures)
    for side in ("task", "domain"):
        for name, chunks in sets[side].items():
            yield (side, name), [next(left) for _ in chunks]
