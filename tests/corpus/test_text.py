import pytest

from tikmix_pipeline.corpus.text import decode_leniently, grouped, naming, slices, tidy
from tikmix_pipeline.errors import TikmixError


def test_tidy_normalises_white_space_and_keeps_indentation():
    assert tidy("\r\n  a \t\r\n\n\n\n\tb\u00a0c\0\n\n") == "a\n\n\tb c\n"


def test_tidy_changes_a_tidy_text_no_more():
    text = tidy("  one  \n\n\n\ntwo\t\n")
    assert tidy(text) == text


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_both_old_encodings_are_read(encoding: str):
    assert decode_leniently("caf\u00e9".encode(encoding)) == "caf\u00e9"


def test_what_is_wrong_with_bytes_is_told_with_the_name_of_their_file():
    with pytest.raises(TikmixError, match="letters is not UTF-8: byte 1 is 0xe9"), naming("letters"):
        b"x\xe9".decode("utf-8")


def test_small_entries_are_joined_until_a_document_is_long_enough():
    assert list(grouped(["aaa", "bbb", "cc", "dddd", "e"], 5)) == ["aaa\nbbb\n", "cc\ndddd\n", "e\n"]


def test_slices_hold_the_whole_text():
    assert list(slices("abcdefgh", 3)) == ["abc\n", "def\n", "gh\n"]
