"""The functions to write of set 03 that draw: 80/10/10, spans of words."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmkit.grading.chance import fresh_seed
from mlmkit.grading.plain import Rng
from mlmkit.grading.sets.corruption_checks import verify_corruption, verify_spans
from mlmkit.grading.tasks import CodeTask, Inputs, Mistake
from mlmkit.masking import MaskingPolicy, corrupt, units

Array = np.ndarray[Any, Any]


# 03.11 80/10/10

MASK_ID = 4


def _draw_tokens(rng: np.random.Generator) -> Inputs:
    mask_id = int(rng.integers(1, 60))
    others = np.delete(np.arange(1, 60), mask_id - 1)
    ordinary = np.sort(rng.choice(others, size=30, replace=False))
    ids = rng.choice(ordinary, size=(10, 120))
    selected = rng.random(ids.shape) < 0.5
    ids[:, 0], selected[:, 0] = 0, False  # 0 is never ordinary
    return {"ids": ids, "selected": selected, "rng": fresh_seed(rng), "mask_id": mask_id, "ordinary_ids": ordinary}


def _fates(
    ids: Array, selected: Array, rng: np.random.Generator, mask_id: int, ordinary_ids: Array, fate: Array | float
) -> Array:
    replacement = rng.choice(ordinary_ids, size=ids.shape)
    changed = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, replacement, ids))
    return np.where(selected, changed, ids)


def _special_too(ids: Array, selected: Array, rng: np.random.Generator, mask_id: int, ordinary_ids: Array) -> Array:
    every = np.arange(max(int(ordinary_ids.max()), mask_id) + 1)
    return _fates(ids, selected, rng, mask_id, every, rng.random(ids.shape))


def _one_random(ids: Array, selected: Array, rng: np.random.Generator, mask_id: int, ordinary_ids: Array) -> Array:
    fate = rng.random(ids.shape)
    return _fates(ids, selected, rng, mask_id, rng.choice(ordinary_ids, size=1), fate)


def _tenth_of_rest(ids: Array, selected: Array, rng: np.random.Generator, mask_id: int, ordinary_ids: Array) -> Array:
    masked = rng.random(ids.shape) < 0.8
    changed = np.where(rng.random(ids.shape) < 0.1, rng.choice(ordinary_ids, size=ids.shape), ids)
    return np.where(selected, np.where(masked, mask_id, changed), ids)


def _other_token(ids: Array, selected: Array, rng: np.random.Generator, mask_id: int, ordinary_ids: Array) -> Array:
    place = np.searchsorted(ordinary_ids, ids)  # where the true token stands among the ordinary ones
    other = ordinary_ids[(place + rng.integers(1, max(2, len(ordinary_ids)), ids.shape)) % len(ordinary_ids)]
    fate = rng.random(ids.shape)
    return np.where(selected, np.where(fate < 0.8, mask_id, np.where(fate < 0.9, other, ids)), ids)


def _dealt(ids: Array, selected: Array, rng: np.random.Generator, mask_id: int, ordinary_ids: Array) -> Array:
    fate = np.zeros(ids.shape)
    count = int(selected.sum())
    fate[selected] = rng.permutation((np.arange(count) + 0.5) / max(count, 1))
    return _fates(ids, selected, rng, mask_id, ordinary_ids, fate)


_ONE = {"rng": Rng(5), "mask_id": MASK_ID, "ordinary_ids": np.arange(5, 12)}
_TWO = np.random.default_rng(6).integers(5, 7, (20, 200))

CORRUPT = CodeTask(
    id="03.11",
    title="Corrupt: 80/10/10",
    points=5,
    concepts=("C08", "C13"),
    function="corrupt_tokens",
    reference=lambda ids, selected, rng, mask_id, ordinary_ids: corrupt(
        ids, selected, MaskingPolicy(), rng, mask_id=mask_id, ordinary_ids=ordinary_ids
    ),
    draw=_draw_tokens,
    edges=(
        {"ids": np.array([[2, 7, 8, 3, 0]]), "selected": np.zeros((1, 5), dtype=bool), **_ONE},
        {"ids": np.array([[2, 7, 8, 3, 0]]), "selected": np.array([[False, True, True, False, False]]), **_ONE},
        {
            "ids": _TWO,
            "selected": np.ones(_TWO.shape, dtype=bool),
            "rng": Rng(7),
            "mask_id": MASK_ID,
            "ordinary_ids": np.array([5, 6]),
        },
    ),
    verify=verify_corruption,
    mistakes=(
        Mistake(
            "of all tokens",
            lambda ids, selected, rng, mask_id, ordinary_ids: _fates(
                ids, np.ones_like(selected), rng, mask_id, ordinary_ids, rng.random(ids.shape)
            ),
            "not selected were changed",
        ),
        Mistake("random from all ids", _special_too, "is no ordinary token"),
        Mistake(
            "one fate for a sequence",
            lambda ids, selected, rng, mask_id, ordinary_ids: _fates(
                ids, selected, rng, mask_id, ordinary_ids, rng.random((len(ids), 1))
            ),
            "tokens of one row share their fate",
        ),
        Mistake(
            "one fate for a column",
            lambda ids, selected, rng, mask_id, ordinary_ids: _fates(
                ids, selected, rng, mask_id, ordinary_ids, rng.random(ids.shape[1])
            ),
            "tokens below each other share their fate",
        ),
        Mistake("one random token", _one_random, "the same random token"),
        Mistake("a tenth of the rest", _tenth_of_rest, "80, 10 and 10 % were asked for"),
        Mistake(
            "[MASK] or kept",
            lambda ids, selected, rng, mask_id, ordinary_ids: np.where(
                selected & (rng.random(ids.shape) < 0.8), mask_id, ids
            ),
            "80, 10 and 10 % were asked for",
        ),
        Mistake(
            "all [MASK]",
            lambda ids, selected, rng, mask_id, ordinary_ids: np.where(selected, mask_id, ids),
            "80, 10 and 10 % were asked for",
        ),
        Mistake("random is another token", _other_token, "may be the true one"),
        Mistake("dealt out", _dealt, "exactly 80 %"),
    ),
    hints=(
        "Each position needs a fate of its own: one uniform number decides between [MASK], random and kept.",
        "Below 0.8: [MASK]. From 0.8 to 0.9: a draw from `ordinary_ids`. Above: the token itself. And all of it only "
        "where `selected` is true.",
        "`fate = rng.random(ids.shape)`, `replacement = rng.choice(ordinary_ids, size=ids.shape)`, then `np.where` "
        "inside `np.where`, and a third one with `selected`.",
    ),
)


# 03.12 Spans of words


def _spans(begins_word: Array, q: float, longest: int, rng: np.random.Generator) -> Array:
    policy = MaskingPolicy(unit="span", span_p=q, span_max=longest)
    return units(np.ones((1, len(begins_word)), dtype=bool), policy, rng, begins_word[None])[0]


def _draw_spans(rng: np.random.Generator) -> Inputs:
    begins = rng.random(400) < 0.7
    begins[0] = True
    q = float(rng.choice([0.15, 0.2, 0.3]))
    return {"begins_word": begins, "q": q, "longest": int(rng.integers(3, 11)), "rng": fresh_seed(rng)}


def _inside_words(begins_word: Array, q: float, longest: int, rng: np.random.Generator) -> Array:
    return _spans(np.ones_like(begins_word), q, longest, rng)


def _fixed_length(begins_word: Array, q: float, longest: int, rng: np.random.Generator) -> Array:
    return (np.cumsum(begins_word) - 1) // min(round(1 / q), longest)


def _uniform_lengths(begins_word: Array, q: float, longest: int, rng: np.random.Generator) -> Array:
    words = int(begins_word.sum())
    lengths = rng.integers(1, longest + 1, words) if q < 1 else np.ones(words, dtype=int)
    return np.repeat(np.arange(words), lengths)[:words][np.cumsum(begins_word) - 1]


_WORDS = np.array([True, False, True, True, False, False, True])

SPANS = CodeTask(
    id="03.12",
    title="Cut words into spans",
    points=5,
    concepts=("C16",),
    function="span_numbers",
    reference=_spans,
    draw=_draw_spans,
    edges=(
        {"begins_word": np.array([True]), "q": 0.2, "longest": 10, "rng": Rng(1)},
        {"begins_word": np.array([True, False, False]), "q": 0.2, "longest": 10, "rng": Rng(2)},
        {"begins_word": _WORDS, "q": 1.0, "longest": 10, "rng": Rng(3)},
        {"begins_word": _WORDS, "q": 0.2, "longest": 1, "rng": Rng(4)},
    ),
    verify=verify_spans,
    mistakes=(
        Mistake(
            "each word a span",
            lambda begins_word, q, longest, rng: np.cumsum(begins_word) - 1,
            "every span has one word",
        ),
        Mistake(
            "each token a span",
            lambda begins_word, q, longest, rng: np.arange(len(begins_word)),
            "a span was cut inside a word",
        ),
        Mistake("cuts inside words", _inside_words, "a span was cut inside a word"),
        Mistake(
            "no longest",
            lambda begins_word, q, longest, rng: _spans(begins_word, q, 10_000, rng),
            "words, and the longest allowed",
        ),
        Mistake(
            "goes on with probability q",
            lambda begins_word, q, longest, rng: _spans(begins_word, 1 - q or 1.0, longest, rng),
            "of the words that could end a span",
        ),
        Mistake("all of one length", _fixed_length, "of the words that could end a span"),
        Mistake("lengths all alike", _uniform_lengths, "of the words that could end a span"),
    ),
    hints=(
        "Go from word to word and ask: does a new span begin here? Pieces that continue a word never ask.",
        "A new span begins at a word when the running one has `longest` words already, or when a uniform number is "
        "below `q`. Count the words of the running span.",
        "In a loop over `begins_word[1:]`: `if begins and (words == longest or rng.random() < q)` starts span number + "
        "1 with one word; `elif begins` adds a word.",
    ),
)
