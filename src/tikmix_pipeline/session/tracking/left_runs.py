"""Runs that SIGKILL or a power cut left RUNNING in the store: closed by the next run of the same experiment.

The lock of the experiment is held by then, so none of them is at work. They are told by the experiment's name and by a
tag for the place of the project, since a store may serve many projects with experiments of one name.
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
