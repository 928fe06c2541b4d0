"""Floors and gaps: each equals its expectation by enumeration, and its error is honest."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from types import SimpleNamespace

import brute_force as brute
import numpy as np
import pytest
import torch
from brute_force import MASK, columns, layout, pair_table, random_language, word_posterior, worlds
from helpers import small_model, within_binomial_bounds

from mlmkit.cli import main
from mlmkit.errors import UserError
from mlmkit.exact import (
    BERT,
    FIRST_WORD,
    Estimate,
    chain_by_masks,
    chain_by_prefix,
    context_gain,
    dependency_gap,
    distance_to_floor,
    exact_batches,
    floor_report,
    ideal_losses,
    joint_log_probability,
    kl_divergence,
    log_probability,
    mlm_floor,
    next_log_odds,
    nsp_optimum,
    order_blind_bound,
    posterior,
    ratio,
)
from mlmkit.language import LANGUAGES, Language, language_named, tiny_language
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.pairs import IS_NEXT

CLEAN = MaskingPolicy(rate=0.0, count="binomial")
ALL_MASK = MaskingPolicy(0.4, 1.0, 0.0, 0.0, count="binomial")
OFTEN = MaskingPolicy(0.4, 0.6, 0.2, 0.2, count="binomial")
"""More is selected and more is random than in BERT, so that small languages show it."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def agrees(found: Estimate, expected: float) -> bool:
    """Within 4 standard errors: a correct estimate fails one time in 16,000. The seeds are fixed."""
    return abs(found.mean - expected) <= 4 * found.standard_error + 1e-12


@cache
def small_language(seed: int) -> Language:
    """Pairs of two words each: all of them, and all that can be seen of them, can be listed."""
    return random_language(np.random.default_rng(100 + seed), (2, 2), zeros=0.1)


@cache
def market() -> Language:
    return language_named("market")


# Estimates


def test_the_error_of_a_mean_takes_the_words_of_a_pair_together():
    alike = torch.tensor([0.0, 3.0] * 50), torch.full((100,), 3)  # three equal words in each pair
    single = torch.tensor([0.0, 1.0] * 50), torch.ones(100)
    assert ratio(*alike).mean == pytest.approx(ratio(*single).mean)
    assert ratio(*alike).standard_error == pytest.approx(ratio(*single).standard_error)
    assert ratio(*single).standard_error == pytest.approx(np.std([0, 1] * 50, ddof=1) / 10)


def test_an_estimate_from_nothing_is_refused():
    with pytest.raises(UserError, match="two pairs"):
        ratio(torch.ones(1), torch.ones(1))
    with pytest.raises(UserError, match="a selected position"):
        mlm_floor(tiny_language(), rng(), policy=CLEAN, pairs=8)


@pytest.mark.parametrize("what", ["floor", "nsp", "gap"])
def test_standard_errors_are_honest(what):
    """Over 40 repetitions the spread is what each repetition claims: χ with 39 degrees of freedom is ± 11 % wide."""
    ask = {
        "floor": lambda r: mlm_floor(small_language(0), r, policy=OFTEN, pairs=100),
        "nsp": lambda r: nsp_optimum(small_language(0), r, policy=OFTEN, pairs=100).loss,
        "gap": lambda r: dependency_gap(small_language(1), r, masks=3, pairs=100).per_word,
    }[what]
    found = [ask(rng(seed)) for seed in range(40)]
    claimed = np.mean([e.standard_error for e in found])
    assert 0.6 < np.std([e.mean for e in found], ddof=1) / claimed < 1.4


# Pairs straight from the language


def test_batches_look_like_those_of_a_corpus():
    language = replace(market(), lengths=(4, 6))
    batches = list(exact_batches(language, 10, rng(), batch_size=4))
    assert [len(b["input_ids"]) for b in batches] == [4, 4, 2]
    for batch in batches:
        assert list(batch) == ["input_ids", "token_type_ids", "attention_mask", "labels", "next_sentence_label"]
        assert all(tensor.dtype == torch.int64 for tensor in batch.values())
        assert batch["input_ids"].shape[1] == 16  # 4 + 6 + 3 = 13 real tokens
        assert (batch["input_ids"][:, [0, 5, 12]] == torch.tensor([2, 3, 3])).all()
        assert batch["attention_mask"].tolist() == [[1] * 13 + [0] * 3] * len(batch["input_ids"])
        assert batch["token_type_ids"].tolist() == [[0] * 6 + [1] * 7 + [0] * 3] * len(batch["input_ids"])
        labels = batch["labels"]
        assert (labels[:, [0, 5, 12, 13, 14, 15]] == IGNORE).all()
        assert ((labels == IGNORE) | (labels >= FIRST_WORD)).all()


