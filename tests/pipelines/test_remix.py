"""`remix`: a checkpoint that was trained elsewhere in, the next mixture and its trainers' files out."""

import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from tests.pipelines.conftest import run_in
from tests.pipelines.remix_project import PATHS, SIZES, outputs, read, remix
from tests.pipelines.test_tracking import parent_of
from tikmix_pipeline.files import write_json
from tikmix_pipeline.session.kedro_session import UserError


def strategies(project: Path) -> dict[int, str]:
    rows = pd.read_parquet(outputs(project) / "mixtures.parquet")
    found: dict[int, str] = rows.groupby("round")["strategy"].first().to_dict()
    return found


def test_a_sharded_checkpoint_in_half_precision_ends_in_a_mixture_a_report_and_exports(remixed: Path) -> None:
    assert len(list((remixed / "checkpoints" / "first").glob("*.safetensors"))) > 1
    stock, mixture = read(outputs(remixed) / "round_0/stock.json"), read(outputs(remixed) / "round_1/mixture.json")
    assert stock["size_source"] == {"code": "given", "prose": "given", "verse": "given"}
    assert sum(stock["consumed"].values()) == pytest.approx(4e6)
    assert sum(mixture["weights"].values()) == pytest.approx(1)
    assert sum(mixture["tokens"].values()) == pytest.approx(1e6, abs=3)
    reporting = remixed / "data" / "08_reporting" / "elsewhere"
    assert {"megatron.txt", "levanter.yaml", "exports.json"} <= {
        file.name for file in (reporting / "exports").iterdir()
    }
    page = (reporting / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("code", "prose", "verse", "quiz", "riddle", "exports/megatron.txt"))
    rows = read(reporting / "report.json")["domains"]
    assert {row["name"]: row["recommended"] for row in rows} == mixture["weights"]


