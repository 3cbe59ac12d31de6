import math

import numpy as np
import pytest
import torch
from choice_examples import item_losses
from lm_examples import gpt2_model, tiny_model
from torch import nn

from tikmix_pipeline.corpus.tasks import TaskItems, TokenisedItem, item_batches
from tikmix_pipeline.lm import evaluation
from tikmix_pipeline.lm.divergence import DivergedError
from tikmix_pipeline.lm.evaluation import (
    ScoredText,
    evaluation_texts,
    score,
    score_items,
    text_losses,
    text_of_heldout,
    text_of_items,
)

CONTEXT = 16


def nats(model: nn.Module, ids: list[int], first: int) -> float:
    """Add -log p of the tokens from position `first` on, each read from a forward pass of its own, without padding."""
    total = 0.0
    for position in range(first, len(ids)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:position]])).logits[0, -1].double().tolist()
        largest = max(logits)
        log_sum = largest + math.log(sum(math.exp(logit - largest) for logit in logits))
        total += log_sum - logits[ids[position]]
    return total


def bits_of_items(model: nn.Module, items: list[TokenisedItem], measure: str, context: int) -> float:
    total_nats, total_bytes = 0.0, 0.0
    whole = scored = 0
    for item in items:
        ids = [*item.question_ids, *item.answer_ids][-(context + 1) :]
        first = len(ids) - len(item.answer_ids) if measure == "answer" else 1
        total_nats += nats(model, ids, first)
        total_bytes += item.answer_bytes if measure == "answer" else item.text_bytes
        whole += len(item.question_ids) + len(item.answer_ids) - 1
        scored += len(ids) - 1
    return total_nats / math.log(2) / (total_bytes if measure == "answer" else total_bytes * scored / whole)


def only(model: nn.Module, text: ScoredText) -> float:
    key = ("one", "task", "answer")
    return score(model, {key: text}, device="cpu")[key]


@pytest.mark.parametrize("measure", ["answer", "text"])
@pytest.mark.parametrize(("family", "context"), [("llama", CONTEXT), ("llama", 43), ("gpt2", 43)])
def test_bits_per_byte_of_a_task_equal_a_loop_over_tokens(token_shards, family, context, measure):
    """At a context of 43 some questions are cut, at 16 all are."""
    items = TaskItems.open(token_shards.tasks_file).items("recall", "evaluation")[:4]
    cut = [len(item.question_ids) + len(item.answer_ids) > context + 1 for item in items]
    assert any(cut)
    assert all(cut) == (context == CONTEXT)
    vocabulary_size = token_shards.vocabulary_size
    model = tiny_model(vocabulary_size) if family == "llama" else gpt2_model(vocabulary_size, context=context)
    found = only(model, text_of_items(items, measure, context=context))
    assert found == pytest.approx(bits_of_items(model, items, measure, context), rel=1e-5)


