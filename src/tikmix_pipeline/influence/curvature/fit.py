"""The curvature that the parameters ask for."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.adam import fit_adam
from tikmix_pipeline.influence.curvature.identity import IdentityCurvature
from tikmix_pipeline.influence.curvature.kfac import fit_kfac
from tikmix_pipeline.influence.curvature.report import Curvature
from tikmix_pipeline.parameters.measurement import InfluenceParameters
from tikmix_pipeline.parameters.training import TrainParameters


def fit_curvature(
    parameters: InfluenceParameters,
    model: nn.Module,
    *,
    batches: Sequence[TokenBatch],
    optimizer_state: Mapping[str, Tensor],
    train: TrainParameters,
    seed: int,
) -> Curvature:
    """Fit `influence.curvature` at a checkpoint.

    Args:
        parameters: names the curvature and its damping.
        model: the checkpoint.
        batches: windows of text spread evenly over domains; read by `kfac` only.
        optimizer_state: `Checkpoint.optimizer_tensors()`, empty for a checkpoint without; read by `adam` only.
        train: β₂ and ε of that optimiser.
        seed: decides the labels that `kfac` samples.

    Raises:
        TikmixError: `adam` without the optimiser's state, or what the curvature itself refuses.
    """
    if parameters.curvature == "identity":
        return IdentityCurvature(model)
    if parameters.curvature == "adam":
        if not optimizer_state:
            raise TikmixError(
                "influence.curvature=adam needs the optimiser's state, and this checkpoint comes without one. "
                "Use influence.curvature=kfac."
            )
        return fit_adam(model, optimizer_state, beta2=train.beta2, epsilon=train.epsilon, damping=parameters.damping)
    return fit_kfac(model, batches, damping=parameters.damping, seed=seed)
