"""Writing a corpus: documents are encoded, and pre-tokenised files are checked and copied, into token shards."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_pipeline.corpus.prepared import PreparedText
from tikmix_pipeline.corpus.shards import (
    TASKS,
    TOKENIZER,
    ShardWriter,
    TokenShards,
    chunks_of_ids,
    dtype_for,
    write_manifest,
)
from tikmix_pipeline.corpus.sources import matching_files
from tikmix_pipeline.corpus.tasks import tokenise_items, write_task_items
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing, require_space, sha256_of_file
from tikmix_pipeline.parameters.corpus import CorpusParameters, DomainParameters, ShardsSource
from tikmix_pipeline.progress import progress_bar

_BATCH_BYTES = 1 << 20
_SAMPLE_BYTES = 50_000
_SPACE_MARGIN = 1.1

_logger = logging.getLogger(__name__)


def write_corpus(
    parameters: CorpusParameters, prepared: PreparedText, tokenizer: CorpusTokenizer, root: Path, folder: Path
) -> TokenShards:
    """Write token shards, tokenizer, task items and manifest; the folder appears, or is replaced, when all is written.

    Args:
        parameters: of the corpus.
        prepared: its text and items.
        tokenizer: encodes them.
        root: the folder that relative paths of pre-tokenised sources start from.
        folder: the corpus folder.

    Raises:
        TikmixError: the disk has no room for it, or a pre-tokenised file does not fit the tokenizer.
    """
    dtype = dtype_for(tokenizer.vocabulary_size)
    limit = max(1, int(parameters.shard_megatokens * 1e6))
    token_domains = [
        _TokenDomain(name, domain, parameters, tokenizer, root)
        for name, domain in parameters.domains.items()
        if name not in prepared.documents
    ]
    tokens = _estimated_tokens(prepared.documents, tokenizer) + sum(domain.tokens for domain in token_domains)
    require_space(folder, int(_SPACE_MARGIN * tokens * dtype.itemsize), "Token shards")

    with replacing(folder) as temporary:
        temporary.mkdir()
        entries = {domain.name: domain.write(temporary, dtype, limit) for domain in token_domains}
        for name, splits in prepared.documents.items():
            entries[name] = {}
            for split, texts in splits.items():
                writer = ShardWriter(temporary, f"{name}/{split}", dtype, limit)
                entries[name][split] = _write_documents(texts, tokenizer, writer)
        tokenizer.save(temporary / TOKENIZER)
        write_task_items(
            temporary / TASKS,
            {
                task: {half: tokenise_items(items, tokenizer) for half, items in halves.items()}
                for task, halves in sorted(prepared.items.items())
            },
        )
        write_manifest(
            temporary,
            {
                "corpus": parameters.name,
                "dtype": dtype.name,
                "vocabulary_size": tokenizer.vocabulary_size,
                "tokenizer_digest": tokenizer.digest,
                "domains": entries,
                "tasks": {"file": TASKS, "sha256": sha256_of_file(temporary / TASKS)},
                "overlap": prepared.overlap,
                "sources": prepared.sources,
            },
        )
    return TokenShards.open(folder, verify=False)


def _write_documents(texts: Sequence[str], tokenizer: CorpusTokenizer, writer: ShardWriter) -> dict[str, Any]:
    sizes = [len(text.encode("utf-8")) for text in texts]
    with writer, progress_bar(writer.prefix, sum(sizes), "B") as bar:
        for start, stop in _batches(sizes):
            for ids in tokenizer.encode(texts[start:stop]):
                writer.write(np.array([*ids, tokenizer.end_of_text_id]))
            bar.update(sum(sizes[start:stop]))
        return writer.entry(documents=len(texts), size=sum(sizes))


def _batches(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ranges of documents of about `_BATCH_BYTES` each: enough to keep the encoder's threads busy."""
    start = size = 0
    for stop, document_size in enumerate(sizes, start=1):
        size += document_size
        if size >= _BATCH_BYTES or stop == len(sizes):
            yield start, stop
            start, size = stop, 0


