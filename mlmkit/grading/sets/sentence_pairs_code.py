"""The functions to write of set 06 without chance: lay a pair out, find false labels, cut a pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlmkit.grading.tasks import CodeTask, Inputs, Mistake
from mlmkit.pairs import Block, Pairs, lay_out

Ids = list[int]
Layout = tuple[Ids, Ids, Ids]
Documents = list[list[str]]


# 06.1 Lay out a pair


def _laid_out(a: Ids, b: Ids, cls_id: int, sep_id: int) -> Any:
    """What `mlmkit.lay_out` makes of one pair, with its positions."""
    tokens = np.array([*a, *b], dtype=np.int32)
    block = Block(tokens, np.array([0, len(a), len(a) + len(b)]), np.array([0, 2]))
    zero, cut, end = (np.array([place]) for place in (0, len(a), len(a) + len(b)))
    pair = Pairs(zero, cut, cut, end, zero, zero, zero)
    special: Any = SimpleNamespace(pad_id=0, cls_id=cls_id, sep_id=sep_id)
    ids, segments, _ = lay_out(block, pair, zero, special, multiple_of=1)
    return ids[0], segments[0], np.arange(len(ids[0]))


def _layout(a: Ids, b: Ids, cls_id: int, sep_id: int, zeros: int, last: Sequence[int], start: int = 0) -> Layout:
    ids = [cls_id, *a, sep_id, *b, *last]
    return ids, [int(i >= zeros) for i in range(len(ids))], [i + start for i in range(len(ids))]


def _positions_again(a: Ids, b: Ids, cls_id: int, sep_id: int) -> Layout:
    ids, segments, _ = _layout(a, b, cls_id, sep_id, len(a) + 2, [sep_id])
    return ids, segments, [*range(len(a) + 2), *range(1, len(b) + 2)]


def _draw_layout(rng: np.random.Generator) -> Inputs:
    a, b = (rng.integers(5, 90, rng.integers(1, 8)).tolist() for _ in range(2))
    cls_id, sep_id = (int(i) for i in rng.permutation([1, 2, 3, 4, 101, 102])[:2])
    return {"a": a, "b": b, "cls_id": cls_id, "sep_id": sep_id}


LAY_OUT = CodeTask(
    id="06.1",
    title="Lay out a pair",
    points=3,
    concepts=("C23",),
    function="lay_out",
    reference=_laid_out,
    draw=_draw_layout,
    edges=(
        {"a": [11], "b": [12, 13, 14], "cls_id": 2, "sep_id": 3},
        {"a": [7, 7, 7], "b": [7], "cls_id": 2, "sep_id": 3},
    ),
    mistakes=(
        Mistake(
            "second [SEP] missing",
            lambda a, b, cls_id, sep_id: _layout(a, b, cls_id, sep_id, len(a) + 2, []),
            "the second [SEP] is missing: without it nothing says whether B is complete or was cut off",
        ),
        Mistake(
            "first [SEP] in segment 1",
            lambda a, b, cls_id, sep_id: _layout(a, b, cls_id, sep_id, len(a) + 1, [sep_id]),
            "your first [SEP] has segment 1: it ends A, so it belongs to segment 0, which has len(a) + 2 positions",
        ),
        Mistake(
            "[SEP] between only, wrong segment too",
            lambda a, b, cls_id, sep_id: _layout(a, b, cls_id, sep_id, len(a) + 1, []),
            "the second [SEP] is missing, and the first one has segment 1; each [SEP] ends a sentence and has its "
            "segment",
        ),
        Mistake(
            "positions again at B",
            _positions_again,
            "your positions start again at B: they run on through the whole sequence, so that no two places enter "
            "alike",
        ),
        Mistake(
            "positions from 1",
            lambda a, b, cls_id, sep_id: _layout(a, b, cls_id, sep_id, len(a) + 2, [sep_id], 1),
            "your positions start at 1: [CLS] stands at position 0",
        ),
        Mistake(
            "segments exchanged",
            lambda a, b, cls_id, sep_id: (
                _layout(a, b, cls_id, sep_id, len(a) + 2, [sep_id])[0],
                [1] * (len(a) + 2) + [0] * (len(b) + 1),
                list(range(len(a) + len(b) + 3)),
            ),
            "your segments are exchanged: A has segment 0, B has segment 1",
        ),
    ),
    hints=(
        "Write the pair on paper: [CLS], A, [SEP], B, [SEP]. How many positions end with the first [SEP]?",
        "Segment 0 has len(a) + 2 positions, segment 1 has len(b) + 1; positions count from 0 to the end.",
        "`ids = [cls_id, *a, sep_id, *b, sep_id]`; the segments are two lists multiplied and added; `range(len(ids))`.",
    ),
)


# 06.2 Find false labels


def _false_labels(documents: Documents, pairs: Sequence[tuple[str, str, int]]) -> list[int]:
    place = {sentence: (d, i) for d, document in enumerate(documents) for i, sentence in enumerate(document)}
    false = []
    for number, (a, b, c) in enumerate(pairs):
        (home, i), (other, j) = place[a], place[b]
        right = other == home and j == i + 1 if c == 0 else other != home
        if not right:
            false.append(number)
    return false


def _flat_next(documents: Documents, pairs: Sequence[tuple[str, str, int]]) -> list[int]:
    """Takes the first sentence of the next document for what follows the last one of this."""
    flat = [sentence for document in documents for sentence in document]
    home = {sentence: d for d, document in enumerate(documents) for sentence in document}
    good = [flat.index(b) == flat.index(a) + 1 if c == 0 else home[a] != home[b] for a, b, c in pairs]
    return [number for number, right in enumerate(good) if not right]


def _kinds(documents: Documents, pairs: Sequence[tuple[str, str, int]]) -> list[tuple[int, str]]:
    """Label and relation ("next", "same", "other") of each pair."""
    after = {pair for document in documents for pair in pairwise(document)}
    home = {sentence: d for d, document in enumerate(documents) for sentence in document}
    return [(c, "next" if (a, b) in after else "same" if home[a] == home[b] else "other") for a, b, c in pairs]


def _judged(good: set[tuple[int, str]]) -> Any:
    """Find the pairs that are not of these kinds."""
    return lambda documents, pairs: [n for n, kind in enumerate(_kinds(documents, pairs)) if kind not in good]


def draw_documents(rng: np.random.Generator, sizes: Sequence[int]) -> Documents:
    """Make documents of so many sentences each; no sentence occurs twice."""
    names = iter(rng.permutation(900)[: sum(sizes)].tolist())
    return [[f"{SUBJECTS[n % 30]} {VERBS[n // 30]}" for n in (next(names) for _ in range(size))] for size in sizes]


SUBJECTS = (
    "the bird|the bus|rain|the baker|the cat|a sailor|the tree|a guest|the driver|the oven|a mouse|the harbor|the "
    "summer|a letter|the guard|the museum|a child|the dog|the river|an owl|the teacher|a farmer|the train|the wind|a "
    "painter|the moon|the market|a doctor|the snow|the boat"
).split("|")
VERBS = (
    "waits|sleeps|comes home|is late|sings|leaves at nine|looks up|is gone|stands still|is old|turns left|wakes early|"
    "moves on|stays|is heard|falls|returns|rests|is seen again|grows|has time|counts to ten|is quick|hides|is "
    "warm|laughs|is cold|works|is loud|arrives"
).split("|")


def _draw_labeled(rng: np.random.Generator) -> Inputs:
    documents = draw_documents(rng, [*rng.integers(1, 6, 4).tolist(), 4])
    where = [(d, i) for d, document in enumerate(documents) for i in range(len(document))]
    pairs: list[tuple[str, str, int]] = []
    while len(pairs) < 10:
        d, i = where[rng.integers(len(where))]
        if rng.random() < 0.4 and i + 1 < len(documents[d]):
            e, j = d, i + 1
        else:
            e, j = where[rng.integers(len(where))] if rng.random() < 0.5 else (d, int(rng.integers(len(documents[d]))))
        if (e, j) != (d, i):
            pairs.append((documents[d][i], documents[e][j], int(rng.integers(2))))
    return {"documents": documents, "pairs": pairs}


_TWO = [["the bird wakes", "it is hungry", "a worm hides", "it rains"], ["the bus leaves", "nobody has a ticket"]]
_EACH = [
    ("the bird wakes", "it is hungry", 0),
    ("the bird wakes", "it is hungry", 1),
    ("the bird wakes", "a worm hides", 0),
    ("the bird wakes", "a worm hides", 1),
    ("a worm hides", "the bird wakes", 1),
    ("it is hungry", "the bird wakes", 0),
    ("a worm hides", "the bus leaves", 1),
    ("a worm hides", "nobody has a ticket", 0),
    ("it rains", "the bus leaves", 0),
    ("it rains", "the bus leaves", 1),
]

FALSE_LABELS = CodeTask(
    id="06.2",
    title="Find false labels",
    points=3,
    concepts=("C24",),
    function="false_labels",
    reference=_false_labels,
    draw=_draw_labeled,
    edges=({"documents": _TWO, "pairs": _EACH}, {"documents": _TWO, "pairs": _EACH[:1]}),
    mistakes=(
        Mistake(
            "same document overlooked",
            _judged({(0, "next"), (1, "same"), (1, "other")}),
            "you accept label 1 for two sentences of the same document: a random B must come from another document, or "
            "both still tell the same story",
        ),
        Mistake(
            "same document is next",
            _judged({(0, "next"), (0, "same"), (1, "other")}),
            "you accept label 0 for any two sentences of the same document: B must be the very next one",
        ),
        Mistake(
            "labels exchanged",
            _judged({(1, "next"), (0, "other")}),
            "you read the labels the other way round: 0 says next, 1 says from another document",
        ),
        Mistake(
            "only label 1",
            _judged({(0, "next"), (0, "same"), (0, "other"), (1, "other")}),
            "you never find a false label 0: there B must be what follows A in its document",
        ),
        Mistake(
            "next across documents",
            _flat_next,
            "the first sentence of a document does not follow the last one of the document before it",
        ),
    ),
    hints=(
        "For each sentence you need to know its document and its place in it.",
        "Label 0 is right when both are in the same document and B's place is A's place plus one; label 1 is right "
        "when the documents differ.",
        "`place = {sentence: (d, i) for d, document in enumerate(documents) for i, sentence in enumerate(document)}`, "
        "then one condition for each label.",
    ),
)


# 06.4 Cut a pair


def _truncate(a: Ids, b: Ids, room: int) -> tuple[Ids, Ids]:
    keep_a, keep_b = len(a), len(b)
    while keep_a + keep_b > room:
        if keep_a > keep_b:
            keep_a -= 1
        else:
            keep_b -= 1
    return a[:keep_a], b[:keep_b]


def _from_front(a: Ids, b: Ids, room: int) -> tuple[Ids, Ids]:
    keep_a, keep_b = map(len, _truncate(a, b, room))
    return a[len(a) - keep_a :], b[len(b) - keep_b :]


def _in_halves(a: Ids, b: Ids, room: int) -> tuple[Ids, Ids]:
    return (a, b) if len(a) + len(b) <= room else (a[: room - room // 2], b[: room // 2])


def _tie_from_a(a: Ids, b: Ids, room: int) -> tuple[Ids, Ids]:
    kept_b, kept_a = _truncate(b, a, room)
    return kept_a, kept_b


def _draw_long(rng: np.random.Generator) -> Inputs:
    a, b = (rng.integers(5, 90, rng.integers(1, 25)).tolist() for _ in range(2))
    return {"a": a, "b": b, "room": int(rng.integers(2, len(a) + len(b) + 4))}


TRUNCATE = CodeTask(
    id="06.4",
    title="Cut a pair to the room",
    points=3,
    concepts=("C23",),
    function="truncate_pair",
    reference=_truncate,
    draw=_draw_long,
    rounds=20,
    edges=(
        {"a": [5, 6, 7, 8, 9], "b": [10, 11], "room": 4},
        {"a": [5, 6, 7], "b": [10, 11, 12], "room": 5},
        {"a": [5, 6, 7], "b": [10, 11, 12], "room": 6},
        {"a": [5], "b": list(range(10, 40)), "room": 8},
        {"a": list(range(10, 40)), "b": [5], "room": 8},
    ),
    mistakes=(
        Mistake(
            "end of the whole",
            lambda a, b, room: (a[:room], b[: max(0, room - len(a))]),
            "you cut the end of the whole sequence: a long A pushes B out. The longer of the two loses a token each "
            "time",
        ),
        Mistake(
            "equal lengths cut A",
            _tie_from_a,
            "with equal lengths you cut A; here B loses the token then, so that the result is one and the same for all",
        ),
        Mistake("from the front", _from_front, "you cut at the front: tokens are taken from the end of a sentence"),
        Mistake(
            "half the room each",
            _in_halves,
            "you give each sentence half of the room: when one is short, the other may use what it leaves",
        ),
    ),
    hints=(
        "One token at a time: which of the two is longer now?",
        "While both together have more than `room` tokens, the longer one loses its last token; with equal lengths it "
        "is B.",
        "`while len(a) + len(b) > room:` and inside `if len(a) > len(b): a = a[:-1]`, else the same with b.",
    ),
)
