"""`Document`: one text with the numbers that decide where it goes; a domain's sample, its duplicates and its split.

Its keys are hashes of the text and the corpus seed alone. So a document lands in the same sample and on the same side
of the split whatever file it came from, in whatever order the files were read.

Near-duplicates and contamination are counted in word n-grams as 64-bit hashes. Words are runs of letters and digits,
lower-cased, in Unicode's form NFKC and without soft hyphens, so that ligatures, letters of full width and accents that
are characters of their own make no other word; for contamination, of scripts that set no blanks between words every
character is one, since a run would be a sentence. n-grams that differ share a hash about once in 10^19 / (number of
pairs): never at the sizes handled here.

Duplicates are removed within and across domains: exact copies first, then near-duplicates by MinHash. Two documents are
near-duplicates when the Jaccard similarity of their sets of word n-grams reaches a threshold. MinHash estimates it from
`permutations` slots with a standard error of at most 0.5 / sqrt(permutations) (0.044 for 128). Locality-sensitive
hashing proposes the pairs to estimate, with as many bands as make a pair at the threshold come up with a probability of
at least 0.99. Cost: linear in the number of words, and in that of pairs with a tenth of their n-grams in common: 16,000
documents that share half of their words with all others take half a minute, and twice as many four times that.
"""

import hashlib
import heapq
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from rensa import RMinHash, RMinHashDeduplicator

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import NearDuplicateParameters
from tikmix_pipeline.progress import progress_bar

Hashes = npt.NDArray[np.uint64]

_WORD = re.compile(r"[^\W_]+")
# Thai and Lao, Burmese, Khmer, Tai; kana, Bopomofo, Han with its marks, Yi; further Burmese; Han and kana elsewhere
_WITHOUT_BLANKS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u3005-\u3007\u3021-\u3029\u3031-\u312f"
    "\u31a0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\ua9e0-\ua9ff\uaa60-\uaadf\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f"
    "\U00020000-\U0003ffff"
)
_CHARACTER = re.compile(f"[{_WITHOUT_BLANKS}]")
_CHARACTER_OR_RUN = re.compile(f"[{_WITHOUT_BLANKS}]|[^{_WITHOUT_BLANKS}]+")
_ODD_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_RECALL = 0.99
_BATCH_DOCUMENTS = 500


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order; of scripts that set no blanks between words, the characters."""
    words = _runs(text)
    return [part for word in words for part in _CHARACTER_OR_RUN.findall(word)] if _is_fine(text) else words


def _runs(text: str) -> list[str]:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.replace("\u00ad", ""))
    return _WORD.findall(text.lower())


def _is_fine(text: str) -> bool:
    return not text.isascii() and bool(_CHARACTER.search(text))


def hash_words(text: str) -> Hashes:
    """Return the hash of every run of letters and digits in `text`, in order."""
    return _hashes(_runs(text))


def hash_fine_words(text: str) -> Hashes:
    """Return the hash of each of `words_of(text)`, in order."""
    return _hashes(words_of(text))


def _hashes(words: list[str]) -> Hashes:
    return np.fromiter(map(_hash_word, words), np.uint64, len(words))


@cache
def _hash_word(word: str) -> int:
    """Hash each distinct word once: text repeats its words, so most calls are dictionary hits."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest(), "little")


def forget_words() -> None:
    """Free the memory of the words seen so far; their hashes stay what they are."""
    _hash_word.cache_clear()


