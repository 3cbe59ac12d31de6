import pytest
from reader_examples import read

from tikmix_pipeline.errors import TikmixError

CODE = "x = 1\n" * 100


def test_text_reader_makes_one_document_of_a_file():
    assert read("text", "caf\u00e9 ".encode(), b"two") == ["caf\u00e9\n", "two\n"]


def test_text_reader_names_file_and_byte_that_is_not_utf8():
    with pytest.raises(TikmixError, match=r"file1 is not UTF-8: byte 3 is 0xe9"):
        read("text", b"fine", b"caf\xe9")


def test_code_reader_drops_short_files_and_reads_latin1():
    (text,) = read("code", b"x = 1\n", b"# caf\xe9\n" + CODE.encode())
    assert text.startswith("# caf\u00e9\n")


@pytest.mark.parametrize(
    "notice", ["// Copyright 2009 The Authors.\n// See LICENSE.\n\n", "/* Copyright 2009\n * The Authors.\n */\n"]
)
def test_code_reader_drops_the_notice_of_a_licence(notice: str):
    assert read("code", (notice + CODE).encode()) == [CODE]


@pytest.mark.parametrize("comment", ["// Package x does y.\n\n", "/* The heap. */\n", "# Copyright 2009\n"])
def test_code_reader_keeps_other_comments(comment: str):
    assert read("code", (comment + CODE).encode()) == [comment + CODE]


def test_code_reader_drops_no_code_below_a_notice():
    assert read("code", b"// Copyright\nvar x = 1 // one\n" + CODE.encode()) == ["var x = 1 // one\n" + CODE]


def test_jsonl_reader_takes_the_named_field():
    lines = b'{"body": "one"}\n\n{"body": "two"}\n'
    assert read("jsonl", lines, field="body") == ["one\n", "two\n"]
