"""Bits per byte: loss made comparable between tokenizers. Beside them the loss of multiple choice, in nats per item.

`bpb = Σ nats over loss-carrying tokens / (ln 2 · UTF-8 bytes of the scored text)`; for the other see `lm.choice`.

Axes: I items of a task, or windows of a domain's held-out text; N losses of a batch, of tokens or of choices.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tikmix_pipeline.corpus.batches import TokenBatch, batches_of
from tikmix_pipeline.corpus.choices import ChoiceBatch, choice_batches, choices_by_length
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import TaskItems, TokenisedItem, by_length, item_batches
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.lm.choice import choice_losses
from tikmix_pipeline.lm.divergence import require_better_than_guessing
from tikmix_pipeline.lm.loss import token_losses
from tikmix_pipeline.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Measure = Literal["answer", "text", "choice"]

Name = TypeVar("Name")

Floats = npt.NDArray[np.float64]

_BATCH_SIZE = 32
_DECIMALS = 6
"""Of the loss of a single token, which is in single precision."""


@dataclass(frozen=True)
class ScoredText:
    """Text to score: its batches, and the UTF-8 bytes that their loss-carrying tokens stand for.

    Multiple choice is scored by item, and there are no bytes.
    """

    batches: Sequence[TokenBatch]
    order_I: npt.NDArray[np.int64]
    """The number of the item that each row of the batches is of, of multiple choice each choice."""
    text_bytes: float | None = None
    share_I: Floats | None = None
    """What each item has of the bytes."""

    @property
    def is_choice(self) -> bool:
        """Whether it is scored by item."""
        return self.text_bytes is None


@dataclass(frozen=True)
class TextLoss:
    """Cross-entropy summed over the loss-carrying tokens of a text, and how many these are.

    Of multiple choice the loss is summed over items, and `tokens` counts these.
    """

    nats: float
    tokens: int
    by_token: list[float] = field(default_factory=list)
    """Of each of these tokens or items, batch by batch and row by row, to a millionth of a nat; else empty."""


@dataclass(frozen=True, eq=False)
class RowLosses:
    """The loss on a text, in all and row by row of its batches, of multiple choice item by item."""

    total: TextLoss
    nats_I: Floats


@dataclass(frozen=True, eq=False)
class Score:
    """How a text is scored, and what of its nats and bytes each item has, in the order of the corpus."""

    value: float
    """Bits per byte, of multiple choice nats per item."""
    nats_I: Floats
    bytes_I: Floats | None
    """None of multiple choice."""


Key = tuple[str, Literal["task", "domain"], Measure]
"""Name of a task or domain, which of both it is, and what of its text is scored."""


def evaluation_texts(
    shards: TokenShards, *, context: int, items: int | None, windows: int | None
) -> dict[Key, ScoredText]:
    """Return all that a checkpoint is judged by: evaluation halves of the tasks, held-out slices of the domains.

    There are at most so many items per task, and windows per domain; `None` takes all. Tasks that offer a choice are
    scored by it, too.
    """
    tasks = TaskItems.open(shards.tasks_file)
    texts: dict[Key, ScoredText] = {}
    for task in tasks.tasks:
        chosen = tasks.items(task, "evaluation", items)
        texts[task, "task", "answer"] = text_of_items(chosen, "answer", context=context)
        texts[task, "task", "text"] = text_of_items(chosen, "text", context=context)
        choices = tasks.choices(task, "evaluation", items)
        if choices:
            batches = choice_batches(choices, context=context, batch_size=_BATCH_SIZE, pad_id=0)
            texts[task, "task", "choice"] = ScoredText(batches, np.array(choices_by_length(choices), dtype=np.int64))
    for domain in shards.domains:
        texts[domain, "domain", "text"] = text_of_heldout(shards, domain, context=context, limit=windows)
    return texts


def text_of_items(items: Sequence[TokenisedItem], measure: Literal["answer", "text"], *, context: int) -> ScoredText:
    """Score a task's gold answers given their questions, or the whole items."""
    batches = item_batches(items, context=context, batch_size=_BATCH_SIZE, loss=measure, pad_id=0)
    if measure == "answer":
        bytes_I = np.array([item.answer_bytes for item in items], dtype=np.float64)
        whole_tokens = sum(len(item.answer_ids) for item in items)
    else:
        bytes_I = np.array([item.text_bytes for item in items], dtype=np.float64)
        whole_tokens = sum(len(item.question_ids) + len(item.answer_ids) - 1 for item in items)
    # what does not fit into the context is not scored: its bytes are left out in proportion to its tokens
    scored_tokens = sum(batch.loss_tokens for batch in batches)
    text_bytes = int(bytes_I.sum())
    order_I = np.array(by_length(items), dtype=np.int64)
    return ScoredText(batches, order_I, text_bytes * scored_tokens / whole_tokens, bytes_I / text_bytes)


def text_of_heldout(shards: TokenShards, domain: str, *, context: int, limit: int | None) -> ScoredText:
    """Score the held-out slice of a domain, or `limit` of its windows spread evenly over it."""
    windows = shards.windows(domain, context, "heldout")
    count = len(windows) if limit is None else min(limit, len(windows))
    chosen = np.linspace(0, len(windows) - 1, count).astype(np.int64)
    batches = batches_of(windows.take(chosen), _BATCH_SIZE)
    text_bytes = count * context * shards.bytes_per_token(domain, "heldout")
    return ScoredText(batches, np.arange(count), text_bytes, np.full(count, 1 / count))


