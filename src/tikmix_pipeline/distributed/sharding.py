"""One rank of several: which copy of the model it works on, and its shard of every parameter (FSDP2).

The device mesh is (replicate, shard): `train.shard` ranks share one copy. With one rank per copy that is plain data
parallelism; with all ranks on one copy the memory for weights, gradients and optimiser falls with their number. In
training gradients are summed over all ranks and not averaged, each rank's loss being its part of the mean over the
whole batch. A measurement reduces nothing between copies: each takes gradients of its own.

`train.precision=bfloat16` casts weights and activations of a block to bfloat16 and sums gradients in float32; weights
and optimiser stay in float32.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tikmix_pipeline.distributed.mesh import Mesh, resolve_device
from tikmix_pipeline.distributed.process_group import ProcessGroup
from tikmix_pipeline.distributed.rendezvous import init_process_group
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.jobs.worker_pool import usable_cores
from tikmix_pipeline.parameters.training import ProcessParameters


@dataclass(frozen=True, kw_only=True)
class RankMesh(Mesh):
    """This rank's place among all; the device mesh of all ranks has the dimensions `replicate` and `shard`."""

    device: torch.device
    device_mesh: DeviceMesh

    def device_for(self, device: str) -> torch.device:
        """Return the device of this rank."""
        del device
        return self.device

    def place_for_training(self, model: nn.Module, blocks: Sequence[nn.Module], *, device: str, precision: str) -> None:
        """Shard the model in place: every block by itself, and what is left around them."""
        del device
        _shard(model, blocks, self.device_mesh, torch.bfloat16 if precision == "bfloat16" else None)

    def place_for_measuring(self, model: nn.Module, blocks: Sequence[nn.Module], *, device: str) -> None:
        """Put this copy of the model, in place, on the ranks that hold it."""
        del device
        if self.shard.world_size > 1:
            _shard(model, blocks, self.device_mesh["shard"])
        else:
            model.to(self.device)

    def autocast(self, device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
        """Return nothing to run in: the blocks cast for themselves."""
        del device, precision
        return contextlib.nullcontext()

    def gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        """Return the gradients of the sum of the losses of the ranks of a copy, in shards."""
        if self.shard.world_size == 1:
            return super().gradients(loss, parameters)
        # a model in shards has gradients by `backward` alone
        loss.backward()  # type: ignore[no-untyped-call]
        found = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        return found

    def add_gradients(self, loss: Tensor, sums: Mapping[nn.Parameter, Tensor]) -> None:
        """Add the gradient of the sum of the losses of the ranks of a copy to every sum, in shards."""
        if self.shard.world_size == 1:
            super().add_gradients(loss, sums)
            return
        for total, gradient in zip(sums.values(), self.gradients(loss, list(sums)), strict=True):
            if gradient is not None:
                total.add_(gradient)

    def distribute(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return what goes with this rank's shard of the parameter; every rank has the whole, so nothing is sent."""
        if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
            return value.to(self.device, copy=True)
        whole = value.to(self.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None).clone()

    def full_tensor(self, value: Tensor) -> Tensor:
        """Return a plain tensor for one that may lie in shards; all ranks that have one do this at a time."""
        return value.full_tensor() if isinstance(value, DTensor) else value

    def local_tensor(self, value: Tensor) -> tuple[Tensor, int]:
        """Return this rank's shard of a tensor, and where along axis 0 it begins."""
        if not isinstance(value, DTensor):
            return value, 0
        rows = -(-value.shape[0] // self.shard.world_size)
        return value.to_local(), min(self.shard.rank * rows, value.shape[0])


def _shard(
    model: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh, compute_dtype: torch.dtype | None = None
) -> None:
    """Shard a model in place over a mesh, block by block; its gradients are then summed over it."""
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32 if compute_dtype else None)
    for module in [*blocks, model]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # else the factor is applied in a way that gloo lacks


@contextlib.contextmanager
def joined(processes: ProcessParameters) -> Iterator[RankMesh]:
    """Join the other ranks, as the launcher's environment variables say, and leave them at the end.

    Raises:
        TikmixError: the machine has no device for this rank, or there are other than `train.world_size` ranks.
    """
    local_rank = int(os.environ["LOCAL_RANK"])
    device = rank_device(processes.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, usable_cores() // int(os.environ["LOCAL_WORLD_SIZE"])))
    # small things, such as what a checkpoint holds, are exchanged on the CPU whatever the tensors do
    init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    world_size = dist.get_world_size()
    if world_size != processes.world_size:
        raise TikmixError(
            f"train.world_size is {processes.world_size}, but {world_size} ranks were started. Make --nnodes "
            "times --nproc-per-node equal to it, in the command of train.launch as well."
        )
    yield rank_mesh(device, processes.shard or world_size)
    # only where nothing went wrong: a rank that fails must not wait for the others
    dist.destroy_process_group()


def rank_mesh(device: torch.device, shard: int) -> RankMesh:
    """Form the mesh of all ranks, in copies of `shard` ranks."""
    world_size = dist.get_world_size()
    mesh = init_device_mesh(device.type, (world_size // shard, shard), mesh_dim_names=("replicate", "shard"))
    replicate, shared = (ProcessGroup.of_ranks(mesh[name].get_group()) for name in ("replicate", "shard"))
    return RankMesh(world=ProcessGroup.of_ranks(), replicate=replicate, shard=shared, device=device, device_mesh=mesh)


def rank_device(device: str, local_rank: int) -> torch.device:
    """Give every rank of a machine a GPU of its own, or the CPU; raise a TikmixError if there are too few."""
    resolved = resolve_device(device)
    if resolved.type != "cuda":
        return resolved
    if local_rank >= torch.cuda.device_count():
        raise TikmixError(
            f"train.world_size: this machine has {torch.cuda.device_count()} GPUs, and rank {local_rank} of it would "
            "need one of its own. Start fewer ranks, or set train.device=cpu."
        )
    return torch.device("cuda", local_rank)
