import pytest
from reader_examples import read

PAGE = r""".\" A comment
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
    (text,) = read("troff", PAGE.encode())
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
    assert read("troff", page) == []