def score(model: "PreTrainedModel", texts: Mapping[Key, ScoredText], *, device: str) -> dict[Key, float]:
    """Return the bits per byte of each text, of multiple choice nats per item, as `score_items` does."""
    return {name: found.value for name, found in score_items(model, texts, device=device).items()}


def score_items(model: "PreTrainedModel", texts: Mapping[Key, ScoredText], *, device: str) -> dict[Key, Score]:
    """Return the score of each text and what its items have of it; the model is moved to `device`.

    It is left in evaluation mode. Bytes of a text that does not fit into the context are left out of all its items in
    proportion, so that those of the items add up to those of the text.

    Raises:
        DivergedError: the model is worse than guessing.
    """
    losses = row_losses(model, {name: text.batches for name, text in texts.items()}, device=device)
    each = [loss.total.nats / loss.total.tokens for (_, _, measure), loss in losses.items() if measure == "text"]
    require_better_than_guessing(each, model.config.vocab_size, of="what is scored")
    return {name: _score(text, losses[name]) for name, text in texts.items()}


def _score(text: ScoredText, loss: RowLosses) -> Score:
    nats_I = np.empty_like(loss.nats_I)
    nats_I[text.order_I] = loss.nats_I
    if text.text_bytes is None or text.share_I is None:
        return Score(loss.total.nats / loss.total.tokens, nats_I, None)
    return Score(loss.total.nats / (math.log(2) * text.text_bytes), nats_I, text.text_bytes * text.share_I)


def text_losses(
    model: "PreTrainedModel", texts: Mapping[Name, Sequence[TokenBatch]], *, device: str, by_token: bool = False
) -> dict[Name, TextLoss]:
    """Return the loss on each text; the model is moved to `device` and left in evaluation mode.

    With `by_token` the loss of every token is returned as well.
    """
    losses = _losses(model, texts, device, keep=_by_token if by_token else None)
    return {name: replace(loss, by_token=kept_N.round(_DECIMALS).tolist()) for name, (loss, kept_N) in losses.items()}


def row_losses(
    model: "PreTrainedModel", texts: Mapping[Name, Sequence[TokenBatch]], *, device: str
) -> dict[Name, RowLosses]:
    """Return the loss on each text, and on each row of it; the model is moved to `device`, in evaluation mode."""
    return {name: RowLosses(*found) for name, found in _losses(model, texts, device, keep=_by_row).items()}


def _losses(
    model: "PreTrainedModel",
    texts: Mapping[Name, Sequence[TokenBatch]],
    device: str,
    *,
    keep: Callable[[TokenBatch, Tensor], Floats] | None,
) -> dict[Name, tuple[TextLoss, Floats]]:
    """Return the loss on each text, and what is to be kept of the losses of its batches, in their order.

    Batches of the same tokens, as of a task's answers and of its whole items, are read once.
    """
    model.to(resolve_device(device)).eval()
    readers: dict[tuple[type, tuple[int, ...], bytes], list[tuple[Name, int, TokenBatch]]] = {}
    for name, batches in texts.items():
        for number, batch in enumerate(batches):
            same = type(batch), batch.tokens_BS.shape, batch.tokens_BS.tobytes()
            readers.setdefault(same, []).append((name, number, batch))
    nats, terms = dict.fromkeys(texts, 0.0), dict.fromkeys(texts, 0)
    kept: dict[Name, dict[int, Floats]] = {name: {} for name in texts}
    total = sum(batch.loss_tokens for batches in texts.values() for batch in batches)
    with torch.no_grad(), progress_bar("evaluation", total, "tok") as bar:
        for sharing in readers.values():
            losses = _each_loss(model, [batch for *_, batch in sharing])
            for (name, number, batch), losses_N in zip(sharing, losses, strict=True):
                nats[name] += losses_N.sum().item()
                terms[name] += batch.terms
                if keep is not None:
                    kept[name][number] = keep(batch, losses_N)
                bar.update(batch.loss_tokens)
    ordered = {name: [np.zeros(0), *(kept[name][number] for number in sorted(kept[name]))] for name in texts}
    return {name: (TextLoss(nats[name], terms[name]), np.concatenate(ordered[name])) for name in texts}


def _each_loss(model: "PreTrainedModel", batches: Sequence[TokenBatch]) -> list[Tensor]:
    """Return the losses (N,) of batches of one kind that have their tokens in common: of tokens, or of choices."""
    choices = [batch for batch in batches if isinstance(batch, ChoiceBatch)]
    return [choice_losses(model, batch) for batch in choices] or token_losses(model, batches)


def _by_token(_: TokenBatch, losses_N: Tensor) -> Floats:
    losses: Floats = losses_N.double().cpu().numpy()
    return losses


def _by_row(batch: TokenBatch, losses_N: Tensor) -> Floats:
    """Add losses up over the rows of a batch; of multiple choice there is one for each item already."""
    losses = _by_token(batch, losses_N)
    if isinstance(batch, ChoiceBatch):
        return losses
    row_N = batch.loss_BS[:, 1:].nonzero()[0]
    return np.bincount(row_N, weights=losses, minlength=len(batch)).astype(np.float64)
