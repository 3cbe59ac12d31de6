"""Word n-grams as 64-bit hashes: what near-duplicates and contamination are counted in.

Words are runs of letters and digits, lower-cased. With 64 bits, n-grams that differ share a hash about once in
10^19 / (number of pairs): never at the sizes handled here.
"""

import hashlib
import re

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_WORD = re.compile(r"[^\W_]+")
_ODD_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class _WordHashes(dict[str, int]):
    """Hashes each distinct word once: text repeats its words, so most look-ups are dictionary hits."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value


_word_hashes = _WordHashes()


def forget_words() -> None:
    """Free the memory of the words seen so far; their hashes stay what they are."""
    _word_hashes.clear()


def hash_words(text: str) -> Hashes:
    """Return the hash of every word of `text`, in order."""
    words = _WORD.findall(text.lower())
    return np.fromiter(map(_word_hashes.__getitem__, words), np.uint64, len(words))


def ngram_hashes(words: Hashes, length: int) -> Hashes:
    """Return the hash of every run of `length` words, in order; empty when there are fewer words."""
    count = max(0, len(words) - length + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        hashes = hashes * _ODD_MULTIPLIER + words[offset : offset + count]
    return hashes
