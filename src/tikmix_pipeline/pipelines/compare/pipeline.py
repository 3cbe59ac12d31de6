"""Wiring of the `compare` pipeline.

    corpus ─> run_arms ─┬─> scores ────┐
                        ├─> rounds     │
                        ├─> mixtures   ├─> tabulate_comparison ─> summary, table ─> draw_comparison ─> figures
                        └─> influence ─┘

Every arm is a run of the whole loop in a process of its own, which `run_arms` starts.
"""

from pathlib import Path
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.files import sha256_of_file
from tikmix_pipeline.parameters.base import OnDisk
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.compare import nodes
from tikmix_pipeline.pipelines.compare.arms import deciding_tasks, fingerprints
from tikmix_pipeline.pipelines.corpus.pipeline import corpus_of
from tikmix_pipeline.pipelines.names import COMPARISON_FIGURES
from tikmix_pipeline.run import Run, current_run

_MADE = [f"comparison_{name}" for name in ("scores", "rounds", "mixtures", "influence")]
_TABLES = [f"comparison_{name}" for name in ("summary", "table", "stability", "against")]


def create_pipeline(**_: Any) -> Pipeline:
    """Corpus, all arms of all seeds, the table and its figures."""
    return comparison_of(current_run())


def comparison_of(run: Run) -> Pipeline:
    """Corpus, all arms of all seeds, the table and its figures."""
    summary, _table, stability, against = _TABLES
    table, figures = nodes.TableView.of(run.parameters), nodes.FigureView.of(run.parameters, number=None)
    drawn = [summary, *_MADE, stability, against]
    return Pipeline(
        [
            corpus_of(run),
            _arms(run),
            cached_node(nodes.tabulate_comparison, table, _MADE, _TABLES),
            cached_node(nodes.draw_comparison, figures, drawn, COMPARISON_FIGURES),
            *([_accuracy(run)] if run.parameters.compare.harness.enabled else []),
        ]
    )


def _arms(run: Run) -> Node:
    view = nodes.ArmsView(
        fingerprints=OnDisk(lambda: dict(fingerprints(run))),
        deciding=OnDisk(lambda: deciding_tasks(run.parameters)),
        run=run,
    )
    return cached_node(nodes.run_arms, view, ["corpus", "comparison_logs"], _MADE)


def _accuracy(run: Run) -> Node:
    """Return the node that runs lm-eval."""
    harness = run.parameters.compare.harness
    view = nodes.AccuracyView.of(
        run.parameters,
        harness=harness,
        files=OnDisk(lambda: _digests(run.root / harness.include_path) if harness.include_path else {}),
        device=run.parameters.train.device,
        run=run,
    )
    inputs = ["comparison_scores", "project", "downloads", "comparison_harness_tasks"]
    return cached_node(nodes.score_by_lm_eval, view, inputs, "comparison_accuracy")


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, without what Python and file managers leave there."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = [file for file in files if not any(part.startswith((".", "__pycache__")) for part in file.parts)]
    return {file.as_posix(): sha256_of_file(folder / file) for file in kept}
