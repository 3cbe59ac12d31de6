"""`compare`, run for real on a small project: arms in processes of their own, and the table they end in."""

import json
import logging
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from tests.pipelines.conftest import run_in
from tests.pipelines.test_bad_input import refusal
from tests.pipelines.test_tikmix import made_when, mixture, outputs
from tests.pipelines.test_tracking import parent_of, runs_of
from tikmix_pipeline.jobs import engine
from tikmix_pipeline.session.kedro_session import RunInterruptedError

ARMS = ["proportional", "direct", "measured"]
WILD = {"train.learning_rate": 1e20, "train.warmup_tokens": 0}
COMPARE: dict[str, Any] = {
    "arms": [*ARMS, "wild"],
    "seeds": 2,
    "out_of_domain": ["riddle"],
    "workers": 1,
    "definitions": {"measured": {"tikmix.strategy": "prior"}, "wild": WILD},
}
LONG: dict[str, Any] = {"rounds": 3}


def compare(project: Path, **changes: Any) -> None:
    run_in(project, "compare", experiment="cmp", tikmix=LONG, compare=COMPARE | changes)


def table_of(project: Path, name: str = "compare") -> pd.DataFrame:
    return pd.read_parquet(project / "data" / "08_reporting" / "cmp" / f"{name}.parquet")


def checkpoint(project: Path, arm: str, number: int, seed: int = 0) -> Path:
    return project / "data" / "06_models" / f"cmp.{arm}.{seed}" / f"round_{number}"


def results(project: Path, arm: str, seed: int = 0) -> Path:
    return outputs(project, f"cmp.{arm}.{seed}")


@pytest.fixture(scope="module")
def warnings() -> list[str]:
    """What the comparison of `compared` warned of."""
    return []


