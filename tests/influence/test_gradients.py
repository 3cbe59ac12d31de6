import numpy as np
import pytest
import torch
from influence_oracle import flatten, mean_gradient_vector, random_batches, tiny_model

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.gradients import deal_into_chunks, mean_gradient, take_evenly
from tikmix_pipeline.lm.loss import summed_loss


@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("llama", True), ("qwen2", False), ("gpt2", True)])
def test_mean_gradient_is_the_mean_of_single_token_gradients(kind, tied):
    model, batches = tiny_model(kind, tied=tied), random_batches(2)
    mean = mean_gradient(model, batches, of="domain 'web'")
    assert list(mean.gradient) == [name for name, _ in model.named_parameters()]
    np.testing.assert_allclose(flatten(mean.gradient), mean_gradient_vector(model, batches), rtol=1e-7, atol=1e-9)
    assert mean.loss_tokens == sum(batch.loss_tokens for batch in batches)
    losses = [summed_loss(model, batch)[0].item() for batch in batches]
    assert mean.loss == pytest.approx(sum(losses) / mean.loss_tokens, rel=1e-12)


def test_mean_gradient_does_not_depend_on_batch_size_or_padding():
    model, (batch,) = tiny_model("llama"), random_batches(2, batches=1, sequences=4)
    singles = [TokenBatch(batch.tokens_BS[[row]], batch.loss_BS[[row]]) for row in range(4)]
    padded = TokenBatch(
        np.concatenate([batch.tokens_BS, np.full((4, 5), 9)], axis=1), np.pad(batch.loss_BS, ((0, 0), (0, 5)))
    )
    reference = flatten(mean_gradient(model, [batch], of="set").gradient)
    for other in (singles, [padded]):
        np.testing.assert_allclose(flatten(mean_gradient(model, other, of="set").gradient), reference, atol=1e-12)


def test_model_is_left_as_it_was_and_dropout_is_off():
    model = tiny_model("gpt2").train()
    model.transformer.h[0].mlp.eval()
    modes = [module.training for module in model.modules()]
    model.transformer.ln_f.weight.requires_grad_(False)
    model.lm_head.weight.grad = torch.full_like(model.lm_head.weight, 7)
    first, second = (mean_gradient(model, random_batches(2), of="set") for _ in range(2))
    assert [module.training for module in model.modules()] == modes
    assert not model.transformer.ln_f.weight.requires_grad
    assert "transformer.ln_f.weight" not in first.gradient
    assert (model.lm_head.weight.grad == 7).all()
    assert model.transformer.wte.weight.grad is None
    assert (flatten(first.gradient) == flatten(second.gradient)).all()


def test_works_where_gradients_are_switched_off():
    with torch.no_grad():
        mean = mean_gradient(tiny_model("llama"), random_batches(2), of="set")
    assert all(values.isfinite().all() for values in mean.gradient.values())


def test_unused_parameter_has_a_zero_gradient():
    model = tiny_model("llama")
    model.register_parameter("spare", torch.nn.Parameter(torch.ones(3).double()))
    assert (mean_gradient(model, random_batches(2), of="set").gradient["spare"] == 0).all()


def test_progress_is_counted_in_loss_tokens():
    batches, seen = random_batches(2, batches=3), []
    mean_gradient(tiny_model("llama"), batches, of="set", advance=seen.append)
    assert seen == [batch.loss_tokens for batch in batches]


def test_broken_gradient_names_parameter_and_set():
    model = tiny_model("llama")
    model.lm_head.weight.data[0, 0] = float("inf")
    with pytest.raises(TikmixError, match=r"gradient of the task 'arc' is not finite in model\.embed_tokens\.weight"):
        mean_gradient(model, random_batches(2), of="task 'arc'")


def test_set_without_loss_is_named():
    (batch,) = random_batches(2, batches=1)
    silent = TokenBatch(batch.tokens_BS, np.zeros_like(batch.loss_BS))
    with pytest.raises(TikmixError, match="domain 'web' has no token that carries loss"):
        mean_gradient(tiny_model("llama"), [silent], of="domain 'web'")


def test_frozen_model_is_refused():
    with pytest.raises(TikmixError, match="no trainable parameter"):
        mean_gradient(tiny_model("llama").requires_grad_(False), random_batches(2), of="set")


def sequences(batches: list[TokenBatch]) -> list[tuple[int, ...]]:
    """Loss-carrying tokens with what stands before them, as hashable rows."""
    rows = []
    for batch in batches:
        for tokens, carries in zip(batch.tokens_BS, batch.loss_BS, strict=True):
            if carries.any():
                end = int(np.flatnonzero(carries)[-1]) + 1
                rows.append((*tokens[:end].tolist(), -1, *np.flatnonzero(carries).tolist()))
    return rows


def test_parts_hold_every_sequence_once_and_keep_its_loss():
    batches = random_batches(3, batches=4, sequences=5)
    chunks = deal_into_chunks(batches, 3)
    assert sorted(row for chunk in chunks for row in sequences(chunk)) == sorted(sequences(batches))
    assert max(len(sequences(chunk)) for chunk in chunks) - min(len(sequences(chunk)) for chunk in chunks) <= 1
    assert all(len(batch) <= 5 for chunk in chunks for batch in chunk)


def test_parts_of_a_sorted_set_see_its_whole_range():
    batches = [TokenBatch.of_windows(np.full((4, length), length)) for length in (2, 4, 6, 8)]
    for chunk in deal_into_chunks(batches, 4):
        assert sorted(len(row) for row in sequences(chunk)) == sorted(length + length for length in (2, 4, 6, 8))


def test_padding_behind_the_last_loss_token_is_cut_and_silent_sequences_dropped():
    tokens = np.arange(24).reshape(3, 8)
    loss = np.zeros((3, 8), dtype=bool)
    loss[0, 2], loss[1, 3] = True, True
    (chunk,) = deal_into_chunks([TokenBatch(tokens, loss)], 1)
    assert [batch.tokens_BS.shape for batch in chunk] == [(2, 4)]


def test_too_few_sequences_leave_chunks_empty():
    assert [len(chunk) for chunk in deal_into_chunks(random_batches(3, batches=1, sequences=2), 3)] == [1, 1, 0]


def test_take_evenly_gives_every_domain_its_share_rounded_up():
    domains = {name: random_batches(seed, batches=5, sequences=2, loss="all") for seed, name in enumerate("ab")}
    taken = take_evenly(domains, loss_tokens=2 * 15)
    assert sum(batch.loss_tokens for batch in taken) == 2 * 18  # 15 of 6 tokens a sequence takes three sequences
    assert sequences(taken) == sequences(domains["a"])[:3] + sequences(domains["b"])[:3]


def test_take_evenly_takes_all_of_a_small_domain():
    domains = {"small": random_batches(0, batches=1, sequences=1, loss="all"), "large": random_batches(1, batches=9)}
    taken = sequences(take_evenly(domains, loss_tokens=60))
    assert sequences(domains["small"])[0] in taken
    assert len(taken) > 5


def test_take_evenly_of_nothing_is_nothing():
    assert take_evenly({}, 10) == []
    assert take_evenly({"empty": []}, 10) == []
