"""The store that a project has by default, a SQLite file: made whole or not at all.

MLflow makes its tables one after the other, for some seconds, and takes none of a file in which it was stopped halfway:
a run that is killed in its first seconds would leave a project whose runs all end there.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from tikmix_pipeline.files import remove, replacing
from tikmix_pipeline.session.locks import alone

# MLflow gives its own logger a level when it is imported, after Kedro has read conf/logging.yml
_CHATTY = ("mlflow.store.db.utils", "alembic")


def make_local_store(path: Path) -> None:
    """Make a project's own store, if it is not there.

    Raises:
        SQLAlchemyError, MlflowException, OSError: it cannot be made.
    """
    if _is_made(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_name(f"{path.name}.lock")):
        if _is_made(path):  # another run has done it meanwhile
            return
        for left in path.parent.glob(f".{path.name}.*.tmp*"):  # with a journal, that of a run that was killed here
            remove(left)
        with replacing(path) as temporary:
            _make(temporary)


def _is_made(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _make(path: Path) -> None:
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with without_chatter():
        store = SqlAlchemyStore(f"sqlite:///{path.as_posix()}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    store.engine.dispose()


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Have MLflow and Alembic say nothing of the tables that they make, nor of what fails, which is raised as well."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
