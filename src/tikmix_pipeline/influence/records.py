"""What a measurement says of itself, as plain values: how the curvature was approximated, and why it stopped growing.

No tensors here, so that a record on disk is read without a tensor library.
"""

from dataclasses import dataclass
from typing import Literal

Reason = Literal["stable", "tasks", "cap"]


@dataclass(frozen=True)
class BlockReport:
    """One block of the curvature."""

    parameters: tuple[str, ...]
    kind: str
    """How the block is approximated."""
    size: int
    """Number of scalar parameters."""
    mean_eigenvalue: float
    """Before damping, in the curvature's unit."""
    damping: float
    """λ, in the same unit."""


@dataclass(frozen=True)
class CurvatureReport:
    """All blocks of a curvature, and the parameters of `influence` that it was built by.

    `inverse` and `damping_unit` are `none` where f = 1.
    """

    curvature: str
    inverse: str
    damping: float
    damping_unit: str
    groups: tuple[str, ...]
    left_out: float
    """Share of the trainable scalar parameters that take no part."""
    blocks: tuple[BlockReport, ...]

    def coverage(self) -> dict[str, float]:
        """Return the share of trainable scalar parameters in each kind of block; with `left_out` they sum to one."""
        covered = sum(block.size for block in self.blocks)
        kinds = dict.fromkeys(block.kind for block in self.blocks)
        return {
            kind: (1 - self.left_out) * sum(b.size for b in self.blocks if b.kind == kind) / covered for kind in kinds
        }


@dataclass(frozen=True)
class Growth:
    """What a measurement of one size is worth."""

    tokens: int
    """Of each domain."""
    total_variation: float
    """Between the mixtures of two halves, both sides halved."""
    total_variation_of_domains: float
    """The same with the domains' text halved alone."""
    rank_stability: float | None
    """Spearman's correlation between halves, mean over tasks; None where no task ranks the domains."""


@dataclass(frozen=True)
class Stopping:
    """Why the measurement has the size it has (`influence.stopping`)."""

    reason: Reason
    curve: tuple[Growth, ...]
    """One point per size measured, smallest first."""

    def in_words(self, stable_within: float) -> str:
        """Say why it stopped."""
        last = self.curve[-1]
        reasons: dict[Reason, str] = {
            "stable": f"the mixtures of two halves differ by {last.total_variation:.1%} of the tokens, no more than "
            f"influence.stable_within ({stable_within:.1%})",
            "tasks": f"the mixtures of two halves of the domains' text differ by {last.total_variation_of_domains:.1%} "
            f"of the tokens; with the tasks halved too it is {last.total_variation:.1%}, which more items "
            "(influence.items_per_task) would lower and more text would not",
            "cap": f"influence.max_tokens is reached; the mixtures of two halves still differ by "
            f"{last.total_variation:.1%} of the tokens (influence.stable_within is {stable_within:.1%})",
        }
        return f"Measured {last.tokens:,} tokens of each domain: {reasons[self.reason]}."
