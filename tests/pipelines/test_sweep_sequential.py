"""`sweep` by branches that are chosen one batch after the other, run for real on a small project."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.pipelines.conftest import interrupted_at, run_in
from tests.pipelines.test_sweep import SEARCH, TASKS, swept
from tests.pipelines.test_sweep_lookahead import cost_of, trained  # noqa: F401
from tests.pipelines.test_tikmix import outputs
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.session.kedro_session import UserError

SECOND = {"method": "response"}
SEQUENCE: dict[str, Any] = {
    "response": "lookahead",
    "branches": 9,
    "branch_tokens": 1024,
    "items": 8,
    "workers": 1,
    "compared": ["ridge"],
    "folds": 3,
    "search": SEARCH,
}


def sweep(project: Path, **changes: Any) -> None:
    for stage in ("influence", "optimize", "sweep"):
        run_in(project, stage, round=0, optimize=SECOND, sweep=SEQUENCE | changes)


def test_it_resumes_branch_by_branch_and_tells_why_each_was_trained(
    project: Path,
    trained: list[str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with interrupted_at(7, trained, monkeypatch):
        sweep(project)
    assert trained[:3] == ["reference", "direct", "between"]
    del trained[-1]  # the one that was interrupted
    sweep(project)
    ratios, metrics, steps = (swept(project, name) for name in ("ratios.csv", "metrics.csv", "steps.parquet"))
    assert sorted(trained) == sorted(ratios["run"]), "no branch is trained twice"
    assert list(ratios["run"]) == list(metrics["run"]) == list(steps["run"])
    assert 8 <= len(ratios) <= 9
    chosen = steps[steps["chosen_for"] == "expected improvement"]
    assert len(chosen) >= 3
    assert (chosen["deviation"] > 0).all()
    losses = metrics.set_index("run")[TASKS].mean(axis=1)
    measured = steps.set_index("run")["measured_gain"]
    pd.testing.assert_series_equal(measured, losses["reference"] - losses, check_names=False)
    assert cost_of(project)["branches"] == len(ratios)

    found = json.loads((outputs(project) / "round_0" / "sweep" / "decision.json").read_text())
    assert found["response"] == "lookahead"
    assert sum(found["weights"].values()) == pytest.approx(1)
    assert "nats per token" in " ".join(found["notes"])
    quality = swept(project, "quality.parquet")
    assert set(quality[~quality["naive"]]["surrogate"]) == {"ridge", "response"}


def test_a_round_learns_from_the_branches_of_those_before(project: Path) -> None:
    run_in(
        project,
        "tikmix",
        tikmix={"strategy": "surrogate", "rounds": 3, "verdict": False},
        optimize=SECOND,
        sweep=SEQUENCE | {"branches": 8, "branch_tokens": 256},
    )
    rounds = [outputs(project) / f"round_{number}" / "sweep" for number in (0, 1)]
    assert not (rounds[0] / "evidence.parquet").exists()
    evidence, earlier = pd.read_parquet(rounds[1] / "evidence.parquet"), pd.read_csv(rounds[0] / "metrics.csv")
    assert set(evidence["source"]) == {"round 0"}
    assert list(evidence["run"]) == list(earlier["run"])
    assert evidence["loss/quiz"].to_numpy() == pytest.approx(earlier["quiz"].to_numpy())


def test_a_table_of_branches_from_elsewhere_is_learned_from_and_a_split_domain_divided(project: Path) -> None:
    (project / "ratios.csv").write_text("run,code,text\n" + "".join(f"{n},{n / 8},{1 - n / 8}\n" for n in range(9)))
    (project / "metrics.csv").write_text("run,quiz\n" + "".join(f"{n},{3 + n / 10}\n" for n in range(9)))
    table = {"ratios": "ratios.csv", "metrics": "metrics.csv"}
    with pytest.raises(UserError, match=r"domain 'text', which this run lacks.*sweep\.table\.split"):
        sweep(project, table=table)
    sweep(project, table=table | {"split": {"text": ["prose", "verse"]}})
    evidence = swept(project, "evidence.parquet")
    assert set(evidence["source"]) == {"table"}
    parts = evidence[["weight/prose", "weight/verse"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(1 - evidence["weight/code"].to_numpy())
    assert evidence["weight/prose"].iloc[0] not in (0, 1)


def checked(**groups: Any) -> RunParameters:
    corpus = {
        "domains": {"code": {"sources": [{"kind": "standard_library"}]}},
        "tasks": {"piqa": {"sources": [{"kind": "files", "path": "piqa.jsonl"}]}},
    }
    return check_parameters({"corpus": corpus, **groups})


def test_it_is_what_lookahead_does_where_decisions_are_of_second_order() -> None:
    ahead = {"response": "lookahead"}
    sweep = checked(sweep=ahead).sweep
    assert (sweep.design, sweep.kind, sweep.branches) == ("sequential", "response", 8)
    for others in ({"optimize": {"method": "paper"}}, {}):
        given = ahead if others else ahead | {"choose": "measured"}
        sweep = checked(sweep=given, **others).sweep
        assert (sweep.design, sweep.kind) == ("latin_hypercube", "xgboost")
    assert checked().sweep.kind == "xgboost"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sweep": {"design": "sequential"}}, "set response=lookahead"),
        ({"sweep": {"surrogate": "response"}}, "set response=lookahead and target=each"),
        (
            {"sweep": {"design": "sequential", "response": "lookahead"}, "optimize": {"method": "paper"}},
            "set optimize.method=response",
        ),
        ({"sweep": {"compared": ["response"]}}, "compared"),
        ({"sweep": {"table": {"ratios": "r.csv", "metrics": "m.csv"}}}, "sweep.surrogate=response"),
        ({"sweep": {"table": {"ratios": "r.csv"}}}, "go together"),
        (
            {"sweep": {"response": "lookahead", "table": {"test_ratios": "r.csv", "test_metrics": "m.csv"}}},
            "set response=table",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TikmixError, match=said):
        checked(**given)