def test_bits_per_byte_of_a_domain_equal_a_loop_over_tokens(token_shards):
    """The held-out documents back to back; the few tokens that fill no window are left out."""
    model = tiny_model(token_shards.vocabulary_size).eval()
    entry = token_shards.manifest.domains["verse"]["heldout"]
    ids = np.concatenate([np.fromfile(token_shards.folder / file.file, "<u2") for file in entry.files]).tolist()
    count = (len(ids) - 1) // CONTEXT
    assert count * CONTEXT < len(ids) - 1
    expected = sum(nats(model, ids[w * CONTEXT : (w + 1) * CONTEXT + 1], 1) for w in range(count))
    expected /= math.log(2) * count * CONTEXT * entry.bytes / entry.tokens
    found = only(model, text_of_heldout(token_shards, "verse", context=CONTEXT, limit=None))
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(token_shards):
    model = tiny_model(token_shards.vocabulary_size)
    nn.init.zeros_(model.lm_head.weight)
    texts = evaluation_texts(token_shards, context=CONTEXT, items=None, windows=None)
    for name, value in score(model, texts, device="cpu").items():
        tokens = sum(batch.loss_tokens for batch in texts[name].batches)
        assert value == pytest.approx(math.log2(320) * tokens / texts[name].text_bytes, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_scores_do_not_depend_on_the_batch_size(token_shards, monkeypatch, batch_size):
    model = tiny_model(token_shards.vocabulary_size)
    expected = score(model, evaluation_texts(token_shards, context=CONTEXT, items=None, windows=20), device="cpu")
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", batch_size)
    found = score(model, evaluation_texts(token_shards, context=CONTEXT, items=None, windows=20), device="cpu")
    assert found == pytest.approx(expected, rel=1e-6)


def test_scores_do_not_depend_on_the_order_of_the_items(token_shards):
    items = TaskItems.open(token_shards.tasks_file).items("rhyme", "evaluation")
    model = tiny_model(token_shards.vocabulary_size)
    one, other = (only(model, text_of_items(part, "text", context=CONTEXT)) for part in (items, items[::-1]))
    assert one == pytest.approx(other, rel=1e-6)


def test_evaluation_covers_every_task_and_domain_once(token_shards):
    texts = evaluation_texts(token_shards, context=CONTEXT, items=2, windows=5)
    tasks = [(task, "task", measure) for task in ("recall", "rhyme") for measure in ("answer", "text")]
    assert list(texts) == [*tasks, *((domain, "domain", "text") for domain in ("code", "prose", "verse"))]
    rows = {key: sum(len(batch) for batch in text.batches) for key, text in texts.items()}
    assert set(rows.values()) == {2, 5}
    assert rows["recall", "task", "answer"] == 2


def test_items_that_guide_the_mixture_do_not_judge_it(token_shards):
    (batch,) = evaluation_texts(token_shards, context=200, items=None, windows=1)["recall", "task", "answer"].batches
    rows = {tuple(tokens_S) for tokens_S in batch.tokens_BS.tolist()}
    items = TaskItems.open(token_shards.tasks_file)
    width = batch.tokens_BS.shape[1]
    for half, expected in (("query", 0), ("evaluation", 7)):
        ids = [[*item.question_ids, *item.answer_ids] for item in items.items("recall", half)]
        assert len(rows & {tuple(one + [0] * (width - len(one))) for one in ids}) == expected


@pytest.mark.parametrize("limit", [1, 2, 7, 20, None])
def test_limited_windows_are_distinct_and_spread_over_the_heldout_text(token_shards, limit):
    windows = token_shards.windows("code", CONTEXT, "heldout")
    text = text_of_heldout(token_shards, "code", context=CONTEXT, limit=limit)
    rows = np.concatenate([batch.tokens_BS for batch in text.batches])
    every = windows.take(np.arange(len(windows)))
    where = [int(np.flatnonzero((every == row).all(axis=1))[0]) for row in rows]
    assert where == sorted(set(where))
    assert len(where) == min(limit or len(windows), len(windows))
    if len(where) > 1:
        assert (where[0], where[-1]) == (0, len(windows) - 1)
        assert max(np.diff(where)) - min(np.diff(where)) <= 1
    assert text.text_bytes == pytest.approx(len(where) * CONTEXT * token_shards.bytes_per_token("code", "heldout"))


def test_scoring_ends_dropout_and_moves_no_weight(token_shards):
    model = gpt2_model(token_shards.vocabulary_size).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    texts = evaluation_texts(token_shards, context=CONTEXT, items=3, windows=3)
    assert score(model, texts, device="cpu") == score(model.train(), texts, device="cpu")
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())
    assert all(p.grad is None for p in model.parameters())


def test_answers_and_whole_items_are_read_in_one_pass(token_shards):
    model = tiny_model(token_shards.vocabulary_size)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    texts = evaluation_texts(token_shards, context=CONTEXT, items=3, windows=3)
    together = score(model, texts, device="cpu")
    assert len(passes) == 5  # two tasks and three domains
    assert together == pytest.approx({key: only(model, text) for key, text in texts.items()}, rel=1e-6)


def test_a_model_worse_than_guessing_gets_no_score(token_shards):
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1000)
    texts = evaluation_texts(token_shards, context=32, items=4, windows=2)
    with pytest.raises(DivergedError, match="what is scored"):
        score(model, texts, device="cpu")


def test_tasks_with_options_are_scored_by_their_choices_too(choice_shards):
    model = tiny_model(choice_shards.vocabulary_size).eval()
    texts = evaluation_texts(choice_shards, context=CONTEXT, items=4, windows=3)
    measures = [(task, measure) for task, kind, measure in texts if kind == "task"]
    assert measures == [
        *(("recall", measure) for measure in ("answer", "text", "choice")),
        *(("rhyme", measure) for measure in ("answer", "text")),
    ]
    items = TaskItems.open(choice_shards.tasks_file).choices("recall", "evaluation", 4)
    with torch.no_grad():
        expected = float(torch.stack(item_losses(model, items, CONTEXT)).mean())
    scores = score(model, texts, device="cpu")
    assert scores["recall", "task", "choice"] == pytest.approx(expected, rel=1e-5)
    bits = {key: text for key, text in texts.items() if not text.is_choice}
    assert score(model, bits, device="cpu") == {key: scores[key] for key in bits}
    alone = score_items(model, texts, device="cpu")["recall", "task", "choice"]
    assert alone.bytes_I is None
    with torch.no_grad():
        assert alone.nats_I == pytest.approx([float(loss) for loss in item_losses(model, items, CONTEXT)], rel=1e-5)


