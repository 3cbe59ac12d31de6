"""What influence is measured on: the text each domain would be trained on next, and the tasks' query halves.

A domain's gradient on text the model has just been trained on is too small; the text to come is what the decision is
about. Of each of its windows only the beginning is read (`influence.context`): tokens of one text have much the same
gradient, so the same number of tokens from more texts has a far smaller error (docs/results.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch, choice_batches
from tikmix_pipeline.corpus.row_counts import RowCounts
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.corpus.tasks import HALVES, Half, TaskItems, item_batches
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.gradients import deal_sets, take_first
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import restore_network
from tikmix_pipeline.lm.evaluation import batches_of
from tikmix_pipeline.lm.model import compute_in_bfloat16
from tikmix_pipeline.memory import give_back_memory
from tikmix_pipeline.parameters.measurement import (
    FactorParameters,
    GradientParameters,
    ReadingParameters,
    ScoringParameters,
    TargetParameters,
    heldout_target,
)
from tikmix_pipeline.parameters.training import LoadParameters, RestoreParameters

Samples = dict[str, Sequence[TokenBatch]]
Chunks = dict[str, list[list[TokenBatch]]]

TargetAmount = GradientParameters | ScoringParameters
"""Names the targets, and how much of each is read."""

Reading = TypeVar("Reading", bound=ReadingParameters)
Reading_co = TypeVar("Reading_co", bound=ReadingParameters, covariant=True)


@dataclass(frozen=True)
class MeasuredText(Generic[Reading_co]):
    """A checkpoint's model, and the text that it is measured on."""

    model: nn.Module
    """The checkpoint, on `influence.device`."""
    stream: MixtureStream
    """As the checkpoint left it."""
    shards: TokenShards
    parameters: Reading_co
    context: int
    """Tokens per sequence in training, the most that a task's item may have."""
    turn: int = 0
    """Which part of the query halves is read (`TaskItems.items`). Rounds that read the same would have the same error,
    which no mean over rounds makes smaller."""

    @property
    def domain_context(self) -> int:
        """Tokens per sequence that a domain is measured on."""
        return self.parameters.domain_context(self.context)

    @classmethod
    def open(
        cls,
        checkpoint: Checkpoint,
        shards: TokenShards,
        model: LoadParameters,
        train: RestoreParameters,
        influence: Reading,
        *,
        seed: int,
        turn: int = 0,
        mesh: Mesh = SINGLE_MESH,
        at_once: int | None = None,
    ) -> "MeasuredText[Reading]":
        """Load the checkpoint and find its place in the corpus; raise a TikmixError if they do not fit.

        `train` has context and batch size that the checkpoint was trained with, `mesh` are the processes that the model
        lies on, and `at_once` is how many share a batch, which grows with them: by default those of a copy.
        """
        checkpoint.require_tokenizer(shards.tokenizer_digest)
        give_back_memory()  # of text that was prepared, or of a fit, whose sums are a multiple of the model
        placed = train.model_copy(update={"device": influence.device})
        # of a checkpoint that was not trained here; whatever the mixture, a domain's next windows are the same
        mixture = dict.fromkeys(shards.domains, 1 / len(shards.domains))
        network, stream = restore_network(checkpoint, shards, mixture, model=model, train=placed, seed=seed, mesh=mesh)
        if influence.precision == "bfloat16":
            compute_in_bfloat16(network)
        batch_size = influence.batch_size * (at_once or mesh.shard.world_size)
        reading = influence.model_copy(update={"batch_size": batch_size})
        return MeasuredText(network, stream, shards, reading, train.context, turn)

    def factor_batches(
        self: "MeasuredText[FactorParameters]", mixture: Mapping[str, float] | None = None
    ) -> list[TokenBatch]:
        """Take `influence.factor_tokens` of all domains alike, or in proportion to a mixture, in whole sequences."""
        domains, tokens, context = self.shards.domains, self.parameters.factor_tokens, self.domain_context
        if mixture is None:
            tokens_of = dict.fromkeys(domains, tokens / len(domains))
        else:
            rows = RowCounts([mixture[name] for name in domains], ceil(tokens / context)).deal()
            tokens_of = {name: float(count * context) for name, count in zip(domains, rows, strict=True) if count}
        # half as many a pass as for gradients: beside the model are the factors, two to three times its size
        sequences = max(1, self.parameters.sequences_at_once(self.context) // 2)
        windows_of = {name: self._upcoming(name, ceil(count / context)) for name, count in tokens_of.items()}
        return take_first({name: batches_of(windows, sequences) for name, windows in windows_of.items()}, tokens_of)

    def target_chunks(self: "MeasuredText[GradientParameters]") -> Chunks:
        """Deal the query items of each task, or held-out windows of each domain, as `influence.targets` says.

        The evaluation halves of the tasks are never read here. Errors are those of `target_samples`.
        """
        samples = target_samples(self.shards, self.parameters, context=self.context, turn=self.turn)
        return deal_sets("task", samples, self.parameters.micro_batches)

    def domain_chunks(self: "MeasuredText[GradientParameters]") -> Chunks:
        """Deal `influence.tokens` of each domain, the next that it would be trained on; errors as `deal_sets`."""
        if self.parameters.tokens == "auto":
            raise ValueError("with influence.tokens=auto chunks come from `growing_domain_chunks`")
        samples = self._domain_samples(ceil(self.parameters.tokens / self.domain_context))
        return deal_sets("domain", samples, self.parameters.micro_batches)

    def growing_domain_chunks(self: "MeasuredText[GradientParameters]") -> Iterator[tuple[int, Chunks]]:
        """Yield the tokens of each domain and its chunks so far, growing by doubling; earlier chunks stay."""
        chunks: Chunks = {domain: [] for domain in self.shards.domains}
        first = 0
        for size in window_growths(self.parameters.micro_batches, self.domain_context, self.parameters.max_tokens):
            last = first + size * self.parameters.micro_batches
            for domain, dealt in chunks.items():
                windows = self._upcoming(domain, last)[first:]
                dealt += [self._batches(windows[start : start + size]) for start in range(0, last - first, size)]
            first = last
            yield last * self.domain_context, chunks

    def drawn_by(
        self: "MeasuredText[GradientParameters]", mixture: Mapping[str, float], tokens: int, *, seed: int
    ) -> list[TokenBatch]:
        """Draw a sample of tokens by a mixture, from the text after that of `domain_chunks`, to the nearest sequence.

        The seed decides which sequences are drawn, of each domain out of twice as many as the whole sample has: two
        samples share no more text than by chance, even of a domain that is most of both.
        """
        measured, size = (ceil(count / self.domain_context) for count in (self.parameters.most_tokens, tokens))
        generator = np.random.default_rng(seed)
        batches: list[TokenBatch] = []
        for domain, share in mixture.items():
            chosen = generator.permutation(2 * size)[: round(share * size)]
            batches += self._batches(self._upcoming(domain, measured + 2 * size)[measured:][chosen])
        return batches

    def _domain_samples(self, windows: int) -> Samples:
        return {domain: self._batches(self._upcoming(domain, windows)) for domain in self.shards.domains}

    def _upcoming(self, domain: str, windows: int) -> npt.NDArray[np.int64]:
        return self.stream.upcoming(domain, windows)[:, : self.domain_context + 1]

    def _batches(self, windows: npt.NDArray[np.int64]) -> list[TokenBatch]:
        return batches_of(windows, self.parameters.sequences_at_once(self.context))


def window_growths(micro_batches: int, context: int, max_tokens: int) -> Iterator[int]:
    """Yield how many windows of each domain every new chunk has, growth by growth, up to `max_tokens` in all."""
    windows, total = 1, micro_batches
    yield windows
    while 2 * total * context <= max_tokens:
        yield windows
        windows, total = 2 * windows, 2 * total


def target_samples(shards: TokenShards, parameters: TargetAmount, *, context: int, turn: int = 0) -> Samples:
    """Take what influence is measured on, as `influence.targets` says; of tasks, other items every turn.

    A target with fewer sequences, or items of multiple choice, than `influence.micro_batches` raises a TikmixError, and
    so does a task without options whose choices are asked for.
    """
    samples: Samples = {}
    if parameters.targets in ("tasks", "all"):
        tasks = TaskItems.open(shards.tasks_file)
        for task in parameters.deciding(tasks.tasks):
            samples[task] = task_batches(
                tasks,
                task,
                "query",
                parameters,
                limit=parameters.items_per_task,
                turn=turn,
                context=context,
                batch_size=parameters.batch_size,
            )
    if parameters.targets in ("heldout", "all"):
        samples |= _heldout_windows(shards, parameters, context=context)
    for name, batches in samples.items():
        count = sum(batch.terms if isinstance(batch, ChoiceBatch) else len(batch) for batch in batches)
        if count < parameters.micro_batches:
            raise TikmixError(
                f"The target '{name}' has {count} sequences to measure influence on, fewer than "
                f"influence.micro_batches ({parameters.micro_batches}). Give it more items or lower that parameter."
            )
    return samples


def task_batches(
    tasks: TaskItems,
    task: str,
    half: Half,
    parameters: TargetParameters,
    *,
    limit: int | None,
    turn: int = 0,
    context: int,
    batch_size: int,
) -> Sequence[TokenBatch]:
    """Batch the items of one half of a task for the loss that `influence.task_loss` names, or `limit` of them.

    Of a task that is scored by its choices, items that offer none are left out.

    Raises:
        TikmixError: the task is to be scored by its choices, and no item of the half offers any.
    """
    loss = parameters.loss_of(task)
    if loss != "choice":
        items = tasks.items(task, half, limit, turn)
        return item_batches(items, context=context, batch_size=batch_size, loss=loss, pad_id=0)
    _require_choices(tasks, task, half)
    choices = tasks.choices(task, half, limit, turn)
    return choice_batches(choices, context=context, batch_size=batch_size, pad_id=0)


def require_choices(shards: TokenShards, parameters: TargetParameters) -> None:
    """Refuse a task that is to be scored by its choices, and offers none in either half.

    Raises:
        TikmixError: naming the task.
    """
    if parameters.targets == "heldout":
        return
    tasks = TaskItems.open(shards.tasks_file)
    for task, half in product(parameters.deciding(tasks.tasks), HALVES):
        if parameters.loss_of(task) == "choice":
            _require_choices(tasks, task, half)


def _require_choices(tasks: TaskItems, task: str, half: Half) -> None:
    if not tasks.choices(task, half, limit=1):
        raise TikmixError(
            f"influence.task_loss is 'choice' for the task '{task}', but none of its {half} items has options. Give "
            f'its records `options` (lines "A. ..."), or set influence.task_loss.{task} to text or answer.'
        )


def _heldout_windows(shards: TokenShards, parameters: TargetAmount, *, context: int) -> Samples:
    """Take as many tokens as of a domain; where these are to be found out, as many windows as a task has items."""
    limit = parameters.items_per_task if parameters.tokens == "auto" else ceil(parameters.tokens / context)
    samples: Samples = {}
    for domain in shards.domains:
        windows = shards.windows(domain, context, "heldout")
        count = len(windows) if limit is None else min(limit, len(windows))
        samples[heldout_target(domain)] = batches_of(windows.take(np.arange(count)), parameters.batch_size)
    return samples
