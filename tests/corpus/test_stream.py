"""The stream is a pure function of (seed, weights so far, step); every window of the corpus has tokens of its own."""

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.corpus import stream as stream_module
from tikmix_pipeline.corpus.batches import Windows
from tikmix_pipeline.corpus.stream import MixtureStream, check_weights
from tikmix_pipeline.errors import TikmixError

CONTEXT = 4
SIZES = {"books": 37, "code": 120, "web": 300}
MIXTURES = [
    {"books": 0.2, "code": 0.3, "web": 0.5},
    {"books": 0.05, "code": 0.9, "web": 0.05},
    {"books": 0.0, "code": 1 / 3, "web": 2 / 3},
    {"books": 0.71, "code": 0.29, "web": 0.0},
]


@pytest.fixture(scope="module", autouse=True)
def short_blocks():
    """Let the short runs of these tests cross many borders of the blocks in which the stream plans ahead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "_STEPS_PER_BLOCK", 16)
        yield


def domains_of(sizes=SIZES):
    """Domain d's i-th window starts with the token 10,000·d + CONTEXT·i, so that a row names its window."""
    return {
        name: Windows([np.arange(number * 10_000, number * 10_000 + count * CONTEXT + 1, dtype=np.uint32)], CONTEXT)
        for number, (name, count) in enumerate(sizes.items())
    }


def stream_of(weights=None, *, sizes=SIZES, batch_size=16, seed=3):
    return MixtureStream(domains_of(sizes), weights or MIXTURES[0], batch_size=batch_size, seed=seed)


