"""Examples → token ids → padded batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from mlmkit.batches import Batch
from mlmkit.finetuning.task import Example, Kind
from mlmkit.masking import IGNORE
from mlmkit.tokenizer import Tokenizer

GROUP = 32
"""Examples are sorted by length within groups of so many batches."""


@dataclass(frozen=True)
class Encoded:
    """An example as the network reads it.

    Attributes:
        ids: [CLS] A [SEP], or [CLS] A [SEP] B [SEP].
        segments: 0 up to the first [SEP], then 1.
        units: how many labels the example has: 1, or its words.
        shown: which of these the network can answer: those whose first token is among the ids.
        places: where their labels are read: [CLS], or the first token of each word.
        cut: whether tokens were left out because the text is too long.
    """

    ids: list[int]
    segments: list[int]
    units: int
    shown: list[int]
    places: list[int]
    cut: bool


def encode(examples: Sequence[Example], kind: Kind, tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
    """Turn texts into ids, as many as fit into `max_length`, special tokens included.

    Of a pair that is too long the longer sentence loses its last token, again and again, until both fit. A word is
    labeled at its first token; one that has none, or none that fits, cannot be answered.
    """
    flat = [part for example in examples for part in example.text]
    pieces = iter(tokenizer.encode_batch(flat))
    rows = (list(islice(pieces, len(example.text))) for example in examples)
    if kind == "tokens":
        return [_encode_words(words, tokenizer, max_length) for words in rows]
    return [_encode_text(parts, tokenizer, max_length) for parts in rows]


def _encode_text(parts: list[list[int]], tokenizer: Tokenizer, max_length: int) -> Encoded:
    room = max_length - 1 - len(parts)
    lengths = fit([len(part) for part in parts], room)
    ids, segments = [tokenizer.cls_id], [0]
    for segment, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        ids += [*part[:length], tokenizer.sep_id]
        segments += [segment] * (length + 1)
    return Encoded(ids, segments, 1, [0], [0], cut=sum(map(len, parts)) > room)


def _encode_words(words: list[list[int]], tokenizer: Tokenizer, max_length: int) -> Encoded:
    room = max_length - 2
    starts = np.cumsum([0, *map(len, words)])
    shown = [i for i, word in enumerate(words) if word and starts[i] < room]
    ids = [token for word in words for token in word]
    return Encoded(
        ids=[tokenizer.cls_id, *ids[:room], tokenizer.sep_id],
        segments=[0] * (min(len(ids), room) + 2),
        units=len(words),
        shown=shown,
        places=[1 + int(starts[i]) for i in shown],
        cut=len(ids) > room,
    )


def fit(lengths: list[int], room: int) -> list[int]:
    """Shorten the longest of some texts by one token, again and again, until all fit; of equals the last one.

    >>> fit([10, 3], room=8)
    [5, 3]
    """
    lengths = list(lengths)
    while sum(lengths) > room:
        longest = max(range(len(lengths)), key=lambda i: (lengths[i], i))
        lengths[longest] -= 1
    return lengths


def batches_of(encoded: Sequence[Encoded], size: int, rng: np.random.Generator | None = None) -> Iterator[list[int]]:
    """Rows of each batch: similar lengths together, in random order; without `rng` simply sorted by length.

    With `rng` the examples are shuffled, sorted by length within groups of `GROUP` batches, and the batches shuffled
    again, so that every epoch is another one.
    """
    lengths = np.array([len(e.ids) for e in encoded])
    order = np.arange(len(encoded)) if rng is None else rng.permutation(len(encoded))
    group = len(encoded) if rng is None else size * GROUP
    batches: list[list[int]] = []
    for begin in range(0, len(order), group):
        rows = order[begin : begin + group]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + size].tolist() for i in range(0, len(rows), size)]
    places = range(len(batches)) if rng is None else rng.permutation(len(batches)).tolist()
    yield from (batches[i] for i in places)


def collate_texts(encoded: Sequence[Encoded], pad_id: int, multiple_of: int = 8) -> Batch:
    """Pad to the longest, rounded up: `input_ids`, `token_type_ids`, `attention_mask`, each (B, S)."""
    S = -(-max(len(e.ids) for e in encoded) // multiple_of) * multiple_of
    shape = (len(encoded), S)
    ids, segments, real = np.full(shape, pad_id), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, e in enumerate(encoded):
        ids[row, : len(e.ids)], segments[row, : len(e.ids)], real[row, : len(e.ids)] = e.ids, e.segments, 1
    arrays = {"input_ids": ids, "token_type_ids": segments, "attention_mask": real}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def labels_of(encoded: Sequence[Encoded], examples: Sequence[Example], kind: Kind, S: int) -> torch.Tensor:
    """True labels: (B,) of texts, or (B, S) of words, −100 everywhere but at the first token of each word."""
    if kind != "tokens":
        return torch.tensor([example.labels[0] for example in examples])
    labels = torch.full((len(encoded), S), IGNORE)
    for row, (e, example) in enumerate(zip(encoded, examples, strict=True)):
        labels[row, e.places] = torch.tensor([example.labels[i] for i in e.shown], dtype=torch.int64)
    return labels
