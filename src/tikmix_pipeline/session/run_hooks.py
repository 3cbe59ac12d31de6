"""The hook that lets a run begin: checks it, locks its experiment, and says what each artifact should be made from."""

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.pipeline import Pipeline

from tikmix_pipeline import plan
from tikmix_pipeline.datasets import RoundRowsDataset, WorkFolderDataset
from tikmix_pipeline.datasets.artifacts import Artifact
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.engine import require_installed
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.pipelines.cached_node import stage_of
from tikmix_pipeline.pipelines.checks import check_candidates, check_exports, check_remix, check_run, check_tables
from tikmix_pipeline.pipelines.compare.arms import check_arms
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.remix.external import require_no_remix, require_undecided
from tikmix_pipeline.report.terminal_text import wrapped
from tikmix_pipeline.run import Run, set_current_run
from tikmix_pipeline.session.feasibility import check_round, check_sizes, check_text
from tikmix_pipeline.session.locks import locked
from tikmix_pipeline.session.tracking.logged import pipelines_of, split_name
from tikmix_pipeline.store.provenance import ProvenanceRecord, own_changes, read_record

_LOG = logging.getLogger(__name__)


def start_run(loader: Any, root: Path) -> Run:
    """Make the run that a configuration describes the current one.

    Raises:
        TikmixError: its parameters are not valid.
    """
    parameters = check_parameters(loader["parameters"], loader.source_of)
    overrides = loader.runtime_params or {}
    run = Run(parameters, loader.catalog, root, plan.next_round, loader.env, overrides)
    set_current_run(run)
    return run


class RunHooks:
    """Types the parameters, gives every artifact the record it should have, and locks the experiment."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._locks = contextlib.ExitStack()
        self._made: set[str] = set()
        self._stages: set[str] = set()

    @property
    def run(self) -> Run:
        """The run that the session has begun.

        Raises:
            RuntimeError: no session has begun.
        """
        if self._run is None:
            raise RuntimeError("no session has begun")
        return self._run

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Check all parameters before Kedro builds the pipelines from them."""
        self._run = start_run(context.config_loader, Path(context.project_path))
        # drop pipelines that an earlier session of this process built from other parameters
        pipelines.configure("tikmix_pipeline.pipeline_registry")

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Lock the experiment, hand out records and refuse stale or missing inputs."""
        _require_sequential(str(run_params.get("runner")))
        _require_single_stage(self.run, pipelines_of(run_params))
        self._locks.close()  # of a run that a session of Kedro's own has left open
        self._made.clear()
        run, stages = self.run, {stage_of(node) for node in pipeline.nodes}
        self._stages = stages
        _check(run, stages)
        experiment = run.parameters.experiment
        outputs = run.root / "data" / "07_model_output"
        self._lock(outputs / f".{experiment}.lock", f"the experiment '{experiment}'", "Choose another experiment name")
        if "compare" in stages:
            check_arms(run)
        records = plan.records_of(run, stages)
        for name in pipeline.datasets():
            _give_record(catalog.get(name, fallback_to_runtime_pattern=True), name, records)
        for name in sorted(pipeline.inputs()):
            _require_fresh(run, name, catalog.get(name), records)
        if "remix" in stages:
            require_undecided(run, records)
        check_sizes(run, stages)
        there = _there_already(pipeline, catalog)
        if "corpus" in there or "corpus" not in pipeline.datasets():
            self._check_feasible(there)  # else as soon as the corpus is made again
        _explain_rebuild([catalog.get(name) for name in sorted(pipeline.all_outputs())])
        if any(name in pipeline.all_outputs() and not catalog.exists(name) for name in ("text", "corpus")):
            corpus = run.parameters.corpus.name
            shards = run.root / "data" / "03_primary"
            self._lock(shards / f".{corpus}.lock", f"the corpus '{corpus}'", "Choose another corpus.name")

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Remember what was made; refuse what it shows to be infeasible, before anything is measured or trained."""
        self._made.add(dataset_name)
        self._check_feasible([dataset_name])

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Give the experiment free; after a single stage, say where its results are."""
        self._locks.close()
        if "summary" not in pipeline.all_outputs():
            found = {name: catalog.get(name) for name in sorted(pipeline.all_outputs())}
            made: dict[str, list[str]] = {}
            for name, dataset in found.items():
                if isinstance(dataset, Artifact):
                    path = _shown(self.run, dataset.path)
                    state = "made" if name in self._made else "up to date"
                    made.setdefault(f"{state} in {path.parent}", []).append(path.name)
            click.echo(wrapped("\n".join(f"{place}: {', '.join(names)}" for place, names in made.items())))

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Give the experiment free."""
        self._locks.close()

    def close_as(self, status: str) -> None:
        """Give the experiment free after an end that Kedro does not tell of."""
        del status
        self._locks.close()

    def _check_feasible(self, there: Iterable[str]) -> None:
        """Refuse what the corpus shows to be infeasible, and the checkpoint of the latest round."""
        if "corpus" in there:
            check_text(self.run, self._stages)
        numbers = [number for number, kind in map(split_name, there) if kind == "checkpoint" and number is not None]
        if numbers and "remix" not in self._stages:
            check_round(self.run, max(numbers))

    def _lock(self, path: Path, what: str, way_out: str) -> None:
        """Hold a lock until the run ends or its process dies."""
        self._locks.enter_context(locked(path, what, way_out))


