"""The store of a project is there whole or not at all."""

import contextlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.exceptions import MlflowException

from tikmix_pipeline.session.tracking.local_store import make_local_store

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What MLflow and Alembic say under the project's logging."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    levels = yaml.safe_load((ROOT / "conf" / "logging.yml").read_text())["loggers"]
    chatty = {logging.getLogger(name): levels[name]["level"] for name in ("mlflow.store.db.utils", "alembic")}
    before = {logger: logger.level for logger in chatty}
    for logger, level in chatty.items():
        logger.setLevel(level)
        logger.addHandler(handler)
    yield messages
    for logger in chatty:
        logger.setLevel(before[logger])
        logger.removeHandler(handler)


def test_a_store_is_made_without_a_word_of_its_migrations(tmp_path: Path, said: list[str]) -> None:
    make_local_store(tmp_path / "mlflow.db")
    assert said == []


def test_what_a_store_cannot_do_is_raised_and_not_logged_besides(tmp_path: Path, said: list[str]) -> None:
    client = client_of(tmp_path / "mlflow.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("alter table experiments rename to lost")
    with pytest.raises(MlflowException, match="no such table: experiments"):
        client.search_experiments()
    assert said == []
