"""Coding tasks on sequence models: the chain rule, and attention patterns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlmkit.grading.tasks import CodeTask, Mistake

Array = np.ndarray[Any, Any]
Factors = tuple[list[float], float]


# 01.4 The chain rule

WORDS = (
    ("the", "a"),
    ("early", "late", "hungry"),
    ("bird", "cat"),
    ("catches", "sees"),
    ("the", "a"),
    ("worm", "bird", "bus"),
)
"""Words that may stand at each place. Some stand at two places, so that looking at the last word alone goes wrong."""


def _draw_language(rng: np.random.Generator) -> dict[str, Any]:
    length = int(rng.integers(3, 7))
    different = [" ".join(str(rng.choice(place)) for place in WORDS[-length:]) for _ in range(int(rng.integers(3, 6)))]
    language = [sentence for sentence in different for _ in range(int(rng.integers(1, 5)))]
    sentence = str(rng.choice(different))
    if rng.random() < 0.35:
        sentence = " ".join(str(rng.choice(place)) for place in WORDS[-length:])
    return {"sentence": sentence, "language": [str(one) for one in rng.permutation(language)]}


def _chain(sentence: str, language: Sequence[str], fits: Callable[[list[str], list[str], int], bool]) -> Factors:
    """Factors and their sum of logs; `fits` says which sentences stand behind the bar at position i."""
    words, total = sentence.split(), 0.0
    factors: list[float] = []
    for i, word in enumerate(words):
        context = [one for one in map(str.split, language) if fits(one, words, i)]
        found = sum(one[i] == word for one in context)
        factors.append(found / len(context) if found else 0.0)
        if not found:
            return factors, -math.inf
        total += math.log(factors[-1])
    return factors, total


def chain_rule(sentence: str, language: Sequence[str]) -> Factors:
    """The factors Pr(x_i | x_0 … x_{i−1}) by counting, and the sum of their logs."""
    return _chain(sentence, language, lambda one, words, i: one[:i] == words[:i])


def _as_text(sentence: str, language: Sequence[str]) -> Factors:
    def fits(one: list[str], words: list[str], i: int) -> bool:
        return " ".join(one).startswith(" ".join(words[:i]))

    return _chain(sentence, language, fits)


def _with_own(sentence: str, language: Sequence[str]) -> Factors:
    return _chain(sentence, language, lambda one, words, i: one[: i + 1] == words[: i + 1])


def _with_later(sentence: str, language: Sequence[str]) -> Factors:
    return _chain(sentence, language, lambda one, words, i: one[:i] + one[i + 1 :] == words[:i] + words[i + 1 :])


def _last_word(sentence: str, language: Sequence[str]) -> Factors:
    return _chain(sentence, language, lambda one, words, i: i == 0 or one[i - 1] == words[i - 1])


def _nothing(sentence: str, language: Sequence[str]) -> Factors:
    return _chain(sentence, language, lambda one, words, i: True)


def _product(sentence: str, language: Sequence[str]) -> Factors:
    factors, _ = chain_rule(sentence, language)
    return factors, math.prod(factors)


def _bits(sentence: str, language: Sequence[str]) -> Factors:
    factors, total = chain_rule(sentence, language)
    return factors, total / math.log(2)


BIRDS = [
    *["the early bird catches the worm"] * 5,
    "the early bird catches the bus",
    *["the late bird catches the bus"] * 3,
    "the hungry bird catches the worm",
]

CHAIN = CodeTask(
    id="01.4",
    title="A sentence from left to right",
    points=5,
    concepts=("C04",),
    function="chain_rule",
    reference=chain_rule,
    draw=_draw_language,
    edges=(
        {"sentence": "the early bird catches the worm", "language": BIRDS},
        {"sentence": "the hungry bird catches the bus", "language": BIRDS},
        {"sentence": "my late bird catches the bus", "language": BIRDS},
        {"sentence": "the late cat catches the bus", "language": BIRDS},
        {"sentence": "the cat runs", "language": ["the cats sleep", "the cat runs", "the cat runs", "the cats run"]},
        {"sentence": "yes", "language": ["yes", "no", "yes"]},
    ),
    rounds=16,
    mistakes=(
        Mistake(
            "conditioned on itself",
            _with_own,
            "the word itself stands behind the bar: among the sentences that have it at position i, all have it, so "
            "the factor is 1 and the loss 0. Position i may be given positions 0 to i − 1 only: words[:i]",
        ),
        Mistake(
            "conditioned on later words",
            _with_later,
            "later words stand behind the bar: this is what a masked model sees. The chain rule gives each word only "
            "what stands before it, and only then do the factors multiply to the probability of the sentence",
        ),
        Mistake(
            "only the last word",
            _last_word,
            "each factor looks at the word just before and forgets the rest: the chain rule conditions on all of "
            "x₀ … x_{i−1}",
        ),
        Mistake(
            "no condition at all",
            _nothing,
            "each factor is the share of a word among all sentences: nothing stands behind the bar. Count only in the "
            "sentences that begin as this one does",
        ),
        Mistake(
            "prefixes of letters",
            _as_text,
            "the beginnings are compared letter by letter, so “the cats” begins like “the cat”: compare lists of words",
        ),
        Mistake(
            "product", _product, "the second result is the product of the factors: the sum of their logs was asked"
        ),
        Mistake("bits", _bits, "the logarithm has base 2: in this course log is the natural one, and the unit is nats"),
    ),
    hints=(
        "Split everything into words first. For position i, which sentences of the language begin with the i words "
        "that stand before it?",
        "The factor is a share: among the sentences that begin with `words[:i]`, those that have `words[i]` at "
        "position i. When it is 0, stop: nothing could stand behind the next bar.",
        "`fits = [s for s in split if s[:i] == words[:i]]`, then `p = sum(s[i] == words[i] for s in fits) / "
        "len(fits)`; collect p, add `math.log(p)`.",
    ),
)


# 01.6 Attention patterns

KINDS = ("causal", "bidirectional", "prefix")


def _draw_pattern(rng: np.random.Generator) -> dict[str, Any]:
    n = int(rng.integers(2, 9))
    return {"kind": str(rng.choice(KINDS)), "n": n, "prefix": int(rng.integers(1, n + 1))}


def attention_pattern(kind: str, n: int, prefix: int = 0) -> Array:
    """True where position i (row) may look at position j (column)."""
    left = np.tril(np.ones((n, n), dtype=bool))
    if kind == "prefix":
        return np.asarray(left | (np.arange(n) < prefix))
    return left if kind == "causal" else np.ones((n, n), dtype=bool)


def _strictly_left(kind: str, n: int, prefix: int) -> Array:
    pattern = attention_pattern(kind, n, prefix)
    return pattern if kind == "bidirectional" else pattern & ~np.eye(n, dtype=bool)


def _hides_itself(kind: str, n: int, prefix: int) -> Array:
    pattern = attention_pattern(kind, n, prefix)
    return pattern & ~np.eye(n, dtype=bool) if kind == "bidirectional" else pattern


def _prefix_sees_all(kind: str, n: int, prefix: int) -> Array:
    pattern = attention_pattern(kind, n, prefix)
    if kind == "prefix":
        pattern[:prefix] = True
    return pattern


def _two_blocks(kind: str, n: int, prefix: int) -> Array:
    pattern = attention_pattern(kind, n, prefix)
    if kind == "prefix":
        pattern[prefix:, :prefix] = False
    return pattern


PATTERN = CodeTask(
    id="01.6",
    title="Who may look where",
    points=4,
    concepts=("C06",),
    function="attention_pattern",
    reference=attention_pattern,
    draw=_draw_pattern,
    edges=(
        *({"kind": kind, "n": 5, "prefix": 2} for kind in KINDS),
        *({"kind": kind, "n": 1, "prefix": 1} for kind in KINDS),
        {"kind": "prefix", "n": 4, "prefix": 0},
        {"kind": "prefix", "n": 4, "prefix": 4},
        {"kind": "causal", "n": 6, "prefix": 4},
    ),
    mistakes=(
        Mistake(
            "rows and columns swapped",
            lambda kind, n, prefix: attention_pattern(kind, n, prefix).T,
            "rows and columns are swapped: row i says where position i looks, so the causal pattern fills the diagonal "
            "and what is left of it",
        ),
        Mistake(
            "not at itself",
            _strictly_left,
            "the diagonal is empty: a position may look at itself. This gives nothing away, since h_i of a causal "
            "model speaks about the next word, x_{i+1}",
        ),
        Mistake(
            "hidden by the pattern",
            _hides_itself,
            "your bidirectional pattern forbids each position to look at itself: a masked model needs no such rule. "
            "The word is hidden in the input, as [MASK], and the pattern is true everywhere",
        ),
        Mistake(
            "the prefix looks ahead",
            _prefix_sees_all,
            "the positions of your prefix look at everything, also at what is written later: they may look at the "
            "prefix only",
        ),
        Mistake(
            "the rest cannot read the prefix",
            _two_blocks,
            "positions behind the prefix do not see it: they look at everything to their left, and the prefix stands "
            "to the left",
        ),
        Mistake(
            "prefix as causal",
            lambda kind, n, prefix: attention_pattern("causal" if kind == "prefix" else kind, n),
            "inside the prefix your pattern looks only to the left: there, both sides may be read",
        ),
    ),
    hints=(
        "Draw the three tables for n = 4 on paper. Row i is the position that looks, column j what it looks at.",
        "Causal is j ≤ i. Prefix is the same, and besides everyone may look at j < prefix.",
        "`i = np.arange(n)[:, None]` and `j = np.arange(n)` make tables when compared, as in `j <= i`; join two of "
        "them with `|`.",
    ),
)
