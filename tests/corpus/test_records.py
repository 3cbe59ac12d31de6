import pytest

from tikmix_pipeline.corpus.records import json_object, missing_field, read_json_lines, text_of
from tikmix_pipeline.errors import TikmixError


def test_json_lines_errors_name_the_line():
    with pytest.raises(TikmixError, match="data, line 2 is not valid JSON"):
        list(read_json_lines([b"{}\n", b"{\n"], "data"))


def test_json_lines_errors_name_the_byte_that_is_not_utf8():
    with pytest.raises(TikmixError, match=r"data, line 2 is not UTF-8: byte 6 of the text is 0xff"):
        list(read_json_lines([b"{}\n", b'{"a\xff": 1}'], "data"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"txt": "a", "id": 1}, r"there is no field 'text'; the fields are 'txt', 'id'. Did you mean 'txt'\?"),
        ([1], "expected a JSON object with the field 'text', found list"),
        ({"text": None}, "the field 'text' holds NoneType, expected text"),
        ({"text": "\ud800"}, "half a surrogate pair at character 0"),
    ],
)
def test_records_without_text_are_refused_by_place_and_field(record: object, message: str):
    with pytest.raises(TikmixError, match=f"somewhere: .*{message}"):
        text_of(record, "text", "somewhere")


def test_missing_field_of_an_empty_record_says_so():
    assert missing_field("text", []) == "there is no field 'text'; the fields are none."


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"[1]", "file: expected a JSON object, found list"), (b"{", "file is not valid JSON")],
)
def test_a_file_that_is_no_json_object_is_refused(data: bytes, message: str):
    with pytest.raises(TikmixError, match=message):
        json_object(data, "file")
