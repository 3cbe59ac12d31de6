"""What goes to MLflow beyond what is always logged."""

from typing import Annotated, Literal

from pydantic import Field

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup


class MlflowParameters(ParameterGroup):
    """What a run leaves in MLflow on request. No result depends on it."""

    system_metrics: Annotated[Literal["auto"] | bool, UNRECORDED] = "auto"
    """Processor, memory, disk, network and GPU of this machine as metrics `system/...`, where psutil is installed (and
    nvidia-ml-py or pyrsmi, for GPUs). `auto`: of runs that last longer than two minutes."""
    registered_model: Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None, UNRECORDED] = (
        None
    )
    """Name of a registered model, of which the round with the lowest score becomes a version when a run ends well. The
    alias `best` is that of the lowest score on the same tasks; null: nothing is registered. Arms of a comparison
    register nothing."""