def shown(project: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return all that a person is shown of expected gains: terminal, page, report and trainers' files."""
    reporting = project / "data" / "08_reporting" / "elsewhere"
    files = [reporting / "report.html", reporting / "report.json", *(reporting / "exports").iterdir()]
    return [
        " ".join(capsys.readouterr().out.split()),
        *(file.read_text(encoding="utf-8") for file in files if file.is_file()),
    ]


def test_without_a_measured_scale_no_gain_is_told_in_nats_and_none_exceeds_the_best_possible(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remix(elsewhere)
    told = shown(elsewhere, capsys)
    assert [text for text in told if "nats" in text] == []
    assert sum("share of the best possible" in text for text in told) >= 4
    gains = read(outputs(elsewhere) / "round_0/gains.json")
    assert set(gains) == {"quiz", "riddle"}
    for gain in gains.values():
        assert gain["unit"] == "share"
        assert gain["gain"] <= 1
        assert gain["unconstrained_gain"] <= 1


def test_what_held_out_text_pays_is_the_first_line_that_a_person_sees(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remix(elsewhere, optimize={"method": "response"})
    terminal, page, *_ = shown(elsewhere, capsys)
    report = read(elsewhere / "data/08_reporting/elsewhere/report.json")
    first = report["guardrail_notes"][0]
    assert first.startswith("Held-out text is expected to")
    assert terminal.index(first) < terminal.index("Mixture of the next")
    assert page.index(first.split("; ")[0]) < page.index("Tokens that move to other domains")
    (told,) = [line for line in report["constraints"] if "optimize.guardrails.heldout" in line]
    assert "may get worse by at most 1 of what the tasks gain" in told


def test_with_the_user_s_calibration_gains_are_told_in_nats_with_the_same_decision(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, mixture = (read(outputs(elsewhere) / name) for name in ("round_0/gains.json", "round_1/mixture.json"))
    remix(elsewhere, influence={"calibration": 0.5})
    terminal, page, *_ = told = shown(elsewhere, capsys)
    assert "Expected gain, nats per token" in terminal
    assert "influence.calibration = 0.5" in page
    assert not any("share of the best possible" in text for text in told)
    assert read(outputs(elsewhere) / "round_1/mixture.json")["weights"] == mixture["weights"]
    after = read(outputs(elsewhere) / "round_0/gains.json")
    for task, gain in after.items():
        assert gain["unit"] == "nats"
        assert gain["gain"] / gain["stderr"] == pytest.approx(before[task]["gain"] / before[task]["stderr"])


def test_mlflow_has_the_page_to_try_things_out_beside_the_report(remixed: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{remixed}/mlflow.db")
    run_id = parent_of(remixed, "elsewhere").info.run_id
    assert {one.path for one in client.list_artifacts(run_id, "report")} == {"report/report.html", "report/whatif.html"}


def test_nothing_is_trained_and_the_checkpoint_is_linked_not_copied(remixed: Path) -> None:
    adopted = remixed / "data" / "06_models" / "elsewhere" / "round_0"
    assert all(file.is_symlink() for file in adopted.glob("*.safetensors"))
    assert not (outputs(remixed) / "round_0" / "balanced").exists()
    assert not (remixed / "data" / "06_models" / "elsewhere" / "initial").exists()


def test_the_catalog_of_mixtures_has_the_one_in_force_and_the_one_decided(remixed: Path) -> None:
    assert strategies(remixed) == {0: "prior", 1: "direct"}
    rows = pd.read_parquet(outputs(remixed) / "mixtures.parquet")
    assert rows.groupby("round")["tokens"].sum().to_dict() == pytest.approx({0: 4e6, 1: 1e6}, abs=3)


def listed(said: str, state: str) -> set[str]:
    """Return what a run says to be made, or up to date, of the first round's artifacts."""
    (names,) = re.findall(rf"{state} in data/07_model_output/elsewhere/round_0: ([^:]*)", " ".join(said.split()))
    return set(names.replace(",", " ").split())


def test_a_checkpoint_seen_before_is_its_old_round_and_costs_nothing(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remix(elsewhere)
    assert "made in" not in capsys.readouterr().out
    assert not (outputs(elsewhere) / "round_2").exists()


def test_another_constraint_measures_nothing_again(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remix(elsewhere, optimize={"pinned": {"code": 0.5}}, remix={"sizes": {**SIZES, "code": {"tokens": 6e6}}})
    said = capsys.readouterr().out
    assert read(outputs(elsewhere) / "round_1/mixture.json")["weights"]["code"] == 0.5
    assert "decision.json" in listed(said, "made")
    assert {"factors", "gradients"} <= listed(said, "up to date")


def test_a_run_that_goes_on_for_longer_keeps_text_for_its_end(elsewhere: Path) -> None:
    """Of 10 million tokens that remain, what is left of `code` and `verse` is a part; of the chunk it could be all."""
    sizes = {"code": {"tokens": 5e5}, "prose": {"bytes": 4e8}, "verse": {"tokens": 1e6}}
    told: dict[str, Any] = {"sizes": sizes, "consumed": {"code": 1e6, "prose": 1e6, "verse": 1e6}}
    remix(elsewhere, remix=told | {"remaining_tokens": 10_000_000}, optimize={"entropy": 0.0, "pareto": False})
    stock, mixture = read(outputs(elsewhere) / "round_0/stock.json"), read(outputs(elsewhere) / "round_1/mixture.json")
    assert stock["remaining_tokens"] == 10_000_000
    assert mixture["weights"]["code"] <= (4 * 5e5 - 1e6) / 1e7 + 1e-6
    assert mixture["weights"]["verse"] <= (4 * 1e6 - 1e6) / 1e7 + 1e-6
    assert sum(mixture["tokens"].values()) == pytest.approx(1e6, abs=3)
    report = read(elsewhere / "data/08_reporting/elsewhere/report.json")
    assert report["remaining_tokens"] == 10_000_000
    assert report["constraints"][0] == (
        "No domain is read more than 4 times by the end of the run, were the mixture kept for the 10,000,000 tokens "
        "that remain (optimize.max_epochs, remix.remaining_tokens)."
    )
    rows = {row["name"]: row for row in report["domains"]}
    assert rows["code"]["epochs"] == mixture["epochs"]["code"]
    for name in ("code", "verse"):
        read_by_the_end = told["consumed"][name] + mixture["weights"][name] * 1e7
        assert rows[name]["final_epochs"] == pytest.approx(read_by_the_end / sizes[name]["tokens"])
        assert rows[name]["final_epochs"] <= 4 + 1e-4


def test_the_curvature_follows_the_mixture_that_the_team_trains_under_if_it_is_to(elsewhere: Path) -> None:
    factors = outputs(elsewhere) / "round_0/factors.recipe.json"
    told = {"current": {"code": 0.8, "prose": 0.1, "verse": 0.1}}
    before = factors.stat().st_mtime_ns
    remix(elsewhere, remix=told)
    assert factors.stat().st_mtime_ns == before
    remix(elsewhere, remix=told, influence={"factor_mixture": "current"})
    assert "round_0_current_mixture" in read(factors)["inputs"]


def test_the_next_checkpoint_is_the_next_round_on_the_mixture_decided_before(elsewhere: Path) -> None:
    decided = read(outputs(elsewhere) / "round_1/mixture.json")
    remix(elsewhere, model={"checkpoint": "checkpoints/second"}, remix={"consumed": None})
    stock = read(outputs(elsewhere) / "round_1/stock.json")
    assert stock["in_force"] == decided["weights"]
    assert sum(stock["consumed"].values()) == pytest.approx(5e6, abs=3)
    assert read(outputs(elsewhere) / "round_2/mixture.json")["round"] == 2
    phases = (elsewhere / "data/08_reporting/elsewhere/exports/megatron.phases.txt").read_text(encoding="utf-8")
    assert str(round(4e6 / 8192)) in phases
    assert str(round(5e6 / 8192)) in phases


def test_decisions_remember_the_rounds_before(elsewhere: Path) -> None:
    second = {"checkpoint": "checkpoints/second"}
    remix(elsewhere, model=second, remix={"consumed": None})
    # whatever the tasks allow
    with_memory = read(outputs(elsewhere) / "round_1/decision.json")["unconstrained"]
    remix(elsewhere, model=second, remix={"consumed": None}, tikmix={"memory": "none"})
    assert read(outputs(elsewhere) / "round_1/decision.json")["unconstrained"] != with_memory


def test_gains_of_second_order_may_follow_a_round_that_was_decided_without(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first delivery multiplied no domains, so it has no say in what the second decides."""
    second = {"checkpoint": "checkpoints/second"}
    remix(elsewhere, model=second, remix={"consumed": None}, optimize={"method": "response"})
    assert not (outputs(elsewhere) / "round_0/domain_products.parquet").exists()
    assert read(outputs(elsewhere) / "round_1/decision.json")["second_order"]["saturation"] == 0.85
    said = " ".join(capsys.readouterr().out.split())
    assert "1 is what a task would gain under the best mixture for it alone" in said
    assert "to first order" not in said


def test_branches_of_the_checkpoint_say_what_gains_are_in_nats_or_that_they_cannot(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    branches = {"method": "response", "branches": 4, "branch_tokens": 1024, "branch_items": 8, "workers": 1}
    remix(elsewhere, optimize=branches)
    record = read(outputs(elsewhere) / "round_0/decision.json")["second_order"]
    units = {gain["unit"] for gain in read(outputs(elsewhere) / "round_0/gains.json").values()}
    said = " ".join(capsys.readouterr().out.split())
    if record.get("scale") is None:
        assert units == {"share"}
        assert "branches differ by no more than their noise" in said
    else:
        assert units == {"nats"}
        assert "branches of the checkpoint have measured them (optimize.branches)" in said


def test_a_given_mixture_goes_before_the_decided_one(elsewhere: Path) -> None:
    given = {"code": 0.2, "prose": 0.3, "verse": 0.5}
    write_json(elsewhere / "mine.json", {"weights": given})
    remix(elsewhere, model={"checkpoint": "checkpoints/second"}, remix={"current": "mine.json", "consumed": 5e6})
    assert read(outputs(elsewhere) / "round_1/stock.json")["in_force"] == given
    assert strategies(elsewhere) == {0: "prior", 1: "given", 2: "direct"}
    remix(elsewhere, model={"checkpoint": "checkpoints/second"}, remix={"consumed": 5e6})
    assert strategies(elsewhere) == {0: "prior", 1: "direct", 2: "direct"}


def test_a_sweep_decides_where_the_strategy_is_surrogate(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remix(elsewhere, tikmix={"strategy": "surrogate"}, sweep={"candidates": 16, "folds": 2, "compared": ["ridge"]})
    assert read(outputs(elsewhere) / "round_1/mixture.json")["strategy"] == "surrogate"
    page = (elsewhere / "data/08_reporting/elsewhere/report.html").read_text(encoding="utf-8")
    assert "TiKMiX-M" in page
    assert "Without constraints" not in page, "which D alone can tell"
    assert "Mixture of the next 1,000,000 tokens" in capsys.readouterr().out


def test_a_domain_and_a_task_may_go_after_a_round(elsewhere: Path) -> None:
    """What is gone was read all the same, and its stage stays in the trainers' files."""
    remix(
        elsewhere,
        corpus={"name": "fewer", "domains": {"verse": None}, "tasks": {"riddle": None}},
        model={"checkpoint": "checkpoints/second"},
        remix={"consumed": None, "sizes": {name: SIZES[name] for name in ("code", "prose")}},
    )
    stock = read(outputs(elsewhere) / "round_1/stock.json")
    assert set(stock["in_force"]) == {"code", "prose"}
    assert sum(stock["consumed"].values()) == pytest.approx(5e6, abs=3)
    assert stock["consumed"]["verse"] > 0
    assert list(read(outputs(elsewhere) / "round_1/gains.json")) == ["quiz"]
    stages = (elsewhere / "data/08_reporting/elsewhere/exports/levanter.yaml").read_text(encoding="utf-8")
    assert '"verse"' in stages


def test_a_copy_of_a_checkpoint_is_the_same_checkpoint(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, copy = elsewhere / "checkpoints" / "first", elsewhere / "checkpoints" / "copy"
    copy.mkdir()
    for file in first.iterdir():
        shutil.copy(file, copy / file.name)
    (copy / "eval_results.json").write_text("{}", encoding="utf-8")
    remix(elsewhere, model={"checkpoint": "checkpoints/copy"})
    assert not (outputs(elsewhere) / "round_1" / "stock.json").exists()
    assert "gradients" in listed(capsys.readouterr().out, "up to date")


def test_what_a_later_round_was_trained_under_is_not_rewritten(elsewhere: Path) -> None:
    remix(elsewhere, model={"checkpoint": "checkpoints/second"}, remix={"consumed": None})
    remix(elsewhere)
    decided = (outputs(elsewhere) / "round_1/mixture.json").read_bytes()
    with pytest.raises(UserError, match="round 1 was trained under what it decided"):
        remix(elsewhere, optimize={"pinned": {"code": 0.5}})
    assert (outputs(elsewhere) / "round_1/mixture.json").read_bytes() == decided


def test_an_earlier_mixture_that_was_edited_is_refused(elsewhere: Path) -> None:
    record = read(outputs(elsewhere) / "round_1/mixture.json")
    write_json(outputs(elsewhere) / "round_1/mixture.json", {**record, "weights": {"code": 1, "prose": 0, "verse": 0}})
    with pytest.raises(UserError, match="altered: changed after it was written"):
        remix(elsewhere, model={"checkpoint": "checkpoints/second"}, remix={"consumed": None})


def test_training_keeps_out_of_the_rounds_of_a_run_elsewhere(elsewhere: Path) -> None:
    with pytest.raises(UserError, match="'elsewhere' holds the rounds of `remix`"):
        run_in(elsewhere, "train_chunk", experiment="elsewhere", round=0)


def test_the_loop_writes_exports_of_all_its_rounds_whoever_decides(project: Path) -> None:
    reweight = {"exports": ["olmix"], "paths": PATHS}
    run_in(project, experiment="exported", tikmix={"strategy": "unimax", "rounds": 2}, reweight=reweight)
    exports = project / "data/08_reporting/exported/exports"
    assert pd.read_csv(exports / "olmix.ratios.csv").shape[0] == 3
    run_in(project, "reweight", round=0, reweight={"exports": ["megatron"], "paths": PATHS})
    assert "expected gain" in (project / "data/08_reporting/one/exports/megatron.about.md").read_text(encoding="utf-8")
