import contextlib

import numpy as np
import pytest
import torch
from curvature_fits import FISHER_KINDS, block_of, dense, fit, fit_curvature, precondition, use
from influence_oracle import VOCABULARY, ToyLM, flatten, random_batches, random_gradient, tiny_model
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.fit_progress import FitProgress
from tikmix_pipeline.lm.cost import FlopCounter, ShapeCounter
from tikmix_pipeline.lm.cost_records import Cost

FAMILIES = [("llama", True), ("qwen2", False), ("gpt_neox", False), ("gpt2", True)]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", FISHER_KINDS)
@pytest.mark.parametrize(
    ("family", "tied", "fisher"),
    [("llama", False, "true"), ("llama", True, "true"), ("gpt2", True, "true"), ("llama", True, "empirical")],
)
def test_factors_do_not_depend_on_the_batch_size_or_on_padding(kind, family, tied, fisher):
    """There are more tokens than any layer has outputs: in the null space of a factor, a basis is anyone's guess."""
    model, (batch,) = tiny_model(family, tied=tied), random_batches(1, batches=1, sequences=9, tokens=12)
    assert batch.loss_tokens > 32
    parts = [TokenBatch(batch.tokens_BS[rows], batch.loss_BS[rows]) for rows in ([0], [1, 2, 3], slice(4, None))]
    padded = TokenBatch(
        np.concatenate([batch.tokens_BS, np.full((9, 3), 7)], axis=1), np.pad(batch.loss_BS, ((0, 0), (0, 3)))
    )
    gradient = random_gradient(model)
    reference = flatten(precondition(fit_curvature(model, [batch], kind, fisher=fisher), gradient))
    for batches in (parts, [padded]):
        other = precondition(fit_curvature(model, batches, kind, fisher=fisher), gradient)
        np.testing.assert_allclose(flatten(other), reference, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_seed_decides_the_labels_and_labels_of_the_text_need_none(kind):
    model = tiny_model("llama")
    first, again, other = (fit(model, random_batches(1), kind, seed=seed).tensors for seed in (3, 3, 4))
    assert all((first[name] == again[name]).all() for name in first)
    name = next(name for name in first if "up_proj" in name)
    assert not torch.allclose(first[name], other[name])
    given, too = (fit(model, random_batches(1), kind, seed=seed, fisher="empirical").tensors for seed in (3, 4))
    assert all((given[name] == too[name]).all() for name in given)
    assert not torch.allclose(first[name], given[name])


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_model_is_left_as_it_was(kind):
    model = tiny_model("gpt2").train()
    model.transformer.h[0].eval()
    sentinel = {name: torch.full_like(p, 7) for name, p in model.named_parameters()}
    before = {name: values.clone() for name, values in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        parameter.grad = sentinel[name]
    modes = [module.training for module in model.modules()]
    with torch.no_grad():
        fit(model, random_batches(1), kind)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is sentinel[name] and (p.grad == 7).all() for name, p in model.named_parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert all((values == before[name]).all() for name, values in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_hooks_are_gone_after_a_failure():
    model = tiny_model("llama")
    with pytest.raises(IndexError):
        fit(model, [TokenBatch.of_windows(np.full((1, 4), VOCABULARY))])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_frozen_parameters_are_neither_needed_nor_touched(kind):
    model = tiny_model("llama")
    model.model.embed_tokens.weight.requires_grad_(False)
    model.model.norm.weight.requires_grad_(False)
    full = fit_curvature(tiny_model("llama"), random_batches(1), kind)
    curvature = fit_curvature(model, random_batches(1), kind)
    names = {name for block in curvature.report.blocks for name in block.parameters}
    assert names == {name for name, p in model.named_parameters() if p.requires_grad}
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(dense(block_of(curvature, name)), dense(block_of(full, name)))


@pytest.mark.parametrize("kind", FISHER_KINDS)
@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_float32_weights_agree_with_float64(kind, family, tied):
    """With the norms of transformers; what a curvature makes of a gradient is in the precision of the gradient."""
    double = tiny_model(family, tied=tied)
    single = tiny_model(family, tied=tied, exact_norms=False).float()
    batches = random_batches(1, batches=1, sequences=9, tokens=12)
    curvatures = [fit_curvature(model, batches, kind) for model in (double, single)]
    gradient = random_gradient(double)
    expected = flatten(precondition(curvatures[0], gradient))
    result = precondition(curvatures[1], {name: values.float() for name, values in gradient.items()})
    assert {values.dtype for values in result.values()} == {torch.float32}
    assert {block.eigenvalues_oi.dtype for block in curvatures[1]} == {torch.float32}
    assert np.linalg.norm(flatten(result) - expected) < 2e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("family", "tied", "kind", "dtype"),
    [(*family, kind, torch.bfloat16) for family in FAMILIES for kind in ("diagonal", "kfac")]
    + [("llama", True, "ekfac", torch.bfloat16), ("llama", True, "ekfac", torch.float16)],
)
def test_half_precision_weights_have_float32_moments_near_those_of_the_same_weights_in_float32(
    family, tied, kind, dtype
):
    """Activations carry 8 bits (bfloat16) or 11: a moment is off by one per cent or a fifth of it; sums add nothing."""
    tolerance = 0.03 if dtype == torch.bfloat16 else 0.005
    half = tiny_model(family, tied=tied, exact_norms=False).to(dtype)
    single = tiny_model(family, tied=tied, exact_norms=False).to(dtype).float()
    batches = random_batches(1, batches=2, sequences=12, tokens=12, loss="all")
    # labels of the text: a sampled label may differ where the predictions differ by a rounding
    found, expected = (fit(model, batches, kind, fisher="empirical") for model in (half, single))
    for name, values in found.tensors.items():
        assert values.dtype == torch.float32
        assert values.isfinite().all()
        if not name.endswith(("rows", "columns")):
            assert relative_error(values, expected.tensors[name].double()) < tolerance
    gradient = {name: torch.randn(p.shape) for name, p in half.named_parameters()}
    results = [flatten(precondition(use(half, factors), gradient)) for factors in (found, expected)]
    assert np.linalg.norm(results[0] - results[1]) < tolerance * np.linalg.norm(results[1])


def test_no_text_is_refused():
    with pytest.raises(TikmixError, match="no text to fit"):
        fit(tiny_model("llama"), [])


def test_batches_without_loss_change_nothing():
    model, batches = tiny_model("llama"), random_batches(1)
    silent = TokenBatch(batches[0].tokens_BS, np.zeros_like(batches[0].loss_BS))
    first, second = fit(model, batches), fit(model, [silent, batches[0], silent, batches[1]])
    assert all((first.tensors[name] == second.tensors[name]).all() for name in first.tensors)


def test_cost_of_kfac_is_what_pen_and_paper_say():
    """Width 4 in the middle, 11 tokens in the vocabulary, biases; two equal batches of 3 x 6 predictions."""
    batches = random_batches(1, loss="all")
    forward = 4 * 4 + 4 * 11
    backward = 11 * 4 + 4 * 4
    grams = 5 * 5 + 4 * 4 + 4 * 4 + 5 * 5  # inputs and gradients of the middle, gradients of the lookup, head's inputs
    assert fit(ToyLM(nn.Linear(4, 4)), batches).cost == Cost(36, 2 * 36 * (forward + backward + grams))


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_cost_taken_from_batches_of_the_same_shape_is_that_of_counting_all(kind, monkeypatch):
    batches = random_batches(1, batches=6, loss="all")
    found = fit(tiny_model("llama"), batches, kind).cost
    monkeypatch.setattr(ShapeCounter, "batch", _count_each)
    each = fit(tiny_model("llama"), batches, kind).cost
    assert found.tokens == each.tokens == 6 * 3 * 6 * (2 if kind == "ekfac" else 1)
    assert found.flops == pytest.approx(each.flops, rel=0.01)


@contextlib.contextmanager
def _count_each(counter: ShapeCounter, batch: TokenBatch):
    with FlopCounter() as found:
        yield
    counter.cost += Cost(batch.loss_tokens, found.flops)


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_counting_changes_no_bit(kind, monkeypatch):
    batches = random_batches(1, batches=2)
    counted = fit(tiny_model("gpt2", tied=True), batches, kind).tensors
    monkeypatch.setattr(ShapeCounter, "batch", lambda *_: contextlib.nullcontext())
    plain = fit(tiny_model("gpt2", tied=True), batches, kind).tensors
    assert all(torch.equal(counted[name], values) for name, values in plain.items())


BATCHES = random_batches(1, batches=5)
ALL = {"diagonal": 5, "kfac": 5, "ekfac": 10}


class Killed(BaseException):
    """Ends a fit as a signal would."""


class Counted(list[TokenBatch]):
    """Counts the batches that are run, and kills the fit after some of them."""

    def __init__(self, batches: list[TokenBatch], model: nn.Module, kill_after: int | None = None) -> None:
        super().__init__(batches)
        self.run = 0
        self._kill_after = kill_after
        model.register_forward_pre_hook(self._count)

    def _count(self, *_: object) -> None:
        if self.run == self._kill_after:
            raise Killed
        self.run += 1


def killed_fit(kind: str, folder, after: int, *, key: str = "a", every: float = 0.0, **options) -> None:
    model = tiny_model("qwen2", tied=True)
    batches = Counted(BATCHES, model, after)
    with pytest.raises(Killed):
        fit(model, batches, kind, progress=FitProgress(folder, key, seconds=every), **options)


def resumed_fit(kind: str, folder, *, key: str = "a", **options):
    """Fit on; return the factors and how many batches were run."""
    model = tiny_model("qwen2", tied=True)
    batches = Counted(BATCHES, model)
    return fit(model, batches, kind, progress=FitProgress(folder, key), **options), batches.run


@pytest.mark.parametrize(
    ("kind", "after", "fisher"),
    [("diagonal", 3, "true"), ("kfac", 0, "true"), ("kfac", 4, "true"), ("kfac", 2, "empirical")]
    + [("ekfac", after, "true") for after in (2, 5, 6, 9)]
    + [("ekfac", 7, "empirical")],
)
def test_resumed_fit_equals_an_uninterrupted_one_bit_for_bit(kind, after, fisher, tmp_path):
    killed_fit(kind, tmp_path / "fit", after, fisher=fisher)
    resumed, run = resumed_fit(kind, tmp_path / "fit", fisher=fisher)
    whole = fit(tiny_model("qwen2", tied=True), BATCHES, kind, fisher=fisher)
    assert (resumed.layers, resumed.cost) == (whole.layers, whole.cost)
    assert all(torch.equal(resumed.tensors[name], values) for name, values in whole.tensors.items())
    assert run == ALL[kind] - after
    assert not (tmp_path / "fit").exists()


def test_a_fit_can_be_killed_again_and_again(tmp_path):
    for _ in range(3):
        killed_fit("ekfac", tmp_path / "fit", 3)
    resumed, run = resumed_fit("ekfac", tmp_path / "fit")
    whole = fit(tiny_model("qwen2", tied=True), BATCHES, "ekfac")
    assert (run, resumed.cost) == (1, whole.cost)
    assert all(torch.equal(resumed.tensors[name], values) for name, values in whole.tensors.items())


@pytest.mark.parametrize(
    "other", [{"key": "b"}, {"seed": 4}, {"fisher": "empirical"}, {"groups": ("linear",)}], ids=str
)
def test_progress_of_anything_else_is_ignored_and_overwritten(other, tmp_path):
    killed_fit("ekfac", tmp_path / "fit", 7)
    killed_fit("ekfac", tmp_path / "fit", 2, **other)
    resumed, run = resumed_fit("ekfac", tmp_path / "fit", **other)
    whole = fit(tiny_model("qwen2", tied=True), BATCHES, "ekfac", **{k: v for k, v in other.items() if k != "key"})
    assert run == 8
    assert all(torch.equal(resumed.tensors[name], values) for name, values in whole.tensors.items())


def test_progress_is_saved_no_more_often_than_asked(tmp_path):
    killed_fit("kfac", tmp_path / "fit", 4, every=3600.0)
    assert resumed_fit("kfac", tmp_path / "fit")[1] == 5


def test_damaged_progress_is_as_none(tmp_path):
    killed_fit("kfac", tmp_path / "fit", 4)
    file = tmp_path / "fit" / "state" / "sums.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert resumed_fit("kfac", tmp_path / "fit")[1] == 5


@pytest.mark.parametrize("damage", [lambda text: text.replace("one", "two"), lambda text: text[:9], lambda _: ""])
def test_what_a_fit_began_with_counts_only_as_it_was_written(tmp_path, damage):
    progress = FitProgress(tmp_path, "a")
    assert progress.remembered(["one"]) == ["one"]
    assert progress.remembered([]) == ["one"]
    path = tmp_path / "began_with.json"
    path.write_text(damage(path.read_text()))
    assert progress.remembered(["three"]) == ["three"]


def test_what_others_keep_in_the_folder_stays(tmp_path):
    (tmp_path / "note").write_text("mine")
    fit(tiny_model("llama"), BATCHES, progress=FitProgress(tmp_path, "a", seconds=0))
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


class ApartLater(nn.Module):
    """Two layers that stop reading the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.second(x if len(x) == 3 else x + 1)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_who_shares_an_input_is_remembered(after, tmp_path):
    torch.manual_seed(0)
    model = ToyLM(ApartLater()).double()
    batches = random_batches(1) + random_batches(2, batches=1, sequences=2) + random_batches(3, batches=1)
    whole = fit(model, batches)
    counted = Counted(batches, model, after)
    with pytest.raises(Killed):
        fit(model, counted, progress=FitProgress(tmp_path / "fit", "a", seconds=0))
    model._forward_pre_hooks.clear()
    resumed = fit(model, batches, progress=FitProgress(tmp_path / "fit", "a"))
    assert resumed.layers == whole.layers
    assert all(torch.equal(resumed.tensors[name], values) for name, values in whole.tensors.items())
