"""Load of the machine as metrics of a run, by MLflow's own monitor, where a run is long enough for it to matter."""

import importlib.util
import logging
import threading
from typing import Any, Literal

from tikmix_pipeline.errors import TikmixError

LONG_ENOUGH = 120.0
"""Seconds after which `auto` has a run watched."""

_SAMPLED_EVERY = 30.0  # seconds, since `auto` watches long runs; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise
_SAMPLED_AT_ONCE = 10.0  # MLflow's own


def require_monitor(wanted: Literal["auto"] | bool) -> None:
    """Refuse what only psutil can measure where it is not installed.

    Raises:
        TikmixError: it was asked for by name.
    """
    if wanted is True and not _can_watch():
        raise TikmixError(
            "mlflow.system_metrics=true needs psutil: pip install psutil (and nvidia-ml-py, for NVIDIA's GPUs). "
            "mlflow.system_metrics=auto does without where it is not installed."
        )


def _can_watch() -> bool:
    return importlib.util.find_spec("psutil") is not None


class MachineWatch:
    """Watches the machine for a run, from some seconds on, in a thread of its own."""

    def __init__(self, run_id: str, uri: str, wanted: Literal["auto"] | bool) -> None:
        """Begin, or wait until the run is long enough; nothing where it is not `wanted` or cannot be done.

        Args:
            run_id: MLflow's.
            uri: of the store.
            wanted: the parameter `mlflow.system_metrics`.
        """
        self._monitor: Any = None
        self._run_id, self._uri = run_id, uri
        self._lock, self._is_over = threading.Lock(), False
        after, self._interval = (0.0, _SAMPLED_AT_ONCE) if wanted is True else (LONG_ENOUGH, _SAMPLED_EVERY)
        self._timer = threading.Timer(after, self._begin)
        self._timer.daemon = True
        if wanted and _can_watch():
            self._timer.start()

    def _begin(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it tells of its beginning and its end
        with self._lock:
            if not self._is_over:
                self._monitor = SystemMetricsMonitor(self._run_id, self._interval, tracking_uri=self._uri)
                self._monitor.start()

    def finish(self) -> None:
        """End it, and log what was measured last."""
        self._timer.cancel()
        with self._lock:
            self._is_over = True
            if self._monitor is not None:
                self._monitor.finish()
