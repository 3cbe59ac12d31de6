"""What every curvature offers, and its account of itself: which parameters it covers, how, and with what damping."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tikmix_pipeline.influence.gradients import Gradient


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
    """All blocks of a curvature."""

    curvature: str
    blocks: tuple[BlockReport, ...]

    def coverage(self) -> dict[str, float]:
        """Return the share of scalar parameters covered by each kind of block; the shares sum to one."""
        total = sum(block.size for block in self.blocks)
        kinds = dict.fromkeys(block.kind for block in self.blocks)
        return {kind: sum(b.size for b in self.blocks if b.kind == kind) / total for kind in kinds}


class Curvature(Protocol):
    """A positive semi-definite C over all trainable parameters, damped."""

    @property
    def report(self) -> CurvatureReport:
        """What is covered by which kind of block, and the damping of each."""

    def precondition(self, gradient: Gradient) -> Gradient:
        """Return `(C + λI)⁻¹ gradient`, parameter by parameter; `gradient` is left as it was."""


def list_names(names: Sequence[str], shown: int = 5) -> str:
    """Join the first few names for an error message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
