"""The stock: how much text there is, how much of it was read, what is in force and what comes next.

All that a decision needs to know of a run besides its influence, wherever the run takes place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tikmix_pipeline.mixture.bounds import Bounds, Supply, mixture_bounds, within_reach
from tikmix_pipeline.parameters.decision import OptimizeParameters


@dataclass(frozen=True)
class Stock:
    """What a run stands at between two chunks. Amounts are training tokens.

    Attributes:
        round: the round that ended; -1 before the first.
        available: tokens of each domain; its keys are the domains.
        consumed: tokens of each that were trained on so far, repetitions counted; of domains that are gone, too.
        chunk_tokens: of the coming chunk.
        in_force: the mixture that was last trained under.
        size_source: how the tokens of each domain are known, where that is not by counting them: `given` or
            `estimated`.
        notes: what a reader should know, in sentences.
    """

    round: int
    available: Mapping[str, float]
    consumed: Mapping[str, float]
    chunk_tokens: int
    in_force: Mapping[str, float]
    size_source: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Stock":
        """Read what `to_dict` gave."""
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @property
    def domains(self) -> list[str]:
        """Names of the domains."""
        return list(self.available)

    def supplies(self) -> dict[str, Supply]:
        """Return what there is of each domain and what was read of it."""
        return {domain: Supply(tokens, self.consumed.get(domain, 0)) for domain, tokens in self.available.items()}

    def bounds(self, optimize: OptimizeParameters, *, anywhere: bool = False) -> Bounds:
        """Return the bounds on each domain's share of the coming chunk.

        Args:
            optimize: the user's bounds.
            anywhere: leave `optimize.max_change` out, which is a matter of local measurements alone.

        Raises:
            TikmixError: no mixture satisfies them.
        """
        bounds = mixture_bounds(optimize, self.supplies(), self.chunk_tokens, self.in_force)
        if anywhere or optimize.max_change is None:
            return bounds
        return within_reach(bounds, self.in_force, optimize.max_change)
