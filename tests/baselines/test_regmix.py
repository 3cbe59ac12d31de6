import numpy as np
import pytest
from baseline_examples import MODEL, PRIOR, TRAIN, heldout_texts

from tikmix_pipeline.baselines import regmix as regmix_module
from tikmix_pipeline.baselines.baseline import proxy_schedule
from tikmix_pipeline.baselines.regmix import regmix
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.branch_pool import BranchResult, Failure
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.evaluation import TextLoss
from tikmix_pipeline.lm.model import build_model
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.baselines import RegmixParameters

BEST = {"code": 0.2, "prose": 0.3, "verse": 0.5}


def parameters(**changes):
    values = {"proxies": 48, "tokens": 128, "samples": 5_000, "top": 32, "workers": 1}
    return RegmixParameters.model_validate(values | changes)


def decide(shards, folder, *, texts=None, prior=PRIOR, bounds=None, **changes):
    return regmix(
        shards,
        texts or heldout_texts(shards, "code", "verse"),
        prior,
        model=MODEL,
        train=TRAIN,
        parameters=parameters(**changes),
        seed=0,
        folder=folder,
        key="code",
        bounds=bounds,
    )


@pytest.fixture
def planted(monkeypatch):
    """Losses that are least at one mixture; no proxy is trained. Returns the mixtures that were asked for."""
    asked = []

    def respond(setting, branches, texts, **_):
        asked.extend(branch.mixture for branch in branches)
        return [BranchResult(branch, {name: TextLoss(loss(branch), 100) for name in texts}) for branch in branches]

    def loss(branch):
        return 300 + 100 * sum((branch.mixture[domain] - share) ** 2 for domain, share in BEST.items())

    monkeypatch.setattr(regmix_module, "run_branches", respond)
    return asked


@pytest.mark.parametrize("surrogate", ["xgboost", "ridge", "gp"])
def test_finds_a_planted_mixture(token_shards, tmp_path, planted, surrogate):
    found = decide(token_shards, tmp_path, surrogate=surrogate)
    assert sum(found.weights.values()) == pytest.approx(1)
    assert sum(abs(found.weights[domain] - share) for domain, share in BEST.items()) < 0.2
    assert found.details["predicted_loss"] < found.details["predicted_loss_of_prior"]
    assert found.details["spearman"] > 0.5
    assert found.notes == ()
    assert planted[0] == PRIOR
    assert len(planted) == found.details["proxies"] == 48


@pytest.fixture
def opposed(monkeypatch):
    """Targets that fall each by a law of Olmix's with a domain of its own; what is best for both is known."""
    laws = {"query/code": np.array([-2.0, 0.0, 0.0]), "query/verse": np.array([0.0, 0.0, -2.0])}

    def respond(setting, branches, texts, **_):
        mixtures = [np.array([branch.mixture[domain] for domain in BEST]) for branch in branches]
        return [
            BranchResult(branch, {name: TextLoss(100 * (2 + np.exp(w_K @ laws[name])), 100) for name in texts})
            for branch, w_K in zip(branches, mixtures, strict=True)
        ]

    monkeypatch.setattr(regmix_module, "run_branches", respond)
    return lambda w_K: sum(np.exp(w_K @ law_K) for law_K in laws.values()) / 2


@pytest.mark.parametrize("kl", [0.0, 0.1, 100.0])
def test_olmix_finds_the_least_of_its_law_and_of_the_pull_towards_the_prior(token_shards, tmp_path, opposed, kl):
    found = decide(token_shards, tmp_path, surrogate="loglinear", kl=kl, samples=20_000)
    prior_K = np.array(list(PRIOR.values()))
    grid = np.array([[a, b, 100 - a - b] for a in range(1, 99) for b in range(1, 100 - a)]) / 100
    sought = [opposed(w_K) + kl * float(w_K @ np.log(w_K / prior_K)) for w_K in grid]
    best_K = grid[int(np.argmin(sought))]
    assert [found.weights[domain] for domain in BEST] == pytest.approx(best_K, abs=0.05)
    assert found.details["predicted_loss"] == pytest.approx(2 + opposed(np.array([*found.weights.values()])), abs=1e-3)


def test_neither_proxies_nor_result_leave_the_bounds(token_shards, tmp_path, planted):
    limits = OptimizeParameters.model_validate({"bounds": {"verse": {"max": 0.3}, "prose": {"min": 0.2}}})
    bounds = mixture_bounds(limits, dict.fromkeys(PRIOR, Supply(10_000)), 100)
    found = decide(token_shards, tmp_path, bounds=bounds, surrogate="ridge")
    for mixture in [*planted, found.weights]:
        assert mixture["verse"] <= 0.3 + 1e-9
        assert mixture["prose"] >= 0.2 - 1e-9
    assert found.weights["verse"] > 0.25


def test_domain_that_the_prior_leaves_out_stays_out(token_shards, tmp_path, planted):
    found = decide(token_shards, tmp_path, prior={"code": 0.6, "prose": 0.4, "verse": 0.0}, surrogate="ridge")
    assert found.weights["verse"] == 0
    assert {mixture["verse"] for mixture in planted} == {0}


