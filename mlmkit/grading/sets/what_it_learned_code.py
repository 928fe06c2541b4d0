"""Functions to write about a trained model: its best words, and its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmkit.grading.plain import Torch
from mlmkit.grading.tasks import CodeTask, Mistake
from mlmkit.inspection.reliability import reliability

Array = np.ndarray[Any, Any]
Words = Sequence[str]
Table = tuple[list[tuple[int, float, float]], float]

VOCABULARY = (
    "the a list value file error name index array string returns is of to new raised function class key item path "
    "default argument method number object count order size type"
).split()


# 13.11 The best words at a [MASK]


def _probabilities(scores: Any) -> Array:
    z = np.asarray(scores, dtype=np.float64)
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def _top(scores: Any, words: Words, k: int) -> list[tuple[str, float]]:
    p = _probabilities(scores)
    return [(words[i], float(p[i])) for i in np.argsort(-p, kind="stable")[:k]]


def _lowest(scores: Any, words: Words, k: int) -> list[tuple[str, float]]:
    p = _probabilities(scores)
    return [(words[i], float(p[i])) for i in np.argsort(p, kind="stable")[:k]]


def _among_k(scores: Any, words: Words, k: int) -> list[tuple[str, float]]:
    best = _top(scores, words, k)
    total = sum(p for _, p in best)
    return [(word, p / total) for word, p in best]


def _raw(scores: Any, words: Words, k: int) -> list[tuple[str, float]]:
    z = np.asarray(scores, dtype=np.float64)
    return [(words[i], float(z[i])) for i in np.argsort(-z, kind="stable")[:k]]


def _losses(scores: Any, words: Words, k: int) -> list[tuple[str, float]]:
    return [(word, -float(np.log(p))) for word, p in _top(scores, words, k)]


def _shares_of_scores(scores: Any, words: Words, k: int) -> list[tuple[str, float]]:
    total = float(np.asarray(scores, dtype=np.float64).sum())
    return [(word, z / total) for word, z in _raw(scores, words, k)]


def _in_vocabulary_order(scores: Any, words: Words, k: int) -> list[tuple[str, float]]:
    return sorted(_top(scores, words, k), key=lambda answer: words.index(answer[0]))


def _draw_scores(rng: np.random.Generator) -> dict[str, Any]:
    V = int(rng.integers(3, 15))
    scores = rng.permutation(np.linspace(-2, 2, V) * rng.uniform(0.5, 3)) + rng.uniform(-4, 4)
    words = [VOCABULARY[i] for i in rng.permutation(len(VOCABULARY))[:V]]
    return {"scores": Torch(scores.astype(np.float32)), "words": words, "k": int(rng.integers(1, V + 1))}


def _scores(values: Sequence[float], words: str, k: int) -> dict[str, Any]:
    return {"scores": Torch(np.array(values, dtype=np.float32)), "words": words.split(), "k": k}


TOP = CodeTask(
    id="13.11",
    title="The best words at a [MASK]",
    points=3,
    concepts=("C12",),
    function="top_words",
    reference=_top,
    draw=_draw_scores,
    edges=(
        _scores([1.0, 3.0, 2.0], "sofa mat roof", 2),
        _scores([1000.0, 1003.0, 1001.5], "sofa mat roof", 2),
        _scores([-3.0, -1.0, -2.0, -200.0], "the mat dog a", 4),
        _scores([0.5, -0.7], "mat the", 1),
    ),
    mistakes=(
        Mistake(
            "lowest first",
            _lowest,
            "you give the least probable words: the best word is the one with the highest probability, hence the "
            "lowest loss",
        ),
        Mistake(
            "softmax of the best k",
            _among_k,
            "your probabilities are shares among the k best words; the softmax goes over the whole vocabulary",
        ),
        Mistake(
            "scores",
            _raw,
            "you return scores; they become probabilities by a softmax over the vocabulary",
        ),
        Mistake(
            "losses",
            _losses,
            "you return −log of the probabilities, the loss of each word; asked are the probabilities",
        ),
        Mistake(
            "scores divided by their sum",
            _shares_of_scores,
            "you divide scores by their sum; a softmax takes the exponential of each first, since scores may be "
            "negative",
        ),
        Mistake(
            "not sorted",
            _in_vocabulary_order,
            "your words are the right ones, in the order of the vocabulary; the best one comes first",
        ),
    ),
    hints=(
        "First probabilities for all words, then the best of them.",
        "A softmax over the whole vocabulary, then the k largest, the largest first.",
        "`p = scores.softmax(-1)` and `p.topk(k)` give values and indices; look the words up by index.",
    ),
)


# 13.12 A table of calibration


def _table(confidence: Array, right: Array, bins: int) -> Table:
    found = reliability(confidence, right, bins)
    return [(b.accuracy.count, b.confidence, b.accuracy.value) for b in found.bins], found.ece


def _from_parts(confidence: Array, right: Array, parts: Sequence[Array]) -> Table:
    rows = [(len(part), float(confidence[part].mean()), float(right[part].mean())) for part in parts if len(part)]
    return rows, sum(n * abs(a - c) for n, c, a in rows) / len(right)


def _equal_width(confidence: Array, right: Array, bins: int) -> Table:
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return _from_parts(confidence, right, [np.flatnonzero(places == b) for b in range(bins)])


def _unsorted(confidence: Array, right: Array, bins: int) -> Table:
    return _from_parts(confidence, right, np.array_split(np.arange(len(right)), bins))


def _plain_mean(confidence: Array, right: Array, bins: int) -> Table:
    rows, _ = _table(confidence, right, bins)
    return rows, sum(abs(a - c) for _, c, a in rows) / bins


def _signed(confidence: Array, right: Array, bins: int) -> Table:
    rows, _ = _table(confidence, right, bins)
    return rows, sum(n * (a - c) for n, c, a in rows) / len(right)


def _overall(confidence: Array, right: Array, bins: int) -> Table:
    rows, _ = _table(confidence, right, bins)
    return rows, abs(float(right.mean()) - float(confidence.mean()))


def _largest(confidence: Array, right: Array, bins: int) -> Table:
    rows, _ = _table(confidence, right, bins)
    return rows, max(abs(a - c) for _, c, a in rows)


def _highest_first(confidence: Array, right: Array, bins: int) -> Table:
    rows, ece = _table(confidence, right, bins)
    return rows[::-1], ece


def _draw_answers(rng: np.random.Generator) -> dict[str, Any]:
    n = int(rng.integers(7, 60))
    confidence = rng.choice(np.arange(20, 1000), n, replace=False) / 1000
    right = rng.random(n) < confidence ** rng.choice([0.5, 1.0, 2.5])
    return {"confidence": confidence, "right": right, "bins": int(rng.integers(2, 6))}


CALIBRATION = CodeTask(
    id="13.12",
    title="A table of calibration",
    points=4,
    concepts=("C12",),
    function="calibration_table",
    reference=_table,
    draw=_draw_answers,
    edges=(
        {
            "confidence": np.array([0.1, 0.9, 0.3, 0.8, 0.2]),
            "right": np.array([False, True, True, False, False]),
            "bins": 2,
        },
        {"confidence": np.array([0.25, 0.5, 0.75]), "right": np.array([True, True, False]), "bins": 1},
        {"confidence": np.array([0.6, 0.4]), "right": np.array([True, False]), "bins": 2},
    ),
    mistakes=(
        Mistake(
            "bins of equal width",
            _equal_width,
            "your bins are equally wide, not equally full: some are then known from hardly any answer",
        ),
        Mistake(
            "not sorted",
            _unsorted,
            "you cut the answers into bins in the order in which they come; sort them by confidence first",
        ),
        Mistake(
            "highest first", _highest_first, "your bins run from the highest confidence down; the lowest comes first"
        ),
        Mistake(
            "bins count alike",
            _plain_mean,
            "every bin counts the same in your error; each should count by the answers in it, n_b / n",
        ),
        Mistake(
            "signed",
            _signed,
            "your distances have a sign: a bin that claims too much and one that claims too little then cancel",
        ),
        Mistake(
            "all answers at once",
            _overall,
            "you compare the mean confidence of all answers with their accuracy: errors of different bins then cancel",
        ),
        Mistake("largest distance", _largest, "you give the largest distance; asked is the weighted mean of all bins"),
    ),
    hints=(
        "What has to happen to the answers before they can be cut into bins of similar confidence?",
        "`np.argsort(confidence)` gives the order, `np.array_split` cuts it, and both arrays are read by these "
        "indices.",
        "For each part: `len(part)`, `confidence[part].mean()`, `right[part].mean()`; add up "
        "`len(part) / len(right) * abs(…)`.",
    ),
)


TASKS = (TOP, CALIBRATION)
