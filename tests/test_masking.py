"""Masking: which positions are chosen, what is put there, and what is left alone."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from helpers import within_binomial_bounds
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from mlmkit.errors import UserError
from mlmkit.masking import IGNORE, MaskingPolicy, candidates, corrupt, mlm_labels, select, units

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = np.arange(5)
ORDINARY = np.arange(5, 15)
"""Only ten: one random replacement in ten is the true token, and a test that forgets it fails."""

UNITS = ("token", "word", "span")
ROWS, LENGTH = 2000, 500  # a million tokens


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def text(rows: int = ROWS, length: int = LENGTH, seed: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """`[CLS] A [SEP] B [SEP] [PAD] …` with ordinary tokens, and where a word begins (two pieces in three do)."""
    rng = generator(seed)
    ids = rng.choice(ORDINARY, (rows, length))
    ids[:, 0], ids[:, length // 3], ids[:, -4], ids[:, -3:] = CLS, SEP, SEP, PAD
    return ids, rng.random(ids.shape) < 2 / 3


# --- how many are selected -----------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_each_real_token_is_selected_with_probability_exactly_the_rate(unit: str, rate: float) -> None:
    """Sequences are independent, so how often a *position* is selected in B of them is binomial (B, rate)."""
    ids, starts = text()
    real = candidates(ids, SPECIAL)
    selected = select(real, MaskingPolicy(rate=rate, unit=unit), generator(), starts)  # type: ignore[arg-type]
    counts = selected.sum(axis=0)
    for position in np.flatnonzero(real[0]).tolist():
        assert within_binomial_bounds(counts[position], ROWS, rate), position


def test_15_percent_of_a_million_tokens_are_selected_within_binomial_bounds() -> None:
    """The count of each sequence is rounded from its mean, so the total varies less than a binomial would."""
    ids, _ = text()
    real = candidates(ids, SPECIAL)
    selected = select(real, MaskingPolicy(), generator())
    assert within_binomial_bounds(selected.sum(), real.sum(), 0.15)


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_of_every_length_are_selected_at_the_same_rate(unit: str) -> None:
    """A rule that stops at a budget of tokens would take long words less often than short ones."""
    ids, starts = text()
    real = candidates(ids, SPECIAL)
    words = units(real, MaskingPolicy(unit="word"), generator(), starts)
    selected = select(real, MaskingPolicy(unit=unit), generator(), starts)  # type: ignore[arg-type]
    key = np.where(real, np.arange(ROWS)[:, None] * LENGTH + words, -1)[real]
    _, first, length = np.unique(key, return_index=True, return_counts=True)
    taken = selected[real][first]
    # Words of one span are taken together: at most 10 words count as one trial, hence the wider rate bound there.
    trials = 10 if unit == "span" else 1
    for pieces in range(1, 6):
        of_this_length = length == pieces
        n = int(of_this_length.sum()) // trials
        assert n > 200
        assert within_binomial_bounds(round(taken[of_this_length].mean() * n), n, 0.15), pieces


def test_the_number_of_units_is_rounded_up_with_the_probability_of_its_fraction() -> None:
    """15 % of 494 real tokens are 74.1: 74 are selected in nine sequences of ten, and 75 in one."""
    ids, _ = text()
    real = candidates(ids, SPECIAL)
    assert real[0].sum() == 494
    counts = select(real, MaskingPolicy(), generator()).sum(axis=1)
    assert set(counts) == {74, 75}
    assert within_binomial_bounds((counts == 75).sum(), ROWS, 0.1)


def test_a_short_sequence_may_come_out_with_nothing_selected() -> None:
    """Three tokens at 15 %: one of them in 45 cases of 100. "At least one" would mean a rate of 33 %."""
    counts = select(np.ones((100_000, 3), dtype=bool), MaskingPolicy(), generator()).sum(axis=1)
    assert set(counts) == {0, 1}
    assert within_binomial_bounds(counts.sum(), 100_000, 0.45)


def test_every_set_of_positions_is_equally_likely() -> None:
    selected = select(np.ones((50_000, 5), dtype=bool), MaskingPolicy(rate=0.4), generator())  # always 2 of 5
    for i, j in combinations(range(5), 2):
        both = (selected[:, i] & selected[:, j]).sum()
        assert within_binomial_bounds(both, 50_000, 1 / 10), (i, j)


@pytest.mark.parametrize("unit", UNITS)
def test_rate_0_selects_nothing_and_rate_1_selects_every_real_token(unit: str) -> None:
    ids, starts = text(20, 60)
    real = candidates(ids, SPECIAL)
    for rate, expected in ((0.0, np.zeros_like(real)), (1.0, real)):
        policy = MaskingPolicy(rate=rate, unit=unit)  # type: ignore[arg-type]
        np.testing.assert_array_equal(select(real, policy, generator(), starts), expected)


# --- what is put in their place ------------------------------------------------------------------------------


def corrupted(policy: MaskingPolicy, unit_of: NDArray[Any] | None = None) -> tuple[NDArray[Any], ...]:
    ids, _ = text()
    selected = select(candidates(ids, SPECIAL), MaskingPolicy(rate=0.5), generator(2))
    found = corrupt(ids, selected, policy, generator(3), mask_id=MASK, ordinary_ids=ORDINARY, unit_of=unit_of)
    return ids, selected, found


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.3, 0.2), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
def test_80_percent_become_mask_10_percent_random_and_10_percent_stay(shares: tuple[float, float, float]) -> None:
    """A random token is the true one in one case of ten here, and then nobody can tell it from a kept one."""
    mask, random, keep = shares
    ids, selected, found = corrupted(MaskingPolicy(mask=mask, random=random, keep=keep))
    n, same = int(selected.sum()), 1 / len(ORDINARY)
    assert within_binomial_bounds((found[selected] == MASK).sum(), n, mask)
    assert within_binomial_bounds((found[selected] == ids[selected]).sum(), n, keep + random * same)
    changed = (found[selected] != MASK) & (found[selected] != ids[selected])
    assert within_binomial_bounds(changed.sum(), n, random * (1 - same))


def test_a_random_replacement_is_any_ordinary_token_with_equal_probability_and_never_a_special_one() -> None:
    ids, selected, found = corrupted(MaskingPolicy(mask=0.0, random=1.0, keep=0.0))
    n = int(selected.sum())
    for token in ORDINARY:
        assert within_binomial_bounds((found[selected] == token).sum(), n, 1 / len(ORDINARY)), token
    assert not np.isin(found[selected], SPECIAL).any()
    assert within_binomial_bounds((found[selected] == ids[selected]).sum(), n, 1 / len(ORDINARY))


def test_outside_the_selection_nothing_is_touched_and_the_true_ids_stay_as_they_were() -> None:
    ids, _ = text()
    before = ids.copy()
    _, selected, found = corrupted(MaskingPolicy())
    np.testing.assert_array_equal(found[~selected], ids[~selected])
    np.testing.assert_array_equal(ids, before)
    assert found is not ids
    assert found.dtype == ids.dtype


def test_labels_are_the_true_tokens_at_the_selected_positions_and_minus_100_elsewhere() -> None:
    ids, selected, _ = corrupted(MaskingPolicy())
    labels = mlm_labels(ids, selected)
    np.testing.assert_array_equal(labels[selected], ids[selected])
    assert (labels[~selected] == IGNORE).all()
    assert IGNORE == -100
    assert labels.dtype == np.int64


def test_in_whole_word_masking_each_piece_has_its_own_fate_and_in_a_span_all_share_one() -> None:
    """Two pieces of a word are both [MASK] with probability 0.8² if each draws for itself, 0.8 if they share."""
    rows = 100_000
    ids = np.full((rows, 2), 7)
    everything = np.ones((rows, 2), dtype=bool)
    unit_of = np.zeros((rows, 2), dtype=np.int64)
    for given_units, expected in ((None, 0.64), (unit_of, 0.8)):
        found = corrupt(
            ids,
            everything,
            MaskingPolicy(),
            generator(),
            mask_id=MASK,
            ordinary_ids=ORDINARY,
            unit_of=given_units,
        )
        assert within_binomial_bounds((found == MASK).all(axis=1).sum(), rows, expected)
        mixed = (found == MASK).any(axis=1) & (found != MASK).any(axis=1)
        assert mixed.any() == (given_units is None)


def test_two_spans_of_a_sequence_have_independent_fates() -> None:
    rows = 100_000
    found = corrupt(
        np.full((rows, 4), 7),
        np.ones((rows, 4), dtype=bool),
        MaskingPolicy(),
        generator(),
        mask_id=MASK,
        ordinary_ids=ORDINARY,
        unit_of=np.tile([0, 0, 1, 1], (rows, 1)),
    )
    assert within_binomial_bounds((found == MASK).all(axis=1).sum(), rows, 0.64)


# --- units: tokens, words, spans -----------------------------------------------------------------------------


def test_special_tokens_and_padding_are_never_candidates() -> None:
    found = candidates(np.array([[CLS, 7, UNK, 8, SEP, MASK, 9, SEP, PAD]]), SPECIAL)
    assert found.tolist() == [[False, True, False, True, False, False, True, False, False]]


def test_a_word_is_numbered_as_one_unit_and_a_gap_ends_it() -> None:
    """`[CLS] play ##ing chess [SEP] ##ly well [SEP]`: trimming may have cut a word in half, "##ly" stands alone."""
    real = np.array([[0, 1, 1, 1, 0, 1, 1, 0]], dtype=bool)
    starts = np.array([[1, 1, 0, 1, 1, 0, 1, 1]], dtype=bool)
    assert units(real, MaskingPolicy(unit="word"), generator(), starts).tolist() == [[-1, 0, 0, 1, -1, 2, 3, -1]]
    assert units(real, MaskingPolicy(), generator()).tolist() == [[-1, 0, 1, 2, -1, 3, 4, -1]]


@pytest.mark.parametrize(("p", "longest"), [(0.2, 10), (0.5, 3), (1.0, 10), (0.2, 1)])
def test_span_lengths_are_geometric_and_cut_off_at_the_longest(p: float, longest: int) -> None:
    """Pr(length = n) = p (1−p)ⁿ⁻¹ below the longest, and all the rest at the longest: in words, not in pieces.

    The first three spans of a stretch of 40 words are looked at: they cannot be cut short by its end.
    """
    rows = 20_000
    real = np.ones((rows, 80), dtype=bool)
    starts = np.tile([True, False], (rows, 40))  # words of two pieces
    unit_of = units(real, MaskingPolicy(unit="span", span_p=p, span_max=longest), generator(), starts)
    for number in range(3):
        pieces = (unit_of == number).sum(axis=1)
        assert (pieces % 2 == 0).all()
        for words in range(1, longest + 1):
            expected = p * (1 - p) ** (words - 1) if words < longest else (1 - p) ** (longest - 1)
            assert within_binomial_bounds((pieces == 2 * words).sum(), rows, expected), (number, words)


def test_a_span_never_reaches_across_a_separator() -> None:
    """With p tiny and no limit a span covers all it can: sentence A as a whole, sentence B as a whole."""
    real = np.array([[0, 1, 1, 1, 0, 1, 1, 0, 0]], dtype=bool)
    policy = MaskingPolicy(unit="span", span_p=1e-12, span_max=100)
    found = units(real, policy, generator(), np.ones_like(real))
    assert found.tolist() == [[-1, 0, 0, 0, -1, 1, 1, -1, -1]]


def test_words_and_spans_need_to_know_where_words_begin() -> None:
    for unit in ("word", "span"):
        with pytest.raises(UserError, match="which positions begin a word"):
            units(np.ones((1, 3), dtype=bool), MaskingPolicy(unit=unit), generator())  # type: ignore[arg-type]


# --- laws that hold for every input --------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    """Any batch, also without rows, without columns, without a single real token; any policy."""
    shape = draw(st.integers(0, 4)), draw(st.integers(0, 25))
    rng = generator(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    ids = np.where(rng.random(shape) < share, rng.choice(ORDINARY, shape), rng.choice(SPECIAL, shape))
    policy = MaskingPolicy(
        rate=draw(st.floats(0, 1)),
        unit=draw(st.sampled_from(UNITS)),
        span_p=draw(st.floats(0.01, 1)),
        span_max=draw(st.integers(1, 12)),
    )
    starts = rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return {"ids": ids, "starts": starts, "policy": policy, "seed": draw(st.integers(0, 2**32))}


def run(ids: NDArray[Any], starts: NDArray[Any], policy: MaskingPolicy, seed: int) -> tuple[NDArray[Any], ...]:
    rng = generator(seed)
    real = candidates(ids, SPECIAL)
    unit_of = units(real, policy, rng, starts)
    selected = select(real, policy, rng, unit_of=unit_of)
    shared = unit_of if policy.unit == "span" else None
    found = corrupt(ids, selected, policy, rng, mask_id=MASK, ordinary_ids=ORDINARY, unit_of=shared)
    return real, unit_of, selected, found, mlm_labels(ids, selected)


@settings(max_examples=300, deadline=None)
@given(situations())
def test_whatever_the_input_the_laws_of_masking_hold(situation: dict[str, Any]) -> None:
    ids, starts, policy = situation["ids"], situation["starts"], situation["policy"]
    real, unit_of, selected, found, labels = run(**situation)
    assert selected.shape == found.shape == labels.shape == ids.shape
    assert not selected[~real].any()
    assert not np.isin(ids[selected], SPECIAL).any()
    np.testing.assert_array_equal(found[~selected], ids[~selected])
    assert np.isin(found[selected], [MASK, *ORDINARY]).all()
    np.testing.assert_array_equal(labels, np.where(selected, ids, IGNORE))
    for row in range(len(ids)):
        check_units(unit_of[row], real[row], starts[row], policy)
        numbers = set(unit_of[row][real[row]].tolist())
        whole = {u for u in numbers if selected[row][unit_of[row] == u].all()}
        assert whole == {u for u in numbers if selected[row][unit_of[row] == u].any()}  # all of a unit or none
        wanted = policy.rate * len(numbers)
        assert wanted - 1 < len(whole) < wanted + 1  # at most one away from rate · U
    for first, again in zip((real, unit_of, selected, found, labels), run(**situation), strict=True):
        np.testing.assert_array_equal(first, again)  # the same generator, the same result


def check_units(unit_of: NDArray[Any], real: NDArray[Any], starts: NDArray[Any], policy: MaskingPolicy) -> None:
    """Count through one sequence as one would on paper."""
    number, words = -1, 0
    for i in range(len(unit_of)):
        after_gap = i == 0 or not real[i - 1]
        if not real[i]:
            assert unit_of[i] == -1
            continue
        begins = unit_of[i] != number
        if begins:
            assert unit_of[i] == number + 1
            number, words = number + 1, 0
        new_word = after_gap or bool(starts[i])
        words += new_word
        assert begins or not after_gap  # never across a gap
        assert not begins or policy.unit == "token" or new_word  # never inside a word
        if policy.unit == "token":
            assert begins
        if policy.unit == "word":
            assert begins == new_word
        if policy.unit == "span":
            assert words <= policy.span_max


def test_the_masks_change_with_the_generator() -> None:
    ids, starts = text(4, 200)
    runs = [run(ids, starts, MaskingPolicy(), seed)[2] for seed in (0, 1)]
    assert (runs[0] != runs[1]).any()


# --- speed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_with_binomial_counts_each_unit_is_selected_by_itself(unit: str) -> None:
    """The number selected has the mean and the variance of a binomial law; with fixed counts it hardly varies."""
    n, rows, rate = 40, 20_000, 0.3
    real = np.ones((rows, n), dtype=bool)
    policy = MaskingPolicy(rate=rate, count="binomial", unit=unit, span_p=1.0)  # type: ignore[arg-type]  # spans of one
    counts = select(real, policy, np.random.default_rng(0), starts_word=real).sum(1)
    error = 5 * np.sqrt(rate * (1 - rate) / n / rows)  # five standard errors of the mean share
    assert abs(counts.mean() / n - rate) < error
    # The variance of a sample variance of a nearly normal law is 2σ⁴/rows; five standard errors.
    assert counts.var() == pytest.approx(n * rate * (1 - rate), rel=5 * np.sqrt(2 / rows))
    fixed = select(real, replace(policy, count="fixed"), np.random.default_rng(0), starts_word=real).sum(1)
    assert fixed.var() < 0.25


def test_with_binomial_counts_one_selected_position_tells_nothing_about_another() -> None:
    chosen = select(
        np.ones((50_000, 2), dtype=bool), MaskingPolicy(rate=0.5, count="binomial"), np.random.default_rng(0)
    )
    table = np.bincount(chosen @ [1, 2], minlength=4)
    assert chisquare(table).pvalue > 1e-6


@pytest.mark.parametrize("unit", UNITS)
def test_no_python_loop_runs_over_the_tokens(unit: str) -> None:
    """The number of Python function calls does not depend on how many tokens there are."""

    def calls(rows: int, length: int) -> int:
        ids, starts = text(rows, length)
        count = 0

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            run(ids, starts, MaskingPolicy(unit=unit), seed=0)  # type: ignore[arg-type]
        finally:
            sys.setprofile(None)
        return count

    assert calls(2, 16) == calls(64, 512)


@pytest.mark.parametrize("unit", UNITS)
def test_a_batch_of_512_times_512_is_masked_in_well_under_a_second(unit: str) -> None:
    """It takes about a tenth of a second; the bound leaves room for a busy machine, not for a loop."""
    ids, starts = text(512, 512)
    begin = time.process_time()
    run(ids, starts, MaskingPolicy(unit=unit), seed=0)  # type: ignore[arg-type]
    assert time.process_time() - begin < 1.0


# --- a policy that makes no sense ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": 1.5}, "masking.rate must be between 0 and 1, got 1.5"),
        ({"rate": -0.1}, "masking.rate must be between 0 and 1, got -0.1"),
        ({"count": "poisson"}, "masking.count must be one of fixed, binomial, got 'poisson'"),
        ({"rate": float("nan")}, "masking.rate must be between 0 and 1, got nan"),
        ({"mask": 1.1}, "masking.mask must be between 0 and 1"),
        ({"random": -0.1, "mask": 1.0}, "masking.random must be between 0 and 1"),
        ({"keep": 2}, "masking.keep must be between 0 and 1"),
        ({"random": 0.2}, r"mask \+ random \+ keep must be 1, got 0.8 \+ 0.2 \+ 0.1 = 1.1"),
        ({"keep": 0.0}, r"mask \+ random \+ keep must be 1, got 0.8 \+ 0.1 \+ 0.0 = 0.9"),
        ({"unit": "sentence"}, "masking.unit must be one of token, word, span, got 'sentence'"),
        ({"span_p": 0.0}, r"masking.span_p must be in \(0, 1\], got 0.0"),
        ({"span_p": 1.2}, r"masking.span_p must be in \(0, 1\], got 1.2"),
        ({"span_max": 0}, "masking.span_max must be at least 1, got 0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_what_was_given(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MaskingPolicy(**fields)


def test_shares_that_sum_to_one_but_for_rounding_are_accepted() -> None:
    """0.7 + 0.2 + 0.1 is 0.9999999999999999 in floating point."""
    assert 0.7 + 0.2 + 0.1 != 1
    MaskingPolicy(mask=0.7, random=0.2, keep=0.1)
