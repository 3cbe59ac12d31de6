"""Nodes of the `compare` pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import CompareParameters, RunParameters
from tikmix_pipeline.pipelines.compare.arms import arms_of, deciding_tasks, fingerprints
from tikmix_pipeline.pipelines.compare.pool import run_all
from tikmix_pipeline.pipelines.compare.results import influence_of, mixtures_of, points_of, rounds_of, scores_of
from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Figure, Table, TokenShards


def _relevant_to_arms(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    arms = arms_of(parameters)
    return {"arms": dict(fingerprints(arms)), "deciding": deciding_tasks(parameters)}


def _relevant_to_table(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {"compare": {"reference": parameters.compare.reference}}


@step(_relevant_to_arms)
def run_arms(corpus: TokenShards, project: Path, logs: Path) -> tuple[Table, Table, Table, Table]:
    """Run every arm for every seed, as many at a time as there are workers; each goes on where it stood.

    Returns:
        Scores after the last round, tokens and scores round by round, mixtures, and influence, of all arms that came
        through.
    """
    from tikmix_pipeline.run_context import run_context

    del corpus  # made before any arm, so that no two of them make it at once
    parameters = run_context().parameters
    finished = run_all(arms_of(parameters), parameters, project, logs)
    deciding = deciding_tasks(parameters)
    scores = _all([scores_of(arm, deciding) for arm in finished])
    rounds, mixtures, influence = (_all([of(arm) for arm in finished]) for of in (rounds_of, mixtures_of, influence_of))
    return scores, rounds, mixtures, influence


def _all(tables: list[Table]) -> Table:
    import pandas as pd

    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


@step(_relevant_to_table)
def tabulate_comparison(
    scores: Table, rounds: Table, mixtures: Table, influence: Table, compare: CompareParameters
) -> tuple[Table, str, Table, Table]:
    """Set the arms against the reference, seed by seed, and influence against its own past and the final scores.

    Returns:
        Every statistic; the table to read; rank correlations of influence between rounds; influence of the mixtures
        against their final scores.
    """
    import pandas as pd

    from tikmix_pipeline.report.comparison_influence import influence_against_score, rank_stability
    from tikmix_pipeline.report.comparison_table import comparison_summary, comparison_table

    reference = compare.reference
    summaries = [comparison_summary(scores, reference=reference, measure=measure) for measure in ("bpb", "bpb_answer")]
    expected = [(arm, seed) for arm in compare.chosen for seed in compare.seeds]
    text = "\n\n".join(
        comparison_table(scores, reference=reference, measure=measure, expected=expected)
        for measure in ("bpb", "bpb_answer")
    )
    against = influence_against_score(points_of(scores, mixtures, influence, compare))
    return pd.concat(summaries, ignore_index=True), text, rank_stability(influence), against


@step(nothing)
def draw_comparison(
    summary: Table,
    scores: Table,
    rounds: Table,
    mixtures: Table,
    influence: Table,
    stability: Table,
    against: Table,
    compare: CompareParameters,
) -> tuple[Figure, ...]:
    """Draw what the arms reached, what that took, what they read, and how stable influence was."""
    from tikmix_pipeline.report import comparison_figures as figures
    from tikmix_pipeline.report.comparison_scores import loss_curves, paired_differences

    reference, arms = summary["reference"].iloc[0], list(scores["arm"].unique())
    return (
        figures.differences_to_reference(paired_differences(scores, reference=reference), arms=arms),
        figures.loss_over_total_tokens(loss_curves(rounds[_OF_ROUNDS], rounds[_OF_COSTS]), arms=arms),
        figures.mixtures_by_arm(mixtures),
        figures.rank_stability_over_rounds(stability, arms=arms),
        figures.score_over_influence(points_of(scores, mixtures, influence, compare), against, arms=arms),
    )


_OF_ROUNDS = ["arm", "seed", "round", "train_tokens", "bpb"]
_OF_COSTS = ["arm", "seed", "round", "method_tokens"]