@pytest.fixture(scope="module")
def compared(untouched_project: Path, tmp_path_factory: pytest.TempPathFactory, warnings: list[str]) -> Path:
    """A project that has been compared: three arms that come through and one that diverges, two seeds."""
    folder = Path(shutil.copytree(untouched_project, tmp_path_factory.mktemp("compared") / "project"))
    log = logging.getLogger("tikmix_pipeline.pipelines.compare.pool")
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    compare(folder)
    log.removeHandler(handler)
    return folder


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No arm may run from here on."""

    def refused(*_: Any, **__: Any) -> Iterator[Any]:
        jobs = _[2]
        assert not jobs, f"{[job.experiment for job in jobs]} should not run"
        yield from ()

    monkeypatch.setattr(engine, "each_job", refused)


def test_table_has_the_columns_of_the_contract_for_every_arm_seed_and_task(compared: Path) -> None:
    table = table_of(compared)
    assert {"arm", "seed", "task", "split", "bpb", "method_flops", "train_tokens"} <= set(table.columns)
    splits = {"quiz": "in_domain", "riddle": "out_of_domain", "code": "heldout", "prose": "heldout", "verse": "heldout"}
    expected = {(arm, seed, *item) for arm in ARMS for seed in (0, 1) for item in splits.items()}
    rows = list(table[["arm", "seed", "task", "split"]].itertuples(index=False, name=None))
    assert set(rows) == expected
    assert len(rows) == len(expected)
    assert (table["bpb"] > 0).all()
    assert (table["train_tokens"] == 3 * 768).all()
    assert table["bpb_answer"].isna().tolist() == (table["split"] == "heldout").tolist()


def test_scores_are_those_of_the_last_checkpoint_of_each_arm(compared: Path) -> None:
    table = table_of(compared).set_index(["arm", "seed", "task"])
    for arm in ARMS:
        final = pd.read_parquet(results(compared, arm, 1) / "final_evaluation.parquet")
        scores = final.set_index(["name", "measure"])["bits_per_byte"]
        assert table.loc[(arm, 1, "riddle"), "bpb"] == scores["riddle", "text"]
        assert table.loc[(arm, 1, "riddle"), "bpb_answer"] == scores["riddle", "answer"]
        assert table.loc[(arm, 1, "verse"), "bpb"] == scores["verse", "text"]


def test_comparison_leaves_its_tables_and_figures(compared: Path) -> None:
    folder = compared / "data" / "08_reporting" / "cmp"
    text = (folder / "compare.md").read_text()
    assert all(arm in text for arm in ARMS)
    assert {"direct", "measured"} <= set(table_of(compared, "compare_summary")["arm"])
    figures = ("differences", "loss", "mixtures", "stability", "influence")
    assert all((folder / f"compare_{name}.png").is_file() for name in figures)


def test_arms_of_a_seed_share_a_first_round_that_is_trained_once(compared: Path) -> None:
    """Their files are one and the same, not copies."""
    for seed in (0, 1):
        trained = checkpoint(compared, "start", 0, seed)
        for arm in ARMS:
            assert all(
                (checkpoint(compared, arm, 0, seed) / file.name).samefile(file)
                for file in trained.iterdir()
                if file.is_file()
            )
            log = "round_0/train_log.parquet"
            assert (results(compared, arm, seed) / log).samefile(results(compared, "start", seed) / log)
    weights = {checkpoint(compared, "start", 0, seed).joinpath("model.safetensors").read_bytes() for seed in (0, 1)}
    assert len(weights) == 2, "each seed has weights and an order of its own"
    later = {checkpoint(compared, arm, 1).joinpath("model.safetensors").read_bytes() for arm in ARMS}
    assert len(later) == 2, "direct trains on another mixture, and `measured` keeps that of `proportional`"


def test_measurement_that_two_arms_need_is_made_once(compared: Path) -> None:
    for name in ("influence.parquet", "measurement.json", "gradients/gradients.json"):
        assert (results(compared, "measured") / "round_0" / name).samefile(
            results(compared, "direct") / "round_0" / name
        )
    later = "round_1/influence.parquet"
    assert not (results(compared, "measured") / later).samefile(results(compared, "direct") / later)


def test_tasks_out_of_domain_never_guide(compared: Path) -> None:
    for path in compared.glob("data/07_model_output/cmp.*/round_*/influence.parquet"):
        assert set(pd.read_parquet(path)["task"]) == {"quiz"}, path
    decision = json.loads((results(compared, "direct") / "round_1" / "decision.json").read_text())
    assert set(decision["expected_gain"]) == {"quiz"}


def test_last_round_of_an_arm_decides_and_measures_nothing(compared: Path) -> None:
    measured = results(compared, "direct").glob("round_*/influence.parquet")
    assert sorted(path.parent.name for path in measured) == ["round_0", "round_1"]
    weights = [mixture(compared, number, "cmp.direct.0")["weights"] for number in range(4)]
    assert weights[2] == weights[3]
    assert weights[0] != weights[1]


def test_method_cost_is_that_of_the_measurements_which_decided(compared: Path) -> None:
    table = table_of(compared)
    for seed in (0, 1):
        measured = [
            json.loads((results(compared, "direct", seed) / f"round_{number}" / "measurement.json").read_text())["cost"]
            for number in range(2)
        ]
        rows = table[(table["arm"] == "direct") & (table["seed"] == seed)]
        assert measured[0]["flops"] > 0
        assert set(rows["method_flops"]) == {measured[0]["flops"] + measured[1]["flops"]}
        assert set(rows["method_tokens"]) == {measured[0]["tokens"] + measured[1]["tokens"]}
    free = table[table["arm"].isin(["proportional", "measured"])]
    assert (free[["method_flops", "method_tokens"]] == 0).all(axis=None)


def test_arm_that_diverges_is_left_out_with_a_warning_that_names_its_log(compared: Path, warnings: list[str]) -> None:
    assert len(warnings) == 2
    for seed, warning in enumerate(warnings):
        log = compared / "data" / "08_reporting" / "cmp" / "logs" / f"cmp.wild.{seed}.log"
        assert warning.startswith(f"cmp.wild.{seed} is left out: Training diverged")
        assert str(log.relative_to(compared)) in warning
        assert "Training diverged" in log.read_text()


def test_arms_are_child_runs_of_the_comparison(compared: Path) -> None:
    comparison = parent_of(compared, "cmp")
    for arm in ("start", *ARMS, "wild"):
        tops = [run for run in runs_of(compared, f"cmp.{arm}.1") if "round" not in run.data.tags]
        assert [run.data.tags["mlflow.parentRunId"] for run in tops] == [comparison.info.run_id]
        assert {run.info.status for run in tops} == {"FAILED" if arm == "wild" else "FINISHED"}
    client = mlflow.MlflowClient(f"sqlite:///{compared}/mlflow.db")
    kept = {file.path for file in client.list_artifacts(comparison.info.run_id, "tables")}
    assert "tables/comparison_scores.parquet" in kept


@pytest.mark.usefixtures("no_process")
def test_second_comparison_makes_nothing(compared: Path) -> None:
    before = made_when(compared / "data")
    compare(compared)
    assert made_when(compared / "data") == before


@pytest.mark.usefixtures("no_process")
def test_arms_and_seeds_can_be_selected_and_nothing_runs_again(compared: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(compared, tmp_path / "project"))
    compare(project, arms="proportional+direct", seeds=1)
    assert list(table_of(project).drop_duplicates(["arm", "seed"])[["arm", "seed"]].itertuples(index=False)) == [
        ("proportional", 0),
        ("direct", 0),
    ]
    whole = table_of(compared).query("arm != 'measured' and seed == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(table_of(project), whole)


def test_wrong_arm_costs_nothing(compared: Path) -> None:
    before = made_when(compared / "data")
    typo = {"definitions": COMPARE["definitions"] | {"direct": {"tikmix.strategi": "direct"}}}
    message = refusal(compared, "compare", experiment="new", corpus={"name": "new"}, compare=COMPARE | typo)
    assert "compare.definitions.direct: " in message
    assert "Did you mean 'tikmix.strategy'?" in message
    message = refusal(compared, "compare", experiment="new", tikmix={"rounds": 1}, compare=COMPARE)
    assert "tikmix.rounds is 1" in message
    assert made_when(compared / "data") == before
    assert not (compared / "data" / "06_models" / "new.start.0").exists()
    assert not (compared / "data" / "02_intermediate" / "new").exists()


@contextmanager
def as_soon_as(file: Path, act: Callable[[], None]) -> Iterator[None]:
    """Do something once, as soon as there is a file, if it appears before the block ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if file.exists():
                act()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def kill_worker() -> None:
    for process in multiprocessing.active_children():
        process.kill()


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def terminated_at(project: Path, file: Path) -> int:
    """Run the comparison from the command line, and send it SIGTERM as soon as there is a file; how it ended."""
    told = "experiment=cmp,tikmix.rounds=3,compare.arms=proportional+direct,compare.seeds=1,compare.workers=1"
    params = ["--params", f"{told},compare.out_of_domain=riddle"]
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--pipelines", "compare", *params]
    running = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with as_soon_as(file, running.terminate):
        return running.wait()


