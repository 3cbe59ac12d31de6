"""Resume points of several processes: each writes its shard, any number of processes reads them.

Written by PyTorch's distributed checkpoint (DCP). Weights and optimiser state lie under their parameters' names, so
that another number of ranks, or one process alone, finds its part. DCP promises no compatibility between releases of
PyTorch, and its table of contents is a pickle: a resume point is for the run that wrote it, not for exchange.
"""

import warnings
from pathlib import Path

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, write_json
from tikmix_pipeline.lm.checkpoint import place_of, restore_place
from tikmix_pipeline.lm.resume import STATE, point_name, spread_points
from tikmix_pipeline.lm.trainer import TrainingState

_POINT = "step_*"


def save_point(state: TrainingState, folder: Path) -> Path:
    """Write the state of all ranks, if that was not done; each rank calls this. The points before are then removed."""
    point = folder / point_name(state.step)
    if (point / STATE).is_file():
        return point
    save(_weights(state) | _moments(state.optimizer.state_tensors()), checkpoint_id=point)
    if dist.get_rank() == 0:
        write_json(point / STATE, place_of(state))
        for other in folder.glob(_POINT):
            if other != point:
                remove(other)
    dist.barrier()
    return point


def clear_half_written(folder: Path) -> None:
    """Remove what ranks that died left behind; no other rank may be writing."""
    whole = set(spread_points(folder))
    for point in folder.glob(_POINT):
        if point not in whole:
            remove(point)


def load_point(state: TrainingState, point: Path) -> None:
    """Load a point into a state whose model is spread already, or is of one process.

    Raises:
        TikmixError: the point is damaged, or is of another model, optimiser or stream.
    """
    blank = state.optimizer.blank_state_tensors()
    found = _weights(state) | _moments(blank)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # that is what is meant
            load(found, checkpoint_id=point, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        reason = next((str(exception) for exception, _ in error.failures.values()), "no reason was given")
        raise TikmixError(
            f"The resume point {point} cannot be read ({reason}). Delete {point.parent} and run its round again."
        ) from error
    state.optimizer.load_state_tensors(blank, lambda value, _: value)
    restore_place(state, read_json(point / STATE))


def _weights(state: TrainingState) -> dict[str, Tensor]:
    return {f"model/{name}": value.detach() for name, value in state.model.named_parameters()}


def _moments(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"optimizer/{name}": value for name, value in tensors.items()}
