"""The measurement in stages: what is made again after which change, and what is never measured twice."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from kedro.framework.startup import bootstrap_project

from tests.pipelines.conftest import run_in
from tikmix_pipeline.influence import collect, streamed
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.pipelines.influence import streaming
from tikmix_pipeline.session.kedro_session import TikmixSession, UserError

Stamps = dict[str, int]


def round_folder(project: Path, experiment: str = "one") -> Path:
    return project / "data" / "07_model_output" / experiment / "round_0"


def stamps(folder: Path) -> Stamps:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def measure_again(project: Path, **influence: Any) -> tuple[set[str], set[str]]:
    """Run the stage with other parameters; return which artifacts and which part gradients were written."""
    folder = round_folder(project)
    before = stamps(folder)
    run_in(project, "influence", round=0, influence=influence)
    written = {name for name, stamp in stamps(folder).items() if before.get(name) != stamp}
    artifacts = {name.removesuffix(".recipe.json") for name in written if name.endswith(".recipe.json")}
    return artifacts, {name for name in written if name.endswith(".safetensors") and name.startswith("gradients/")}


OUTPUTS = {"influence.parquet", "part_influence.parquet", "spread.json", "measurement.json"}
AUTO = {"tokens": "auto", "max_tokens": 512, "stable_within": 1e-6}


@pytest.mark.parametrize("change", [{"damping": 1.0}, {"inverse": "horizon"}, {"calibration": 2.0}])
def test_another_damping_or_calibration_measures_and_fits_nothing(project: Path, change: dict[str, Any]) -> None:
    assert measure_again(project, **change) == (OUTPUTS, set())


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"memory_megabytes": 5.0}, {"device": "cpu"}])
def test_what_does_not_change_the_result_makes_nothing_again(project: Path, change: dict[str, Any]) -> None:
    assert measure_again(project, **change) == (set(), set())


@pytest.mark.parametrize(
    "change", [{"curvature": "diagonal"}, {"factor_tokens": 128}, {"fisher": "true"}, {"factor_mixture": "current"}]
)
def test_another_fit_of_the_curvature_measures_no_gradient(project: Path, change: dict[str, Any]) -> None:
    assert measure_again(project, **change) == ({"factors", *OUTPUTS}, set())
    assert not (round_folder(project) / "factors.progress").exists()


def test_curvature_without_a_fit_needs_no_factors(project: Path) -> None:
    assert measure_again(project, curvature="identity") == (OUTPUTS, set())
    assert measure_again(project, curvature="adam") == (OUTPUTS, set())


def test_other_items_are_measured_and_domains_are_not(project: Path) -> None:
    artifacts, parts = measure_again(project, items_per_task=7)
    assert artifacts == {"gradients", *OUTPUTS}
    assert {name.split("/")[1] for name in parts} == {"task-quiz", "task-riddle"}


def test_more_targets_measure_only_these_and_fewer_measure_nothing(project: Path) -> None:
    _, parts = measure_again(project, targets="all")
    assert {name.split("/")[1] for name in parts} == {f"task-heldout-{domain}" for domain in ("code", "prose", "verse")}
    assert measure_again(project, targets="tasks") == ({"gradients", *OUTPUTS}, set())
    assert measure_again(project, targets="heldout") == ({"gradients", *OUTPUTS}, set())


def test_only_the_named_tasks_guide_and_nothing_is_measured_for_fewer(project: Path) -> None:
    assert measure_again(project, tasks=["riddle"]) == ({"gradients", *OUTPUTS}, set())
    assert set(pd.read_parquet(round_folder(project) / "influence.parquet")["task"]) == {"riddle"}
    run_in(project, "optimize", round=0, influence={"tasks": ["riddle"]})
    decision = json.loads((round_folder(project) / "decision.json").read_text())
    assert set(decision["expected_gain"]) == {"riddle"}


def test_other_amount_of_text_measures_domains_alone(project: Path) -> None:
    artifacts, parts = measure_again(project, tokens=512)
    assert artifacts == {"gradients", *OUTPUTS}
    assert {name.split("/")[1] for name in parts} == {"domain-code", "domain-prose", "domain-verse"}


def test_killed_measurement_goes_on_at_the_part_it_was_killed_in(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = collect.mean_gradient

    def watched(*args: Any, of: str, **kwargs: Any) -> Any:
        if len(measured) == 9:
            measured.append("killed")
            raise KeyboardInterrupt
        measured.append(of)
        return measure(*args, of=of, **kwargs)

    folder = round_folder(project)
    gradients = ("gradients/domain-verse/0003.safetensors", "gradients/gradients.json")
    names = ("influence.parquet", "measurement.json", *gradients)
    before = [(folder / name).read_bytes() for name in names]
    for path in folder.glob("gradients/*/*"):
        path.unlink()
    monkeypatch.setattr(collect, "mean_gradient", watched)
    with pytest.raises(UserError, match="Interrupted"):
        run_in(project, "influence", round=0)
    with pytest.raises(UserError, match="gradients, which is stale: nothing says what made it"):
        compute_alone(project)
    run_in(project, "influence", round=0)
    assert len(measured) == 1 + 4 * 5
    assert [(folder / name).read_bytes() for name in names] == before


def compute_alone(project: Path) -> None:
    bootstrap_project(project)
    with TikmixSession.create(project_path=project, env="tiny", runtime_params={"round": 0}) as session:
        session.run(pipeline_names=["influence"], node_names=["round_0.compute_influence"])


@pytest.mark.parametrize("damage", ["cut", "removed", "garbage"])
def test_damaged_part_is_measured_again_alone(project: Path, damage: str) -> None:
    part = round_folder(project) / "gradients" / "task-quiz" / "0001.safetensors"
    content = part.read_bytes()
    if damage == "removed":
        part.unlink()
    else:
        part.write_bytes(content[:-9] if damage == "cut" else b"garbage")
    influence = (round_folder(project) / "influence.parquet").read_bytes()
    artifacts, parts = measure_again(project)
    assert parts == {"gradients/task-quiz/0001.safetensors"}
    assert "gradients" in artifacts
    assert part.read_bytes() == content
    assert (round_folder(project) / "influence.parquet").read_bytes() == influence


@pytest.mark.parametrize("damage", ["another round's", "one bit"])
def test_altered_part_of_the_same_size_is_refused_and_then_measured_again(project: Path, damage: str) -> None:
    """A look at sizes does not see it; whoever uses it reads it whole, and the next run does not take it over."""
    folder = round_folder(project) / "gradients"
    part = folder / "task-quiz" / "0000.safetensors"
    content = part.read_bytes()
    of_other = folder.parents[1] / "round_1" / "gradients" / "task-quiz" / part.name
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage == "one bit" else of_other.read_bytes())
    with pytest.raises(UserError, match=r"was altered after it was written: task-quiz/0000\.safetensors"):
        run_in(project, "influence", round=0, influence={"damping": 1.0})
    run_in(project, "influence", round=0, influence={"damping": 1.0})
    assert part.read_bytes() == content


def test_another_checkpoint_leaves_nothing_of_the_old_one(project: Path) -> None:
    folder = round_folder(project)
    before = {path.name: path.read_bytes() for path in (folder / "gradients" / "task-quiz").iterdir()}
    run_in(project, "train_chunk", round=0, train={"learning_rate": 0.001})
    run_in(project, "influence", round=0, train={"learning_rate": 0.001})
    after = {path.name: path.read_bytes() for path in (folder / "gradients" / "task-quiz").iterdir()}
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_measurement_says_how_it_was_made_and_how_far_it_holds(finished_project: Path) -> None:
    report = json.loads((round_folder(finished_project) / "measurement.json").read_text())
    assert (report["inverse"], report["damping"], report["damping_unit"], report["calibration"]) == (
        "damped",
        0.1,
        "relative",
        None,
    )
    assert report["horizon"] == pytest.approx(0.003 * (4 + 0.55 + 0.1))
    assert 0 < report["lambda"]["least"] <= report["lambda"]["largest"]
    assert set(report["rank_stability"]["tasks"]) == {"quiz", "riddle"}
    assert -1 <= report["rank_stability"]["mean"] <= 1
    assert report["domain_tokens"] == {"code": 256, "prose": 256, "verse": 256}
    assert report["stopping"] is None


def test_measurement_says_what_it_cost_part_by_part(finished_project: Path) -> None:
    folder = round_folder(finished_project)
    report = json.loads((folder / "measurement.json").read_text())
    cost, parts = report["cost"], report["cost"]["parts"]
    assert {unit: sum(part[unit] for part in parts.values()) for unit in ("tokens", "flops")} == {
        "tokens": cost["tokens"],
        "flops": cost["flops"],
    }
    assert parts["factors"] == json.loads((folder / "factors" / "factors.json").read_text())["cost"]
    # windows and whole items: all that is read is predicted
    read = [sum(report[f"{side}_tokens"].values()) for side in ("domain", "task")]
    assert parts["gradients"]["tokens"] == sum(read)
    assert parts["matrix"]["tokens"] == 0 < parts["matrix"]["flops"] < parts["gradients"]["flops"]


def test_curvature_without_a_fit_has_nothing_to_pay_for_it(project: Path) -> None:
    before = json.loads((round_folder(project) / "measurement.json").read_text())["cost"]["parts"]
    measure_again(project, curvature="identity")
    after = json.loads((round_folder(project) / "measurement.json").read_text())["cost"]["parts"]
    assert after["factors"] == {"tokens": 0, "flops": 0.0}
    assert after["gradients"] == before["gradients"], "what was measured before counts as if it were now"
    assert 0 < after["matrix"]["flops"] < before["matrix"]["flops"]


def test_shares_of_the_best_possible_are_one_for_the_best_domain_and_sum_to_zero_under_the_mixture(
    finished_project: Path,
) -> None:
    table = pd.read_parquet(round_folder(finished_project) / "influence.parquet")
    weights = json.loads((round_folder(finished_project) / "mixture.json").read_text())["weights"]
    table["weighted"] = table["share"] * table["domain"].map(weights)
    assert table.groupby("task")["weighted"].sum().abs().max() < 1e-6 * table["share"].abs().max()
    assert table.groupby("task")["share"].max().tolist() == pytest.approx([1.0, 1.0])
    assert (table["share_stderr"] > 0).all()
    assert table[["effect", "effect_stderr"]].isna().all(axis=None), "nothing has measured their scale"


def test_a_calibration_of_the_user_s_tells_effects_in_nats(project: Path) -> None:
    measure_again(project, calibration=2.0)
    table = pd.read_parquet(round_folder(project) / "influence.parquet")
    moved = table["effect"] / table.groupby("task")["effect"].transform("max")
    assert moved.to_numpy() == pytest.approx(table["share"].to_numpy())
    assert json.loads((round_folder(project) / "measurement.json").read_text())["calibration"] == 2.0


def test_shares_and_stability_are_metrics_and_large_files_are_not_logged(finished_project: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished_project}/mlflow.db")
    store = client.get_experiment_by_name("tikmix")
    assert store is not None
    runs = client.search_runs([store.experiment_id], "tags.experiment = 'one'")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    parent = min(parents, key=lambda run: run.info.start_time)  # other tests may have run it again
    history = client.get_metric_history(parent.info.run_id, "share/quiz/code")
    assert [metric.step for metric in history] == [0, 1]
    assert not [name for name in parent.data.metrics if name.startswith("effect/")]
    assert {"rank_stability/quiz", "rank_stability/riddle"} <= parent.data.metrics.keys()
    cost = json.loads((round_folder(finished_project).parent / "round_1" / "measurement.json").read_text())["cost"]
    assert [parent.data.metrics[f"cost/{unit}"] for unit in ("tokens", "flops")] == [cost["tokens"], cost["flops"]]
    assert not list((finished_project / "mlartifacts").rglob("*.safetensors"))


@pytest.fixture
def growing(project: Path) -> Path:
    """A project measured until the mixture is stable, with too little text for that."""
    run_in(project, "influence", round=0, influence=AUTO)
    return project


def test_growing_measurement_reports_its_curve_and_why_it_ended(growing: Path) -> None:
    report = json.loads((round_folder(growing) / "measurement.json").read_text())["stopping"]
    assert report["reason"] == "cap"
    assert [point["tokens"] for point in report["curve"]] == [128, 256, 512]
    assert all(point["total_variation"] > 0 for point in report["curve"])
    store = GradientStore(round_folder(growing) / "gradients")
    assert [part.loss_tokens for part in store.figures("domain", "code")] == [32] * 8 + [64] * 4
    assert len(store.figures("task", "quiz")) == 4


def test_growing_measurement_keeps_what_is_measured_when_it_is_let_grow_further(growing: Path) -> None:
    _, parts = measure_again(growing, **{**AUTO, "max_tokens": 1024})
    assert parts == {
        f"gradients/domain-{domain}/{part:04d}.safetensors"
        for domain in ("code", "prose", "verse")
        for part in range(12, 16)
    }


def test_growing_measurement_stops_early_where_halves_agree(growing: Path) -> None:
    """Any two mixtures agree within all of the tokens."""
    artifacts, parts = measure_again(growing, **{**AUTO, "stable_within": 1.0})
    report = json.loads((round_folder(growing) / "measurement.json").read_text())["stopping"]
    assert (report["reason"], len(report["curve"])) == ("stable", 1)
    assert (artifacts, parts) == ({"gradients", *OUTPUTS}, set())


def test_growing_measurement_under_another_damping_takes_the_parts_that_are_there(growing: Path) -> None:
    artifacts, parts = measure_again(growing, **{**AUTO, "damping": 1.0})
    assert (artifacts, parts) == ({"gradients", *OUTPUTS}, set())


def test_streaming_keeps_no_gradient_and_finds_the_same(project: Path) -> None:
    kept = pd.read_parquet(round_folder(project) / "influence.parquet")
    artifacts, _ = measure_again(project, gradients="stream")
    assert artifacts == OUTPUTS
    found = pd.read_parquet(round_folder(project) / "influence.parquet")
    assert ((found["influence"] - kept["influence"]).abs() < 0.1 * kept["stderr"]).all()
    assert not list((round_folder(project) / "streaming").rglob("*.safetensors"))
    # nothing that is there is made again
    assert measure_again(project, gradients="stream") == (set(), set())


def test_streaming_measures_the_domains_again_for_another_damping(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = streamed.mean_gradient

    def counting(*arguments: Any, **options: Any) -> Any:
        measured.append(options["of"])
        return measure(*arguments, **options)

    monkeypatch.setattr(streamed, "mean_gradient", counting)
    measure_again(project, gradients="stream")
    once = len(measured)
    measure_again(project, gradients="stream", damping=1.0)
    assert len(measured) == 2 * once > 0


def test_auto_streams_what_would_take_too_much_disk_and_keeps_what_is_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_MOST_KEPT_BYTES", 1e3)
    assert measure_again(project, gradients="auto") == (set(), set())  # kept by the run before
    gradients = round_folder(project) / "gradients"
    (gradients / "gradients.json").unlink()
    artifacts, written = measure_again(project, gradients="auto", damping=1.0)
    assert artifacts == OUTPUTS
    assert not written


@pytest.mark.parametrize(
    ("told", "reason"),
    [({"influence": AUTO}, r"influence\.tokens=auto"), ({"train": {"world_size": 2}}, r"train\.world_size=2")],
)
def test_streaming_is_refused_where_it_cannot_be_done(project: Path, told: dict[str, Any], reason: str) -> None:
    told = told | {"influence": told.get("influence", {}) | {"gradients": "stream"}}
    with pytest.raises(UserError, match=rf"influence\.gradients=stream: {reason}.* Set influence\.gradients=keep"):
        run_in(project, "influence", round=0, **told)
