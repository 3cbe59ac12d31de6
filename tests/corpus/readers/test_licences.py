from reader_examples import read

from tikmix_pipeline.corpus.text import tidy


def test_headers_short_texts_and_those_that_begin_alike_are_dropped():
    long = "Permission is granted " * 40
    header = "---\nkey: mit\n---\n"
    texts = read("licences", (header + long).encode(), long.upper().encode() + b"and more", b"short")
    assert texts == [tidy(long)]