def windows_read(batches, sizes=SIZES):
    """Return the window indices of each domain in the order in which the batches hold them."""
    read = defaultdict(list)
    for row in np.concatenate(batches):
        name = list(sizes)[row[0] // 10_000]
        read[name].append(int(row[0] % 10_000) // CONTEXT)
        assert np.diff(row).tolist() == [1] * CONTEXT
    return read


def drive(stream, changes, first, last, **ranks):
    """Read the steps from `first` to `last`, setting the weights that `changes` names for a step before it."""
    batches = []
    for step in range(first, last):
        if step in changes:
            stream.set_weights(MIXTURES[changes[step]])
        batches.append(stream.next_batch(**ranks))
    return batches


changes_of_weights = st.dictionaries(st.integers(0, 99), st.integers(0, len(MIXTURES) - 1), max_size=5)


def test_batches_have_the_batch_size_and_the_dtype_of_token_ids():
    stream = stream_of()
    batch = stream.next_batch()
    assert batch.shape == (16, CONTEXT + 1)
    assert batch.dtype == np.int64
    assert stream.step == 1


@settings(deadline=None, max_examples=40)
@given(changes=changes_of_weights, stop=st.integers(0, 99), batch_size=st.sampled_from([1, 7, 64]))
def test_stream_resumes_exactly_at_any_step_from_json(changes, stop, batch_size):
    last = 100
    whole = stream_of(batch_size=batch_size)
    drive(whole, changes, 0, stop)
    state = json.loads(json.dumps(whole.state_dict()))
    resumed = stream_of(MIXTURES[3], batch_size=batch_size)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    expected, got = drive(whole, changes, stop, last), drive(resumed, changes, stop, last)
    assert all(np.array_equal(one, other) for one, other in zip(expected, got, strict=True))
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("stop", [0, 255, 256, 257, 300])
def test_stream_resumes_exactly_around_the_border_of_a_full_block(stop, monkeypatch):
    monkeypatch.setattr(stream_module, "_STEPS_PER_BLOCK", 256)
    whole = stream_of()
    drive(whole, {}, 0, stop)
    resumed = stream_of()
    resumed.load_state_dict(whole.state_dict())
    assert np.array_equal(drive(whole, {}, stop, 520), drive(resumed, {}, stop, 520))


def test_a_batch_larger_than_a_block_is_planned_alone(monkeypatch):
    monkeypatch.setattr(stream_module, "_TOKENS_PER_BLOCK", 32)
    stream = stream_of({"books": 0.5, "code": 0.5, "web": 0.0})
    read = windows_read([stream.next_batch() for _ in range(30)])
    assert sorted(read["code"][:120]) == list(range(120))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_ranks(world_size):
    changes = {30: 1, 71: 2}
    expected = drive(stream_of(), changes, 0, 100)
    ranks = [drive(stream_of(), changes, 0, 100, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, batch in enumerate(expected):
        dealt = [ranks[rank][step] for rank in range(world_size)]
        assert np.array_equal(np.stack(dealt, axis=1).reshape(batch.shape), batch)


def test_a_run_goes_on_with_another_number_of_ranks():
    two_ranks = [stream_of(), stream_of()]
    for rank, stream in enumerate(two_ranks):
        drive(stream, {}, 0, 13, rank=rank, world_size=2)
    assert two_ranks[0].state_dict() == two_ranks[1].state_dict()
    alone, reference = stream_of(), stream_of()
    alone.load_state_dict(two_ranks[1].state_dict())
    drive(reference, {}, 0, 13)
    assert np.array_equal(alone.next_batch(), reference.next_batch())


def test_ranks_that_cannot_share_the_batch_are_refused():
    with pytest.raises(TikmixError, match=r"train\.batch_size = 16 .* rank 0 of 3.*multiple"):
        stream_of().next_batch(rank=0, world_size=3)
    with pytest.raises(TikmixError, match="rank 2 of 2"):
        stream_of().next_batch(rank=2, world_size=2)


@settings(deadline=None, max_examples=40)
@given(changes=changes_of_weights)
def test_nothing_is_repeated_or_skipped_across_weight_changes(changes):
    """Cut into epochs, the windows a domain gives are whole permutations, and a part of one, whatever the weights."""
    stream = stream_of()
    read = windows_read(drive(stream, changes, 0, 100))
    assert {name: len(indices) for name, indices in read.items() if indices} == {
        name: count for name, count in stream.consumed.items() if count
    }
    for name, indices in read.items():
        size = SIZES[name]
        for start in range(0, len(indices), size):
            epoch = indices[start : start + size]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(range(size))


@settings(deadline=None, max_examples=40)
@given(changes=changes_of_weights, stop=st.integers(0, 99))
def test_which_window_a_domain_gives_next_does_not_depend_on_the_weights(changes, stop):
    changed, constant = stream_of(), stream_of()
    read, reference = windows_read(drive(changed, changes, 0, stop + 1)), windows_read(drive(constant, {}, 0, 100))
    for name in SIZES:
        common = min(len(read[name]), len(reference[name]))
        assert read[name][:common] == reference[name][:common]


def test_epochs_are_shuffled_differently_and_domains_independently():
    stream = MixtureStream(domains_of({"a": 50, "b": 50}), {"a": 0.5, "b": 0.5}, batch_size=20, seed=0)
    read = windows_read([stream.next_batch() for _ in range(10)], {"a": 50, "b": 50})
    orders = [read["a"][:50], read["a"][50:], read["b"][:50], read["b"][50:]]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert stream.epochs("a") == stream.epochs("b") == 2.0


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any),
    batch_size=st.integers(1, 33),
    seed=st.integers(0, 2**64),
)
def test_realised_counts_stay_within_one_row_of_the_weights(parts, batch_size, seed):
    """In every batch, and over every number of batches since the weights were set, for old and new weights."""
    for before in (0, 17):
        stream = stream_of(batch_size=batch_size, seed=seed)
        drive(stream, {}, 0, before)
        weights = dict(zip(SIZES, (part / sum(parts) for part in parts), strict=True))
        stream.set_weights(weights)
        consumed = stream.consumed
        for batch in range(1, 40):
            announced = stream.counts()
            read = windows_read([stream.next_batch()])
            assert announced == {name: len(read[name]) for name in SIZES}
            for name, weight in weights.items():
                quota = weight * batch_size
                assert abs(announced[name] - quota) < 1 + 1e-9
                assert abs(stream.consumed[name] - consumed[name] - batch * quota) < 1 + 1e-9


def test_whole_quotas_are_met_exactly():
    stream = stream_of({"books": 0.25, "code": 0.25, "web": 0.5})
    for _ in range(70):
        assert stream.counts() == {"books": 4, "code": 4, "web": 8}
        stream.next_batch()


def test_batches_are_a_pure_function_of_seed_and_weights():
    one, other = stream_of(), stream_of()
    assert np.array_equal(drive(one, {5: 1}, 0, 80), drive(other, {5: 1}, 0, 80))
    assert not np.array_equal(stream_of(seed=3).next_batch(), stream_of(seed=4).next_batch())


def test_looking_at_the_stream_does_not_change_it():
    looked_at, left_alone = stream_of(), stream_of()
    for _ in range(70):
        looked_at.counts(), looked_at.state_dict(), looked_at.upcoming("books", 50), looked_at.epochs("web")
        looked_at.set_weights(dict(MIXTURES[0]))
        assert np.array_equal(looked_at.next_batch(), left_alone.next_batch())


def test_the_order_of_the_domains_in_the_mapping_does_not_matter():
    backwards = dict(reversed(domains_of().items()))
    stream = MixtureStream(backwards, dict(reversed(MIXTURES[0].items())), batch_size=16, seed=3)
    assert np.array_equal(drive(stream, {}, 0, 5), drive(stream_of(), {}, 0, 5))


def test_rows_of_a_batch_are_shuffled():
    stream = stream_of()
    domain_orders = {tuple((stream.next_batch()[:, 0] // 10_000).tolist()) for _ in range(50)}
    assert len(domain_orders) == 50


@settings(deadline=None, max_examples=40)
@given(stop=st.integers(0, 80), count=st.integers(0, 100), mixture=st.integers(0, len(MIXTURES) - 1))
def test_upcoming_is_what_is_read_next_even_across_an_epoch(stop, count, mixture):
    stream = stream_of()
    drive(stream, {}, 0, stop)
    stream.set_weights(MIXTURES[mixture])
    upcoming = {name: stream.upcoming(name, count)[:, 0] % 10_000 // CONTEXT for name in SIZES}
    read = windows_read(drive(stream, {}, stop, stop + 30))
    for name in SIZES:
        common = min(count, len(read[name]))
        assert len(upcoming[name]) == count
        assert upcoming[name][:common].tolist() == read[name][:common]


@pytest.mark.parametrize("stop", [0, 5, 40])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_what_would_have_come_after_the_skipped_windows_is_read(stop, mixture):
    skipped = {"books": 30, "web": 7}
    plain, ahead = stream_of(), stream_of()
    for stream in (plain, ahead):
        drive(stream, {}, 0, stop)
    ahead.skip(skipped)
    for stream in (plain, ahead):
        stream.set_weights(mixture)
    whole, rest = (windows_read(drive(stream, {}, stop, stop + 60)) for stream in (plain, ahead))
    for name in SIZES:
        expected = whole[name][skipped.get(name, 0) :]
        common = min(len(expected), len(rest[name]))
        assert rest[name][:common] == expected[:common]
        assert common > 0 or mixture[name] == 0


def test_a_skip_survives_its_state_and_counts_as_consumed():
    stream = stream_of()
    drive(stream, {}, 0, 21)
    before = stream.consumed
    stream.skip({"books": 50, "code": 0})
    assert stream.consumed == before | {"books": before["books"] + 50}
    restored = stream_of()
    restored.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    for ours, theirs in zip(drive(stream, {}, 21, 60), drive(restored, {}, 21, 60), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_are_held_to_from_a_skip_on():
    stream = stream_of()
    drive(stream, {}, 0, 21)
    stream.skip(dict.fromkeys(SIZES, 11))
    start = stream.consumed
    drive(stream, {}, 21, 50)
    for name, weight in MIXTURES[0].items():
        assert abs(stream.consumed[name] - start[name] - 29 * 16 * weight) < 1


def test_skipping_nothing_changes_nothing():
    plain, skipped = stream_of(), stream_of()
    for stream in (plain, skipped):
        drive(stream, {}, 0, 21)
    skipped.skip({"books": 0})
    assert skipped.state_dict() == plain.state_dict()


@pytest.mark.parametrize(
    ("windows", "message"), [({"boks": 1}, "no such domain"), ({"books": -1}, "only moves forward")]
)
def test_a_skip_that_cannot_be_is_refused(windows, message):
    with pytest.raises(TikmixError, match=message):
        stream_of().skip(windows)


def test_a_domain_smaller_than_a_batch_is_repeated_whole():
    stream = stream_of({"books": 1.0, "code": 0.0, "web": 0.0}, sizes={"books": 3, "code": 5, "web": 5}, batch_size=8)
    read = windows_read([stream.next_batch() for _ in range(30)])["books"]
    assert all(sorted(read[start : start + 3]) == [0, 1, 2] for start in range(0, 240, 3))
    assert stream.epochs("books") == 80.0


class Untouchable(Windows):
    def gather(self, indices):
        raise AssertionError("a window was read")


def test_a_domain_of_weight_zero_is_never_read():
    domains = domains_of() | {"books": Untouchable([np.arange(100, dtype=np.uint32)], CONTEXT)}
    stream = MixtureStream(domains, MIXTURES[2], batch_size=16, seed=0)
    drive(stream, {}, 0, 200)
    assert stream.consumed["books"] == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"books": -0.1, "code": 0.6, "web": 0.5}, "weight for 'books' is -0.1"),
        ({"books": float("nan"), "code": 0.5, "web": 0.5}, "weight for 'books' is nan"),
        ({"books": float("inf"), "code": 0.5, "web": 0.5}, "weight for 'books' is inf"),
        ({"books": 0.2, "code": 0.3, "web": 0.4}, "sum to 0.9, not to 1"),
        ({"books": 0.2, "code": 0.3, "wep": 0.5}, "'wep', which is no domain. Did you mean 'web'?"),
        ({"books": 0.2, "code": 0.3, "xyzzy": 0.5}, "The names are 'books', 'code', 'web'"),
        ({"books": 0.5, "web": 0.5}, "no weight for code. Give 0 to leave a domain out"),
    ],
)
def test_bad_weights_are_refused_and_the_stream_goes_on(weights, message):
    with pytest.raises(TikmixError, match=message):
        check_weights(weights, SIZES)
    with pytest.raises(TikmixError, match=message):
        stream_of(weights)
    stream, undisturbed = stream_of(), stream_of()
    drive(stream, {}, 0, 3)
    with pytest.raises(TikmixError, match=message):
        stream.set_weights(weights)
    assert np.array_equal(drive(stream, {}, 3, 9), drive(undisturbed, {}, 0, 9)[3:])


def test_weights_off_by_rounding_are_accepted():
    check_weights({"books": 0.2, "code": 0.3, "web": 0.5000004}, SIZES)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 4}, "its seed is 3, and here it is 4"),
        ({"batch_size": 32}, "its batch_size is 16, and here it is 32"),
        ({"sizes": {"books": 37, "code": 121, "web": 300}}, r"other windows .*\(code: 120 -> 121\)"),
        ({"sizes": {"books": 37, "prose": 120, "web": 300}}, r"\(code: 120 -> 0, prose: 0 -> 120\)"),
    ],
)
def test_a_state_of_another_stream_is_refused_and_nothing_is_loaded(other, message):
    saved = stream_of()
    saved.next_batch()
    sizes = other.get("sizes", SIZES)
    stream = stream_of(dict.fromkeys(sizes, 1 / 3), **other)
    before = stream.state_dict()
    with pytest.raises(TikmixError, match=message):
        stream.load_state_dict(saved.state_dict())
    assert stream.state_dict() == before


def test_a_state_of_another_context_or_format_is_refused():
    stream = stream_of()
    with pytest.raises(TikmixError, match="its context is 8, and here it is 4"):
        stream.load_state_dict(stream.state_dict() | {"context": 8})
    with pytest.raises(TikmixError, match="its seed is None"):
        stream.load_state_dict({})


def test_a_domain_shorter_than_a_window_is_refused():
    with pytest.raises(TikmixError, match=r"'code' is shorter than one window of train\.context = 4 tokens"):
        stream_of(sizes={"books": 3, "code": 0, "web": 3})


def test_domains_must_exist_and_share_one_context():
    with pytest.raises(TikmixError, match=r"corpus\.domains"):
        MixtureStream({}, {}, batch_size=4, seed=0)
    domains = {name: Windows([np.zeros(100, dtype=np.uint16)], context) for name, context in (("a", 4), ("b", 5))}
    with pytest.raises(TikmixError, match="unequal context"):
        MixtureStream(domains, {"a": 0.5, "b": 0.5}, batch_size=4, seed=0)