def _estimated_tokens(documents: Mapping[str, Mapping[str, Sequence[str]]], tokenizer: CorpusTokenizer) -> float:
    """Estimate the tokens of all documents from the beginning of each domain."""
    tokens = 0.0
    for splits in documents.values():
        sample = "".join(text[:_SAMPLE_BYTES] for text in splits["train"][:20])[:_SAMPLE_BYTES]
        (ids,) = tokenizer.encode([sample])
        characters = sum(len(text) for texts in splits.values() for text in texts)
        tokens += len(ids) / max(1, len(sample)) * characters + sum(map(len, splits.values()))
    return tokens


class _TokenDomain:
    """A pre-tokenised domain: its first tokens up to the cap, the last of which are held out.

    What is held out begins with a document, so that none stands in both splits: at the first one from the exact place
    on, hence within the limits on held-out text. Where half of it would be lost by that, it begins at the exact place.
    """

    def __init__(
        self, name: str, domain: DomainParameters, parameters: CorpusParameters, tokenizer: CorpusTokenizer, root: Path
    ):
        self.name = name
        self._tokenizer = tokenizer
        self._files = [
            (path, source)
            for source in domain.sources
            if isinstance(source, ShardsSource)
            for path in matching_files(source.path, root)
        ]
        counts = np.array([path.stat().st_size // np.dtype(source.dtype).itemsize for path, source in self._files])
        sizes = counts * [source.bytes_per_token for _, source in self._files]
        self._bytes_per_token = float(sizes.sum() / max(1, counts.sum()))
        cap = domain.max_megabytes or parameters.max_megabytes or math.inf
        if sizes.sum() > cap * 1e6:
            parameter = f"corpus.domains.{name}.max_megabytes" if domain.max_megabytes else "corpus.max_megabytes"
            _logger.info("corpus.domains.%s: kept %.3g MB (%s)", name, cap, parameter)
        self.tokens = int(min(counts.sum(), cap * 1e6 / self._bytes_per_token if counts.any() else 0))
        heldout_limit = parameters.heldout_max_kilobytes * 1e3 / max(self._bytes_per_token, 1e-9)
        self._heldout = int(min(self.tokens * parameters.heldout_fraction, heldout_limit))
        if self._heldout < 1:
            raise TikmixError(
                f"corpus.domains.{name}: too small for its held-out split: of {self.tokens} tokens, "
                f"corpus.heldout_fraction = {parameters.heldout_fraction:.3g} is none. Add tokens, or raise it."
            )

    def write(self, folder: Path, dtype: Any, limit: int) -> dict[str, Any]:
        """Write both splits; return their entries in the manifest."""
        ids = self._checked_ids()
        rest = np.empty(0, dtype=dtype)
        entries = {}
        training = self._end_of_document(self.tokens - self._heldout)
        for split, wanted in {"train": training, "heldout": self.tokens - training}.items():
            prefix = f"{self.name}/{split}"
            documents, missing = 0, wanted
            with ShardWriter(folder, prefix, dtype, limit) as writer, progress_bar(prefix, wanted, "token") as bar:
                while missing:
                    piece = rest if len(rest) else next(ids)
                    part, rest = piece[:missing], piece[missing:]
                    documents += int(np.count_nonzero(part == self._tokenizer.end_of_text_id))
                    writer.write(part)
                    missing -= len(part)
                    bar.update(len(part))
                entries[split] = writer.entry(documents=documents, size=round(wanted * self._bytes_per_token))
        return entries

    def _end_of_document(self, exact: int) -> int:
        """Return the first number of tokens from `exact` on that ends with a document, or `exact` if there is none."""
        first, stop = exact - 1, exact + self._heldout // 2
        passed = 0
        for path, source in self._files:
            for ids in chunks_of_ids(path, source.dtype):
                start = max(0, first - passed)
                ends = np.flatnonzero(ids[start : max(0, stop - passed)] == self._tokenizer.end_of_text_id)
                if len(ends):
                    return passed + start + int(ends[0]) + 1
                passed += len(ids)
        return exact

    def _checked_ids(self) -> Iterator[Any]:
        for path, source in self._files:
            for ids in chunks_of_ids(path, source.dtype):
                largest = int(ids.max())
                if largest >= self._tokenizer.vocabulary_size:
                    raise TikmixError(
                        f"{path} holds the token id {largest}, but the tokenizer of corpus.tokenizer.path has only "
                        f"{self._tokenizer.vocabulary_size} ids. Check the source's `dtype` (now {source.dtype}) and "
                        "that this tokenizer made the file."
                    )
                yield ids
