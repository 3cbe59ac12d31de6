"""The MLflow store of a run: where it stands, whether it answers, and the place in it that the environment names.

MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and MLFLOW_EXPERIMENT_ID mean what they mean to MLflow. The run that
MLFLOW_RUN_ID names becomes the parent of this one, since two runs cannot log other parameters to one.
"""

import contextlib
import os
import queue
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.session.tracking.local_store import make_local_store, without_chatter
from tikmix_pipeline.signals import signals_deferred

PARENT_RUN = "TIKMIX_PARENT_RUN"
"""The variable of the environment that tells an arm of a comparison whose child its run is."""

_EXPERIMENT = "tikmix"
_SECONDS = 8  # for an answer, so that a run without its store ends within ten
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_SECONDS)}
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class StoreError(Exception):
    """The store did not do what it was asked; the message is that of the first error."""


class StoreClient:
    """An `MlflowClient` that raises nothing but `StoreError`.

    A signal that ends the run is answered after a call to a SQLite store: within, it would leave a transaction open,
    and so the store locked against the very calls that close the run.
    """

    def __init__(self, client: Any, uri: str) -> None:
        self._client = client
        self._is_file = uri.startswith("sqlite:")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        # artifacts are copied outside any transaction, and may be large
        is_brief = self._is_file and not name.startswith(("log_artifact", "log_model_artifacts"))

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                with signals_deferred() if is_brief else contextlib.nullcontext():
                    return method(*args, **kwargs)
            except Exception as error:
                problem = getattr(error, "message", None) or str(error) or type(error).__name__
                raise StoreError(_without_password(problem)) from error

        return guarded


@dataclass(frozen=True)
class Store:
    """A store that answers, the experiment that runs go to, and the run whose child the next one is."""

    client: Any
    uri: str
    experiment_id: str
    parent_id: str | None


def open_store(root: Path) -> Store:
    """Open the store that the environment names, or `mlflow.db` in the project's folder.

    Raises:
        TikmixError: it does not answer within seconds or is damaged, or the environment names an experiment or a run
            that is not there.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
    uri = elsewhere or f"sqlite:///{root.as_posix()}/mlflow.db"
    try:
        with _impatient():
            if not elsewhere:
                make_local_store(root / "mlflow.db")
            _require_within_reach(uri)
            client = StoreClient(mlflow.MlflowClient(uri), uri)
            with without_chatter():  # an older store is brought up to date
                client.search_experiments(max_results=1)
            parent_id, of_parent = _parent(client)
            location = None if elsewhere else (root / "mlartifacts").as_uri()
            return Store(client, uri, _experiment(client, of_parent, location), parent_id)
    except (StoreError, MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        advice = (
            "Move mlflow.db away if it is damaged, see that this folder can be written to, or set MLFLOW_TRACKING_URI "
            "to a store that works"
        )
        if elsewhere:
            advice = (
                "See that it runs and that MLFLOW_TRACKING_URI is its address (a slow one gets longer by "
                "MLFLOW_HTTP_REQUEST_TIMEOUT), or unset that for mlflow.db in this folder"
            )
        place = _without_password(f"{uri} ({str(getattr(error, 'message', error))[:400]})")
        raise TikmixError(
            f"The MLflow store cannot be used: {place}. {advice}. tracking=optional goes on without."
        ) from error


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//...@", text)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Have MLflow give up soon, which tries for minutes by itself; what the user has set stays."""
    added = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _require_within_reach(uri: str) -> None:
    """Raise the error of a server without an address or of a database that cannot be opened.

    MLflow would try the database again for an hour, and a name server may take minutes to say that it knows none.
    """
    from sqlalchemy.engine import make_url

    kind = uri.partition(":")[0].partition("+")[0]
    if kind in {"http", "https"} and (host := urlsplit(uri).hostname):
        _require_address(host)
    if kind not in {"sqlite", *_PORTS}:
        return
    url = make_url(uri)
    if kind == "sqlite" and url.database:
        file = Path(url.database)
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA schema_version")
        if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
            raise PermissionError("the file or its folder cannot be written to")
    elif kind != "sqlite" and url.host:
        _require_address(url.host)
        socket.create_connection((url.host, url.port or _PORTS[kind]), timeout=_SECONDS).close()


def _require_address(host: str) -> None:
    """Raise the error of a name that has no address, or none within seconds: the system's own limit cannot be set."""
    answers: queue.Queue[OSError | None] = queue.Queue()

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
            answers.put(None)
        except OSError as error:
            answers.put(error)

    threading.Thread(target=look_up, name="look up the MLflow server", daemon=True).start()
    try:
        error = answers.get(timeout=_SECONDS)
    except queue.Empty:
        error = TimeoutError(f"no name server tells the address of {host} within {_SECONDS} s")
    if error is not None:
        raise error


def _parent(client: StoreClient) -> tuple[str | None, str | None]:
    """Return the run whose child the next one is, and its experiment where the environment says no other."""
    named = os.environ.get(PARENT_RUN) or os.environ.get("MLFLOW_RUN_ID")
    if not named:
        return None, None
    try:
        return named, str(client.get_run(named).info.experiment_id)
    except StoreError as error:
        raise TikmixError(
            f"MLFLOW_RUN_ID={named} is no run of the MLflow store ({error}). Unset it, or name a run that this one is "
            "to be a child of."
        ) from error


def _experiment(client: StoreClient, of_parent: str | None, location: str | None) -> str:
    """Return the id of the experiment that the environment names, or else of the parent's, or of our own."""
    name, number = os.environ.get("MLFLOW_EXPERIMENT_NAME"), os.environ.get("MLFLOW_EXPERIMENT_ID")
    number = number or (None if name else of_parent)
    if not number:
        found = _experiment_named(client, name or _EXPERIMENT, location)
    else:
        try:
            found = client.get_experiment(number)
        except StoreError as error:
            raise TikmixError(
                f"MLFLOW_EXPERIMENT_ID={number} is no experiment of the MLflow store ({error}). Unset it, or name one "
                "by MLFLOW_EXPERIMENT_NAME, which is made if need be."
            ) from error
    if name and found.name != name:
        raise TikmixError(
            f"MLFLOW_EXPERIMENT_ID={number} is the experiment '{found.name}', and MLFLOW_EXPERIMENT_NAME is '{name}': "
            "unset one of them."
        )
    if found.lifecycle_stage != "active":
        raise TikmixError(
            f"The experiment '{found.name}' of the MLflow store was deleted: `mlflow experiments restore -x "
            f"{found.experiment_id}` brings it back, MLFLOW_EXPERIMENT_NAME names another."
        )
    return str(found.experiment_id)


def _experiment_named(client: StoreClient, name: str, location: str | None) -> Any:
    found = client.get_experiment_by_name(name)
    if found is None:
        # opens MLflow's pages in the view for training runs
        tags = {"mlflow.experimentKind": "custom_model_development"}
        with contextlib.suppress(StoreError):  # another run made it in between
            return client.get_experiment(client.create_experiment(name, artifact_location=location, tags=tags))
        found = client.get_experiment_by_name(name)
        if found is None:
            raise StoreError(f"there is no experiment '{name}', and none can be made")
    return found
