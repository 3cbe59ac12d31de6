from reader_examples import read

from tikmix_pipeline.corpus.readers.html import text_of_html

PAGE = """<!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body><nav>Home</nav>
<h1>A &amp; B</h1><p>Some   <b>bold</b>
text.</p><script>var x = "<p>";</script><pre>  kept
    as it is</pre><ul><li>one</li><li> two</li></ul><footer>me</footer></body></html>"""


def test_text_comes_a_line_per_block_without_navigation_and_scripts():
    assert text_of_html(PAGE) == "A & B\n\nSome bold text.\n\n  kept\n    as it is\n\none\n\ntwo\n"


def test_blanks_between_inline_tags_are_kept_once():
    assert text_of_html("<p>a <i>b</i> c<br> d</p>") == "a b c\nd\n"


def test_an_unmatched_end_tag_hides_nothing():
    assert text_of_html("</nav><p>text</p></pre>  more") == "text\n\nmore\n"


def test_short_pages_are_dropped():
    long = b"<p>" + b"word " * 100 + b"</p>"
    assert read("html", b"<p>short</p>", long) == ["word " * 99 + "word\n"]
