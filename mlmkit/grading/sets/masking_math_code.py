"""Functions to write on the mathematics of masking: A(x) and x̄, the sum of logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmkit.grading.tasks import CodeTask, Mistake

Array = np.ndarray[Any, Any]

WORDS = "the early late hungry bird catches worm bus quick lazy fox jumps over dog".split()


# 02.1 A(x) and x̄


def _x_bar(words: Sequence[str], positions: Sequence[int]) -> tuple[list[str], list[str | None]]:
    x = ["[CLS]", *words]
    hidden = set(positions)
    x_bar = ["[MASK]" if i in hidden else token for i, token in enumerate(x)]
    return x_bar, [token if i in hidden else None for i, token in enumerate(x)]


def _from_zero(words: Sequence[str], positions: Sequence[int]) -> tuple[list[str], list[str | None]]:
    return _x_bar(words, [i + 1 for i in positions if i < len(words)])


def _by_word(words: Sequence[str], positions: Sequence[int]) -> tuple[list[str], list[str | None]]:
    hidden = {words[i - 1] for i in positions}
    return _x_bar(words, [i for i, word in enumerate(words, 1) if word in hidden])


def _in_place(words: Sequence[str], positions: Sequence[int]) -> tuple[list[str], list[str | None]]:
    x_bar, _ = _x_bar(words, positions)
    return x_bar, ["[MASK]" if i in positions else None for i in range(len(x_bar))]


def _every_label(words: Sequence[str], positions: Sequence[int]) -> tuple[list[str], list[str]]:
    return _x_bar(words, positions)[0], ["[CLS]", *words]


def _without_cls(words: Sequence[str], positions: Sequence[int]) -> tuple[list[str], list[str | None]]:
    x_bar, labels = _x_bar(words, positions)
    return x_bar[1:], labels[1:]


def _draw_words(rng: np.random.Generator) -> dict[str, Any]:
    length = int(rng.integers(3, 10))
    positions = rng.permutation(length)[: rng.integers(1, length)] + 1
    return {"words": [str(word) for word in rng.choice(WORDS, length)], "positions": positions.tolist()}


X_BAR = CodeTask(
    id="02.1",
    title="A(x) and x̄",
    points=3,
    concepts=("C08", "C09"),
    function="hide_words",
    reference=_x_bar,
    draw=_draw_words,
    edges=(
        {"words": "the late bird catches the bus".split(), "positions": [3, 6]},
        {"words": "the early bird catches the worm".split(), "positions": [1]},
        {"words": ["jumps"], "positions": []},
        {"words": ["worm", "worm"], "positions": [2, 1]},
    ),
    mistakes=(
        Mistake(
            "words counted from 0",
            _from_zero,
            "the hidden words are one place too far to the right: you counted the words from 0, but position 0 is "
            "[CLS], so position i is the i-th word",
        ),
        Mistake(
            "masked in place",
            _in_place,
            "your labels say [MASK]: they were read from x̄, or x̄ was made in the same list as x. Then the model "
            "would learn to answer [MASK] always. Make x̄ a new list and read the labels from x",
        ),
        Mistake(
            "by word, not by position",
            _by_word,
            "a word that occurs twice was hidden twice. A(x) holds positions, not words: outside A(x), x̄ must equal x",
        ),
        Mistake(
            "a label everywhere",
            _every_label,
            "your labels name every token, also those outside A(x): nothing is predicted there, so the label is None",
        ),
        Mistake(
            "without [CLS]",
            _without_cls,
            "[CLS] is missing: it is part of x and of x̄, at position 0",
        ),
    ),
    hints=(
        "Put [CLS] in front first. Then position i is simply index i of the list.",
        "Go over `enumerate(x)` twice: once for x̄, once for the labels. Both ask whether i is in `positions`.",
        '`x_bar = ["[MASK]" if i in positions else token for i, token in enumerate(x)]`; the labels are built alike.',
    ),
)


# 02.11 The score of a sentence


def _log_score(probabilities: Array, x: Sequence[int], positions: Sequence[int]) -> float:
    return float(sum(np.log(float(probabilities[i, x[i]])) for i in positions))


def _product(probabilities: Array, x: Sequence[int], positions: Sequence[int]) -> float:
    return float(np.prod([float(probabilities[i, x[i]]) for i in positions]))


def _log_of_product(probabilities: Array, x: Sequence[int], positions: Sequence[int]) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(_product(probabilities, x, positions)))


def _draw_table(rng: np.random.Generator) -> dict[str, Any]:
    length, size = int(rng.integers(2, 9)), int(rng.integers(3, 7))
    scores = np.exp(rng.normal(scale=1.5, size=(length, size)))
    positions = rng.permutation(length - 1)[: rng.integers(1, length)] + 1
    return {
        "probabilities": scores / scores.sum(1, keepdims=True),
        "x": rng.integers(0, size, length).tolist(),
        "positions": positions.tolist(),
    }


def _long(length: int) -> dict[str, Any]:
    """A sentence of which so many words are hidden that the product is 0 in float64."""
    table = np.tile([0.001, 0.009, 0.99], (length, 1))
    return {"probabilities": table, "x": [2] + [0] * (length - 1), "positions": list(range(1, length))}


_TABLE = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.3, 0.1, 0.2, 0.4], [0.05, 0.15, 0.3, 0.5]])

SCORE = CodeTask(
    id="02.11",
    title="The score of a sentence",
    points=4,
    concepts=("C10", "C11"),
    function="log_score",
    reference=_log_score,
    draw=_draw_table,
    edges=(
        {"probabilities": _TABLE, "x": [0, 1, 2, 3], "positions": [1, 3]},
        {"probabilities": _TABLE, "x": [0, 3, 1, 1], "positions": [2]},
        {"probabilities": _TABLE, "x": [0, 1, 2, 3], "positions": []},
        _long(150),
    ),
    mistakes=(
        Mistake(
            "log of the product",
            _log_of_product,
            "you multiply first and take the log of the product. On paper this is the same; in a computer the "
            "product of many probabilities is 0, and its log −inf. Take the logs first and add them",
        ),
        Mistake(
            "product",
            _product,
            "your result is the product of the probabilities. The objective adds their logs: same maximizer, but the "
            "product dies after some dozens of words",
        ),
        Mistake(
            "the unmasked positions",
            lambda probabilities, x, positions: _log_score(
                probabilities, x, [i for i in range(1, len(x)) if i not in positions]
            ),
            "you add over the positions outside A(x). Those words are the condition, not the question: they stand in "
            "x̄ for the model to see",
        ),
        Mistake(
            "every position",
            lambda probabilities, x, positions: _log_score(probabilities, x, range(1, len(x))),
            "you add over all words. The inner sum runs over A(x) and nothing else",
        ),
        Mistake(
            "mean",
            lambda probabilities, x, positions: _log_score(probabilities, x, positions) / max(len(positions), 1),
            "your result is the mean of the logs; the score of a sentence is their sum",
        ),
        Mistake(
            "the loss",
            lambda probabilities, x, positions: -_log_score(probabilities, x, positions),
            "the sign is turned: the loss is minus the log, and this is the objective, which is made large. A log of "
            "a probability is never positive",
        ),
        Mistake(
            "one position too early",
            lambda probabilities, x, positions: _log_score(probabilities, x, [i - 1 for i in positions]),
            "you read one position too far to the left. Position 0 is [CLS], and `x` and the rows of the table begin "
            "there: position i is row i",
        ),
        Mistake(
            "the model's favorite",
            lambda probabilities, x, positions: float(sum(np.log(probabilities[i].max()) for i in positions)),
            "you read the largest probability of each row. The objective reads that of the true token x[i]",
        ),
        Mistake(
            "another base",
            lambda probabilities, x, positions: _log_score(probabilities, x, positions) / np.log(2),
            "these are logs to the base 2; throughout the course log is the natural one, and the unit nats",
        ),
    ),
    hints=(
        "Which number of the table belongs to position i? Row i, and the column of the true token there.",
        "Take the log of each such number and add. Do not multiply first: try 150 factors of 0.001.",
        "`probabilities[i, x[i]]` is Pr(x_i | x̄); sum `np.log` of it over `positions`.",
    ),
)
