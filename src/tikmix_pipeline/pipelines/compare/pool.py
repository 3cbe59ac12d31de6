"""All runs of a comparison in a pool of processes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.comparison import START
from tikmix_pipeline.pipelines.compare.arms import Arm, arms_of, records_of_arm, run_of
from tikmix_pipeline.pipelines.compare.run_arm import FIRST_ROUND, ArmFailure, ArmSetting, run_arm
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.provenance import artifact_status

_LOG = logging.getLogger(__name__)


def run_all(comparison: Run, logs: Path) -> list[Arm]:
    """Run what is not there yet, the shared first rounds before the arms; return the arms that came through.

    Raises:
        TikmixError: an arm broke off for a reason that may pass or be mended; or the reference came through for no
            seed, so that there is nothing to compare with.
    """
    from tikmix_pipeline.distributed.mesh import resolve_device

    parameters = comparison.parameters
    arms = arms_of(parameters)
    on_cpu = resolve_device(parameters.train.device).type == "cpu"
    overrides = {name: value for name, value in comparison.overrides.items() if name != "compare"}
    setting = ArmSetting(comparison.root, comparison.environment, overrides, logs, on_cpu)
    contenders = [arm for arm in arms if arm.name != START]
    missing = [arm for arm in contenders if not _is_finished(comparison, arm)]
    needed = {arm.seed for arm in missing}
    starts = [arm for arm in arms if arm.name == START and arm.seed in needed and not _is_finished(comparison, arm)]
    failures = dict(_run_in_turn(setting, [starts, missing], parameters))
    _require_none_broken(failures, logs)
    finished = [arm for arm in contenders if arm.experiment not in failures]
    if not any(arm.name == parameters.compare.reference for arm in finished):
        raise TikmixError(
            f"The reference, '{parameters.compare.reference}', came through for no seed: the warnings above say why."
        )
    return finished


def _run_in_turn(
    setting: ArmSetting, batches: Sequence[Sequence[Arm]], parameters: RunParameters
) -> Iterator[tuple[str, ArmFailure]]:
    """Run one batch after the other; yield the experiment of each run that did not come through, and why."""
    from tikmix_pipeline.jobs.engine import each_job
    from tikmix_pipeline.jobs.worker_pool import Died

    workers, folders = parameters.compare.workers, (setting.root,)
    run_each = partial(
        each_job, run_arm, setting, engine=parameters.engine, workers=workers, on_cpu=setting.on_cpu, folders=folders
    )
    with progress_bar("Arms", sum(map(len, batches)), "run") as bar:
        for batch in batches:
            for number, outcome in run_each(batch):
                bar.update(1)
                failure = ArmFailure(outcome.reason, lasting=False) if isinstance(outcome, Died) else outcome
                if failure is not None:
                    experiment = batch[number].experiment
                    fate = "is left out" if failure.lasting else "broke off"
                    log = setting.logs / f"{experiment}.log"
                    _LOG.warning("%s %s: %s (%s)", experiment, fate, failure.reason, log)
                    yield experiment, failure


def _require_none_broken(failures: Mapping[str, ArmFailure], logs: Path) -> None:
    """Refuse a table without arms that the next try may finish."""
    broken = [experiment for experiment, failure in failures.items() if not failure.lasting]
    if broken:
        raise TikmixError(
            f"These runs broke off: {', '.join(broken)}; the warnings above say why, and their logs are in {logs}. The "
            "others are finished. The same command goes on from here; where memory ran out, with a smaller "
            "compare.workers; compare.arms does without an arm."
        )


def _is_finished(comparison: Run, arm: Arm) -> bool:
    """Tell whether all that an arm's run makes is there and fresh."""
    run = run_of(comparison, arm)
    return all(
        artifact_status(run.path(name), record)[0] == "fresh"
        for name, record in records_of_arm(run).items()
        if (name in FIRST_ROUND if arm.name == START else not name.endswith("_rows"))
    )
