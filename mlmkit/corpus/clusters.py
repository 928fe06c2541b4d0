"""Which documents belong together, and which cluster goes to which split.

Two documents are joined when they have runs of eight words in common, one for every two hundred words of the
shorter one (so a single common run joins short documents, but not two chapters), or when the MinHash estimate of
the similarity of their word 3-grams is at least 0.2. The clusters are the connected components; a cluster never
straddles the split, so hardly anything that is held out is repeated in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlmkit.corpus.dedup import PERMUTATIONS, signatures, similar_pairs
from mlmkit.corpus.hashing import ngram_hashes, word_hashes
from mlmkit.corpus.store import BATCH, batches
from mlmkit.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

NGRAM = 8
WORDS_PER_COMMON = 200
SIMILAR = 0.2
MAX_NGRAMS = 1 << 24
BYTES_PER_WORD = 6
SPLITS = ("train", "validation", "test")


class Clusters(NamedTuple):
    """For each document the number of its cluster and its number of words."""

    labels: np.ndarray
    words: np.ndarray


def sampling(size: int) -> int:
    """Of how many n-grams one is looked at, so that those of a corpus of `size` bytes fit in memory."""
    return 1 + size // (BYTES_PER_WORD * MAX_NGRAMS)


def cluster(documents: Dataset, one_in: int, folder: Path, progress: bool = False) -> Clusters:
    """Connected components of the documents that are similar or share an 8-gram (of one in `one_in`)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    words = _describe(documents, one_in, folder, progress)
    sketches = np.memmap(folder / "sketches", dtype=np.uint32, mode="r").reshape(-1, PERMUTATIONS)
    pairs = [_sharing(folder, words, one_in), *similar_pairs(sketches, SIMILAR, rows=2)]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    links = coo_matrix((np.ones(len(first), dtype=np.int32), (first, second)), shape=(len(words), len(words)))
    return Clusters(connected_components(links, directed=False)[1], words)


def _describe(documents: Dataset, one_in: int, folder: Path, progress: bool) -> np.ndarray:
    """Writes each document's 8-grams and signature to files; returns its number of words."""
    words = [np.empty(0, dtype=np.int64)]
    number = 0
    with (
        (folder / "ngrams").open("wb") as grams,
        (folder / "owners").open("wb") as owners,
        (folder / "sketches").open("wb") as sketches,
    ):
        for batch in batches(documents, label="finding similar documents" if progress else ""):
            texts = [" ".join(document) for document in batch["sentences"]]
            flat, offsets = word_hashes(texts)
            hashes, owner = ngram_hashes(flat, offsets, NGRAM)
            chosen = hashes % np.uint64(one_in) == 0
            hashes[chosen].tofile(grams)
            (owner[chosen] + number).astype(np.int64).tofile(owners)
            signatures(texts).tofile(sketches)
            words.append(np.diff(offsets))
            number += len(texts)
    return np.concatenate(words)


def _sharing(folder: Path, words: np.ndarray, one_in: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents with at least one common n-gram for every two hundred words of the shorter one.

    Only neighbors in an n-gram's list of documents are counted: that is enough for connected components.
    """
    grams = np.fromfile(folder / "ngrams", dtype=np.uint64)
    owners = np.fromfile(folder / "owners", dtype=np.int64)
    order = np.argsort(grams, kind="stable")
    same = np.flatnonzero(np.diff(grams[order]) == 0)
    pairs, common = np.unique(owners[order[same]] * len(words) + owners[order[same + 1]], return_counts=True)
    first, second = np.divmod(pairs, len(words))
    enough = common * one_in * WORDS_PER_COMMON >= np.minimum(words[first], words[second])
    return first[enough], second[enough]


def assign(clusters: Clusters, held_out: float, seed: int, name: str) -> np.ndarray:
    """The split of each document (0 train, 1 validation, 2 test).

    Clusters in random order fill validation, then test, until each holds the share `held_out` of the words.
    Clusters larger than a tenth of that are taken only when there is nothing else, the largest never.
    """
    sizes = np.bincount(clusters.labels, weights=clusters.words)
    if len(sizes) < len(SPLITS):
        raise UserError(
            f"{name}: {len(clusters.labels)} documents form {len(sizes)} cluster(s) of similar documents, "
            "but train, validation and test need one each: give more, and more varied, text"
        )
    target = held_out * sizes.sum()
    rng = np.random.default_rng(seed)
    rank = np.where(sizes > 0.1 * target, 1 + sizes, rng.random(len(sizes)))
    order = np.argsort(rank, kind="stable")[:-1]
    filled = np.cumsum(sizes[order])
    validation = min(int(np.searchsorted(filled, target)) + 1, len(order) - 1)
    test = min(int(np.searchsorted(filled, filled[validation - 1] + target)) + 1, len(order))
    split_of_cluster = np.zeros(len(sizes), dtype=np.int8)
    split_of_cluster[order[:validation]] = 1
    split_of_cluster[order[validation:test]] = 2
    return split_of_cluster[clusters.labels]


def ngram_overlap(
    train: Dataset | Iterable[list[str]],
    held_out: Dataset | Iterable[list[str]],
    n: int = NGRAM,
    one_in: int = 1,
) -> float:
    """The share of the held-out documents' word n-grams that occur in training documents.

    Documents are lists of sentences, or a dataset with a column `sentences`; n-grams are of lower-cased
    words and lie within one document. `one_in` looks only at a pseudo-random sample of them.

    >>> ngram_overlap([["The cat sat on the mat."]], [["A cat sat.", "On the roof."]], n=3)
    0.5
    """
    wanted, counts = np.unique(
        np.concatenate([np.empty(0, np.uint64), *_hashes(held_out, n, one_in)]), return_counts=True
    )
    if not len(wanted):
        return 0.0
    found = np.zeros(len(wanted), dtype=bool)
    for hashes in _hashes(train, n, one_in):
        at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        found[at[wanted[at] == hashes]] = True
    return float(counts[found].sum() / counts.sum())


def _hashes(documents: Dataset | Iterable[list[str]], n: int, one_in: int) -> Iterator[np.ndarray]:
    """Hashes of the n-grams of documents, a batch at a time; a sample has none that `cluster` looked at."""
    for sentences in _sentence_batches(documents):
        hashes, _ = ngram_hashes(*word_hashes(" ".join(document) for document in sentences), n)
        yield hashes[hashes % np.uint64(one_in) == one_in - 1]


def _sentence_batches(documents: Any) -> Iterator[list[list[str]]]:
    if hasattr(documents, "column_names"):
        yield from (batch["sentences"] for batch in batches(documents))
    else:
        rows = iter(documents)
        while batch := list(islice(rows, BATCH)):
            yield [row["sentences"] if isinstance(row, Mapping) else row for row in batch]
