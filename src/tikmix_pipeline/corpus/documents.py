"""`Document`: one text with the numbers that decide where it goes.

Both keys are hashes of the text and the corpus seed alone. So a document lands in the same sample and on the same side
of the split whatever file it came from, in whatever order the files were read.
"""

import hashlib
import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.corpus.ngrams import hash_words


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        text: its text.
        size: UTF-8 bytes.
        sample_key: equal for equal texts; documents with the smallest keys stay when a domain is capped.
        split_key: independent of `sample_key`; documents with the smallest keys are held out.
    """

    text: str
    size: int
    sample_key: int
    split_key: int

    @classmethod
    def of(cls, text: str, seed: int) -> "Document":
        """Hash a text."""
        data = text.encode("utf-8")
        digest = hashlib.blake2b(data, digest_size=16, key=str(seed).encode()).digest()
        return cls(text, len(data), int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big"))

    @cached_property
    def words(self) -> npt.NDArray[np.uint64]:
        """Hashes of the text's words in order."""
        return hash_words(self.text)


@dataclass
class Sample:
    """The documents a domain starts with, and what was left out on the way.

    Attributes:
        documents: unique documents within the cap.
        documents_read: documents looked at.
        total_bytes: UTF-8 bytes of all documents read; where these are a sample, an estimate of the whole domain's.
        exact_duplicates: how many of them repeated one of `documents`.
        is_cut: whether the cap is known to have left documents out.
        is_sampled: whether the domain was read at random places instead of whole.
    """

    documents: list[Document]
    documents_read: int = 0
    total_bytes: float = 0
    exact_duplicates: int = 0
    is_cut: bool = False
    is_sampled: bool = False


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
    sample.is_cut = threshold < math.inf
    return sample


def sample_first(texts: Iterable[str], limit_bytes: float, seed: int) -> Sample:
    """Keep the first documents, in their order, until `limit_bytes` are full."""
    sample = Sample([])
    seen: set[int] = set()
    for text in texts:
        document = Document.of(text, seed)
        sample.documents_read += 1
        sample.total_bytes += document.size
        if document.sample_key in seen:
            sample.exact_duplicates += 1
            continue
        seen.add(document.sample_key)
        sample.documents.append(document)
        if (limit_bytes := limit_bytes - document.size) <= 0:
            break
    return sample


def trim(documents: list[Document], limit_bytes: float) -> list[Document]:
    """Return the longest prefix of `documents` that fits into `limit_bytes`; at least one document."""
    kept_bytes = np.cumsum([document.size for document in documents])
    return documents[: max(1, int(np.searchsorted(kept_bytes, limit_bytes, side="right")))]
