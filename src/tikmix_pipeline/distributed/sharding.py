"""One of several processes that train one model: its rows of every batch, its shard of every parameter.

The model is sharded by FSDP2 on a (replicate, shard) mesh: `train.shard` ranks share one copy. With one rank per copy
that is plain data parallelism, with all ranks on one copy the memory for weights, gradients and optimiser falls with
their number. Gradients are summed and not averaged, each rank's loss being its part of the mean over the whole batch.

`train.precision=bfloat16` casts weights and activations of a block to bfloat16 and sums gradients in float32; weights
and optimiser stay in float32.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tikmix_pipeline.distributed.mesh import Team
from tikmix_pipeline.distributed.rank_group import RankExchange
from tikmix_pipeline.distributed.rendezvous import meet
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.workers import usable_cores
from tikmix_pipeline.lm.blocks import blocks_of, prepare_blocks
from tikmix_pipeline.lm.model import resolve_device
from tikmix_pipeline.parameters import TrainParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class RankTeam(Team):
    """This process among `world_size`."""

    rank: int
    world_size: int
    device: torch.device

    def spread(self, model: "PreTrainedModel", train: TrainParameters) -> None:
        """Shard the model in place: every block by itself, and what is left around them."""
        prepare_blocks(model, train)
        mesh = _mesh(train, self.world_size, self.device)
        shard_model(model, mesh, torch.bfloat16 if train.precision == "bfloat16" else None)

    def place(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return what goes with this rank's shard of the parameter; every rank has the whole, so nothing is sent."""
        if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
            return value.to(self.device, copy=True)
        whole = value.to(self.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None).clone()

    def precision(self, device: torch.device, train: TrainParameters) -> contextlib.AbstractContextManager[object]:
        """Return nothing to run in: the blocks cast for themselves."""
        del device, train
        return contextlib.nullcontext()

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a scalar over the ranks, the same on all of them."""
        return RankExchange().total(value)

    def whole(self, value: Tensor) -> Tensor:
        """Return the whole of a tensor that lies in shards."""
        return whole_tensor(value)


def whole_tensor(value: Tensor) -> Tensor:
    """Return a plain tensor for one that may lie in shards; all ranks that have one do this at a time."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def shard_model(model: "PreTrainedModel", mesh: DeviceMesh, low: torch.dtype | None = None) -> None:
    """Shard a model in place over a mesh, block by block; gradients are summed over it.

    Args:
        model: on any device; ends up on that of the mesh.
        mesh: its last dimension shares a copy, one before it holds copies.
        low: the precision that blocks compute in, if another than their weights'.
    """
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32 if low else None)
    for module in [*blocks_of(model), model]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # else the factor is applied in a way that gloo lacks


@contextlib.contextmanager
def joined(train: TrainParameters) -> Iterator[RankTeam]:
    """Join the other ranks, as the launcher's environment variables say, and leave them at the end.

    Raises:
        TikmixError: the machine has no device for this rank, or there are other than `train.world_size` ranks.
    """
    local_rank = int(os.environ["LOCAL_RANK"])
    device = rank_device(train.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, usable_cores() // int(os.environ["LOCAL_WORLD_SIZE"])))
    # small things, such as what a checkpoint holds, are exchanged on the CPU whatever the tensors do
    meet("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if dist.get_world_size() != train.world_size:
        raise TikmixError(
            f"train.world_size is {train.world_size}, but {dist.get_world_size()} ranks were started. Make --nnodes "
            "times --nproc-per-node equal to it, in the command of train.launch as well."
        )
    yield RankTeam(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)
    # only where nothing went wrong: a rank that fails must not wait for the others
    dist.destroy_process_group()


def rank_device(device: str, local_rank: int) -> torch.device:
    """Give every rank of a machine a GPU of its own, or the CPU.

    Raises:
        TikmixError: there are fewer GPUs than ranks on this machine, or the device is not there.
    """
    resolved = resolve_device(device)
    if resolved.type != "cuda":
        return resolved
    if local_rank >= torch.cuda.device_count():
        raise TikmixError(
            f"train.world_size: this machine has {torch.cuda.device_count()} GPUs, and rank {local_rank} of it would "
            "need one of its own. Start fewer ranks, or set train.device=cpu."
        )
    return torch.device("cuda", local_rank)


def _mesh(train: TrainParameters, world_size: int, device: torch.device) -> DeviceMesh:
    shard = train.shard or world_size
    return init_device_mesh(device.type, (world_size // shard, shard), mesh_dim_names=("replicate", "shard"))
