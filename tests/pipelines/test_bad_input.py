"""A user's mistakes end in one message, before compute is spent, and cost nothing that was made."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.conftest import run_in
from tikmix_pipeline.session import UserError


def refusal(project: Path, *pipelines: str, **runtime_params: Any) -> str:
    with pytest.raises(UserError) as error:
        run_in(project, *pipelines, **runtime_params)
    return str(error.value)


def test_unknown_parameter_ends_the_run_before_it_starts(project: Path) -> None:
    assert "Did you mean 'optimize.entropy'?" in refusal(project, optimize={"entrpy": 1}, experiment="new")
    assert not (project / "data" / "07_model_output" / "new").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tikmix": {"prior": {"code": 0.5, "prose": 0.4, "verse": 0.2}}}, "tikmix.prior sum to 1.1 instead of 1"),
        ({"tikmix": {"prior": {"code": 0.5, "pros": 0.5}}}, "Did you mean 'prose'?"),
        ({"optimize": {"bounds": {"vers": {"max": 0.5}}}}, "Did you mean 'verse'?"),
        ({"optimize": {"max_weight": 0.3}}, "The upper bounds sum to 0.9, below 1"),
        ({"train": {"decay_tokens": 10_000}}, "are longer than the whole run"),
        ({"model": {"preset": "llama-tinny"}}, "did you mean 'llama-tiny'?"),
    ],
)
def test_parameters_that_cannot_work_together_are_refused_before_any_text_is_read(
    project: Path, wrong: dict[str, Any], message: str
) -> None:
    assert message in refusal(project, experiment="new", corpus={"name": "new"}, **wrong)
    assert not (project / "data" / "02_intermediate" / "new").exists()


def test_missing_source_names_the_domain_and_the_path(project: Path) -> None:
    (project / "texts" / "verse.jsonl").unlink()
    message = refusal(project, "corpus")
    assert "texts/verse.jsonl" in message


def test_stage_without_its_input_says_what_to_run_first(project: Path) -> None:
    message = refusal(project, "influence", experiment="empty", round=0)
    assert "round_0_checkpoint" in message
    assert "missing" in message
    assert "train_chunk" in message


def test_stage_on_results_of_other_parameters_is_refused_with_the_difference(project: Path) -> None:
    message = refusal(project, "influence", train={"learning_rate": 0.1}, round=0)
    assert "train.learning_rate was 0.003, is 0.1" in message


def test_altered_shard_is_refused_and_named(project: Path) -> None:
    shard = next((project / "data" / "03_primary" / "tiny" / "code").glob("train*.bin"))
    shard.write_bytes(shard.read_bytes()[:-2] + b"\xff\x00")
    message = refusal(project, experiment="new")
    assert shard.name in message


def test_diverging_training_is_refused_and_earlier_rounds_are_kept(project: Path) -> None:
    message = refusal(project, train={"learning_rate": 1e20, "warmup_tokens": 0}, experiment="wild")
    assert "Training diverged" in message
    assert "train.learning_rate" in message


def test_checkpoint_of_another_tokenizer_is_refused(project: Path) -> None:
    checkpoint = project / "data" / "06_models" / "one" / "round_1"
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    message = refusal(project, model={"checkpoint": "data/06_models/one/round_1"}, experiment="new")
    assert "has another tokenizer" in message


def test_second_run_of_the_same_experiment_is_refused_while_the_first_runs(project: Path) -> None:
    lock = project / "data" / "07_model_output" / ".one.lock"
    code = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'r+'); fcntl.flock(lock, fcntl.LOCK_EX);"
        "lock.truncate(0); lock.write('4711'); lock.flush(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = refusal(project)
        assert "Another run (process 4711) is at work on the experiment 'one'" in message
    finally:
        holder.kill()
        holder.communicate()
    run_in(project)


def test_command_line_shows_a_mistake_without_a_traceback(project: Path) -> None:
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--params", "tikmix.rouns=3"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, env={**os.environ}, check=False)
    assert ended.returncode == 1
    assert "Did you mean 'tikmix.rounds'?" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_killed_run_goes_on_inside_its_chunk_to_the_same_bits(project: Path) -> None:
    """SIGKILL in the middle of round 1's chunk, then the same command again."""
    params = ["--params", "experiment=killed,train.chunk_tokens=12800"]
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--only-missing-outputs", *params]
    models = project / "data" / "06_models" / "killed"
    running = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (models / "round_1.resume.recipe.json").exists():
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert not (models / "round_1").exists()
    run_in(project, experiment="killed", train={"chunk_tokens": 12800})
    run_in(project, experiment="whole", train={"chunk_tokens": 12800})
    for name in ("round_0/model.safetensors", "round_1/model.safetensors", "round_1/training_state.json"):
        assert (models / name).read_bytes() == (models.with_name("whole") / name).read_bytes(), name
