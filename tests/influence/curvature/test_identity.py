import torch
from curvature_fits import precondition
from influence_oracle import random_gradient, tiny_model

from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters


def identity(model, **parameters) -> Curvature:
    asked = InfluenceParameters(curvature="identity", **parameters)
    return build_curvature(asked, model, factors=None, optimizer_state={}, train=TrainParameters(), horizon=None)


def test_gradient_is_returned_whatever_the_damping():
    model, gradient = tiny_model("llama", tied=True), random_gradient(tiny_model("llama", tied=True))
    curvature = identity(model, damping=7.0, inverse="horizon", damping_unit="horizon")
    result = precondition(curvature, gradient)
    assert list(result) == list(gradient)
    assert all((result[name] == gradient[name]).all() for name in gradient)
    assert curvature.report.coverage() == {"identity": 1.0}
    assert (curvature.report.inverse, curvature.report.damping_unit, curvature.report.damping) == ("none", "none", 0.0)


def test_eigenvalues_take_no_memory():
    curvature = identity(tiny_model("llama"))
    assert {block.eigenvalues_oi.untyped_storage().nbytes() for block in curvature.blocks} == {4}


def test_any_model_and_any_group_will_do():
    model = torch.nn.Sequential(torch.nn.Bilinear(3, 3, 2), torch.nn.PReLU())
    curvature = identity(model, groups=["linear"])
    assert [block.names for block in curvature.blocks] == [("0.weight",), ("0.bias",)]
    assert 0 < curvature.report.left_out < 1
