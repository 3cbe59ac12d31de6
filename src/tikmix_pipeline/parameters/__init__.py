"""Typed parameters, one group per room. `RunParameters` is all that a run may be told.

Here belong the groups, the facets that they are made of, and views; of the package only `errors` may be imported.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, NonNegativeInt, model_validator

from tikmix_pipeline.parameters.base import ParameterGroup
from tikmix_pipeline.parameters.baselines import BaselineParameters
from tikmix_pipeline.parameters.comparison import CompareParameters
from tikmix_pipeline.parameters.corpus import CorpusParameters
from tikmix_pipeline.parameters.decision import (
    OptimizeParameters,
    RemixParameters,
    ReweightParameters,
    TikmixParameters,
)
from tikmix_pipeline.parameters.measurement import InfluenceParameters
from tikmix_pipeline.parameters.sweep import SweepParameters
from tikmix_pipeline.parameters.training import EngineParameters, ModelParameters, TrainParameters
from tikmix_pipeline.parameters.validation import ValidateParameters


class RunParameters(ParameterGroup):
    """The top level of `parameters.yml`."""

    model_config = ConfigDict(serialize_by_alias=True)

    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "default"
    """Names the output folders."""
    seed: NonNegativeInt = 0
    """Decides initial weights, data order and sampled labels."""
    round: NonNegativeInt | None = None
    """The round a single stage acts on; default: the first in which the stage is still to be done."""
    corpus: CorpusParameters
    model: ModelParameters = ModelParameters()
    train: TrainParameters = TrainParameters()
    influence: InfluenceParameters = InfluenceParameters()
    optimize: OptimizeParameters = OptimizeParameters()
    sweep: SweepParameters = SweepParameters()
    reweight: ReweightParameters = ReweightParameters()
    tikmix: TikmixParameters = TikmixParameters()
    baselines: BaselineParameters = BaselineParameters()
    remix: RemixParameters = RemixParameters()
    compare: CompareParameters = CompareParameters()
    engine: EngineParameters = EngineParameters()
    # the group is called `validate`, which is a method of every pydantic model
    validation: ValidateParameters = Field(default=ValidateParameters(), alias="validate")

    @model_validator(mode="after")
    def _require_a_response_of_the_round(self) -> "RunParameters":
        if self.tikmix.strategy == "surrogate" and self.sweep.response == "table":
            raise ValueError(
                "tikmix.strategy=surrogate measures its own candidates: sweep.response=table is not of a round"
            )
        return self


__all__ = [
    "BaselineParameters",
    "CompareParameters",
    "CorpusParameters",
    "EngineParameters",
    "InfluenceParameters",
    "ModelParameters",
    "OptimizeParameters",
    "ParameterGroup",
    "RemixParameters",
    "ReweightParameters",
    "RunParameters",
    "SweepParameters",
    "TikmixParameters",
    "TrainParameters",
    "ValidateParameters",
]
