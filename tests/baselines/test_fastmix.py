import numpy as np
import pytest
import torch
from baseline_examples import MODEL, PRIOR, TRAIN, heldout_texts

from tikmix_pipeline.baselines import alignment as alignment_module
from tikmix_pipeline.baselines.fastmix import AdamOnLogits, fastmix
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.baselines import FastmixParameters


def decide(shards, folder, *, texts=None, bounds=None, key="code", **changes):
    values = {"tokens": 64 * 8, "every": 1, "rows": 8, "drawn_items": 8, "learning_rate": 0.2}
    return fastmix(
        shards,
        texts or heldout_texts(shards, "verse"),
        model=MODEL,
        train=TRAIN,
        parameters=FastmixParameters.model_validate(values | changes),
        seed=0,
        folder=folder,
        key=key,
        bounds=bounds,
    )


def test_logits_follow_torch_s_adam_on_the_loss_after_a_step():
    """The loss of the targets after a step on the mixture is, to first order, `const − softmax(z)·a`."""
    rule = AdamOnLogits(4, learning_rate=0.3)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.3, betas=(0.9, 0.95))
    for alignment_K in np.random.default_rng(0).normal(size=(12, 4)):
        rule.update(alignment_K)
        adam.zero_grad()
        (-torch.softmax(logits, dim=0) @ torch.from_numpy(alignment_K)).backward()
        adam.step()
        np.testing.assert_allclose(rule.mixture, torch.softmax(logits, dim=0).detach().numpy(), rtol=1e-9)


def test_the_unit_of_the_gradients_hardly_matters():
    usual, small = (AdamOnLogits(3, learning_rate=0.1) for _ in range(2))
    for alignment_K in np.random.default_rng(1).normal(size=(5, 3)):
        usual.update(alignment_K)
        small.update(alignment_K * 1e-3)
    np.testing.assert_allclose(small.mixture, usual.mixture, rtol=1e-3)


def test_begins_uniform():
    np.testing.assert_allclose(AdamOnLogits(5, learning_rate=1.0).mixture, 0.2)


def test_target_draws_the_mixture_to_its_own_domain(token_shards, tmp_path):
    found = decide(token_shards, tmp_path)
    assert max(found.weights, key=found.weights.get) == "verse"
    assert found.weights["verse"] > 0.5
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.details["measurements"] == 8


def test_gradients_are_those_of_the_head(token_shards, tmp_path, monkeypatch):
    asked = []
    measure = alignment_module.Alignments.measure
    monkeypatch.setattr(
        alignment_module.Alignments,
        "measure",
        lambda self, *a: (asked.append([p.shape for p in self._parameters(a[0])]), measure(self, *a))[1],
    )
    decide(token_shards, tmp_path, tokens=64)
    assert asked == [[(token_shards.vocabulary_size, 32)]]


def test_proxy_is_trained_once_and_again_for_other_settings(token_shards, tmp_path, monkeypatch):
    first = decide(token_shards, tmp_path)
    trained = []
    steps = alignment_module.train_steps
    monkeypatch.setattr(alignment_module, "train_steps", lambda *a, **k: (trained.append(None), steps(*a, **k)))
    assert decide(token_shards, tmp_path) == first
    assert not trained
    for change in ({"texts": heldout_texts(token_shards, "code")}, {"learning_rate": 0.1}, {"key": "other code"}):
        trained.clear()
        decide(token_shards, tmp_path, **change)
        assert trained, change


def test_bounds_hold(token_shards, tmp_path):
    bounds = mixture_bounds(OptimizeParameters(max_weight=0.4), dict.fromkeys(PRIOR, Supply(10_000)), 100)
    assert decide(token_shards, tmp_path, bounds=bounds).weights["verse"] == pytest.approx(0.4)


def test_unknown_preset_names_its_parameter(token_shards, tmp_path):
    with pytest.raises(TikmixError, match=r"baselines\.fastmix\.preset: 'llama-huge'"):
        decide(token_shards, tmp_path, preset="llama-huge")