def test_options_leave_bits_per_byte_as_they_are(token_shards, choice_shards):
    model = tiny_model(token_shards.vocabulary_size)
    without, beside = (
        score(model, evaluation_texts(shards, context=CONTEXT, items=None, windows=3), device="cpu")
        for shards in (token_shards, choice_shards)
    )
    assert {key: value for key, value in beside.items() if key[2] != "choice"} == without


@pytest.mark.parametrize("batch_size", [3, 1000])
@pytest.mark.parametrize("measure", ["answer", "text"])
def test_items_are_scored_in_the_order_of_the_corpus_as_each_of_them_alone_would_be(
    token_shards, monkeypatch, measure, batch_size
):
    """Batches hold them by length."""
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", batch_size)
    items = TaskItems.open(token_shards.tasks_file).items("recall", "evaluation")
    model, key = tiny_model(token_shards.vocabulary_size), ("recall", "task", measure)
    found = score_items(model, {key: text_of_items(items, measure, context=200)}, device="cpu")[key]
    for nats, size, item in zip(found.nats_I, found.bytes_I, items, strict=True):
        assert nats / math.log(2) / size == pytest.approx(
            only(model, text_of_items([item], measure, context=200)), rel=1e-5
        )
        assert size == pytest.approx(item.answer_bytes if measure == "answer" else item.text_bytes)


def test_items_and_windows_add_up_to_their_text(token_shards):
    model = tiny_model(token_shards.vocabulary_size)
    texts = evaluation_texts(token_shards, context=CONTEXT, items=None, windows=20)
    scores = score(model, texts, device="cpu")
    for key, found in score_items(model, texts, device="cpu").items():
        assert found.value == scores[key]
        assert len(found.nats_I) == sum(len(batch) for batch in texts[key].batches)
        assert found.nats_I.sum() / math.log(2) / found.bytes_I.sum() == pytest.approx(found.value, rel=1e-12)
        assert found.bytes_I.sum() == pytest.approx(texts[key].text_bytes, rel=1e-12)


def test_texts_that_are_the_same_are_scored_row_by_row_alike(token_shards):
    """Batches of the same tokens are read once, also where a text holds one twice."""
    model = tiny_model(token_shards.vocabulary_size)
    text = text_of_heldout(token_shards, "code", context=CONTEXT, limit=3)
    other = text_of_heldout(token_shards, "verse", context=CONTEXT, limit=3)
    batches = [*text.batches, *other.batches, *text.batches]
    rows = evaluation.row_losses(model, {"both": batches, "one": text.batches}, device="cpu")
    np.testing.assert_array_equal(rows["both"].nats_I[:3], rows["both"].nats_I[6:])
    np.testing.assert_array_equal(rows["both"].nats_I[:3], rows["one"].nats_I)


def test_losses_of_single_tokens_stand_in_the_order_of_the_text_and_add_up_to_its_loss(token_shards):
    """Also where batches that two texts share are read in another order than the text has."""
    items = TaskItems.open(token_shards.tasks_file).items("recall", "evaluation")
    first, second = item_batches(items, context=43, batch_size=4, loss="answer", pad_id=0)
    texts = {"one": [first, second], "other": [second, first]}
    model = tiny_model(token_shards.vocabulary_size)
    found = text_losses(model, texts, device="cpu", by_token=True)
    alone = [text_losses(model, {"it": [batch]}, device="cpu", by_token=True)["it"] for batch in (first, second)]
    assert found["one"].by_token == [*alone[0].by_token, *alone[1].by_token]
    assert found["other"].by_token == [*alone[1].by_token, *alone[0].by_token]
    for loss in found.values():
        assert len(loss.by_token) == loss.tokens
        assert sum(loss.by_token) == pytest.approx(loss.nats, abs=1e-6 * loss.tokens)
    ids = first.tokens_BS[0, : int(np.flatnonzero(first.loss_BS[0])[-1]) + 1].tolist()
    start = int(np.flatnonzero(first.loss_BS[0])[0])
    of_item = found["one"].by_token[: len(ids) - start]
    assert sum(of_item) == pytest.approx(nats(model, ids, start), rel=1e-4)
    assert text_losses(model, texts, device="cpu")["one"].by_token == []
