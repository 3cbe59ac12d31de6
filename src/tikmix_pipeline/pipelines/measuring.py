"""What the nodes that measure gradients have in common: the code these depend on, and the curvature they meet."""

from typing import Any

from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, TrainParameters
from tikmix_pipeline.pipelines.types import Checkpoint, Factors
from tikmix_pipeline.store.code import code_of


def measuring_code(model: ModelParameters, influence: InfluenceParameters) -> str:
    """Return what a part's gradient depends on besides weights and text: code, libraries, kernel and precision."""
    code = code_of(_measure_a_part)
    return f"{code.digest} {sorted(code.libraries.items())} {model.attention} {influence.precision}"


def _measure_a_part() -> Any:
    """Stand for what a part's gradient depends on besides the model and the text; never called, only read."""
    from tikmix_pipeline.influence.gradients import mean_gradient
    from tikmix_pipeline.lm.model import load_model

    return mean_gradient, load_model


def curvature_at(
    checkpoint: Checkpoint,
    model: Any,
    train: TrainParameters,
    influence: InfluenceParameters,
    factors: Factors | None,
    horizon: float,
    device: Any = None,
) -> Any:
    """Return the curvature that `influence` asks for, at a checkpoint with this model, or an outline and a device."""
    from tikmix_pipeline.influence.curvature.build import build_curvature

    return build_curvature(
        influence,
        model,
        factors=factors,
        optimizer_state=checkpoint.optimizer_tensors() if influence.needs_optimizer else {},
        train=train,
        horizon=horizon,
        device=device,
    )
