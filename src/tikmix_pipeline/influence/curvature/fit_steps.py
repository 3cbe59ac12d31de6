"""The batches that a fit passes over, in their order: its own text, and that of gradients which it measures on its way.

Text that both a fit and a gradient are of passes through the model once, in the gradient's batches; the rest of either
passes alone. What decides the sampled label of a token is drawn in the order of the fit's own batches, so that the
labels are the same whichever batches they are read in.

Axes: B sequences of a batch, N loss-carrying positions.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.curvature.head_batch import draw_uniform
from tikmix_pipeline.influence.gradients import sequences


@dataclass(frozen=True)
class FitStep:
    """One batch."""

    batch: TokenBatch
    uniform_N: Tensor | None
    """What decides the label of each token; None where the fit is not on this text."""
    chunk: int | None = None
    """The gradient chunk that the text is of."""
    begins_chunk: bool = False
    ends_chunk: bool = False


def plan_steps(
    batches: Sequence[TokenBatch], chunks: Sequence[Sequence[TokenBatch]], generator: torch.Generator
) -> list[FitStep]:
    """Return the steps over all chunks, and over what of the fit's own `batches` is in none of them."""
    own = [batch for batch in batches if batch.loss_tokens]
    uniform_by_row = [
        torch.split(draw_uniform(batch.loss_tokens, generator), batch.loss_BS.sum(1).tolist()) for batch in own
    ]
    waiting: dict[bytes, deque[tuple[int, int]]] = {}
    for number, batch in enumerate(own if chunks else ()):
        for row in range(len(batch)):
            waiting.setdefault(_name(batch, row), deque()).append((number, row))
    steps: list[FitStep] = []
    taken: set[tuple[int, int]] = set()
    for number, chunk in enumerate(chunks):
        parts: list[tuple[TokenBatch, Tensor | None]] = []
        for batch in chunk:
            found = [_next(waiting, _name(batch, row)) for row in range(len(batch))]
            taken.update(place for place in found if place is not None)
            parts += _parts(batch, [None if place is None else uniform_by_row[place[0]][place[1]] for place in found])
        steps += [
            FitStep(part, uniform_N, number, begins_chunk=index == 0, ends_chunk=index == len(parts) - 1)
            for index, (part, uniform_N) in enumerate(parts)
        ]
    for number, batch in enumerate(own):
        left = [row for row in range(len(batch)) if (number, row) not in taken]
        if left:
            steps.append(FitStep(_rows(batch, left), torch.cat([uniform_by_row[number][row] for row in left])))
    return steps


def _next(waiting: dict[bytes, deque[tuple[int, int]]], name: bytes) -> tuple[int, int] | None:
    places = waiting.get(name)
    return places.popleft() if places else None


def _parts(batch: TokenBatch, uniform: Sequence[Tensor | None]) -> list[tuple[TokenBatch, Tensor | None]]:
    """Cut a batch into what the fit is on and the rest."""
    fitted = [(row, values) for row, values in enumerate(uniform) if values is not None]
    rest = [row for row, values in enumerate(uniform) if values is None]
    parts: list[tuple[TokenBatch, Tensor | None]] = []
    if fitted:
        parts.append((_rows(batch, [row for row, _ in fitted]), torch.cat([values for _, values in fitted])))
    if rest:
        parts.append((_rows(batch, rest), None))
    return parts


def _rows(batch: TokenBatch, rows: Sequence[int]) -> TokenBatch:
    return batch if len(rows) == len(batch) else batch.rows(rows)


def _name(batch: TokenBatch, row: int) -> bytes:
    """Name a sequence by its tokens, and which of them carry loss; its padding does not count."""
    one = sequences([batch.rows(slice(row, row + 1))])
    return b" ".join(tokens_S.tobytes() + loss_S.tobytes() for tokens_S, loss_S in one)
