"""`engine`: where the many independent jobs run: branches, proxies, and the arms of a comparison."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup


def _require_shares_or_wholes(amount: float) -> float:
    if amount > 1 and amount != int(amount):
        raise ValueError(f"{amount:g}: a job takes a share of one, as 0.5, or a whole number of them")
    return amount


Amount = Annotated[float, AfterValidator(_require_shares_or_wholes)]


class EngineParameters(ParameterGroup):
    """Where jobs run that need nothing of each other. No result depends on it."""

    kind: Annotated[Literal["local", "ray"], UNRECORDED] = "local"
    """`local` is a pool of processes on this machine; `ray` a Ray cluster (`pip install 'tikmix-pipeline[ray]'`)."""
    address: Annotated[str | None, UNRECORDED] = None
    """Ray: `null` starts a cluster on this machine for as long as it is needed; `auto`, `host:port` and
    `ray://host:port` join one whose nodes all see the project's folder under the same path."""
    cpus_per_job: Annotated[Amount, Field(gt=0), UNRECORDED] = 1.0
    """Ray: cores that a job is given. A branch or arm on a CPU has one thread."""
    gpus_per_job: Annotated[Annotated[Amount, Field(ge=0)] | Literal["auto"], UNRECORDED] = "auto"
    """Ray: GPUs that a job is given, as 0.25 for four jobs on each. `auto`: one where this process would train on one,
    none elsewhere."""
    retries: Annotated[NonNegativeInt, UNRECORDED] = 3
    """Ray: times that a job is begun again when its process or its node is lost."""
