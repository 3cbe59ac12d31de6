"""What a change of mixture is expected to do, with its error.

To first order the loss of task t falls by `calibration · Σ_j (w'_j − w_j) S[t, j]` more over the coming chunk if that
is trained under w' instead of w. `influence.effect` says when S is in nats.

Axes: T tasks, K domains.
"""

from collections.abc import Mapping

import numpy as np

from tikmix_pipeline.influence.report import SpreadRecord
from tikmix_pipeline.influence.standard_error import Spread


def expected_gains(
    spread: SpreadRecord, before: Mapping[str, float], after: Mapping[str, float], *, calibration: float
) -> dict[str, tuple[float, float]]:
    """Return each task's expected gain and its standard error, in nats per loss-carrying token.

    The error is that of the sampled sequences; what the first order leaves out, and the error of the calibration, are
    not in it.

    Args:
        spread: of one measurement (`report.spread_record`).
        before: the mixture that gains are stated against.
        after: the mixture that is trained on instead.
        calibration: measured over predicted effect.
    """
    moved_1K = np.array([[after[domain] - before[domain] for domain in spread.domains]])
    gain_T1, error_T1 = Spread.from_dict(spread.to_json()).combined(calibration * moved_1K)
    return dict(zip(spread.tasks, zip(gain_T1[:, 0].tolist(), error_T1[:, 0].tolist(), strict=True), strict=True))
