"""The command, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tools.capacity.__main__ import command, in_words


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_table_has_every_phase_and_both_totals() -> None:
    found = typed("--preset", "7B", "--devices", "64")
    assert found.exit_code == 0
    first, keeping, _, *rows = found.output.splitlines()
    assert first.startswith("6.74B parameters: 32 layers, width 4096")
    assert keeping.startswith("influence.gradients=keep: kept they take")
    names = [row.split("  ")[0] or row.split("  ")[1] for row in rows if row.startswith(("  ", "influence", "sweep"))]
    assert names == [
        *("factors", "eigendecompositions", "gradients", "products", "influence"),
        *("branches, 2 devices each", "scoring", "sweep by lookahead"),
    ]


def test_own_numbers_change_the_plan() -> None:
    assert typed("--parameters", "3e9", "--vocabulary", "32000").output.startswith("3.03B parameters")
    assert "4 layers, width 256" in typed("--layers", "4", "--width", "256", "--heads", "4").output
    free = typed("--devices", "4", "--dollars", "0", "--branches", "0").output
    assert "4 x h100" in free
    assert "sweep" not in free


def test_checkpoint_is_described_by_its_configuration(tmp_path: Path) -> None:
    values = {
        "model_type": "gpt2",
        "n_layer": 12,
        "n_embd": 768,
        "n_head": 12,
        "vocab_size": 50257,
        "n_positions": 1024,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert typed("--config", str(tmp_path)).output.startswith("0.124B parameters: 12 layers, width 768")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "7B", "--parameters", "1e9"], "--preset and --parameters both describe the model"),
        (["--width", "1000"], "--width (1000) is no multiple of --heads (32)"),
        (
            ["--heads", "7", "--width", "700", "--key-value-heads", "2"],
            "--heads (7) is no multiple of --key-value-heads",
        ),
        (["--parameters", "7"], "--parameters (7) is below 1e+06. Write a number such as 7e9"),
        (["--config", "nowhere"], "Give a checkpoint's folder, or its config.json"),
        (["--utilisation", "40"], "--utilisation (40) must be above 0 and at most 1"),
        (["--domains", "0"], "--domains (0) must be at least 1"),
        (["--devices", "0"], "--devices (0) must be at least 1"),
        (["--preset", "9B"], "'135M', '1B', '7B', '8B', '70B'"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str) -> None:
    found = typed(*arguments)
    assert found.exit_code != 0
    assert message in found.output
    assert "Traceback" not in found.output


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is none of llama"),
        ({"model_type": "llama"}, "no 'num_hidden_layers'"),
    ],
)
def test_unknown_configuration_says_what_is_known(tmp_path: Path, values: dict[str, str], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert message in typed("--config", str(tmp_path)).output


def test_what_does_not_fit_is_marked_and_mended() -> None:
    output = typed("--preset", "70B", "--devices", "8", "--pass-tokens", "512").output
    assert "No sweep by lookahead: --devices 8: a branch needs" in output
    assert "! more than the 80 GB of a device: influence takes 32 devices." in output


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (
            ["--preset", "135M", "--devices", "1", "--domains", "7", "--tasks", "5"],
            "stream: kept they take 26 GB on disk",
        ),
        (
            ["--preset", "135M", "--devices", "1", "--domains", "2", "--tasks", "2"],
            "keep: kept they take 8.6 GB on disk",
        ),
        (
            ["--preset", "135M", "--devices", "1", "--domains", "2", "--tasks", "2", "--free-disk", "12e9"],
            "stream: kept they take 8.6 GB",
        ),
        (
            ["--preset", "8B", "--devices", "8"],
            "keep: kept they take 4,497 GB on disk, streamed 616 GB; one process alone",
        ),
        (["--preset", "8B", "--gradients", "stream"], "stream: kept they take 4,497 GB"),
    ],
)
def test_gradients_are_kept_or_streamed_as_a_run_would_choose(arguments: list[str], chosen: str) -> None:
    assert f"influence.gradients={chosen}" in typed(*arguments).output


def test_too_little_memory_for_products_is_told_with_what_would_do() -> None:
    output = typed("--preset", "8B", "--branches", "0").output
    assert "! influence.memory_megabytes (1000) must be 3406 at least." in output
    assert "Gradients are read" in output
    assert "times over" not in typed("--preset", "135M", "--branches", "0").output


def test_plan_needs_no_tensors() -> None:
    code = "import sys, tools.capacity.__main__; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_times_are_in_the_unit_that_suits_them() -> None:
    assert [in_words(value) for value in (0.5, 99, 300, 9000, 400_000)] == [
        "0.5 s",
        "99 s",
        "5 min",
        "2.5 h",
        "4.63 days",
    ]
