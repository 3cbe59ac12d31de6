"""What a measurement says of itself, as plain values: how the curvature was approximated, and why it stopped growing.

No tensors here, so that a record on disk is read without a tensor library.
"""

from dataclasses import dataclass
from typing import Literal

Reason = Literal["stable", "tasks", "cap"]


@dataclass(frozen=True)
class BlockReport:
    """One block of the curvature.

    Attributes:
        parameters: names of the parameters in the block.
        kind: how the block is approximated.
        size: number of scalar parameters.
        mean_eigenvalue: mean eigenvalue of the block before damping, in the curvature's unit.
        damping: λ, in the same unit.
    """

    parameters: tuple[str, ...]
    kind: str
    size: int
    mean_eigenvalue: float
    damping: float


@dataclass(frozen=True)
class CurvatureReport:
    """All blocks of a curvature.

    Attributes:
        curvature: `influence.curvature`.
        inverse: `influence.inverse`; `none` where f = 1.
        damping: `influence.damping`, in `damping_unit`.
        damping_unit: `influence.damping_unit`; `none` where f = 1.
        groups: the groups of parameters that take part.
        left_out: share of the trainable scalar parameters that take no part.
        blocks: λ and mean eigenvalue of every block.
    """

    curvature: str
    inverse: str
    damping: float
    damping_unit: str
    groups: tuple[str, ...]
    left_out: float
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
    """What a measurement of one size is worth.

    Attributes:
        tokens: tokens of each domain.
        total_variation: between the mixtures of two halves, both sides halved.
        total_variation_of_domains: the same with the domains' text halved alone.
        rank_stability: Spearman's correlation between halves, mean over tasks; None where no task ranks the domains.
    """

    tokens: int
    total_variation: float
    total_variation_of_domains: float
    rank_stability: float | None


@dataclass(frozen=True)
class Stopping:
    """Why the measurement has the size it has.

    Attributes:
        reason: see the module.
        curve: one point per size measured, smallest first.
    """

    reason: Reason
    curve: tuple[Growth, ...]

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
        return f"Measured {last.tokens} tokens of each domain: {reasons[self.reason]}."
