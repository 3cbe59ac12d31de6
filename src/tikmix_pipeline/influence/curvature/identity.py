"""The identity: C = I, so that Group Influence is the plain dot product of mean gradients.

    f(C) g = g

There is no damping and no horizon: they would only rescale everything. Learning rate times `S[t, j]` is then the
first-order fall of task t's loss in one step of gradient descent on domain j.
"""

from collections.abc import Sequence

import torch
from torch import nn

from tikmix_pipeline.distributed.process_group import ProcessGroup
from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.layers import chosen_parameters, parameters_for
from tikmix_pipeline.influence.curvature.layout import Layout
from tikmix_pipeline.parameters.measurement import Group


def identity_blocks(
    model: nn.Module, groups: Sequence[Group], device: torch.device, process_group: ProcessGroup
) -> list[EigenBlock]:
    """Return one block per trainable parameter of the groups; its eigenvalues take no memory.

    Args:
        model: the checkpoint.
        groups: which parameters take part.
        device: where the blocks are to lie.
        process_group: the processes that share the parameters out.

    Raises:
        TikmixError: there is no such parameter.
    """
    return [
        EigenBlock(Layout(name), "identity", torch.ones((), device=device).expand(parameter.shape))
        for name, parameter in parameters_for(process_group, chosen_parameters(model, groups)).items()
    ]
