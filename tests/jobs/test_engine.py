"""Which engine runs jobs, and what is refused before it does. None of this needs Ray."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs import on_ray
from tikmix_pipeline.jobs.engine import each_job, workers_here
from tikmix_pipeline.parameters import EngineParameters


def add(shared: int, job: int) -> int:
    return shared + job


def run(jobs: list[int], *, on_cpu: bool = True, **engine: Any) -> list[tuple[int, Any]]:
    parameters = EngineParameters.model_validate(engine)
    return sorted(each_job(add, 10, jobs, engine=parameters, workers=1, on_cpu=on_cpu))


def test_local_engine_is_the_default_and_knows_nothing_of_ray():
    assert run([1, 2]) == [(0, 11), (1, 12)]
    assert run([], kind="ray") == []
    code = "import sys; import tikmix_pipeline.jobs.engine, tikmix_pipeline.lm.branch_pool; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_workers_are_one_per_core_and_one_on_a_gpu(monkeypatch):
    monkeypatch.setattr("tikmix_pipeline.jobs.engine.usable_cores", lambda: 4)
    assert [workers_here("auto", jobs, on_cpu=True) for jobs in (2, 9)] == [2, 4]
    assert workers_here("auto", 9, on_cpu=False) == 1
    assert workers_here(7, 2, on_cpu=True) == 7


def test_ray_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TikmixError, match=r"engine\.kind=ray needs the package ray.*\[ray\]"):
        run([1], kind="ray")


def test_job_on_a_gpu_has_to_ask_for_one(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(TikmixError, match=r"engine\.gpus_per_job is 0"):
        run([1], kind="ray", gpus_per_job=0, on_cpu=False)


@pytest.mark.parametrize(
    "wrong", [{"cpus_per_job": 0}, {"cpus_per_job": 1.5}, {"gpus_per_job": 2.5}, {"retries": -1}, {"kind": "dask"}]
)
def test_values_that_no_engine_can_take_are_refused(wrong):
    with pytest.raises(ValidationError):
        EngineParameters.model_validate(wrong)


def test_shares_and_whole_numbers_are_taken():
    taken = EngineParameters(cpus_per_job=0.5, gpus_per_job=2.0)
    assert (taken.cpus_per_job, taken.gpus_per_job) == (0.5, 2.0)


def test_node_with_other_code_is_refused_by_name(tmp_path: Path):
    on_ray.require_same(on_ray.installed(), [tmp_path])
    assert len(on_ray.installed()["tikmix-pipeline"]) == 12
    with pytest.raises(TikmixError, match=r"torch is .* and not 1\.0"):
        on_ray.require_same(on_ray.installed() | {"torch": "1.0"}, [])


def test_node_that_does_not_see_a_folder_is_told(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"has no .*elsewhere\. All nodes"):
        on_ray.require_same({}, [tmp_path / "elsewhere"])
