"""One arm of a comparison, run by a process of its own."""

import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click import ClickException

from tikmix_pipeline.errors import causes_of
from tikmix_pipeline.files import replacing
from tikmix_pipeline.parameters.check import merged_parameters
from tikmix_pipeline.parameters.comparison import START
from tikmix_pipeline.pipelines.compare.arms import Arm, records_of_arm
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.run import Run, current_run
from tikmix_pipeline.store.provenance import ProvenanceRecord, artifact_status, record_path

FIRST_ROUND = tuple(of_round(0, name) for name in ("checkpoint", "train_log", "evaluation", "token_budget"))
"""What the run makes that trains the first round for all arms of a seed."""


@dataclass(frozen=True)
class ArmSetting:
    """What all arms of a comparison have in common.

    Attributes:
        root: the project's folder.
        environment: whose configuration is read.
        overrides: what the comparison itself was told.
        logs: where the output of each arm goes.
        on_cpu: whether each arm has one thread.
    """

    root: Path
    environment: str | None
    overrides: Mapping[str, Any]
    logs: Path
    on_cpu: bool


@dataclass(frozen=True)
class ArmFailure:
    """Why an arm has no scores.

    Attributes:
        reason: in words.
        lasting: the same would happen again, as when training diverges. A full disk may be emptied, a store unlocked.
    """

    reason: str
    lasting: bool


def run_arm(setting: ArmSetting, arm: Arm) -> ArmFailure | None:
    """Run an arm to its end, or go on where it stood; its output goes to a log."""
    from kedro.framework import project
    from kedro.framework.startup import bootstrap_project

    if project.PACKAGE_NAME is None:  # a process runs one arm after the other
        bootstrap_project(setting.root)
    with _output_to(setting.logs / f"{arm.experiment}.log"):
        try:
            _run(setting, arm)
        except ClickException as error:  # what a session makes of a `TikmixError`
            error.show()
            if error.exit_code > 128:  # a signal: whoever sent it waits for this process
                sys.exit(error.exit_code)
            return ArmFailure(str(error), lasting=_has_diverged(error))
        except Exception as error:
            traceback.print_exc()
            return ArmFailure(f"{type(error).__name__}: {error}", lasting=False)
    return None


def _has_diverged(error: BaseException) -> bool:
    from tikmix_pipeline.lm.divergence import DivergedError

    return any(isinstance(cause, DivergedError) for cause in causes_of(error))


def _run(setting: ArmSetting, arm: Arm) -> None:
    import torch
    from kedro.framework.project import settings

    if setting.on_cpu:
        torch.set_num_threads(1)
    overrides = merged_parameters(setting.overrides, arm.overrides)
    with settings.SESSION_CLASS.create(setting.root, env=setting.environment, runtime_params=overrides) as session:
        session.load_context()
        reuse_artifacts(current_run(), arm)
        if arm.name == START:
            session.run(
                pipeline_names=["tikmix"],
                to_outputs=list(FIRST_ROUND),
                only_missing_outputs=True,
            )
        else:
            session.run(pipeline_names=["tikmix"])


def reuse_artifacts(run: Run, arm: Arm) -> None:
    """Take over what another arm of the seed has made already from the very same things, as links to its files."""
    for name, record in records_of_arm(run).items():
        own = run.path(name)
        if arm.experiment not in own.parts or name.endswith("_rows") or artifact_status(own, record)[0] == "fresh":
            continue
        for sibling in arm.siblings:
            theirs = Path(*(sibling if part == arm.experiment else part for part in own.parts))
            if theirs.exists() and artifact_status(theirs, record)[0] == "fresh":
                with contextlib.suppress(OSError):  # replaced meanwhile, or on a disk without links
                    _link(theirs, own, record)
                break


def _link(theirs: Path, own: Path, record: ProvenanceRecord) -> None:
    record_path(own).unlink(missing_ok=True)
    with replacing(own) as temporary:
        if theirs.is_dir():
            shutil.copytree(theirs, temporary, copy_function=os.link)
        else:
            os.link(theirs, temporary)
    if artifact_status(theirs, record)[0] == "fresh":
        with replacing(record_path(own)) as temporary:
            shutil.copy2(record_path(theirs), temporary)


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what this process and its libraries print to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, original in zip((1, 2), kept, strict=True):
                os.dup2(original, target)
                os.close(original)
