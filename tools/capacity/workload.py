"""What is asked for: how many domains and tasks, on how much text, and how many branches.

Where `influence` and `sweep` have a parameter of the same meaning, its default is the default here.
"""

from dataclasses import dataclass, fields

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.measurement import InfluenceParameters
from tikmix_pipeline.parameters.sweep import SweepParameters

_INFLUENCE = InfluenceParameters()
_SWEEP = SweepParameters()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A measurement of Group Influence, and a sweep by lookahead.

    Attributes:
        domains: K.
        tasks: T.
        tokens: of each domain (`influence.tokens`).
        context: tokens per sequence of a domain (`influence.context`).
        items: of each task (`influence.items_per_task`).
        item_tokens: mean length of an item.
        factor_tokens: that the factors are fitted on (`influence.factor_tokens`).
        parts: of every domain and task (`influence.micro_batches`).
        branches: candidates of the sweep (`sweep.candidates`).
        branch_tokens: training tokens of each (`sweep.branch_tokens`).
        branch_context: tokens per sequence in training (`train.context`).
        scored_items: of each task, that a branch is scored on (`sweep.items`).
        batch_tokens: that pass through a device at once.
        checkpointing: activations are computed again on the way back, instead of kept.
    """

    domains: int = 26
    tasks: int = 9
    tokens: int = _INFLUENCE.tokens if isinstance(_INFLUENCE.tokens, int) else _INFLUENCE.max_tokens
    context: int = _INFLUENCE.context or 32
    items: int = _INFLUENCE.items_per_task or 96
    item_tokens: int = 64
    factor_tokens: int = _INFLUENCE.factor_tokens
    parts: int = _INFLUENCE.micro_batches
    branches: int = _SWEEP.candidates
    branch_tokens: int = _SWEEP.branch_tokens
    branch_context: int = 2048
    scored_items: int = _SWEEP.items or 400
    batch_tokens: int = 8_192
    checkpointing: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < (0 if field.name in ("branches", "checkpointing") else 1):
                raise TikmixError(f"--{field.name.replace('_', '-')} ({value}) must be at least 1.")

    @property
    def rows(self) -> tuple[int, int]:
        """Part gradients of all tasks, and of all domains."""
        return self.tasks * self.parts, self.domains * self.parts
