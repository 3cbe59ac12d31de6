"""Nodes that sum up a whole run."""

from collections.abc import Mapping
from typing import Any

from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Figure, Table


@step(nothing)
def summarise(final: Table, decision: Mapping[str, Any], *rounds: Any) -> dict[str, Any]:
    """Gather mixtures and scores of all rounds.

    Args:
        final: scores on all evaluation data, after the last round.
        decision: the last round's.
        rounds: the mixtures of all rounds and of the one to come, then the evaluations of all rounds.
    """
    from tikmix_pipeline.mixture.decision import Binding
    from tikmix_pipeline.mixture.report import holder, in_words

    used = decision["strategy"] != "prior"
    count = (len(rounds) - 1) // 2
    mixtures, evaluations = rounds[: count + 1], rounds[count + 1 :]
    return {
        "mixtures": list(mixtures),
        "bits_per_byte": [_scores(table) for table in evaluations],
        "final_bits_per_byte": _scores(final),
        "response": decision.get("response"),
        "expected_gain": decision["expected_gain"] if used else {},
        "notes": decision["notes"] if used else [],
        "held": {holder(b): in_words(b) for b in (Binding(**held) for held in decision["binding"])} if used else {},
    }


def _scores(table: Table) -> dict[str, dict[str, float]]:
    """Return bits per byte by kind and name: of the answer for tasks, of the text for domains."""
    main = table[(table["kind"] == "domain") | (table["measure"] == "answer")]
    return {
        kind: dict(zip(rows["name"], rows["bits_per_byte"].tolist(), strict=True))
        for kind, rows in main.groupby("kind", sort=False)
    }


@step(nothing)
def draw_run(summary: Mapping[str, Any]) -> tuple[Figure, Figure]:
    """Draw mixtures and scores over the rounds."""
    import pandas as pd

    from tikmix_pipeline.report.run_figures import bits_per_byte_over_rounds, mixture_over_rounds

    scores = pd.DataFrame(
        [
            (number, task, value)
            for number, scores in enumerate(summary["bits_per_byte"])
            for task, value in scores["task"].items()
        ],
        columns=["round", "task", "bits_per_byte"],
    )
    return mixture_over_rounds(summary["mixtures"]), bits_per_byte_over_rounds(scores)
