import pytest

from tikmix_pipeline.corpus.text import (
    decode,
    decode_leniently,
    grouped,
    json_object,
    missing_field,
    naming,
    read_json_lines,
    slices,
    text_of,
    tidy,
)
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


def test_json_lines_errors_name_the_line():
    with pytest.raises(TikmixError, match="data, line 2 is not valid JSON"):
        list(read_json_lines([b"{}\n", b"{\n"], "data"))


def test_json_lines_errors_name_the_byte_that_is_not_utf8():
    with pytest.raises(TikmixError, match=r"data, line 2 is not UTF-8: byte 6 of the text is 0xff"):
        list(read_json_lines([b"{}\n", b'{"a\xff": 1}'], "data"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"txt": "a", "id": 1}, r"there is no field 'text'. Did you mean 'txt'\? The names are 'txt', 'id'."),
        ([1], "expected a JSON object with the field 'text', found list"),
        ({"text": None}, "the field 'text' holds NoneType, expected text"),
        ({"text": "\ud800"}, "half a surrogate pair at character 0"),
    ],
)
def test_records_without_text_are_refused_by_place_and_field(record: object, message: str):
    with pytest.raises(TikmixError, match=f"somewhere: .*{message}"):
        text_of(record, "text", "somewhere")


def test_the_fields_of_a_record_of_thousands_are_not_all_listed():
    message = missing_field("text", [f"id{number}" for number in range(20_000)])
    assert "'id49' and 19950 more" in message
    assert len(message) < 1000


def test_missing_field_of_an_empty_record_says_so():
    assert missing_field("text", []) == "there is no field 'text'. There are none."


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"[1]", "file: expected a JSON object, found list"), (b"{", "file is not valid JSON")],
)
def test_a_file_that_is_no_json_object_is_refused(data: bytes, message: str):
    with pytest.raises(TikmixError, match=message):
        json_object(data, "file")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_not_taken_for_text_with_nuls(encoding: str):
    text = "A line of plain text.\nAnother.\n"
    with pytest.raises(TikmixError, match=r"a.txt looks like UTF-16: every second byte is NUL. Convert the file"):
        decode(text.encode(encoding), "a.txt")
    with pytest.raises(TikmixError, match=r"a.jsonl, line 1 looks like UTF-16"):
        list(read_json_lines(['{"text": "one"}\n'.encode(encoding)], "a.jsonl"))
    assert decode(text.encode() + bytes(40), "a.txt") == text + "\0" * 40
