"""Rules that need no fitting, which a surrogate has to beat to be worth its runs; like a loss, lower is better.

    uniform distance    ||w − 1/K||₁: the more even, the better
    matching domain     −ln(w_match + 1e-3): the more of the domain with the target's own name, the better
    additive influence  −S w: each domain helps by what influence says, whatever the others do (`Modelled.additive`)

Axes: N mixtures, K domains, T targets.
"""

from collections.abc import Mapping

import numpy as np

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses

UNIFORM_DISTANCE = "uniform distance"
MATCHING_DOMAIN = "matching domain"
ADDITIVE_INFLUENCE = "additive influence"

_EPSILON = 1e-3


def naive_predictions(
    responses: Responses, matches: Mapping[str, str], additive_NT: FloatArray | None
) -> dict[str, FloatArray]:
    """Return what each rule predicts, (N, T); nan where it says nothing of a target.

    Args:
        responses: the mixtures, and the targets of axis T.
        matches: target -> domain, where one matches.
        additive_NT: what additive influence predicts of these mixtures; without it, there is no such rule.
    """
    weights_NK = responses.weights_NK
    shape = responses.response_NT.shape
    distance_N = np.abs(weights_NK - 1 / weights_NK.shape[1]).sum(axis=1)
    matching_NT = np.full(shape, np.nan)
    for t, target in enumerate(responses.targets):
        if target in matches:
            matching_NT[:, t] = -np.log(weights_NK[:, responses.domains.index(matches[target])] + _EPSILON)
    predictions = {UNIFORM_DISTANCE: np.repeat(distance_N[:, None], shape[1], axis=1), MATCHING_DOMAIN: matching_NT}
    if additive_NT is not None:
        predictions[ADDITIVE_INFLUENCE] = additive_NT
    return predictions
