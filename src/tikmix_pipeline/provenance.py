"""Hooks that check a run before it starts: its parameters, its inputs, and that no other run is in its way."""

import fcntl
import logging
import math
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import click
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.pipeline import Pipeline

from tikmix_pipeline.baselines.proxy import proxy_model
from tikmix_pipeline.datasets import ResumePointDataset, RoundRowsDataset, WorkFolderDataset
from tikmix_pipeline.datasets.artifacts import Artifact
from tikmix_pipeline.datasets.recipes import Recipe, own_changes, read_recipe
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.engine import require_installed
from tikmix_pipeline.lm.presets import find_preset
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.bounds import unlimited_bounds
from tikmix_pipeline.mixture.simplex import check_mixture, nearest_name
from tikmix_pipeline.mixture.targets import check_tasks
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.pipelines.remix.checks import check_remix
from tikmix_pipeline.pipelines.remix.rounds import domains_ever, require_no_remix, require_undecided
from tikmix_pipeline.pipelines.stages import (
    expected_recipes,
    recipes_of_comparison,
    recipes_of_remix,
    recipes_of_tables,
)
from tikmix_pipeline.run_context import RunContext, load_run_context, run_context, set_run_context

_LOG = logging.getLogger(__name__)


class ProvenanceHooks:
    """Types the parameters, gives every artifact the recipe it should have, and locks the experiment."""

    def __init__(self) -> None:
        self._locks: list[IO[str]] = []
        self._made: set[str] = set()

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Check all parameters before Kedro builds the pipelines from them."""
        set_run_context(load_run_context(context.config_loader, Path(context.project_path)))
        # drop pipelines that an earlier session of this process built from other parameters
        pipelines.configure("tikmix_pipeline.pipeline_registry")

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: Any) -> None:
        """Lock the experiment, hand out recipes and refuse stale or missing inputs."""
        self._made.clear()
        context = run_context()
        stages = {_STAGE_OF.get(node.short_name) for node in pipeline.nodes}
        of_tables = context.parameters.sweep.response == "table" and "sweep" in stages
        of_tables_alone = of_tables and stages == {"sweep"}
        if of_tables:
            check_tables(context.parameters, context.root)
        elsewhere = "remix" in stages
        if elsewhere:
            check_remix(context)
        elif "train_chunk" in stages:
            require_no_remix(context)
        if not of_tables_alone:
            check_before_compute(context.parameters, context.root, elsewhere=elsewhere)
            if context.parameters.reweight.exports:
                _check_exports(context, elsewhere=elsewhere)
        require_installed(context.parameters.engine)
        if any(node.short_name == "train_branches" for node in pipeline.nodes):
            check_candidates(context.parameters)
        experiment = context.parameters.experiment
        outputs = context.root / "data" / "07_model_output"
        self._lock(outputs / f".{experiment}.lock", f"the experiment '{experiment}'", "Choose another experiment name")
        arms = any(node.short_name == "run_arms" for node in pipeline.nodes)
        if arms:
            check_arms(context)
        recipes = {
            **(recipes_of_comparison(context) if arms else {}),
            **({} if of_tables_alone or elsewhere else expected_recipes(context)),
            **(recipes_of_tables(context) if of_tables else {}),
            **(recipes_of_remix(context) if elsewhere else {}),
        }
        for name in pipeline.datasets():
            _give_recipe(catalog.get(name, fallback_to_runtime_pattern=True), name, recipes)
        for name in sorted(pipeline.inputs()):
            _require_fresh(name, catalog.get(name), recipes)
        if elsewhere:
            require_undecided(context, recipes)
        _explain_rebuild([catalog.get(name) for name in sorted(pipeline.all_outputs())])
        if any(name in pipeline.all_outputs() and not catalog.exists(name) for name in ("text", "corpus")):
            corpus = context.parameters.corpus.name
            shards = context.root / "data" / "03_primary"
            self._lock(shards / f".{corpus}.lock", f"the corpus '{corpus}'", "Choose another corpus.name")

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Remember what was made."""
        self._made.add(dataset_name)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Give the experiment free; after a single stage, say where its results are."""
        self._unlock()
        if "summary" not in pipeline.all_outputs():
            for name in sorted(pipeline.all_outputs()):
                dataset = catalog.get(name)
                if isinstance(dataset, Artifact):
                    click.echo(f"{'made' if name in self._made else 'up to date'}: {_shown(dataset.path)}")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Give the experiment free."""
        self._unlock()

    def close_as(self, status: str) -> None:
        """Give the experiment free after an end that Kedro does not tell of."""
        del status
        self._unlock()

    def _lock(self, path: Path, what: str, way_out: str) -> None:
        """Hold a lock until the run ends or its process dies."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read()
            lock.close()
            raise TikmixError(
                f"Another run (process {holder}) is at work on {what}. {way_out} (--params), or wait for it to end."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._locks.append(lock)

    def _unlock(self) -> None:
        for lock in self._locks:
            lock.close()
        self._locks.clear()


def check_before_compute(parameters: RunParameters, root: Path, *, elsewhere: bool = False) -> None:
    """Refuse what the parameters alone show to be wrong between groups.

    Args:
        parameters: of the run.
        root: the project's folder.
        elsewhere: the model is trained elsewhere, and so has no preset, start and proxies to be checked here.

    Raises:
        TikmixError: the prior or the bounds are not of the corpus's domains or leave no mixture, warm-up and decay do
            not fit into the run, a checkpoint, tokenizer, preset or device is not there, a baseline's proxy has no
            size, or too little is measured for a standard error.
    """
    domains = list(parameters.corpus.domains)
    if isinstance(parameters.tikmix.prior, Mapping):
        check_mixture(parameters.tikmix.prior, domains, "tikmix.prior")
    unlimited_bounds(parameters.optimize, domains)
    _check_tasks(parameters, domains)
    Schedule.of(parameters.train, max(parameters.tikmix.rounds, (parameters.round or 0) + 1))
    if not elsewhere:
        _check_folders(parameters, root)
        _check_proxies(parameters)
    _check_measurement(parameters)
    for device in {parameters.train.device, parameters.influence.device} - {"auto", "cpu"}:
        from tikmix_pipeline.distributed.mesh import resolve_device

        resolve_device(device)


def _check_tasks(parameters: RunParameters, domains: Collection[str]) -> None:
    influence, tasks = parameters.influence, parameters.corpus.tasks
    for task in influence.tasks or ():
        if task not in tasks:
            raise TikmixError(
                f"influence.tasks names the task '{task}', which is not there.{nearest_name(task, tasks)}"
            )
    heldout = [f"heldout-{domain}" for domain in domains] if influence.targets != "tasks" else []
    decide = [] if influence.targets == "heldout" else influence.deciding([*tasks])
    check_tasks(parameters.optimize, [*tasks, *heldout], [*decide, *heldout])


def _check_exports(context: RunContext, *, elsewhere: bool) -> None:
    from tikmix_pipeline.pipelines.reweight.checks import check_exports

    parameters = context.parameters
    if elsewhere:
        check_exports(parameters, parameters.remix.coming_chunk(parameters.train), domains_ever(context))
    else:
        check_exports(parameters, parameters.train.tokens_per_chunk, parameters.corpus.domains)


def _check_folders(parameters: RunParameters, root: Path) -> None:
    checkpoint, tokenizer = parameters.model.checkpoint, parameters.corpus.tokenizer.path
    if checkpoint is None:
        find_preset(parameters.model.preset)
    else:
        for file in ("config.json", "tokenizer.json"):
            if not (root / checkpoint / file).is_file():
                raise TikmixError(
                    f"model.checkpoint: {root / checkpoint} holds no {file}. Give a folder that save_pretrained wrote "
                    "both the model and its tokenizer to."
                )
    if tokenizer is not None and not (root / tokenizer).is_dir():
        raise TikmixError(f"corpus.tokenizer.path: there is no folder {root / tokenizer}.")


def _check_proxies(parameters: RunParameters) -> None:
    asked = {"doremi": parameters.baselines.doremi.preset, "regmix": parameters.baselines.regmix.preset}
    for name, preset in asked.items():
        # the size of the run's own model matters to none but who takes it
        if preset is not None or parameters.tikmix.strategy == name:
            proxy_model(preset, parameters.model, f"baselines.{name}.preset")


def _check_measurement(parameters: RunParameters) -> None:
    influence, train = parameters.influence, parameters.train
    if influence.curvature == "adam" and train.optimizer != "adamw":
        raise TikmixError(
            f"influence.curvature=adam needs the second moments of AdamW, but train.optimizer is {train.optimizer}. "
            "Use influence.curvature=kfac."
        )
    name, tokens = ("max_tokens", influence.max_tokens) if influence.tokens == "auto" else ("tokens", influence.tokens)
    windows = math.ceil(tokens / influence.domain_context(train.context))
    if windows < influence.micro_batches:
        raise TikmixError(
            f"influence.{name} ({tokens}) is {windows} sequences of influence.context, "
            f"fewer than influence.micro_batches ({influence.micro_batches}). Raise the first or lower the last."
        )
    if influence.items_per_task is not None and influence.items_per_task < influence.micro_batches:
        raise TikmixError(
            f"influence.items_per_task ({influence.items_per_task}) is fewer than influence.micro_batches "
            f"({influence.micro_batches}). Raise the first or lower the second."
        )


def check_tables(parameters: RunParameters, root: Path) -> None:
    """Refuse a sweep over tables that are not there.

    Raises:
        TikmixError: naming the parameter and the file.
    """
    for name, path in parameters.sweep.table.model_dump().items():
        if path and name.endswith(("ratios", "metrics")) and not (root / path).is_file():
            raise TikmixError(
                f"sweep.table.{name}: there is no file {root / path}. Give the path of a CSV file, relative to the "
                "project or absolute."
            )


def check_arms(context: RunContext) -> None:
    """Refuse a comparison of which an arm could not run.

    Raises:
        TikmixError: naming the arm and what is wrong with its parameters, or a task of lm-eval's that is not there.
    """
    from tikmix_pipeline.pipelines.compare.arms import arms_of, context_of

    harness = context.parameters.compare.harness
    if harness.enabled:
        from tikmix_pipeline.lm.lm_eval import check_lm_eval

        check_lm_eval(harness, context.parameters.corpus.tasks, context.root)
    for arm in arms_of(context.parameters):
        parameters = context_of(arm).parameters
        try:
            check_before_compute(parameters, context.root)
        except TikmixError as error:
            raise TikmixError(f"compare.definitions.{arm.name}: {error}") from None


def check_candidates(parameters: RunParameters) -> None:
    """Refuse candidates of `validate` that the training cannot serve.

    Raises:
        TikmixError: a candidate needs the moments of an optimiser that is not used.
    """
    optimizer = parameters.train.optimizer
    for candidate in parameters.validation.candidates:
        if candidate.curvature == "adam" and optimizer != "adamw":
            raise TikmixError(
                f"validate.candidates: '{candidate.label}' needs the second moments of AdamW, but train.optimizer is "
                f"{optimizer}. Leave it out of the list."
            )


def _shown(path: Path) -> Path:
    root = run_context().root
    return path.relative_to(root) if path.is_relative_to(root) else path


def _give_recipe(dataset: Any, name: str, recipes: Mapping[str, Recipe]) -> None:
    if isinstance(dataset, ResumePointDataset | WorkFolderDataset):
        dataset.expected = recipes.get(dataset.completes)
    elif isinstance(dataset, Artifact | RoundRowsDataset):
        dataset.expected = recipes.get(name)


def _require_fresh(name: str, dataset: Any, recipes: Mapping[str, Recipe]) -> None:
    if not isinstance(dataset, Artifact):
        return
    status, reason = dataset.status()
    if status != "fresh":
        raise TikmixError(
            f"This run needs {_shown(dataset.path)}, which is {status}: {reason}. Run what makes it first"
            f"{_command(recipes.get(name))}, or go back to the parameters it was made with."
        )


_STAGE_OF = {
    "train_chunk": "train_chunk",
    "evaluate": "train_chunk",
    "take_stock": "train_chunk",
    "rebalance": "influence",
    "fit_factors": "influence",
    "collect_gradients": "influence",
    "compute_influence": "influence",
    "train_branches": "validate",
    "fit_diagonal": "validate",
    "fit_kfac": "validate",
    "fit_ekfac": "validate",
    "predict_effects": "validate",
    "compare_with_branches": "validate",
    "optimize_mixture": "optimize",
    "draw_candidates": "sweep",
    "sample_influence": "sweep",
    "measure_own_tokens": "sweep",
    "train_candidates": "sweep",
    "read_tables": "sweep",
    "judge_surrogates": "sweep",
    "fit_surrogate": "sweep",
    "search_mixture": "sweep",
    "choose_measured": "sweep",
    "draw_sweep": "sweep",
    "decide_baseline": "optimize",
    "run_arms": "compare",
    "tabulate_comparison": "compare",
    "draw_comparison": "compare",
    "score_by_harness": "compare",
    "record_mixture": "reweight",
    "keep_mixture": "reweight",
    "state_gains": "reweight",
    "export_mixtures": "reweight",
    "sample_text": "remix",
    "tokenize_sample": "remix",
    "adopt_checkpoint": "remix",
    "take_stock_elsewhere": "remix",
    "list_in_force": "remix",
    "write_report": "remix",
    "prepare_text": "corpus",
    "tokenize_corpus": "corpus",
}


def _command(recipe: Recipe | None) -> str:
    """Return the command that makes an artifact, for the end of a message."""
    if recipe is None:
        return ""
    namespace, _, node = recipe.step.rpartition(".")
    stage = _STAGE_OF.get(node, "train_chunk")
    number = namespace.removeprefix("round_") or "0"
    return f": kedro run --pipelines {stage}" + ("" if stage == "corpus" else f" --params round={number}")


def _explain_rebuild(datasets: Iterable[Any]) -> None:
    """Say once what changed since artifacts were made that this run makes again."""
    stale = 0
    reasons: dict[str, None] = {}
    for artifact in (one for one in datasets if isinstance(one, Artifact)):
        status, reason = artifact.status()
        if status not in ("stale", "altered"):
            continue
        stale += 1
        written = read_recipe(artifact.path)
        if status == "altered" or written is None:
            reasons[f"{artifact.path}: {reason}"] = None
        elif artifact.expected is not None:
            reasons |= dict.fromkeys(own_changes(written, artifact.expected.to_dict()))
    if stale:
        _LOG.info("Making %d artifacts again: %s", stale, "; ".join(reasons))
