"""Runs that are RUNNING in the store though nothing works on them, and how they are closed.

SIGKILL and power cuts leave some, which the next run of the same experiment closes; a signal may come between the
creation of a run and its name here, so a run that is ended closes what it has left itself. The lock of the experiment
is held then, so none of them is at work. They are told by the experiment's name and by a tag for the place of the
project, since a store may serve many projects with experiments of one name.
"""

import contextlib
import hashlib
import socket
from pathlib import Path
from typing import Any

from tikmix_pipeline.session.tracking.store import StoreError

PLACE = "project_place"
_PLACE_LENGTH = 16


def place_of(root: Path) -> str:
    """Return a short name of the place of a project: the host and the folder."""
    return hashlib.sha256(f"{socket.gethostname()} {root.resolve()}".encode()).hexdigest()[:_PLACE_LENGTH]


def close_left_runs(client: Any, experiment_id: str, name: str, place: str) -> None:
    """Close the runs of an experiment, rounds included, that nothing has closed; a store that refuses keeps them.

    Args:
        client: of the store.
        experiment_id: MLflow's, where runs go.
        name: of the experiment whose lock is held; letters, digits and `._-`.
        place: what `place_of` returned.
    """
    wanted = f"attributes.status = 'RUNNING' and tags.experiment = '{name}' and tags.{PLACE} = '{place}'"
    with contextlib.suppress(StoreError):
        for left in client.search_runs([experiment_id], wanted):
            client.set_terminated(left.info.run_id, "KILLED")
