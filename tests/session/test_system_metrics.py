"""The machine is watched where a run is long enough, and where it can be."""

import importlib.util
import logging
from typing import Any

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.session.tracking import system_metrics
from tikmix_pipeline.session.tracking.system_metrics import MachineWatch, require_monitor

psutil = pytest.importorskip("psutil", reason="pip install psutil")


class Monitor:
    """In the place of MLflow's own."""

    made: list["Monitor"]

    def __init__(self, run_id: str, sampling_interval: float, tracking_uri: str) -> None:
        assert sampling_interval > 0
        self.told, self.state = (run_id, tracking_uri), "made"
        self.made.append(self)

    def start(self) -> None:
        self.state = "started"

    def finish(self) -> None:
        self.state = "finished"


@pytest.fixture
def monitors(monkeypatch: pytest.MonkeyPatch) -> list[Monitor]:
    from mlflow.system_metrics import system_metrics_monitor

    Monitor.made = []
    monkeypatch.setattr(system_metrics_monitor, "SystemMetricsMonitor", Monitor)
    return Monitor.made


def watched(wanted: Any) -> MachineWatch:
    watch = MachineWatch("run", "sqlite:///there", wanted)
    if watch._timer.interval < 1 and watch._timer.ident is not None:
        watch._timer.join()
    return watch


def test_what_is_asked_for_is_watched_at_once_until_the_run_ends(monitors: list[Monitor]) -> None:
    watch = watched(True)
    (monitor,) = monitors
    assert (monitor.told, monitor.state) == (("run", "sqlite:///there"), "started")
    assert not logging.getLogger("mlflow.system_metrics.system_metrics_monitor").isEnabledFor(logging.INFO)
    watch.finish()
    watch.finish()
    assert monitor.state == "finished"


def test_a_short_run_is_not_watched(monitors: list[Monitor]) -> None:
    watched("auto").finish()
    watched(False).finish()
    assert not monitors


def test_a_long_run_is_watched(monitors: list[Monitor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "LONG_ENOUGH", 0.001)
    watched("auto").finish()
    assert [monitor.state for monitor in monitors] == ["finished"]


def test_without_psutil_only_what_is_asked_for_by_name_is_refused(
    monitors: list[Monitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(system_metrics, "LONG_ENOUGH", 0.001)
    require_monitor("auto")
    require_monitor(False)
    watch = MachineWatch("run", "sqlite:///there", "auto")
    watch.finish()
    assert not monitors
    with pytest.raises(
        TikmixError, match=r"mlflow.system_metrics=true needs psutil: pip install psutil.*auto does wit"
    ):
        require_monitor(True)
