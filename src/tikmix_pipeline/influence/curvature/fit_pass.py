"""One pass of a fit over its text, and over that of the gradients that it measures on its way.

A batch that both are of passes forward once. With the labels of the text one backward pass serves both; labels sampled
from the model take one of their own, which computes no gradient of any weight.

Axes: B sequences, P positions, N loss-carrying positions, n some of them, V vocabulary, o outputs of the model.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.mesh import Mesh
from tikmix_pipeline.influence.collect import Collection
from tikmix_pipeline.influence.curvature.factors import Labels
from tikmix_pipeline.influence.curvature.fisher_pass import FisherPass
from tikmix_pipeline.influence.curvature.fit_progress import FitProgress
from tikmix_pipeline.influence.curvature.fit_steps import FitStep, plan_steps
from tikmix_pipeline.influence.curvature.head_batch import (
    DividedHead,
    HeadBatch,
    cross_entropy_gradient,
    sample_labels,
)
from tikmix_pipeline.influence.curvature.hooks import ModuleHooks, Positions
from tikmix_pipeline.influence.gradients import GradientSum, evaluation_mode
from tikmix_pipeline.lm.cost import ShapeCounter
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.lm.loss import device_of, hidden_states, next_token_logits, rows_for, summed_loss, tokens_for
from tikmix_pipeline.lm.output_head import divisible_head, summed_cross_entropy
from tikmix_pipeline.progress import progress_bar

_Label = Callable[[slice, Tensor], Tensor]
"""Names the labels of some tokens, given which they are and their probabilities."""


@dataclasses.dataclass(frozen=True)
class FitText:
    """A model, the text it is fitted on, and what is needed to go through it, more than once if need be."""

    model: nn.Module
    batches: Sequence[TokenBatch]
    fisher: Labels
    seed: int
    progress: FitProgress | None
    mesh: Mesh
    collection: Collection | None = None
    """Gradients to measure on the way, those that are not there yet; by one process alone."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    @property
    def tokens(self) -> int:
        """How many tokens the fit is on."""
        return sum(batch.loss_tokens for batch in self.batches)

    def through(
        self, pass_name: str, fisher_pass: FisherPass, *, collects: bool = True
    ) -> tuple[dict[str, Tensor], Cost]:
        """Go through the text once and return the means over its tokens by name, and what these took.

        Without `collects` nothing is measured on the way.
        """
        collection = self.collection if collects else None
        fit = _Pass(self, pass_name, fisher_pass, collection)
        fit.run()
        cost = sum(self.mesh.world.all_gather_object(fit.cost), NO_COST)
        return fisher_pass.finish(self.tokens), cost


