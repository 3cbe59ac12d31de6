"""Gradients that a fit of the curvature measures on its way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from curvature_fits import FISHER_KINDS, fit, precondition, use
from group_examples import DOMAINS, TASKS, dealt
from influence_oracle import flatten, random_gradient, tiny_model
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.collect import Collection, collect_gradients
from tikmix_pipeline.influence.curvature.fit_progress import FitProgress
from tikmix_pipeline.influence.gradients import deal_sets, take_evenly
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm import output_head

EVERY_TOKEN = take_evenly(DOMAINS, 10**6)
SOME_TOKENS = take_evenly(DOMAINS, 60)


def collection_in(folder: Path, model: nn.Module) -> Collection:
    collection = Collection(model, {"domain": dealt()["domain"]}, GradientStore(folder), "key")
    collection.begin()
    return collection


def kept(folder: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """All gradients of a finished collection, and what its chunks say of themselves."""
    store = GradientStore(folder)
    collect_gradients(model, dealt(), store, key="key")
    rows = {
        f"{side} {name}": store.rows(side, store.sets(side), name)
        for side in ("task", "domain")
        for name in store.shapes()
    }
    figures = {side: [store.figures(side, name) for name in store.sets(side)] for side in ("task", "domain")}
    losses = torch.tensor([one.loss for sets in figures.values() for chunks in sets for one in chunks])
    return rows | {"losses": losses, "cost": torch.tensor([store.cost.tokens, store.cost.flops])}


class Passes:
    """Counts the sequences that pass through a model, and ends the run after so many passes."""

    def __init__(self, model: nn.Module, kill_after: int | None = None) -> None:
        self.sequences, self.passes, self._kill_after = 0, 0, kill_after
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module: nn.Module, _args: tuple, kwargs: dict) -> None:
        if self.passes == self._kill_after:
            raise KeyboardInterrupt
        self.passes += 1
        self.sequences += len(kwargs["input_ids"])


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-9, atol=1e-12, msg=name)


@pytest.fixture
def few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_head, "MOST_LOGITS", 5 * 20)


@pytest.mark.parametrize("kind", FISHER_KINDS)
@pytest.mark.parametrize("fisher", ["true", "empirical"])
@pytest.mark.parametrize("text", [EVERY_TOKEN, SOME_TOKENS], ids=["every token", "some tokens"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_factors_and_gradients_are_those_of_two_passes(kind, fisher, text, family, tmp_path):
    model = tiny_model(family, tied=family == "gpt2")
    alone = fit(model, text, kind, fisher=fisher)
    separate = kept(tmp_path / "separate", model)
    together = fit(model, text, kind, fisher=fisher, collection=collection_in(tmp_path / "together", model))
    assert together.layers == alone.layers
    if kind != "ekfac":  # whose eigenvectors are anyone's guess where eigenvalues are alike
        assert_near(dict(together.tensors), dict(alone.tensors))
    gradient = random_gradient(model)
    expected = flatten(precondition(use(model, alone), gradient))
    np.testing.assert_allclose(flatten(precondition(use(model, together), gradient)), expected, rtol=1e-6, atol=1e-7)
    assert_near(kept(tmp_path / "together", model), separate)


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_a_head_in_chunks_gives_the_same(fisher, few_logits, tmp_path):
    model = tiny_model("llama")
    alone, separate = fit(model, EVERY_TOKEN, fisher=fisher), kept(tmp_path / "separate", model)
    together = fit(model, EVERY_TOKEN, fisher=fisher, collection=collection_in(tmp_path / "together", model))
    assert_near(dict(together.tensors), dict(alone.tensors))
    assert_near(kept(tmp_path / "together", model), separate)


@pytest.mark.parametrize("text", [EVERY_TOKEN, SOME_TOKENS], ids=["every token", "some tokens"])
def test_the_text_of_the_domains_passes_once(text, tmp_path):
    model = tiny_model("llama")
    passes = Passes(model)
    fit(model, text, collection=collection_in(tmp_path, model))
    collect_gradients(model, dealt(), GradientStore(tmp_path), key="key")
    counting = 4  # of operations, twice before each of the two
    assert passes.sequences - counting == sum(len(batch) for of in (DOMAINS, TASKS) for b in of.values() for batch in b)


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_operations_are_those_of_two_passes_less_one_forward_and_what_of_the_backward_is_shared(fisher, tmp_path):
    model = tiny_model("llama")
    alone = fit(model, EVERY_TOKEN, fisher=fisher).cost
    together = fit(model, EVERY_TOKEN, fisher=fisher, collection=collection_in(tmp_path, model)).cost
    assert together.tokens == 0
    assert 0 < together.flops < alone.flops


def test_what_is_there_already_is_fitted_on_alone(tmp_path):
    model = tiny_model("llama")
    collect_gradients(model, dealt(), GradientStore(tmp_path), key="key")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    collection = Collection(model, {"domain": dealt()["domain"]}, GradientStore(tmp_path), "key")
    assert not collection.missing()
    alone, together = fit(model, SOME_TOKENS), fit(model, SOME_TOKENS, collection=collection)
    assert_near(dict(together.tensors), dict(alone.tensors))
    assert (together.cost.tokens, before) == (
        alone.cost.tokens,
        {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")},
    )


def test_the_model_keeps_its_own_gradient(tmp_path):
    model = tiny_model("llama")
    model.lm_head.weight.grad = torch.full_like(model.lm_head.weight, 3.0)
    fit(model, EVERY_TOKEN, collection=collection_in(tmp_path, model))
    assert model.lm_head.weight.grad.unique().tolist() == [3.0]
    assert all(p.grad is None for name, p in model.named_parameters() if name != "lm_head.weight")


@pytest.mark.parametrize("fisher", ["true", "empirical"])
@pytest.mark.parametrize(("after", "every"), [(0, 0), (1, 0), (3, 0), (5, 0), (3, 3600)])
def test_killed_pass_goes_on_to_the_same_bits_and_cost(fisher, after, every, tmp_path):
    whole = fit(
        tiny_model("llama"), SOME_TOKENS, fisher=fisher, collection=collection_in(tmp_path / "w", tiny_model("llama"))
    )
    expected = kept(tmp_path / "w", tiny_model("llama"))
    progress = FitProgress(tmp_path / "fit", "a", seconds=every)
    model = tiny_model("llama")
    collection = collection_in(tmp_path / "k", model)
    Passes(model, after)
    with pytest.raises(KeyboardInterrupt):
        fit(model, SOME_TOKENS, fisher=fisher, progress=progress, collection=collection)
    model = tiny_model("llama")
    collection = collection_in(tmp_path / "k", model)
    resumed = fit(model, SOME_TOKENS, fisher=fisher, progress=progress, collection=collection)
    assert all(torch.equal(resumed.tensors[name], values) for name, values in whole.tensors.items())
    assert resumed.cost == whole.cost
    found = kept(tmp_path / "k", model)
    assert all(torch.equal(found[name], values) for name, values in expected.items())


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_fit_that_is_lost_after_its_end_is_made_again_to_the_same_bits_and_cost(fisher, tmp_path):
    """As where the disk is full when its record is written: the gradients are there already."""
    progress = FitProgress(tmp_path / "fit", "a")
    fits, gradients = [], []
    for _ in range(2):
        model = tiny_model("llama")
        collection = collection_in(tmp_path / "k", model)
        fits.append(fit(model, SOME_TOKENS, fisher=fisher, progress=progress, collection=collection))
        gradients.append(kept(tmp_path / "k", model))
    first, again = fits
    assert all(torch.equal(again.tensors[name], values) for name, values in first.tensors.items())
    assert again.cost == first.cost
    assert all(torch.equal(gradients[1][name], values) for name, values in gradients[0].items())


def test_a_chunk_that_is_lost_behind_a_killed_pass_is_not_written_from_the_rest_of_its_text(tmp_path):
    model = tiny_model("llama")
    expected = kept(tmp_path / "w", model)
    one_by_one = {
        name: [TokenBatch(b.tokens_BS[[row]], b.loss_BS[[row]]) for b in batches for row in range(len(b))]
        for name, batches in DOMAINS.items()
    }
    sets = {"domain": deal_sets("domain", one_by_one, 3)}
    store = GradientStore(tmp_path / "k")
    collect_gradients(model, sets, store, key="key")
    progress = FitProgress(tmp_path / "fit", "a", seconds=0)
    Passes(model, 1)  # in the middle of the first chunk, which is there
    with pytest.raises(KeyboardInterrupt):
        fit(model, EVERY_TOKEN, progress=progress, collection=Collection(model, sets, store, "key"))
    lost = store.path("domain", "web", 0)
    lost.unlink()
    model = tiny_model("llama")
    fit(model, EVERY_TOKEN, progress=progress, collection=Collection(model, sets, store, "key"))
    assert not lost.exists()
    assert_near(kept(tmp_path / "k", model), expected)


def test_a_gradient_that_is_not_finite_is_refused_by_name(tmp_path):
    model = tiny_model("llama")
    collection = collection_in(tmp_path, model)
    with torch.no_grad():
        model.lm_head.weight[0] = float("nan")
    with pytest.raises(TikmixError, match="gradient of the domain 'web' is not finite"):
        fit(model, EVERY_TOKEN, fisher="empirical", collection=collection)
