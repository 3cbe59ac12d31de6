import math
from typing import Any

import pytest
from report_examples import mixture, task, team_report

from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.report.laid_out import plain
from tikmix_pipeline.report.run_summary import RunSummary
from tikmix_pipeline.report.terminal_tables import (
    remix_text,
    summary_table,
    sweep_table,
    validation_table,
)
from tikmix_pipeline.report.verdict import Verdict, in_a_sentence


def summary() -> RunSummary:
    scores = {"task": {"piqa": 2.5, "siqa": 3.5}, "domain": {"code": 1.25, "web": 1.5}}
    return RunSummary(
        mixtures=(mixture(0, {"code": 0.5, "web": 0.5}), mixture(1, {"code": 0.125, "web": 0.875})),
        bits_per_byte=(scores,),
        final_bits_per_byte=scores,
        response=None,
        expected_gain={"piqa": 1.5, "siqa": -0.25},
        gain_scale={"piqa": 6.0, "siqa": 0.5},
        held={"web": "at most 0.875 (optimize.max_weight)"},
        notes=("No domain helps siqa.",),
    )


def unwrapped(run: RunSummary) -> str:
    return " ".join(summary_table(run, "mine").text.split())


def test_table_shows_mixtures_scores_gains_and_what_holds_the_decision_back() -> None:
    lines = [" ".join(line.split()) for line in summary_table(summary(), "mine").text.splitlines()]
    assert "code 50.0% 12.5%" in lines
    assert "piqa 2.500 +0.25" in lines
    assert "siqa 3.500 -0.5" in lines
    assert "mean of tasks 3.000" in lines
    assert "web 1.500" in lines
    assert "web: at most 0.875 (optimize.max_weight)" in lines
    assert "No domain helps siqa." in lines


def test_the_loss_of_choices_is_shown_where_there_are_any() -> None:
    assert "Right choice" not in summary_table(summary(), "mine").text
    scored = summary().model_copy(update={"choice": ({"siqa": 1.25},), "final_choice": {"siqa": 1.0}})
    lines = [" ".join(line.split()) for line in summary_table(scored, "mine").text.splitlines()]
    assert lines[lines.index("Right choice: nats per item round 0") + 2] == "siqa 1.250"
    final = lines.index("All evaluation data, at the end bits per byte right choice, nats per item")
    assert lines[final + 2 : final + 4] == ["piqa 2.500", "siqa 3.500 1.000"]


def test_scores_of_other_items_stand_in_another_table() -> None:
    """The rounds score a fixed part of the evaluation data, the end all of it."""
    other = {"task": {"piqa": 9.5, "siqa": 9.5}, "domain": {"code": 9.5, "web": 9.5}}
    text = summary_table(summary().model_copy(update={"final_bits_per_byte": other}), "mine").text
    rounds, _, final = text.partition("All evaluation data, at the end")
    assert "9.5" not in rounds
    assert final.count("9.500") == 5


def test_nothing_is_wider_than_eighty_columns_however_many_rounds_there_are() -> None:
    one = summary()
    mixtures = tuple(mixture(number, {"code": 0.5, "web": 0.5}) for number in range(13))
    many = one.model_copy(
        update={
            "mixtures": mixtures,
            "bits_per_byte": one.bits_per_byte * 12,
            "notes": ("A long sentence that goes on and on. " * 5,),
            "asked": {"piqa": {f"a-domain-of-a-long-name-{n}": 0.25 for n in range(4)}},
        }
    )
    lines = summary_table(many, "mine").text.splitlines()
    assert max(map(len, lines)) <= 80
    (head,) = [line for line in lines if line.startswith("Mixture")]
    assert head.split()[:5] == ["Mixture", "round", "0", "…", "round"]
    assert head.split()[-3:] == ["round", "11", "next"]


def test_expected_gains_are_shares_unless_branches_of_the_checkpoint_were_measured() -> None:
    told = summary_table(summary(), "mine").text
    assert "share of the best possible" in told
    assert "nats" not in told
    measured = summary().model_copy(update={"response": "lookahead", "gain_scale": None})
    assert "nats per token after a short branch of training from this checkpoint" in unwrapped(measured)


def test_table_says_where_the_figures_are_and_how_to_open_the_page() -> None:
    text = summary_table(summary(), "mine").text
    assert "data/08_reporting/mine/" in text
    assert "make ui" in text


GUARDED = "Held-out text is expected to lose 3.0 % (0.12 nats per token); without guardrails it would lose 16.0 %."


