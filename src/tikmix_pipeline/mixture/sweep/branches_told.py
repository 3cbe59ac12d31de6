"""What the branches of a sequence tell of a decided mixture, in nats, and whether they tell it from D's.

Axes: T targets, K domains.
"""

from dataclasses import dataclass

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.decision import SurrogateDecision
from tikmix_pipeline.mixture.sweep.regression_data import RegressionData
from tikmix_pipeline.mixture.sweep.response_process import ResponseProcesses

_LEVEL = 0.9


@dataclass(frozen=True, eq=False)
class BranchesTold:
    """Processes that were fitted to branches, and what their targets weigh."""

    processes: ResponseProcesses
    share_T: FloatArray
    branches: int

    @classmethod
    def of(cls, processes: ResponseProcesses, data: RegressionData) -> "BranchesTold":
        """Take the weights of the targets from the objective; data without one raises a ValueError."""
        if data.objective is None:
            raise ValueError("what is searched has an objective")
        return cls(processes, data.objective.targets.task_shares(), len(data.measured))

    def gain(self, weights_K: FloatArray, over_K: FloatArray) -> tuple[float, float, float]:
        """Return what one mixture gains over another on the mean of the targets, and the ends of the interval."""
        from scipy.stats import t

        gain, deviation = self.processes.gain(weights_K, over_K, self.share_T)
        half = float(t.ppf((1 + _LEVEL) / 2, max(1, self.branches - 2))) * deviation
        return gain, gain - half, gain + half

    def alike(self, found: SurrogateDecision) -> str | None:
        """Say that M's mixture is not told from D's, which then stays; None where it is, or D's was kept already."""
        if found.direct_K is None or found.kept == "direct":
            return None
        gain, low, high = self.gain(found.weights_K, found.direct_K)
        if low > 0:
            return None
        return (
            f"{self.branches} branches do not tell the mixture that was found from D's, over which it is expected to "
            f"gain {gain:.2g} nats per token ({low:.2g} to {high:.2g}), so D's mixture is kept."
        )

    def expected(self, found: SurrogateDecision) -> str:
        """Say what the decided mixture is expected to gain over the prior, how surely, and what D's is."""
        decided = _in_words(*self.gain(found.weights_K, found.reference_K))
        beside = ""
        if found.direct_K is not None and found.kept != "direct":
            beside = f"; D's mixture {_in_words(*self.gain(found.direct_K, found.reference_K))}"
        return (
            f"Expected over the prior, mean of the targets, by {self.branches} branches, with intervals for "
            f"{_LEVEL:.0%}: {decided}{beside}."
        )


def _in_words(gain: float, low: float, high: float) -> str:
    return f"{gain:.3g} nats per token ({low:.3g} to {high:.3g})"
