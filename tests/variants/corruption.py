"""Right solutions of set 03 that are written differently."""

import random as stdlib_random

import numpy as np
import torch


def channel_loops(n, mask, random, keep):
    return [[random / n + (keep if v == w else 0) for w in range(n)] + [mask] for v in range(n)]


def channel_stacked(n, mask, random, keep):
    return np.hstack([keep * np.eye(n) + random / n, np.full((n, 1), mask)])


def channel_torch(n, mask, random, keep):
    ordinary = keep * torch.eye(n, dtype=torch.float64) + random / n
    return torch.cat([ordinary, torch.full((n, 1), mask, dtype=torch.float64)], dim=1)


def labels_loops(ids, selected):
    return [[int(i) if chosen else -100 for i, chosen in zip(*rows, strict=True)] for rows in zip(ids, selected)]  # noqa: B905


def labels_copied(ids, selected):
    labels = ids.astype(np.int32).copy()
    labels[~selected] = -100
    return labels


def labels_torch(ids, selected):
    return torch.from_numpy(ids).masked_fill(~torch.from_numpy(selected), -100)


def select_loops(candidates, rate, rng):
    return [[bool(could and rng.random() < rate) for could in row] for row in candidates]


def select_where(candidates, rate, rng):
    chosen = np.zeros(candidates.shape, dtype=int)
    rows, columns = np.nonzero(candidates)
    keep = rng.random(len(rows)) < rate
    chosen[rows[keep], columns[keep]] = 1
    return chosen


def select_stochastic_rounding(candidates, rate, rng):
    chosen = np.zeros_like(candidates)
    for row, could in zip(chosen, candidates, strict=True):
        places = np.flatnonzero(could)
        count = int(rate * len(places) + rng.random())
        row[rng.permutation(places)[:count]] = True
    return chosen


def select_binomial(candidates, rate, rng):
    return candidates & rng.binomial(1, rate, candidates.shape).astype(bool)


def corrupt_loops(ids, selected, rng, mask_id, ordinary_ids):
    seen = ids.tolist()
    for i, j in np.argwhere(selected).tolist():
        fate = rng.random()
        if fate < 0.8:
            seen[i][j] = mask_id
        elif fate < 0.9:
            seen[i][j] = int(rng.choice(ordinary_ids))
    return seen


def corrupt_two_coins(ids, selected, rng, mask_id, ordinary_ids):
    seen = ids.copy()
    masked = selected & (rng.random(ids.shape) < 0.8)
    replaced = selected & ~masked & (rng.random(ids.shape) < 0.5)
    seen[masked] = mask_id
    seen[replaced] = ordinary_ids[rng.integers(len(ordinary_ids), size=int(replaced.sum()))]
    return seen.astype(np.int32)


def corrupt_categories(ids, selected, rng, mask_id, ordinary_ids):
    fate = rng.choice(3, size=int(selected.sum()), p=[0.8, 0.1, 0.1])
    true = ids[selected]
    drawn = rng.choice(ordinary_ids, size=len(true))
    seen = torch.from_numpy(ids).clone()
    seen[torch.from_numpy(selected)] = torch.from_numpy(np.choose(fate, [np.full_like(true, mask_id), drawn, true]))
    return seen


def spans_by_words(begins_word, q, longest, rng):
    words = int(np.sum(begins_word))
    span_of_word, span = [], 0
    while len(span_of_word) < words:
        span_of_word += [span] * min(int(rng.geometric(q)), longest)
        span += 1
    return np.array(span_of_word)[np.cumsum(begins_word) - 1]


def spans_list(begins_word, q, longest, rng):
    source = stdlib_random.Random(int(rng.integers(2**31)))
    numbers, length = [], 0
    span = -1
    for begins in begins_word.tolist():
        if begins:
            if length == 0 or length >= longest or source.random() < q:
                span, length = span + 1, 0
            length += 1
        numbers.append(span)
    return numbers


def spans_vectorized(begins_word, q, longest, rng):
    starts = begins_word & (rng.random(len(begins_word)) < q)
    starts[0] = True
    word = np.cumsum(begins_word)
    begun = np.maximum.accumulate(np.where(starts, word, 0))
    return np.cumsum(begins_word & ((word - begun) % longest == 0)) - 1


VARIANTS = {
    "03.4": (channel_loops, channel_stacked, channel_torch),
    "03.9": (labels_loops, labels_copied, labels_torch),
    "03.10": (select_loops, select_where, select_stochastic_rounding, select_binomial),
    "03.11": (corrupt_loops, corrupt_two_coins, corrupt_categories),
    "03.12": (spans_by_words, spans_list, spans_vectorized),
}
