"""Where a model lies: here whole, on the one device of a process that is alone.

`sharding.RankMesh` is the same for one of several processes. This file imports nothing that only they need.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tikmix_pipeline.errors import TikmixError


@dataclass(frozen=True)
class Mesh:
    """The processes of `world` that work on one model, in copies of it that lie on as many ranks each.

    `shard` are those that share this process's copy of the model, and `replicate` is one rank of every copy: the rank
    in it is the number of this process's copy.
    """

    world: ProcessGroup = SINGLE_PROCESS
    shard: ProcessGroup = SINGLE_PROCESS
    replicate: ProcessGroup = SINGLE_PROCESS

    def device_for(self, device: str) -> torch.device:
        """Return where this process works, the named device or that of a rank, or raise a TikmixError."""
        return resolve_device(device)

    def place_for_training(self, model: nn.Module, blocks: Sequence[nn.Module], *, device: str, precision: str) -> None:
        """Put a model where it is trained, in place; the optimiser is made afterwards.

        `blocks` are sharded one by one, and `device` is where a process works that is alone. With a `precision` of
        `bfloat16` ranks cast weights and activations block by block.
        """
        del blocks, precision
        model.to(self.device_for(device))

    def place_for_measuring(self, model: nn.Module, blocks: Sequence[nn.Module], *, device: str) -> None:
        """Put this copy of a model, in place, where its gradients are taken; nothing is reduced between copies."""
        del blocks
        model.to(self.device_for(device))

    def autocast(self, device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
        """Return what a forward pass of training runs in, so that matrix products are in `precision`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        """Return the gradients of the sum of the losses of the ranks of a copy, in shards as the parameters are."""
        return torch.autograd.grad(loss, list(parameters), allow_unused=True)

    def add_gradients(self, loss: Tensor, sums: Mapping[nn.Parameter, Tensor]) -> None:
        """Add the gradient of the sum of the losses of the ranks of a copy to the sum of every parameter.

        Each is added and let go as soon as it is there; the parameters' `.grad` stays as it was.
        """
        before = {parameter: parameter.grad for parameter in sums}

        def add(parameter: Tensor) -> None:
            if parameter.grad is not None:
                sums[cast("nn.Parameter", parameter)].add_(parameter.grad)
                parameter.grad = None

        with contextlib.ExitStack() as stack:
            for parameter in sums:
                parameter.grad = None
                handle = parameter.register_post_accumulate_grad_hook(add)  # type: ignore[no-untyped-call]
                stack.callback(handle.remove)
            try:
                loss.backward()  # type: ignore[no-untyped-call]
            finally:
                for parameter, gradient in before.items():
                    parameter.grad = gradient

    def distribute(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return a copy of a full tensor: what of it goes with what this process has of a parameter."""
        return value.to(parameter.device, copy=True)

    def full_tensor(self, value: Tensor) -> Tensor:
        """Return a plain tensor for one that may lie in shards; all ranks that have one do this at a time."""
        return value

    def local_tensor(self, value: Tensor) -> tuple[Tensor, int]:
        """Return what this process has of a tensor, as a plain one, and where along axis 0 it begins."""
        return value, 0


SINGLE_MESH = Mesh()


def resolve_device(device: str) -> torch.device:
    """Turn `auto` into the GPU where there is one, else the CPU; raise a TikmixError if a named device is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise TikmixError(f"Device '{device}' cannot be used ({error}). Set the `device` parameter to auto.") from error
