import json

import pytest

from tikmix_pipeline.corpus.readers import READERS, missing_field, read_json_lines, text_of, tidy
from tikmix_pipeline.errors import TikmixError


def read(reader: str, *contents: bytes, field: str | None = None) -> list[str]:
    files = [(f"file{number}", content) for number, content in enumerate(contents)]
    return list(READERS[reader](files, field))


def test_tidy_normalises_white_space_and_keeps_indentation():
    assert tidy("\r\n  a \t\r\n\n\n\n\tb\u00a0c\0\n\n") == "a\n\n\tb c\n"


def test_tidy_changes_a_tidy_text_no_more():
    text = tidy("  one  \n\n\n\ntwo\t\n")
    assert tidy(text) == text


def test_text_reader_makes_one_document_of_a_file():
    assert read("text", "caf\u00e9 ".encode(), b"two") == ["caf\u00e9\n", "two\n"]


def test_text_reader_names_file_and_byte_that_is_not_utf8():
    with pytest.raises(TikmixError, match=r"file1 is not UTF-8: byte 3 is 0xe9"):
        read("text", b"fine", b"caf\xe9")


def test_code_reader_drops_short_files_and_reads_latin1():
    source = b"# caf\xe9\n" + b"x = 1\n" * 100
    (text,) = read("code", b"x = 1\n", source)
    assert text.startswith("# caf\u00e9\n")


def test_jsonl_reader_takes_the_named_field():
    lines = b'{"body": "one"}\n\n{"body": "two"}\n'
    assert read("jsonl", lines, field="body") == ["one\n", "two\n"]


def test_extracts_reader_joins_title_and_extract_and_drops_stubs():
    entries = {"a": {"title": "A", "extract": "x" * 101}, "b": {"title": "B", "extract": "too short"}}
    assert read("extracts", json.dumps(entries).encode()) == ["A\n\n" + "x" * 101 + "\n"]


def test_extracts_reader_refuses_json_that_is_no_object():
    with pytest.raises(TikmixError, match="file0: expected a JSON object, found list"):
        read("extracts", b"[1]")


def test_kjv_reader_cuts_the_first_literal_into_slices_without_brackets():
    source = 'Bible("""' + "[was] word " * 4000 + '""", """titles""")'
    texts = read("kjv", source.encode())
    assert [len(text) for text in texts] == [20_001, 16_000]
    assert "[" not in texts[0]
    assert "titles" not in texts[1]


def test_kjv_reader_refuses_a_file_without_a_literal():
    with pytest.raises(TikmixError, match="file0: expected a text between triple quotes"):
        read("kjv", b"Bible()")


def test_recipes_reader_writes_title_lists_and_values_without_metadata():
    recipe = {
        "title": "Toast",
        "url": "u",
        "time": "5 min",
        "empty": None,
        "steps": ["Cut.", "Toast."],
        "notes": "n" * 40,
    }
    (text,) = read("recipes", json.dumps({"toast": recipe}).encode())
    assert text == "Toast\nTime: 5 min\nSteps:\n- Cut.\n- Toast.\nNotes:\n" + "n" * 40 + "\n"


def test_fortunes_reader_joins_entries_to_pages_and_drops_crumbs():
    entries = ["A first saying of some length, n\b\u00f6.", "crumb", "z" * 1500, "The last one stands on its own page."]
    texts = read("fortunes", "\n%\n".join(entries).encode())
    assert [len(text) > 1500 for text in texts] == [True, False]
    assert "crumb" not in texts[0]
    assert "\b" not in texts[0]


def test_licences_reader_drops_headers_short_texts_and_those_that_begin_alike():
    long = "Permission is granted " * 40
    header = "---\nkey: mit\n---\n"
    texts = read("licences", (header + long).encode(), long.upper().encode() + b"and more", b"short")
    assert texts == [tidy(long)]


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
