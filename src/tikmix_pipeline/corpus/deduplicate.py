"""Duplicate removal: exact copies first, then near-duplicates by MinHash, within and across domains.

Two documents are near-duplicates when the Jaccard similarity of their sets of word n-grams reaches a threshold.
MinHash estimates it from `permutations` slots with a standard error of at most 0.5 / sqrt(permutations) (0.044 for
128). Locality-sensitive hashing proposes the pairs to estimate, with as many bands as make a pair at the threshold
come up with a probability of at least 0.99. Cost: linear in the number of words.
"""

from collections.abc import Mapping

import numpy as np
from rensa import RMinHash, RMinHashDeduplicator

from tikmix_pipeline.corpus.documents import Document, Hashes, ngram_hashes
from tikmix_pipeline.parameters.corpus import NearDuplicateParameters
from tikmix_pipeline.progress import progress_bar

_RECALL = 0.99
_BATCH_DOCUMENTS = 500

Documents = dict[str, list[Document]]


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
