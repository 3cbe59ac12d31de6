"""Which part of every step a process takes, and how its part becomes the whole: here the process is alone.

`ranks.team.RankTeam` is the same for one of several processes. This module imports nothing that only they need.
"""

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tikmix_pipeline.lm.blocks import prepare_blocks
from tikmix_pipeline.lm.model import resolve_device
from tikmix_pipeline.parameters import TrainParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Team:
    """One process that does everything itself."""

    rank: int = 0
    world_size: int = 1

    def spread(self, model: "PreTrainedModel", train: TrainParameters) -> None:
        """Put the model where it is trained, in place; the optimiser is made afterwards.

        Raises:
            TikmixError: the device is not there.
        """
        model.to(resolve_device(train.device))
        prepare_blocks(model, train)

    def place(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return a copy of a whole tensor, the part of it that goes with what this process has of a parameter."""
        return value.to(parameter.device, copy=True)

    def precision(self, device: torch.device, train: TrainParameters) -> contextlib.AbstractContextManager[object]:
        """Return what a forward pass runs in."""
        return torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bfloat16")

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes of a scalar that each has its part of."""
        return value

    def whole(self, value: Tensor) -> Tensor:
        """Return a plain tensor for one that may be spread over the processes."""
        return value


ALONE = Team()
