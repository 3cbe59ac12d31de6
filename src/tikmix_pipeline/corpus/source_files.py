"""What the parameters say of sources, without reading any: their files, what tells that these changed, their caps."""

import contextlib
import glob
import logging
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import stat_signature
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


def matching_files(pattern: str, root: Path) -> list[Path]:
    """Return the files a path or glob names, sorted; relative ones start from `root`.

    Raises:
        TikmixError: there is no such file.
    """
    paths = [path for path in _matches(pattern, root) if path.is_file()]
    if not paths:
        raise TikmixError(f"no file matches {pattern!r} in {root}. Check the path; `**` stands for any folders.")
    return paths


def files_below(name: str, root: Path) -> list[Path]:
    """Return the local files that a path or glob of a Hugging Face source stands for, those of folders included."""
    found = [path for match in _matches(name, root) for path in (match.rglob("*") if match.is_dir() else [match])]
    return sorted(path for path in set(found) if path.is_file())


def _matches(pattern: str, root: Path) -> list[Path]:
    pattern = os.path.join(glob.escape(str(root)), pattern)
    return sorted(map(Path, glob.glob(pattern, recursive=True)))


def data_files(source: HuggingFaceSource) -> list[str]:
    """Return the paths and globs of the source's data files."""
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
            return {source.path: stat_signature(matching_files(source.path, root))}
        case StandardLibrarySource():
            return {"standard_library": platform.python_version()}
        case HuggingFaceSource():
            local = {name: files_below(name, root) for name in (source.path, *data_files(source))}
            signatures: dict[str, Any] = {name: stat_signature(files) for name, files in local.items() if files}
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
