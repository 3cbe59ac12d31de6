"""Windows over one file or many are the slices of the concatenated tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.corpus.batches import Windows


def split(tokens, lengths):
    return np.split(tokens, np.cumsum(lengths)[:-1])


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8), context=st.integers(1, 12))
def test_windows_equal_slices_of_the_concatenated_files(lengths, context):
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    windows = Windows(split(tokens, lengths), context)
    expected = [tokens[start : start + context + 1] for start in range(0, len(tokens) - context, context)]
    assert len(windows) == len(expected)
    taken = windows.take(np.arange(len(windows)))
    assert taken.dtype == np.int64
    assert taken.shape == (len(expected), context + 1)
    assert taken.tolist() == [window.tolist() for window in expected]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), context=st.integers(1, 12))
def test_every_token_but_the_first_is_a_target_once(lengths, context):
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    windows = Windows(split(tokens, lengths), context)
    targets = windows.take(np.arange(len(windows)))[:, 1:].ravel()
    assert targets.tolist() == list(range(1, len(windows) * context + 1))
    assert len(tokens) - 1 - len(targets) < context


def test_take_keeps_the_order_and_repetition_of_indices():
    windows = Windows([np.arange(50, dtype=np.uint32), np.arange(50, 100, dtype=np.uint32)], 7)
    taken = windows.take(np.array([13, 0, 7, 7], dtype=np.uint8))
    assert taken[:, 0].tolist() == [91, 0, 49, 49]


def test_memory_maps_are_read_in_place(tmp_path):
    path = tmp_path / "shard.bin"
    np.arange(1000, dtype="<u2").tofile(path)
    windows = Windows([np.memmap(path, dtype="<u2", mode="r")], 9)
    assert windows.gather(np.array([110])).dtype == np.uint16
    assert windows.take(np.array([110])).tolist() == [list(range(990, 1000))]


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_fewer_tokens_than_a_window_make_no_window(tokens):
    windows = Windows([np.zeros(tokens, dtype=np.uint16)], 5)
    assert len(windows) == 0
    assert windows.take(np.array([], dtype=np.int64)).shape == (0, 6)


@pytest.mark.parametrize("index", [-1, 20])
def test_an_index_out_of_range_is_refused(index):
    windows = Windows([np.zeros(101, dtype=np.uint16)], 5)
    with pytest.raises(IndexError, match=r"\[0, 20\)"):
        windows.take(np.array([3, index]))
