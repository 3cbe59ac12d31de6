"""Reading one domain: all of it, or, where it is many times larger than what is kept, at random places."""

import itertools
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tikmix_pipeline.corpus.documents import Sample, sample_by_hash, sample_first
from tikmix_pipeline.corpus.formats import compression_of, file_texts, format_of, is_json_array
from tikmix_pipeline.corpus.local_files import Reading, files_below, matching_files, size_on_disk
from tikmix_pipeline.corpus.sampling.draws import READING_BUDGET_BYTES, Reservoir, Sampled, deal, joined, size_of
from tikmix_pipeline.corpus.sampling.tables import sample_dataset, sample_parquet
from tikmix_pipeline.corpus.sampling.text_files import sample_plain_lines, sample_plain_text, sample_streams
from tikmix_pipeline.corpus.sources import about, cap_bytes, data_files, describe, read_source
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import DomainParameters, FilesSource, HuggingFaceSource, Source, TextParameters
from tikmix_pipeline.progress import progress_bar

# near-duplicate removal needs something to remove: a capped domain is read to this multiple of its cap
_SPARE = 2.0
# below either of these, reading all is quick, and its sample does not depend on how the text lies in files
_SAMPLED_FOLD = 32
_SAMPLED_BYTES = 256e6

_BUILDERS: dict[str, Literal["jsonl", "parquet"]] = {"json": "jsonl", "parquet": "parquet"}
_ENDINGS = {
    "jsonl": tuple(f"{name}{compression}" for name in (".jsonl", ".ndjson") for compression in ("", ".gz", ".zst")),
    "parquet": (".parquet",),
}

_logger = logging.getLogger(__name__)


def read_domain(
    name: str, domain: DomainParameters, parameters: TextParameters, *, root: Path, downloads: Path
) -> Sample:
    """Read the documents that a domain starts with, up to its cap or, where near-duplicates are removed, twice that.

    Raises:
        TikmixError: a source is missing, empty or damaged, or too many of its texts are null; the message names the
            domain.
    """
    limit = cap_bytes(domain, parameters)
    reading = Reading(skips_unreadable=parameters.on_unreadable == "skip", of_domain=True)
    if parameters.near_duplicates.enabled and not domain.contiguous_split:
        limit *= _SPARE
    with about(f"corpus.domains.{name}"):
        if is_sampled(domain, parameters, root):
            sampled = sample_sources(
                domain.sources,
                root=root,
                downloads=downloads,
                limit_bytes=limit,
                seed=parameters.seed,
                reading=reading,
            )
            sample = sample_by_hash(sampled.texts, limit, parameters.seed)
            sample.documents_read, sample.total_bytes = sampled.documents_seen, sampled.total_bytes
            sample.is_sampled = True
        else:
            texts = (read_source(source, root=root, downloads=downloads, reading=reading) for source in domain.sources)
            pick = sample_first if domain.contiguous_split else sample_by_hash
            with progress_bar(f"read {name}", None, "document") as bar:
                sample = pick(_counted(itertools.chain.from_iterable(texts), bar), limit, parameters.seed)
        reading.finish(max_null_share=parameters.max_null_share, is_sample=sample.is_sampled)
    sample.unreadable = tuple(sorted(os.path.relpath(path, root) for path in reading.lost))
    sample.lost_share, sample.null_texts = reading.lost_share, reading.nulls
    return sample


def _counted(texts: Iterable[str], bar: Any) -> Iterator[str]:
    for text in texts:
        bar.update()
        yield text


def is_sampled(domain: DomainParameters, parameters: TextParameters, root: Path) -> bool:
    """Return whether a domain is read at random places.

    Never where it has no cap, where its documents must stay neighbours, or where all its sources are packages.

    Raises:
        TikmixError: a path or glob matches no file.
    """
    limit = cap_bytes(domain, parameters)
    own = [source for source in domain.sources if isinstance(source, FilesSource | HuggingFaceSource)]
    if parameters.read == "all" or math.isinf(limit) or domain.contiguous_split or not own:
        return False
    if parameters.read == "sample":
        return True
    files: set[Path] = set()
    for source in own:
        if isinstance(source, FilesSource):
            files.update(matching_files(source.path, root))
        else:
            local = [path for name in (source.path, *data_files(source)) for path in files_below(name, root)]
            if source.streaming and not local:
                return True  # of the Hub, and of any size
            files.update(local)
    return sum(map(size_on_disk, files)) > max(_SAMPLED_FOLD * limit, _SAMPLED_BYTES)


@dataclass(frozen=True, order=True)
class _Part:
    """What is sampled in one go: files of one kind, or one other source; `label` names it in errors."""

    key: str
    """Decides its random numbers; does not depend on where the files are."""
    label: str = field(compare=False)
    sampler: Callable[..., Sampled] = field(compare=False)
    """Takes `limit_bytes` and `generator`."""


