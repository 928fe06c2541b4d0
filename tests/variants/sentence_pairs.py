"""Right solutions of set 06 that are written differently."""

from itertools import pairwise

import numpy as np
import torch


def lay_out_loop(a, b, cls_id, sep_id):
    ids, segments = [cls_id], [0]
    for segment, sentence in enumerate([a, b]):
        for token in [*sentence, sep_id]:
            ids.append(token)
            segments.append(segment)
    return ids, segments, [i for i, _ in enumerate(ids)]


def lay_out_arrays(a, b, cls_id, sep_id):
    ids = np.concatenate([[cls_id], a, [sep_id], b, [sep_id]]).astype(np.int32)
    positions = np.arange(len(ids))
    return [ids, (positions > len(a) + 1).astype(np.uint8), positions]


def lay_out_torch(a, b, cls_id, sep_id):
    ids = torch.tensor([cls_id, *a, sep_id, *b, sep_id])
    segments = torch.cat([torch.zeros(len(a) + 2, dtype=torch.long), torch.ones(len(b) + 1, dtype=torch.long)])
    return ids, segments, torch.arange(len(ids))


def false_home(documents, pairs):
    false = []
    for number, (a, b, c) in enumerate(pairs):
        home = next(document for document in documents if a in document)
        follows = b in home and home.index(b) - home.index(a) == 1
        if (c == 0 and not follows) or (c == 1 and b in home):
            false.append(number)
    return false


def false_sets(documents, pairs):
    true_pairs = {(x, y) for document in documents for x, y in pairwise(document)}
    together = {(x, y) for document in documents for x in document for y in document}
    return [n for n, (a, b, c) in enumerate(pairs) if ((a, b) in together if c else (a, b) not in true_pairs)]


def false_arrays(documents, pairs):
    flat = [sentence for document in documents for sentence in document]
    home = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    a = np.array([flat.index(pair[0]) for pair in pairs])
    b = np.array([flat.index(pair[1]) for pair in pairs])
    c = np.array([pair[2] for pair in pairs])
    same = home[a] == home[b]
    return np.flatnonzero(~np.where(c == 0, same & (b == a + 1), ~same))


def truncate_pop(a, b, room):
    a, b = list(a), list(b)
    while len(a) + len(b) > room:
        (a if len(a) > len(b) else b).pop()
    return [a, b]


def truncate_formula(a, b, room):
    keep_b = min(len(b), max(room - len(a), room // 2))
    return np.array(a)[: room - keep_b], np.array(b)[:keep_b]


def truncate_recursive(a, b, room):
    if len(a) + len(b) <= room:
        return a, b
    if len(b) >= len(a):
        return truncate_recursive(a, b[: len(b) - 1], room)
    return truncate_recursive(a[: len(a) - 1], b, room)


def make_pairs_any_sentence(documents, rng):
    pairs = []
    for document in documents:
        others = [sentence for other in documents if other is not document for sentence in other]
        for a, following in pairwise(document):
            c = rng.integers(2)
            pairs.append([a, str(rng.choice(others)) if c else following, c])
    return pairs


def make_pairs_redraw(documents, rng):
    pairs = []
    for d, document in enumerate(documents):
        for i, a in enumerate(document[:-1]):
            c = bool(rng.random() >= 0.5)
            k = d
            while c and k == d:
                k = int(rng.integers(len(documents)))
            pairs.append((a, rng.choice(documents[k]) if c else document[i + 1], c))
    return tuple(pairs)


def make_pairs_planned(documents, rng):
    places = [(d, i) for d, document in enumerate(documents) for i in range(len(document) - 1)]
    labels = rng.binomial(1, 0.5, len(places))
    shifts = rng.integers(1, len(documents), len(places))
    pairs = []
    for (d, i), c, shift in zip(places, labels, shifts, strict=True):
        other = documents[(d + shift) % len(documents)]
        b = other[int(rng.random() * len(other))] if c else documents[d][i + 1]
        pairs.append((documents[d][i], b, int(c)))
    return pairs


VARIANTS = {
    "06.1": (lay_out_loop, lay_out_arrays, lay_out_torch),
    "06.2": (false_home, false_sets, false_arrays),
    "06.4": (truncate_pop, truncate_formula, truncate_recursive),
    "06.7": (make_pairs_any_sentence, make_pairs_redraw, make_pairs_planned),
}
