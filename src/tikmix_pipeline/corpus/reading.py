"""Reading one domain: all of it, or, where it is many times larger than what is kept, at random places."""

import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tikmix_pipeline.corpus.documents import Sample, sample_by_hash, sample_first
from tikmix_pipeline.corpus.huggingface import data_files
from tikmix_pipeline.corpus.sampling.sources import sample_sources
from tikmix_pipeline.corpus.sources import about, files_below, matching_files, read_source
from tikmix_pipeline.parameters.corpus import (
    CorpusParameters,
    DomainParameters,
    FilesSource,
    HuggingFaceSource,
    Source,
)
from tikmix_pipeline.progress import progress_bar

# near-duplicate removal needs something to remove: a capped domain is read to this multiple of its cap
_SPARE = 2.0
# below either of these, reading all is quick, and its sample does not depend on how the text lies in files
_SAMPLED_FOLD = 32
_SAMPLED_BYTES = 256e6

_logger = logging.getLogger(__name__)


def limit_bytes(domain: DomainParameters, parameters: CorpusParameters) -> float:
    """Return the most UTF-8 bytes of text to keep of a domain; infinite where it has no cap."""
    megabytes = domain.max_megabytes or parameters.max_megabytes
    return math.inf if megabytes is None else megabytes * 1e6


def read_domain(
    name: str, domain: DomainParameters, parameters: CorpusParameters, *, root: Path, downloads: Path
) -> Sample:
    """Read the documents that a domain starts with, up to its cap or, where near-duplicates are removed, twice that.

    Args:
        name: of the domain, for errors and the log.
        domain: sources of text.
        parameters: of the corpus.
        root: the folder that relative paths start from.
        downloads: the folder packages are kept in.

    Raises:
        TikmixError: a source is missing, empty or damaged; the message names the domain.
    """
    limit = limit_bytes(domain, parameters)
    if parameters.near_duplicates.enabled and not domain.contiguous_split:
        limit *= _SPARE
    with about(f"corpus.domains.{name}"):
        if is_sampled(domain, parameters, root):
            sampled = sample_sources(
                domain.sources, root=root, downloads=downloads, limit_bytes=limit, seed=parameters.seed
            )
            sample = sample_by_hash(sampled.texts, limit, parameters.seed)
            sample.documents_read, sample.total_bytes = sampled.documents_seen, sampled.total_bytes
            sample.is_sampled = True
            sample.is_cut = sampled.total_bytes > limit or not sampled.is_size_known
        else:
            sample = _read_all(name, domain, limit, parameters.seed, root, downloads)
    size = sum(document.size for document in sample.documents)
    how = "sampled {:.3g} MB at random places of about" if sample.is_sampled else "took {:.3g} MB of all"
    _logger.info(f"corpus.domains.%s: {how.format(size / 1e6)} %.4g MB", name, sample.total_bytes / 1e6)
    return sample


def is_sampled(domain: DomainParameters, parameters: CorpusParameters, root: Path) -> bool:
    """Return whether a domain is read at random places.

    Never where it has no cap, where its documents must stay neighbours, or where all its sources are packages.

    Raises:
        TikmixError: a path or glob matches no file.
    """
    limit = limit_bytes(domain, parameters)
    own = [source for source in domain.sources if isinstance(source, FilesSource | HuggingFaceSource)]
    if parameters.read == "all" or math.isinf(limit) or domain.contiguous_split or not own:
        return False
    if parameters.read == "sample":
        return True
    files = [_local_files(source, root) for source in own]
    if any(
        isinstance(source, HuggingFaceSource) and source.streaming and not local
        for source, local in zip(own, files, strict=True)
    ):
        return True  # of the Hub, and of any size
    on_disk = sum(path.stat().st_size for path in set(itertools.chain.from_iterable(files)))
    return on_disk > max(_SAMPLED_FOLD * limit, _SAMPLED_BYTES)


def _local_files(source: Source, root: Path) -> list[Path]:
    match source:
        case FilesSource():
            return matching_files(source.path, root)
        case HuggingFaceSource():
            return [path for name in (source.path, *data_files(source)) for path in files_below(name, root)]
        case _:
            return []


def _read_all(name: str, domain: DomainParameters, limit: float, seed: int, root: Path, downloads: Path) -> Sample:
    with progress_bar(f"read {name}", None, "document") as bar:
        texts = itertools.chain.from_iterable(
            read_source(source, root=root, downloads=downloads) for source in domain.sources
        )
        pick = sample_first if domain.contiguous_split else sample_by_hash
        return pick(_counted(texts, bar), limit, seed)


def _counted(texts: Iterable[str], bar: Any) -> Iterator[str]:
    for text in texts:
        bar.update()
        yield text
