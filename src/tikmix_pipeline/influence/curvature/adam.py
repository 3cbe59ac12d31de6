"""Adam's preconditioner as curvature: C = diag(√v̂ + ε), with the bias-corrected second moment v̂ = v / (1 − β₂ˢ).

v is the optimiser's running mean of squared gradients (of the mean loss per token of a training batch, after clipping)
at step s. √v̂ has the unit of a gradient, not of a Fisher: `S[t, j]` is, per unit of learning rate, the first-order
fall of task t's loss in one Adam step along domain j's gradient with v̂ and without momentum. Its scale is therefore
not that of `kfac`; only comparisons between domains carry over. Each parameter tensor is a block, and λ is relative to
the mean of C over that tensor.

Cost: nothing, the optimiser has paid for it. It exists only where the checkpoint comes with its optimiser.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenblock import BlockDiagonalCurvature, EigenBlock, Layout
from tikmix_pipeline.influence.curvature.report import list_names
from tikmix_pipeline.influence.gradients import trainable_parameters


def fit_adam(
    model: nn.Module, state: Mapping[str, Tensor], *, beta2: float, epsilon: float, damping: float
) -> BlockDiagonalCurvature:
    """Read the curvature off the optimiser's state.

    Args:
        model: the checkpoint.
        state: the optimiser's state at the same checkpoint, as tensors named `<parameter>/<entry>`
            (`Checkpoint.optimizer_tensors`); the entries `exp_avg_sq` and `step` are read.
        beta2: β₂ of the optimiser.
        epsilon: ε of the optimiser.
        damping: λ as a multiple of the mean of C over each parameter tensor.

    Raises:
        TikmixError: a trainable parameter has no second moment, as after training by Muon or without the state.
    """
    parameters = trainable_parameters(model)
    missing = [name for name in parameters if f"{name}/exp_avg_sq" not in state]
    if missing:
        raise TikmixError(
            f"influence.curvature=adam needs the AdamW state of every parameter, but there is none for "
            f"{list_names(missing)}. Use influence.curvature=kfac, or train with train.optimizer=adamw first."
        )
    blocks = []
    for name, parameter in parameters.items():
        correction = 1 - beta2 ** float(state[f"{name}/step"])
        root = torch.sqrt(state[f"{name}/exp_avg_sq"].to(parameter) / correction)
        blocks.append(EigenBlock(Layout(name), "adam", root + epsilon))
    return BlockDiagonalCurvature("adam", blocks, damping=damping)
