"""The identity: C = I, so that Group Influence is the plain dot product of mean gradients.

    f(C) g = g

There is no damping and no horizon: they would only rescale everything. Learning rate times `S[t, j]` is then the
first-order fall of task t's loss in one step of gradient descent on domain j.
"""

from collections.abc import Sequence

import torch
from torch import nn

from tikmix_pipeline.influence.curvature.eigenblock import EigenBlock
from tikmix_pipeline.influence.curvature.layers import chosen_parameters
from tikmix_pipeline.influence.curvature.layout import Layout
from tikmix_pipeline.parameters.measurement import Group


def identity_blocks(model: nn.Module, groups: Sequence[Group]) -> list[EigenBlock]:
    """Return one block per trainable parameter of the groups; its eigenvalues take no memory.

    Raises:
        TikmixError: there is no such parameter.
    """
    return [
        EigenBlock(Layout(name), "identity", torch.ones((), device=parameter.device).expand(parameter.shape))
        for name, parameter in chosen_parameters(model, groups).items()
    ]
