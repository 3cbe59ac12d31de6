"""A stage of a measurement by several ranks: factors, gradients or products."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.files import read_json, remove, replacing, write_json
from tikmix_pipeline.influence.collect import collect_gradients, measurement_key
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors, Kind
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.curvature.report import BlockReport, CurvatureReport
from tikmix_pipeline.influence.grow import collect_until_stable
from tikmix_pipeline.influence.products import counted_products
from tikmix_pipeline.influence.samples import MeasuredText
from tikmix_pipeline.influence.standard_error import Floats
from tikmix_pipeline.influence.stopping import ImpliedMixture
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost import Cost
from tikmix_pipeline.mixture.direct import implied_mixture
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, OptimizeParameters, TrainParameters
from tikmix_pipeline.ranks.crew import RankCrew
from tikmix_pipeline.ranks.job import write_job
from tikmix_pipeline.ranks.launch import require_done, run_ranks

Stage = Literal["factors", "gradients", "products"]

_FOLDERS = ("checkpoint", "shards", "store", "factors")
_FACTORS = "factors"
_PRODUCTS = "products.npy"
_REPORT = "products.json"


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What a stage needs, with folders in place of what they hold.

    Attributes:
        stage: which one.
        checkpoint: what is measured.
        shards: the corpus, of the first two stages.
        code: names the code that gradients depend on.
        horizon: sum of the learning rates of the coming chunk.
        store: of the part gradients, for all stages but `factors`.
        factors: of the curvature, where it has any.
        growth: with `influence.tokens=auto`, the arguments of `implied_mixture` by name.
    """

    stage: Stage
    checkpoint: Path
    model: ModelParameters
    train: TrainParameters
    influence: InfluenceParameters
    shards: Path | None = None
    seed: int = 0
    code: str = ""
    horizon: float = 0.0
    store: Path | None = None
    factors: Path | None = None
    growth: Mapping[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write the job to a folder that is there."""
        folders = {name: getattr(self, name) for name in _FOLDERS}
        content = {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            **{name: str(path.resolve()) if path else None for name, path in folders.items()},
            "model": self.model.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "influence": self.influence.model_dump(mode="json"),
        }
        write_job(folder, "measuring", content)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Measuring":
        """Read what `write` wrote."""
        values = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        return cls(
            **values
            | {name: Path(values[name]) for name in _FOLDERS if values[name]}
            | {
                "model": ModelParameters.model_validate(values["model"]),
                "train": TrainParameters.model_validate(values["train"]),
                "influence": InfluenceParameters.model_validate(values["influence"]),
            }
        )

    def text(self, crew: RankCrew, at_once: int) -> MeasuredText:
        """Load the checkpoint, spread as the crew has it, and its text in batches for `at_once` ranks."""
        scaled = self.influence.model_copy(update={"batch_size": self.influence.batch_size * at_once})
        return MeasuredText.open(
            Checkpoint(self.checkpoint),
            TokenShards.open(_needed(self.shards)),
            model=self.model,
            train=self.train,
            influence=scaled,
            seed=self.seed,
            team=crew,
        )

    def curvature(self, crew: RankCrew) -> Curvature:
        """Build this rank's blocks of the curvature."""
        checkpoint = Checkpoint(self.checkpoint)
        return build_curvature(
            self.influence,
            checkpoint.outline(self.model),
            factors=Factors.load(self.factors) if self.factors else None,
            optimizer_state=checkpoint.optimizer_tensors() if self.influence.needs_optimizer else {},
            train=self.train,
            horizon=self.horizon,
            device=crew.device,
            exchange=crew.everyone,
        )


def fit_on_ranks(job: Measuring, folder: Path) -> Path:
    """Fit the factors of the curvature; return where they are, in the folder that the ranks work in.

    Raises:
        TikmixError: as `run_ranks`.
    """
    found = folder / _FACTORS
    remove(found)
    _run(job, folder)
    require_done(found.is_dir(), job.train)
    return found


def collect_on_ranks(job: Measuring, folder: Path) -> None:
    """Collect the gradients of all parts into the job's store; the folder, which is for this alone, is removed.

    Raises:
        TikmixError: as `run_ranks`.
    """
    store = GradientStore(_needed(job.store))
    store.forget()
    try:
        _run(job, folder)
    finally:
        remove(folder)
    require_done(store.is_finished, job.train)


def multiply_on_ranks(job: Measuring, folder: Path) -> tuple[Floats, CurvatureReport, Cost]:
    """Return the products of all parts, what curvature they went through, and what both took; remove the folder.

    Raises:
        TikmixError: as `run_ranks`.
    """
    remove(folder)
    try:
        _run(job, folder)
        require_done((folder / _REPORT).is_file(), job.train)
        report = read_json(folder / _REPORT)
        products_TMKL = np.load(folder / _PRODUCTS, allow_pickle=False)
    finally:
        remove(folder)
    blocks = tuple(BlockReport(**block | {"parameters": tuple(block["parameters"])}) for block in report["blocks"])
    groups = tuple(report["groups"])
    cost = Cost(**report.pop("cost"))
    return products_TMKL, CurvatureReport(**report | {"blocks": blocks, "groups": groups}), cost


def _run(job: Measuring, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    job.write(folder)
    run_ranks(folder, job.train)


def measure(job: Measuring, folder: Path, crew: RankCrew) -> None:
    """Do one rank's part of a stage."""
    if job.stage == "factors":
        _fit(job, folder, crew)
    elif job.stage == "gradients":
        _collect(job, crew)
    else:
        _multiply(job, folder, crew)


def _fit(job: Measuring, folder: Path, crew: RankCrew) -> None:
    text = job.text(crew, crew.everyone.count)
    kind: Kind = job.influence.curvature  # type: ignore[assignment]  # a curvature without factors has no such stage
    factors = fit_factors(
        text.model,
        text.factor_batches(),
        kind=kind,
        fisher=job.influence.fisher,
        seed=job.seed,
        groups=job.influence.groups,
        crew=crew,
    )
    factors.save(folder / _FACTORS, crew.everyone)


def _collect(job: Measuring, crew: RankCrew) -> None:
    text = job.text(crew, crew.copy.count)
    store = GradientStore(_needed(job.store), crew)
    key = measurement_key(text.model, job.code, crew)
    targets = text.target_parts()
    if job.growth is None:
        collect_gradients(text.model, {"task": targets, "domain": text.domain_parts()}, store, key=key)
        return
    collect_until_stable(
        text.model,
        targets,
        text.growing_domain_parts(),
        job.curvature(crew),
        store,
        key=key,
        implied_mixture=_by_the_first(job.growth, list(targets), crew),
        parameters=job.influence,
    )


def _by_the_first(growth: Mapping[str, Any], tasks: list[str], crew: RankCrew) -> ImpliedMixture:
    """Have one rank decide for all, which might round differently and part ways."""
    optimize = OptimizeParameters.model_validate(growth["optimize"])
    decide = implied_mixture(TokenBudget.from_json(growth["stock"]), growth["prior"], optimize, tasks)

    def decided(influence_TK: Floats) -> Floats:
        return crew.everyone.by_the_first(lambda: decide(influence_TK))

    return decided


def _multiply(job: Measuring, folder: Path, crew: RankCrew) -> None:
    store, curvature = GradientStore(_needed(job.store)), job.curvature(crew)
    products_TMKL, cost = counted_products(
        store, curvature, memory_megabytes=job.influence.memory_megabytes, device=crew.device
    )
    if crew.everyone.leads:
        with replacing(folder / _PRODUCTS) as temporary, temporary.open("wb") as stream:
            np.save(stream, products_TMKL)
        write_json(
            folder / _REPORT, {**dataclasses.asdict(curvature.report), "cost": (curvature.cost + cost).to_dict()}
        )


def _needed(folder: Path | None) -> Path:
    if folder is None:
        raise ValueError("this stage needs another folder")
    return folder
