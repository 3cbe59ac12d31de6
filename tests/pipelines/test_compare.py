"""`compare`, run for real on a small project: arms in processes of their own, and the table they end in."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from kedro.framework.startup import bootstrap_project

from tests.pipelines.conftest import run_in
from tests.pipelines.test_bad_input import refusal
from tests.pipelines.test_tikmix import made_when, mixture, outputs
from tests.pipelines.test_tracking import parent_of, runs_of
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm import workers
from tikmix_pipeline.pipelines.compare.arms import arms_of, context_of, nested
from tikmix_pipeline.provenance import check_arms
from tikmix_pipeline.run_context import RunContext, run_context, set_run_context
from tikmix_pipeline.session import TikmixSession

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
def compared(finished_project: Path, tmp_path_factory: pytest.TempPathFactory, warnings: list[str]) -> Path:
    """A project that has been compared: three arms that come through and one that diverges, two seeds."""
    folder = Path(shutil.copytree(finished_project, tmp_path_factory.mktemp("compared") / "project"))
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

    monkeypatch.setattr(workers, "each_in_a_process", refused)


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


@pytest.fixture(scope="module")
def told(finished_project: Path) -> RunContext:
    """What a comparison in the experiment `new` was told."""
    bootstrap_project(finished_project)
    params = {"experiment": "new", "tikmix": LONG, "compare": COMPARE}
    with TikmixSession.create(project_path=finished_project, env="tiny", runtime_params=params) as session:
        session.load_context()
    return run_context()


@pytest.fixture
def context(told: RunContext) -> RunContext:
    """The same, as that of the run under way."""
    set_run_context(told)
    return told


def checked(context: RunContext, definition: dict[str, Any], **changes: Any) -> None:
    """Check a comparison of the reference with one arm."""
    definitions = context.parameters.compare.definitions | {"mine": definition}
    own: dict[str, Any] = {"definitions": definitions, "arms": ["proportional", "mine"], **changes}
    values = context.parameters.model_dump() | {"compare": context.parameters.compare.model_dump() | own}
    changed = replace(context, parameters=type(context.parameters).model_validate(values))
    set_run_context(changed)
    check_arms(changed)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"tikmix.strategi": "direct"}, "tikmix.strategi is not a parameter. Did you mean 'tikmix.strategy'?"),
        ({"optimise.entropy": 1.0}, "optimise is not a parameter. Did you mean 'optimize'?"),
        ({"tikmix.strategy": "dirct"}, "tikmix.strategy: input should be 'direct'"),
        ({"tikmix.strategy.kind": "direct"}, "tikmix.strategy: input should be 'direct'"),
        ({"optimize.entropy": -1.0}, "optimize.entropy: input should be greater than or equal to 0, got -1"),
        ({"tikmix.rounds": "many"}, "tikmix.rounds: input should be a valid integer"),
        ({"tikmix.prior": {"code": 0.5, "pros": 0.5}}, "Did you mean 'prose'?"),
        ({"optimize.bounds.vers.max": 0.5}, "Did you mean 'verse'?"),
        ({"train.decay_tokens": 100_000}, "are longer than the whole run"),
        ({"sweep.choose": "measured"}, "set response=lookahead"),
        ({"seed": 7}, "seed is the same for all arms"),
        ({"experiment": "mine"}, "experiment is the same for all arms"),
        ({"corpus.name": "mine"}, "corpus.name is the same for all arms"),
        ({"influence.tasks": ["quiz", "riddle"]}, "influence.tasks lets 'riddle' decide"),
        ({"influence.tasks": None}, "influence.tasks lets 'riddle' decide"),
    ],
)
def test_wrong_definition_is_refused_with_the_name_of_its_arm(
    context: RunContext, definition: dict[str, Any], message: str
) -> None:
    with pytest.raises(TikmixError) as error:
        checked(context, definition)
    assert str(error.value).startswith("compare.definitions.mine: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "direct"}, "compare.reference is 'direct', which is not among the arms: proportional, mine"),
        (
            {"out_of_domain": ["ridle"]},
            "compare.out_of_domain names the task 'ridle', which is not there. Did you mean",
        ),
        ({"out_of_domain": ["quiz", "riddle"]}, "leaves no task to decide on"),
    ],
)
def test_comparison_that_cannot_judge_is_refused(context: RunContext, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TikmixError) as error:
        checked(context, {}, **changes)
    assert message in str(error.value)


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


def test_arm_with_rounds_of_its_own_decides_in_all_but_the_last(context: RunContext) -> None:
    compare = context.parameters.compare.model_copy(update={"definitions": {"proportional": {"tikmix.rounds": 5}}})
    parameters = context.parameters.model_copy(update={"compare": compare})
    assert {context_of(arm).parameters.tikmix.decisions for arm in arms_of(parameters)[2:]} == {4}


def test_arms_differ_from_the_comparison_in_what_they_say_and_in_nothing_else(context: RunContext) -> None:
    starts, arms = arms_of(context.parameters)[:2], arms_of(context.parameters)[2:]
    assert [arm.experiment for arm in starts] == ["new.start.0", "new.start.1"]
    assert [arm.seed for arm in arms] == [0] * 4 + [1] * 4, "seed by seed"
    whole = context.parameters.model_dump()
    for arm in arms:
        own = context_of(arm)
        assert own.parameters.experiment == f"new.{arm.name}.{arm.seed}"
        assert own.parameters.seed == arm.seed
        groups = {group for group, value in own.parameters.model_dump().items() if value != whole[group]}
        known = {"experiment", "seed", "influence", "tikmix", "sweep", "baselines"}
        assert groups - known == ({"train"} if arm.name == "wild" else set())


def test_dotted_names_become_groups_and_the_last_word_holds() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": {}}) == {"a": {"b": 1, "c": {"d": 2}}, "e": {}}
    assert nested({"tikmix.prior": "proportional", "tikmix.prior.code": 1.0}) == {"tikmix": {"prior": {"code": 1.0}}}


@contextmanager
def as_soon_as(file: Path, act: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as there is a file, if it appears before the block ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if file.exists():
                act()
                return
            time.sleep(0.005)

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


def interrupt_all() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate_when(project: Path, file: Path) -> None:
    """Run the comparison from the command line, and end it by SIGTERM as soon as there is a file."""
    told = "experiment=cmp,tikmix.rounds=3,compare.arms=proportional+direct,compare.seeds=1,compare.workers=1"
    params = ["--params", f"{told},compare.out_of_domain=riddle"]
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--pipelines", "compare", *params]
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(command, cwd=project, stdout=quiet, stderr=quiet)
    with as_soon_as(file, running.terminate):
        assert running.wait() == -signal.SIGTERM


def test_comparison_that_is_killed_goes_on_to_the_same_results(project: Path, compared: Path) -> None:
    """SIGTERM in the shared first round, SIGKILL of an arm's process, Ctrl-C in a later round; then to the end."""
    two: dict[str, Any] = {"arms": ["proportional", "direct"], "seeds": 1}
    terminate_when(project, results(project, "start") / "round_0" / "mixture.json")
    with as_soon_as(results(project, "direct") / "round_0" / "influence.parquet", kill_worker):
        message = refusal(project, "compare", experiment="cmp", tikmix=LONG, compare=COMPARE | two)
    assert "These runs broke off: cmp.direct.0" in message
    finished = made_when(project / "data")
    decided = results(project, "direct") / "round_1" / "mixture.json"
    decided.unlink(missing_ok=True)
    with as_soon_as(decided, interrupt_all):
        assert "Interrupted" in refusal(project, "compare", experiment="cmp", tikmix=LONG, compare=COMPARE | two)
    assert not multiprocessing.active_children()
    newest = max(
        (run for run in runs_of(project, "cmp.direct.0") if "round" not in run.data.tags),
        key=lambda run: run.info.start_time,
    )
    assert newest.info.status == "KILLED"
    compare(project, **two)
    now = made_when(project / "data")
    kept = {name for name in finished if "cmp.start.0/" in name or "cmp.proportional.0/" in name}
    assert len(kept) > 10
    assert {name: now[name] for name in kept} == {name: finished[name] for name in kept}
    for arm in ("proportional", "direct"):
        for number in range(3):
            ours, undisturbed = (checkpoint(one, arm, number) / "model.safetensors" for one in (project, compared))
            assert ours.read_bytes() == undisturbed.read_bytes(), (arm, number)
    whole = table_of(compared).query("arm in ('proportional', 'direct') and seed == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(table_of(project), whole)