class _Pass:
    """One pass under way."""

    def __init__(self, text: FitText, name: str, fisher_pass: FisherPass, collection: Collection | None) -> None:
        self._text, self._name, self._fisher_pass, self._collection = text, name, fisher_pass, collection
        self._wanted = self._wanted_chunks()
        chunks = [chunk.batches for chunk in collection.chunks] if collection else []
        planned = plan_steps(text.batches, chunks, torch.Generator().manual_seed(text.seed))
        self._steps = [step for step in planned if step.uniform_N is not None or step.chunk in self._wanted]
        self._hooks = ModuleHooks(text.model, fisher_pass.hooked, fisher_pass.head, fisher_pass.receive)
        # of steps of the fit alone, and of those that are of a gradient as well
        self._counters = ShapeCounter(), ShapeCounter()
        self._gradients = NO_COST
        self._sum: GradientSum | None = None

    def _wanted_chunks(self) -> set[int]:
        """Number the gradients to measure: those that were missing when the fit began.

        What a killed fit has left behind is measured again, so that the cost is that of one that was not killed.
        """
        if self._collection is None:
            return set()
        missing = [chunk.identity for chunk in self._collection.missing()]
        progress = self._text.progress
        wanted = set(missing if progress is None else progress.remembered(missing))
        return {number for number, chunk in enumerate(self._collection.chunks) if chunk.identity in wanted}

    def run(self) -> None:
        """Take all steps that are not done yet."""
        done, total = self._restore(), sum(step.batch.loss_tokens for step in self._steps)
        with evaluation_mode(self._text.model):
            _ = self._divided_head  # found before operations are counted
        with (
            evaluation_mode(self._text.model),
            self._hooks.attached(),
            torch.enable_grad(),
            progress_bar(self._name, total, "tok") as bar,
        ):
            for index, step in enumerate(self._steps):
                if index >= done:
                    self._take(step)
                    self._save_if_due(index + 1)
                bar.update(step.batch.loss_tokens)

    @property
    def cost(self) -> Cost:
        """What the fit took beside the gradients."""
        alone, together = (counter.cost for counter in self._counters)
        return Cost(alone.tokens, alone.flops + together.flops - self._gradients.flops)

    def _take(self, step: FitStep) -> None:
        if step.begins_chunk and step.chunk in self._wanted:
            self._sum = GradientSum(self._text.model)
        if step.uniform_N is not None:
            self._fit_on(step.batch, step.uniform_N)
        elif self._sum is not None:
            self._sum.add(*summed_loss(self._text.model, step.batch))
        if self._collection is not None and step.chunk is not None and step.ends_chunk and self._sum is not None:
            chunk = self._collection.chunks[step.chunk]
            self._collection.write(chunk, self._sum.mean(chunk.of))
            self._sum = None

    def _fit_on(self, batch: TokenBatch, uniform_N: Tensor) -> None:
        world = self._text.mesh.world
        mine = rows_for(world, batch)
        with self._counters[self._sum is not None].batch(mine):
            self._add(mine, uniform_N[tokens_for(world, batch)])
        if self._sum is not None and self._collection is not None:
            self._gradients += self._collection.cost([batch])

    def _add(self, batch: TokenBatch, uniform_N: Tensor) -> None:
        """Add a batch to the sums of the Fisher, and to the gradient that is under way."""
        at = Positions.of(batch, self._text.device)
        with self._hooks.batch(at):
            tokens_BS = torch.from_numpy(batch.tokens_BS).to(self._text.device)
            text_N = tokens_BS[:, 1:][at.carries_BP]

            def label(of: slice, probability_nV: Tensor) -> Tensor:
                return sample_labels(probability_nV, uniform_N[of]) if self._samples else text_N[of]

            output = (
                self._whole(tokens_BS, at, label)
                if self._divided_head is None
                else self._divided(self._divided_head, tokens_BS, at, label, text_N)
            )
            self._fisher_pass.end_forward(self._hooks.calls, at)
            if self._sum is None:
                self._hooks.backward(output.values_No, output.gradient())
            elif self._samples:
                self._hooks.backward(output.values_No, output.gradient(), again=True)
                self._sum.add(output.loss(text_N), batch.loss_tokens)
            else:
                self._sum.add(output.loss(text_N), batch.loss_tokens)
                self._hooks.end_backward()
            self._fisher_pass.end_batch(output.head, at)

    def _whole(self, tokens_BS: Tensor, at: Positions, label: _Label) -> "_Output":
        logits_BPV = next_token_logits(self._text.model, tokens_BS)
        logits_NV = at.rows(logits_BPV, "logits")
        probability_NV = logits_NV.detach().softmax(dim=1)
        labels_N = label(slice(None), probability_NV)
        head = None
        if self._fisher_pass.head is not None:
            call = self._hooks.head_call()
            head = HeadBatch.of_logits(call, logits_BPV, probability_NV, labels_N, at=at, expected=self._samples)
        loss = partial(F.cross_entropy, logits_NV, reduction="sum")
        return _Output(logits_NV, partial(cross_entropy_gradient, probability_NV, labels_N), head, loss)

    def _divided(
        self, divided: DividedHead, tokens_BS: Tensor, at: Positions, label: _Label, text_N: Tensor
    ) -> "_Output":
        hidden_BPd = hidden_states(self._text.model, tokens_BS, divided.module)
        hidden_Nd = at.rows(hidden_BPd, "of the output head")
        # computed once, and with the labels of the text only if they are asked for
        labelled = cache(partial(divided.labels, hidden_Nd.detach(), label))
        labels_N = labelled()[0] if self._samples else text_N
        head = None
        if self._fisher_pass.head is not None:
            head = divided.batch(hidden_Nd.detach(), labels_N, expected=self._samples)
        loss = partial(summed_cross_entropy, divided.module, hidden_Nd)
        return _Output(hidden_Nd, lambda: labelled()[1], head, loss)

    @property
    def _samples(self) -> bool:
        return self._text.fisher == "true"

    @cached_property
    def _divided_head(self) -> DividedHead | None:
        """The head, if a batch has more logits than can be held; whole, also where the model is in shards."""
        largest = max(step.batch.loss_tokens for step in self._steps)  # the same for all ranks
        head = divisible_head(self._text.model, largest)
        if head is None:
            return None
        whole = self._text.mesh.full_tensor
        return DividedHead(head, whole(head.weight.detach()), None if head.bias is None else whole(head.bias.detach()))

    def _save_if_due(self, done: int) -> None:
        progress = self._text.progress
        if progress is None or not progress.due or self._sum is not None:
            return
        counted = [dataclasses.asdict(counter) for counter in self._counters]
        notes = {"done": done, "pass": self._fisher_pass.notes(), "counted": counted}
        progress.save(self._name, notes | {"gradients": self._gradients.to_dict()}, self._fisher_pass.sums())

    def _restore(self) -> int:
        """Return how many steps are done."""
        progress = self._text.progress
        saved = progress.load(self._name) if progress is not None else None
        if saved is None or saved[0]["done"] == 0:
            return 0
        notes, tensors = saved
        self._fisher_pass.prepare(notes["pass"])
        for name, values in self._fisher_pass.sums().items():
            values.copy_(tensors[name])
        alone, together = (ShapeCounter.of_dict(counted) for counted in notes["counted"])
        self._counters, self._gradients = (alone, together), Cost(**notes["gradients"])
        return int(notes["done"])


@dataclasses.dataclass(frozen=True)
class _Output:
    """What a model ends with in a batch, logits or the hidden states that its head would make them of."""

    values_No: Tensor
    gradient: Callable[[], Tensor]
    """Of the summed loss with the labels of the fit, (N, o)."""
    head: HeadBatch | None
    """For the sums of the head, where it takes part."""
    loss: Callable[[Tensor], Tensor]
    """The summed loss with other labels, (N,)."""
