import pytest
from corpus_examples import read_bytes

from tikmix_pipeline.corpus.text import text_of_html
from tikmix_pipeline.errors import TikmixError

CODE = "x = 1\n" * 100


def test_text_reader_makes_one_document_of_a_file():
    assert read_bytes("text", "caf\u00e9 ".encode(), b"two") == ["caf\u00e9\n", "two\n"]


def test_text_reader_names_file_and_byte_that_is_not_utf8():
    with pytest.raises(TikmixError, match=r"file1 is not UTF-8: byte 3 is 0xe9"):
        read_bytes("text", b"fine", b"caf\xe9")


def test_code_reader_drops_short_files_and_reads_latin1():
    (text,) = read_bytes("code", b"x = 1\n", b"# caf\xe9\n" + CODE.encode())
    assert text.startswith("# caf\u00e9\n")


@pytest.mark.parametrize(
    "notice", ["// Copyright 2009 The Authors.\n// See LICENSE.\n\n", "/* Copyright 2009\n * The Authors.\n */\n"]
)
def test_code_reader_drops_the_notice_of_a_licence(notice: str):
    assert read_bytes("code", (notice + CODE).encode()) == [CODE]


@pytest.mark.parametrize("comment", ["// Package x does y.\n\n", "/* The heap. */\n", "# Copyright 2009\n"])
def test_code_reader_keeps_other_comments(comment: str):
    assert read_bytes("code", (comment + CODE).encode()) == [comment + CODE]


def test_code_reader_drops_no_code_below_a_notice():
    assert read_bytes("code", b"// Copyright\nvar x = 1 // one\n" + CODE.encode()) == ["var x = 1 // one\n" + CODE]


def test_jsonl_reader_takes_the_named_field():
    lines = b'{"body": "one"}\n\n{"body": "two"}\n'
    assert read_bytes("jsonl", lines, field="body") == ["one\n", "two\n"]


WEB_PAGE = """<!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body><nav>Home</nav>
<h1>A &amp; B</h1><p>Some   <b>bold</b>
text.</p><script>var x = "<p>";</script><pre>  kept
    as it is</pre><ul><li>one</li><li> two</li></ul><footer>me</footer></body></html>"""


def test_text_comes_a_line_per_block_without_navigation_and_scripts():
    assert text_of_html(WEB_PAGE) == "A & B\n\nSome bold text.\n\n  kept\n    as it is\n\none\n\ntwo\n"


def test_blanks_between_inline_tags_are_kept_once():
    assert text_of_html("<p>a <i>b</i> c<br> d</p>") == "a b c\nd\n"


@pytest.mark.parametrize("section", ["<![x[y]]>", "<![if IE]>", "<![>", "<![CDATA[y]]>", "<!x>", "<?x>"])
def test_a_declaration_that_html_does_not_know_hides_nothing(section: str):
    assert text_of_html(f"<p>one</p>{section}<p>two</p>").split() == ["one", "two"]


def test_an_unmatched_end_tag_hides_nothing():
    assert text_of_html("</nav><p>text</p></pre>  more") == "text\n\nmore\n"


def test_short_pages_are_dropped():
    long = b"<p>" + b"word " * 100 + b"</p>"
    assert read_bytes("html", b"<p>short</p>", long) == ["word " * 99 + "word\n"]


HEAD = b"From: a@example.org\nSubject: Greetings to b@example.org\n"
BODY = b"A letter of some length, to be sent to c.d+e@example.org and to nobody else at all, caf\xe9.\n"


def test_subject_and_body_are_kept_without_addresses_and_other_headers():
    (text,) = read_bytes("mail", HEAD + b"\n" + BODY)
    assert text == (
        "Subject: Greetings to <addr>\n\nA letter of some length, to be sent to <addr> and to nobody else at all, "
        "caf\u00e9.\n"
    )


def test_of_several_bodies_the_plain_one_is_read():
    part = b"--x\nContent-Type: text/%s\n\n%s\n"
    message = HEAD + b"Content-Type: multipart/alternative; boundary=x\n\n"
    message += part % (b"html", b"<p>rich</p>") + part % (b"plain", BODY) + b"--x--\n"
    (text,) = read_bytes("mail", message)
    assert "A letter" in text
    assert "rich" not in text


def test_a_body_of_html_alone_is_read_as_text():
    (text,) = read_bytes("mail", HEAD + b"Content-Type: text/html\n\n<p>" + BODY + b"</p><script>x</script>")
    assert "\n\nA letter of some length" in text
    assert "script" not in text


def test_messages_without_text_are_dropped():
    image = HEAD + b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + b"AAAA\n" * 100
    assert read_bytes("mail", image, b"\nshort\n", HEAD + b"\n" + BODY * 1000) == []


MANUAL_PAGE = r""".\" A comment
.TH READ 2 2023-02-05 "Linux man-pages"
.SH NAME
read \- read from a file
.SH SYNOPSIS
.nf
.B #include <unistd.h>
.PP
.BI "ssize_t read(int " fd ", size_t " count );
.fi
.SH DESCRIPTION
.BR read ()
attempts to read
.I count
bytes;
see
.BR write (2).
.PP
Files that support
\f(CWseeking\fP use \(lqoffsets\(rq and a back\eslash.
.TS
l l
Interface	Attribute
.TE
.IP \(bu 3
.B EAGAIN
The file\(aqs descriptor
.RS 4
is non-blocking.
.RE
"""


def test_a_page_reads_as_a_pager_shows_it():
    (text,) = read_bytes("troff", MANUAL_PAGE.encode())
    assert text == (
        "READ 2 2023-02-05 Linux man-pages\n"
        "\nNAME\nread - read from a file\n"
        "\nSYNOPSIS\n\n#include <unistd.h>\n\nssize_t read(int fd, size_t count);\n"
        "\nDESCRIPTION\nread() attempts to read count bytes; see write(2).\n"
        '\nFiles that support seeking use "offsets" and a back\\slash.\n'
        "\n* EAGAIN The file's descriptor is non-blocking.\n"
    )


@pytest.mark.parametrize("page", [b".so man2/read.2\n", b".TH X 1\n" + b"word " * 100_000])
def test_pointers_and_endless_pages_are_dropped(page: bytes):
    assert read_bytes("troff", page) == []
