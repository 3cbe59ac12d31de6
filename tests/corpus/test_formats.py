"""Files as strangers have them: marks of byte order, arrays, columns of one name, depth, bombs, wide windows."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from archive_examples import write_tarball
from corpus_examples import corpus_in, random_text, read_bytes, write_wheel

from tikmix_pipeline.corpus import formats, packages
from tikmix_pipeline.corpus.packages import read_members
from tikmix_pipeline.corpus.reading import read_domain
from tikmix_pipeline.corpus.sources import read_records, read_source
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import FilesSource, HuggingFaceSource

BOM = b"\xef\xbb\xbf"
TEXTS = [random_text(5000 + row) for row in range(40)]


def files(path: str, **changes: Any) -> FilesSource:
    return FilesSource.model_validate({"kind": "files", "path": path, **changes})


def read(path: Path, **changes: Any) -> list[str]:
    return list(read_source(files(path.name, **changes), root=path.parent, downloads=path.parent))


def records(path: Path) -> list[Any]:
    return [record for _, record in read_records([files(path.name)], root=path.parent, downloads=path.parent)]


def sampled(path: Path) -> list[str]:
    """Return what is sampled of a file where there is room for all of it."""
    parameters = corpus_in(path.parent, read="sample", max_megabytes=10)
    domain = parameters.domains["prose"].model_copy(update={"sources": [files(path.name)]})
    sample = read_domain("prose", domain, parameters, root=path.parent, downloads=path.parent)
    return sorted(document.text for document in sample.documents)


def lines(texts: list[str] = TEXTS) -> list[bytes]:
    return [json.dumps({"text": text}).encode() + b"\n" for text in texts]


def compressed(path: Path, data: bytes) -> Path:
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(data))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_mark_of_byte_order_may_stand_in_front_of_any_line(tmp_path: Path, name: str):
    """As where files that begin with one were joined; also in front of nothing."""
    data = [BOM + line if row % 20 == 0 else line for row, line in enumerate(lines())]
    path = compressed(tmp_path / name, b"".join([*data, BOM + b"\n", BOM]))
    assert read(path) == TEXTS
    assert records(path) == [{"text": text} for text in TEXTS]
    assert sampled(path) == sorted(TEXTS)


@pytest.mark.parametrize("name", ["a.txt", "a.md.gz"])
def test_marks_of_byte_order_are_no_text(tmp_path: Path, name: str):
    path = compressed(tmp_path / name, BOM + b"one\n" + BOM + b"two \xef\xbb\xbf three\n")
    assert read(path) == sampled(path) == ["one\ntwo \ufeff three\n"]


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf_16_is_told(tmp_path: Path, mark: bytes):
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(mark + '{"text": "a"}'.encode("utf-16-le"))
        with pytest.raises(TikmixError, match=rf"{name}.* is not UTF-8.* It looks like UTF-16. Convert the file"):
            read(tmp_path / name)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_packed_text_under_a_name_of_plain_text_is_told(tmp_path: Path, ending: str):
    packed = compressed(tmp_path / f"a.jsonl{ending}", b"".join(lines()))
    packed.rename(tmp_path / "a.jsonl")
    with pytest.raises(TikmixError, match=rf"a\.jsonl.* is not UTF-8.* It looks like \{ending}, and is unpacked where"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "A.JSON.ZST"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_hold_one_array_of_records(tmp_path: Path, name: str, indent: int | None):
    rows = [{"text": text} for text in TEXTS]
    path = tmp_path / name
    data = BOM + b"\n " + json.dumps(rows, indent=indent).encode()
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix.lower(), bytes)
    path.write_bytes(compress(data))
    assert read(path) == TEXTS
    assert records(path) == rows
    assert sampled(path) == sorted(TEXTS)


def test_a_json_file_may_hold_json_lines(tmp_path: Path):
    path = compressed(tmp_path / "a.json", b"".join(lines()))
    assert read(path) == TEXTS
    assert sampled(path) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b'[{"text": "a"}, 3]', "a.json, record 1: expected a JSON object .*found int"),
        ("a.json", b'[{"text": "a"},', "a.json is not valid JSON: .*It may have been cut off"),
        (
            "a.json",
            b'{\n "data": [{"text": "a"}]\n}',
            "a.json, line 1 is not valid JSON.*one array of records in a file",
        ),
        ("a.jsonl", b'[{"text": "a"}]\n', "a.jsonl, line 1: expected a JSON object .*found list.*is called .json"),
    ],
)
def test_what_is_neither_lines_nor_an_array_is_told(tmp_path: Path, name: str, data: bytes, message: str):
    with pytest.raises(TikmixError, match=message):
        read(compressed(tmp_path / name, data))


def columns(*names: str) -> pa.Table:
    return pa.Table.from_arrays([pa.array(TEXTS) for _ in names], list(names))


def test_two_columns_of_one_name_are_told(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(columns("text", "id", "text"), path)
    for reads in (read, sampled, records):
        with pytest.raises(TikmixError, match=r"a.parquet: more than one column is called 'text'"):
            reads(path)


def test_two_columns_of_one_name_in_a_csv_file_are_told(tmp_path: Path):
    """The library reads it as if the second had another name."""
    source = HuggingFaceSource(kind="huggingface", path="csv", data_files="a*.csv")
    (tmp_path / "a.csv").write_text('text,id,id\n"one, two",1,2\n')
    assert list(read_source(source, root=tmp_path, downloads=tmp_path)) == ["one, two"]
    (tmp_path / "a.csv").write_text('"text", text,id\none,two,3\n')
    with pytest.raises(TikmixError, match=r"a.csv: more than one column is called 'text'"):
        list(read_source(source, root=tmp_path, downloads=tmp_path))


def test_other_columns_may_share_a_name_where_only_the_text_is_read(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(columns("id", "text", "id"), path)
    assert read(path) == TEXTS
    assert sampled(path) == sorted(TEXTS)
    with pytest.raises(TikmixError, match=r"a.parquet: more than one column is called 'id'"):
        records(path)


def test_fields_of_one_name_inside_a_column_are_told(tmp_path: Path):
    nested = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    pq.write_table(pa.table({"text": ["a"], "meta": nested}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["a"]
    with pytest.raises(TikmixError, match=r"a.parquet is no complete Parquet file \(.*duplicate field names"):
        records(tmp_path / "a.parquet")


def test_a_field_that_a_record_has_twice_is_told_unless_both_are_equal(tmp_path: Path):
    path = compressed(tmp_path / "a.jsonl", b'{"text": "a", "id": 1, "id": 2, "text": "a"}\n')
    assert read(path) == ["a"]
    compressed(path, b'{"text": "a"}\n{"text": "a", "text": "b"}\n')
    with pytest.raises(TikmixError, match=r"a.jsonl, line 2: it has the field 'text' more than once, with different"):
        read(path)


@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_a_value_that_is_nested_too_deep_is_told(tmp_path: Path, opening: str):
    closing = {"[": "]"}.get(opening, "}")
    line = f'{{"text": "a", "meta": {opening * 5000}{"1" if closing == "}" else ""}{closing * 5000}}}\n'
    path = compressed(tmp_path / "a.jsonl", line.encode())
    for reads in (read, sampled, records):
        with pytest.raises(TikmixError, match=r"a.jsonl, (line 1|byte 0) holds a value that is nested too deep"):
            reads(path)
    for reader in ("extracts", "factbook", "recipes"):
        with pytest.raises(TikmixError, match="holds a value that is nested too deep"):
            read_bytes(reader, line.encode())


def test_an_integer_of_thousands_of_digits_is_told(tmp_path: Path):
    path = compressed(tmp_path / "a.jsonl", b'{"text": "a", "id": ' + b"9" * 5000 + b"}\n")
    with pytest.raises(TikmixError, match=r"a.jsonl, line 1 is not valid JSON: .*4300"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_line_above_the_limit_is_refused_and_no_more_is_read_of_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(formats, "LONGEST_LINE_BYTES", 1 << 20)
    monkeypatch.setattr(formats, "_STREAM_BUFFER_BYTES", 1 << 10)
    path = compressed(tmp_path / name, lines()[0] + b'{"text": "' + b"x" * (8 << 20) + b'"}\n')
    with pytest.raises(TikmixError, match=rf"{name}, line 2 has more than \d+ MiB: it is no line of JSON lines"):
        read(path)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst", "a.json.gz"])
def test_a_file_that_decompresses_to_too_much_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "LARGEST_TEXT_BYTES", 1 << 20)
    path = compressed(tmp_path / name, b"[" + b" " * (1 << 20))
    with pytest.raises(TikmixError, match=rf"{name} has more than \d+ MiB, decompressed"):
        read(path)
    compressed(path, b"x" * (1 << 20))
    assert name.startswith("a.json") or len(read(path)[0]) == 1 << 20


@pytest.mark.parametrize("kind", ["wheel", "wheel of gz", "tarball", "tarball of gz"])
def test_a_member_that_decompresses_to_too_much_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "LARGEST_TEXT_BYTES", 1 << 20)
    bomb = b" " * ((1 << 20) + 1)
    members = {"a/bomb.gz": gzip.compress(bomb)} if kind.endswith("gz") else {"a/bomb": bomb}
    path = tmp_path / ("a.whl" if kind.startswith("wheel") else "a.tgz")
    (write_wheel if kind.startswith("wheel") else write_tarball)(path, members)
    with pytest.raises(TikmixError, match=r"a.(whl|tgz)!a/bomb(.gz)? has more than \d+ MiB, decompressed"):
        list(read_members(path, "a/*"))


def test_a_tar_in_a_debian_package_may_not_be_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "LARGEST_TEXT_BYTES", 1 << 20)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        information = tarfile.TarInfo("a")
        information.size = 2 << 20
        archive.addfile(information, io.BytesIO(bytes(2 << 20)))
    data = zstandard.compress(tar.getvalue())
    header = f"{'data.tar.zst':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    (tmp_path / "a.deb").write_bytes(b"!<arch>\n" + header + data)
    with pytest.raises(TikmixError, match=r"a.deb!data.tar.zst has more than \d+ MiB, decompressed"):
        list(read_members(tmp_path / "a.deb", "a"))


def with_window(log: int) -> bytes:
    """Compress as `zstd --long=LOG` does: the window stands in the frame, however little there is in it."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=log, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(b"".join(lines())) + stream.flush()