def ngram_hashes(words: Hashes, length: int) -> Hashes:
    """Return the hash of every run of `length` words, in order; empty when there are fewer words."""
    count = max(0, len(words) - length + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        hashes = hashes * _ODD_MULTIPLIER + words[offset : offset + count]
    return hashes


@dataclass(frozen=True)
class Document:
    """One text."""

    text: str
    size: int
    """UTF-8 bytes."""
    sample_key: int
    """Equal for equal texts; documents with the smallest keys stay when a domain is capped."""
    split_key: int
    """Independent of `sample_key`; documents with the smallest keys are held out."""

    @classmethod
    def of(cls, text: str, seed: int) -> "Document":
        """Hash a text."""
        data = text.encode("utf-8")
        digest = hashlib.blake2b(data, digest_size=16, key=str(seed).encode()).digest()
        return cls(text, len(data), int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big"))

    @cached_property
    def words(self) -> Hashes:
        """The hashes of the text's runs of letters and digits in order."""
        return hash_words(self.text)

    @cached_property
    def fine_words(self) -> Hashes:
        """The same, of scripts that set no blanks between words by character."""
        return hash_fine_words(self.text) if _is_fine(self.text) else self.words


Documents = dict[str, list[Document]]


@dataclass
class Sample:
    """The documents a domain starts with, and what was left out on the way."""

    documents: list[Document]
    """Unique documents within the cap."""
    documents_read: int = 0
    """Documents looked at."""
    total_bytes: float = 0
    """UTF-8 bytes of all distinct documents, estimated from `documents` where these are part of them; where only a
    sample was read, an estimate of the whole domain's, copies that were not met included."""
    exact_duplicates: int = 0
    """How many of them repeated one of `documents`."""
    duplicate_bytes: int = 0
    """UTF-8 bytes of those."""
    is_sampled: bool = False
    """Whether the domain was read at random places instead of whole."""
    unreadable: tuple[str, ...] = ()
    """Files that could not be read, or not to their end, and were skipped."""
    lost_share: float = 0.0
    """At most this share of the bytes of all files was lost with them."""
    null_texts: int = 0
    """Records that were read and whose text is null; those are left out."""


def sample_by_hash(texts: Iterable[str], limit_bytes: float, seed: int) -> Sample:
    """Keep the documents with the smallest keys, up to the first that does not fit into `limit_bytes`; at least one.

    The sample does not depend on the order of the texts. Memory is bounded by the limit: once a document has overflowed
    it, all with larger keys are out for good, whatever follows, and nothing of them is remembered.
    """
    sample = Sample([])
    heap: list[tuple[int, Document]] = []
    copies: dict[int, int] = {}
    kept_bytes = 0
    threshold = math.inf
    for text in texts:
        document = Document.of(text, seed)
        sample.documents_read += 1
        sample.total_bytes += document.size
        if document.sample_key >= threshold:
            continue
        if document.sample_key in copies:
            copies[document.sample_key] += 1
            continue
        copies[document.sample_key] = 0
        heapq.heappush(heap, (-document.sample_key, document))
        kept_bytes += document.size
        while len(heap) > 1 and kept_bytes > limit_bytes:
            _, overflow = heapq.heappop(heap)
            kept_bytes -= overflow.size
            threshold = overflow.sample_key
            del copies[threshold]
    sample.documents = sorted((document for _, document in heap), key=lambda document: document.sample_key)
    sample.exact_duplicates = sum(copies.values())
    sample.duplicate_bytes = sum(document.size * copies[document.sample_key] for document in sample.documents)
    # those with small keys are a fair sample of all: the others are repeated as often
    sample.total_bytes *= kept_bytes / max(1, kept_bytes + sample.duplicate_bytes)
    return sample


def sample_first(texts: Iterable[str], limit_bytes: float, seed: int) -> Sample:
    """Keep the first documents, in their order, until `limit_bytes` are full; what follows is counted."""
    sample = Sample([])
    seen: set[int] = set()
    for text in texts:
        document = Document.of(text, seed)
        sample.documents_read += 1
        if document.sample_key in seen:
            sample.exact_duplicates += 1
            sample.duplicate_bytes += document.size
            continue
        seen.add(document.sample_key)
        sample.total_bytes += document.size
        if limit_bytes > 0:
            sample.documents.append(document)
            limit_bytes -= document.size
    return sample


def remove_exact_duplicates(domains: Mapping[str, list[Document]]) -> Documents:
    """Keep of equal documents the one in the first domain that has it."""
    seen: set[int] = set()
    kept: Documents = {}
    for name, documents in domains.items():
        kept[name] = [document for document in documents if document.sample_key not in seen]
        seen.update(document.sample_key for document in documents)
    return kept


def remove_near_duplicates(
    domains: Mapping[str, list[Document]], parameters: NearDuplicateParameters, seed: int
) -> Documents:
    """Keep of similar documents the first, in the order of the domains and of each domain's documents.

    A document goes when it resembles one that was kept; resembling one that went is no reason.
    """
    if not parameters.enabled:
        return dict(domains)
    index = RMinHashDeduplicator(
        threshold=parameters.threshold,
        num_perm=parameters.permutations,
        use_lsh=True,
        num_bands=band_count(parameters.threshold, parameters.permutations),
        seed=seed,
    )
    kept: Documents = {}
    with progress_bar("near-duplicates", sum(map(len, domains.values())), "document") as bar:
        for name, documents in domains.items():
            kept[name] = []
            for start in range(0, len(documents), _BATCH_DOCUMENTS):
                batch = documents[start : start + _BATCH_DOCUMENTS]
                # rensa takes tokens as bytes: the eight of each n-gram's hash
                tokens = (_shingles(document, parameters.words).view("V8").tolist() for document in batch)
                sketches = RMinHash.from_token_sets(tokens, parameters.permutations, seed)
                is_new = index.add_pairs((f"{name}/{row}", sketch) for row, sketch in enumerate(sketches, start))
                kept[name] += [document for document, new in zip(batch, is_new, strict=True) if new]
                bar.update(len(batch))
    return kept


def band_count(threshold: float, permutations: int) -> int:
    """Return the fewest bands that propose a pair at the threshold with a probability of at least 0.99.

    b bands of r = permutations / b slots propose a pair of similarity s with probability 1 - (1 - s^r)^b.
    """
    for bands in range(1, permutations + 1):
        slots, rest = divmod(permutations, bands)
        if not rest and 1 - (1 - threshold**slots) ** bands >= _RECALL:
            return bands
    return permutations


def _shingles(document: Document, length: int) -> Hashes:
    """Return a document's n-grams; of a shorter one all its words as one n-gram; of one without words, itself."""
    words = document.words
    if not len(words):
        return np.array([document.sample_key], dtype=np.uint64)
    return ngram_hashes(words, min(length, len(words)))


def trim(documents: list[Document], limit_bytes: float) -> list[Document]:
    """Return the longest prefix of `documents` that fits into `limit_bytes`; at least one document."""
    kept_bytes = np.cumsum([document.size for document in documents])
    return documents[: max(1, int(np.searchsorted(kept_bytes, limit_bytes, side="right")))]


def split_documents(
    documents: list[Document], *, fraction: float, max_bytes: float, contiguous: bool = False, is_capped: bool = False
) -> tuple[list[Document], list[Document]]:
    """Split a domain into (training, held-out) documents.

    Held out are documents of up to `fraction` of the text and up to `max_bytes`: those with the smallest keys that
    fit, or, where documents are slices of one text, a block of neighbours at a place their keys decide. `is_capped`
    says, for the message, whether there were more than the domain's cap has room for.

    Raises:
        TikmixError: no document fits, or none would be left to train on.
    """
    total = sum(document.size for document in documents)
    budget = min(fraction * total, max_bytes)
    heldout = _block(documents, budget / max(1, total)) if contiguous else _fitting(documents, budget)
    if not heldout or len(heldout) == len(documents):
        capped = " within its max_megabytes" if is_capped else ""
        remedy = "Raise max_megabytes, or have shorter documents" if is_capped else "Add documents"
        raise TikmixError(
            f"too small for its held-out split: {len(documents)} documents of {total / 1e3:.0f} kB{capped}, none of "
            f"which fits into the {budget / 1e3:.1f} kB to be held out. {remedy} (a long text can be cut into "
            "several), or raise corpus.heldout_fraction or corpus.heldout_max_kilobytes."
        )
    return (
        [document for row, document in enumerate(documents) if row not in heldout],
        [document for row, document in enumerate(documents) if row in heldout],
    )


def _fitting(documents: list[Document], budget: float) -> set[int]:
    """Return the rows to hold out, in the order of their keys; once half is full, none is passed over any more.

    Passing over documents that do not fit favours short ones, so it ends as soon as there is enough.
    """
    rows: set[int] = set()
    filled = 0
    for row in sorted(range(len(documents)), key=lambda row: documents[row].split_key):
        if filled + documents[row].size <= budget:
            rows.add(row)
            filled += documents[row].size
        elif filled >= budget / 2:
            break
    return rows


def _block(documents: list[Document], share: float) -> set[int]:
    count = int(share * len(documents))
    start = sum(document.split_key for document in documents) % (len(documents) - count + 1)
    return set(range(start, start + count))
