"""Jobs on a real Ray cluster of this machine, started once for all of these tests: `pip install -e ".[dev,ray]"`."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs import on_ray
from tikmix_pipeline.jobs.engine import each_job
from tikmix_pipeline.jobs.worker_pool import Died
from tikmix_pipeline.parameters import EngineParameters

ray: Any = pytest.importorskip("ray", reason="needs the extra [ray]")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with on_ray._cluster(ray, EngineParameters(kind="ray")):
        yield


def work(shared: Path, job: str | int) -> Any:
    if job == "mistake":
        raise TikmixError("too small")
    if job == "twice" and not (shared / "begun").exists():
        (shared / "begun").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "never":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "long":
        return _until_interrupted(shared)
    return job, int(job) * 2 if job != "twice" else os.environ["OMP_NUM_THREADS"], str(Path.cwd())


def _until_interrupted(shared: Path) -> None:
    (shared / "long").touch()
    try:
        while True:
            time.sleep(0.02)
    except KeyboardInterrupt:
        (shared / "ended").touch()
        raise


def each(shared: Path, jobs: list[Any], **engine: Any) -> Iterator[tuple[int, Any]]:
    parameters = EngineParameters.model_validate({"kind": "ray"} | engine)
    return each_job(work, shared, jobs, engine=parameters, workers="auto", on_cpu=True, folders=(shared,))


def test_every_job_is_done_once_as_in_a_process_of_this_machine(tmp_path):
    found = dict(each(tmp_path, [1, 2, 3]))
    assert found == {number: (number + 1, 2 * (number + 1), str(Path.cwd())) for number in range(3)}


def test_lost_job_is_begun_again_and_one_that_is_always_lost_is_given_up(tmp_path, caplog):
    on_ray._LOG.addHandler(caplog.handler)
    found = dict(each(tmp_path, ["twice", "never", 3], retries=1))
    on_ray._LOG.removeHandler(caplog.handler)
    threads = os.environ.get("OMP_NUM_THREADS", str(on_ray.usable_cores()))
    assert found[0] == ("twice", threads, str(Path.cwd()))
    assert found[1] == Died(cause="its process ended, as when memory runs out (lost 2 times)")
    assert found[2][1] == 6
    assert "Job 1 of 3 is begun again: its process ended" in caplog.text


def test_errors_are_told_as_by_the_local_pool(tmp_path):
    with pytest.raises(TikmixError, match="too small"):
        list(each(tmp_path, [1, "mistake"]))
    with pytest.raises(RuntimeError, match=r"work[\s\S]*invalid literal for int"):
        list(each(tmp_path, ["x"]))
    with pytest.raises(TikmixError, match=r"has no .*missing"):
        list(each(tmp_path / "missing", [1]))


def test_more_than_any_node_has_is_refused(tmp_path):
    with pytest.raises(TikmixError, match=r"engine\.cpus_per_job=4096 .* there is 1 node"):
        list(each(tmp_path, [1], cpus_per_job=4096))


def test_whoever_stops_listening_ends_the_jobs(tmp_path):
    jobs = each(tmp_path, [1, "long"])
    assert next(jobs)[0] == 0
    while not (tmp_path / "long").exists():
        time.sleep(0.02)
    jobs.close()  # type: ignore[attr-defined]
    assert (tmp_path / "ended").exists()


def test_address_at_which_nobody_listens_is_refused_at_once():
    with pytest.raises(TikmixError, match=r"engine\.address: no cluster could be joined at ray://127\.0\.0\.1:9"):
        on_ray._join(ray, EngineParameters(kind="ray", address="ray://127.0.0.1:9"))
