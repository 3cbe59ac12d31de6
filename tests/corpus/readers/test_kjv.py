import pytest
from reader_examples import read

from tikmix_pipeline.errors import TikmixError


def test_the_first_literal_is_cut_into_slices_without_brackets():
    source = 'Bible("""' + "[was] word " * 4000 + '""", """titles""")'
    texts = read("kjv", source.encode())
    assert [len(text) for text in texts] == [20_001, 16_000]
    assert "[" not in texts[0]
    assert "titles" not in texts[1]


def test_a_file_without_a_literal_is_refused():
    with pytest.raises(TikmixError, match="file0: expected a text between triple quotes"):
        read("kjv", b"Bible()")
