import json

import pytest
from reader_examples import read

from tikmix_pipeline.errors import TikmixError


def test_title_and_extract_are_joined_and_stubs_dropped():
    entries = {"a": {"title": "A", "extract": "x" * 101}, "b": {"title": "B", "extract": "too short"}}
    assert read("extracts", json.dumps(entries).encode()) == ["A\n\n" + "x" * 101 + "\n"]


def test_an_entry_without_extract_is_refused_by_its_key():
    with pytest.raises(TikmixError, match="file0, entry 'a': there is no field 'extract'"):
        read("extracts", b'{"a": {"title": "A"}}')
