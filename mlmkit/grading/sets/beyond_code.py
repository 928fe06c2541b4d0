"""Functions to write on choosing and hiding words: consecutive masking; mask, infill, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mlmkit.grading.plain import Torch
from mlmkit.grading.tasks import CodeTask, Mistake
from mlmkit.objectives import consecutive_share

# 15.1 Masked consecutively


def _selected(*rows: str) -> dict[str, Any]:
    """Rows of dots and crosses as a boolean tensor."""
    return {"selected": Torch(np.array([[mark == "x" for mark in row] for row in rows]))}


def _draw_selected(rng: np.random.Generator) -> dict[str, Any]:
    selected = rng.random((int(rng.integers(1, 5)), int(rng.integers(4, 17)))) < rng.choice([0.15, 0.4, 0.7])
    selected[:, [0, -1]] = False
    return {"selected": Torch(selected)}


def _runs(selected: Tensor) -> list[int]:
    """Lengths of all runs."""
    rows = ("".join("x" if hit else "." for hit in row) for row in selected.tolist())
    return [len(run) for row in rows for run in row.split(".") if run]


def _over(some: float, all: float) -> float:
    return some / all if all else 0.0


def _mean_of_rows(selected: Tensor) -> float:
    shares = [consecutive_share(row[None]) for row in selected if row.any()]
    return _over(sum(shares), len(shares))


SHARE = CodeTask(
    id="15.1",
    title="Masked consecutively",
    points=4,
    concepts=("C16",),
    function="consecutive_share",
    reference=consecutive_share,
    draw=_draw_selected,
    rounds=20,
    edges=(
        _selected(".x.xxx.."),
        _selected("..x......", "..x..x..."),
        _selected("..xx.x...", "...xxx..."),
        _selected("........."),
        _selected(".x.x.xx.", ".xxxxxx.", "........"),
    ),
    mistakes=(
        Mistake(
            "single-token spans counted",
            lambda selected: _over(sum(_runs(selected)), sum(_runs(selected))),
            "you count runs of one as spans: the result is 1 whatever was drawn. A single masked token has no masked "
            "neighbor, and nothing is masked consecutively there",
        ),
        Mistake(
            "runs instead of words",
            lambda selected: _over(sum(n > 1 for n in _runs(selected)), len(_runs(selected))),
            "you count runs: a run of five weighs as much as a run of one. Asked is for the share of the words",
        ),
        Mistake(
            "of all positions",
            lambda selected: sum(n for n in _runs(selected) if n > 1) / selected.numel(),
            "you divide by all positions; the share is of the selected ones",
        ),
        Mistake(
            "only one side",
            lambda selected: _over(sum(n - 1 for n in _runs(selected)), sum(_runs(selected))),
            "you look at the neighbor on one side only: the first (or the last) word of each span is not counted",
        ),
        Mistake(
            "spans of three",
            lambda selected: _over(sum(n for n in _runs(selected) if n > 2), sum(_runs(selected))),
            "you leave out spans of two; a hidden word with one hidden neighbor is masked consecutively",
        ),
        Mistake(
            "mean of rows",
            _mean_of_rows,
            "you take the mean of the shares of the rows: a row with one selected word then weighs as much as a row "
            "with ten. Count the words of the whole batch",
        ),
    ),
    hints=(
        "A selected word counts if its left or its right neighbor is selected too.",
        "Shift the selection by one place to either side. [CLS] and the last place are never selected, so nothing is "
        "lost.",
        "`left = selected[:, :-2]`, `right = selected[:, 2:]` are the neighbors of `selected[:, 1:-1]`. Then count, "
        "divide, and mind a batch in which nothing is selected.",
    ),
)


# 15.10 Mask, infill, delete


def damaged(words: Sequence[str], hidden: Sequence[bool], kind: str) -> list[str]:
    """One sentence with [MASK]s for words, [MASK]s for runs, or nothing in the place of hidden words."""
    result = []
    for i, (word, gone) in enumerate(zip(words, hidden, strict=True)):
        if not gone:
            result.append(word)
        elif kind == "mask" or (kind == "infill" and (i == 0 or not hidden[i - 1])):
            result.append("[MASK]")
    return result


def _as(kinds: dict[str, str]) -> Callable[..., list[str]]:
    """The solution that takes one kind for another."""
    return lambda words, hidden, kind: damaged(words, hidden, kinds.get(kind) or kind)


def _padded_gaps(words: Sequence[str], hidden: Sequence[bool], kind: str) -> list[str]:
    masked = damaged(words, hidden, "mask")
    return [w.replace("[MASK]", "[PAD]") for w in masked] if kind == "delete" else damaged(words, hidden, kind)


def _one_mask(words: Sequence[str], hidden: Sequence[bool], kind: str) -> list[str]:
    result = damaged(words, hidden, kind)
    first = result.index("[MASK]") if "[MASK]" in result else 0
    return [w for i, w in enumerate(result) if kind != "infill" or w != "[MASK]" or i == first]


def _equal_merged(words: Sequence[str], hidden: Sequence[bool], kind: str) -> list[str]:
    masked = damaged(words, hidden, "mask")
    merged = [w for i, w in enumerate(masked) if i == 0 or w != masked[i - 1]]
    return merged if kind == "infill" else damaged(words, hidden, kind)


VERSE = "the early bird catches the very very old worm".split()
KINDS = ("mask", "infill", "delete")


def _draw_damage(rng: np.random.Generator) -> dict[str, Any]:
    words = [str(word) for word in rng.choice(VERSE, int(rng.integers(3, 10)))]
    hidden = [bool(hit) for hit in rng.random(len(words)) < rng.choice([0.3, 0.6])]
    return {"words": words, "hidden": hidden, "kind": str(rng.choice(KINDS))}


def _hide(marks: str, kind: str) -> dict[str, Any]:
    return {"words": VERSE[: len(marks)], "hidden": [mark == "x" for mark in marks], "kind": kind}


DAMAGE = CodeTask(
    id="15.10",
    title="Mask, infill, delete",
    points=4,
    concepts=("C19",),
    function="damage",
    reference=damaged,
    draw=_draw_damage,
    rounds=30,
    edges=tuple(
        _hide(marks, kind) for kind in KINDS for marks in ("..xx..", "xx.xx....", "x......xx", "...", "xx", ".x.......")
    ),
    mistakes=(
        Mistake(
            "deletion leaves a place-holder",
            _as({"delete": "infill"}),
            "after your deletion a [MASK] shows where words are missing: that is infilling. Deletion leaves nothing",
        ),
        Mistake(
            "deletion leaves one place-holder per word",
            _as({"delete": "mask"}),
            "after your deletion a [MASK] stands for each hidden word: that is masking. Deletion leaves nothing",
        ),
        Mistake(
            "deletion leaves [PAD]",
            _padded_gaps,
            "a [PAD] in the place of a deleted word shows where it was, and how many there were. Deletion leaves "
            "nothing",
        ),
        Mistake(
            "infilling leaves one per word",
            _as({"infill": "mask"}),
            "your infilling puts one [MASK] for each hidden word: that is masking, and shows how many are missing. A "
            "run of hidden words leaves one [MASK]",
        ),
        Mistake(
            "one [MASK] in all",
            _one_mask,
            "your infilling leaves one [MASK] in all; each run of hidden words leaves one",
        ),
        Mistake(
            "equal neighbors merged",
            _equal_merged,
            "your infilling also merges equal visible neighbors, as in “very very old”: close the ranks of [MASK]s "
            "only",
        ),
        Mistake(
            "the visible ones hidden",
            lambda words, hidden, kind: damaged(words, [not gone for gone in hidden], kind),
            "you hide the visible words and show the hidden ones",
        ),
    ),
    hints=(
        "Go through the words from left to right and decide at each what goes into the result: the word, a [MASK], "
        "nothing.",
        "Under infilling a hidden word gets a [MASK] only if it is the first of its run: the word before it is "
        "visible, or there is none.",
        "`hidden[i] and (i == 0 or not hidden[i - 1])` says that a run begins at i.",
    ),
)
