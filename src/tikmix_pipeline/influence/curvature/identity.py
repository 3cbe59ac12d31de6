"""The identity: C = I, so that Group Influence is the plain dot product of mean gradients.

    (C + λI)⁻¹ g = g

There is no damping: it would only rescale everything. Learning rate times `S[t, j]` is then the first-order fall of
task t's loss in one step of gradient descent on domain j.
"""

from torch import nn

from tikmix_pipeline.influence.curvature.report import BlockReport, CurvatureReport
from tikmix_pipeline.influence.gradients import Gradient, trainable_parameters


class IdentityCurvature:
    """C = I over the trainable parameters of a model."""

    def __init__(self, model: nn.Module) -> None:
        blocks = tuple(
            BlockReport((name,), kind="identity", size=parameter.numel(), mean_eigenvalue=1.0, damping=0.0)
            for name, parameter in trainable_parameters(model).items()
        )
        self.report = CurvatureReport("identity", blocks)

    def precondition(self, gradient: Gradient) -> Gradient:
        """Return the gradient itself."""
        return dict(gradient)
