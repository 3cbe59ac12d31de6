"""A training whose mixture follows gradients: those of the domains are held against that of the targets on the way.

    a_j = ⟨∇f, ∇L_j⟩

with L_j the loss per token of some rows of domain j, and f that of some items of each target (of multiple choice the
loss per item), the mean of the targets: to first order, what a step on domain j takes off the targets. A `Rule` makes a
mixture of it, which training goes on under until the next measurement. DGA and FastMix differ in their rule, in what
gradients are taken by and in where they begin.

Rows and items are drawn from the seed and the step alone, and all that is kept of a stopped training stands beside
its weights: called again it goes on, with the same bits.

Axes: K domains in the order of the shards, B rows, S tokens.
"""

import abc
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tikmix_pipeline.baselines.baseline import Detail
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch, joined
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.files import read_json, write_json
from tikmix_pipeline.lm.checkpoint import Checkpoint, save_checkpoint
from tikmix_pipeline.lm.choice import summed_terms
from tikmix_pipeline.lm.chunk import restore_state
from tikmix_pipeline.lm.cost import ShapeCounter, training_cost
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.lm.divergence import DivergedError
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.baselines import AlignmentParameters
from tikmix_pipeline.parameters.training import LoadParameters, StepParameters
from tikmix_pipeline.progress import no_progress_bars, progress_bar
from tikmix_pipeline.store.keyed import KeyedEntry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RULE = "rule.json"
_COUNTED = "cost_of_gradients.json"


class Rule(abc.ABC):
    """How a mixture answers the alignments that are measured; `state` is all that the next answer depends on."""

    def __init__(self, domains: int, **state: FloatArray) -> None:
        self.state = {**state, "alignment_sum": np.zeros(domains), "measurements": np.zeros(1)}

    @property
    @abc.abstractmethod
    def mixture(self) -> FloatArray:
        """The mixture (K,), which sums to 1."""

    @abc.abstractmethod
    def _answer(self, alignment_K: FloatArray) -> None:
        """Change the state by what has been measured."""

    def update(self, alignment_K: FloatArray) -> None:
        """Answer a measurement."""
        self.state["alignment_sum"] = self.state["alignment_sum"] + alignment_K
        self.state["measurements"] = self.state["measurements"] + 1
        self._answer(alignment_K)

    @property
    def measurements(self) -> int:
        """How often gradients were measured."""
        return int(self.state["measurements"][0])

    def details(self, domains: Sequence[str]) -> dict[str, Detail]:
        """Return what a `Baseline` tells of it: how often gradients were measured, and the mean of a."""
        mean_K = self.state["alignment_sum"] / max(1, self.measurements)
        return {"measurements": self.measurements, "alignment": dict(zip(domains, mean_K.tolist(), strict=True))}

    def save(self, file: Path) -> None:
        """Write JSON."""
        write_json(file, {name: value.tolist() for name, value in self.state.items()})

    def load(self, file: Path) -> None:
        """Go on from what `save` wrote."""
        self.state = {name: np.array(value) for name, value in read_json(file).items()}


@dataclass(frozen=True, eq=False)
class Alignments:
    """Measures a at a model.

    Attributes:
        texts: what the targets are, by name (`influence.counterfactual.scored_texts`).
        head_only: gradients are taken by the output head's weight instead of all trainable parameters; where that is
            the embedding as well, by both.
    """

    shards: TokenShards
    texts: Mapping[str, Sequence[TokenBatch]]
    parameters: AlignmentParameters
    context: int
    seed: int
    head_only: bool = False

    def measure(self, model: "PreTrainedModel", step: int, counter: ShapeCounter) -> FloatArray:
        """Return a (K,), on rows that the seed and the step decide; the model is left in evaluation mode.

        Raises:
            DivergedError: a gradient is not finite.
        """
        model.eval()
        generator = np.random.default_rng([self.seed, step])
        by = self._parameters(model)
        wanted = [torch.zeros_like(parameter) for parameter in by]
        for items in self._targets:
            drawn = _drawn(items, self.parameters.drawn_items, generator)
            of_target = _gradient(model, by, drawn, counter)
            wanted = [total + part / len(self._targets) for total, part in zip(wanted, of_target, strict=True)]
        alignments = []
        for domain in self.shards.domains:
            own = _gradient(model, by, self._rows_of(domain, generator), counter)
            alignments.append(math.fsum(_inner(*pair) for pair in zip(wanted, own, strict=True)))
        if not np.isfinite(alignments).all():
            raise DivergedError(
                f"A gradient is not finite after step {step}: alignments {alignments}. Lower train.learning_rate."
            )
        return np.array(alignments)

    def _parameters(self, model: "PreTrainedModel") -> list[nn.Parameter]:
        if self.head_only:
            return [model.get_output_embeddings().weight]
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    @functools.cached_property
    def _targets(self) -> list[list[TokenBatch]]:
        return [_single_items(batches) for batches in self.texts.values()]

    def _rows_of(self, domain: str, generator: np.random.Generator) -> TokenBatch:
        windows = self.shards.windows(domain, self.context)
        return TokenBatch.of_windows(windows.take(generator.integers(len(windows), size=self.parameters.rows)))


