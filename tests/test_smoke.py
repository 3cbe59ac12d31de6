"""A real run: real text from the package registry, through the command line, in under a minute of compute."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.network
def test_smoke_environment_runs_from_sources_to_the_table(tmp_path: Path) -> None:
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy2(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    (tmp_path / "src").mkdir()
    downloads = REPOSITORY / "data" / "01_raw"
    downloads.mkdir(parents=True, exist_ok=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "01_raw").symlink_to(downloads)
    command = [sys.executable, "-m", "kedro", "run", "--env", "smoke"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "Compare runs in MLflow: make ui" in ended.stdout
    assert " keeping the prior: 0." in " ".join(ended.stdout.strip().split("\n\n")[-1].split())
    summary = json.loads((tmp_path / "data" / "08_reporting" / "smoke" / "summary.json").read_text())
    assert set(summary["final_bits_per_byte"]["task"]) == {"piqa", "mmlu", "siqa", "openbookqa", "commonsenseqa"}
    mixtures = pd.read_parquet(tmp_path / "data" / "07_model_output" / "smoke" / "mixtures.parquet")
    assert mixtures.groupby("round")["weight"].sum().tolist() == pytest.approx([1, 1, 1, 1])
    _validates(tmp_path)


def _validates(project: Path) -> None:
    """Branches in processes of their own, from the command line."""
    params = "round=0,validate.tokens=4096,validate.replicates=1,validate.workers=2"
    command = [sys.executable, "-m", "kedro", "run", "--env", "smoke", "--pipelines", "validate", "--params", params]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "a perfect prediction" in ended.stdout
    assert "leaked" not in ended.stderr
    table = pd.read_parquet(project / "data" / "08_reporting" / "smoke" / "validate.parquet")
    assert {"curvature", "task", "spearman", "pearson", "slope", "ceiling"} <= set(table.columns)
