"""What a job hands over is what its entry is annotated with, in whatever process it is read."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from lm_examples import train_parameters
from pydantic import PlainValidator

from tikmix_pipeline.distributed.job import Job, resumed_partial
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.parameters import InfluenceParameters
from tikmix_pipeline.parameters.measurement import CurvatureParameters
from tikmix_pipeline.parameters.training import ProcessParameters, RestoreParameters


@dataclass(frozen=True)
class Artifact:
    folder: Path


@dataclass(frozen=True)
class Budget:
    tokens: dict[str, float]


def decide(budget: Budget, restore: RestoreParameters, *, tasks: list[str]) -> list[Any]:
    return [budget, restore, tasks]


def entry(
    artifact: Annotated[Artifact, PlainValidator(lambda folder: Artifact(Path(folder)))],
    *,
    folder: Path,
    curvature: CurvatureParameters,
    weights: dict[str, float],
    decision: Annotated["partial[list[Any]]", PlainValidator(resumed_partial)],
    mesh: Mesh,
) -> list[Any]:
    return [artifact, folder, curvature, weights, decision(tasks=["quiz"]), mesh]


def test_an_entry_is_called_with_what_was_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    influence, train = InfluenceParameters(curvature="identity"), train_parameters(world_size=2, shard=1)
    arguments = {
        "artifact": Artifact(Path("here")),
        "folder": Path("there"),
        "curvature": influence,
        "weights": {"code": 1 / 3},
        "decision": partial(decide, budget=Budget({"code": 0.1}), restore=train),
    }
    Job(entry, arguments, train).write(tmp_path)
    job = Job.read(tmp_path)
    assert job.processes == train.narrowed(ProcessParameters)
    artifact, folder, curvature, weights, (budget, restore, tasks), mesh = job.entry(**job.arguments, mesh=SINGLE_MESH)
    assert (artifact, folder, mesh) == (Artifact(tmp_path / "here"), tmp_path / "there", SINGLE_MESH)
    assert weights == {"code": 1 / 3}
    assert (budget, tasks) == (Budget({"code": 0.1}), ["quiz"])
    assert restore == train.narrowed(RestoreParameters)
    assert type(curvature) is CurvatureParameters
    assert curvature.curvature == "identity"
