"""Documents → `[CLS] A [SEP] B [SEP]`: sentence pairs for next-sentence prediction (Devlin et al. 2019, task #2).

A tokenized document is one row of an Arrow table on disk. Pairs are planned for a `Block` at a time, a bounded
slice of the table, so the corpus may be larger than the memory. A pair is four numbers, the token ranges of A and
B; tokens are only copied when a batch is laid out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlmkit.corpus import Corpus
from mlmkit.errors import UserError
from mlmkit.tokenizer import Tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

Ints = NDArray[np.int64]
IS_NEXT, IS_RANDOM = 0, 1
"""Labels of the sentence relation, as in BERT's code and in `transformers`."""
CANDIDATES = 32
"""How many continuations are drawn for a random B; the one of the most fitting length is taken."""


@dataclass(frozen=True)
class Block:
    """Some documents as flat arrays.

    Attributes:
        tokens: token ids of all sentences, one after the other (T,).
        sentences: where each sentence begins in `tokens`, and the end of the last (N + 1,).
        documents: where each document begins in `sentences`, and the end of the last (D + 1,).
    """

    tokens: NDArray[np.int32]
    sentences: Ints
    documents: Ints


@dataclass(frozen=True)
class Pairs:
    """Token ranges of A and B in the block, the relation, and the documents they come from; each (P,)."""

    a_start: Ints
    a_end: Ints
    b_start: Ints
    b_end: Ints
    label: Ints
    a_document: Ints
    b_document: Ints

    def __len__(self) -> int:
        return len(self.label)

    @property
    def lengths(self) -> Ints:
        """Length of `[CLS] A [SEP] B [SEP]` (P,)."""
        return (self.a_end - self.a_start) + (self.b_end - self.b_start) + 3


