"""Tasks that are scored by their choices: their gradients, chunks and influence, kept or streamed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from choice_examples import choice_items, item_losses
from group_examples import CURVATURES, DOMAINS, TASKS, collected, curvature_of
from influence_oracle import VOCABULARY, flatten, tiny_model

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.choices import ChoiceBatch, choice_batches
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import TaskItems, TokenisedItem
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.counterfactual import scored_texts
from tikmix_pipeline.influence.gradients import deal_into_chunks, deal_sets, mean_gradient
from tikmix_pipeline.influence.group import group_influence, influence_of
from tikmix_pipeline.influence.store import Sets, chunk_identity
from tikmix_pipeline.influence.streamed import stream_influence
from tikmix_pipeline.influence.target_samples import require_choices, target_samples
from tikmix_pipeline.parameters import InfluenceParameters

CONTEXT = 15
ITEMS = choice_items(9, vocabulary=VOCABULARY)


def batches_of(items: list[TokenisedItem] = ITEMS, batch_size: int = 6) -> list[ChoiceBatch]:
    return choice_batches(items, context=CONTEXT, batch_size=batch_size, pad_id=0)


def mixed_sets(chunks: int = 3) -> Sets:
    """Two tasks by their tokens and one by its choices."""
    tasks = {"arc": TASKS["arc"], "choice": batches_of(), "boolq": TASKS["boolq"]}
    return {"task": deal_sets("task", tasks, chunks), "domain": deal_sets("domain", DOMAINS, chunks)}


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("gpt2", True)])
def test_mean_gradient_is_that_of_the_mean_over_items(kind, tied):
    model = tiny_model(kind, tied=tied)
    mean = mean_gradient(model, batches_of(), of="task 'choice'")
    loss = torch.stack(item_losses(model, ITEMS, CONTEXT)).mean()
    expected = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))]).numpy()
    np.testing.assert_allclose(flatten(mean.gradient), expected, rtol=1e-7, atol=1e-9)
    assert mean.loss == pytest.approx(loss.item(), rel=1e-9)
    assert mean.loss_tokens == len(ITEMS)


@pytest.mark.parametrize("batch_size", [1, 100])
def test_mean_gradient_does_not_depend_on_how_items_are_batched(batch_size):
    model = tiny_model("gpt2")
    expected = mean_gradient(model, batches_of(), of="set")
    found = mean_gradient(model, batches_of(batch_size=batch_size), of="set")
    np.testing.assert_allclose(flatten(found.gradient), flatten(expected.gradient), rtol=1e-7, atol=1e-12)


def test_chunks_deal_out_items_with_all_their_options_and_together_are_the_whole():
    model, chunks = tiny_model("gpt2"), deal_into_chunks(batches_of(), 4)
    assert [sum(batch.terms for batch in chunk) for chunk in chunks] == [3, 2, 2, 2]
    assert all(isinstance(batch, ChoiceBatch) for chunk in chunks for batch in chunk)
    assert max(batch.tokens_BS.size for chunk in chunks for batch in chunk) <= max(
        b.tokens_BS.size for b in batches_of()
    )
    parts = [mean_gradient(model, chunk, of="chunk") for chunk in chunks]
    whole = sum(part.loss_tokens * flatten(part.gradient) for part in parts) / len(ITEMS)
    np.testing.assert_allclose(
        whole, flatten(mean_gradient(model, batches_of(), of="set").gradient), rtol=1e-7, atol=1e-12
    )


def test_fewer_items_than_chunks_are_refused_however_many_their_options():
    with pytest.raises(
        TikmixError, match=r"task 'choice' has 2 items with loss, fewer than influence\.micro_batches = 3"
    ):
        deal_sets("task", {"choice": batches_of(ITEMS[:2])}, 3)


def test_a_chunk_is_named_by_all_that_decides_its_gradient_and_by_no_cut():
    (whole,), singles = batches_of(batch_size=100), batches_of(batch_size=1)
    name = chunk_identity([whole], "key", "float32")
    assert chunk_identity(singles, "key", "float32") == name
    changed = {
        "bytes_B": whole.bytes_B + 1,
        "gold_I": (whole.gold_I + 1) % whole.options_I,
        "options_I": whole.options_I[::-1],
    }
    names = {
        chunk_identity([ChoiceBatch(**vars(whole) | {key: new})], "key", "float32") for key, new in changed.items()
    }
    plain = chunk_identity([TokenBatch(whole.tokens_BS, whole.loss_BS)], "key", "float32")
    assert len(names | {name, plain}) == 5


@pytest.mark.parametrize("curvature", CURVATURES)
def test_streaming_finds_what_kept_gradients_give_for_tasks_of_either_kind(tmp_path: Path, curvature: str):
    model = tiny_model("gpt2", tied=True)
    built = curvature_of(model, curvature)
    kept = group_influence(collected(tmp_path / "kept", model, mixed_sets()), built)
    streamed = stream_influence(model, mixed_sets(), built, tmp_path / "streamed", key="one", memory_megabytes=100)
    found = influence_of(streamed, streamed.products_TMKL, streamed.curvature)
    np.testing.assert_allclose(found.influence_TK, kept.influence_TK, rtol=1e-9)
    assert found.tasks == ("arc", "choice", "boolq")
    assert kept.task_tokens_TM[1].tolist() == [3, 3, 3]
    assert kept.task_loss_T[1] == pytest.approx(torch.stack(item_losses(model, ITEMS, CONTEXT)).mean().item(), rel=1e-9)


def test_a_step_on_a_domain_lowers_the_loss_of_choices_by_the_influence(tmp_path: Path):
    model = tiny_model("gpt2", tied=True)
    found = group_influence(collected(tmp_path, model, mixed_sets()), curvature_of(model, "identity"))
    before = mean_gradient(model, batches_of(), of="set").loss
    step = mean_gradient(model, DOMAINS["web"], of="set").gradient
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.sub_(1e-6 * step[name])
    after = mean_gradient(model, batches_of(), of="set").loss
    assert (before - after) / 1e-6 == pytest.approx(found.influence_TK[1, list(found.domains).index("web")], rel=1e-3)


MIXED = {"recall": "choice", "rhyme": "answer"}


def parameters(task_loss: object, **settings: object) -> InfluenceParameters:
    return InfluenceParameters.model_validate({"task_loss": task_loss, "micro_batches": 2, **settings})


def test_one_run_mixes_kinds_of_loss(choice_shards: TokenShards):
    samples = target_samples(choice_shards, parameters(MIXED), context=64)
    assert [
        sum(batch.terms for batch in batches if isinstance(batch, ChoiceBatch)) for batches in samples.values()
    ] == [
        6,
        0,
    ]
    (answers,) = target_samples(choice_shards, parameters("answer", tasks=["rhyme"]), context=64).values()
    assert [batch.loss_BS.tolist() for batch in samples["rhyme"]] == [batch.loss_BS.tolist() for batch in answers]


@pytest.mark.parametrize(
    ("task_loss", "kinds"),
    [
        ("choice", ("choice", "choice")),
        ({"recall": "choice"}, ("choice", "text")),
        ({"default": "answer", "recall": "choice"}, ("choice", "answer")),
        ({"default": "choice", "rhyme": "text"}, ("choice", "text")),
    ],
)
def test_tasks_that_are_not_named_have_the_default_loss(task_loss: object, kinds: tuple[str, str]):
    assert (parameters(task_loss).loss_of("recall"), parameters(task_loss).loss_of("rhyme")) == kinds


def test_branches_are_scored_on_both_halves_by_the_loss_that_is_measured(choice_shards: TokenShards):
    texts = scored_texts(choice_shards, parameters(MIXED), items=4, context=64)
    items = TaskItems.open(choice_shards.tasks_file)
    for half in ("query", "evaluation"):
        (batch,) = texts[f"{half}/recall"]
        assert isinstance(batch, ChoiceBatch)
        options = sorted(len(item.option_ids) for item in items.choices("recall", half, 4))
        assert sorted(batch.options_I.tolist()) == options
        assert not any(isinstance(other, ChoiceBatch) for other in texts[f"{half}/rhyme"])


def test_a_task_without_options_is_refused_with_its_name_and_what_to_do(choice_shards: TokenShards):
    for look in (target_samples, scored_texts):
        given = {"items": None} if look is scored_texts else {}
        with pytest.raises(
            TikmixError, match=r"'choice' for the task 'rhyme', but none of its query items has options"
        ):
            look(choice_shards, parameters("choice"), context=64, **given)
    with pytest.raises(TikmixError, match=r"Give its records `options` .* or set influence\.task_loss\.rhyme to text"):
        require_choices(choice_shards, parameters("choice"))
    for harmless in (
        parameters(MIXED),
        parameters("choice", tasks=["recall"]),
        parameters("choice", targets="heldout"),
    ):
        require_choices(choice_shards, harmless)
