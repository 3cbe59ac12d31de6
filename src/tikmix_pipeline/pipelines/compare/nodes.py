"""Nodes of the `compare` pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.parameters.base import OnDisk, View, unrecorded
from tikmix_pipeline.parameters.comparison import HarnessParameters, PointParameters, ReferenceParameters
from tikmix_pipeline.parameters.corpus import SeededTasksParameters
from tikmix_pipeline.parameters.training import LoadParameters
from tikmix_pipeline.pipelines.compare.arms import arms_of, run_of
from tikmix_pipeline.pipelines.compare.results import influence_of, mixtures_of, points_of, rounds_of, scores_of
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.views import TitledView
from tikmix_pipeline.run import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.corpus.shards import TokenShards

_OF_ROUNDS = ["arm", "seed", "round", "train_tokens", "bpb"]
_OF_COSTS = ["arm", "seed", "round", "method_tokens"]


class ArmsView(View):
    """What the runs of a comparison depend on.

    A fingerprint of an arm stands for all that its own run depends on; the run of the comparison, which tells how to
    begin them, is therefore in no record itself.
    """

    fingerprints: OnDisk
    deciding: OnDisk
    run: Run = unrecorded()


class TableView(View):
    """What the arms are set against, and which of them are comparable by their influence."""

    compare: ReferenceParameters


class FigureView(TitledView):
    """Which arms are comparable by their influence."""

    compare: PointParameters


class AccuracyView(View):
    """Which tasks of lm-eval are scored; the files are those of the user's own tasks."""

    harness: HarnessParameters
    corpus: SeededTasksParameters
    model: LoadParameters
    files: OnDisk
    device: str = unrecorded()
    run: Run = unrecorded()


def run_arms(
    view: ArmsView, corpus: TokenShards, logs: Path
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Run every arm for every seed, as many at a time as there are workers; each goes on where it stood.

    Returns:
        Scores after the last round, tokens and scores round by round, mixtures, and influence, of all arms that came
        through.
    """
    from tikmix_pipeline.pipelines.compare.pool import run_all

    del corpus  # made before any arm, so that no two of them make it at once
    deciding = view.deciding.recorded()
    finished = [(arm, run_of(view.run, arm)) for arm in run_all(view.run, logs)]
    scores = _all([scores_of(*one, deciding) for one in finished])
    rounds, mixtures, influence = (
        _all([of(*one) for one in finished]) for of in (rounds_of, mixtures_of, influence_of)
    )
    return scores, rounds, mixtures, influence


def _all(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def tabulate_comparison(
    view: TableView, scores: pd.DataFrame, rounds: pd.DataFrame, mixtures: pd.DataFrame, influence: pd.DataFrame
) -> tuple[pd.DataFrame, str, pd.DataFrame, pd.DataFrame]:
    """Set the arms against the reference, seed by seed, and influence against its own past and the final scores.

    Returns:
        Every statistic; the table to read; rank correlations of influence between rounds; influence of the mixtures
        against their final scores.
    """
    import pandas as pd

    from tikmix_pipeline.report.comparison_influence import influence_against_score, rank_stability
    from tikmix_pipeline.report.comparison_scores import measures_of
    from tikmix_pipeline.report.comparison_table import comparison_summary, comparison_table

    compare = view.compare
    reference = compare.reference
    measures = measures_of(scores)
    summaries = [comparison_summary(scores, reference=reference, measure=measure) for measure in measures]
    expected = [(arm, seed) for arm in compare.chosen for seed in compare.seeds]
    text = "\n\n".join(
        comparison_table(scores, reference=reference, measure=measure, expected=expected) for measure in measures
    )
    against = influence_against_score(points_of(scores, mixtures, influence, compare))
    return pd.concat(summaries, ignore_index=True), text, rank_stability(influence), against


def draw_comparison(
    view: FigureView,
    summary: pd.DataFrame,
    scores: pd.DataFrame,
    rounds: pd.DataFrame,
    mixtures: pd.DataFrame,
    influence: pd.DataFrame,
    stability: pd.DataFrame,
    against: pd.DataFrame,
) -> tuple[Figure, ...]:
    """Draw what the arms reached, what that took, what they read, and how stable influence was."""
    from tikmix_pipeline.report import comparison_figures as figures
    from tikmix_pipeline.report.comparison_scores import loss_curves, paired_differences
    from tikmix_pipeline.report.trade_off_figure import trade_off

    differences = paired_differences(scores, reference=summary["reference"].iloc[0])
    told: dict[str, Any] = {"arms": list(scores["arm"].unique()), "origin": view.origin}
    return (
        figures.differences_to_reference(differences, **told),
        trade_off(differences, **told),
        figures.loss_over_total_tokens(loss_curves(rounds[_OF_ROUNDS], rounds[_OF_COSTS]), **told),
        figures.mixtures_by_arm(mixtures, origin=view.origin),
        figures.rank_stability_over_rounds(stability, **told),
        figures.score_over_influence(points_of(scores, mixtures, influence, view.compare), against, **told),
    )


def score_by_lm_eval(
    view: AccuracyView, scores: pd.DataFrame, project: Path, downloads: Path, tasks_folder: Path
) -> pd.DataFrame:
    """Return accuracy with its binomial interval, per arm, seed and task."""
    import pandas as pd

    from tikmix_pipeline.corpus.build import evaluation_choices
    from tikmix_pipeline.lm.lm_eval import lm_eval_scores, write_lm_eval_tasks
    from tikmix_pipeline.progress import progress_bar

    write_lm_eval_tasks(evaluation_choices(view.corpus, root=project, downloads=downloads), tasks_folder)
    own = view.harness.include_path
    paths = [tasks_folder, *([project / own] if own else [])]
    through = set(scores[["arm", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    arms = [arm for arm in arms_of(view.run.parameters) if (arm.name, arm.seed) in through]
    rows: list[Mapping[str, Any]] = []
    with progress_bar("lm-eval", len(arms), "checkpoint") as bar:
        for arm in arms:
            run = run_of(view.run, arm)
            last = run.path(of_round(run.parameters.tikmix.rounds - 1, "checkpoint"))
            found = lm_eval_scores(last, view.harness, include_paths=paths, model=view.model, device=view.device)
            rows += [{"arm": arm.name, "seed": arm.seed, **dataclasses.asdict(score)} for score in found]
            bar.update(1)
    return pd.DataFrame(rows)
