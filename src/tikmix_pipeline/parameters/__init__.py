"""Typed parameters, one group per room. `RunParameters` is all that a run may be told.

Here belong the groups, the facets that they are made of, and views; of the package only `errors` may be imported.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, model_validator

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup
from tikmix_pipeline.parameters.baselines import BaselineParameters
from tikmix_pipeline.parameters.comparison import CompareParameters
from tikmix_pipeline.parameters.corpus import CorpusParameters, Name
from tikmix_pipeline.parameters.decision import (
    OptimizeParameters,
    ReweightParameters,
    TikmixParameters,
)
from tikmix_pipeline.parameters.measurement import InfluenceParameters
from tikmix_pipeline.parameters.remix import RemixParameters
from tikmix_pipeline.parameters.sweep import SweepParameters
from tikmix_pipeline.parameters.tracking import MlflowParameters
from tikmix_pipeline.parameters.training import EngineParameters, ModelParameters, TrainParameters
from tikmix_pipeline.parameters.validation import ValidateParameters


class RunParameters(ParameterGroup):
    """The top level of `parameters.yml`."""

    model_config = ConfigDict(serialize_by_alias=True)

    experiment: Name = "default"
    """Names the output folders."""
    seed: NonNegativeInt = 0
    """Decides initial weights, data order and sampled labels."""
    round: NonNegativeInt | None = None
    """The round a single stage acts on; default: the first in which the stage is still to be done."""
    tracking: Annotated[Literal["required", "optional"], UNRECORDED] = "required"
    """Whether a run may begin where its MLflow store cannot be used; `optional` goes on without, and says so."""
    mlflow: MlflowParameters = MlflowParameters()
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

    @model_validator(mode="after")
    def _anchor_without_tasks(self) -> "RunParameters":
        if self.influence.targets == "heldout" and self.optimize.anchor == "auto":
            # frozen for all but this: whatever reads the parameters is to find the one answer
            object.__setattr__(self, "optimize", self.optimize.model_copy(update={"anchor": "uniform"}))
        return self

    @model_validator(mode="after")
    def _settle_sweep(self) -> "RunParameters":
        sweep, is_second = self.sweep, self.optimize.method == "response"
        fits = sweep.response == "lookahead" and is_second and sweep.target == "each" and sweep.choose == "predicted"
        design = sweep.design
        if design == "auto":
            design = "sequential" if fits else "latin_hypercube"
        surrogate = sweep.surrogate
        if surrogate == "auto":
            surrogate = "response" if design == "sequential" else "xgboost"
        if not is_second and (design == "sequential" or surrogate == "response"):
            raise ValueError(
                "sweep.design=sequential and sweep.surrogate=response rest on gains of second order: set "
                "optimize.method=response"
            )
        if sweep.response != "table" and sweep.table.ratios and surrogate != "response":
            raise ValueError(
                f"sweep.table is read instead of measuring with sweep.response=table, or beside branches with "
                f"sweep.surrogate=response, and here they are {sweep.response} and {surrogate}: set one of them, or "
                "sweep.table.ratios=null and sweep.table.metrics=null"
            )
        object.__setattr__(self, "sweep", sweep.model_copy(update={"design": design, "surrogate": surrogate}))
        return self


__all__ = [
    "BaselineParameters",
    "CompareParameters",
    "CorpusParameters",
    "EngineParameters",
    "InfluenceParameters",
    "MlflowParameters",
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
