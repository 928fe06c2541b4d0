"""Functions to write on batches: padding, and an order that can be resumed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmkit.grading.tasks import CodeTask, Mistake

Array = np.ndarray[Any, Any]
Rows = list[list[int]]


# 07.1 One rectangle


def _rectangle(sequences: Rows, pad_id: int, width: int) -> tuple[Array, Array]:
    """Fill up (or cut) to a width; 1 on real tokens."""
    ids = [[*row, *[pad_id] * (width - len(row))][:width] for row in sequences]
    real = [[int(i < len(row)) for i in range(width)] for row in sequences]
    return np.array(ids), np.array(real)


def _padded(sequences: Rows, pad_id: int) -> tuple[Array, Array]:
    return _rectangle(sequences, pad_id, -(-max(map(len, sequences)) // 8) * 8)


def _padded_on_the_left(sequences: Rows, pad_id: int) -> tuple[Array, Array]:
    ids, real = _padded([row[::-1] for row in sequences], pad_id)
    return ids[:, ::-1], real[:, ::-1]


def _mask_from_ids(sequences: Rows, pad_id: int) -> tuple[Array, Array]:
    ids, _ = _padded(sequences, pad_id)
    return ids, (ids != pad_id).astype(int)


def _mask_inverted(sequences: Rows, pad_id: int) -> tuple[Array, Array]:
    ids, real = _padded(sequences, pad_id)
    return ids, 1 - real


def _draw_sequences(rng: np.random.Generator) -> dict[str, Any]:
    lengths = rng.integers(1, int(rng.choice([10, 30])), int(rng.integers(1, 6)))
    sequences = [rng.integers(0, 60, length).tolist() for length in lengths]
    return {"sequences": sequences, "pad_id": int(rng.choice([0, 1, 3, 59]))}


PAD = CodeTask(
    id="07.1",
    title="One rectangle",
    points=3,
    concepts=(),
    function="pad_batch",
    reference=_padded,
    draw=_draw_sequences,
    edges=(
        {"sequences": [[2, 7, 3], [2, 7, 8, 9, 3]], "pad_id": 0},
        {"sequences": [[5, 6, 7, 8, 9, 10, 11, 12], [4, 4, 4]], "pad_id": 1},
        {"sequences": [[9]], "pad_id": 0},
        {"sequences": [[2, 0, 6, 3, 0], [2, 5, 0, 0, 0, 0, 7, 8, 3]], "pad_id": 0},
    ),
    mistakes=(
        Mistake(
            "not rounded",
            lambda sequences, pad_id: _rectangle(sequences, pad_id, max(map(len, sequences))),
            "your rectangle is as wide as the longest sequence; S is rounded up to a multiple of 8",
        ),
        Mistake(
            "always 8 more",
            lambda sequences, pad_id: _rectangle(sequences, pad_id, (max(map(len, sequences)) // 8 + 1) * 8),
            "a length that is a multiple of 8 already stays as it is: yours gets 8 more columns of padding",
        ),
        Mistake(
            "cut to the shortest",
            lambda sequences, pad_id: _rectangle(sequences, pad_id, min(map(len, sequences))),
            "you cut all sequences to the shortest one: text is lost, and a pair loses its [SEP]; fill up instead",
        ),
        Mistake(
            "mask from the ids",
            _mask_from_ids,
            "your mask asks whether the id is `pad_id`, so a real token with that id counts as padding; what is real "
            "follows from the lengths",
        ),
        Mistake("mask inverted", _mask_inverted, "your mask is 1 on padding and 0 on real tokens; it is the other way"),
        Mistake(
            "filler 0",
            lambda sequences, pad_id: _padded(sequences, 0),
            "you fill up with 0; the filler is `pad_id`, which is another number in other vocabularies",
        ),
        Mistake(
            "on the left",
            _padded_on_the_left,
            "you fill up in front: then [CLS] is no longer at position 0; padding goes behind the sequence",
        ),
    ),
    hints=(
        "First the width: which sequence decides it, and what is the next multiple of 8?",
        "`8 * math.ceil(n / 8)` rounds up. Then each row is the sequence and as much filler as is missing.",
        "A row of ids is `row + [pad_id] * (S - len(row))`; its mask has the same form with ones and zeros.",
    ),
)


# 07.11 An order that can be resumed


def _order(lengths: Array, B: int, bucket: int, rng: np.random.Generator, shuffled: bool = True) -> list[Array]:
    """All batches of an epoch; `bucket` 0 leaves the rows unsorted."""
    order, batches = rng.permutation(len(lengths)), []
    group = B * max(bucket, 1)
    for begin in range(0, len(order), group):
        rows = order[begin : begin + group]
        rows = rows[np.argsort(lengths[rows], kind="stable")] if bucket else rows
        batches += [rows[k : k + B] for k in range(0, len(rows), B)]
    return [batches[k] for k in rng.permutation(len(batches))] if shuffled else batches


def _resumed(lengths: Array, B: int, bucket: int, seed: int, epoch: int, start: int) -> list[Array]:
    return _order(lengths, B, bucket, np.random.default_rng([seed, 1, epoch, 0]))[start:]


def _draw_order(rng: np.random.Generator) -> dict[str, Any]:
    B, pairs = int(rng.integers(2, 6)), int(rng.integers(12, 60))
    return {
        "lengths": rng.integers(5, 20, pairs),
        "B": B,
        "bucket": int(rng.integers(1, 5)),
        "seed": int(rng.integers(1000)),
        "epoch": int(rng.integers(20)),
        "start": int(rng.integers(0, pairs // B)),
    }


_SIX = {"lengths": np.array([9, 5, 12, 7, 5, 11]), "B": 2, "bucket": 3, "seed": 4, "epoch": 0}
ORDER = CodeTask(
    id="07.11",
    title="An order that can be resumed",
    points=5,
    concepts=(),
    function="epoch_order",
    reference=_resumed,
    draw=_draw_order,
    edges=(
        {**_SIX, "start": 0},
        {**_SIX, "start": 1},
        {**_SIX, "start": 3},
        {**_SIX, "epoch": 1, "start": 0},
        {**_SIX, "bucket": 1, "start": 0},
        {**_SIX, "B": 4, "start": 0},
    ),
    mistakes=(
        Mistake(
            "the same in each epoch",
            lambda lengths, B, bucket, seed, epoch, start: _resumed(lengths, B, bucket, seed, 0, start),
            "your order is that of epoch 0 in every epoch: the epoch belongs into the numbers from which `rng` is made",
        ),
        Mistake(
            "begun anew",
            lambda lengths, B, bucket, seed, epoch, start: _resumed(lengths, B, bucket, seed, epoch, 0),
            "you give the whole epoch also when `start` is not 0: a resumed run would read its first batches twice",
        ),
        Mistake(
            "start in the seed",
            lambda lengths, B, bucket, seed, epoch, start: _order(
                lengths, B, bucket, np.random.default_rng([seed, 1, epoch, start])
            )[start:],
            "you made `rng` from `start` too: the order then depends on where the run was stopped, and pairs are read "
            "twice or never",
        ),
        Mistake(
            "batches not shuffled",
            lambda lengths, B, bucket, seed, epoch, start: _order(
                lengths, B, bucket, np.random.default_rng([seed, 1, epoch, 0]), shuffled=False
            )[start:],
            "your batches are not shuffled at the end: in each group the short pairs come first, so the length drifts",
        ),
        Mistake(
            "everything sorted",
            lambda lengths, B, bucket, seed, epoch, start: _resumed(lengths, B, len(lengths), seed, epoch, start),
            "you sort the whole epoch by length; sort within groups of `bucket` batches, so that pairs do not always "
            "meet the same company",
        ),
        Mistake(
            "nothing sorted",
            lambda lengths, B, bucket, seed, epoch, start: _order(
                lengths, B, 0, np.random.default_rng([seed, 1, epoch, 0])
            )[start:],
            "your rows are not sorted by length within their group: that is what saves the padding",
        ),
    ),
    hints=(
        "Make the whole order of the epoch first, whatever `start` is; forget the batches before `start` at the end.",
        "Shuffle, then for each stretch of B·bucket rows: sort by length, cut into batches. Shuffle the batches last, "
        "with a second permutation from the same `rng`.",
        "`rows = rows[np.argsort(lengths[rows], kind='stable')]` sorts a group; "
        "`[batches[k] for k in rng.permutation(len(batches))]` shuffles.",
    ),
)
