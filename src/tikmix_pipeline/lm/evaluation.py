"""Bits per byte: loss made comparable between tokenizers.

`bpb = Σ nats over loss-carrying tokens / (ln 2 · UTF-8 bytes of the scored text)`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import TaskItems, TokenisedItem, item_batches
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.lm.divergence import require_better_than_guessing
from tikmix_pipeline.lm.loss import token_losses
from tikmix_pipeline.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Measure = Literal["answer", "text"]

Name = TypeVar("Name")

_BATCH_SIZE = 32
_DECIMALS = 6
"""Of the loss of a single token, which is in single precision."""


@dataclass(frozen=True)
class ScoredText:
    """Text to score: its batches, and the UTF-8 bytes that their loss-carrying tokens stand for."""

    batches: Sequence[TokenBatch]
    text_bytes: float


@dataclass(frozen=True)
class TextLoss:
    """Cross-entropy summed over the loss-carrying tokens of a text, and how many these are."""

    nats: float
    tokens: int
    by_token: list[float] = field(default_factory=list)
    """Of each of these tokens, batch by batch and row by row, to a millionth of a nat; empty unless asked for."""


Key = tuple[str, Literal["task", "domain"], Measure]
"""Name of a task or domain, which of both it is, and what of its text is scored."""


def evaluation_texts(
    shards: TokenShards, *, context: int, items: int | None, windows: int | None
) -> dict[Key, ScoredText]:
    """Return all that a checkpoint is judged by: evaluation halves of the tasks, held-out slices of the domains.

    There are at most so many items per task, and windows per domain; `None` takes all.
    """
    tasks = TaskItems.open(shards.tasks_file)
    texts: dict[Key, ScoredText] = {}
    for task in tasks.tasks:
        chosen = tasks.items(task, "evaluation", items)
        texts[task, "task", "answer"] = text_of_items(chosen, "answer", context=context)
        texts[task, "task", "text"] = text_of_items(chosen, "text", context=context)
    for domain in shards.domains:
        texts[domain, "domain", "text"] = text_of_heldout(shards, domain, context=context, limit=windows)
    return texts


def text_of_items(items: Sequence[TokenisedItem], measure: Measure, *, context: int) -> ScoredText:
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
    """Return the bits per byte of each text; the model is moved to `device` and left in evaluation mode.

    Raises:
        DivergedError: the model is worse than guessing.
    """
    losses = text_losses(model, {name: text.batches for name, text in texts.items()}, device=device)
    each = [loss.nats / loss.tokens for (_, _, measure), loss in losses.items() if measure == "text"]
    require_better_than_guessing(each, model.config.vocab_size, of="what is scored")
    return {name: losses[name].nats / (math.log(2) * text.text_bytes) for name, text in texts.items()}


def text_losses(
    model: "PreTrainedModel", texts: Mapping[Name, Sequence[TokenBatch]], *, device: str, by_token: bool = False
) -> dict[Name, TextLoss]:
    """Return the loss on each text; the model is moved to `device` and left in evaluation mode.

    Batches of the same tokens, as of a task's answers and of its whole items, are read once. With `by_token` the loss
    of every token is returned as well.
    """
    model.to(resolve_device(device)).eval()
    readers: dict[tuple[tuple[int, ...], bytes], list[tuple[Name, int, TokenBatch]]] = {}
    for name, batches in texts.items():
        for place, batch in enumerate(batches):
            readers.setdefault((batch.tokens_BS.shape, batch.tokens_BS.tobytes()), []).append((name, place, batch))
    nats, tokens = dict.fromkeys(texts, 0.0), dict.fromkeys(texts, 0)
    each: dict[Name, dict[int, list[float]]] = {name: {} for name in texts}
    total = sum(batch.loss_tokens for batches in texts.values() for batch in batches)
    with torch.no_grad(), progress_bar("Evaluation", total, "tok") as bar:
        for sharing in readers.values():
            losses = token_losses(model, [batch for _, _, batch in sharing])
            for (name, place, batch), loss_N in zip(sharing, losses, strict=True):
                nats[name] += loss_N.sum().item()
                tokens[name] += batch.loss_tokens
                each[name][place] = [round(loss, _DECIMALS) for loss in loss_N.tolist()] if by_token else []
                bar.update(batch.loss_tokens)
    ordered = {name: [each[name][place] for place in sorted(each[name])] for name in texts}
    return {name: TextLoss(nats[name], tokens[name], [*itertools.chain(*ordered[name])]) for name in texts}
