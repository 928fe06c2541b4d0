"""Words, and 64-bit hashes of words, n-grams and texts: equal on every machine and in every run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

WORD = re.compile(r"\w+")
"""A word is a run of letters, digits and underscores; lower-cased before it is hashed."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
CHUNK = 1 << 24
MAX_VOCABULARY = 1 << 21


class _WordHashes(dict[str, int]):
    """Remembers the hash of each word; forgets everything when it grows too large."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_VOCABULARY:
            self.clear()
        value = self[word] = text_hash(word)
        return value


_HASHES = _WordHashes()


def text_hash(text: str) -> int:
    """64-bit hash of a string, without Python's per-process salt."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def normalized(text: str) -> str:
    """A text's lower-cased words: two texts that differ in case, spacing or punctuation become equal.

    >>> normalized("The  sum (of a).") == normalized("the sum of a")
    True
    """
    return " ".join(WORD.findall(text.lower()))


def count_words(text: str) -> int:
    """Number of words in a text."""
    return len(WORD.findall(text))


def word_hashes(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words of the texts, end to end, and the (N + 1) offsets where each text begins."""
    words = [WORD.findall(text.lower()) for text in texts]
    flat = np.fromiter((_HASHES[word] for text in words for word in text), dtype=np.uint64)
    return flat, np.cumsum([0, *map(len, words)], dtype=np.int64)


def ngram_hashes(flat: np.ndarray, offsets: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the word n-grams within each text and, for each, the number of its text.

    A text of L words has max(0, L - n + 1) of them: h = Σ_j w[i+j] · P^(n-1-j) modulo 2^64, then mixed.
    """
    count = max(0, len(flat) - n + 1)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    hashes = np.zeros(count, dtype=np.uint64)
    for shift in range(n):
        hashes = hashes * MULTIPLIER + flat[shift : shift + count]
    hashes ^= hashes >> np.uint64(29)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(32)
    whole = owner[:count] == owner[n - 1 :]
    return hashes[whole], owner[:count][whole]


def first_occurrences(hashes: np.ndarray) -> np.ndarray:
    """Boolean array: True where a value occurs for the first time; `hashes` may be a memmap.

    >>> first_occurrences(np.array([7, 9, 7], dtype=np.uint64)).tolist()
    [True, True, False]
    """
    first = np.zeros(len(hashes), dtype=bool)
    parts = len(hashes) // CHUNK + 1
    for part in range(parts):
        if parts == 1:
            where = np.arange(len(hashes))
        else:
            where = np.concatenate(
                [
                    start + np.flatnonzero(hashes[start : start + CHUNK] % np.uint64(parts) == part)
                    for start in range(0, len(hashes), CHUNK)
                ]
            )
        _, index = np.unique(hashes[where], return_index=True)
        first[where[index]] = True
    return first