def _require_sequential(runner: str) -> None:
    """Refuse runners that start nodes beside each other: hooks would be called in several processes or threads."""
    for name in ("ParallelRunner", "ThreadRunner"):
        if name in runner:
            raise TikmixError(
                f"--runner={name}: nodes run one after the other here, and use cores and devices themselves. Leave "
                "--runner out; how many jobs a node has at a time is sweep.workers, validate.workers, compare.workers "
                "and train.world_size."
            )


def _require_single_stage(run: Run, names: Sequence[str]) -> None:
    """Refuse a round for what goes through all of them."""
    whole = sorted({"tikmix", "compare"}.intersection(names))
    if whole and run.parameters.round is not None:
        raise TikmixError(
            f"round={run.parameters.round} says on which round a single stage acts, and '{whole[0]}' goes through all "
            "of them. Leave it out, or name the stage (--pipelines influence); tikmix.rounds is how many there are."
        )


def _check(run: Run, stages: set[str]) -> None:
    """Refuse what is wrong before anything is computed, stage by stage."""
    if plan.has_tables(run, stages):
        check_tables(run)
    if "remix" in stages:
        check_remix(run)
    elif "train_chunk" in stages:
        require_no_remix(run)
    if not plan.only_sweeps_tables(run, stages):
        check_run(run, external="remix" in stages)
        check_exports(run, external="remix" in stages)
    require_installed(run.parameters.engine)
    if "validate" in stages:
        check_candidates(run)


def _there_already(pipeline: Pipeline, catalog: Any) -> list[str]:
    """Return what of a run's text and checkpoints is there before it begins, and made from the same things.

    A checkpoint counts with the mixture that it was trained under.
    """
    found = ["corpus"] if "corpus" in pipeline.datasets() and catalog.exists("corpus") else []
    for name in pipeline.datasets():
        number, kind = split_name(name)
        if kind == "checkpoint" and number is not None and catalog.exists(name):
            found += [name] * catalog.exists(of_round(number, "mixture"))
    return found


def _shown(run: Run, path: Path) -> Path:
    return path.relative_to(run.root) if path.is_relative_to(run.root) else path


def _give_record(dataset: Any, name: str, records: Mapping[str, ProvenanceRecord]) -> None:
    if isinstance(dataset, WorkFolderDataset):
        dataset.expected = records.get(dataset.completes)
    elif isinstance(dataset, Artifact | RoundRowsDataset):
        dataset.expected = records.get(name)


def _require_fresh(run: Run, name: str, dataset: Any, records: Mapping[str, ProvenanceRecord]) -> None:
    if not isinstance(dataset, Artifact):
        return
    status, reason = dataset.status()
    if status != "fresh":
        raise TikmixError(
            f"This run needs {_shown(run, dataset.path)}, which is {status}: {reason}. Run what makes it first"
            f"{_command(records.get(name))}, or go back to the parameters it was made with."
        )


def _command(record: ProvenanceRecord | None) -> str:
    """Return the command that makes an artifact, for the end of a message."""
    if record is None or not record.stage:
        return ""
    namespace, _, _ = record.node.rpartition(".")
    number = namespace.removeprefix("round_") or "0"
    return f": kedro run --pipelines {record.stage}" + ("" if record.stage == "corpus" else f" --params round={number}")


def _explain_rebuild(datasets: Iterable[Any]) -> None:
    """Say once what changed since artifacts were made that this run makes again."""
    stale = 0
    reasons: dict[str, None] = {}
    for artifact in (one for one in datasets if isinstance(one, Artifact)):
        status, reason = artifact.status()
        if status not in ("stale", "altered"):
            continue
        stale += 1
        written = read_record(artifact.path)
        if status == "altered" or written is None:
            reasons[f"{artifact.path}: {reason}"] = None
        elif artifact.expected is not None:
            reasons |= dict.fromkeys(own_changes(written.record, artifact.expected))
    if stale:
        _LOG.info("Making %d artifacts again: %s", stale, "; ".join(reasons))
