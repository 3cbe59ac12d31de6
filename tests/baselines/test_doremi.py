import numpy as np
import pytest
from baseline_examples import MODEL, PRIOR, TRAIN

from tikmix_pipeline.baselines import doremi as doremi_module
from tikmix_pipeline.baselines import group_dro
from tikmix_pipeline.baselines.doremi import doremi
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm import trainer
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.model import build_model
from tikmix_pipeline.mixture.bounds import Supply, mixture_bounds
from tikmix_pipeline.parameters import ModelParameters, OptimizeParameters
from tikmix_pipeline.parameters.baselines import DoremiParameters


def decide(shards, folder, *, prior=PRIOR, model=MODEL, train=TRAIN, key="code", bounds=None, **changes):
    return doremi(
        shards,
        prior,
        model=model,
        train=train,
        parameters=DoremiParameters.model_validate({"tokens": 384} | changes),
        seed=0,
        folder=folder,
        key=key,
        bounds=bounds,
    )


@pytest.fixture
def steps_taken(monkeypatch):
    """How many steps reference and proxy were trained for from here on."""
    taken = {"reference": 0, "proxy": 0}
    for name, module in {"reference": trainer, "proxy": group_dro}.items():
        monkeypatch.setattr(module, "_step", _counted(module._step, taken, name))
    return taken


def _counted(step, taken, name):
    def counting(*arguments):
        taken[name] += 1
        return step(*arguments)

    return counting


def test_domain_that_the_reference_excels_on_has_the_largest_weight(token_shards, tmp_path):
    prior = {"code": 0.02, "prose": 0.02, "verse": 0.96}
    found = decide(token_shards, tmp_path, prior=prior, tokens=64 * 60)
    assert sum(found.weights.values()) == pytest.approx(1)
    assert max(found.weights, key=found.weights.get) == "verse"
    assert max(found.details["excess_loss"], key=found.details["excess_loss"].get) == "verse"
    assert found.weights["verse"] > 0.45


@pytest.mark.parametrize("last_step", [2, 3, 6, 8, 9, 11, 12])
def test_stopped_anywhere_and_called_again_is_undisturbed(token_shards, tmp_path, monkeypatch, last_step):
    whole = decide(token_shards, tmp_path / "whole")
    taken = []

    def interrupted(step):
        def stepping(*arguments):
            if len(taken) == last_step:
                raise KeyboardInterrupt
            taken.append(None)
            return step(*arguments)

        return stepping

    with pytest.MonkeyPatch.context() as patch:
        for module in (trainer, group_dro):
            patch.setattr(module, "_step", interrupted(module._step))
        if last_step < 12:
            with pytest.raises(KeyboardInterrupt):
                decide(token_shards, tmp_path / "stopped")
        else:
            decide(token_shards, tmp_path / "stopped")
    assert decide(token_shards, tmp_path / "stopped") == whole


def test_finished_work_is_not_done_again_and_that_of_another_call_is(token_shards, tmp_path, steps_taken):
    first = decide(token_shards, tmp_path)
    assert steps_taken == {"reference": 6, "proxy": 6}
    assert decide(token_shards, tmp_path) == first
    assert steps_taken == {"reference": 6, "proxy": 6}
    decide(token_shards, tmp_path, key="other code")
    assert steps_taken == {"reference": 12, "proxy": 12}
    assert decide(token_shards, tmp_path, key="other code", eta=0.1).weights != first.weights
    assert steps_taken == {"reference": 18, "proxy": 18}


def test_cost_counts_both_trainings_and_the_passes_of_the_reference(token_shards, tmp_path):
    config = build_model(MODEL, vocabulary_size=token_shards.vocabulary_size, context=16, seed=0).config
    reference, proxy = 6 * 4 * 16, 6 * 6 * 16  # rows of the proxy: a multiple of three domains
    found = decide(token_shards, tmp_path / "whole")
    assert found.cost.tokens == reference + 2 * proxy
    trained = training_cost(config, context=16, tokens=reference + proxy)
    assert found.cost == trained + scoring_cost(config, context=16, tokens=proxy)
    parts = decide(token_shards, tmp_path / "parts", train=TRAIN.model_copy(update={"micro_batch_size": 3}))
    assert parts.cost == trained + scoring_cost(config, context=16, tokens=2 * proxy)
    assert parts.weights == pytest.approx(found.weights, rel=1e-3)


def test_bounds_hold(token_shards, tmp_path):
    bounds = mixture_bounds(OptimizeParameters(max_weight=0.334), dict.fromkeys(PRIOR, Supply(10_000)), 100)
    found = decide(token_shards, tmp_path, bounds=bounds, eta=50.0)
    assert max(found.weights.values()) <= 0.334 + 1e-9
    assert "The bounds changed the mixture" in found.notes[-1]


def test_corner_and_a_reference_without_excess_are_told():
    parameters = DoremiParameters()
    (corner,) = doremi_module._notes(np.array([0.97, 0.02, 0.01]), np.array([0.5, 0.1, 0.1]), parameters)
    assert "97% of one domain" in corner
    assert "baselines.doremi.eta" in corner
    (nothing,) = doremi_module._notes(np.full(3, 1 / 3), np.zeros(3), parameters)
    assert "baselines.doremi.tokens" in nothing


def test_checkpoint_of_the_user_s_own_needs_a_preset(token_shards, tmp_path):
    own = ModelParameters(checkpoint="a-checkpoint")
    with pytest.raises(TikmixError, match=r"baselines\.doremi\.preset is null.*a-checkpoint"):
        decide(token_shards, tmp_path, model=own)
    assert sum(decide(token_shards, tmp_path, model=own, preset="llama-tiny").weights.values()) == pytest.approx(1)


def test_prior_of_other_domains_is_refused(token_shards, tmp_path):
    with pytest.raises(TikmixError, match="no weight for verse"):
        decide(token_shards, tmp_path, prior={"code": 0.5, "prose": 0.5})