def _single_items(batches: Sequence[TokenBatch]) -> list[TokenBatch]:
    """Return every item of a target that carries loss by itself, of multiple choice with all its options."""
    items: list[TokenBatch] = []
    for batch in batches:
        if isinstance(batch, ChoiceBatch):
            items += batch.items()
        else:
            items += [batch.rows([row]) for row in np.flatnonzero(batch.loss_BS.any(axis=1)).tolist()]
    return items


def _drawn(items: Sequence[TokenBatch], count: int, generator: np.random.Generator) -> TokenBatch:
    """Return so many items drawn without replacement, or all if there are no more, cut where their loss ends."""
    chosen = [items[n] for n in generator.permutation(len(items))[:count]]
    choices = [item for item in chosen if isinstance(item, ChoiceBatch)]
    if choices:
        return joined(choices)
    width = max(int(np.flatnonzero(item.loss_BS[0])[-1]) + 1 for item in chosen)
    tokens_BS = np.zeros((len(chosen), width), dtype=np.int64)
    loss_BS = np.zeros((len(chosen), width), dtype=np.bool_)
    for row, item in enumerate(chosen):
        length = item.tokens_BS.shape[1]
        tokens_BS[row, :length] = item.tokens_BS[0, :width]
        loss_BS[row, :length] = item.loss_BS[0, :width]
    return TokenBatch(tokens_BS, loss_BS)


def _gradient(
    model: "PreTrainedModel", by: Sequence[nn.Parameter], batch: TokenBatch, counter: ShapeCounter
) -> Sequence[Tensor]:
    """Return the gradient of a batch's mean loss per token, of multiple choice per item."""
    with counter.batch(batch), torch.enable_grad():
        return torch.autograd.grad(summed_terms(model, batch) / batch.terms, list(by))


def _inner(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum(dtype=torch.float64))


@dataclass(frozen=True, kw_only=True)
class AlignedTraining:
    """A training from a checkpoint whose mixture a rule decides; for the fields see `lm.chunk.train_chunk`."""

    start: Checkpoint
    shards: TokenShards
    model: LoadParameters
    train: StepParameters
    schedule: Schedule
    seed: int
    steps: int
    kept: KeyedEntry
    """Where the training is kept, under way and at its end."""
    description: str

    def run(self, rule: Rule, alignments: Alignments) -> Cost:
        """Train, or what is missing of it; return what training and measuring took, whenever it was.

        The rule, which begins as it is, is left as it is at the end.

        Raises:
            TikmixError: the checkpoint does not fit shards and parameters.
            DivergedError: as `lm.trainer.train_steps`, or a gradient is not finite.
        """
        under_way = self.kept.find()
        counter = ShapeCounter()
        state = restore_state(
            Checkpoint(under_way) if under_way else self.start,
            self.shards,
            self._mixture(rule),
            model=self.model,
            train=self.train.model_copy(update={"world_size": 1}),
            seed=self.seed,
        )
        if under_way:
            rule.load(under_way / _RULE)
            counter = ShapeCounter.of_dict(read_json(under_way / _COUNTED))
        else:
            state.records.clear()

        def keep() -> None:
            with self.kept.replacing() as temporary:
                save_checkpoint(state, temporary, self.shards.tokenizer_folder)
                rule.save(temporary / _RULE)
                write_json(temporary / _COUNTED, asdict(counter))

        last_step = self.start.step + self.steps
        if state.step < last_step:
            self._follow(state, rule, alignments, counter, last_step, keep)
            keep()
        tokens = self.steps * self.train.tokens_per_step
        return counter.cost + training_cost(state.model.config, context=self.train.context, tokens=tokens)

    def _follow(
        self,
        state: TrainingState,
        rule: Rule,
        alignments: Alignments,
        counter: ShapeCounter,
        last_step: int,
        keep: Callable[[], None],
    ) -> None:
        with progress_bar(self.description, last_step - state.step, "step") as bar:
            while state.step < last_step:
                rule.update(alignments.measure(state.model, state.step, counter))
                state.stream.set_weights(self._mixture(rule))
                first = state.step
                with no_progress_bars():
                    until = min(first + alignments.parameters.every, last_step)
                    train_steps(state, self.train, self.schedule, last_step=until)
                bar.update(state.step - first)
                passed = self.train.save_every_steps
                if state.step < last_step and first // passed < state.step // passed:
                    keep()

    def _mixture(self, rule: Rule) -> dict[str, float]:
        return dict(zip(self.shards.domains, rule.mixture.tolist(), strict=True))
