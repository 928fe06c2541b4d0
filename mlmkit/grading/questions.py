"""Ways to ask: a number, several numbers, a choice, an order, a matching.

Each wrong answer that stands for a misconception has its own explanation; any other wrong answer gets a plain sentence
that says what to look at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlmkit.grading.comparing import shown
from mlmkit.grading.tasks import Question

LETTERS = "ABCDEFGHIJKLMNOP"


def _near(value: Any, other: float, relative: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return abs(value - other) <= relative * abs(other) + 1e-9


def number(
    text: str, value: float, *, wrong: Mapping[str, float], why: str, unit: str = "", relative: float = 0.005
) -> Question:
    """Ask for a number.

    Args:
        text: Markdown.
        value: the right number.
        wrong: explanation → the number that a misconception leads to. Those that happen to be right are left out.
        why: shown with a right answer.
        unit: of the number, as "nats".
        relative: how near the answer must be, relative to the right number.
    """

    def explain(got: Any) -> str:
        if isinstance(got, bool) or not isinstance(got, int | float):
            return f"the answer should be a number, and is {shown(got)}"
        for says, other in wrong.items():
            if not _near(other, value, relative) and _near(got, other, relative):
                return says
        return f"{shown(got)} is too {'large' if got > value else 'small'}"

    form = f"a number, in {unit}" if unit else "a number"
    return Question("number", text, form, value, explain, why, relative, tuple(wrong))


def numbers(
    text: str,
    values: Mapping[str, float],
    *,
    wrong: Mapping[str, Mapping[str, float]],
    why: str,
    relative: float = 0.005,
) -> Question:
    """Ask for several numbers, each with a name.

    Args:
        text: Markdown; it tells the names.
        values: name → right number.
        wrong: explanation → the numbers that a misconception leads to, by name (some or all of the names).
        why: shown with a right answer.
        relative: how near each must be.
    """

    def explain(got: Any) -> str:
        if not isinstance(got, Mapping) or set(got) != set(values):
            return (
                f"the answer should be a dictionary with the keys {', '.join(map(repr, values))}, and is {shown(got)}"
            )
        off = [name for name, value in values.items() if not _near(got[name], value, relative)]
        for says, others in wrong.items():
            differing = [name for name, other in others.items() if not _near(other, values[name], relative)]
            if differing and all(_near(got[name], others[name], relative) for name in differing):
                return says
        return f"{off[0]!r} is not {shown(got[off[0]])}"

    form = "a dictionary, as {" + ", ".join(f'"{name}": …' for name in values) + "}"
    return Question("numbers", text, form, dict(values), explain, why, relative, tuple(wrong))


def choice(text: str, rng: np.random.Generator, *, right: str, wrong: Mapping[str, str], why: str) -> Question:
    """Ask for one of several options, in an order drawn by `rng`.

    Args:
        text: Markdown; the options are put below it.
        rng: orders the options.
        right: the right option.
        wrong: option → explanation of the misconception behind it.
        why: shown with a right answer.
    """
    options = [right, *wrong]
    options = [options[i] for i in rng.permutation(len(options))]
    letter = LETTERS[options.index(right)]

    def explain(got: Any) -> str:
        if not isinstance(got, str) or got.strip().upper() not in LETTERS[: len(options)] or len(got.strip()) != 1:
            return f"the answer should be one letter from A to {LETTERS[len(options) - 1]}, and is {shown(got)}"
        return wrong[options[LETTERS.index(got.strip().upper())]]

    told = tuple(wrong.values())
    return Question("choice", _listed(text, options), 'a letter, as "A"', letter, explain, why, misconceptions=told)


def several(
    text: str, rng: np.random.Generator, *, right: Mapping[str, str], wrong: Mapping[str, str], why: str
) -> Question:
    """Ask for all options that hold, in an order drawn by `rng`.

    Args:
        text: Markdown; the options are put below it.
        rng: orders the options.
        right: option → what is overlooked when it is missing.
        wrong: option → explanation of the misconception behind it.
        why: shown with a right answer.
    """
    options = [*right, *wrong]
    options = [options[i] for i in rng.permutation(len(options))]
    letters = {LETTERS[i] for i, option in enumerate(options) if option in right}

    def explain(got: Any) -> str:
        if not isinstance(got, str | list | tuple | set):
            return f'the answer should be letters, as "AC", and is {shown(got)}'
        chosen = {letter for item in got for letter in str(item).upper() if letter.isalpha()}
        for i, option in enumerate(options):
            if LETTERS[i] in chosen and option in wrong:
                return f"{LETTERS[i]}: {wrong[option]}"
        for i, option in enumerate(options):
            if LETTERS[i] not in chosen and option in right:
                return f"{LETTERS[i]}: {right[option]}"
        return f"the answer should use the letters A to {LETTERS[len(options) - 1]}, and is {shown(got)}"

    answer, told = "".join(sorted(letters)), (*wrong.values(), *right.values())
    return Question("several", _listed(text, options), 'letters, as "AC"', answer, explain, why, misconceptions=told)


def order(
    text: str,
    rng: np.random.Generator,
    *,
    steps: Sequence[str],
    because: Mapping[tuple[int, int], str],
    why: str,
) -> Question:
    """Ask for the order of steps.

    Args:
        text: Markdown; the shuffled steps are put below it.
        rng: shuffles.
        steps: in the right order.
        because: (i, j) with i < j → what is said to a learner who puts step j before step i.
        why: shown with a right answer.
    """
    while True:
        places = rng.permutation(len(steps))  # places[k] is the step under the k-th letter
        if list(places) != list(range(len(steps))):
            break
    letter_of = {int(step): LETTERS[k] for k, step in enumerate(places)}
    answer = "".join(letter_of[i] for i in range(len(steps)))

    def explain(got: Any) -> str:
        letters = _letters(got)
        if sorted(letters) != sorted(answer):
            return f'the answer should be the {len(steps)} letters in order, each once, as "{"".join(sorted(answer))}"'
        at = {step: letters.index(letter) for step, letter in letter_of.items()}
        for (first, second), says in because.items():
            if at[second] < at[first]:
                return says
        wrong = next(i for i in range(len(steps)) if letters[i] != answer[i])
        return f"the order is right up to place {wrong}; {letters[wrong]} does not come next"

    form = f'the letters in order, as "{"".join(sorted(answer))}"'
    told = tuple(because.values())
    return Question("order", _listed(text, [steps[i] for i in places]), form, answer, explain, why, misconceptions=told)


def match(
    text: str,
    rng: np.random.Generator,
    *,
    pairs: Mapping[str, str],
    wrong: Mapping[tuple[str, str], str],
    why: str,
    extra: Sequence[str] = (),
) -> Question:
    """Ask which option belongs to which item. Options may serve several items.

    Args:
        text: Markdown; items and options are put below it.
        rng: orders the options.
        pairs: item → its option.
        wrong: (item, option) → explanation of the misconception behind this pairing.
        why: shown with a right answer.
        extra: options that belong to no item.
    """
    options = list(dict.fromkeys([*pairs.values(), *extra]))
    options = [options[i] for i in rng.permutation(len(options))]
    items = list(pairs)
    answer = {i + 1: LETTERS[options.index(pairs[item])] for i, item in enumerate(items)}

    def explain(got: Any) -> str:
        if not isinstance(got, Mapping) or {str(key) for key in got} != {str(key) for key in answer}:
            return f"the answer should be a dictionary with the keys 1 to {len(items)}, and is {shown(got)}"
        chosen = {int(key): str(letter).strip().upper() for key, letter in got.items()}
        for i, item in enumerate(items, 1):
            if chosen[i] not in set(LETTERS[: len(options)]):
                return f"item {i} needs a letter from A to {LETTERS[len(options) - 1]}, and has {shown(got)}"
            says = wrong.get((item, options[LETTERS.index(chosen[i])]))
            if chosen[i] != answer[i] and says:
                return f"item {i}: {says}"
        off = next(i for i in answer if chosen[i] != answer[i])
        return f"item {off} does not belong to {chosen[off]}"

    lines = "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))
    form = "a dictionary, as {" + ", ".join(f'{i}: "A"' for i in answer) + "}"
    shown_text, told = _listed(f"{text}\n\n{lines}", options), tuple(wrong.values())
    return Question("match", shown_text, form, answer, explain, why, misconceptions=told)


def _listed(text: str, options: Sequence[str]) -> str:
    return text + "\n\n" + "\n".join(f"- **{LETTERS[i]}** {option}" for i, option in enumerate(options))


def _letters(got: Any) -> str:
    joined = "".join(map(str, got)) if isinstance(got, list | tuple) else str(got)
    return "".join(letter for letter in joined.upper() if letter.isalpha())


def is_right(question: Question, got: Any) -> bool:
    """Whether an answer, as plain data, is the right one."""
    if question.kind == "number":
        return _near(got, question.answer, question.relative)
    if question.kind == "numbers":
        return (
            isinstance(got, Mapping)
            and set(got) == set(question.answer)
            and all(_near(got[name], value, question.relative) for name, value in question.answer.items())
        )
    if question.kind == "match":
        if not isinstance(got, Mapping):
            return False
        given = {str(key): str(letter).strip().upper() for key, letter in got.items()}
        return given == {str(key): letter for key, letter in question.answer.items()}
    if not isinstance(got, str | list | tuple | set):
        return False
    letters = _letters(sorted(got, key=str) if isinstance(got, set) else got)
    if question.kind == "several":
        return set(letters) == set(question.answer)
    return letters == question.answer
