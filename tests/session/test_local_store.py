"""The store of a project is there whole or not at all."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow

from tikmix_pipeline.session.tracking.local_store import make_local_store

MODULE = "tikmix_pipeline.session.tracking.local_store"
MAKE = f"import sys; from pathlib import Path; from {MODULE} import make_local_store as make; make(Path(sys.argv[1]))"


def client_of(path: Path) -> mlflow.MlflowClient:
    make_local_store(path)
    return mlflow.MlflowClient(f"sqlite:///{path}")


def test_kill_while_the_store_is_made_leaves_none_and_the_next_start_makes_it(tmp_path: Path) -> None:
    making = subprocess.Popen([sys.executable, "-c", MAKE, str(tmp_path / "mlflow.db")])
    while not [path for path in tmp_path.glob(".mlflow.db.*.tmp") if path.stat().st_size > 0]:
        assert making.poll() is None, "it was made before it could be killed"
        time.sleep(0.001)
    making.send_signal(signal.SIGKILL)
    making.wait()
    assert not (tmp_path / "mlflow.db").exists()
    client = client_of(tmp_path / "mlflow.db")
    assert client.get_experiment_by_name("Default") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_store_that_is_there_is_left_alone(tmp_path: Path) -> None:
    client = client_of(tmp_path / "mlflow.db")
    client.create_experiment("mine")
    made = os.stat(tmp_path / "mlflow.db").st_ino
    assert client_of(tmp_path / "mlflow.db").get_experiment_by_name("mine") is not None
    assert os.stat(tmp_path / "mlflow.db").st_ino == made


def test_a_store_is_made_without_a_word_of_its_migrations(tmp_path: Path) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    chatty = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    for logger in chatty:
        logger.addHandler(handler)
    try:
        make_local_store(tmp_path / "mlflow.db")
    finally:
        for logger in chatty:
            logger.removeHandler(handler)
    assert said == []
