"""Other right solutions of the tasks on batches, each written in another way."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from mlmkit.corpus import ngram_overlap


def pad_in_place(sequences, pad_id):
    S = -(-max(map(len, sequences)) // 8) * 8
    ids = np.full((len(sequences), S), pad_id, dtype=np.int32)
    mask = np.zeros((len(sequences), S), dtype=bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = True
    return ids, mask


def pad_as_lists(sequences, pad_id):
    S = 0
    while max(map(len, sequences)) > S:
        S += 8
    ids, mask = [], []
    for sequence in sequences:
        ids.append([sequence[i] if i < len(sequence) else pad_id for i in range(S)])
        mask.append([float(i < len(sequence)) for i in range(S)])
    return [ids, mask]


def pad_in_torch(sequences, pad_id):
    rows = [torch.tensor(sequence) for sequence in sequences]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
    ids = torch.nn.functional.pad(ids, (0, -ids.shape[1] % 8), value=pad_id)
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def overlap_by_counting(train, held_out, n):
    def grams(documents):
        found = Counter()
        for document in documents:
            found.update(zip(*[document[k:] for k in range(n)], strict=False))
        return found

    known, asked = grams(train), grams(held_out)
    total = sum(asked.values())
    return sum(count for gram, count in asked.items() if known[gram]) / total if total else 0.0


def overlap_by_text(train, held_out, n):
    def grams(document):
        return [" ".join(document[k : k + n]) for k in range(len(document)) if k + n <= len(document)]

    known = set()
    for document in train:
        known |= set(grams(document))
    hits = [gram in known for document in held_out for gram in grams(document)]
    return np.float32(np.mean(hits)) if hits else 0


def overlap_by_loops(train, held_out, n):
    hits = total = 0
    for page in held_out:
        for k in range(len(page) - n + 1):
            total += 1
            hits += any(page[k : k + n] == other[j : j + n] for other in train for j in range(len(other) - n + 1))
    return hits / max(total, 1)


def overlap_of_mlmkit(train, held_out, n):
    one, other = ([[" ".join(document)] for document in part] for part in (train, held_out))
    return ngram_overlap(one, other, n=n)


def order_with_sorted(lengths, B, bucket, seed, epoch, start):
    rng = np.random.default_rng([seed, 1, epoch, 0])
    rows = rng.permutation(len(lengths)).tolist()
    batches = []
    while rows:
        group, rows = sorted(rows[: B * bucket], key=lambda row: lengths[row]), rows[B * bucket :]
        while group:
            batches.append(group[:B])
            group = group[B:]
    return [batches[k] for k in rng.permutation(len(batches))[start:]]


def order_with_split(lengths, B, bucket, seed, epoch, start):
    rng = np.random.default_rng([seed, 1, epoch, 0])
    n = len(lengths)
    order = rng.permutation(n)
    group_of = np.arange(n) // (B * bucket)
    order = order[np.lexsort((np.arange(n), lengths[order], group_of))]
    cuts = [k for k in range(1, n) if k % (B * bucket) % B == 0]
    batches = np.split(order, cuts)
    return tuple(batches[k].astype(np.int32) for k in rng.permutation(len(batches)))[start:]


def order_by_numbers(lengths, B, bucket, seed, epoch, start):
    rng = np.random.default_rng([seed, 1, epoch, 0])
    shuffled = [int(row) for row in rng.permutation(len(lengths))]
    batches = []
    for begin in range(0, len(shuffled), B * bucket):
        keyed = [(int(lengths[row]), place, row) for place, row in enumerate(shuffled[begin : begin + B * bucket])]
        rows = [row for _, _, row in sorted(keyed)]
        batches.extend(rows[k : k + B] for k in range(0, len(rows), B))
    turn = rng.permutation(len(batches))
    return [batches[turn[k]] for k in range(start, len(batches))]


def visible_by_loop(input_ids, labels):
    hits = [seen == y for row in zip(input_ids, labels, strict=True) for seen, y in zip(*row, strict=True) if y != -100]
    return sum(map(int, hits)) / len(hits) if hits else 0


def visible_in_torch(input_ids, labels):
    seen, y = torch.from_numpy(input_ids), torch.from_numpy(labels)
    asked = y >= 0
    return (seen[asked] == y[asked]).float().sum() / asked.sum().clamp(min=1)


def visible_by_division(input_ids, labels):
    N = np.count_nonzero(labels != -100)
    return np.count_nonzero(input_ids == labels) / N if N else 0.0  # −100 is no id, so it is never shown


VARIANTS = {
    "07.1": (pad_in_place, pad_as_lists, pad_in_torch),
    "07.8": (overlap_by_counting, overlap_by_text, overlap_by_loops, overlap_of_mlmkit),
    "07.11": (order_with_sorted, order_with_split, order_by_numbers),
    "07.13": (visible_by_loop, visible_in_torch, visible_by_division),
}
