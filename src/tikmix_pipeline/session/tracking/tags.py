"""The tags of an MLflow run: who ran which code, and what was overridden."""

import contextlib
import getpass
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.run import Run
from tikmix_pipeline.store.provenance import flatten


def run_tags(run: Run, run_params: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a run.

    Args:
        run_params: what Kedro tells its hooks of the run.
    """
    overrides = flatten(run_params.get("runtime_params") or {})
    names = run_params.get("pipeline_names") or ["__default__"]
    return {
        "mlflow.source.name": "kedro run",
        "mlflow.user": _user(),
        "experiment": run.parameters.experiment,
        "pipelines": ",".join(names).replace("__default__", "tikmix"),
        "environment": run_params.get("env") or "local",
        "overrides": ", ".join(f"{key}={value}" for key, value in overrides.items()) or "none",
        **{f"override.{key}": str(value) for key, value in overrides.items()},
        **code_version(run.root),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not be in its passwd
        return str(os.getuid())


def code_version(root: Path) -> dict[str, str]:
    """Return the commit, marked when the work tree differs from it; nothing outside a git checkout."""
    from tikmix_pipeline import __version__

    tags = {"version": __version__}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = _git(root, "rev-parse", "HEAD")
        dirty = "-dirty" if _git(root, "status", "--porcelain") else ""
        tags |= {"commit": commit + dirty, "mlflow.source.git.commit": commit}
    return tags


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
