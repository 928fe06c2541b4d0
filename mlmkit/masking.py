"""Masking: choose the set of positions A(x), and build the corrupted sequence x̄ (Devlin et al. 2019 §3.1).

Three steps, each a function of plain arrays. `units` cuts a sequence into the pieces that are masked together
(tokens, whole words, spans of words), `select` chooses pieces, `corrupt` replaces what stands at the chosen
positions. Everything is vectorised: there is no Python loop over tokens.

Shapes: B batch, S sequence, U units in a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError

IGNORE = -100
"""Label of a position at which no loss is taken (the default `ignore_index` of PyTorch's cross-entropy)."""

Unit = Literal["token", "word", "span"]
Count = Literal["fixed", "binomial"]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class MaskingPolicy:
    """How much is selected, in which units, and what is put in its place.

    Args:
        rate: share of the real tokens that are selected, in [0, 1]; BERT uses 0.15.
        mask: probability that a selected token becomes [MASK]; BERT uses 0.8.
        random: probability that it becomes a random ordinary token; BERT uses 0.1.
        keep: probability that it stays as it is; BERT uses 0.1. The three sum to 1.
        unit: what is selected as a whole: a "token", a whole "word", or a "span" of words.
        span_p: parameter of the geometric distribution of span lengths, in words (SpanBERT: 0.2).
        span_max: longest span, in words (SpanBERT: 10).
        count: how many units of a sequence are selected: "fixed" is `rate` of them, rounded at random, as nearly as
            BERT's script does it; "binomial" selects each unit by itself with probability `rate`.

    Raises:
        UserError: a value is outside its range, or the three shares do not sum to 1.
    """

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    keep: float = 0.1
    unit: Unit = "token"
    span_p: float = 0.2
    span_max: int = 10
    count: Count = "fixed"

    def __post_init__(self) -> None:
        for name in ("rate", "mask", "random", "keep"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise UserError(f"masking.{name} must be between 0 and 1, got {value}")
        total = self.mask + self.random + self.keep
        if abs(total - 1.0) > 1e-9:
            raise UserError(
                f"mask + random + keep must be 1, got {self.mask} + {self.random} + {self.keep} = {total:.6g}"
            )
        if self.unit not in get_args(Unit):
            raise UserError(f"masking.unit must be one of {', '.join(get_args(Unit))}, got {self.unit!r}")
        if self.count not in get_args(Count):
            raise UserError(f"masking.count must be one of {', '.join(get_args(Count))}, got {self.count!r}")
        if not 0.0 < self.span_p <= 1.0:
            raise UserError(f"masking.span_p must be in (0, 1], got {self.span_p}")
        if self.span_max < 1:
            raise UserError(f"masking.span_max must be at least 1, got {self.span_max}")


def candidates(input_ids: IntArray, special_ids: IntArray) -> BoolArray:
    """Mark the real tokens: positions that hold neither a special token nor padding.

    Args:
        input_ids: token ids (B, S).
        special_ids: ids that may never be selected: [PAD] [UNK] [CLS] [SEP] [MASK].

    Returns:
        Boolean array (B, S).

    >>> candidates(np.array([[2, 7, 8, 3, 0]]), np.arange(5)).tolist()
    [[False, True, True, False, False]]
    """
    return np.isin(input_ids, special_ids, invert=True)


def units(
    candidates: BoolArray,
    policy: MaskingPolicy,
    rng: np.random.Generator,
    starts_word: BoolArray | None = None,
) -> NDArray[np.int64]:
    """Number the units of each sequence from 0: the pieces that are selected as a whole.

    A unit never reaches across a position that is no candidate, so it never contains [CLS] or [SEP]. For spans,
    the words of each stretch are cut at random so that the lengths (in words) are geometric with parameter
    `span_p`, cut off at `span_max` (SpanBERT, Joshi et al. 2020 §3.1, draws from the same law but renormalizes
    it instead of cutting it off, and places spans one by one instead of partitioning the sequence).

    Args:
        candidates: real tokens (B, S).
        policy: gives the unit.
        rng: only spans draw from it.
        starts_word: true where a piece begins a word (B, S); needed for words and spans.

    Returns:
        Unit of each position (B, S), −1 where it is no candidate.

    Raises:
        UserError: words or spans are asked for without `starts_word`.
    """
    if policy.unit == "token":
        starts = candidates
    else:
        if starts_word is None:
            raise UserError(
                f'masking.unit="{policy.unit}" needs `starts_word`: which positions begin a word. '
                "Pass ~tokenizer.is_continuation[input_ids]"
            )
        after_gap = np.ones_like(candidates)
        after_gap[:, 1:] = ~candidates[:, :-1]
        starts = candidates & (starts_word | after_gap)
        if policy.unit == "span":
            starts = _cut_into_spans(starts, candidates & after_gap, policy, rng)
    numbers = np.cumsum(starts, axis=1, dtype=np.int64) - 1  # (B, S)
    return np.where(candidates, numbers, -1)


def _cut_into_spans(
    word_starts: BoolArray, stretch_starts: BoolArray, policy: MaskingPolicy, rng: np.random.Generator
) -> BoolArray:
    """Keep those word starts at which a span begins (B, S)."""
    word = np.cumsum(word_starts, axis=1)  # (B, S) number of the word, from 1
    begins = word_starts & (stretch_starts | (rng.random(word_starts.shape) < policy.span_p))
    begun_at = np.maximum.accumulate(np.where(begins, word, 0), axis=1)  # (B, S) first word of the running span
    return word_starts & ((word - begun_at) % policy.span_max == 0)


def select(
    candidates: BoolArray,
    policy: MaskingPolicy,
    rng: np.random.Generator,
    starts_word: BoolArray | None = None,
    unit_of: IntArray | None = None,
) -> BoolArray:
    """Choose A(x), the positions that are predicted.

    Of the U units of a sequence, k = ⌊rate·U + u⌋ are chosen, with u uniform in [0, 1) and every set of k
    units equally likely. So E[k] = rate·U exactly: the rounding is unbiased, each unit, and hence each real
    token, is selected with probability exactly `rate`. (BERT's script rounds to the nearest number and takes
    at least one.) A short sequence may come out with nothing selected. With `policy.count = "binomial"` each unit
    is selected by itself: k varies more, and no selected position tells anything about another.

    Args:
        candidates: real tokens (B, S); only these can be chosen.
        policy: rate and unit.
        rng: source of the choice.
        starts_word: as in `units`.
        unit_of: the result of `units`, where the caller has it already.

    Returns:
        Boolean array (B, S), a subset of `candidates`.

    >>> x = np.ones((1, 200), dtype=bool)
    >>> int(select(x, MaskingPolicy(), np.random.default_rng(0)).sum())
    30
    """
    if unit_of is None:
        unit_of = units(candidates, policy, rng, starts_word)
    if unit_of.size == 0:
        return np.zeros_like(candidates)
    count = unit_of.max(axis=1) + 1  # (B,) units in each sequence
    if policy.count == "binomial":
        take = rng.random((len(count), max(int(count.max()), 1))) < policy.rate  # (B, U)
    else:
        chosen = np.floor(policy.rate * count + rng.random(len(count))).astype(np.int64)  # (B,)
        keys = rng.random((len(count), max(int(count.max()), 1)))  # (B, U) a random order of the units
        keys[np.arange(keys.shape[1]) >= count[:, None]] = np.inf
        rank = keys.argsort(axis=1).argsort(axis=1)  # (B, U)
        take = rank < chosen[:, None]  # (B, U)
    return candidates & np.take_along_axis(take, np.maximum(unit_of, 0), axis=1)


def corrupt(
    input_ids: IntArray,
    selected: BoolArray,
    policy: MaskingPolicy,
    rng: np.random.Generator,
    *,
    mask_id: int,
    ordinary_ids: IntArray,
    unit_of: IntArray | None = None,
) -> IntArray:
    """Build x̄: replace each selected token by [MASK], by a random token, or by itself (80/10/10 in BERT).

    Outside the selection x̄ equals x. A random replacement is drawn uniformly from `ordinary_ids`, so it is never
    a special token; it may be the true token, with probability 1/len(ordinary_ids).

    Args:
        input_ids: true token ids x (B, S).
        selected: A(x) (B, S).
        policy: shares of [MASK], random and kept.
        rng: source of the draws.
        mask_id: id of [MASK].
        ordinary_ids: ids a random replacement may take.
        unit_of: if given (B, S), the positions of a unit share one fate, as in SpanBERT; without it each
            token has its own, as in BERT's whole-word masking.

    Returns:
        x̄ (B, S), a new array.
    """
    fate = rng.random(input_ids.shape)  # (B, S)
    if unit_of is not None:
        fate = np.take_along_axis(fate, np.maximum(unit_of, 0), axis=1)
    replacement = rng.choice(ordinary_ids, size=input_ids.shape)  # (B, S)
    to_mask = selected & (fate < policy.mask)
    to_random = selected & (fate >= policy.mask) & (fate < policy.mask + policy.random)
    return np.where(to_mask, mask_id, np.where(to_random, replacement, input_ids)).astype(input_ids.dtype)


def mlm_labels(input_ids: IntArray, selected: BoolArray) -> NDArray[np.int64]:
    """Give the true id at the selected positions and `IGNORE` (−100) elsewhere.

    Take it from x, not from x̄: labels read after the corruption would ask the model to predict [MASK].

    >>> mlm_labels(np.array([[2, 7, 8, 3]]), np.array([[False, True, False, False]])).tolist()
    [[-100, 7, -100, -100]]
    """
    return np.where(selected, input_ids, IGNORE).astype(np.int64)


def mask(
    input_ids: IntArray,
    policy: MaskingPolicy,
    rng: np.random.Generator,
    *,
    special_ids: IntArray,
    begins_word: BoolArray,
    mask_id: int,
    ordinary_ids: IntArray,
) -> tuple[IntArray, BoolArray]:
    """Choose A(x) among the ordinary tokens and build x̄: `candidates`, `units`, `select` and `corrupt` in a row.

    Args:
        input_ids: x (B, S).
        policy: how to mask.
        rng: source of all draws.
        special_ids: ids that are never selected.
        begins_word: whether a position begins a word (B, S).
        mask_id: id of [MASK].
        ordinary_ids: ids that a random replacement may be.

    Returns:
        x̄ and A(x), each (B, S).
    """
    maskable = candidates(input_ids, special_ids)
    unit_of = units(maskable, policy, rng, begins_word)
    selected = select(maskable, policy, rng, unit_of=unit_of)
    shared = unit_of if policy.unit == "span" else None  # the tokens of a span share their fate
    corrupted = corrupt(input_ids, selected, policy, rng, mask_id=mask_id, ordinary_ids=ordinary_ids, unit_of=shared)
    return corrupted, selected
