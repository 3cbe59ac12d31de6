"""What a run refuses before anything is computed, as far as its parameters and the files that they name show it."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from tikmix_pipeline.baselines.baseline import proxy_model
from tikmix_pipeline.errors import TikmixError, require_known
from tikmix_pipeline.export.registry import check_trainer, write
from tikmix_pipeline.export.schedule import Domain, Phase
from tikmix_pipeline.export.schedule import Schedule as ExportSchedule
from tikmix_pipeline.lm.gguf import require_converted
from tikmix_pipeline.lm.presets import find_preset
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.weights import require_loadable
from tikmix_pipeline.mixture.bounds import unlimited_bounds
from tikmix_pipeline.mixture.external_run import check_external_run
from tikmix_pipeline.mixture.guardrails import check_guardrails
from tikmix_pipeline.mixture.objective import check_tasks
from tikmix_pipeline.mixture.simplex import check_mixture, prior_mixture
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.corpus import ShardsSource
from tikmix_pipeline.parameters.measurement import DEFAULT, heldout_target
from tikmix_pipeline.pipelines.remix.external import (
    domains_ever,
    given_mixture,
    remix_round,
    require_earlier_rounds,
    require_prediction,
    tokenizer_folder,
)
from tikmix_pipeline.run import Run

_FEWEST_FREE = 2
"""Of fewer domains that may vary no other mixture can be drawn than the one there is."""


def check_run(run: Run, *, external: bool = False) -> None:
    """Refuse what the parameters alone show to be wrong between groups.

    An `external` model is trained elsewhere, and so has no preset, start and proxies to be checked here.

    Raises:
        TikmixError: the prior or the bounds are not of the corpus's domains or leave no mixture, or none to vary for a
            strategy that draws mixtures; a task is not the corpus's; warm-up and decay do not fit into the run; a
            checkpoint, tokenizer, preset or device is not there; a baseline's proxy has no size; or too little is
            measured for a standard error.
    """
    parameters = run.parameters
    domains = list(parameters.corpus.domains)
    if isinstance(parameters.tikmix.prior, Mapping):
        check_mixture(parameters.tikmix.prior, domains, "tikmix.prior")
    _check_room(parameters, domains)
    _check_shards(parameters)
    _check_tokenizer(run)
    _check_tasks(parameters, domains)
    Schedule.of(parameters.train, max(run.rounds, parameters.tikmix.total_rounds))
    if not external:
        _check_start(run)
        _check_proxies(parameters)
    _check_measurement(parameters)
    for device in {parameters.train.device, parameters.influence.device} - {"auto", "cpu"}:
        from tikmix_pipeline.distributed.mesh import resolve_device

        resolve_device(device)


def _check_tasks(parameters: RunParameters, domains: Collection[str]) -> None:
    influence, tasks = parameters.influence, parameters.corpus.tasks
    require_known("influence.tasks", "task", influence.tasks or (), tasks)
    if not isinstance(influence.task_loss, str):
        require_known("influence.task_loss", "task", influence.task_loss, [*tasks, DEFAULT])
    heldout = [heldout_target(domain) for domain in domains] if influence.targets != "tasks" else []
    decide = [] if influence.targets == "heldout" else influence.deciding([*tasks])
    check_tasks(parameters.optimize, [*tasks, *heldout], [*decide, *heldout])
    if parameters.optimize.method == "response":
        check_guardrails(parameters.optimize.guardrails, [*domains], [*decide, *heldout])
        _check_units(parameters, [task for task in decide if task not in domains])


def _check_units(parameters: RunParameters, tasks: Collection[str]) -> None:
    """Refuse a tolerance in bits per byte of a task that is scored by the choice among its options."""
    for name, guardrail in parameters.optimize.guardrails.items():
        if guardrail is None or guardrail.domains or name not in tasks:
            continue
        if guardrail.unit == "bits_per_byte" and parameters.influence.loss_of(name) == "choice":
            raise TikmixError(
                f"optimize.guardrails.{name}.unit is bits_per_byte, but influence.task_loss is 'choice' for '{name}': "
                "its loss is in nats per item, and has no bytes. Give the tolerance in nats, percent, share or stderr."
            )


def _check_room(parameters: RunParameters, domains: Collection[str]) -> None:
    low_K, high_K = unlimited_bounds(parameters.optimize, domains).box()
    strategy, free = parameters.tikmix.strategy, int((high_K > low_K).sum())
    if strategy in ("surrogate", "regmix") and free < _FEWEST_FREE:
        raise TikmixError(
            f"tikmix.strategy={strategy} draws mixtures to learn from, and optimize (bounds, pinned, min_weight, "
            f"max_weight) leaves {free} of {len(domains)} domains room to vary: it takes {_FEWEST_FREE}. Give more of "
            "them room, or use tikmix.strategy=direct."
        )


def _check_shards(parameters: RunParameters) -> None:
    for name, domain in parameters.corpus.domains.items():
        if isinstance(domain.sources[0], ShardsSource) and parameters.corpus.tokenizer.path is None:
            raise TikmixError(
                f"corpus.domains.{name}: `shards` sources need corpus.tokenizer.path: the tokenizer that made their "
                "ids."
            )


def _check_tokenizer(run: Run) -> None:
    path = run.parameters.corpus.tokenizer.path
    if path is not None and not (run.root / path).is_dir():
        require_converted(run.root / path, "corpus.tokenizer.path")
        raise TikmixError(f"corpus.tokenizer.path: there is no folder {run.root / path}.")


def _check_start(run: Run) -> None:
    checkpoint = run.parameters.model.checkpoint
    if checkpoint is None:
        find_preset(run.parameters.model.preset)
    else:
        require_converted(run.root / checkpoint, "model.checkpoint")
        require_loadable(run.root / checkpoint)
        if not (run.root / checkpoint / "tokenizer.json").is_file():
            raise TikmixError(
                f"model.checkpoint: {run.root / checkpoint} holds no tokenizer.json. Give a folder that "
                "save_pretrained wrote both the model and its tokenizer to."
            )


def _check_proxies(parameters: RunParameters) -> None:
    own = parameters.baselines
    asked = {"doremi": own.doremi.preset, "regmix": own.regmix.preset, "fastmix": own.fastmix.preset}
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


def check_tables(run: Run) -> None:
    """Refuse a sweep over tables that are not there.

    Raises:
        TikmixError: naming the parameter and the file.
    """
    for name, path in run.parameters.sweep.table.model_dump().items():
        if path and name.endswith(("ratios", "metrics")) and not (run.root / path).is_file():
            raise TikmixError(
                f"sweep.table.{name}: there is no file {run.root / path}. Give the path of a CSV file, relative to the "
                "project or absolute."
            )


def check_candidates(run: Run) -> None:
    """Refuse candidates of `validate` that the training cannot serve.

    Raises:
        TikmixError: a candidate needs the moments of an optimiser that is not used.
    """
    optimizer = run.parameters.train.optimizer
    for candidate in run.parameters.validation.candidates:
        if candidate.curvature == "adam" and optimizer != "adamw":
            raise TikmixError(
                f"validate.candidates: '{candidate.label}' needs the second moments of AdamW, but train.optimizer is "
                f"{optimizer}. Leave it out of the list."
            )


def check_exports(run: Run, *, external: bool) -> None:
    """Write the uniform mixture for every trainer asked for, and keep nothing of it.

    An `external` run is trained elsewhere, in chunks of its own, and domains of its earlier rounds may be gone.

    Raises:
        TikmixError: a trainer or a domain is not known, or a trainer cannot take a path or a size.
    """
    parameters, reweight = run.parameters, run.parameters.reweight
    if not reweight.exports:
        return
    domains = list(parameters.corpus.domains)
    train = parameters.train
    chunk_tokens = parameters.remix.coming_chunk(train) if external else train.tokens_per_chunk
    known = domains_ever(run) if external else domains
    for trainer in reweight.exports:
        check_trainer(trainer, "reweight.exports")
    require_known("reweight.paths", "domain", reweight.paths, known)
    batch = reweight.batch_tokens or train.tokens_per_step
    if batch > chunk_tokens:
        raise TikmixError(
            f"reweight.batch_tokens is {batch}, more than the {chunk_tokens} tokens of a chunk, so that no chunk would "
            "begin with a batch. Lower it, or lengthen the chunk (chunk_tokens of `train` or `remix`)."
        )
    try:
        schedule = ExportSchedule(
            phases=[Phase(0, 0, prior_mixture("uniform", dict.fromkeys(domains, 1)))],
            domains=[Domain(name, reweight.paths.get(name, name), None, 1.0) for name in domains],
            batch_tokens=batch,
            context=reweight.context or train.context,
            chunk_tokens=chunk_tokens,
            experiment=parameters.experiment,
            round=0,
            epochs={},
            expected_gain={},
            gain_unit="none",
        )
        for trainer in reweight.exports:
            write(trainer, schedule)
    except TikmixError as error:
        raise TikmixError(f"reweight (exports, paths, batch_tokens, context): {error}") from None


def check_remix(run: Run) -> None:
    """Refuse what can be known to be wrong from the parameters and the checkpoint's folder.

    Raises:
        TikmixError: naming the parameter or file at fault.
    """
    parameters = run.parameters
    if parameters.tikmix.strategy not in ("direct", "surrogate"):
        raise TikmixError(
            f"tikmix.strategy is '{parameters.tikmix.strategy}', which is not for a checkpoint that was trained "
            "elsewhere. For `remix` it is 'direct' or 'surrogate'."
        )
    _check_checkpoint(parameters, run.root)
    require_earlier_rounds(run, remix_round(run))
    if parameters.remix.prediction is not None:
        require_prediction(run, remix_round(run))
    given = given_mixture(parameters.remix, run.root, parameters.experiment)
    if given is not None:
        check_mixture(given, list(parameters.corpus.domains), "remix.current")
    check_external_run(parameters.remix, parameters.corpus.domains, parameters.remix.coming_chunk(parameters.train))
    if parameters.influence.damping_unit == "horizon":
        raise TikmixError(
            "influence.damping_unit is 'horizon': the sum of the coming chunk's learning rates, which `remix` does not "
            "know of a run elsewhere. Set it to 'relative' or 'absolute'."
        )


def _check_checkpoint(parameters: RunParameters, root: Path) -> None:
    if parameters.model.checkpoint is None:
        raise TikmixError(
            "remix needs model.checkpoint: a folder that save_pretrained wrote the model and its tokenizer to."
        )
    from tikmix_pipeline.corpus.tokenizer import tokenizer_files

    folder = root / parameters.model.checkpoint
    require_converted(folder, "model.checkpoint")
    require_loadable(folder)
    if parameters.corpus.tokenizer.path is None and not tokenizer_files(folder):
        raise TikmixError(
            f"model.checkpoint: {folder} holds no tokenizer. Save the model's own there "
            "(AutoTokenizer.save_pretrained), or give its folder: corpus.tokenizer.path."
        )
    _check_fit(parameters, root, folder)


def _check_fit(parameters: RunParameters, root: Path, checkpoint: Path) -> None:
    """Compare what the files themselves tell, without loading the model."""
    from tikmix_pipeline.corpus.tokenizer import tokenizer_digest, vocabulary_size_of
    from tikmix_pipeline.lm.checkpoint import Checkpoint

    tokenizer = root / tokenizer_folder(parameters)
    Checkpoint(checkpoint).require_context(parameters.train.context)
    own, given = tokenizer_digest(checkpoint), tokenizer_digest(tokenizer)
    if own is not None and given is not None and own != given:
        raise TikmixError(
            f"corpus.tokenizer.path: the tokenizer in {tokenizer} is another than the one in {checkpoint}. Leave the "
            "parameter out: the checkpoint's own is taken."
        )
    made = vocabulary_size_of(tokenizer)
    if made is not None:
        Checkpoint(checkpoint).require_known_ids(made)
