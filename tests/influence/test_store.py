from pathlib import Path

import numpy as np
import pytest
import torch
from group_examples import DOMAINS, TASKS, collected, dealt
from influence_oracle import random_batches, tiny_model

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.gradients import mean_gradient
from tikmix_pipeline.influence.store import GradientStore, chunk_identity


@pytest.fixture
def store(tmp_path: Path) -> GradientStore:
    return collected(tmp_path / "gradients")


def test_rows_are_the_mean_gradients_of_the_chunks_in_order(store):
    model, sets = tiny_model("llama"), dealt()
    reopened = GradientStore(store.folder)
    assert reopened.sets("task") == tuple(TASKS)
    assert reopened.sets("domain") == tuple(DOMAINS)
    chunks = [chunk for name in ("piqa", "arc") for chunk in sets["task"][name]]
    expected = [mean_gradient(model, chunk, of="chunk") for chunk in chunks]
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        rows = reopened.rows("task", ["piqa", "arc"], name)
        assert (rows == torch.stack([mean.gradient[name] for mean in expected])).all()
    assert [figures.loss for figures in reopened.figures("task", "piqa")] == [mean.loss for mean in expected[:3]]
    assert [figures.loss_tokens for figures in reopened.figures("task", "arc")] == [
        mean.loss_tokens for mean in expected[3:]
    ]


def test_slices_and_single_chunks_are_cut_from_the_whole(store):
    name = "model.layers.0.mlp.up_proj.weight"
    whole = store.rows("domain", ["web", "code"], name)
    assert whole.shape == (6, 12, 8)
    assert (store.rows("domain", ["web", "code"], name, (2, 7)) == whole[:, 2:7]).all()
    assert (store.rows("domain", ["web", "code"], name, (11, 12), only=slice(2, 5)) == whole[2:5, 11:]).all()


def test_identity_is_of_checkpoint_precision_tokens_and_mask():
    (batch,) = random_batches(0, batches=1)
    identity = chunk_identity([batch], "checkpoint", "torch.float32")
    other = batch.tokens_BS.copy()
    other[0, 1] += 1
    mask = batch.loss_BS.copy()
    mask[0, 1] = ~mask[0, 1]
    others = [
        chunk_identity([batch], "another", "torch.float32"),
        chunk_identity([batch], "checkpoint", "torch.float64"),
        chunk_identity([TokenBatch(other, batch.loss_BS)], "checkpoint", "torch.float32"),
        chunk_identity([TokenBatch(batch.tokens_BS, mask)], "checkpoint", "torch.float32"),
        chunk_identity([TokenBatch(batch.tokens_BS[1:], batch.loss_BS[1:])], "checkpoint", "torch.float32"),
    ]
    assert len({identity, *others}) == 6


def test_identity_does_not_change_with_batches_or_padding():
    (batch,) = random_batches(0, batches=1)
    singles = [TokenBatch(batch.tokens_BS[[row]], batch.loss_BS[[row]]) for row in range(len(batch))]
    padded = TokenBatch(np.pad(batch.tokens_BS, ((0, 0), (0, 3))), np.pad(batch.loss_BS, ((0, 0), (0, 3))))
    assert len({chunk_identity(chunk, "k", "p") for chunk in ([batch], singles, [padded])}) == 1


def test_unfinished_collection_is_refused(tmp_path):
    with pytest.raises(TikmixError, match="holds no finished collection"):
        GradientStore(tmp_path).sets("task")


def test_missing_set_and_parameter_are_named(store):
    with pytest.raises(TikmixError, match="no gradients of the task 'mmlu'"):
        store.figures("task", "mmlu")
    with pytest.raises(TikmixError, match="no gradients by transformer"):
        store.rows("task", ["arc"], "transformer.weight")


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "foreign"])
def test_damaged_missing_or_foreign_chunk_is_named_on_reading(store, tmp_path, damage):
    path = store.path("domain", "code", 1)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "garbage":
        path.write_bytes(b"no gradient")
    else:
        other = collected(tmp_path / "other", tiny_model("llama", seed=1), dealt({"code": random_batches(5)}))
        path.write_bytes(other.path("domain", "code", 1).read_bytes())
    with pytest.raises(TikmixError, match=r"domain-code/0001\.safetensors"):
        GradientStore(store.folder).rows("task", ["arc"], "model.norm.weight")


def test_name_of_a_set_cannot_leave_the_folder(tmp_path):
    path = GradientStore(tmp_path).path("task", "../../etc", 0)
    assert path.resolve().is_relative_to(tmp_path)