def test_a_zstd_window_of_128_mib_is_read_and_a_larger_one_is_told(tmp_path: Path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(with_window(27))
    assert read(path) == TEXTS
    path.write_bytes(with_window(31))
    for reads in (read, sampled, records):
        with pytest.raises(TikmixError, match=r"Its zstd window is larger than 128 MiB: `zstd -dc --long=31 OLD"):
            reads(path)


def test_a_text_that_a_page_holds_once_takes_no_memory_for_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Few rows are made into texts at a time."""
    rows = formats.BATCH_ROWS * 20
    pq.write_table(pa.table({"text": pa.array(["x" * 1000] * rows).dictionary_encode()}), tmp_path / "a.parquet")
    most = 0
    original = pa.RecordBatch.to_pylist

    class Counted:
        def __init__(self, batch: Any):
            self.batch = batch

        def __len__(self) -> int:
            return len(self.batch)

        def to_pylist(self) -> list[Any]:
            nonlocal most
            most = max(most, len(self.batch))
            return original(self.batch)

    iter_batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *given, **named: map(Counted, iter_batches(*given, **named))
    )
    assert len(read(tmp_path / "a.parquet")) == rows
    assert most == formats.BATCH_ROWS


def test_records_stay_what_they_are_whatever_the_row_groups(tmp_path: Path):
    """The order of a file's documents, and so of a contiguous split, is that of its rows."""
    for size in (1, 7, 40):
        pq.write_table(columns("text"), tmp_path / "a.parquet", row_group_size=size)
        assert read(tmp_path / "a.parquet") == TEXTS


@pytest.mark.parametrize(
    ("name", "how"),
    [("a.csv", "`kind: huggingface` with `path: csv`"), ("a.jsonl.bz2", "Write .bz2 files anew with gzip or zstd")],
)
def test_a_format_that_is_not_read_is_told_with_the_way_to_it(name: str, how: str):
    with pytest.raises(TikmixError, match=f"its ending tells no format .*{how}"):
        formats.format_of(Path(name), files(name))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_is_not_compressed_as_it_is_called_is_to_be_renamed(tmp_path: Path, ending: str):
    path = tmp_path / f"a.jsonl{ending}"
    path.write_text('{"text": "one"}\n' * 20)
    with pytest.raises(TikmixError, match=f"does not begin as a {ending} file: .* rename it so"):
        read(path)
