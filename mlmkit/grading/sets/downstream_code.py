"""Functions to write on tasks and their judgment: files in common, labels for pieces, macro-F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmkit.grading.tasks import CodeTask, Mistake
from mlmkit.masking import IGNORE

Array = np.ndarray[Any, Any]
Row = tuple[str, str, str]


# 14.2 Files in two parts


SENTENCES = (
    "return the sum of an array.",
    "draw a line.",
    "wait for it.",
    "open a file for reading.",
    "sort in place.",
)
LABELS = ("arrays", "plots", "python", "torch")


def _rows(rng: np.random.Generator, files: Sequence[str], n: int) -> list[Row]:
    return [(str(rng.choice(SENTENCES)), str(rng.choice(LABELS)), str(rng.choice(files))) for _ in range(n)]


def _draw_rows(rng: np.random.Generator) -> dict[str, Any]:
    files = [f"{rng.choice(['numpy', 'torch', 'scipy'])}/part{k}.py" for k in range(9)]
    a, b = list(rng.permutation(files)[:6]), list(rng.permutation(files)[:6])
    return {"a": _rows(rng, a, int(rng.integers(4, 14))), "b": _rows(rng, b, int(rng.integers(4, 14)))}


def _shared_rows(a: Sequence[Row], b: Sequence[Row]) -> int:
    return sum(file in {row[2] for row in a} for *_, file in b)


ONE_FILE = [("draw a line.", "plots", "lines.py"), ("sort in place.", "plots", "lines.py")]
SHARED = CodeTask(
    id="14.2",
    title="Files in common",
    points=2,
    concepts=("C30",),
    function="shared_files",
    reference=lambda a, b: len({row[2] for row in a} & {row[2] for row in b}),
    draw=_draw_rows,
    edges=(
        {"a": [*ONE_FILE, ("wait for it.", "python", "time.py")], "b": [*ONE_FILE, ("wait for it.", "torch", "x.py")]},
        {"a": ONE_FILE, "b": [("draw a line.", "plots", "axes.py")]},
        {"a": ONE_FILE, "b": []},
    ),
    mistakes=(
        Mistake(
            "rows counted",
            _shared_rows,
            "you count the rows whose file is on both sides: a file that gives several rows counts several times. "
            "Asked is for files",
        ),
        Mistake(
            "rows of the first part counted",
            lambda a, b: _shared_rows(b, a),
            "you count the rows whose file is on both sides: a file that gives several rows counts several times. "
            "Asked is for files",
        ),
        Mistake(
            "sentences compared",
            lambda a, b: len({row[0] for row in a} & {row[0] for row in b}),
            "you compare the sentences, not the files: two parts may share no sentence at all and still leak, because "
            "sentences of one file resemble each other",
        ),
        Mistake(
            "whole rows compared",
            lambda a, b: len(set(a) & set(b)),
            "you count equal rows: files leak also where sentence and label differ",
        ),
        Mistake(
            "all files",
            lambda a, b: len({row[2] for row in a} | {row[2] for row in b}),
            "you count the files that occur in either list; shared are those that occur in both",
        ),
    ),
    hints=(
        "Only the third entry of a row matters, and each file counts once.",
        "Make a set of the files of each list; `&` gives what two sets have in common.",
        "`{row[2] for row in a}` are the files of `a`; do the same for `b`, and count what is in both.",
    ),
)


# 14.7 Labels of words, places of pieces


def align(pieces: Sequence[Sequence[str]], word_labels: Sequence[int], length: int) -> list[int]:
    """The label of each word at its first piece, as far as the pieces fit; −100 elsewhere."""
    labels = [IGNORE]
    for word, label in zip(pieces, word_labels, strict=True):
        labels += [label, *[IGNORE] * (len(word) - 1)] if word else []
    return _padded(labels[: length - 1], length)


def _padded(labels: Sequence[int], length: int) -> list[int]:
    return [*labels[:length], *[IGNORE] * (length - len(labels))]


def _every_piece(pieces: Sequence[Sequence[str]], word_labels: Sequence[int], length: int) -> list[int]:
    flat = [label for word, label in zip(pieces, word_labels, strict=True) for _ in word]
    return _padded([IGNORE, *flat][: length - 1], length)


def _last_piece(pieces: Sequence[Sequence[str]], word_labels: Sequence[int], length: int) -> list[int]:
    flat = [IGNORE]
    for word, label in zip(pieces, word_labels, strict=True):
        flat += [*[IGNORE] * (len(word) - 1), label] if word else []
    return _padded(flat[: length - 1], length)


def _no_separator(pieces: Sequence[Sequence[str]], word_labels: Sequence[int], length: int) -> list[int]:
    return [*align(pieces, word_labels, length + 1)][:length]


def _empty_words_labeled(pieces: Sequence[Sequence[str]], word_labels: Sequence[int], length: int) -> list[int]:
    return align([word or ["?"] for word in pieces], word_labels, length)


def _draw_words(rng: np.random.Generator) -> dict[str, Any]:
    sizes = [int(rng.integers(0, 4)) if rng.random() < 0.4 else 1 for _ in range(int(rng.integers(1, 8)))]
    total = sum(sizes)
    return {
        "pieces": [[f"p{k}" if j == 0 else f"##q{j}" for j in range(size)] for k, size in enumerate(sizes)],
        "word_labels": [int(k) for k in rng.integers(0, 4, len(sizes))],
        "length": max(3, total + 2 + int(rng.integers(-3, 4))),
    }


ARRAYS = [["un", "##pick", "##led"], ["arrays"], ["again"]]
ALIGN = CodeTask(
    id="14.7",
    title="Labels of words, places of pieces",
    points=4,
    concepts=(),
    function="align_labels",
    reference=align,
    draw=_draw_words,
    rounds=24,
    edges=(
        {"pieces": ARRAYS, "word_labels": [0, 1, 2], "length": 9},
        {"pieces": ARRAYS, "word_labels": [3, 1, 2], "length": 6},
        {"pieces": ARRAYS, "word_labels": [3, 1, 2], "length": 7},
        {"pieces": [["a"], [], ["b", "##c"]], "word_labels": [1, 2, 3], "length": 8},
        {"pieces": [["a"], []], "word_labels": [1, 2], "length": 4},
    ),
    mistakes=(
        Mistake(
            "side by side",
            lambda pieces, word_labels, length: _padded([IGNORE, *word_labels][: length - 1], length),
            "you lay the labels side by side, one for each place: behind the first word of several pieces each label "
            "stands at the piece of another word",
        ),
        Mistake(
            "no [CLS]",
            lambda pieces, word_labels, length: _padded(align(pieces, word_labels, length + 1)[1:-1], length),
            "place 0 is [CLS]: every label stands one place too early",
        ),
        Mistake(
            "every piece",
            _every_piece,
            "you label every piece: a word of three pieces would count three times in the loss. Only the first piece "
            "of a word is asked",
        ),
        Mistake(
            "last piece", _last_piece, "you label the last piece of each word; a word's label is read at its first"
        ),
        Mistake(
            "0 for nothing",
            lambda pieces, word_labels, length: [max(0, label) for label in align(pieces, word_labels, length)],
            "where nothing is asked you write 0, but 0 is a label: the loss would be taken there. −100 says that none "
            "is",
        ),
        Mistake(
            "no room for [SEP]",
            _no_separator,
            "the last place belongs to [SEP]: when the sentence is cut, only length − 2 pieces fit",
        ),
        Mistake(
            "words without pieces",
            _empty_words_labeled,
            "a word without pieces has no place: its label is left out, and takes no place from the next words",
        ),
    ),
    hints=(
        "Build the list from left to right: one entry for [CLS], then for each word as many entries as it has pieces.",
        "The first of these entries is the word's label, the others are −100. Cut at length − 1, then fill up with "
        "−100.",
        "For each word with pieces: `labels += [label] + [-100] * (len(word) - 1)`.",
    ),
)


# 14.14 Macro-F1


def macro_f1(confusion: Array) -> float:
    """Mean of F1 over the labels; 0 for a label that is never right."""
    right, both = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2 * right / np.maximum(both, 1)))


def _draw_confusion(rng: np.random.Generator) -> dict[str, Any]:
    K = int(rng.integers(2, 6))
    confusion = rng.integers(0, 9, (K, K)) + np.diag(rng.integers(0, 30, K))
    if rng.random() < 0.4:
        confusion[:, int(rng.integers(K))] = 0
    return {"confusion": confusion}


def _only_labels_that_occur(confusion: Array) -> float:
    right, both = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2 * right[both > 0] / both[both > 0]))


F1 = CodeTask(
    id="14.14",
    title="Macro-F1",
    points=3,
    concepts=(),
    function="macro_f1",
    reference=macro_f1,
    draw=_draw_confusion,
    edges=(
        {"confusion": np.array([[75, 0, 0, 0], [75, 0, 0, 0], [75, 0, 0, 0], [75, 0, 0, 0]])},
        {"confusion": np.array([[95, 0], [5, 0]])},
        {"confusion": np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])},
        {"confusion": np.array([[3, 0], [0, 7]])},
    ),
    mistakes=(
        Mistake(
            "accuracy",
            lambda confusion: float(np.trace(confusion) / confusion.sum()),
            "this is the accuracy: where 95 % of the texts have one label, always answering it reaches 95 % and knows "
            "nothing. Macro-F1 gives each label the same weight",
        ),
        Mistake(
            "recall",
            lambda confusion: float(np.mean(np.diag(confusion) / np.maximum(confusion.sum(1), 1))),
            "you divide by how often a label is true, and not by how often it is answered as well: that is the mean "
            "recall, and answering a label too often costs nothing",
        ),
        Mistake(
            "precision",
            lambda confusion: float(np.mean(np.diag(confusion) / np.maximum(confusion.sum(0), 1))),
            "you divide by how often a label is answered, and not by how often it is true as well: that is the mean "
            "precision, and never answering a label costs too little",
        ),
        Mistake(
            "labels left out",
            _only_labels_that_occur,
            "you leave out labels that are neither true nor answered; here their F1 is 0 and counts",
        ),
        Mistake(
            "the 2 is missing",
            lambda confusion: macro_f1(confusion) / 2,
            "the 2 is missing: where every answer is right, F1 must be 1",
        ),
    ),
    hints=(
        "Three numbers for each label: how often right (the diagonal), how often true (its row), how often answered.",
        "F1 = 2 · right / (true + answered), and 0 where nothing is right. Then the mean over the labels.",
        "`np.diag(confusion)` and `confusion.sum(0) + confusion.sum(1)`; keep the divisor from being 0 by "
        "`np.maximum`.",
    ),
)