def tokenize_corpus(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> dict[str, Dataset]:
    """Write each split as an Arrow table of token ids and open it memory-mapped.

    A row is a document: `input_ids` (all its sentences, one after the other) and `sentence_lengths`. Sentences
    without a single token are dropped. What was written before for the same corpus and vocabulary is opened again.

    Args:
        corpus: splits with a column `sentences`.
        tokenizer: its vocabulary is part of the name under which the tables are kept.
        folder: where to keep them.
    """
    from datasets import load_from_disk
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    vocabulary = hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()[:16]
    target = folder / f"{corpus.fingerprint}-{vocabulary}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tokens-", dir=folder))
        try:
            for name, split in corpus.splits.items():
                rows = split.map(
                    lambda batch: _tokenize_documents(batch["sentences"], tokenizer),
                    batched=True,
                    remove_columns=split.column_names,
                    cache_file_name=str(scratch / f"{name}-map.arrow"),
                    load_from_cache_file=False,
                    new_fingerprint=f"{corpus.fingerprint}{vocabulary}{name}",
                )
                rows.save_to_disk(scratch / "tables" / name)
            _publish(scratch / "tables", target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return {name: load_from_disk(str(target / name)) for name in corpus.splits}


def _publish(folder: Path, target: Path) -> None:
    """Give a finished folder its name in one step; if another process was first, its result is as good."""
    try:
        os.replace(folder, target)
    except OSError:
        if not target.is_dir():
            raise


def _tokenize_documents(documents: list[list[str]], tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    ids = iter(tokenizer.encode_batch([sentence for document in documents for sentence in document]))
    rows: dict[str, list[list[int]]] = {"input_ids": [], "sentence_lengths": []}
    for document in documents:
        sentences = [found for found in (next(ids) for _ in document) if found]
        if sentences:
            rows["input_ids"].append([i for sentence in sentences for i in sentence])
            rows["sentence_lengths"].append([len(sentence) for sentence in sentences])
    return rows


def token_ids(documents: Dataset) -> Iterator[NDArray[np.int64]]:
    """Go through the ids of a tokenized split, some thousand documents at a time."""
    for start in range(0, len(documents), 10_000):
        yield read_block(documents, start, start + 10_000).tokens.astype(np.int64)


def bigrams(documents: Dataset) -> Iterator[tuple[Ints, Ints]]:
    """Go through the pairs of neighboring tokens of a tokenized split, left and right, within sentences."""
    for start in range(0, len(documents), 10_000):
        block = read_block(documents, start, start + 10_000)
        tokens = block.tokens.astype(np.int64)
        inside = np.ones(len(tokens), dtype=bool)
        inside[block.sentences[:-1]] = False
        yield tokens[:-1][inside[1:]], tokens[1:][inside[1:]]


def read_block(documents: Dataset, start: int, stop: int) -> Block:
    """Read documents `start` to `stop` (exclusive) of a tokenized split."""
    rows = documents.with_format("arrow")[start : min(stop, len(documents))]

    def flat(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        column = rows[name].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False)
        return values, column.value_lengths().to_numpy(zero_copy_only=False)

    tokens, _ = flat("input_ids")
    lengths, per_document = flat("sentence_lengths")
    return Block(tokens.astype(np.int32, copy=False), _offsets(lengths), _offsets(per_document))


def _offsets(lengths: NDArray[Any]) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def make_pairs(block: Block, max_length: int, rng: np.random.Generator, short_seq_prob: float = 0.1) -> Pairs:
    """Cut every document into sentence pairs, as BERT's own script does.

    Sentences of a document are gathered until they fill the target length, then cut at a random sentence
    boundary into A and what follows. With probability ½ B is what follows; otherwise B is what follows the A of
    some pair of *another* document, and what followed A opens the next pair. The target is `max_length` − 3, or,
    with probability `short_seq_prob`, a random smaller number. Pairs that are too long lose tokens at both ends
    of their longer sentence.

    Where we differ from BERT, so that the label cannot be read off A alone, B alone or a length:

    - A chunk always has at least two sentences, so both relations are possible and half of the pairs are random
      (in BERT's script more than half).
    - A random B is itself a true continuation: of `CANDIDATES` drawn ones, that which makes the lengths most like
      those with the true B. (In BERT's it begins anywhere, also at the first sentence of a document, and fills
      the target, so openings and short pairs give themselves away.)
    - A last sentence left alone is paired with the one before it, again and again until it is the next. A
      document of one sentence has no continuation and is left out.

    Args:
        block: at least two documents with two sentences each.
        max_length: longest pair S, special tokens included; at least 8.
        rng: source of all draws.
        short_seq_prob: share of pairs with a random shorter target.

    Raises:
        UserError: no pair can be made.
    """
    if max_length < 8:
        raise UserError(f"data.max_length must be at least 8, got {max_length}")
    usable = np.flatnonzero(np.diff(block.documents) >= 2)
    if len(usable) < 2:
        raise UserError(
            f"sentence pairs need two documents with two sentences each; of {len(block.documents) - 1} documents "
            f"{len(usable)} have two. A blank line ends a document in .txt files"
        )
    a_start, cut, b_end, label, document = _cut_documents(block, usable, max_length - 3, short_seq_prob, rng)
    b_from = _b_from(cut - a_start, b_end - cut, label, document, limit=max_length - 3, rng=rng)
    trimmed = _trim(a_start, cut, cut[b_from], b_end[b_from], limit=max_length - 3, rng=rng)
    return Pairs(*trimmed, label, document, document[b_from])


def _cut_documents(block: Block, document: Ints, room: int, short_seq_prob: float, rng: np.random.Generator) -> Ints:
    """Cut all documents at once, the next pair of each in every round.

    Returns:
        Token at which A begins, at which A ends and B begins, and at which B ends, label and document: (5, P), the
        pairs of a document together and in order. B is what follows A, whatever the label.
    """
    starts = block.sentences
    sentence, end = block.documents[document], block.documents[document + 1]  # (D,) where each document stands
    rounds = []
    while len(sentence):
        short = rng.random(len(sentence)) < short_seq_prob
        target = np.where(short, rng.integers(2, room + 1, len(sentence)), room)
        first = np.minimum(sentence, end - 2)
        stop = np.maximum(np.searchsorted(starts, starts[first] + target), first + 2)
        stop = np.minimum(stop, end)
        cut = rng.integers(first + 1, stop)  # A is sentences first … cut − 1
        label = np.where(rng.random(len(sentence)) < 0.5, IS_NEXT, IS_RANDOM)
        rounds.append(np.stack([starts[first], starts[cut], starts[stop], label, document]))
        sentence = np.where(label == IS_NEXT, stop, cut)
        more = sentence < end
        sentence, end, document = sentence[more], end[more], document[more]
    pairs = np.concatenate(rounds, axis=1)
    return pairs[:, np.argsort(pairs[-1], kind="stable")]


def _b_from(a: Ints, b: Ints, label: Ints, document: Ints, *, limit: int, rng: np.random.Generator) -> Ints:
    """Number of the pair from which each pair takes its B (P,): its own, or one of another document."""
    source = np.arange(len(label))
    random = np.flatnonzero(label == IS_RANDOM)
    for start in range(0, len(random), 4096):  # some at a time, so that the candidates stay in the processor's cache
        some = random[start : start + 4096]  # (R,)
        first = np.searchsorted(document, document[some])[:, None]  # the pairs of a document lie together
        own = np.searchsorted(document, document[some], side="right")[:, None] - first
        drawn = rng.integers(len(document) - own, size=(len(some), CANDIDATES))  # (R, CANDIDATES)
        drawn += np.where(drawn >= first, own, 0)
        true_a, true_b = _kept(a[some, None], b[some, None], limit)  # (R, 1)
        kept_a, kept_b = _kept(a[some, None], b[drawn], limit)  # (R, CANDIDATES)
        total = np.abs(kept_a + kept_b - true_a - true_b)
        nearest = (total * (limit + 1) + np.abs(kept_b - true_b)).argmin(axis=1)  # (R,) total first, then B
        source[some] = drawn[np.arange(len(some)), nearest]
    return source


def _trim(
    a_start: Ints, a_end: Ints, b_start: Ints, b_end: Ints, *, limit: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints, Ints]:
    """Shorten the longer sentence until both fit; each token goes from the front or the back with equal chance."""
    a, b = a_end - a_start, b_end - b_start
    keep_a, keep_b = _kept(a, b, limit)
    front_a, front_b = rng.binomial(a - keep_a, 0.5), rng.binomial(b - keep_b, 0.5)
    return a_start + front_a, a_start + front_a + keep_a, b_start + front_b, b_start + front_b + keep_b


def _kept(a: Ints, b: Ints, limit: int) -> tuple[Ints, Ints]:
    """Lengths of A and B when the longer has been shortened until both fit."""
    keep_b = np.minimum(b, np.maximum(limit - a, limit // 2))
    return np.minimum(a, limit - keep_b), keep_b


def lay_out(
    block: Block, pairs: Pairs, rows: Ints, tokenizer: Tokenizer, multiple_of: int = 8
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Write some pairs as `[CLS] A [SEP] B [SEP]`, padded to the longest of them.

    Segment 0 is `[CLS] A [SEP]`, segment 1 is `B [SEP]`; padding has segment 0.

    Args:
        block: where the tokens are.
        pairs: ranges.
        rows: which pairs (B,).
        tokenizer: gives the special ids.
        multiple_of: S is rounded up to a multiple of this.

    Returns:
        input_ids, token_type_ids and whether a position is real, each (B, S).
    """
    a = (pairs.a_end[rows] - pairs.a_start[rows])[:, None]  # (B, 1)
    b = (pairs.b_end[rows] - pairs.b_start[rows])[:, None]
    longest = int((a + b).max()) + 3
    at = np.arange(-(-longest // multiple_of) * multiple_of)[None]  # (1, S)
    in_a = (at >= 1) & (at <= a)
    in_b = (at >= a + 2) & (at <= a + b + 1)
    source = np.where(in_a, pairs.a_start[rows, None] + at - 1, pairs.b_start[rows, None] + at - a - 2)  # (B, S)
    ids = np.full(source.shape, tokenizer.pad_id, dtype=np.int64)
    words = in_a | in_b
    ids[words] = block.tokens[source[words]]
    ids[:, 0] = tokenizer.cls_id
    ids[(at == a + 1) | (at == a + b + 2)] = tokenizer.sep_id
    return ids, ((at >= a + 2) & (at <= a + b + 2)).astype(np.int64), at <= a + b + 2