@pytest.mark.slow
def test_comparison_that_is_killed_goes_on_to_the_same_results(compared: Path, tmp_path: Path) -> None:
    """SIGTERM of all, then SIGKILL of an arm's process, then Ctrl-C, each at another place; then to the end."""
    project = Path(shutil.copytree(compared, tmp_path / "project"))
    for part in ("06_models", "07_model_output", "08_reporting"):
        shutil.rmtree(project / "data" / part / "cmp.direct.0")
    two: dict[str, Any] = {"arms": ["proportional", "direct"], "seeds": 1}
    before = made_when(project / "data")
    direct = results(project, "direct")
    assert terminated_at(project, direct / "round_0" / "gradients") == 128 + signal.SIGTERM
    assert {run.info.status for run in runs_of(project, "cmp")} == {"FINISHED", "KILLED"}
    with as_soon_as(direct / "round_0" / "influence.parquet", kill_worker):
        message = refusal(project, "compare", experiment="cmp", tikmix=LONG, compare=COMPARE | two)
    assert "broke off: cmp.direct.0" in message
    before_test = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    with as_soon_as(direct / "round_1" / "gradients", press_ctrl_c), pytest.raises(RunInterruptedError) as interrupted:
        compare(project, **two)
    signal.signal(signal.SIGINT, before_test)
    assert interrupted.value.exit_code == 130
    runs = [run for run in runs_of(project, "cmp.direct.0") if "round" not in run.data.tags]
    assert max(runs, key=lambda run: run.info.start_time).info.status == "KILLED"
    compare(project, **two)
    now = made_when(project / "data")
    others = {name for name in before if "cmp.start." in name or "cmp.proportional." in name}
    assert len(others) > 10
    assert {name: now[name] for name in others} == {name: before[name] for name in others}
    for number in range(3):
        ours, undisturbed = (checkpoint(one, "direct", number) / "model.safetensors" for one in (project, compared))
        assert ours.read_bytes() == undisturbed.read_bytes(), number
    whole = table_of(compared).query("arm in ('proportional', 'direct') and seed == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(table_of(project), whole)
