"""Resume points of several processes: each writes its shards, any number of processes reads them.

    step_00000150/             the tensors after so many steps, by PyTorch's distributed checkpoint (DCP)
    step_00000150/state.json   the rest, as JSON; written last, so that a point without it is unfinished

Tensors lie under their names, so that another number of ranks, or one process alone, finds its part. DCP promises no
compatibility between releases of PyTorch, and its table of contents is a pickle: a resume point is for the run that
wrote it, not for exchange.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, write_json

_STATE = "state.json"
_POINTS = "step_*"


def point_at(folder: Path, step: int) -> Path:
    """Return where the resume point after so many steps stands."""
    return folder / f"step_{step:08d}"


def is_point(path: Path) -> bool:
    """Tell whether a folder is a complete resume point of several processes."""
    return (path / _STATE).is_file()


def points_in(folder: Path) -> list[Path]:
    """Return the complete resume points in a folder, in the order of their steps."""
    return sorted(point for point in folder.glob(_POINTS) if is_point(point))


def save_point(point: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write the state of all ranks; each rank calls this. The points before are then removed.

    Args:
        point: where it goes (`point_at`).
        tensors: by name, in shards or whole.
        state: JSON-able values, the same on all ranks.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    save(dict(tensors), checkpoint_id=point)
    if dist.get_rank() == 0:
        write_json(point / _STATE, state)
        for other in point.parent.glob(_POINTS):
            if other != point:
                remove(other)
    dist.barrier()


def load_point(point: Path, tensors: Mapping[str, Tensor]) -> Any:
    """Load a point into tensors, in place, and return the rest of the state.

    Args:
        point: a complete one.
        tensors: room for all of its tensors, in shards or of one process.

    Raises:
        TikmixError: the point is damaged, or has other tensors.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # that is what is meant
            load(dict(tensors), checkpoint_id=point, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        reason = next((str(exception) for exception, _ in error.failures.values()), "no reason was given")
        raise TikmixError(
            f"The resume point {point} cannot be read ({reason}). Delete {point.parent} and run its round again."
        ) from error
    return read_json(point / _STATE)


def clear_unfinished(folder: Path) -> None:
    """Remove what ranks that died left behind; no other rank may be writing."""
    complete = set(points_in(folder))
    for point in folder.glob(_POINTS):
        if point not in complete:
            remove(point)
