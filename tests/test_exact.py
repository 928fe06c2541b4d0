"""Exact inference: what it says equals what counting all worlds says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import brute_force as brute
import numpy as np
import pytest
import torch
from brute_force import MASK, columns, draw, layout, pair_table, random_language, sentence_table, word_posterior, worlds
from helpers import within_binomial_bounds

from mlmkit.errors import UserError
from mlmkit.exact import (
    BERT,
    FIRST_WORD,
    check_policy,
    inference,
    joint_log_probability,
    log_evidence,
    next_log_odds,
    posterior,
)
from mlmkit.language import Language, language_named, tiny_language
from mlmkit.masking import IGNORE, MaskingPolicy

SHARES = {
    "80/10/10": (0.8, 0.1, 0.1),
    "all [MASK]": (1.0, 0.0, 0.0),
    "random only": (0.0, 1.0, 0.0),
    "keep only": (0.0, 0.0, 1.0),
    "[MASK] and random": (0.5, 0.5, 0.0),
    "[MASK] and keep": (0.6, 0.0, 0.4),
    "[MASK] by hand": None,
}
RATES = (0.1, 0.15, 0.4, 0.7, 1.0)
LENGTHS = ((2, 2), (1, 3), (3, 2), (2, 1))
INSTANCES = 32
"""Random languages for each kind of corruption: 7 · 32 = 224 in each test that takes both."""

# The only difference is rounding: sums of at most 10⁴ numbers below 1 in float64.
SAME = {"atol": 1e-9, "rtol": 0}

instances = pytest.mark.parametrize("kind", SHARES)


@cache
def table_of(language: Language, next_probability: float) -> np.ndarray:
    return pair_table(language, next_probability)


@cache
def language_of(kind: str, number: int) -> Language:
    rng = np.random.default_rng([0, list(SHARES).index(kind), number])
    return random_language(rng, LENGTHS[number % len(LENGTHS)], zeros=0.3 * (number % 3 == 0))


def instance(kind: str, number: int) -> tuple[Language, MaskingPolicy | None, np.random.Generator]:
    rng = np.random.default_rng([1, list(SHARES).index(kind), number])
    shares = SHARES[kind]
    rate = RATES[number % len(RATES)]
    policy = shares and MaskingPolicy(rate, *shares, count="binomial")
    return language_of(kind, number), policy, rng


def visible(context: str, i: int, n: int, first: int) -> set[int]:
    """Positions that may be looked at besides i itself."""
    same_sentence = {j for j in range(n) if (j < first) == (i < first)}
    return {
        "both": set(range(n)),
        "left": set(range(i)),
        "right": set(range(i + 1, n)),
        "neighbors": {i - 1, i + 1} & same_sentence,
        "none": set(),
    }[context] - {i}


def expect_posteriors(language: Language, table: np.ndarray, policy: MaskingPolicy | None, seen: list[int], **options):
    """Compare all positions of one observation with the enumeration."""
    n, first = len(seen), language.lengths[0]
    context, own = options["context"], options["own"]
    found = posterior(language, layout([seen], first), policy=policy, **options)[0]
    compared = 0
    for i, column in enumerate(columns(n, first)):
        look = visible(context, i, n, first) | ({i} if own else set())
        expected = word_posterior(worlds(table, seen, policy, look, selected={i}), i)
        if not np.isnan(expected).any():
            np.testing.assert_allclose(found[column, FIRST_WORD:], expected, **SAME)
            compared += 1
    assert (found[:, :FIRST_WORD] == 0).all()
    return compared


@instances
@pytest.mark.parametrize("context", ["both", "left", "right", "neighbors", "none"])
def test_the_posterior_of_a_word_equals_enumeration(kind, context):
    compared = 0
    for number in range(INSTANCES):
        language, policy, rng = instance(kind, number)
        p = (0.5, 0.0, 1.0)[number % 3]
        table = table_of(language, p)
        _, seen = draw(table, policy, rng)
        for own in (True, False):
            compared += expect_posteriors(language, table, policy, seen, context=context, own=own, next_probability=p)
    assert compared > 2 * INSTANCES  # several positions of each; those that could not be seen if selected are left out


@instances
def test_the_posterior_in_a_single_sentence_equals_enumeration(kind):
    for number in range(INSTANCES):
        language, policy, rng = instance(kind, number)
        table = sentence_table(language)
        _, seen = draw(table, policy, rng)
        context = ("both", "left", "right", "neighbors", "none")[number % 5]
        expect_posteriors(language, table, policy, seen, context=context, own=True)


@instances
def test_the_odds_that_b_is_next_equal_enumeration(kind):
    for number in range(INSTANCES):
        language, policy, rng = instance(kind, number)
        p = rng.choice([0.5, 0.2])
        table = table_of(language, p)
        _, seen = draw(table, policy, rng)
        n = len(seen)
        relation = worlds(table, seen, policy).sum(axis=tuple(a for a in range(2 * n + 1) if a != n))  # (2,)
        found = next_log_odds(language, layout([seen], language.lengths[0]), policy=policy, next_probability=p)
        with np.errstate(divide="ignore"):  # where no topic can say both sentences the odds are 0
            np.testing.assert_allclose(found, np.log(relation[0]) - np.log(relation[1]), **SAME)


@instances
def test_the_joint_probability_of_several_words_equals_enumeration(kind):
    for number in range(INSTANCES):
        language, policy, rng = instance(kind, number)
        p = (0.5, 0.0, 1.0)[number % 3]
        table = table_of(language, p)
        words, seen = draw(table, policy, rng)
        n, first = len(seen), language.lengths[0]
        hidden = [j for j in range(n) if seen[j] == MASK or (policy and policy.keep + policy.random and j == 0)]
        found = worlds(table, seen, policy, selected=hidden)
        with_words = found[
            (slice(None),) * (n + 1) + tuple(w if j in hidden else slice(None) for j, w in enumerate(words))
        ]
        if with_words.sum() == 0:  # the first word was not kept, and random replacements do not occur
            continue
        x = layout([seen], first)
        labels = torch.full_like(x, IGNORE)
        for j in hidden:
            labels[0, columns(n, first)[j]] = FIRST_WORD + words[j]
        joint = joint_log_probability(language, x, labels, policy=policy, next_probability=p)
        np.testing.assert_allclose(joint, np.log(with_words.sum() / found.sum()), **SAME)
        evidence = log_evidence(language, x, labels, policy=policy, next_probability=p)
        masks = 1.0 if policy is None else policy.mask ** seen.count(MASK)  # every [MASK] is among the labeled
        np.testing.assert_allclose(evidence, np.log(found.sum() / masks), **SAME)


def test_evidence_without_labels_leaves_out_only_the_probability_of_the_masks():
    for number in range(INSTANCES):
        language, policy, rng = instance("80/10/10", number)
        table = pair_table(language)
        _, seen = draw(table, policy, rng)
        found = log_evidence(language, layout([seen], language.lengths[0]), policy=policy)
        masks = (policy.rate * policy.mask) ** seen.count(MASK)
        np.testing.assert_allclose(found, np.log(worlds(table, seen, policy).sum() / masks), **SAME)


def test_the_probabilities_of_all_clean_pairs_sum_to_one():
    language = random_language(np.random.default_rng(0), (2, 2))
    N = len(language.words)
    pairs = [[a, b, c, d] for a in range(N) for b in range(N) for c in range(N) for d in range(N)]
    logs = log_evidence(language, layout(pairs, 2), policy=None)
    np.testing.assert_allclose(logs.exp().sum(), 1, **SAME)


# Two claims one can check with pencil and paper


def test_a_cat_makes_sleeping_likelier_since_it_hints_at_the_home():
    x = torch.tensor([[2, 5, 4, 3]])  # [CLS] cat [MASK] [SEP]
    p = posterior(tiny_language(), x, x == 4, policy=None)[0]
    home = 0.75  # Pr(home | cat) = ½·¾ / (½·¾ + ½·¼)
    assert p[FIRST_WORD + 2] == pytest.approx(home * 0.75 + (1 - home) * 0.25)


def test_at_a_selected_position_a_word_was_kept_or_drawn_with_equal_chance():
    x = torch.tensor([[2, 5, 3]])  # [CLS] cat [SEP]: kept with 0.1, drawn in place of cat or of bird with 0.1 / 4
    p = posterior(tiny_language(), x, x == 5)[0]
    assert p[FIRST_WORD] == pytest.approx((0.1 + 0.025) / (0.1 + 0.025 + 0.025))


def test_at_another_position_a_word_is_nearly_certain():
    x = torch.tensor([[2, 5, 4, 3]])  # that cat is no cat but was drawn at random: 0.15 · 0.1 / 4 for each word
    p = posterior(tiny_language(), x, x == 4)[0]
    true, drawn = 1 - 0.15 * 0.9 + 0.15 * 0.1 / 4, 0.15 * 0.1 / 4
    home = (0.75 * true + 0.25 * drawn) / (true + drawn)  # Pr(home | what is seen)
    assert p[FIRST_WORD + 2] == pytest.approx(home * 0.75 + (1 - home) * 0.25)


# Batches


def test_a_row_is_answered_alike_alone_and_in_a_batch_of_other_lengths(monkeypatch):
    language = language_named("market")
    rng = np.random.default_rng(3)
    rows = []
    for first, second in ((3, 5), (14, 14), (1, 0), (6, 2), (2, 9)):
        ids = rng.integers(FIRST_WORD, FIRST_WORD + len(language.words), first + second)
        ids[rng.random(first + second) < 0.3] = 4
        rows.append([2, *ids[:first], 3, *([*ids[first:], 3] if second else [])])
    S = max(map(len, rows))
    batch = torch.tensor([row + [0] * (S - len(row)) for row in rows])
    monkeypatch.setattr(inference, "CHUNK", 2)
    together, odds = posterior(language, batch), next_log_odds(language, batch)
    for row, answer, odd in zip(rows, together, odds, strict=True):
        alone = posterior(language, torch.tensor([row]))[0]
        np.testing.assert_allclose(answer[: len(row)], alone, **SAME)
        assert (answer[len(row) :] == 0).all()
        np.testing.assert_allclose(next_log_odds(language, torch.tensor([row]))[0], odd, **SAME)


def test_selected_positions_come_in_reading_order():
    language = tiny_language()
    x = torch.tensor([[2, 5, 4, 3, 4, 7, 3], [2, 4, 4, 3, 6, 8, 3]])
    selected = x == 4
    assert torch.equal(posterior(language, x, selected), posterior(language, x)[selected])


def test_where_nothing_is_random_words_may_be_selected_in_any_way():
    x = torch.tensor([[2, 5, 4, 3, 4, 7, 3]])
    single = MaskingPolicy(0.4, 0.7, 0.0, 0.3, count="binomial")
    for policy in (replace(single, count="fixed"), replace(single, unit="span")):
        assert torch.equal(posterior(tiny_language(), x, policy=policy), posterior(tiny_language(), x, policy=single))


def test_long_sentences_do_not_underflow():
    language = language_named("market")
    words, _ = replace(language, lengths=(400, 400)).sample(1, np.random.default_rng(0))
    x = layout(words.tolist(), 400)
    assert -4000 < float(log_evidence(language, x, policy=None)) < -1500  # e^−745 is the smallest float64
    np.testing.assert_allclose(posterior(language, x)[:, columns(800, 400)].sum(-1), 1, **SAME)


# Mistakes


IMPOSSIBLE = torch.tensor([[2, 7, 5, 3, 5, 7, 3]])  # a sentence of "tiny" never begins with what is done


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: posterior(tiny_language(), x, policy=None),
        lambda x: next_log_odds(tiny_language(), x, policy=None),
        lambda x: joint_log_probability(tiny_language(), x, torch.full_like(x, IGNORE), policy=None),
    ],
)
def test_nothing_is_concluded_from_what_cannot_occur(ask):
    with pytest.raises(UserError, match="impossible in the language 'tiny'"):
        ask(IMPOSSIBLE)


def test_what_cannot_occur_has_probability_zero():
    assert log_evidence(tiny_language(), IMPOSSIBLE, policy=None).item() == -np.inf


@pytest.mark.parametrize(
    "row",
    [
        [5, 6, 3, 0, 0, 0],  # no [CLS]
        [2, 5, 6, 7, 8, 5],  # no [SEP]
        [2, 5, 3, 6, 3, 3],  # three of them
        [2, 5, 3, 6, 3, 7],  # a word after the end
        [2, 5, 0, 6, 3, 0],  # padding inside
        [2, 5, 1, 6, 3, 0],  # [UNK]
        [2, 5, 9, 6, 3, 0],  # no word of this language
    ],
)
def test_a_row_that_is_no_pair_is_named(row):
    x = torch.tensor([[2, 5, 7, 3, 0, 0], row])
    with pytest.raises(UserError, match=r"row 1 is not \[CLS\] A \[SEP\]"):
        posterior(tiny_language(), x)


def test_laws_without_an_exact_answer_are_refused():
    with pytest.raises(UserError, match='unit="token"'):
        check_policy(MaskingPolicy(unit="span", count="binomial"))
    with pytest.raises(UserError, match='count="binomial"'):
        posterior(tiny_language(), torch.tensor([[2, 5, 3]]), policy=MaskingPolicy())
    check_policy(BERT)
    check_policy(None)


def test_mistyped_options_are_refused():
    x = torch.tensor([[2, 5, 3]])
    with pytest.raises(UserError, match="context must be one of both, left"):
        posterior(tiny_language(), x, context="middle")
    with pytest.raises(UserError, match="next_probability must be between 0 and 1"):
        posterior(tiny_language(), x, next_probability=1.5)


# Sampling


@pytest.mark.parametrize("seed", range(3))
def test_samples_have_the_frequencies_of_the_tables(seed):
    """Every pair of words that can occur does so as often as enumeration says, but for one case in a billion."""
    language = random_language(np.random.default_rng(seed), (2, 2), zeros=0.2)
    words, topics = language.sample(20_000, np.random.default_rng(seed))
    table = pair_table(language, next_probability=1.0)[0]
    counts = np.zeros(table.shape, dtype=int)
    np.add.at(counts, tuple(words.T), 1)
    for count, p in zip(counts.ravel(), table.ravel(), strict=True):
        assert within_binomial_bounds(count, 20_000, min(p, 1.0))
    for k, p in enumerate(language.topic):
        assert within_binomial_bounds((topics == k).sum(), 20_000, p)


def test_word_probabilities_are_the_shares_of_the_words():
    language = random_language(np.random.default_rng(5), (1, 3))
    table = pair_table(language, next_probability=1.0)[0]
    share = sum(table.sum(axis=tuple(a for a in range(4) if a != j)) for j in range(4)) / 4
    np.testing.assert_allclose(language.word_probabilities, share, **SAME)
    assert language.unigram_entropy == pytest.approx(brute.entropy(share), abs=1e-9)
