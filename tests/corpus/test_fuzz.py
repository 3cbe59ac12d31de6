"""Damaged and invented bytes end in documents or in a TikmixError, and soon: never in another exception or a hang.

Bytes begin as a valid file, so that damage gets past what looks at the beginning, and are cut, repeated, flipped and
mixed with what formats take for a sign. `FUZZ_EXAMPLES=5000 pytest tests/corpus/test_fuzz.py` looks longer.
"""

import contextlib
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from archive_examples import write_debian_package, write_tarball
from corpus_examples import corpus_in, random_text, write_wheel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tikmix_pipeline.corpus.packages import read_members
from tikmix_pipeline.corpus.readers import READERS
from tikmix_pipeline.corpus.reading import read_domain
from tikmix_pipeline.corpus.shards import chunks_of_ids
from tikmix_pipeline.corpus.sources import read_records
from tikmix_pipeline.corpus.task_records import read_items
from tikmix_pipeline.corpus.tasks import split_items
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import DomainParameters, FilesSource
from tikmix_pipeline.progress import no_progress_bars

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
LIMIT = timedelta(seconds=10)

# found by a fixed search, so that the tests of a commit are the same for everyone
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=LIMIT,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

RECORDS = [{"text": random_text(row, 8), "question": "Is it?", "answer": "yes", "n": row} for row in range(6)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
PAGE = b"<!DOCTYPE html><p>A &amp; B<!-- c --><table><tr><td>x</td></table><![CDATA[y]]><pre>z" + b" word" * 99
MAIL = (
    b"From: a@b.c\nSubject: =?utf-8?q?caf=C3=A9?=\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
    b"--x\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nYWJj\n"
    b"--x\nContent-Type: text/html\n"
    b"Content-Transfer-Encoding: x-uuencode\n\nbegin 644 a\n#86)C\n`\nend\n--x--\n"
)
MANUAL = b'.TH A 1\n.SH NAME\na \\- b\n.IP "c d" 4\n.nf\n e\n.fi\n.TS\nx\n.TE\n.BI a "b c"\n\\fBx\\fR \\(bu\n' * 9
SET = b'00001740 29 v 03 breathe 0 take_a_breath 0 suspire 3 021 * 00005041 v 0000 | draw air; "Breathe!"  \n'
PROOFS = b"$(\n#*#*#*\nOne\n#*#*#*\n$)\n" + b"  ax-mp $a |- ps $.\n" * 30
ROBJECT = zlib.compress(b"\x00\x09\x00\x00\x00\x05" + b"hello" * 3)

SEEDS: dict[str, bytes] = {
    "text": "caf\u00e9 one\r\n\u00a0two\0\n".encode(),
    "code": b"/* Copyright */\n// Copyright x\n" + b"x = 1\n" * 90,
    "jsonl": LINES,
    "html": PAGE,
    "troff": MANUAL,
    "mail": MAIL,
    "wordnet": SET * 3,
    "metamath": PROOFS,
    "rdata": len(ROBJECT).to_bytes(4, "big") + ROBJECT,
    "extracts": json.dumps({"a": {"title": "A", "extract": "x" * 101}, "b": {"extract": "y" * 120}}).encode(),
    "factbook": json.dumps({"Land": {"text": "<b>x</b>", "Area": {"text": "5"}, "n": 3}, "Name": "y"}).encode(),
    "fortunes": b"A saying that is longer than thirty characters.\n%\n_\x08b" * 9,
    "kjv": b'text = """In the beginning [was] """ + x\n',
    "licences": b"---\nkey: x\n---\n" + b"Permission is granted. " * 40,
    "recipes": json.dumps({"toast": {"title": "Toast", "steps": ["Cut.", "Eat."], "time": 5}}).encode(),
}
SIGNS = [
    *(b"", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null"),
    *(b"1e999", b"NaN", b"-", b"9" * 30, b'"\\ud800"', b"[" * 2000, b"<![x", b"<!", b"<?", b"&#x110000;", b"&#0;"),
    *(
        b"<!--",
        b"]]>",
        b"\\f(",
        b"\\[",
        b'.IP "',
        b"=?x?q?=FF?=",
        b"begin 999 ",
        b"%\n",
        b"|",
        b"\t",
        b"==",
        b"$(",
        b"$)",
    ),
    *(
        b"\x78\x9c",
        b"\x28\xb5\x2f\xfd",
        b"\x1f\x8b\x08",
        b"PAR1",
        b"PK\x05\x06",
        b"!<arch>\n",
        b"\x7f" * 8,
        b"\x80" * 9,
    ),
]


@st.composite
def damaged(draw: Any, seed: bytes) -> bytes:
    """Return the bytes of a seed after some edits."""
    data = seed
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 1, 1, 2, 5, 40])))
        piece = draw(st.one_of(st.sampled_from(SIGNS), st.binary(max_size=6), st.just(data[start:stop] * 3)))
        data = data[:start] + piece + data[stop:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 3)) == 0 else data


