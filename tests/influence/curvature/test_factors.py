import dataclasses

import pytest
import torch
from curvature_fits import FISHER_KINDS, GROUPS, fit, precondition, use
from influence_oracle import flatten, random_batches, random_gradient, tiny_model

from tikmix_pipeline.distributed.process_group import ProcessGroup
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.factors import Factors
from tikmix_pipeline.influence.tensor_file import TensorFile


@pytest.mark.parametrize("kind", FISHER_KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_saved_factors_are_those_in_memory(kind, tied, tmp_path):
    model = tiny_model("qwen2", tied=tied).float()
    factors = fit(model, random_batches(1), kind)
    factors.save(tmp_path / "factors")
    loaded = Factors.load(tmp_path / "factors")
    for field in dataclasses.fields(Factors):
        if field.name != "tensors":
            assert getattr(loaded, field.name) == getattr(factors, field.name)
    assert loaded.tensors.keys() == factors.tensors.keys()
    gradient = {name: values.float() for name, values in random_gradient(model).items()}
    results = [flatten(precondition(use(model, of), gradient)) for of in (factors, loaded)]
    assert (results[0] == results[1]).all()
    assert sorted(file.name for file in (tmp_path / "factors").iterdir()) == ["factors.json", "factors.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["factors"]


def test_saving_again_replaces_and_text_of_the_record_is_equal(tmp_path):
    factors = fit(tiny_model("llama"), random_batches(1))
    texts = []
    for _ in range(2):
        factors.save(tmp_path / "factors")
        texts.append((tmp_path / "factors" / "factors.json").read_bytes())
    assert texts[0] == texts[1]
    assert (factors.kind, factors.fisher, factors.seed, factors.groups) == ("kfac", "true", 3, GROUPS)
    assert factors.loss_tokens == sum(batch.loss_tokens for batch in random_batches(1))


def truncate(folder) -> None:
    file = folder / "factors.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def swap(folder) -> None:
    other = fit(tiny_model("llama"), random_batches(1), groups=("linear",))
    other.save(folder.with_name("other"))
    (folder.with_name("other") / "factors.safetensors").replace(folder / "factors.safetensors")


def edit(old: str, new: str):
    def change(folder) -> None:
        file = folder / "factors.json"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        swap,
        lambda folder: (folder / "factors.safetensors").unlink(),
        lambda folder: (folder / "factors.json").unlink(),
        lambda folder: (folder / "factors.json").write_text("[]"),
        lambda folder: (folder / "factors.json").write_text("{"),
        edit('"version": 3', '"version": 2'),
        edit('"seed"', '"sead"'),
        edit('"transposed"', '"tranposed"'),
    ],
)
def test_damaged_factors_are_refused(damage, tmp_path):
    folder = tmp_path / "factors"
    fit(tiny_model("llama"), random_batches(1)).save(folder)
    damage(folder)
    with pytest.raises(TikmixError, match=r"factors"):
        Factors.load(folder)


def test_moments_stay_as_they_were_when_they_are_used():
    model = tiny_model("llama")
    factors = fit(model, random_batches(1))
    before = {name: values.clone() for name, values in factors.tensors.items()}
    first, second = (precondition(use(model, factors), random_gradient(model)) for _ in range(2))
    assert all((factors.tensors[name] == before[name]).all() for name in before)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", FISHER_KINDS)
def test_every_layer_falls_to_one_process_and_those_that_share_a_moment_to_the_same(kind):
    factors = fit(tiny_model("qwen2"), random_batches(1), kind)
    shares = [set(factors.names_for(ProcessGroup(rank, 3))) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == sorted({layer.layer for layer in factors.layers})
    owner = {name: rank for rank, share in enumerate(shares) for name in share}
    sharing = {(layer.tensors.get("input"), layer.tensors.get("columns")): set() for layer in factors.layers}
    for layer in factors.layers:
        sharing[layer.tensors.get("input"), layer.tensors.get("columns")].add(owner[layer.layer])
    assert all(len(owners) == 1 for shared, owners in sharing.items() if any(shared))


def test_tensors_of_an_opened_artifact_are_read_when_they_are_asked_for(tmp_path):
    factors = fit(tiny_model("llama"), random_batches(1))
    factors.save(tmp_path / "factors")
    opened = Factors.load(tmp_path / "factors")
    assert opened.folder == tmp_path / "factors"
    assert factors.folder is None
    assert opened.shapes == factors.shapes
    (tmp_path / "factors" / "factors.safetensors").unlink()
    with pytest.raises(TikmixError, match=r"factors\.safetensors cannot be read"):
        next(iter(opened.tensors.values()))


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_file_holds_half_of_what_is_symmetric(kind, tmp_path):
    factors = fit(tiny_model("llama"), random_batches(1), kind)
    factors.save(tmp_path / "factors")
    opened = Factors.load(tmp_path / "factors")
    kept = TensorFile.open(tmp_path / "factors" / "factors.safetensors").shapes
    symmetric = {name for name in kept if name.endswith(("/input", "/output"))}
    assert bool(symmetric) == (kind == "kfac")
    for name, values in factors.tensors.items():
        assert torch.equal(opened.tensors[name], values)
        assert opened.shapes[name] == tuple(values.shape)
        size = len(values)
        assert kept[name] == ((size * (size + 1) // 2,) if name in symmetric else tuple(values.shape))
