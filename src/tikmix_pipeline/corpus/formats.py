"""Local files by format: JSON lines, one JSON array, Parquet and text; all but Parquet also compressed."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tikmix_pipeline.corpus.local_files import Reading
from tikmix_pipeline.corpus.text import (
    LARGEST_TEXT_BYTES,
    LONGEST_LINE_BYTES,
    PACKED,
    Record,
    UnreadableError,
    decode_file,
    missing_field,
    naming,
    parse_json_line,
    read_json_lines,
    too_large,
    too_long,
)
from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.parameters.corpus import FilesSource

_STREAM_BUFFER_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
BATCH_ROWS = 64
"""Few: a value that a page holds once may stand in every row, and each of them becomes a text."""
_TEXT_OR_NULL = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_FORMATS |= dict.fromkeys((".txt", ".text", ".md"), "text")
_BUILDERS = {".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}
"""What `datasets` calls the reader of a format."""
_OTHER_COMPRESSIONS = {".bz2", ".xz", ".lz4", ".br", ".zip", ".7z", ".z"}


def format_of(path: Path, source: FilesSource) -> str:
    """Return `jsonl`, `parquet` or `text`. An ending that tells none of them raises TikmixError."""
    if source.format != "auto":
        return source.format
    suffix = (path.with_suffix("") if compression_of(path) else path).suffix.lower()
    if suffix not in _FORMATS:
        raise TikmixError(
            f"{path}: its ending tells no format (known: {', '.join(_FORMATS)}, each also with .gz or .zst). "
            f"{_way_to(suffix)}."
        )
    return _FORMATS[suffix]


def _way_to(suffix: str) -> str:
    """Say how files of an ending that is not read can be read all the same."""
    if suffix in _BUILDERS:
        builder = _BUILDERS[suffix]
        return f"Of {suffix} files make a source of `kind: huggingface` with `path: {builder}` and them as `data_files`"
    if suffix in _OTHER_COMPRESSIONS:
        return f"Write {suffix} files anew with gzip or zstd"
    return "Set the source's `format`"


def compression_of(path: Path) -> str | None:
    """Return what pyarrow calls the compression that a file's ending tells."""
    return _COMPRESSIONS.get(path.suffix.lower())