def sample_sources(
    sources: Sequence[Source],
    *,
    root: Path,
    downloads: Path,
    limit_bytes: float,
    seed: int,
    reading: Reading | None = None,
) -> Sampled:
    """Draw documents from all sources of a domain, each of them equally likely, and read little more than they are.

    The sample depends on the files and the seed alone, and not on the order of the sources or on where `root` is.
    Memory is bounded by the limit, which each stream of unknown size takes once more. Packages and the standard library
    are read whole. At least one document is drawn, however small `limit_bytes` of UTF-8 text are.

    Raises:
        TikmixError: a source is missing or holds no text, or what was drawn of it is damaged.
    """
    reading = reading or Reading()
    sources = [of_files for source in sources for of_files in _as_files(source, root)]
    others = (_of_other(source, root, downloads, reading) for source in sources if not isinstance(source, FilesSource))
    parts = sorted({*_of_files(sources, root, reading), *others})
    drawn: list[Sampled] = []
    unknown: list[Sampled] = []
    for part in parts:
        generator = np.random.default_rng([seed, zlib.crc32(part.key.encode("utf-8"))])
        sampled = part.sampler(limit_bytes=limit_bytes, generator=generator)
        if not sampled.texts:
            raise TikmixError(f"{part.label}: no text was found. Check the files, or set corpus.read to `all`.")
        # each is drawn as if it were alone: only then is it known how much text it has, to deal the limit by
        if sampled.is_size_known:
            drawn = deal([*drawn, sampled], limit_bytes)
        else:
            unknown.append(sampled)
            if len(parts) > 1:
                _logger.info(
                    "%s: its size is not known, and taken to be that of the other sources on average", part.label
                )
    return joined(deal([*drawn, *unknown], limit_bytes))


def _as_files(source: Source, root: Path) -> list[Source]:
    """Return the files that a dataset of local data files stands for, since files can be entered anywhere."""
    kind = _BUILDERS.get(source.path) if isinstance(source, HuggingFaceSource) else None
    if not isinstance(source, HuggingFaceSource) or kind is None or source.split != "train":
        return [source]
    found = {name: files_below(name, root) for name in data_files(source)}
    paths = itertools.chain.from_iterable(found.values())
    # another ending may be that of one JSON array, or of a compression that the builder alone knows
    if not found or not all(found.values()) or not all(path.name.lower().endswith(_ENDINGS[kind]) for path in paths):
        return [source]
    return [FilesSource(kind="files", path=name, format=kind, field=source.field) for name in found]


def _of_files(sources: Sequence[Source], root: Path, reading: Reading) -> Iterator[_Part]:
    """Yield the files of all sources together, by format, compression and field."""
    files: dict[tuple[str, bool, str], dict[Path, FilesSource]] = {}
    for source in sources:
        if isinstance(source, FilesSource):
            for path in reading.matching(source.path, root):
                with reading.noting(path):
                    files.setdefault(_kind_of(path, source), {})[path] = source
    budget = READING_BUDGET_BYTES / max(1, sum(compressed or kind == "parquet" for kind, compressed, _ in files))
    for (kind, is_compressed, column), found in files.items():
        paths = sorted(found)
        label = f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else f"{paths[0]}"
        if kind == "array":
            sampler: Callable[..., Sampled] = partial(_sample_whole, partial(_array_texts, found, reading))
        else:
            sampler = partial(_sampler(kind, is_compressed, column, paths, budget), reading=reading)
        yield _Part(f"files {kind} {is_compressed} {column}", label, sampler)


def _kind_of(path: Path, source: FilesSource) -> tuple[str, bool, str]:
    """Return a file's format, whether it is compressed, and its field: what those that are sampled together share."""
    kind = format_of(path, source)
    kind = "array" if kind == "jsonl" and is_json_array(path) else kind
    is_compressed = compression_of(path) is not None and kind not in {"parquet", "array"}
    return kind, is_compressed, "" if kind == "text" else source.field


def _array_texts(found: dict[Path, FilesSource], reading: Reading) -> Iterator[str]:
    for path, source in sorted(found.items()):
        yield from reading.up_to_damage(path, file_texts(path, source, reading))


def _sampler(kind: str, is_compressed: bool, column: str, paths: list[Path], budget: float) -> Callable[..., Sampled]:
    if kind == "parquet":
        return partial(sample_parquet, paths, column, budget_bytes=budget)
    if is_compressed:
        return partial(sample_streams, paths, column or None, budget_bytes=budget)
    return partial(sample_plain_lines, paths, column) if kind == "jsonl" else partial(sample_plain_text, paths)


def _of_other(source: Source, root: Path, downloads: Path, reading: Reading) -> _Part:
    if isinstance(source, HuggingFaceSource):
        sampler: Callable[..., Sampled] = partial(sample_dataset, source, root, reading=reading)
    else:
        sampler = partial(_sample_whole, partial(read_source, source, root=root, downloads=downloads, reading=reading))
    return _Part(source.model_dump_json(), describe(source), sampler)


def _sample_whole(texts: Callable[[], Iterator[str]], *, limit_bytes: float, generator: np.random.Generator) -> Sampled:
    reservoir = Reservoir(limit_bytes, generator)
    total = count = 0
    for text in texts():
        size = size_of(text)
        if not reservoir.passes_over():
            reservoir.add(text, size)
        total, count = total + size, count + 1
    return Sampled(reservoir.texts, total, count)
