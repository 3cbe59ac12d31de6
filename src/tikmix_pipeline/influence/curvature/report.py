"""A curvature's account of itself: which parameters it covers, how, and with what damping."""

from collections.abc import Sequence
from dataclasses import dataclass


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


def list_names(names: Sequence[str], shown: int = 5) -> str:
    """Join the first few names for an error message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
