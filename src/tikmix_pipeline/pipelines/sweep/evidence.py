"""The node that gathers branches from elsewhere, which the surrogate `response` learns from besides its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.parameters.base import OnDisk, View
from tikmix_pipeline.parameters.sweep import EvidenceParameters

if TYPE_CHECKING:
    import pandas as pd


class EvidenceView(View):
    """Which branches are learned from."""

    sweep: EvidenceParameters
    files: OnDisk


def gather_evidence(view: EvidenceView, root: Path, budget: TokenBudget, *rounds: pd.DataFrame) -> pd.DataFrame:
    """Gather the branches of earlier rounds, their mixtures and losses in turn, and those of a user's table."""
    from tikmix_pipeline.mixture.sweep.evidence import evidence_table, split_domains
    from tikmix_pipeline.mixture.sweep.responses import responses_of
    from tikmix_pipeline.mixture.sweep.tables import read_sweep_tables

    pairs = zip(rounds[::2], rounds[1::2], strict=True)
    sources = {f"round {number}": responses_of(*pair) for number, pair in enumerate(pairs)}
    table = view.sweep.table
    if table.ratios:
        given = responses_of(*read_sweep_tables(root, table))
        sources["table"] = split_domains(given, table.split, budget.available)
    return evidence_table(sources)


def without_evidence(measured: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], pd.DataFrame | None]:
    """Return what was measured, and the branches from elsewhere, the one table that tells their source."""
    evidence = [table for table in measured if "source" in table]
    return [table for table in measured if "source" not in table], evidence[0] if evidence else None
