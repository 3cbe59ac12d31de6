"""A scratch copy of the project, so that benchmarks leave the user's data and MLflow store alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[1]


def scratch_project(folder: Path) -> Path:
    """Lay out a project with the repository's configuration and its downloads, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy2(REPOSITORY / name, folder)
    shutil.copytree(REPOSITORY / "conf", folder / "conf", dirs_exist_ok=True)
    (folder / "src").mkdir(exist_ok=True)  # Kedro asks for it; the package itself is installed
    (REPOSITORY / "data" / "01_raw").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    if not (folder / "data" / "01_raw").exists():
        (folder / "data" / "01_raw").symlink_to(REPOSITORY / "data" / "01_raw")
    return folder


def kedro_run(
    project: Path, *arguments: str, threads: int | None = None, log: IO[bytes] | None = None
) -> "subprocess.Popen[bytes]":
    """Start `kedro run` with `arguments` in a project; its output goes to `log`, or to the terminal."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "kedro", "run", *arguments]
    return subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
