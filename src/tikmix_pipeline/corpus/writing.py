"""Writing a corpus: documents are encoded, and pre-tokenised files are checked and copied, into token shards."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_pipeline.corpus.local_files import Reading
from tikmix_pipeline.corpus.records import SPLITS, Manifest, PreparedText, SplitShards, TasksFile
from tikmix_pipeline.corpus.shards import (
    MANIFEST,
    TASKS,
    TOKENIZER,
    Ids,
    ShardWriter,
    TokenShards,
    chunks_of_ids,
    dtype_for,
)
from tikmix_pipeline.corpus.sources import about, cap_bytes, log_kept
from tikmix_pipeline.corpus.tasks import Half, TokenisedItem, tokenise_items, write_task_items
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing, require_space, sha256_of_file, write_json
from tikmix_pipeline.parameters.corpus import DomainParameters, ShardParameters, ShardsSource
from tikmix_pipeline.progress import one_bar, progress_bar

_logger = logging.getLogger(__name__)

_BATCH_BYTES = 1 << 20
_SAMPLE_BYTES = 50_000
_SPACE_MARGIN = 1.1
_TEXTS_LOOKED_AT = 100
_LOOKED_AT = 2000
_TOLD_UNKNOWN = 0.01
_MOST_UNKNOWN = 0.5


def write_corpus(
    parameters: ShardParameters, prepared: PreparedText, tokenizer: CorpusTokenizer, root: Path, folder: Path
) -> TokenShards:
    """Write token shards, tokenizer, task items and manifest; the folder appears, or is replaced, when all is written.

    Raises:
        TikmixError: the disk has no room for it, or a pre-tokenised file does not fit the tokenizer.
    """
    dtype = dtype_for(tokenizer.vocabulary_size)
    limit = max(1, int(parameters.shard_megatokens * 1e6))
    token_domains = {
        name: _TokenDomain(name, domain, parameters, tokenizer, root)
        for name, domain in parameters.domains.items()
        if name not in prepared.documents
    }
    tokens = _estimated_tokens(prepared.documents, tokenizer) + sum(domain.tokens for domain in token_domains.values())
    require_space(folder, int(_SPACE_MARGIN * tokens * dtype.itemsize), "Token shards")
    items: dict[str, dict[Half, list[TokenisedItem]]] = {}
    for task, halves in sorted(prepared.items.items()):
        _require_known(f"corpus.tasks.{task}", [item.text for item in halves["query"]], tokenizer)
        with about(f"corpus.tasks.{task}"):
            items[task] = {half: tokenise_items(of_half, tokenizer) for half, of_half in halves.items()}

    with replacing(folder) as temporary:
        temporary.mkdir()
        domains = _write_domains(temporary, prepared, token_domains, tokenizer, dtype, limit)
        tokenizer.save(temporary / TOKENIZER)
        write_task_items(temporary / TASKS, items)
        manifest = Manifest(
            corpus=parameters.name,
            dtype=dtype.name,
            vocabulary_size=tokenizer.vocabulary_size,
            tokenizer_digest=tokenizer.digest,
            domains=domains,
            tasks=TasksFile(file=TASKS, sha256=sha256_of_file(temporary / TASKS)),
            overlap=prepared.overlap,
            sources=prepared.sources,
        )
        write_json(temporary / MANIFEST, manifest.model_dump(mode="json"))  # the last file of a corpus to be written
    return TokenShards.open(folder, verify=False)


def _write_domains(
    folder: Path,
    prepared: PreparedText,
    token_domains: "Mapping[str, _TokenDomain]",
    tokenizer: CorpusTokenizer,
    dtype: Any,
    limit: int,
) -> dict[str, dict[str, SplitShards]]:
    """Write the shards of every domain, under one bar, and return their entries in the manifest."""
    domains = {}
    count = len(token_domains) + len(prepared.documents)
    with one_bar("write tokens", count, "domain") as bar:
        for number, name in enumerate([*token_domains, *prepared.documents], start=1):
            bar.begin(name, number, count)
            if name in token_domains:
                domains[name] = token_domains[name].write(folder, dtype, limit)
            else:
                splits = prepared.documents[name]
                _require_known(f"corpus.domains.{name}", splits["train"], tokenizer)
                writers = {split: ShardWriter(folder, f"{name}/{split}", dtype, limit) for split in splits}
                domains[name] = {split: _write_documents(splits[split], tokenizer, writers[split]) for split in splits}
            bar.update()
    return domains


def _require_known(parameter: str, texts: Sequence[str], tokenizer: CorpusTokenizer) -> None:
    """Refuse text most of whose characters the tokenizer does not know, and warn of some; `parameter` names it.

    Such a tokenizer has one token for all of them, or none: losses, and bits per byte, would be of that.
    """
    share = tokenizer.unknown_share([text[:_LOOKED_AT] for text in texts[:_TEXTS_LOOKED_AT]])
    told = f"{parameter}: the tokenizer does not know {100 * share:.3g} % of the characters of its text"
    if share > _MOST_UNKNOWN:
        raise TikmixError(
            f"{told}: they give no token, or one for all. Set corpus.tokenizer.path to a tokenizer that was made for "
            "such text, or leave this out."
        )
    if share > _TOLD_UNKNOWN:
        _logger.warning("%s (they give no token, or one for all)", told)


def _write_documents(texts: Sequence[str], tokenizer: CorpusTokenizer, writer: ShardWriter) -> SplitShards:
    sizes = [len(text.encode("utf-8")) for text in texts]
    with closing(writer), progress_bar(writer.prefix, sum(sizes), "B") as bar:
        for start, stop in _batches(sizes):
            for ids in tokenizer.encode(texts[start:stop]):
                writer.write(np.array([*ids, tokenizer.end_of_text_id]))
            bar.update(sum(sizes[start:stop]))
        return writer.finish(documents=len(texts), size=sum(sizes))


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


def _require_once(name: str, paths: Sequence[Path]) -> None:
    """Refuse a token file that is named twice: its copy would stand in both splits."""
    counts = Counter(str(path.resolve()) for path in paths)
    twice = sorted(file for file, count in counts.items() if count > 1)
    if twice:
        raise TikmixError(f"corpus.domains.{name}: its sources name more than once {', '.join(twice)}. Name each once.")


class _TokenDomain:
    """A pre-tokenised domain: its first tokens up to the cap, the last of which are held out.

    What is held out begins with a document, so that none stands in both splits: at the first one from the exact place
    on, hence within the limits on held-out text. Where half of it would be lost by that, it begins at the exact place.
    There are `tokens` up to the cap.
    """

    def __init__(
        self, name: str, domain: DomainParameters, parameters: ShardParameters, tokenizer: CorpusTokenizer, root: Path
    ):
        self._name = name
        self._tokenizer = tokenizer
        self._files = [
            (path, source)
            for source in domain.sources
            if isinstance(source, ShardsSource)
            for path in Reading().matching(source.path, root)
        ]
        _require_once(name, [path for path, _ in self._files])
        counts = np.array([path.stat().st_size // np.dtype(source.dtype).itemsize for path, source in self._files])
        sizes = counts * [source.bytes_per_token for _, source in self._files]
        self._bytes_per_token = float(sizes.sum() / max(1, counts.sum()))
        cap = cap_bytes(domain, parameters)
        if sizes.sum() > cap:
            log_kept(name, domain, cap)
        self.tokens = int(min(counts.sum(), cap / self._bytes_per_token if counts.any() else 0))
        heldout_limit = parameters.heldout_max_kilobytes * 1e3 / max(self._bytes_per_token, 1e-9)
        self._heldout = int(min(self.tokens * parameters.heldout_fraction, heldout_limit))
        if self._heldout < 1:
            raise TikmixError(
                f"corpus.domains.{name}: too small for its held-out split: of {self.tokens} tokens, "
                f"corpus.heldout_fraction = {parameters.heldout_fraction:.3g} is none. Add tokens, or raise it."
            )

    def write(self, folder: Path, dtype: Any, limit: int) -> dict[str, SplitShards]:
        """Write both splits; return their entries in the manifest."""
        training = self._end_of_document(self.tokens - self._heldout)
        ids = self._checked_ids()
        rest = np.empty(0, dtype=dtype)
        shards = {}
        for split, wanted in zip(SPLITS, (training, self.tokens - training), strict=True):
            prefix = f"{self._name}/{split}"
            documents, missing = 0, wanted
            writer = ShardWriter(folder, prefix, dtype, limit)
            with closing(writer), progress_bar(prefix, wanted, "token") as bar:
                while missing:
                    piece = rest if len(rest) else next(ids)
                    taken, rest = piece[:missing], piece[missing:]
                    documents += int(np.count_nonzero(taken == self._tokenizer.end_of_text_id))
                    writer.write(taken)
                    missing -= len(taken)
                    bar.update(len(taken))
                shards[split] = writer.finish(documents=documents, size=round(wanted * self._bytes_per_token))
        if not any(split.documents for split in shards.values()):
            _logger.warning(
                "corpus.domains.%s: none of its %d tokens is the end-of-text token %d of corpus.tokenizer.path: check "
                "that this tokenizer made them; else its documents run into each other",
                *(self._name, self.tokens, self._tokenizer.end_of_text_id),
            )
        return shards

    def _end_of_document(self, exact: int) -> int:
        """Return the first number of tokens from `exact` on that ends with a document, or `exact` if there is none."""
        first, stop = exact - 1, exact + self._heldout // 2
        passed = 0
        for ids, _, _ in self._chunks():
            start = max(0, first - passed)
            ends = np.flatnonzero(ids[start : max(0, stop - passed)] == self._tokenizer.end_of_text_id)
            if len(ends):
                return passed + start + int(ends[0]) + 1
            passed += len(ids)
        return exact

    def _checked_ids(self) -> Iterator[Ids]:
        for ids, path, source in self._chunks():
            largest = int(ids.max())
            if largest >= self._tokenizer.vocabulary_size:
                raise TikmixError(
                    f"{path} holds the token id {largest}, but the tokenizer of corpus.tokenizer.path has only "
                    f"{self._tokenizer.vocabulary_size} ids. Check the source's `dtype` (now {source.dtype}) and "
                    "that this tokenizer made the file."
                )
            yield ids

    def _chunks(self) -> Iterator[tuple[Ids, Path, ShardsSource]]:
        for path, source in self._files:
            yield from ((ids, path, source) for ids in chunks_of_ids(path, source.dtype))
