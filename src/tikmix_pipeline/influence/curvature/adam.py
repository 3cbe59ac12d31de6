"""Adam's preconditioner as curvature: C = diag(√v̂ + ε), with the bias-corrected second moment v̂ = v / (1 − β₂ˢ).

v is the optimiser's running mean of squared gradients (of the mean loss per token of a training batch, after clipping)
at step s. √v̂ has the unit of a gradient, not of a Fisher: `S[t, j]` is, per unit of learning rate, the first-order
fall of task t's loss in one Adam step along domain j's gradient with v̂ and without momentum. Its scale is therefore
not that of `kfac`; only comparisons between domains carry over. Each parameter tensor is a block, and a relative λ is
relative to the mean of C over that tensor.

The functions of the spectrum apply to μ = √v̂ + ε as to any other: `damped` is Adam with λ for its ε, and `horizon` a
smoother way from gradient descent with step 1/λ, where √v̂ ≪ λ, to Adam's step, where √v̂ ≫ λ. It is not the solution
of a flow, since √v̂ is no second derivative, and neither is λ a time: with `damping_unit=horizon` λ is an inverse
learning rate compared with a gradient. A relative λ needs no unit.

Cost: nothing, the optimiser has paid for it. It exists only where the checkpoint comes with its optimiser.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.process_group import ProcessGroup
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.layers import Layout, chosen_parameters, list_names, parameters_for
from tikmix_pipeline.influence.gradients import sum_dtype
from tikmix_pipeline.parameters.measurement import Group
from tikmix_pipeline.parameters.training import SecondMomentParameters


def adam_blocks(
    model: nn.Module,
    groups: Sequence[Group],
    state: Mapping[str, Tensor],
    train: SecondMomentParameters,
    device: torch.device,
    process_group: ProcessGroup,
) -> list[EigenBlock]:
    """Read the curvature off the optimiser's state.

    Args:
        model: the checkpoint.
        groups: which parameters take part.
        state: the optimiser's state at the same checkpoint, as tensors named `<parameter>/<entry>`
            (`Checkpoint.optimizer_tensors`); the entries `exp_avg_sq` and `step` are read.
        train: β₂ and ε of the optimiser.
        device: where the blocks are to lie.
        process_group: the processes that share the parameters out.

    Raises:
        TikmixError: a parameter that takes part has no second moment, as after training by Muon or without the state.
    """
    if not state:
        raise TikmixError(
            "influence.curvature=adam needs the optimiser's state, and this checkpoint comes without one. "
            "Use influence.curvature=kfac."
        )
    parameters = chosen_parameters(model, groups)
    missing = [name for name in parameters if f"{name}/exp_avg_sq" not in state]
    if missing:
        raise TikmixError(
            f"influence.curvature=adam needs the AdamW state of every parameter, but there is none for "
            f"{list_names(missing)}. Use influence.curvature=kfac, or train with train.optimizer=adamw first."
        )
    return [
        EigenBlock(Layout(name), "adam", step_divisors(state, name, train, device, sum_dtype(parameter)))
        for name, parameter in parameters_for(process_group, parameters).items()
    ]


def step_divisors(
    state: Mapping[str, Tensor], name: str, train: SecondMomentParameters, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return √v̂ + ε of one parameter, what AdamW divides its steps by."""
    correction = 1 - train.beta2 ** float(state[f"{name}/step"])
    second = state[f"{name}/exp_avg_sq"].to(device, dtype)
    return torch.sqrt(second / correction) + train.epsilon
