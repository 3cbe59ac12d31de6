"""Nodes of the `optimize` pipeline."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import OptimizeParameters, RunParameters, TikmixParameters
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Table

_LOG = logging.getLogger(__name__)


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "optimize": parameters.optimize.model_dump(mode="json"),
        "tikmix": parameters.tikmix.model_dump(mode="json", exclude={"rounds"}),
    }


@step(_relevant)
def decide(
    stock: Mapping[str, Any],
    prior: Mapping[str, Any],
    optimize: OptimizeParameters,
    tikmix: TikmixParameters,
    *influences: Table,
) -> dict[str, Any]:
    """Decide the mixture of the next round."""
    from tikmix_pipeline.mixture.decision import summary_lines
    from tikmix_pipeline.mixture.direct import decide_direct
    from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget

    budget = TokenBudget.from_json(stock)
    decision = decide_direct(budget, MixtureRecord.from_json(prior), optimize, tikmix, influences)
    number = budget.round + 1
    _LOG.info("TiKMiX-D for round %d\n%s", number, "\n".join(summary_lines(decision)))
    strategy = "prior" if tikmix.strategy == "prior" else "direct"
    return decision.to_record(strategy, number).to_json()
