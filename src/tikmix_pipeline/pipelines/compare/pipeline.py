"""Wiring of the `compare` pipeline.

    corpus ─> run_arms ─┬─> scores ────┐
                        ├─> rounds     │
                        ├─> mixtures   ├─> tabulate_comparison ─> summary, table ─> draw_comparison ─> figures
                        └─> influence ─┘

Every arm is a run of the whole loop in a process of its own, which `run_arms` starts.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.compare.accuracy import score_by_harness
from tikmix_pipeline.pipelines.compare.nodes import draw_comparison, run_arms, tabulate_comparison
from tikmix_pipeline.pipelines.corpus import create_pipeline as create_corpus
from tikmix_pipeline.run import run_context

_MADE = [f"comparison_{name}" for name in ("scores", "rounds", "mixtures", "influence")]
_TABLES = [f"comparison_{name}" for name in ("summary", "table", "stability", "against")]
_FIGURES = ("differences", "loss", "mixtures", "stability", "influence")


def create_pipeline(**_: Any) -> Pipeline:
    """Corpus, all arms of all seeds, the table and its figures."""
    summary, _table, stability, against = _TABLES
    return Pipeline(
        [
            create_corpus(),
            Node(run_arms, ["corpus", "project", "comparison_logs"], _MADE, name="run_arms"),
            Node(tabulate_comparison, [*_MADE, "params:compare"], _TABLES, name="tabulate_comparison"),
            Node(
                draw_comparison,
                [summary, *_MADE, stability, against, "params:compare"],
                [f"comparison_{name}_figure" for name in _FIGURES],
                name="draw_comparison",
            ),
            *_accuracy(),
        ]
    )


def _accuracy() -> list[Node]:
    """Return the node that runs lm-eval, if the comparison asks for any task of it."""
    if not run_context().parameters.compare.harness.enabled:
        return []
    places = ["project", "downloads", "comparison_harness_tasks"]
    values = ["params:compare", "params:corpus", "params:model", "params:train.device"]
    return [
        Node(score_by_harness, ["comparison_scores", *places, *values], "comparison_accuracy", name="score_by_harness")
    ]
