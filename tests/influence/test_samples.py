import dataclasses

import numpy as np
import pytest
import torch

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.influence.gradients import sequences
from tikmix_pipeline.influence.samples import MeasuredText, window_growths
from tikmix_pipeline.parameters import InfluenceParameters

CONTEXT = 32


def measured_text(shards: TokenShards, **influence: object) -> MeasuredText:
    """The corpus after one step of training, without a model."""
    windows = {domain: shards.windows(domain, CONTEXT) for domain in shards.domains}
    stream = MixtureStream(windows, dict.fromkeys(shards.domains, 1 / 3), batch_size=6, seed=0)
    stream.next_batch()
    parameters = InfluenceParameters.model_validate({"tokens": 320, "micro_batches": 4, "batch_size": 3, **influence})
    return MeasuredText(torch.nn.Identity(), stream, shards, parameters, CONTEXT)


def rows(batches: list[TokenBatch]) -> list[list[int]]:
    return [tokens_S.tolist() for tokens_S, _ in sequences(batches)]


def test_domain_chunks_are_the_windows_that_training_would_read_next(token_shards):
    text = measured_text(token_shards)
    for domain, chunks in text.domain_chunks().items():
        upcoming = text.stream.upcoming(domain, 10).tolist()
        assert [len(rows(chunk)) for chunk in chunks] == [3, 3, 2, 2]
        assert sorted(row for chunk in chunks for row in rows(chunk)) == sorted(upcoming)


def test_factors_are_fitted_on_an_even_share_of_every_domain_whatever_is_measured(token_shards):
    batches = measured_text(token_shards, factor_tokens=300).factor_batches()
    assert rows(batches) == rows(measured_text(token_shards, factor_tokens=300, tokens="auto").factor_batches())
    text = measured_text(token_shards)
    expected = [row for domain in token_shards.domains for row in text.stream.upcoming(domain, 4).tolist()]
    assert rows(batches) == expected


@pytest.mark.parametrize(
    ("shares", "sequences_of"),
    [((0.5, 0.3, 0.2), (5, 3, 2)), ((0.97, 0.02, 0.01), (10, 0, 0)), ((0.0, 0.25, 0.75), (0, 3, 7))],
)
def test_factors_of_a_mixture_are_fitted_on_domains_in_proportion_to_it(token_shards, shares, sequences_of):
    """Ten sequences of 32 tokens; halves go either way, and a domain without a share is not read."""
    mixture = dict(zip(token_shards.domains, shares, strict=True))
    text = measured_text(token_shards, factor_tokens=300)
    found = rows(text.factor_batches(mixture))
    assert len(found) == sum(sequences_of) == 10
    taken = {domain: [row for row in found if row in text.stream.upcoming(domain, 10).tolist()] for domain in mixture}
    for (domain, read), count in zip(taken.items(), sequences_of, strict=True):
        assert abs(len(read) - count) <= (0.25 in shares)
        assert read == text.stream.upcoming(domain, len(read)).tolist()


def test_factors_of_the_uniform_mixture_are_those_of_domains_alike(token_shards):
    text = measured_text(token_shards, factor_tokens=3 * 4 * CONTEXT)
    mixture = dict.fromkeys(token_shards.domains, 1 / 3)
    assert rows(text.factor_batches(mixture)) == rows(text.factor_batches())


def test_growing_chunks_keep_what_there_was_and_read_on_from_there(token_shards):
    text = measured_text(token_shards, tokens="auto", max_tokens=8 * 4 * CONTEXT)
    before: dict[str, list[list[list[int]]]] = {}
    for growth, (tokens, chunks) in enumerate(text.growing_domain_chunks()):
        assert tokens == 4 * 2**growth * CONTEXT
        for domain, dealt in chunks.items():
            found = [rows(chunk) for chunk in dealt]
            assert len(found) == 4 * (growth + 1)
            assert found[: len(before.get(domain, []))] == before.get(domain, [])
            assert [row for chunk in found for row in chunk] == text.stream.upcoming(domain, 4 * 2**growth).tolist()
            before[domain] = found
    assert growth == 3


def test_measurements_double_and_their_chunks_grow():
    sizes = list(window_growths(micro_batches=4, context=10, max_tokens=650))
    assert sizes == [1, 1, 2, 4, 8]
    assert (np.cumsum(4 * np.array(sizes)) * 10).tolist() == [40, 80, 160, 320, 640]


def test_first_measurement_is_made_whatever_the_cap():
    assert list(window_growths(micro_batches=4, context=10, max_tokens=10)) == [1]


@pytest.mark.parametrize(("tokens", "windows"), [(96, 3), ("auto", 5)])
def test_held_out_targets_are_of_the_size_of_the_domains_or_of_the_tasks(token_shards, tokens, windows):
    text = measured_text(token_shards, targets="heldout", tokens=tokens, items_per_task=5, micro_batches=2)
    chunks = text.target_chunks()
    assert list(chunks) == [f"heldout-{domain}" for domain in token_shards.domains]
    assert {sum(len(rows(chunk)) for chunk in dealt) for dealt in chunks.values()} == {windows}


def test_rounds_are_measured_on_other_query_items_and_the_same_number(token_shards):
    text = measured_text(token_shards, items_per_task=3, micro_batches=2)
    turns = [dataclasses.replace(text, turn=turn).target_chunks() for turn in (0, 1)]
    for task in ("recall", "rhyme"):
        first, second = ([tuple(row) for chunk in chunks[task] for row in rows(chunk)] for chunks in turns)
        assert len(first) == len(second) == 3
        assert not set(first) & set(second)


def test_tasks_are_their_query_items_alone(token_shards):
    chunks = measured_text(token_shards, items_per_task=None, targets="all").target_chunks()
    assert {len([row for chunk in chunks[task] for row in rows(chunk)]) for task in ("recall", "rhyme")} == {7}
    assert len(chunks) == 5


def test_short_sequences_are_the_beginnings_of_as_many_more_windows(token_shards):
    text = measured_text(token_shards, context=8)
    for domain, chunks in text.domain_chunks().items():
        measured = [row for chunk in chunks for row in rows(chunk)]
        assert sorted(measured) == sorted(text.stream.upcoming(domain, 320 // 8)[:, :9].tolist())
        # as many tokens at once as three sequences of the training's context
        assert max(len(batch) for chunk in chunks for batch in chunk) <= 3 * CONTEXT // 8


def test_no_sequence_is_longer_than_those_of_training(token_shards):
    for context in (None, CONTEXT, 4 * CONTEXT):
        assert measured_text(token_shards, context=context).domain_context == CONTEXT


def test_a_candidate_s_tokens_are_its_mixture_and_none_that_the_domains_are_measured_on(token_shards):
    text = measured_text(token_shards, tokens=64)
    first, second, third = token_shards.domains
    drawn = rows(text.drawn_by({first: 0.5, second: 0.5, third: 0.0}, 4 * CONTEXT, seed=0))
    assert len(drawn) == 4
    for domain, count in {first: 2, second: 2, third: 0}.items():
        upcoming = text.stream.upcoming(domain, 10).tolist()
        assert sum(row in upcoming[2:] for row in drawn) == count
        assert not any(row in upcoming[:2] for row in drawn)


def test_two_candidates_draw_other_tokens_of_the_same_mixture(token_shards):
    text, even = measured_text(token_shards, tokens=64), dict.fromkeys(token_shards.domains, 1 / 3)
    one, same, other = (rows(text.drawn_by(even, 6 * CONTEXT, seed=seed)) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert len(one) == len(other) == 6
