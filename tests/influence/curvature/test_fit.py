import pytest
from influence_oracle import flatten, random_batches, random_gradient, tiny_model, train_steps

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.fit import fit_curvature
from tikmix_pipeline.influence.curvature.kfac import fit_kfac
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters


@pytest.mark.parametrize("name", ["identity", "adam", "kfac"])
def test_parameters_choose_the_curvature(name):
    model, train = tiny_model("llama"), TrainParameters()
    state = train_steps(model, train, 1).state_tensors()
    parameters = InfluenceParameters(curvature=name)
    curvature = fit_curvature(parameters, model, batches=random_batches(1), optimizer_state=state, train=train, seed=3)
    assert curvature.report.curvature == name
    gradient = random_gradient(model)
    assert list(curvature.precondition(gradient)) == list(gradient)


def test_damping_and_seed_reach_the_fit():
    model, batches, gradient = tiny_model("llama"), random_batches(1), random_gradient(tiny_model("llama"))
    parameters = InfluenceParameters(curvature="kfac", damping=0.3)
    chosen = fit_curvature(parameters, model, batches=batches, optimizer_state={}, train=TrainParameters(), seed=4)
    direct = fit_kfac(model, batches, damping=0.3, seed=4)
    assert (flatten(chosen.precondition(gradient)) == flatten(direct.precondition(gradient))).all()


def test_adam_without_its_state_says_what_to_do():
    parameters = InfluenceParameters(curvature="adam")
    with pytest.raises(TikmixError, match=r"checkpoint comes without one\. Use influence\.curvature=kfac"):
        fit_curvature(parameters, tiny_model("llama"), batches=[], optimizer_state={}, train=TrainParameters(), seed=0)