def test_what_held_out_text_pays_is_the_first_line_of_all() -> None:
    """That is what a reader should weigh the gains against."""
    guarded = summary().model_copy(update={"guardrail_notes": (GUARDED,)})
    assert unwrapped(guarded).startswith(GUARDED)
    report = team_report(guardrail_notes=(GUARDED,), tasks=(task(),))  # the team's own has an error that is not known
    assert " ".join(remix_text(report).text.split()).startswith(GUARDED)
    swept = sweep_table(sweep_decision(guardrail_notes=(GUARDED,)), quality("gp", 0.5), "mine")
    assert " ".join(swept.text.split()).startswith(GUARDED)
    assert summary_table(summary(), "mine").text.strip().splitlines()[0].startswith("Mixture")


def test_table_says_what_each_task_asks_for_and_what_they_get_together() -> None:
    asked = {"piqa": {"code": 0.9, "web": 0.1}, "siqa": {"code": 0.0, "web": 1.0}}
    lines = summary_table(summary().model_copy(update={"asked": asked}), "mine").text.splitlines()
    first = lines.index("Alone, each would get next")
    assert lines[first + 2 : first + 5] == [
        "piqa                        code 90%, web 10%",
        "siqa                        web 100%",
        "all together                web 88%, code 12%",
    ]


def test_table_ends_with_the_verdict_if_there_is_one() -> None:
    change = {"decided": 2.5, "kept": 2.75, "difference": -0.25, "low": -0.3, "high": -0.2}
    content = {"tasks": {"piqa": change}, "heldout": {"code": change}, "deciding": ["piqa"], "mean_of_tasks": change}
    verdict = Verdict.from_json(content | {"mean_of_heldout": change, "training_flops": 4.0, "method_flops": 1.0})
    ending = summary_table(summary().model_copy(update={"verdict": verdict}), "mine")
    text = ending.text
    assert " ".join(text.split()).endswith(" ".join(in_a_sentence(verdict).split()))
    assert ending.markdown.startswith(plain(in_a_sentence(verdict))), "on a page it comes first"
    assert "make ui" not in ending.markdown
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "Bits per byte of whole items decided prior kept difference 95 % interval" in lines
    assert "piqa 2.500 2.750 -0.250 -0.300 to -0.200" in lines
    assert "keeping the prior" not in summary_table(summary(), "mine").text


def test_columns_stand_below_their_headings() -> None:
    block = summary_table(summary(), "mine").text.strip().split("\n\n")[0].splitlines()
    ends = [[position for position, letter in enumerate(line) if letter == "%"] for line in block[2:]]
    assert ends[0] == ends[1]


def validation(**changes: Any) -> list[dict[str, Any]]:
    """Rows of two candidates, the second of them the best."""
    row: dict[str, Any] = {"round": 1, "half": "evaluation", "replicates": 3, "branch_tokens": 4096}
    row |= {"chunk_tokens": 4096, "ceiling": 0.5, "pearson_ceiling": 0.625, "reachable": 0.875, "groups": ""}
    for name in ("pearson", "spearman", "slope"):
        row |= {name: 0.75, f"{name}_low": 0.25, f"{name}_high": 1.0}
    settings = {"kind": "kfac", "inverse": "horizon", "damping": 1.0, "damping_unit": "horizon", "best": True}
    candidates = {"identity": {"kind": "identity", "best": False}, "kfac horizon 1 (horizon)": settings}
    return [
        {**row, "curvature": label, "task": task, **(settings | own), **changes}
        for label, own in candidates.items()
        for task in ("piqa", "mean of tasks", "mean gain")
    ]


def lines_of(rows: list[dict[str, Any]]) -> list[str]:
    return [" ".join(line.split()) for line in validation_table(rows, "mine").text.splitlines()]


def test_validation_shows_every_candidate_above_what_could_be_reached() -> None:
    lines = lines_of(validation())
    assert "Round 1, evaluation half, 3 replicates of 4,096 tokens per branch" in lines
    assert "identity 0.75 (0.25 to 1.00) 0.75 (0.25 to 1.00) 0.75" in lines
    assert "two replicates 0.62 0.50 0.62" in lines
    assert "a perfect prediction 0.88 0.88" in lines
    assert "piqa 0.75 0.62 0.75 0.50 0.75" in lines, "the best candidate, task by task"


def test_validation_says_what_to_set_to_measure_with_the_best() -> None:
    assert (
        "Best: kfac horizon 1 (horizon). Set --params influence.curvature=kfac,influence.inverse=horizon,"
        "influence.damping=1.0,influence.damping_unit=horizon,influence.calibration=0.75"
        in " ".join(lines_of(validation()))
    )
    assert "with influence.groups: [linear, head] in a conf file" in "\n".join(
        lines_of(validation(groups="linear, head"))
    )


