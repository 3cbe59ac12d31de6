import pytest
import torch
from curvature_fits import fit
from influence_oracle import ToyLM, random_batches, tiny_model
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.curvature.progress import FitProgress

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
