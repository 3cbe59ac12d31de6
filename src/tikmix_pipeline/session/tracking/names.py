"""Which datasets of the catalog are logged."""

import re

_ROUND = re.compile(r"^round_(\d+)_(\w+)$")
TABLES = {
    *("evaluation", "final_evaluation", "influence", "mixture_rows", "branch_losses", "predictions", "validation"),
    *("sweep_quality", "sweep_predictions", "sweep_importance", "sweep_trace", "sweep_exact"),
}
COMPARISONS = {f"comparison_{name}" for name in ("scores", "summary", "stability", "against", "accuracy")}
DOCUMENTS = {
    *("token_budget", "decision", "baseline", "measurement", "gains", "summary"),
    *("sweep_cost", "sweep_decision", "sweep_design"),
}
DOCUMENT_NAMES = {"token_budget": "stock"}
"""Documents that have another name in the store than in the catalog, as they had from the first."""
FILES = {"report": "report", "exports": "exports"}
"""Logged as they stand on disk, by the place they get; figures go to one of their own."""
SWEEP_PARTS = {"sweep_ratios", "sweep_metrics", "surrogate"}
_FIGURES = {
    *("influence_figure", "validation_figure", "candidates_figure"),
    *("surrogate_figure", "importance_figure", "search_figure"),
}
_LOGGED_ONCE = {
    *("corpus", "final_evaluation", "summary", "mixture_figure", "bits_per_byte_figure"),
    *COMPARISONS,
    *(f"comparison_{name}_figure" for name in ("differences", "loss", "mixtures", "stability", "influence")),
}
_LOGGED = {"train_log", "mixture", *TABLES, *DOCUMENTS, *SWEEP_PARTS, *FILES, *_FIGURES} - _LOGGED_ONCE


def is_logged(name: str) -> bool:
    """Tell whether a dataset's content goes to MLflow."""
    number, kind = split_name(name)
    return kind in (_LOGGED_ONCE if number is None else _LOGGED)


def split_name(name: str) -> tuple[int | None, str]:
    """Return a dataset's round, `None` where it is of no round, and what it is."""
    found = _ROUND.match(name)
    return (int(found[1]), found[2]) if found else (None, name)