def test_validation_says_when_its_branches_are_not_as_long_as_a_chunk() -> None:
    assert "The calibration is that of 4,096 tokens; a chunk has 8,192." in lines_of(validation(chunk_tokens=8192))


@pytest.mark.parametrize("changes", [{"slope": -0.5}, {"slope": float("nan")}, {"best": False}])
def test_validation_does_not_recommend_what_does_not_predict(changes: dict[str, Any]) -> None:
    text = "\n".join(lines_of(validation(**changes)))
    assert "No candidate predicts what the branches did" in text
    assert "--params" not in text


def test_validation_of_one_replicate_leaves_its_ceiling_open() -> None:
    lines = lines_of(validation(ceiling=float("nan"), pearson_ceiling=float("nan"), reachable=float("nan")))
    assert "two replicates - - -" in lines


def sweep_decision(**changes: Any) -> DecisionRecord:
    decision = DecisionRecord(
        round=2,
        strategy="surrogate",
        weights={"code": 0.25, "web": 0.75},
        binding=(),
        prior={"code": 0.5, "web": 0.5},
        direct_weights={"code": 0.375, "web": 0.625},
        searched_weights={"code": 0.25, "web": 0.75},
        expected_gain={"piqa": 0.0125, "siqa": -0.5},
        kept="surrogate",
        direct_objective=-1.25,
        searched_objective=-1.5,
        notes=("Candidates hardly differ.",),
    )
    return decision.model_copy(update=changes)


def quality(surrogate: str, *spearman: float, naive: bool = False) -> list[dict[str, Any]]:
    aggregate = math.nan if any(map(math.isnan, spearman)) else 0.875
    row = {"surrogate": surrogate, "naive": naive, "n": 256, "verdict": "cross-validation"}
    row["aggregate_spearman"] = aggregate
    unknown = math.nan if naive else 0.5
    return [
        {**row, "target": f"t{n}", "spearman": s, "r2": unknown, "coverage": unknown} for n, s in enumerate(spearman)
    ]


def sweep_lines(decision: DecisionRecord) -> list[str]:
    rows = [*quality("additive influence", 0.25, naive=True), *quality("gp", 0.75, 0.5, math.nan)]
    return [" ".join(line.split()) for line in sweep_table(decision, rows, "mine").text.splitlines()]


def test_sweep_shows_the_three_mixtures_and_what_is_expected() -> None:
    lines = sweep_lines(sweep_decision())
    assert "Mixture prior D M" in lines
    assert "code 50.0% 37.5% 25.0%" in lines
    assert "siqa -0.5" in lines


@pytest.mark.parametrize(
    ("changes", "heading", "gain"),
    [
        (
            {"response": "influence", "gain_scale": {"piqa": 0.05, "siqa": 2.0}},
            "gain, share of the best possible,",
            "+0.25",
        ),
        ({"response": "lookahead"}, "fall of the response, nats per token after a branch,", "+0.0125"),
        ({"response": "table"}, "fall of the response,", "+0.0125"),
    ],
)
def test_sweep_tells_the_unit_of_what_is_expected(changes: dict[str, Any], heading: str, gain: str) -> None:
    lines = sweep_lines(sweep_decision(**changes))
    assert f"Expected {heading} against the prior" in lines
    assert f"piqa {gain}" in lines


def test_sweep_shows_means_of_what_is_defined_and_how_many_are_not_naive_rules_last() -> None:
    lines = sweep_lines(sweep_decision())
    assert "Surrogate, cross-validation, n = 256 Spearman of the mean R² coverage undefined" in lines
    learned, naive = (
        lines.index(line) for line in ("gp 0.625 - 0.500 0.50 1", "additive influence (naive rule) 0.250 0.875 - -")
    )
    assert learned < naive


def test_sweep_says_what_was_kept_and_why() -> None:
    lines = sweep_lines(sweep_decision())
    assert "Decided: M, the surrogate's mixture." in lines
    assert "Predicted objective, lower is better: -1.5 of M, -1.25 of D's." in lines
    kept = sweep_lines(sweep_decision(kept="direct", notes=("No better than additive.",)))
    assert kept[kept.index("Decided: D's mixture is kept.") + 2] == "No better than additive."


def test_sweep_of_tables_has_no_mixture_of_d() -> None:
    lines = sweep_lines(sweep_decision(direct_weights=None, direct_objective=None))
    assert "Mixture prior M" in lines
    assert "Predicted objective, lower is better: -1.5 of M." in lines
    assert "code 50.0% 25.0%" in lines
