"""Bits per byte: loss made comparable between tokenizers.

`bpb = Σ nats over loss-carrying tokens / (ln 2 · UTF-8 bytes of the scored text)`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.lm.loss import summed_loss
from tikmix_pipeline.progress import progress_bar


@dataclass(frozen=True)
class ScoredText:
    """Text to score: its batches and the bytes they stand for."""

    batches: Sequence[TokenBatch]
    text_bytes: float


def bits_per_byte(model: torch.nn.Module, texts: Mapping[str, ScoredText], *, description: str) -> dict[str, float]:
    """Score each text; leaves the model's mode as it was."""
    was_training = model.training
    model.eval()
    total = sum(batch.loss_tokens for text in texts.values() for batch in text.batches)
    scores: dict[str, float] = {}
    with torch.no_grad(), progress_bar(description, total, "tok") as bar:
        for name, text in texts.items():
            nats = 0.0
            for batch in text.batches:
                loss, count = summed_loss(model, batch)
                nats += float(loss)
                bar.update(count)
            scores[name] = nats / (math.log(2) * text.text_bytes)
    model.train(was_training)
    return scores
