"""The three passes of a measurement at a checkpoint, each by one process or by `train.world_size` of them.

1. `fit_factors_at`: the factors of the curvature, of those that have any;
2. `collect_gradients_at`, or `collect_until_stable_at` where the amount of text is found out: the gradients;
3. `multiply_at`: the products of the gradients through the curvature.

Each rank calls the same functions, with its mesh; it is handed folders in place of what they hold. Axes: T tasks,
K domains, M gradient chunks of a task, L gradient chunks of a domain.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Unpack, cast

from pydantic import PlainValidator, TypeAdapter

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.job import resumed_partial
from tikmix_pipeline.distributed.launch import folder_beside, require_done
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.files import remove, replacing
from tikmix_pipeline.influence.collect import Collection, collect_gradients, measurement_key
from tikmix_pipeline.influence.curvature.factors import Factors, Kind
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.curvature.fit_progress import FitProgress
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.group import GroupInfluence, group_influence
from tikmix_pipeline.influence.products import chunk_products
from tikmix_pipeline.influence.rank_jobs import (
    CheckpointFolder,
    CurvatureArguments,
    FactorsFolder,
    GradientsFolder,
    ShardsFolder,
    curvature_at,
    multiplied,
    run_on_ranks,
    save_products,
)
from tikmix_pipeline.influence.records import CurvatureReport, Stopping
from tikmix_pipeline.influence.samples import MeasuredText
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.stopping import ImpliedMixture, collect_until_stable
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost import training_cost
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.parameters.measurement import (
    CurvatureParameters,
    FactorParameters,
    GradientParameters,
    GrowthParameters,
    OwnTokensMeasurement,
)
from tikmix_pipeline.parameters.training import (
    GrowingParameters,
    LoadParameters,
    MeasuredParameters,
    ProductParameters,
    RestoreParameters,
)

_FACTORS = "factors"

_Decision = Annotated["partial[ImpliedMixture]", PlainValidator(resumed_partial)]


@dataclasses.dataclass(frozen=True)
class DomainGradients:
    """The gradients of the domains, which a fit can measure on its way, so that their text passes once."""

    parameters: GradientParameters
    folder: Path
    """Of the gradients (`GradientStore`)."""
    begin: Callable[[], object]
    """Called before anything is written there."""
    code: str
    """As in `collect_gradients_at`."""

    def collection(self, text: MeasuredText[Any]) -> Collection:
        """Return what is to be measured of the text that a fit has opened."""
        store = GradientStore(self.folder, precision=self.parameters.kept_precision)
        measured = dataclasses.replace(text, parameters=self.parameters)
        chunks = measured.domain_chunks()
        collection = Collection(text.model, {"domain": chunks}, store, measurement_key(text.model, self.code))
        if collection.missing():
            self.begin()
            collection.begin()
        return collection


def fit_factors_at(
    checkpoint: Checkpoint,
    shards: TokenShards,
    *,
    model: LoadParameters,
    train: RestoreParameters,
    influence: FactorParameters,
    seed: int,
    progress: FitProgress,
    mixture: Mapping[str, float] | None = None,
    domains: DomainGradients | None = None,
) -> Callable[[Path], object]:
    """Fit the factors of a curvature that has some; return what writes them to a folder, or moves those of ranks there.

    `progress` is what one process has summed so far, to go on from; ranks work in its folder, and begin again. Domains
    count alike, or as in a `mixture`. One process can measure gradients of the `domains` on its way, those that are not
    there yet.

    Raises:
        TikmixError: the checkpoint does not fit the corpus or the parameters, as `fit_factors`, or as `run_ranks`.
    """
    arguments: dict[str, Any] = {"model": model, "train": train, "influence": influence, "seed": seed}
    arguments |= {"mixture": mixture}
    if train.world_size == 1:
        return _fit(checkpoint, shards, **arguments, progress=progress, domains=domains).save
    found = progress.folder / _FACTORS
    remove(found)
    arguments |= {"checkpoint": checkpoint, "shards": shards, "save_to": found}
    run_on_ranks(_fit, arguments, progress.folder)
    require_done(found.is_dir(), train)

    def move(folder: Path) -> None:
        with replacing(folder) as temporary:
            shutil.move(found, temporary)
        remove(progress.folder)

    return move


def _fit(
    checkpoint: CheckpointFolder,
    shards: ShardsFolder,
    *,
    model: LoadParameters,
    train: RestoreParameters,
    influence: FactorParameters,
    seed: int,
    mixture: Mapping[str, float] | None,
    progress: FitProgress | None = None,
    domains: DomainGradients | None = None,
    save_to: Path | None = None,
    mesh: Mesh = SINGLE_MESH,
) -> Factors:
    ranks = mesh.world.world_size
    text = MeasuredText.open(checkpoint, shards, model, train, influence, seed=seed, mesh=mesh, at_once=ranks)
    factors = fit_factors(
        text.model,
        text.factor_batches(mixture),
        kind=cast("Kind", influence.curvature),  # the others have no factors
        fisher=influence.fisher,
        seed=seed,
        groups=influence.groups,
        progress=progress,
        mesh=mesh,
        collection=domains.collection(text) if domains is not None else None,
    )
    if save_to is not None:
        factors.save(save_to, mesh.world)
    return factors


def collect_gradients_at(
    checkpoint: CheckpointFolder,
    shards: ShardsFolder,
    folder: Path,
    *,
    model: LoadParameters,
    train: RestoreParameters,
    influence: GradientParameters,
    seed: int,
    turn: int = 0,
    code: str,
    mesh: Mesh | None = None,
) -> None:
    """Measure every gradient chunk that is not there yet, of `influence.tokens` of each domain.

    Args:
        folder: of the gradients (`GradientStore`), found there and put there.
        turn: which part of the query halves is read (`MeasuredText`).
        code: names the code that gradients depend on.
        mesh: given to ranks alone.

    Raises:
        TikmixError: the checkpoint does not fit the corpus or the parameters, as `collect_gradients`, or as
            `run_ranks`.
    """
    if mesh is None and train.world_size > 1:
        arguments: dict[str, Any] = {"checkpoint": checkpoint, "shards": shards, "seed": seed, "turn": turn}
        arguments |= {"model": model, "train": train, "influence": influence, "code": code}
        _collect_on_ranks(collect_gradients_at, folder, arguments)
        return
    mesh = mesh or SINGLE_MESH
    text = MeasuredText.open(checkpoint, shards, model, train, influence, seed=seed, turn=turn, mesh=mesh)
    collect_gradients(
        text.model,
        {"task": text.target_chunks(), "domain": text.domain_chunks()},
        GradientStore(folder, mesh, influence.kept_precision),
        key=measurement_key(text.model, code, mesh),
    )


def collect_until_stable_at(
    checkpoint: CheckpointFolder,
    shards: ShardsFolder,
    folder: Path,
    *,
    model: LoadParameters,
    train: GrowingParameters,
    influence: GrowthParameters,
    seed: int,
    turn: int = 0,
    code: str,
    factors: FactorsFolder,
    horizon: float,
    decide: _Decision,
    mesh: Mesh | None = None,
) -> Stopping:
    """Measure more and more of every domain until the mixture that it implies is stable (`influence.tokens=auto`).

    Returned is when and why it stopped, which the gradients hold too.

    Args:
        folder: of the gradients, like `turn`, `code` and `mesh` as in `collect_gradients_at`.
        factors: of the curvature, where it has any; on disk, if ranks work.
        horizon: sum of the learning rates of the coming chunk.
        decide: `decide(tasks=...)` returns what decides a mixture from an influence matrix of these tasks. Ranks are
            handed its function by name, and its keywords as any arguments of a job.

    Raises:
        TikmixError: the checkpoint does not fit the corpus or the parameters, as `collect_until_stable`, or as
            `run_ranks`.
    """
    if mesh is None and train.world_size > 1:
        arguments: dict[str, Any] = {"checkpoint": checkpoint, "shards": shards, "seed": seed, "turn": turn}
        arguments |= {"model": model, "train": train, "influence": influence, "code": code}
        arguments |= {"factors": factors, "horizon": horizon, "decide": decide}
        _collect_on_ranks(collect_until_stable_at, folder, arguments)
        return TypeAdapter(Stopping).validate_python(GradientStore(folder).notes)
    mesh = mesh or SINGLE_MESH
    text = MeasuredText.open(checkpoint, shards, model, train, influence, seed=seed, turn=turn, mesh=mesh)
    targets = text.target_chunks()
    implied = decide(tasks=list(targets))
    return collect_until_stable(
        text.model,
        targets,
        text.growing_domain_chunks(),
        curvature_at(checkpoint, model, train, influence, factors, horizon, mesh),
        GradientStore(folder, mesh, influence.kept_precision),
        key=measurement_key(text.model, code, mesh),
        # one rank decides for all, which might round differently and part ways
        implied_mixture=lambda influence_TK: mesh.world.broadcast_object(lambda: implied(influence_TK)),
        parameters=influence,
    )


def multiply_at(
    checkpoint: Checkpoint, gradients: GradientStore, **through: Unpack[CurvatureArguments]
) -> tuple[Floats, CurvatureReport, Cost]:
    """Multiply all gradients of a measurement, made at the checkpoint, through the curvature.

    Returns:
        products_TMKL, float64; what curvature they went through; and the cost of both.

    Raises:
        TikmixError: as `build_curvature`, `chunk_products` or `run_ranks`.
    """
    return multiplied(_multiply, _read, checkpoint, gradients, through)


def _multiply(
    checkpoint: CheckpointFolder,
    gradients: GradientsFolder,
    *,
    model: LoadParameters,
    train: ProductParameters,
    influence: CurvatureParameters,
    horizon: float,
    factors: FactorsFolder,
    save_to: Path | None = None,
    mesh: Mesh = SINGLE_MESH,
) -> tuple[Floats, CurvatureReport, Cost]:
    curvature = curvature_at(checkpoint, model, train, influence, factors, horizon, mesh)
    device, memory = mesh.device_for(influence.device), influence.memory_megabytes
    products_TMKL, cost = chunk_products(gradients, curvature, memory_megabytes=memory, device=device)
    # asked of every rank, since each has blocks of its own
    cost, report = cost + curvature.cost, curvature.report
    save_products(save_to, mesh, products_TMKL, [dataclasses.asdict(report), cost.to_dict()])
    return products_TMKL, report, cost


def _read(products_TMKL: Floats, about: Any) -> tuple[Floats, CurvatureReport, Cost]:
    report, cost = TypeAdapter(tuple[CurvatureReport, Cost]).validate_python(about)
    return products_TMKL, report, cost


def influence_of_samples_at(
    checkpoint: Checkpoint,
    shards: TokenShards,
    folder: Path,
    *,
    mixtures: Mapping[str, Mapping[str, float]],
    tokens: int,
    model: LoadParameters,
    train: GrowingParameters,
    influence: OwnTokensMeasurement,
    seed: int,
    turn: int = 0,
    code: str,
    factors: Factors | None,
    horizon: float,
) -> GroupInfluence:
    """Measure the influence of text that mixtures draw, of each on tokens of its own, by one process.

    The mixtures take the place of domains in what is returned; each draws `tokens`, rounded up to whole sequences. For
    the rest see `collect_until_stable_at`.

    Raises:
        TikmixError: as `collect_gradients_at` and `group_influence`.
    """
    text = MeasuredText.open(checkpoint, shards, model, train, influence, seed=seed, turn=turn)
    numbered = enumerate(mixtures.items())
    samples = {name: text.drawn_by(mixture, tokens, seed=seed + number) for number, (name, mixture) in numbered}
    store = GradientStore(folder, precision=influence.kept_precision)
    collect_gradients(
        text.model,
        {"task": text.target_chunks(), "domain": deal_sets("candidate", samples, influence.micro_batches)},
        store,
        key=measurement_key(text.model, code),
    )
    return group_influence(
        store,
        curvature_at(checkpoint, model, train, influence, factors, horizon, SINGLE_MESH),
        memory_megabytes=influence.memory_megabytes,
        device=SINGLE_MESH.device_for(influence.device),
    )


def rebalancing_cost(checkpoint: Checkpoint, model: LoadParameters, train: MeasuredParameters, *, steps: int) -> Cost:
    """Return what training a checkpoint for so many `steps` on the prior has cost; with none, `train` is not read."""
    if steps == 0:
        return NO_COST
    return training_cost(checkpoint.config(model), context=train.context, tokens=steps * train.tokens_per_step)


def _collect_on_ranks(entry: Callable[..., object], folder: Path, arguments: dict[str, Any]) -> None:
    store, work = GradientStore(folder), folder_beside(folder)
    store.forget()
    try:
        run_on_ranks(entry, arguments | {"folder": folder}, work)
    finally:
        remove(work)
    require_done(store.is_finished, arguments["train"])
