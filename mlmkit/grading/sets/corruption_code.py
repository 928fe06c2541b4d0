"""The functions to write of set 03 about the channel, the labels and the choice of A(x)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmkit.grading.chance import fresh_seed
from mlmkit.grading.plain import Rng
from mlmkit.grading.sets.corruption_checks import verify_selection
from mlmkit.grading.tasks import CodeTask, Inputs, Mistake
from mlmkit.masking import MaskingPolicy, mlm_labels, select

Array = np.ndarray[Any, Any]


# 03.4 The channel


def _channel(n: int, mask: float, random: float, keep: float) -> Array:
    table = np.full((n, n + 1), random / n)
    table[np.arange(n), np.arange(n)] += keep
    table[:, n] = mask
    return table


def _never_itself(n: int, mask: float, random: float, keep: float) -> Array:
    table = np.full((n, n + 1), random / (n - 1))
    table[np.arange(n), np.arange(n)] = keep
    table[:, n] = mask
    return table


def _only_kept(n: int, mask: float, random: float, keep: float) -> Array:
    table = _channel(n, mask, random, keep)
    table[np.arange(n), np.arange(n)] = keep
    return table


def _undivided(n: int, mask: float, random: float, keep: float) -> Array:
    table = np.full((n, n + 1), random)
    table[np.arange(n), np.arange(n)] = keep
    table[:, n] = mask
    return table


def _draw_channel(rng: np.random.Generator) -> Inputs:
    mask, random = int(rng.integers(30, 80)), int(rng.integers(5, 20))
    shares = {"mask": mask / 100, "random": random / 100, "keep": (100 - mask - random) / 100}
    return {"n": int(rng.integers(2, 12)), **shares}


CHANNEL = CodeTask(
    id="03.4",
    title="The channel as a table",
    points=3,
    concepts=("C13",),
    function="channel",
    reference=_channel,
    draw=_draw_channel,
    edges=(
        {"n": 4, "mask": 0.8, "random": 0.1, "keep": 0.1},
        {"n": 3, "mask": 0.8, "random": 0.2, "keep": 0.0},
        {"n": 3, "mask": 0.8, "random": 0.0, "keep": 0.2},
    ),
    mistakes=(
        Mistake(
            "random never itself",
            _never_itself,
            "your random token is never the true one; it is drawn from all n ordinary tokens, so the true one comes "
            "with probability random/n, and each other one with random/n, not random/(n − 1)",
        ),
        Mistake(
            "diagonal without chance",
            _only_kept,
            "on the diagonal you have keep alone: a random token may also be the true one, so random/n is added "
            "(without it the rows do not sum to 1)",
        ),
        Mistake(
            "random not shared out",
            _undivided,
            "each other token has the whole probability `random`: the n tokens share it, so each has random/n",
        ),
        Mistake(
            "transposed",
            lambda n, mask, random, keep: _channel(n, mask, random, keep).T,
            "rows and columns are exchanged: a row belongs to the true token, and sums to 1",
        ),
    ),
    hints=(
        "In how many ways can the true token itself be received?",
        "Start with random/n everywhere, add `keep` on the diagonal, then fill the last column with `mask`.",
        "`table = np.full((n, n + 1), random / n)`; `np.arange(n)` twice as index is the diagonal, `table[:, n]` the "
        "last column.",
    ),
)


# 03.9 Labels


def _draw_labels(rng: np.random.Generator) -> Inputs:
    shape = (int(rng.integers(1, 4)), int(rng.integers(2, 9)))
    return {"ids": rng.integers(0, 50, shape), "selected": rng.random(shape) < rng.choice([0.15, 0.5])}


LABELS = CodeTask(
    id="03.9",
    title="Labels",
    points=2,
    concepts=("C10", "C13"),
    function="labels_of",
    reference=lambda ids, selected: mlm_labels(ids, selected),
    draw=_draw_labels,
    edges=(
        {"ids": np.array([[2, 7, 8, 3]]), "selected": np.array([[False, True, False, False]])},
        {"ids": np.array([[2, 9, 3], [2, 6, 3]]), "selected": np.zeros((2, 3), dtype=bool)},
        {"ids": np.array([[5, 6, 5]]), "selected": np.ones((1, 3), dtype=bool)},
    ),
    mistakes=(
        Mistake(
            "ignored everywhere",
            lambda ids, selected: np.full_like(ids, -100),
            "your labels are −100 also at the selected positions: there the model is asked for the true id",
        ),
        Mistake(
            "the other way round",
            lambda ids, selected: np.where(selected, -100, ids),
            "your labels are the true ids where nothing was selected, and −100 where it was",
        ),
        Mistake(
            "every position",
            lambda ids, selected: ids,
            "your labels ask for every token: the unselected ones could be copied from the input",
        ),
        Mistake(
            "0 for ignored",
            lambda ids, selected: ids * selected,
            "0 is the id of a token ([PAD]): a loss would be taken there; −100 says that none is",
        ),
        Mistake(
            "1 and 0",
            lambda ids, selected: np.where(selected, 1, -100),
            "your labels say that a position is selected; they must say which token stood there",
        ),
    ),
    hints=(
        "Two arrays decide at each position between two values: `np.where`.",
        "Where `selected` is true the label is the true id; elsewhere it is −100, which PyTorch's cross-entropy "
        "ignores.",
        "`np.where(selected, …, -100)`; only the middle is missing.",
    ),
)


# 03.10 Choose A(x)


def _draw_candidates(rng: np.random.Generator) -> Inputs:
    real = np.arange(200) < rng.integers(60, 200, (8, 1))
    real[:, 0] = False
    return {"candidates": real, "rate": float(rng.choice([0.15, 0.2, 0.3])), "rng": fresh_seed(rng)}


def _first_places(candidates: Array, rate: float, rng: np.random.Generator) -> Array:
    return candidates & (np.cumsum(candidates, axis=1) <= rate * candidates.sum(axis=1, keepdims=True))


def _rounded(candidates: Array, rate: float, rng: np.random.Generator) -> Array:
    keys = np.where(candidates, rng.random(candidates.shape), 2.0)
    count = np.maximum(rate > 0, np.round(rate * candidates.sum(axis=1, keepdims=True)))
    return candidates & (keys.argsort(axis=1).argsort(axis=1) < count)


_SHORT = np.tile(np.array([False, True, True, True, False]), (400, 1))

SELECT = CodeTask(
    id="03.10",
    title="Choose A(x)",
    points=4,
    concepts=("C08", "C13"),
    function="select_positions",
    reference=lambda candidates, rate, rng: select(candidates, MaskingPolicy(rate=rate), rng),
    draw=_draw_candidates,
    edges=(
        {"candidates": np.zeros((2, 5), dtype=bool), "rate": 0.15, "rng": Rng(1)},
        {"candidates": _SHORT[:3], "rate": 0.0, "rng": Rng(2)},
        {"candidates": _SHORT[:3], "rate": 1.0, "rng": Rng(3)},
        {"candidates": _SHORT, "rate": 0.15, "rng": Rng(4)},
    ),
    verify=verify_selection,
    rounds=8,
    mistakes=(
        Mistake(
            "padding too",
            lambda candidates, rate, rng: rng.random(candidates.shape) < rate,
            "a position was selected that is no candidate",
        ),
        Mistake("the first ones", _first_places, "two rows choose the same positions too often"),
        Mistake("rounded up to one", _rounded, "rounding the number in each row misses the rate"),
        Mistake(
            "one draw for a column",
            lambda candidates, rate, rng: candidates & (rng.random(candidates.shape[1]) < rate),
            "two rows choose the same positions too often",
        ),
        Mistake(
            "one draw for a row",
            lambda candidates, rate, rng: candidates & (rng.random((len(candidates), 1)) < rate),
            "two neighbors are chosen together too often",
        ),
        Mistake(
            "a seed of its own",
            lambda candidates, rate, rng: candidates & (np.random.default_rng(0).random(candidates.shape) < rate),
            "two calls choose the same positions too often",
        ),
        Mistake(
            "80 % of the rate",
            lambda candidates, rate, rng: candidates & (rng.random(candidates.shape) < 0.8 * rate),
            "of the candidates were selected, and",
        ),
    ),
    hints=(
        "Draw one number in [0, 1) for each position.",
        "A position is selected when its number is below `rate` **and** it is a candidate.",
        "`rng.random(candidates.shape)` gives the numbers; combine two boolean arrays with `&`.",
    ),
)
