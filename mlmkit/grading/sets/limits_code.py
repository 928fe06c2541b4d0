"""Functions to write on the limits of masking: what independent answers lose, left to right by masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmkit.grading.comparing import Tolerance
from mlmkit.grading.tasks import CodeTask, Mistake

Array = np.ndarray[Any, Any]
Row = tuple[list[str], str]


# 04.2 Information lost


def _product(joint: Array) -> Array:
    return joint.sum(1, keepdims=True) * joint.sum(0)


def entropy(p: Array) -> float:
    """−Σ p log p, in nats; where p is 0 nothing is added."""
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def _lost(joint: Array) -> float:
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / _product(joint)[seen])).sum())


def _other_direction(joint: Array) -> float:
    product = _product(joint)
    seen = product > 0
    with np.errstate(divide="ignore"):
        return float((product[seen] * np.log(product[seen] / joint[seen])).sum())


def _other_direction_without_zeros(joint: Array) -> float:
    seen = joint > 0
    return float((_product(joint)[seen] * np.log(_product(joint)[seen] / joint[seen])).sum())


def _not_weighted(joint: Array) -> float:
    seen = joint > 0
    return float(np.log(joint[seen] / _product(joint)[seen]).mean())


def _zero_times_log_zero(joint: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((joint * np.log(joint / _product(joint))).sum())


def _from_uniform(joint: Array) -> float:
    return float(np.log(joint.size)) - entropy(joint)


def _conditional(joint: Array) -> float:
    return entropy(joint) - entropy(joint.sum(1))


def _draw_joint(rng: np.random.Generator) -> dict[str, Any]:
    shape = tuple(int(n) for n in rng.integers(2, 5, 2))
    joint = rng.gamma(0.7, size=shape) + 0.02
    if rng.random() < 0.2:
        joint = _product(joint)
    elif rng.random() < 0.7:
        joint[rng.integers(shape[0]), rng.integers(shape[1])] = 0
    return {"joint": joint / joint.sum()}


LOST = CodeTask(
    id="04.2",
    title="Information lost",
    points=5,
    concepts=("C15",),
    function="information_lost",
    reference=_lost,
    draw=_draw_joint,
    tolerance=Tolerance(relative=1e-3, absolute=1e-5),
    edges=(
        {"joint": np.array([[0.5, 0.1], [0.0, 0.3], [0.1, 0.0]])},
        {"joint": np.array([[0.36, 0.24], [0.18, 0.12], [0.06, 0.04]])},
        {"joint": np.array([[0.5, 0.0], [0.0, 0.5]])},
        {"joint": np.array([[0.2, 0.5, 0.1], [0.0, 0.0, 0.0], [0.1, 0.0, 0.1]])},
        {"joint": np.array([[0.25, 0.0, 0.75]])},
    ),
    mistakes=(
        Mistake(
            "0 · log 0",
            _zero_times_log_zero,
            "a cell of 0 gives 0 · log 0, which is nan in numpy. A pair that never occurs costs nothing: leave such "
            "cells out",
        ),
        Mistake(
            "the other direction",
            _other_direction,
            "you weight with the product and divide by the joint. The text comes from the joint and the answers from "
            "the product: weight with the joint",
        ),
        Mistake(
            "the other direction, zeros left out",
            _other_direction_without_zeros,
            "you weight with the product and divide by the joint. The text comes from the joint and the answers from "
            "the product: weight with the joint",
        ),
        Mistake(
            "another base",
            lambda joint: _lost(joint) / np.log(2),
            "these are bits: in nats the log is the natural one",
        ),
        Mistake(
            "what is paid, not what is lost",
            lambda joint: entropy(joint.sum(0)) + entropy(joint.sum(1)),
            "that is what both answers pay, H(first) + H(last). A model that could answer with the joint would pay "
            "H(both): lost is only the difference",
        ),
        Mistake(
            "the entropy of the joint",
            lambda joint: entropy(joint),
            "that is H(both), what even a perfect joint answer would pay. Lost is what the product pays on top of it",
        ),
        Mistake(
            "against uniform",
            _from_uniform,
            "you compare the joint with a uniform table. Independent answers are not blind: they are the two "
            "margins, and together their product",
        ),
        Mistake(
            "one given the other",
            _conditional,
            "that is the entropy of the second word once the first is known. Lost is how much the first would have "
            "told about it: H(second) minus this",
        ),
        Mistake(
            "each cell alike",
            _not_weighted,
            "you average log(joint / product) over the cells. Pairs that occur often must weigh more: multiply by "
            "the joint",
        ),
        Mistake(
            "absolute differences",
            lambda joint: float(np.abs(joint - _product(joint)).sum()),
            "you add up absolute differences. The loss is measured in nats: take Σ joint · log(joint / product)",
        ),
    ),
    hints=(
        "A masked model gives only the two margins. Which table do they make when they are multiplied?",
        "The margins are sums over an axis; with `keepdims=True` their product has the shape of the table. Then Σ "
        "joint · log(joint / product), over the cells where joint is not 0.",
        "`product = joint.sum(1, keepdims=True) * joint.sum(0)` and `seen = joint > 0`; the sum runs "
        "over `joint[seen]` and `product[seen]`.",
    ),
)


# 04.3 The questions of a language model


def _questions(words: Sequence[str], right_to_left: bool, reveal: int = 0) -> list[Row]:
    places = range(1, len(words) + 1)
    rows = []
    for i in places:
        hidden = range(1, i + 1 - reveal) if right_to_left else range(i + reveal, len(words) + 1)
        x_bar = ["[CLS]", *("[MASK]" if j in hidden else words[j - 1] for j in places)]
        rows.append((x_bar, words[i - 1]))
    return rows


def _one_hole(words: Sequence[str], right_to_left: bool) -> list[Row]:
    return [(["[CLS]", *words[: i - 1], "[MASK]", *words[i:]], words[i - 1]) for i in range(1, len(words) + 1)]


def _cut_off(words: Sequence[str], right_to_left: bool) -> list[Row]:
    return [
        (["[CLS]", "[MASK]", *words[i:]] if right_to_left else ["[CLS]", *words[: i - 1], "[MASK]"], words[i - 1])
        for i in range(1, len(words) + 1)
    ]


def _target_masked(words: Sequence[str], right_to_left: bool) -> list[Row]:
    return [(x_bar, "[MASK]") for x_bar, _ in _questions(words, right_to_left)]


def _cls_hidden(words: Sequence[str], right_to_left: bool) -> list[Row]:
    return [(["[MASK]", *x_bar[1:]], word) for x_bar, word in _questions(words, right_to_left)]


def _draw_sentence(rng: np.random.Generator) -> dict[str, Any]:
    vocabulary = "the a old red boat net soup sells hides washes slowly today".split()
    words = [str(word) for word in rng.choice(vocabulary, rng.integers(2, 8))]
    return {"words": words, "right_to_left": bool(rng.integers(2))}


QUESTIONS = CodeTask(
    id="04.3",
    title="Left to right, by masks",
    points=4,
    concepts=("C18",),
    function="questions",
    reference=_questions,
    draw=_draw_sentence,
    edges=(
        {"words": "the early bird catches the worm".split(), "right_to_left": False},
        {"words": "the early bird catches the worm".split(), "right_to_left": True},
        {"words": ["soup"], "right_to_left": False},
        {"words": ["net", "net", "boat"], "right_to_left": True},
    ),
    mistakes=(
        Mistake(
            "x_i is revealed to itself",
            lambda words, right_to_left: _questions(words, right_to_left, reveal=1),
            "the mask is one place too short: x_i stands in its own x̄, so the model can copy it. Every sentence "
            "would get the probability 1, and a training loss of 0 would teach nothing",
        ),
        Mistake(
            "only x_i is masked",
            _one_hole,
            "only x_i is hidden in your x̄, so the words that are to be predicted later are in sight. The sum of "
            "these logs is no log-probability: over all sentences the probabilities need not add up to 1",
        ),
        Mistake(
            "the direction is not read",
            lambda words, right_to_left: _questions(words, False),
            "you always go from left to right. With right_to_left, x_i is predicted from the words behind it, and "
            "everything up to i is hidden",
        ),
        Mistake(
            "the directions are exchanged",
            lambda words, right_to_left: _questions(words, not right_to_left),
            "the two directions are exchanged: from left to right the words before i are visible",
        ),
        Mistake(
            "hidden words are left out",
            _cut_off,
            "your x̄ ends, or begins, with the one [MASK] that is asked. A masked model keeps all positions: every "
            "hidden word leaves a [MASK]",
        ),
        Mistake(
            "right to left in reverse order",
            lambda words, right_to_left: _questions(words, right_to_left)[:: -1 if right_to_left else 1],
            "the rows for right to left come in the reverse order; here the rows are always in the order i = 1 … m",
        ),
        Mistake(
            "the target is [MASK]",
            _target_masked,
            "your targets say [MASK]: read them from x, not from x̄",
        ),
        Mistake(
            "[CLS] is hidden",
            _cls_hidden,
            "[CLS] is hidden in your x̄: it stands at position 0 in every row and is never in A(x)",
        ),
    ),
    hints=(
        "Write down the row for i = 3 of a sentence of five words first: which words are visible?",
        "From left to right x̄ is [CLS], the words before i, and a [MASK] for each word from i on, x_i itself included.",
        '`["[CLS]", *words[:i - 1], *["[MASK]"] * (m - i + 1)]` for i from 1 to m; the other direction is its mirror '
        "image, with [CLS] still in front.",
    ),
)
