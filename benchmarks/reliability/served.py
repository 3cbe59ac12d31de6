"""Commands run by forks of one process that has imported everything, so that a trial takes seconds and not ten more."""

import atexit
import contextlib
import importlib
import os
import pkgutil
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from campaign import Ended, Pipeline

_PRELOADED = (
    *("kedro.framework.cli.cli", "kedro.framework.session", "kedro_viz.integrations.kedro.run_hooks"),
    *("matplotlib.pyplot", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "pandas", "pyarrow.parquet"),
    *("safetensors.torch", "scipy.optimize", "sklearn.gaussian_process", "torch", "torch._dynamo", "xgboost"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
)


def preload(project: Path) -> None:
    """Import what a run imports; Kedro configures its logs by the folder that it is imported in."""
    os.chdir(project)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import tikmix_pipeline

    for module in pkgutil.walk_packages(tikmix_pipeline.__path__, "tikmix_pipeline."):
        if "ranks" not in module.name and not module.name.endswith(("__main__", "capacity", "settings", "registry")):
            importlib.import_module(module.name)


def serve(project: Path, pipeline: Pipeline, begin: Callable[[], None] = lambda: None, limit: float = 300) -> Ended:
    """Run a command in a fork, which calls `begin` first; one that takes longer than `limit` seconds is killed."""
    start = time.perf_counter()
    log = project / "last.log"
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _become(project, pipeline, log, begin)
    deadline = time.monotonic() + limit
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.01)
    return Ended(
        os.waitstatus_to_exitcode(status),
        log.read_text(encoding="utf-8", errors="replace"),
        time.perf_counter() - start,
    )


def _become(project: Path, pipeline: Pipeline, log: Path, begin: Callable[[], None]) -> None:
    """Be `kedro run`, to the end of this process."""
    os.setsid()
    with log.open("wb") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    os.chdir(project)
    sys.path.insert(0, str(project))
    sys.argv = ["kedro", "run", *pipeline.arguments()]
    code = 1
    try:
        begin()
        runpy.run_module("kedro", run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
