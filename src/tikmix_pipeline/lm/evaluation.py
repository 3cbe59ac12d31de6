"""Bits per byte: loss made comparable between tokenizers. Beside them the loss of multiple choice, in nats per item.

`bpb = Σ nats over loss-carrying tokens / (ln 2 · UTF-8 bytes of the scored text)`; for the other see `lm.choice`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch, choice_batches
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import TaskItems, TokenisedItem, item_batches
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.lm.choice import choice_losses
from tikmix_pipeline.lm.divergence import require_better_than_guessing
from tikmix_pipeline.lm.loss import summed_losses
from tikmix_pipeline.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Measure = Literal["answer", "text", "choice"]

Name = TypeVar("Name")

_BATCH_SIZE = 32


@dataclass(frozen=True)
class ScoredText:
    """Text to score: its batches, and the UTF-8 bytes that their loss-carrying tokens stand for.

    Multiple choice is scored by item, and its bytes are None.
    """

    batches: Sequence[TokenBatch]
    text_bytes: float | None

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
            texts[task, "task", "choice"] = ScoredText(batches, None)
    for domain in shards.domains:
        texts[domain, "domain", "text"] = text_of_heldout(shards, domain, context=context, limit=windows)
    return texts


def text_of_items(items: Sequence[TokenisedItem], measure: Literal["answer", "text"], *, context: int) -> ScoredText:
    """Score a task's gold answers given their questions, or the whole items."""
    batches = item_batches(items, context=context, batch_size=_BATCH_SIZE, loss=measure, pad_id=0)
    if measure == "answer":
        text_bytes = sum(item.answer_bytes for item in items)
        whole_tokens = sum(len(item.answer_ids) for item in items)
    else:
        text_bytes = sum(item.text_bytes for item in items)
        whole_tokens = sum(len(item.question_ids) + len(item.answer_ids) - 1 for item in items)
    # what does not fit into the context is not scored: its bytes are left out in proportion to its tokens
    scored_tokens = sum(batch.loss_tokens for batch in batches)
    return ScoredText(batches, text_bytes * scored_tokens / whole_tokens)


def text_of_heldout(shards: TokenShards, domain: str, *, context: int, limit: int | None) -> ScoredText:
    """Score the held-out slice of a domain, or `limit` of its windows spread evenly over it."""
    windows = shards.windows(domain, context, "heldout")
    count = len(windows) if limit is None else min(limit, len(windows))
    chosen = np.linspace(0, len(windows) - 1, count).astype(np.int64)
    batches = batches_of(windows.take(chosen), _BATCH_SIZE)
    return ScoredText(batches, count * context * shards.bytes_per_token(domain, "heldout"))


def batches_of(windows: npt.NDArray[np.int64], batch_size: int) -> list[TokenBatch]:
    """Cut windows of plain text into batches."""
    return [TokenBatch.of_windows(windows[start : start + batch_size]) for start in range(0, len(windows), batch_size)]


def score(model: "PreTrainedModel", texts: Mapping[Key, ScoredText], *, device: str) -> dict[Key, float]:
    """Return the bits per byte of each text, of multiple choice nats per item.

    The model is moved to `device` and left in evaluation mode.

    Raises:
        DivergedError: the model is worse than guessing.
    """
    losses = text_losses(model, {name: text.batches for name, text in texts.items()}, device=device)
    each = [loss.nats / loss.tokens for (_, _, measure), loss in losses.items() if measure == "text"]
    require_better_than_guessing(each, model.config.vocab_size, of="what is scored")
    divisors = {
        name: losses[name].tokens if text.text_bytes is None else math.log(2) * text.text_bytes
        for name, text in texts.items()
    }
    return {name: losses[name].nats / divisor for name, divisor in divisors.items()}


def text_losses(
    model: "PreTrainedModel", texts: Mapping[Name, Sequence[TokenBatch]], *, device: str
) -> dict[Name, TextLoss]:
    """Return the loss on each text; the model is moved to `device` and left in evaluation mode.

    Batches of the same tokens, as of a task's answers and of its whole items, are read once.
    """
    model.to(resolve_device(device)).eval()
    readers: dict[tuple[type, tuple[int, ...], bytes], list[tuple[Name, TokenBatch]]] = {}
    for name, batches in texts.items():
        for batch in batches:
            same = type(batch), batch.tokens_BS.shape, batch.tokens_BS.tobytes()
            readers.setdefault(same, []).append((name, batch))
    nats, tokens = dict.fromkeys(texts, 0.0), dict.fromkeys(texts, 0)
    total = sum(batch.loss_tokens for batches in texts.values() for batch in batches)
    with torch.no_grad(), progress_bar("Evaluation", total, "tok") as bar:
        for sharing in readers.values():
            losses = _summed(model, [batch for _, batch in sharing])
            for (name, batch), loss in zip(sharing, losses, strict=True):
                nats[name] += loss
                tokens[name] += batch.terms
                bar.update(batch.loss_tokens)
    return {name: TextLoss(nats[name], tokens[name]) for name in texts}


def _summed(model: "PreTrainedModel", batches: Sequence[TokenBatch]) -> list[float]:
    """Return the summed loss of batches of one kind that have their tokens in common."""
    choices = [batch for batch in batches if isinstance(batch, ChoiceBatch)]
    return [choice_losses(model, batch).sum().item() for batch in choices] or summed_losses(model, batches)