def test_regression_that_predicts_nothing_is_told(token_shards, tmp_path, monkeypatch):
    noise = np.random.default_rng(0)

    def respond(setting, branches, texts, **_):
        return [BranchResult(branch, {name: TextLoss(noise.normal(300), 100) for name in texts}) for branch in branches]

    monkeypatch.setattr(regmix_module, "run_branches", respond)
    assert "baselines.regmix.proxies" in decide(token_shards, tmp_path, surrogate="ridge").notes[0]


def test_mixture_that_promises_nothing_over_the_prior_is_told(token_shards, tmp_path, monkeypatch):
    def respond(setting, branches, texts, **_):
        return [BranchResult(branch, {name: TextLoss(300.0, 100) for name in texts}) for branch in branches]

    monkeypatch.setattr(regmix_module, "run_branches", respond)
    found = decide(token_shards, tmp_path, surrogate="ridge")
    assert found.details["spearman"] is None
    assert "undefined" in found.notes[0]
    assert "no lower loss for its mixture than for the prior" in found.notes[1]


def test_too_few_proxies_that_came_through_are_refused(token_shards, tmp_path, monkeypatch):
    def respond(setting, branches, texts, **_):
        return [BranchResult(branch, {}, Failure("diverged", "the loss is nan")) for branch in branches]

    monkeypatch.setattr(regmix_module, "run_branches", respond)
    with pytest.raises(TikmixError, match=r"Only 0 of RegMix's 48 proxies"):
        decide(token_shards, tmp_path)


def test_too_narrow_bounds_name_the_parameters_of_regmix(token_shards, tmp_path):
    limits = OptimizeParameters.model_validate({"bounds": {"verse": {"max": 0.0}, "prose": {"max": 0.0}}})
    bounds = mixture_bounds(limits, dict.fromkeys(PRIOR, Supply(10_000)), 100)
    with pytest.raises(TikmixError, match=r"RegMix's proxies.*baselines\.regmix\.max_ratio") as caught:
        decide(token_shards, tmp_path, bounds=bounds)
    assert " sweep." not in str(caught.value)


def test_unknown_preset_names_its_parameter(token_shards, tmp_path):
    with pytest.raises(TikmixError, match=r"baselines\.regmix\.preset: 'llama-huge'"):
        decide(token_shards, tmp_path, preset="llama-huge")


def test_real_proxies_are_trained_once_and_counted(token_shards, tmp_path, monkeypatch):
    texts = heldout_texts(token_shards, "code", "verse")
    small = {"proxies": 12, "surrogate": "ridge", "samples": 500, "top": 16}
    first = decide(token_shards, tmp_path, texts=texts, **small)
    config = build_model(MODEL, vocabulary_size=token_shards.vocabulary_size, context=16, seed=0).config
    scored = 12 * sum(batch.loss_tokens for batches in texts.values() for batch in batches)
    trained = training_cost(config, context=16, tokens=12 * 128)
    assert first.cost == trained + scoring_cost(config, context=16, tokens=scored)
    monkeypatch.setattr("tikmix_pipeline.lm.branch_pool.train_branch", None)
    assert decide(token_shards, tmp_path, texts=texts, **small) == first


def test_padding_and_proxies_that_ran_out_of_memory_are_not_counted(token_shards, tmp_path, monkeypatch):
    """As of the branches of a sweep: what a method costs does not depend on who counts it."""
    failures = {"proxy 0": Failure("memory", "none left"), "proxy 1": Failure("diverged", "the loss is nan")}
    padded = TokenBatch(
        np.ones((2, 9), dtype=np.int64), np.array([[False, *[True] * 4, *[False] * 4], [False, *[True] * 8]])
    )

    def respond(setting, branches, texts, **_):
        losses = {name: TextLoss(300.0, 100) for name in texts}
        return [
            BranchResult(branch, {}, failures[branch.name]) if branch.name in failures else BranchResult(branch, losses)
            for branch in branches
        ]

    monkeypatch.setattr(regmix_module, "run_branches", respond)
    found = decide(token_shards, tmp_path, texts={"query/code": [padded]}, proxies=12, surrogate="ridge")
    config = build_model(MODEL, vocabulary_size=token_shards.vocabulary_size, context=16, seed=0).config
    assert found.details["trained"] == 11
    assert found.cost.tokens == 11 * 128 + 10 * (4 + 8)
    trained = training_cost(config, context=16, tokens=11 * 128)
    scored = scoring_cost(config, context=8, tokens=10 * 16)
    assert found.cost.flops == trained.flops + scored.flops, "operations are those of sequences of 8, padding included"


def test_rates_of_a_proxy_rise_and_fall_to_zero():
    factors = [proxy_schedule(20).factor(step) for step in range(20)]
    assert factors[0] == pytest.approx(0.5 * 20 / 21)
    assert max(factors) == factors[1]
    assert np.allclose(np.diff(factors[1:]), -1 / 21)
    assert factors[-1] == pytest.approx(1 / 21)
