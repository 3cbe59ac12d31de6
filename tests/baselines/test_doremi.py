import numpy as np
import pytest
import torch
import torch.nn.functional as F
from baseline_examples import MODEL, PRIOR, TRAIN

from tikmix_pipeline.baselines import doremi as doremi_module
from tikmix_pipeline.baselines.baseline import proxy_schedule
from tikmix_pipeline.baselines.doremi import DomainWeights, doremi, train_by_group_dro
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm import trainer
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.divergence import DivergedError
from tikmix_pipeline.lm.model import build_model
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.trainer import TrainingState
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import ModelParameters, OptimizeParameters
from tikmix_pipeline.parameters.baselines import DoremiParameters

DOMAINS = ["code", "prose", "verse"]


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
    for name, module in {"reference": trainer, "proxy": doremi_module}.items():
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
        for module in (trainer, doremi_module):
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


def model(shards, seed):
    return build_model(MODEL, vocabulary_size=shards.vocabulary_size, context=TRAIN.context, seed=seed)


def stream(shards, rows=2):
    windows = {domain: shards.windows(domain, TRAIN.context) for domain in DOMAINS}
    return MixtureStream(windows, dict.fromkeys(DOMAINS, 1 / 3), batch_size=3 * rows, seed=0)


def proxy(shards):
    network = model(shards, seed=0)
    return TrainingState(network, NamedOptimizer(network, TRAIN), stream(shards))


def train(state, weights, reference, *, steps=1, parameters=None, train=TRAIN, save=lambda: None):
    train_by_group_dro(
        state,
        weights,
        reference,
        train=train,
        schedule=proxy_schedule(10),
        parameters=parameters or DoremiParameters(),
        steps=steps,
        save=save,
    )


def mean_losses(network, rows_BS):
    """Loss of every token, one row at a time."""
    losses = []
    for row_S in torch.from_numpy(rows_BS):
        logits_PV = network(input_ids=row_S[None, :-1]).logits[0]
        losses.append(F.cross_entropy(logits_PV, row_S[1:], reduction="none"))
    return torch.stack(losses)


def test_update_is_the_paper_s_by_hand():
    weights = DomainWeights.uniform(2)
    weights.update(np.array([0.0, np.log(3)]), eta=1.0, smoothing=0.1)
    # 1/2 · 1 and 1/2 · 3, normalised, then a tenth of uniform
    np.testing.assert_allclose(weights.alpha_K, [0.9 * 0.25 + 0.05, 0.9 * 0.75 + 0.05])
    weights.update(np.array([2.0, 2.0]), eta=1.0, smoothing=0.0)
    np.testing.assert_allclose(weights.alpha_K, [0.275, 0.725])
    np.testing.assert_allclose(weights.alpha_sum_K, [0.55, 1.45])
    np.testing.assert_allclose(weights.excess_sum_K, [2.0, 2.0 + np.log(3)])


def test_smoothing_keeps_every_domain_and_large_losses_do_not_overflow():
    weights = DomainWeights.uniform(3)
    for _ in range(50):
        weights.update(np.array([0.0, 0.0, 1000.0]), eta=5.0, smoothing=1e-3)
    assert weights.alpha_K.min() == pytest.approx(1e-3 / 3)
    assert weights.alpha_K.sum() == pytest.approx(1)


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_gradient_is_that_of_the_losses_weighted_by_this_step_s_weights(token_shards, micro_batch_size):
    state, reference = proxy(token_shards), model(token_shards, seed=1)
    counts = stream(token_shards).counts()
    rows_BS = np.concatenate([stream(token_shards).upcoming(domain, 2) for domain in DOMAINS])
    assert counts == dict.fromkeys(DOMAINS, 2)
    losses_BP = mean_losses(state.model, rows_BS)
    excess_BP = (losses_BP - mean_losses(reference, rows_BS)).clamp(min=0).detach()
    excess_K = excess_BP.reshape(3, -1).mean(dim=1).double().numpy()
    alpha_K = np.exp(excess_K) / np.exp(excess_K).sum() * 0.999 + 0.001 / 3
    objective = (losses_BP.reshape(3, -1).mean(dim=1) * torch.from_numpy(alpha_K).float()).sum()
    wanted = torch.autograd.grad(objective, list(state.model.parameters()))

    weights = DomainWeights.uniform(3)
    found = []
    state.optimizer.step = lambda factor: found.extend(one.grad.clone() for one in state.model.parameters())
    loose = TRAIN.model_copy(update={"gradient_clip": 1e9, "micro_batch_size": micro_batch_size})
    train(state, weights, reference, train=loose)
    np.testing.assert_allclose(weights.alpha_K, alpha_K, rtol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_every_batch_reads_on_in_every_domain_by_as_many_rows(token_shards, monkeypatch):
    state = proxy(token_shards)
    read = []
    upcoming = MixtureStream.upcoming
    monkeypatch.setattr(MixtureStream, "upcoming", lambda self, *a: (read.append(a), upcoming(self, *a))[1])
    train(state, DomainWeights.uniform(3), model(token_shards, seed=1), steps=40)
    assert read == [(domain, 2) for _ in range(40) for domain in DOMAINS]
    assert state.stream.consumed == dict.fromkeys(DOMAINS, 80)


def test_reference_is_not_changed_and_saves_come_in_between(token_shards):
    state, reference = proxy(token_shards), model(token_shards, seed=1)
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    saved = []
    train(state, DomainWeights.uniform(3), reference, steps=5, save=lambda: saved.append(state.step))
    assert saved == [2, 4]
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())


def test_loss_that_is_not_finite_ends_the_training(token_shards):
    state, reference = proxy(token_shards), model(token_shards, seed=1)
    with torch.no_grad():
        state.model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"DoReMi's proxy diverged at step 1"):
        train(state, DomainWeights.uniform(3), reference)
