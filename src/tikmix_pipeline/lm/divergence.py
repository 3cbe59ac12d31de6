"""When training has come to nothing: a loss that is no longer finite, or worse than knowing nothing.

A model that gives every token id the same probability has a loss of ln V nats per token, V being the size of the
vocabulary. A new model begins there, and training only ever leads below: one that stays above has diverged, however
finite its numbers are.
"""

import math
from collections.abc import Collection

from tikmix_pipeline.errors import TikmixError

_MARGIN = 1.1
"""How much worse than guessing a loss may be: a new model is a little, and so is a few steps' own noise."""


STEPS_TO_JUDGE_BY = 20
"""A few steps may be worse than guessing, and training recover; so many are not chance."""


class DivergedError(TikmixError):
    """Training whose loss or gradient is no longer finite, or whose model is worse than guessing."""


def is_worse_than_guessing(losses: Collection[float], vocabulary_size: int) -> bool:
    """Tell whether the mean of some losses, in nats per token, is above that of a model that knows nothing."""
    return math.fsum(losses) > _MARGIN * math.log(vocabulary_size) * len(losses)


def require_better_than_guessing(losses: Collection[float], vocabulary_size: int, *, of: str) -> None:
    """Refuse a model whose mean loss is not finite, or above that of one that knows nothing.

    Args:
        losses: in nats per token, each of another text.
        of: what the losses are of, for the message.

    Raises:
        DivergedError: it has diverged.
    """
    mean = math.fsum(losses) / len(losses) if losses else 0.0
    if math.isfinite(mean) and not is_worse_than_guessing(losses, vocabulary_size):
        return
    raise DivergedError(
        f"Training diverged: the mean loss on {of} is {mean:.4g} nats per token, where a model that knows nothing of "
        f"its {vocabulary_size} token ids has {math.log(vocabulary_size):.4g}. The rounds before are kept. Lower "
        "train.learning_rate, or lengthen train.warmup_tokens."
    )
