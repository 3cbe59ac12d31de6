"""A checkpoint with what influence is measured on: the text each domain would be trained on next, and the targets.

A domain's gradient on text the model has just been trained on is too small; the text to come is what the decision is
about. Of each of its windows only the beginning is read (`influence.context`): tokens of one text have much the same
gradient, so the same number of tokens from more texts has a far smaller error (docs/results.md).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch, batches_of
from tikmix_pipeline.corpus.row_counts import RowCounts
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.influence.gradients import deal_sets, take_first
from tikmix_pipeline.influence.target_samples import Samples, target_samples
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import restore_network
from tikmix_pipeline.lm.model import compute_in_bfloat16
from tikmix_pipeline.memory import give_back_memory
from tikmix_pipeline.parameters.measurement import (
    FactorParameters,
    GradientParameters,
    ReadingParameters,
)
from tikmix_pipeline.parameters.training import LoadParameters, RestoreParameters

Chunks = dict[str, list[list[TokenBatch]]]

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
