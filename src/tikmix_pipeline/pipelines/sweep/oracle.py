"""The node of the `sweep` pipeline that takes the best of the mixtures that were really trained on."""

import logging
from collections.abc import Mapping
from typing import Any

from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Table

_LOG = logging.getLogger(__name__)


@step(nothing)
def choose_measured(ratios: Table, metrics: Table, direct: Mapping[str, Any]) -> dict[str, Any]:
    """Take the candidate whose mean response over the targets is the lowest."""
    responses, mixtures = metrics.set_index("run"), ratios.set_index("run")
    means = responses.mean(axis=1)
    best = str(means.idxmin())
    _LOG.info("The best of %d mixtures that were trained on is %s: mean response %.4f", len(means), best, means[best])
    # of any name: a design around the prior holds it already
    reference = [run for run in responses.index if mixtures.loc[run].to_dict() == direct["reference"]]
    gains = (responses.loc[reference[0]] - responses.loc[best]).to_dict() if reference else {}
    return {
        "strategy": "surrogate",
        "round": direct["round"],
        "weights": mixtures.loc[best].to_dict(),
        "expected_gain": gains,
        "binding": [],
        "notes": [f"The best of {len(means)} mixtures that were trained on: {best}."],
        "response": "lookahead",
    }