def consume(read: Callable[[], Iterator[Any]]) -> None:
    """Read all of it; every document is text that UTF-8 can write."""
    with contextlib.suppress(TikmixError):
        for text in read():
            if isinstance(text, str):
                text.encode()


@pytest.mark.parametrize("reader", SEEDS)
def test_a_reader_of_packages_ends_in_documents_or_is_told(reader: str):
    @fuzzed
    @given(damaged(SEEDS[reader]), damaged(SEEDS[reader]))
    def run(first: bytes, second: bytes) -> None:
        files = {"x!a/data.verb": first, "x!b/LICENSE": second}
        consume(lambda: READERS[reader](files.items(), None))

    run()


def test_a_reader_of_dictionaries_ends_in_documents_or_is_told():
    @fuzzed
    @given(damaged(b"word\tA\tJ\n00info\tB\tC\nother\tJ\tK\n"), damaged(b"word: a thing\nother: one more\n"))
    def run(index: bytes, content: bytes) -> None:
        consume(lambda: READERS["dictd"]({"x!a.index": index, "x!a.dict": content}.items(), None))

    run()


def parquet() -> bytes:
    buffer = io.BytesIO()
    nested = pa.array([{"a": [1, None]}, None, {"a": []}] * 2)
    pq.write_table(pa.Table.from_pylist(RECORDS).append_column("nested", nested), buffer, row_group_size=4)
    return buffer.getvalue()


FILES: dict[str, bytes] = {
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES, mtime=0),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.json": json.dumps(RECORDS).encode(),
    "a.json.gz": gzip.compress(json.dumps(RECORDS).encode(), mtime=0),
    "a.parquet": parquet(),
    "a.txt": SEEDS["text"] * 9,
    "a.txt.zst": zstandard.compress(SEEDS["text"] * 9),
}


@pytest.mark.parametrize("on_unreadable", ["error", "skip"])
@pytest.mark.parametrize("read_as", ["all", "sample"])
@pytest.mark.parametrize("name", FILES)
def test_files_end_in_a_domain_or_are_told(tmp_path: Path, name: str, read_as: str, on_unreadable: str):
    parameters = corpus_in(tmp_path, read=read_as, max_megabytes=0.001, on_unreadable=on_unreadable, max_null_share=0.5)
    domain = DomainParameters(sources=[FilesSource(kind="files", path="web/*")])
    web = tmp_path / "web"
    web.mkdir()
    (web / f"b{name}").write_bytes(FILES[name])

    @fuzzed
    @given(damaged(FILES[name]))
    def run(data: bytes) -> None:
        (web / name).write_bytes(data)
        with contextlib.suppress(TikmixError):
            assert read_domain("web", domain, parameters, root=tmp_path, downloads=tmp_path).documents

    with no_progress_bars():
        run()


@pytest.mark.parametrize("name", FILES)
def test_files_end_in_a_task_or_are_told(tmp_path: Path, name: str):
    source = FilesSource(kind="files", path=name)

    def items() -> Iterator[Any]:
        read = read_items(read_records([source], root=tmp_path, downloads=tmp_path))
        for half in split_items(read, max_items=None, seed=0).values():
            yield from (item.text for item in half)

    @fuzzed
    @given(damaged(FILES[name]))
    def run(data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        consume(items)

    run()


@pytest.mark.parametrize("ending", ["whl", "tgz", "deb"])
def test_archives_end_in_members_or_are_told(tmp_path: Path, ending: str):
    """Members of an archive without compression, too: damage to one that has it seldom gets further."""
    members = {"a/one.txt": b"one " * 9, "a/two.gz": gzip.compress(b"two " * 9, mtime=0), "b": b""}
    path = tmp_path / f"a.{ending}"
    seeds = []
    if ending == "deb":
        for compression in ("xz", "zst"):
            write_debian_package(path, members, compression=compression)
            seeds.append(path.read_bytes())
    else:
        (write_wheel if ending == "whl" else write_tarball)(path, members)
        seeds.append(path.read_bytes())
    if ending == "tgz":
        seeds.append(gzip.decompress(seeds[0]))

    @fuzzed
    @given(st.one_of([damaged(seed) for seed in seeds]))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        consume(lambda: (content.decode("latin-1") for _, content in read_members(path, "a/*")))

    run()


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_token_files_end_in_ids_or_are_told(tmp_path: Path, dtype: str):
    @fuzzed
    @given(damaged(np.arange(40, dtype=dtype).tobytes()))
    def run(data: bytes) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(data)
        consume(lambda: chunks_of_ids(path, dtype))

    run()
