"""What work has cost, as plain values and as records; `lm.cost` counts it. No tensors here."""

from dataclasses import asdict, dataclass

from tikmix_pipeline.record import Record


@dataclass(frozen=True)
class Cost:
    """Tokens passed through a model, once each whether a pass goes forward only or back as well; and operations."""

    tokens: int = 0
    flops: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.flops + other.flops)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.tokens * times, self.flops * times)

    def to_dict(self) -> dict[str, float]:
        """Return plain values for JSON."""
        return asdict(self)


NO_COST = Cost()


class CostRecord(Record):
    """What some work took, and each part of it."""

    tokens: int
    flops: float
    parts: dict[str, Cost]


class BranchCostRecord(Record):
    """What lookahead runs took, whenever they were trained: `sweep/cost.json`."""

    branches: int
    cost: CostRecord


def cost_report(**parts: Cost) -> CostRecord:
    """Return the sum of the parts, and each of them."""
    total = sum(parts.values(), NO_COST)
    return CostRecord(tokens=total.tokens, flops=total.flops, parts=parts)
