"""What the documents give away: pairs whose two sentences come from one document, and a held-out part seen in training.

The documents are read as a stream, some thousand at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmkit.corpus import Corpus
from mlmkit.corpus.hashing import normalized, text_hash
from mlmkit.corpus.store import batches
from mlmkit.diagnosis.chance import needed, surprising
from mlmkit.diagnosis.findings import Diagnosis, Finding, check, found
from mlmkit.errors import UserError
from mlmkit.tokenizer import Tokenizer

Tokens = Sequence[int]
PAIRS = 64
"""So many pairs are looked up at most."""
SEPARATOR = chr(0x10FFFF)
"""Stands between documents; no token has so high an id."""
WORDS = 16
"""Texts of fewer words are not compared: in a small language they may be equal by chance."""
SHARED_DOCUMENTS, SHARED_SENTENCES = 0.01, 0.05
"""Shares of repeated documents and of repeated long sentences (notices, set phrases) that are let pass."""
MOST = 1 << 22
"""Hashes kept in memory; of a larger held-out part a sample is compared."""


def pairs_from_one_document(
    pairs: Sequence[tuple[Tokens, Tokens]], corpus: Corpus, tokenizer: Any
) -> Finding | str | None:
    """Count the pairs, all labeled random, whose A and B stand in the same document.

    A pair counts when each of its sentences stands in just one document, so that chance repetitions prove nothing.

    Args:
        pairs: tokens of A and of B; the first `PAIRS` are looked up.
        corpus: the documents, in any of its splits.
        tokenizer: the one that made the tokens.
    """
    texts = [(_as_text(a), _as_text(b)) for a, b in pairs[:PAIRS]]
    homes = _homes({text for pair in texts for text in pair}, corpus, tokenizer)
    known = [(homes[a], homes[b]) for a, b in texts if len(homes[a]) == len(homes[b]) == 1]
    n, count = len(known), sum(a == b for a, b in known)
    documents = sum(len(split) for split in corpus.splits.values())
    by_chance = min(0.5, max(0.01, 2 / max(documents, 1)))  # a draw from all documents may hit the own one
    if surprising(count, n, by_chance):
        text = f"in {count} of {n} pairs labeled random, both sentences come from the same document of {corpus.name}"
        return found("nsp_negatives_from_same_document", text, count / n)
    if n < needed(by_chance):
        return (
            f"{needed(by_chance)} pairs labeled random are needed whose sentences stand in just one document "
            f"of {corpus.name}, there are {n} of {len(texts)}"
        )
    return None


def _as_text(tokens: Tokens) -> str:
    """A character for each token: then a run of tokens is a substring."""
    return "".join(map(chr, tokens))


def _homes(wanted: set[str], corpus: Corpus, tokenizer: Any) -> dict[str, set[int]]:
    """The numbers of the first two documents in which each run of tokens stands."""
    homes: dict[str, set[int]] = {text: set() for text in wanted}
    encode = _encoder(tokenizer)
    number = 0
    for documents in _documents(corpus):
        ids = iter(encode([sentence for document in documents for sentence in document]))
        texts = ["".join(_as_text(next(ids)) for _ in document) for document in documents]
        joined = SEPARATOR.join(texts)
        starts = list(accumulate((len(text) + 1 for text in texts), initial=0))
        for text, places in homes.items():
            at = joined.find(text)
            while at >= 0 and len(places) < 2:
                document = bisect_right(starts, at) - 1
                places.add(number + document)
                at = joined.find(text, starts[document + 1])
        number += len(documents)
    return homes


def _documents(corpus: Corpus) -> Iterator[list[list[str]]]:
    """The documents of all splits, a thousand at a time."""
    for split in corpus.splits.values():
        for batch in batches(split):
            yield batch["sentences"]


def _encoder(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    """The function that turns texts into ids without special tokens, of our tokenizers or those of `transformers`."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.encode_batch
    return lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"]


def check_split(corpus: Corpus, train: str = "train") -> Diagnosis:
    """Look for held-out documents, and long held-out sentences, that stand in the training part too.

    Texts are compared by their lower-cased words, whole documents and sentences of at least `WORDS` words, each
    different one counted once. Near-duplicates are not seen: `ngram_overlap` measures them.

    Args:
        corpus: all its splits but `train` are held out.
        train: name of the training part.

    Raises:
        UserError: there is no such part.
    """
    if train not in corpus.splits:
        raise UserError(f"no split {train!r} in {corpus.name}: use one of {', '.join(corpus.splits)}")
    kinds = {
        "documents": (lambda document: [" ".join(document)], SHARED_DOCUMENTS),
        "sentences": (lambda document: document, SHARED_SENTENCES),
    }
    reasons = []
    for kind, (cut, allowed) in kinds.items():
        outcome = _shared(corpus, train, kind, cut, allowed)
        if isinstance(outcome, Finding):
            return check("duplicates_across_split", outcome)
        reasons.append(outcome)
    return check("duplicates_across_split", None if None in reasons else reasons[0])


def _shared(
    corpus: Corpus, train: str, kind: str, cut: Callable[[list[str]], list[str]], allowed: float
) -> Finding | str | None:
    held_out = _held_out(corpus, train, cut)
    n = len(held_out)
    seen = np.zeros(n, dtype=bool)
    for hashes in _hashes(corpus, train, cut):
        at = np.minimum(np.searchsorted(held_out, hashes), max(n - 1, 0))
        if n:
            seen[at[held_out[at] == hashes]] = True
    count = int(seen.sum())
    if surprising(count, n, allowed):
        text = f"{count} of {n} held-out {kind} of {WORDS} words or more ({count / n:.1%}) also stand in {train}"
        return found("duplicates_across_split", text, count / n)
    if n < needed(allowed):
        return f"{needed(allowed)} held-out {kind} of {WORDS} words or more are needed, there are {n}"
    return None


def _held_out(corpus: Corpus, train: str, cut: Callable[[list[str]], list[str]]) -> NDArray[np.uint64]:
    """Different hashes of the held-out texts, ascending; of more than `MOST` a sample."""
    kept, one_in = np.empty(0, dtype=np.uint64), np.uint64(1)
    for split in corpus.splits.keys() - {train}:
        for hashes in _hashes(corpus, split, cut):
            kept = np.union1d(kept, hashes[hashes % one_in == 0])
            while len(kept) > MOST:
                one_in *= np.uint64(2)
                kept = kept[kept % one_in == 0]
    return kept


def _hashes(corpus: Corpus, split: str, cut: Callable[[list[str]], list[str]]) -> Iterator[NDArray[np.uint64]]:
    """Hashes of the texts of a split that are long enough, some thousand documents at a time."""
    for batch in batches(corpus.splits[split]):
        texts = (normalized(text) for document in batch["sentences"] for text in cut(document))
        yield np.array([text_hash(text) for text in texts if text.count(" ") >= WORDS - 1], dtype=np.uint64)
