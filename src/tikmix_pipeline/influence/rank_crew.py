"""One of several processes that measure together: its copy of the model, its sequences, its shards.

`train.shard` ranks hold one copy of the model, spread by FSDP2; with one rank a copy is a plain model. Nothing is
reduced between copies: each measures parts of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from tikmix_pipeline.distributed.mesh import Team
from tikmix_pipeline.distributed.process_group import ALONE
from tikmix_pipeline.distributed.rank_group import RankExchange
from tikmix_pipeline.distributed.sharding import RankTeam, shard_model, whole_tensor
from tikmix_pipeline.influence.crew import Crew
from tikmix_pipeline.parameters import TrainParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class RankCrew(Crew, Team):
    """This rank among those that measure; as a team, how its copy of the model is spread."""

    device: torch.device
    mesh: DeviceMesh

    def spread(self, model: "PreTrainedModel", train: TrainParameters) -> None:
        """Put this copy of the model, in place, on the ranks that hold it."""
        del train
        if self.copy.count > 1:
            shard_model(model, self.mesh)
        else:
            model.to(self.device)

    def gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        """Return the gradients of the sum over the copy's ranks of their losses, in shards."""
        if self.copy.count == 1:
            return super().gradients(loss, parameters)
        # a model in shards has gradients by `backward` alone
        loss.backward()  # type: ignore[no-untyped-call]
        found = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        return found

    def whole(self, value: Tensor) -> Tensor:
        """Return the whole of a tensor that lies in shards; all ranks of the copy do this at a time."""
        return whole_tensor(value)

    def shard(self, value: Tensor) -> tuple[Tensor, int]:
        """Return this rank's shard of a tensor, and where along axis 0 it begins."""
        if not isinstance(value, DTensor):
            return value, 0
        rows = -(-value.shape[0] // self.copy.count)
        return value.to_local(), min(self.copy.rank * rows, value.shape[0])


def crew_of(team: RankTeam, train: TrainParameters) -> RankCrew:
    """Form the crew of all ranks, in copies of `train.shard` ranks."""
    shard = train.shard or team.world_size
    mesh = init_device_mesh(team.device.type, (team.world_size // shard, shard), mesh_dim_names=("copy", "shard"))
    return RankCrew(
        everyone=RankExchange(),
        copy=RankExchange(mesh["shard"].get_group()) if shard > 1 else ALONE,
        number=team.rank // shard,
        copies=team.world_size // shard,
        device=team.device,
        mesh=mesh["shard"],
    )