def test_half_of_the_pairs_are_next_and_only_these_share_a_topic():
    only = np.eye(2)[:, None]  # topic k always says word k
    pure = Language(
        "pure", ("ab", "cd"), ("k", "l"), ("c",), np.full(2, 0.5), np.ones(1), np.ones((1, 1)), only, (1, 1)
    )
    batch = next(exact_batches(pure, 2000, rng(), CLEAN, batch_size=2000))
    alike = batch["input_ids"][:, 1] == batch["input_ids"][:, 3]
    is_next = batch["next_sentence_label"] == IS_NEXT
    assert within_binomial_bounds(int(is_next.sum()), 2000, 0.5)
    assert alike[is_next].all()
    assert within_binomial_bounds(int(alike[~is_next].sum()), int((~is_next).sum()), 0.5)


def test_the_same_generator_gives_the_same_batches_and_bad_sizes_are_refused():
    first, again = (next(exact_batches(market(), 8, rng(5))) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(UserError, match="at least one pair"):
        next(exact_batches(market(), 0, rng()))


# Floors against enumeration


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", [BERT, OFTEN, ALL_MASK], ids=["bert", "often", "all [MASK]"])
def test_the_floor_is_the_expected_entropy(seed, policy):
    language = small_language(seed)
    table = pair_table(language)
    expected = 0.0
    for i in range(4):
        joint = brute.posterior_table(table, policy, i).sum(0)  # (x_i, ȳ)
        expected += (brute.entropy(joint) - brute.entropy(joint.sum(0))) / 4  # H(x_i | ȳ) = H(x_i, ȳ) − H(ȳ)
    assert agrees(mlm_floor(language, rng(seed), policy=policy, pairs=2000), expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_answers_to_the_relation_are_the_expected_ones(seed):
    table = pair_table(small_language(seed))
    seen = brute.relation_table(table, OFTEN)  # (r, ȳ)
    found = nsp_optimum(small_language(seed), rng(seed), policy=OFTEN, pairs=2000)
    assert agrees(found.accuracy, seen.max(0).sum())
    assert agrees(found.loss, brute.entropy(seen) - brute.entropy(seen.sum(0)))


@pytest.mark.parametrize("policy", [None, OFTEN], ids=["one hole", "corrupted"])
def test_entropies_in_each_context_are_ordered_and_agree_with_the_floor(policy):
    found = context_gain(market(), rng(1), policy=policy, pairs=300)
    h = {context: e.mean for context, e in found.entropy.items()}
    assert h["both"] < h["left"] < h["none"]
    assert h["both"] < h["right"] < h["none"]
    assert h["both"] < h["neighbors"] < h["none"]
    for context, above in found.above_both.items():
        assert above.mean == pytest.approx(h[context] - h["both"])
        assert context == "both" or above.mean > 3 * above.standard_error
    if policy is not None:
        assert h["left"] == pytest.approx(mlm_floor(market(), rng(1), policy=policy, context="left", pairs=300).mean)


@pytest.mark.parametrize("seed", range(2))
def test_the_entropy_of_a_single_hole_is_the_expected_one(seed):
    language = small_language(seed)
    table = pair_table(language).sum(0)
    both = np.mean([brute.entropy(table) - brute.entropy(table.sum(i)) for i in range(4)])  # H(x) − H(x without x_i)
    alone = np.mean([brute.entropy(table.sum(tuple(j for j in range(4) if j != i))) for i in range(4)])
    found = context_gain(language, rng(seed), pairs=1000)
    assert agrees(found.entropy["both"], both)
    assert agrees(found.entropy["none"], alone)


# What independent predictions lose


def information(table: np.ndarray, hidden: tuple[int, ...]) -> float:
    """Multi-information of the hidden words given all others: Σ H(x_i | rest) − H(x_hidden | rest)."""
    rest = brute.entropy(table.sum(hidden))
    alone = sum(brute.entropy(table.sum(tuple(j for j in hidden if j != i))) - rest for i in hidden)
    return alone - (brute.entropy(table) - rest)


def sticky_language() -> Language:
    """Two classes that tend to stay, each with a word of its own: neighbors in a sentence say much of each other."""
    stay, own = np.array([[0.95, 0.05], [0.1, 0.9]]), np.array([[[0.97, 0.03], [0.02, 0.98]]])
    return Language("sticky", ("ab", "cd"), ("k",), ("c", "d"), np.ones(1), np.full(2, 0.5), stay, own, (2, 2))


PATTERNS = {
    "random": [hidden for hidden in product(range(4), repeat=2) if hidden[0] < hidden[1]],
    "neighbors": [(0, 1), (2, 3)],
    "apart": [(0, 3)],
}


@pytest.mark.parametrize("language", [small_language(0), small_language(1), sticky_language()], ids=range(3))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_dependency_gap_is_the_information_that_the_words_have_about_each_other(language, pattern):
    table = pair_table(language).sum(0)
    expected = np.mean([information(table, hidden) for hidden in PATTERNS[pattern]])
    found = dependency_gap(language, rng(), pattern=pattern, pairs=2000)
    assert expected > -1e-12
    assert agrees(found.per_pair, expected)
    assert found.per_word.mean == pytest.approx(found.per_pair.mean / 2)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_where_words_do_not_depend_on_each_other(seed):
    language = market()
    one = {"topics": ("only",), "topic": np.ones(1), "emission": language.emission[:1]}
    forgetful = replace(language, transition=np.broadcast_to(language.start, language.transition.shape).copy(), **one)
    found = dependency_gap(forgetful, rng(seed), masks=6, pairs=50)
    assert abs(found.per_pair.mean) < 1e-12  # rounding only


def test_neighbors_lose_more_than_words_far_apart():
    near = dependency_gap(market(), rng(), pattern="neighbors", pairs=1000).per_word
    far = dependency_gap(market(), rng(), pattern="apart", pairs=1000).per_word
    assert near.mean - far.mean > 4 * (near.standard_error + far.standard_error)
    assert near.mean > 0.05


def test_masks_without_a_place_are_refused():
    for masks, pattern in ((0, "random"), (5, "random"), (3, "neighbors")):
        with pytest.raises(UserError, match=f"{masks} masks"):
            dependency_gap(tiny_language(), rng(), masks=masks, pattern=pattern, pairs=4)
    with pytest.raises(UserError, match="pattern must be one of random, neighbors, apart"):
        dependency_gap(tiny_language(), rng(), pattern="together", pairs=4)


# Chain rule


@pytest.mark.parametrize("name", ["market", "forest", "tiny"])
@pytest.mark.parametrize("next_probability", [1.0, 0.5])
def test_masking_all_that_follows_is_the_chain_rule(name, next_probability):
    language = language_named(name)
    x = next(exact_batches(language, 3, rng(), CLEAN))["input_ids"]
    by_masks = chain_by_masks(language, x, next_probability)
    np.testing.assert_allclose(by_masks, log_probability(language, x, next_probability), atol=1e-9)
    np.testing.assert_allclose(by_masks, chain_by_prefix(language, x, next_probability), atol=1e-9)


def test_the_probability_of_a_document_equals_enumeration():
    language = small_language(1)
    table = pair_table(language, next_probability=1.0)[0]
    words = [cell for cell in product(range(len(language.words)), repeat=4) if table[cell] > 0][::3]
    found = log_probability(language, layout(words, 2))
    np.testing.assert_allclose(found, [np.log(table[cell]) for cell in words], atol=1e-9)


def test_sentences_of_other_lengths_are_chained_too():
    x = torch.tensor([[2, 5, 7, 3, 6, 8, 3], [2, 6, 3, 0, 0, 0, 0]])
    np.testing.assert_allclose(chain_by_masks(tiny_language(), x), log_probability(tiny_language(), x), atol=1e-9)


@pytest.mark.parametrize("chain", [log_probability, chain_by_masks, chain_by_prefix])
def test_text_with_holes_is_refused(chain):
    with pytest.raises(UserError, match=r"without \[MASK\]"):
        chain(tiny_language(), torch.tensor([[2, 5, 4, 3]]))


# Word order


def order_blind_by_enumeration(language: Language, policy: MaskingPolicy) -> float:
    """H(x_i | k, i, bag of the other classes, y_i), from a list of all cases."""
    N, C = len(language.words), len(language.classes)
    entropies = []
    for length in language.lengths:
        for i in range(length):
            joint: dict[tuple, np.ndarray] = {}
            for k, classes in product(range(len(language.topics)), product(range(C), repeat=length)):
                p = language.topic[k] * language.start[classes[0]]
                for a, b in pairwise(classes):
                    p *= language.transition[a, b]
                bag = tuple(sorted(classes[:i] + classes[i + 1 :]))
                for y in range(N + 1):
                    kept = np.full(N, policy.mask) if y == N else policy.keep * (np.arange(N) == y) + policy.random / N
                    key = (k, bag, y)
                    joint[key] = joint.get(key, np.zeros(N)) + p * language.emission[k, classes[i]] * kept
            entropies.append(sum(brute.entropy(p) - brute.entropy(p.sum(keepdims=True)) for p in joint.values()))
    return float(np.mean(entropies))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", [BERT, ALL_MASK, OFTEN], ids=["bert", "all [MASK]", "often"])
def test_the_order_blind_bound_equals_enumeration(seed, policy):
    language = random_language(np.random.default_rng(seed), ((3, 4), (1, 2), (4, 4), (2, 1))[seed], zeros=0.1)
    assert order_blind_bound(language, policy) == pytest.approx(order_blind_by_enumeration(language, policy), abs=1e-9)


def test_the_order_blind_bound_stops_before_it_takes_for_ever():
    with pytest.raises(UserError, match="too many bags of classes"):
        order_blind_bound(language_named("forest"))


def test_a_predictor_that_ignores_the_order_does_not_get_below_the_bound():
    """The best one by enumeration: it sees the bag of all that is seen in the pair, and what stands at the place."""
    for seed in range(3):
        language = small_language(seed)
        table = pair_table(language)
        expected = []
        for i in range(4):
            joint: dict[tuple, np.ndarray] = {}
            for seen, p in np.ndenumerate(brute.posterior_table(table, OFTEN, i).sum(0)):
                word, seen = seen[0], seen[1:]
                key = (seen[i], tuple(sorted(seen)))
                joint.setdefault(key, np.zeros(len(language.words)))[word] += p
            expected.append(joint)
        # It does not know the place either, so the places are put together.
        together: dict[tuple, np.ndarray] = {}
        for joint in expected:
            for key, p in joint.items():
                together[key] = together.get(key, 0) + p / 4
        best = sum(brute.entropy(p) - brute.entropy(p.sum(keepdims=True)) for p in together.values())
        assert best >= order_blind_bound(language, OFTEN) - 1e-12


# The language is worth learning


def test_the_floor_of_the_market_is_far_below_what_simple_predictors_reach():
    report = floor_report(market(), pairs=1000)
    floor = report.floor
    assert market().unigram_entropy - floor.mean > 1.2 + 3 * floor.standard_error
    assert report.order_blind - floor.mean > 0.1 + 3 * floor.standard_error
    above = context_gain(market(), rng(), policy=BERT, pairs=1000).above_both
    for context in ("neighbors", "left", "right"):
        assert above[context].mean > 0.1 + 3 * above[context].standard_error
    assert 0.6 < report.nsp.accuracy.mean < 0.95  # B can be told from a stranger, but not always


# Ideal predictor and models


def perfect(language: Language, policy: MaskingPolicy = BERT):
    """A model that answers with the true probabilities."""

    def model(input_ids, token_type_ids, attention_mask, selected):
        odds = next_log_odds(language, input_ids, policy=policy)
        return SimpleNamespace(
            mlm_logits=posterior(language, input_ids, selected, policy=policy).log(),
            nsp_logits=torch.stack([odds, torch.zeros_like(odds)], dim=1),
        )

    return model


def test_the_perfect_model_stands_on_the_floor():
    batches = list(exact_batches(market(), 300, rng(2), batch_size=64))
    d = distance_to_floor(market(), perfect(market()), batches)
    for gap in (d.gap, d.kl, d.nsp_gap, d.nsp_kl):
        assert gap.mean == pytest.approx(0, abs=1e-12)
    ideal = ideal_losses(market(), batches)
    assert d.mlm_loss.mean == pytest.approx(d.mlm_floor.mean)
    assert d.mlm_floor == ideal.mlm_loss
    assert (d.nsp_optimum, d.nsp_floor) == (ideal.nsp_accuracy, ideal.nsp_loss)


def test_the_ideal_losses_are_the_floors_but_for_the_luck_of_the_draw():
    ideal = ideal_losses(market(), exact_batches(market(), 3000, rng(3)))
    floor, nsp = mlm_floor(market(), rng(4), pairs=2000), nsp_optimum(market(), rng(4), pairs=2000)
    for found, expected in ((ideal.mlm_loss, floor), (ideal.nsp_loss, nsp.loss), (ideal.nsp_accuracy, nsp.accuracy)):
        error = math.hypot(found.standard_error, expected.standard_error)
        assert abs(found.mean - expected.mean) < 4 * error
    # The most probable word is right as often as its probability says.
    batch = next(exact_batches(market(), 1500, rng(5), batch_size=1500))
    sure = posterior(market(), batch["input_ids"], batch["labels"] != IGNORE).amax(-1)
    assert ideal.mlm_accuracy.mean == pytest.approx(float(sure.mean()), abs=0.02)  # 4 standard errors of 0.005


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_model_pays_its_divergence(seed):
    """Gap and KL have the same expectation; a model that knows nothing pays ln V − floor."""
    batches = list(exact_batches(market(), 400, rng(seed)))
    V = FIRST_WORD + len(market().words)

    def uniform(input_ids, token_type_ids, attention_mask, selected):
        return SimpleNamespace(
            mlm_logits=torch.zeros(int(selected.sum()), V), nsp_logits=torch.zeros(len(input_ids), 2)
        )

    d = distance_to_floor(market(), uniform, batches)
    assert d.mlm_loss.mean == pytest.approx(math.log(V))
    assert d.nsp_loss.mean == pytest.approx(math.log(2))
    assert d.gap.mean == pytest.approx(math.log(V) - d.mlm_floor.mean)
    assert abs(d.gap.mean - d.kl.mean) < 4 * math.hypot(d.gap.standard_error, d.kl.standard_error)
    assert d.kl.standard_error < d.gap.standard_error
    assert d.nsp_gap.mean == pytest.approx(d.nsp_optimum.mean - d.nsp_accuracy.mean)
    assert d.nsp_accuracy.mean == pytest.approx(
        np.mean([(b["next_sentence_label"] == 0).double().mean() for b in batches]), abs=0.05
    )
    nsp_excess = d.nsp_loss.mean - d.nsp_floor.mean
    assert abs(nsp_excess - d.nsp_kl.mean) < 4 * math.hypot(d.nsp_floor.standard_error, d.nsp_kl.standard_error)


def test_a_model_that_sees_the_answers_is_found_below_the_floor():
    batches = list(exact_batches(market(), 100, rng(), batch_size=100))
    true = batches[0]["labels"][batches[0]["labels"] != IGNORE]

    def cheat(input_ids, token_type_ids, attention_mask, selected):
        V = FIRST_WORD + len(market().words)
        logits = 9.0 * torch.nn.functional.one_hot(true, V)
        return SimpleNamespace(mlm_logits=logits, nsp_logits=torch.zeros(len(input_ids), 2))

    gap = distance_to_floor(market(), cheat, batches).gap
    assert gap.mean < -3 * gap.standard_error


@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_read_without_dropout_and_left_in_its_mode(training):
    model = small_model(
        vocab_size=FIRST_WORD + len(market().words), hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5
    ).train(training)
    batches = list(exact_batches(market(), 20, rng()))
    first, again = (distance_to_floor(market(), model, batches) for _ in range(2))
    assert first == again
    assert model.training is training
    assert all(p.grad is None for p in model.parameters())


def test_a_model_of_another_vocabulary_is_refused():
    batches = list(exact_batches(tiny_language(), 8, rng()))
    with pytest.raises(UserError, match="has 9 tokens and the model scores 50"):
        distance_to_floor(tiny_language(), small_model(), batches)


def test_questions_that_are_none_are_refused():
    with pytest.raises(UserError, match="two pairs"):
        ideal_losses(tiny_language(), [])


def test_the_divergence_counts_nothing_where_the_truth_is_impossible():
    p = torch.tensor([[0.5, 0.5, 0.0]])
    log_q = torch.tensor([[0.25, 0.75, 0.0]]).log()
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(kl_divergence(p, log_q)) == pytest.approx(expected)


def test_the_joint_of_one_word_is_its_marginal():
    x = torch.tensor([[2, 5, 4, 3, 6, 8, 3]])
    labels = torch.where(x == 4, 7, IGNORE)
    p = posterior(tiny_language(), x, x == 4)[0, 7]
    assert float(joint_log_probability(tiny_language(), x, labels)) == pytest.approx(math.log(p))
    found = worlds(pair_table(tiny_language()), [0, MASK, 1, 3], BERT, selected={1})
    assert float(p) == pytest.approx(word_posterior(found, 1)[2])
    assert columns(4, 2) == [1, 2, 4, 5]


# Command line


def test_the_command_floor_prints_every_reference_line(capsys):
    assert main(["exact", "floor", "tiny", "--pairs", "50"]) == 0
    text = capsys.readouterr().out
    for line in (
        "ln V     2.197",
        "unigram  1.386",
        "any order",
        "left",
        "right",
        "neighbors",
        "floor",
        "coin",
        "each word",
    ):
        assert line in text
    assert main(["exact", "floor", "forest", "--pairs", "4"]) == 0
    assert "too many classes" in capsys.readouterr().out


def test_the_command_floor_gives_json_and_obeys_its_options(capsys):
    options = "--pairs 40 --seed 3 --rate 0.5 --mask 1 --random 0 --keep 0 --json"
    assert main(["exact", "floor", "tiny", *options.split()]) == 0
    found = json.loads(capsys.readouterr().out)
    policy = MaskingPolicy(0.5, 1, 0, 0, count="binomial")
    expected = mlm_floor(tiny_language(), rng(3), policy=policy, pairs=40)
    assert found["floor"] == {"mean": expected.mean, "standard_error": expected.standard_error}
    assert found["policy"]["rate"] == 0.5
    assert found["masks"] == 2  # half of four words
    assert found["order_blind"] == order_blind_bound(tiny_language(), policy)
    assert found["nsp"]["accuracy"]["mean"] >= 0.5


def test_the_command_show_prints_text_classes_topics_and_what_follows_what(capsys):
    assert main(["exact", "show", "tiny", "--documents", "2"]) == 0
    text = capsys.readouterr().out
    assert "4 words, 2 classes, 2 topics" in text
    assert "home: cat 75%, bird 25%" in text
    assert "yard: sings 75%, sleeps 25%" in text
    rows = [line.split() for line in text.splitlines()[-3:]]
    assert rows == [["first", "word", "100", "0"], ["thing", "0", "100"], ["deed", "100", "0"]]
    assert sum(line.startswith("  ") and len(line.split()) == 2 for line in text.splitlines()) == 4  # the sentences


def test_mistakes_on_the_command_line_are_answered_in_one_line(capsys):
    assert main(["exact", "floor", "mars"]) == 2
    assert "there is no language 'mars'" in capsys.readouterr().err
    assert main(["exact", "floor", "tiny", "--mask", "0.5"]) == 2
    assert "mask + random + keep must be 1" in capsys.readouterr().err
    assert main(["exact"]) == 2
    assert capsys.readouterr().err.startswith("mlmkit: Missing command")


@pytest.mark.parametrize("command", ["floor", "show"])
def test_the_help_of_each_command_names_all_languages(command, capsys):
    main(["exact", command, "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in LANGUAGES)
