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
from tikmix_pipeline.session.kedro_session import UserError

SHARDS = {"sources": [{"kind": "shards", "path": "*.bin", "bytes_per_token": 4}]}


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
        ({"optimize": {"max_weight": 0.3}}, "optimize.max_weight = 0.3 for 3 domains"),
        ({"optimize": {"groups": {"text": {"domains": ["prose", "vers"]}}}}, "Did you mean 'verse'?"),
        ({"optimize": {"task_weights": {"quizz": 2.0}}}, "optimize.task_weights names 'quizz'"),
        ({"train": {"decay_tokens": 10_000}}, "are longer than the whole run"),
        ({"model": {"preset": "llama-tinny"}}, "Did you mean 'llama-tiny'?"),
        ({"model": {"checkpoint": "nowhere"}}, "nowhere holds no config.json"),
        ({"corpus": {"name": "new", "tokenizer": {"path": "nowhere"}}}, "corpus.tokenizer.path: there is no folder"),
        (
            {"corpus": {"name": "new", "domains": {"verse": SHARDS}}},
            "corpus.domains.verse: `shards` sources need corpus.tokenizer.path",
        ),
        ({"influence": {"curvature": "adam"}, "train": {"optimizer": "muon"}}, "needs the second moments of AdamW"),
        ({"influence": {"tokens": 64}}, "fewer than influence.micro_batches"),
        ({"influence": {"tokens": "auto", "max_tokens": 64}}, "influence.max_tokens (64) is 2 sequences"),
        ({"influence": {"items_per_task": 2}}, "fewer than influence.micro_batches"),
        (
            {"influence": {"tasks": ["quiz", "ridle"]}},
            "influence.tasks names the task 'ridle', which is not there. Did you mean 'riddle'?",
        ),
        (
            {"influence": {"task_loss": {"quizz": "answer"}}},
            "influence.task_loss names the task 'quizz', which is not there. Did you mean 'quiz'?",
        ),
        (
            {"tikmix": {"strategy": "regmix"}, "baselines": {"regmix": {"preset": "llama-tinny"}}},
            "baselines.regmix.preset: 'llama-tinny' is not a built-in size",
        ),
        ({"baselines": {"doremi": {"preset": "llama-tinny"}}}, "baselines.doremi.preset: 'llama-tinny' is not"),
        (
            {"tikmix": {"strategy": "doremi"}, "model": {"checkpoint": "data/06_models/one/round_1"}},
            "baselines.doremi.preset is null",
        ),
        ({"train": {"device": "cuda:77"}}, "Device 'cuda:77' cannot be used"),
    ],
)
def test_parameters_that_cannot_work_together_are_refused_before_any_text_is_read(
    project: Path, wrong: dict[str, Any], message: str
) -> None:
    assert message in refusal(project, **{"experiment": "new", "corpus": {"name": "new"}, **wrong})
    assert not (project / "data" / "02_intermediate" / "new").exists()


@pytest.mark.parametrize(
    ("pipelines", "wrong"),
    [
        ((), {"model": {"checkpoint": "own"}}),
        ((), {"model": {"checkpoint": "own/tiny.gguf"}}),
        ((), {"corpus": {"name": "new", "tokenizer": {"path": "own/tiny.gguf"}}}),
        (("remix",), {"model": {"checkpoint": "own"}}),
        (("remix",), {"model": {"checkpoint": "own/tiny.gguf"}}),
    ],
)
def test_a_gguf_file_in_place_of_a_folder_names_the_command_before_any_text_is_read(
    project: Path, pipelines: tuple[str, ...], wrong: dict[str, Any]
) -> None:
    (project / "own").mkdir()
    (project / "own" / "tiny.gguf").touch()
    message = refusal(project, *pipelines, **{"experiment": "new", "corpus": {"name": "new"}, **wrong})
    assert message.startswith(("model.checkpoint: ", "corpus.tokenizer.path: "))
    assert "own/tiny.gguf is a GGUF file" in message
    assert f"python -m tikmix_pipeline.lm.gguf {project / 'own' / 'tiny.gguf'} {project / 'own' / 'tiny'}" in message
    assert not (project / "data" / "02_intermediate" / "new").exists()


def test_missing_source_names_the_domain_and_the_path(project: Path) -> None:
    (project / "texts" / "verse.jsonl").unlink()
    message = refusal(project, "corpus")
    assert "texts/verse.jsonl" in message