def is_json_array(path: Path) -> bool:
    """Return whether a file that is called .json holds one array of records in the place of JSON lines.

    Raises:
        TikmixError: its beginning cannot be read.
    """
    name = path.with_suffix("") if compression_of(path) else path
    if name.suffix.lower() != ".json":
        return False
    with _stream(path) as stream:
        return stream.read(_STREAM_BUFFER_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def file_texts(path: Path, source: FilesSource, reading: Reading) -> Iterator[str]:
    """Yield the documents of one file; a text file is one. Of records whose text is null, an empty one.

    Raises:
        TikmixError: the file is damaged, or holds something other than documents.
    """
    for place, record in file_records(path, source, source.field):
        yield reading.text_of(record, source.field, place)


def file_records(path: Path, source: FilesSource, column: str | None = None) -> Iterator[Record]:
    """Yield the records of one file with all their fields; of a text file, one whose field is its text.

    Of a Parquet file, with `column`, only that one is read.

    Raises:
        TikmixError: the file is damaged, or holds something other than records.
    """
    match format_of(path, source):
        case "parquet":
            yield from parquet_records(path, column)
        case "jsonl" if is_json_array(path):
            yield from _array_records(path)
        case "jsonl":
            yield from read_json_lines(_lines(path), str(path))
        case _:
            yield str(path), {source.field: decode_file(_content(path), str(path))}


def _array_records(path: Path) -> Iterator[Record]:
    records = parse_json_line(_content(path), str(path), 0)
    for number, record in enumerate(records):
        yield f"{path}, record {number}", record


@contextlib.contextmanager
def _stream(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, decompressed by its ending."""
    with complete(path), pa.input_stream(str(path), compression=compression_of(path)) as stream:
        # pyarrow rather than gzip and zstandard: it notices a zstd file that was cut off, which the latter does not
        yield io.BufferedReader(stream, _STREAM_BUFFER_BYTES)


def _lines(path: Path) -> Iterator[bytes]:
    with _stream(path) as stream:
        number = 1
        while line := stream.readline(LONGEST_LINE_BYTES + 1):
            if len(line) > LONGEST_LINE_BYTES:
                raise too_long(f"{path}, line {number}")
            yield line
            number += 1


def _content(path: Path) -> bytes:
    with _stream(path) as stream:
        content = stream.read(LARGEST_TEXT_BYTES + 1)
    if len(content) > LARGEST_TEXT_BYTES:
        raise too_large(str(path))
    return content


def read_blocks(path: Path, bar: Any) -> Iterator[bytes]:
    """Yield a compressed file's content in blocks of up to 4 MiB; `bar` counts the bytes read from disk.

    Raises:
        TikmixError: the file cannot be read to its end.
    """
    position = 0
    with complete(path), pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, compression_of(path)) as stream:
        while block := stream.read(_BLOCK_BYTES):
            bar.update(file.tell() - position)
            position = file.tell()
            yield block


@contextlib.contextmanager
def complete(path: Path) -> Iterator[None]:
    """Turn what the system raises in the body into an UnreadableError that names the file."""
    try:
        yield
    except OSError as error:
        remedy = "Copy or download it again."
        if "too much memory" in str(error):
            remedy = "Its zstd window is larger than 128 MiB: `zstd -dc --long=31 OLD | zstd -o NEW` writes it anew."
        elif not _begins_as_called(path):
            remedy = f"It does not begin as a {path.suffix} file: if it is uncompressed, or otherwise, rename it so."
        raise UnreadableError(f"{path} cannot be read to its end ({error}). {remedy}") from error


def _begins_as_called(path: Path) -> bool:
    """Tell whether a file begins as those of the compression do that its ending tells, if it can be looked at."""
    beginning = PACKED.get(path.suffix.lower(), b"")
    with contextlib.suppress(OSError), path.open("rb") as stream:
        return stream.read(len(beginning)) == beginning
    return True


@contextlib.contextmanager
def parquet_file(path: Path, field: str | None) -> Iterator[Any]:
    """Open a Parquet file; what is wrong with it, in the body too, is told by its name.

    Columns are read through a buffer, since a row group may be larger than memory.

    Raises:
        TikmixError: the file is damaged or, with `field`, does not have one such column of text; without, it has two
            columns of one name.
    """
    try:
        with pq.ParquetFile(path, buffer_size=_STREAM_BUFFER_BYTES) as file:
            _check_columns(path, file, field)
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(f"{path} is no complete Parquet file ({error}). Copy or write it again.") from error


def _check_columns(path: Path, file: Any, field: str | None) -> None:
    names = file.schema_arrow.names
    if field is not None and field not in names:
        raise TikmixError(f"{path}: {missing_field(field, names)}")
    repeated = sorted({name for name in names if names.count(name) > 1 and field in (None, name)})
    if repeated:
        raise TikmixError(f"{path}: more than one column is called {quoted(repeated)}. Write it with one of each name.")
    if field is not None and file.metadata.num_rows:  # writers give the column of an empty file any type
        kind = file.schema_arrow.field(names.index(field)).type
        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_kind(text) for is_kind in _TEXT_OR_NULL):
            raise TikmixError(f"{path}: the field {field!r} holds {kind}, expected text.")


def parquet_records(path: Path, field: str | None) -> Iterator[Record]:
    """Yield rows of a Parquet file; with `field`, only that column is read.

    Raises:
        TikmixError: the file is damaged, holds text that is not UTF-8 or, with `field`, has no such column of text.
    """
    row = 0
    with parquet_file(path, field) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=None if field is None else [field]):
            with naming(f"{path}, in one of the rows {row} to {row + len(batch) - 1},"):
                records = batch.to_pylist()
            for record in records:
                yield f"{path}, row {row}", record
                row += 1
