"""Which sentences stay: of repeated sentences and of nearly repeated paragraphs, the first (Lee et al. 2022).

Only numbers of fixed size are kept (a 64-bit hash for each sentence, a signature for each paragraph, both in
files); the text is streamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import compress, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlmkit.corpus.hashing import (
    MULTIPLIER,
    first_occurrences,
    ngram_hashes,
    normalized,
    text_hash,
    word_hashes,
)
from mlmkit.corpus.store import Document, RawDocument, batches

if TYPE_CHECKING:
    from datasets import Dataset

PERMUTATIONS = 64
SHINGLE = 3
NEAR_DUPLICATE = 0.5
MIN_WORDS = 8
MIN_SENTENCES = 4
SEED = 1
PAIRS_AT_ONCE = 1 << 18


class Kept(NamedTuple):
    """Which sentences of the raw documents stay, in their order, and how many do not."""

    mask: np.ndarray
    dropped_exact: int
    dropped_near: int


def record_sentences(documents: Iterable[RawDocument], path: Path) -> Iterator[RawDocument]:
    """Passes documents on and writes the hash of every normalized sentence to a file."""
    with path.open("wb") as file:
        for document in documents:
            hashes = [text_hash(normalized(sentence)) for part in document.paragraphs for sentence in part]
            np.array(hashes, dtype=np.uint64).tofile(file)
            yield document


def keep(raw: Dataset, hashes: Path, folder: Path, progress: bool = False) -> Kept:
    """Drops sentences that occurred before, then paragraphs of which a similar one occurred before."""
    mask = first_occurrences(np.memmap(hashes, dtype=np.uint64, mode="r"))
    exact = int(len(mask) - mask.sum())
    starts, sizes = _sketch_paragraphs(raw, mask, folder / "paragraphs.u32", progress)
    if len(starts):
        sketches = np.memmap(folder / "paragraphs.u32", dtype=np.uint32, mode="r").reshape(-1, PERMUTATIONS)
        near = np.zeros(len(starts), dtype=bool)
        for _, later in similar_pairs(sketches, NEAR_DUPLICATE, rows=4):
            near[later] = True
        for start, size in zip(starts[near], sizes[near], strict=True):
            mask[start : start + size] = False
    return Kept(mask, exact, int(len(mask) - exact - mask.sum()))


def _sketch_paragraphs(raw: Dataset, mask: np.ndarray, path: Path, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """Writes the signatures of what remains of the paragraphs; returns their first sentences and sizes."""
    starts: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    position = 0
    with path.open("wb") as file:
        for batch in batches(raw, label="finding duplicates" if progress else ""):
            paragraphs = [part for parts in batch["paragraphs"] for part in parts]
            size = np.array([len(part) for part in paragraphs], dtype=np.int64)
            start = position + np.cumsum(size) - size
            position += int(size.sum())
            texts = [
                " ".join(s for s, stays in zip(part, mask[at : at + len(part)], strict=True) if stays)
                for part, at in zip(paragraphs, start, strict=True)
            ]
            long = np.flatnonzero([text.count(" ") >= MIN_WORDS - 1 for text in texts])
            signatures([texts[i] for i in long]).tofile(file)
            starts.append(start[long])
            sizes.append(size[long])
    return np.concatenate(starts), np.concatenate(sizes)


def signatures(texts: list[str]) -> np.ndarray:
    """MinHash signatures (N, 64) of the texts' sets of word 3-grams, by `rensa`.

    The share of equal columns of two rows estimates the Jaccard similarity of the two sets (Broder 1997).
    """
    from rensa import RMinHash

    shingles, owner = ngram_hashes(*word_hashes(texts), SHINGLE)
    offsets = np.searchsorted(owner, np.arange(len(texts) + 1)).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, PERMUTATIONS, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), PERMUTATIONS)


def similar_pairs(sketches: np.ndarray, threshold: float, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (earlier, later) of rows whose estimated similarity is at least the threshold.

    Locality-sensitive hashing: the 64 columns form bands of `rows` columns; only texts that agree in a
    whole band are compared, each with the first text of its group and with the one before it.
    """
    for start in range(0, PERMUTATIONS, rows):
        key = np.zeros(len(sketches), dtype=np.uint64)
        for column in range(start, start + rows):
            key = (key ^ sketches[:, column].astype(np.uint64)) * MULTIPLIER
        order = np.argsort(key, kind="stable")
        begins = np.append(True, np.diff(key[order]) != 0)
        first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        member = np.flatnonzero(~begins)
        for partner in (member - 1, first[member]):
            for at in range(0, len(member), PAIRS_AT_ONCE):
                earlier = order[partner[at : at + PAIRS_AT_ONCE]]
                later = order[member[at : at + PAIRS_AT_ONCE]]
                close = (sketches[earlier] == sketches[later]).mean(axis=1) >= threshold
                yield earlier[close], later[close]


def kept_documents(raw: Dataset, mask: np.ndarray) -> Iterator[Document]:
    """The documents without their dropped sentences; successive short ones of one group are joined."""
    return merge_short(_remaining(raw, mask))


def _remaining(raw: Dataset, mask: np.ndarray) -> Iterator[tuple[str, Document]]:
    """(group, document) for each raw document of which a sentence is left."""
    position = 0
    for batch in batches(raw):
        for source, group, paragraphs in zip(batch["source"], batch["group"], batch["paragraphs"], strict=True):
            sentences = [sentence for part in paragraphs for sentence in part]
            remaining = list(compress(sentences, mask[position : position + len(sentences)]))
            position += len(sentences)
            if remaining:
                yield group, Document(remaining, source)


def merge_short(documents: Iterable[tuple[str, Document]]) -> Iterator[Document]:
    """Joins a document of fewer than four sentences to the next of its group, the last to the one before.

    Documents of the group "" stay as they are.

    >>> rows = [("a", Document(["One."], "a:f")), ("a", Document(["Two.", "Three.", "Four."], "a:g"))]
    >>> list(merge_short(rows))
    [Document(sentences=['One.', 'Two.', 'Three.', 'Four.'], source='a:f')]
    """
    for group, members in groupby(documents, key=itemgetter(0)):
        if not group:
            yield from (document for _, document in members)
            continue
        done: Document | None = None
        growing: Document | None = None
        for _, document in members:
            growing = document if growing is None else _together(growing, document)
            if len(growing.sentences) >= MIN_SENTENCES:
                if done is not None:
                    yield done
                done, growing = growing, None
        if done is not None and growing is not None:
            yield _together(done, growing)
        elif last := done or growing:
            yield last


def _together(first: Document, second: Document) -> Document:
    return Document(first.sentences + second.sentences, first.source)