def test_stage_without_its_input_says_what_to_run_first(project: Path) -> None:
    message = refusal(project, "influence", experiment="empty", round=0)
    assert "data/06_models/empty/round_0, which is missing" in message
    assert "kedro run --pipelines train_chunk --params round=0" in message


def test_stage_on_results_of_other_parameters_is_refused_with_the_difference(project: Path) -> None:
    message = refusal(project, "influence", train={"learning_rate": 0.1}, round=0)
    assert "train.learning_rate was 0.003, is 0.1" in message


def test_refused_run_leaves_the_experiment_free(project: Path) -> None:
    refusal(project, "influence", train={"learning_rate": 0.1}, round=0)
    run_in(project)


def test_altered_checkpoint_is_never_used(project: Path) -> None:
    weights = project / "data" / "06_models" / "one" / "round_0" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    message = refusal(project, "influence", round=0)
    assert "changed after it was written: model.safetensors" in message
    assert "kedro run --pipelines train_chunk --params round=0" in message


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_shard_is_refused_by_a_stage_and_made_again_by_the_whole_run(
    project: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    shard = next((project / "data" / "03_primary" / "tiny" / "code").glob("train*.bin"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-2] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    message = refusal(project, "train_chunk", experiment="new")
    assert f"changed after it was written: code/{shard.name}" in message
    assert "kedro run --pipelines corpus" in message
    with caplog.at_level("INFO", logger="tikmix_pipeline"):
        run_in(project, "corpus")
    assert f"changed after it was written: code/{shard.name}" in caplog.text
    assert shard.read_bytes() == content


def test_cut_shard_of_a_finished_run_is_made_again_by_the_same_command(project: Path) -> None:
    shard = next((project / "data" / "03_primary" / "tiny" / "prose").glob("heldout*.bin"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-2])
    run_in(project)
    assert shard.read_bytes() == content


@pytest.mark.parametrize("name", ["measurement.json", "stock.json", "mixture.json", "decision.json"])
def test_record_of_a_finished_run_with_a_bit_flipped_is_made_again_by_the_same_command(
    project: Path, name: str
) -> None:
    """No byte of it is UTF-8 any more where the bit is the highest: whoever looks at it early must not end the run."""
    path = project / "data" / "07_model_output" / "one" / "round_0" / name
    content = path.read_bytes()
    path.write_bytes(content[:9] + bytes([content[9] ^ 128]) + content[10:])
    run_in(project)
    assert path.read_bytes() == content


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "tiny", "--pipelines", "influnce"], "influence"),
        (["--env", "nowhere"], "--env nowhere: there is no folder"),
    ],
)
def test_unknown_name_on_the_command_line_is_told_without_a_traceback(
    project: Path, arguments: list[str], message: str
) -> None:
    command = [sys.executable, "-m", "kedro", "run", *arguments]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_command_line_shows_a_mistake_without_a_traceback(project: Path) -> None:
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--params", "tikmix.rouns=3"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, env={**os.environ}, check=False)
    assert ended.returncode == 1
    assert "Did you mean 'tikmix.rounds'?" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


@pytest.mark.slow
def test_killed_run_goes_on_inside_its_chunk_to_the_same_bits(project: Path) -> None:
    """SIGKILL in the middle of round 1's chunk, then the same command again."""
    train = {"chunk_tokens": 6400, "save_every_steps": 5}
    told = ",".join(f"train.{name}={value}" for name, value in train.items())
    params = ["--params", f"experiment=killed,{told}"]
    command = [sys.executable, "-m", "kedro", "run", "--env", "tiny", "--only-missing-outputs", *params]
    models = project / "data" / "06_models" / "killed"
    running = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (models / "round_1.resume.key.json").exists():
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert not (models / "round_1").exists()
    run_in(project, experiment="killed", train=train)
    run_in(project, experiment="whole", train=train)
    for name in ("round_0/model.safetensors", "round_1/model.safetensors", "round_1/training_state.json"):
        assert (models / name).read_bytes() == (models.with_name("whole") / name).read_bytes(), name


def test_a_round_is_refused_for_what_goes_through_all_of_them(project: Path) -> None:
    with pytest.raises(UserError, match="round=1 says on which round a single stage acts, and 'tikmix' goes through"):
        run_in(project, round=1)
