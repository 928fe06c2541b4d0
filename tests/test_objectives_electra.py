"""ELECTRA: what counts as replaced, what gradient flows where, and how well a replaced word can be found at all."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from helpers import small_config, within_binomial_bounds
from torch import Tensor

from mlmkit.exact.inference import CLS_ID, FIRST_WORD, MASK_ID, SEP_ID
from mlmkit.language import Language, draw_language, language_named, tiny_language
from mlmkit.objectives.electra import (
    GAPS,
    Electra,
    bit_entropy,
    compare_generator,
    draw_gaps,
    electra_losses,
    rtd_loss,
    sample_words,
    train_electra,
)
from mlmkit.objectives.perfect_generator import gibbs_step, replaced_probability, train_detector
from mlmkit.objectives.training import SHORT_RUN, draw_documents, draw_sentences, is_word, network

EXACT = 1e-9
"""Sums of a few hundred float64 numbers."""

VOCABULARY = FIRST_WORD + len(language_named("market").words)


def small_pair(seed: int = 0) -> Electra:
    torch.manual_seed(seed)
    return Electra(small_config(vocab_size=VOCABULARY, initializer_range=0.3))


def batch(language: Language, count: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, np.random.Generator]:
    rng = np.random.default_rng(seed)
    x = draw_documents(language, count, rng)
    return x, draw_gaps(x, rng), rng


@cache
def short_documents(length: int = 3) -> Language:
    """Twelve words in three classes that take turns, two topics with favorite words: some words are nearly certain."""
    groups = [list("abcd"), list("efgh"), list("ijkl")]
    return draw_language(
        3, groups, topics=("one", "other"), lengths=(length, length), peak=0.1, follows=[[1], [2], [0]]
    )


# --- what the discriminator is asked -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_only_masked_words_change_and_a_right_guess_counts_as_original(seed: int) -> None:
    model = small_pair(seed)
    x, selected, rng = batch(language_named("market"), 64, seed)
    losses = electra_losses(model, x, selected, rng)
    assert torch.equal(losses.seen[~selected], x[~selected])
    assert torch.equal(losses.replaced, losses.seen != x)
    right = selected & (losses.seen == x)
    assert right.any(), "some guesses hit the true word by chance"
    assert not losses.replaced[right].any()
    assert is_word(losses.seen[is_word(x)]).all(), "no special token is ever put in, [MASK] least of all"


def test_a_generator_that_knows_the_answer_replaces_nothing() -> None:
    model = small_pair()
    x, selected, rng = batch(tiny_language())
    x = torch.where(is_word(x), FIRST_WORD, x)
    with torch.no_grad():
        model.generator.mlm.decoder.bias[FIRST_WORD] = 1e6
    losses = electra_losses(model, x, selected, rng)
    assert selected.any()
    assert torch.equal(losses.seen, x)
    assert not losses.replaced.any()
    assert losses.mlm == 0


def test_words_are_drawn_with_the_probabilities_of_the_generator() -> None:
    p = np.array([0.5, 0.3, 0.0, 0.2])
    with np.errstate(divide="ignore"):
        logits = torch.tensor(np.log([0.9] * FIRST_WORD + p.tolist()))
    drawn = sample_words(logits.expand(50_000, -1), np.random.default_rng(0)).numpy()
    for n, probability in enumerate(p):
        assert within_binomial_bounds(int((drawn == FIRST_WORD + n).sum()), 50_000, probability)
    assert set(drawn) == {5, 6, 8}


def test_each_word_is_masked_by_itself_at_the_rate_and_special_tokens_never_are() -> None:
    x = draw_documents(language_named("market"), 2000, np.random.default_rng(0))
    selected = draw_gaps(x, np.random.default_rng(1))
    assert not selected[~is_word(x)].any()
    assert within_binomial_bounds(int(selected.sum()), int(is_word(x).sum()), GAPS.rate)
    assert (GAPS.mask, GAPS.random, GAPS.keep) == (1, 0, 0), "the generator's gaps are always [MASK]"


def test_the_discriminator_is_judged_at_every_word_and_only_there() -> None:
    logits = torch.tensor([[5.0, 1.0, -2.0, 5.0]])
    replaced = torch.tensor([[False, True, False, False]])
    words = torch.tensor([[False, True, True, False]])
    by_hand = (-math.log(1 / (1 + math.exp(-1.0))) - math.log(1 - 1 / (1 + math.exp(2.0)))) / 2
    assert rtd_loss(logits, replaced, words).item() == pytest.approx(by_hand, abs=1e-6)  # fp32


def test_the_loss_is_mlm_plus_lambda_times_rtd() -> None:
    model = small_pair()
    x, selected, _ = batch(language_named("market"))
    for weight in (0.0, 1.0, 50.0):
        losses = electra_losses(model, x, selected, np.random.default_rng(1), weight)
        torch.testing.assert_close(losses.total, losses.mlm + weight * losses.rtd)
    default = electra_losses(model, x, selected, np.random.default_rng(1))
    assert default.total == losses.total, "λ is 50 if nothing is said"
    by_hand = rtd_loss(model.discriminator(losses.seen), losses.replaced, is_word(x))
    torch.testing.assert_close(losses.rtd, by_hand)


# --- not adversarial -----------------------------------------------------------------------------------------


def gradients(model: Electra, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("seed", range(3))
def test_the_discriminator_teaches_the_generator_nothing_but_through_the_shared_embeddings(seed: int) -> None:
    model = small_pair(seed)
    x, selected, _ = batch(language_named("market"), seed=seed)

    def losses(weight: float = 50.0):
        return electra_losses(model, x, selected, np.random.default_rng(seed), weight)

    both, mlm, rtd = (gradients(model, loss) for loss in (losses().total, losses().mlm, losses().rtd))
    shared = {f"generator.encoder.embeddings.{table}.weight" for table in ("token", "position")}
    generator = {name for name in both if name.startswith("generator.")}
    assert shared < generator
    for name in generator - shared:
        assert torch.equal(both[name], mlm[name]), name
        assert name not in rtd, name
    # two sums of the same fp32 numbers in another order; the gradients reach a size of 10
    for name in shared:
        assert rtd[name].any()
        torch.testing.assert_close(both[name], mlm[name] + 50 * rtd[name], rtol=1e-4, atol=1e-4)
    for name in set(both) - generator:
        torch.testing.assert_close(both[name], 50 * rtd[name], rtol=1e-4, atol=1e-4)
        assert name not in mlm, "the generator's loss does not move the discriminator"


def test_token_and_position_embeddings_are_one_table_for_both_and_the_generator_is_smaller() -> None:
    model = small_pair()
    own, shared = model.discriminator.encoder.embeddings, model.generator.encoder.embeddings
    assert own.token.weight is shared.token.weight is model.generator.mlm.decoder.weight
    assert own.position.weight is shared.position.weight
    assert own.segment.weight is not shared.segment.weight
    assert len(model.generator.encoder.layers) < len(model.discriminator.encoder.layers)
    assert not own.token.weight[0].any(), "[PAD] stays 0"


def test_the_discriminator_reads_the_whole_text_and_padding_changes_nothing() -> None:
    model = small_pair().eval().discriminator
    x, _, _ = batch(tiny_language(), 4)
    logits = model(x)
    assert logits.shape == x.shape
    longer = torch.nn.functional.pad(x, (0, 5))
    # the same fp32 sums over longer rows
    torch.testing.assert_close(model(longer, longer != 0)[:, : x.shape[1]], logits, rtol=1e-5, atol=1e-5)
    changed = x.clone()
    changed[:, -2] = FIRST_WORD + 20
    assert ((model(changed) - logits).abs() > 1e-4).all(), "every position sees every other"


# --- the perfect generator -----------------------------------------------------------------------------------
# By enumeration: no code is shared with the library.


def document_law(language: Language) -> dict[tuple[int, ...], float]:
    """Pr(document) of all word numbers, by summing over topics and classes."""
    N, C = len(language.words), len(language.classes)
    law: dict[tuple[int, ...], float] = defaultdict(float)
    for words in itertools.product(range(N), repeat=sum(language.lengths)):
        for k, prior in enumerate(language.topic):
            p, at = prior, 0
            for length in language.lengths:
                sentence = words[at : at + length]
                at += length
                total = 0.0
                for classes in itertools.product(range(C), repeat=length):
                    q = language.start[classes[0]]
                    for c, d in itertools.pairwise(classes):
                        q *= language.transition[c, d]
                    total += q * math.prod(language.emission[k, c, n] for c, n in zip(classes, sentence, strict=True))
                p *= total
            law[words] += p
    return {words: p for words, p in law.items() if p > 0}


def random_language(rng: np.random.Generator) -> Language:
    K, C, N = rng.integers(1, 4), rng.integers(1, 3), rng.integers(2, 4)

    def rows(*shape: int) -> np.ndarray:
        return rng.dirichlet(np.full(shape[-1], 0.5), shape[:-1])

    lengths = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    names = tuple("abcdef")
    return Language("random", names[:N], names[:K], names[:C], rows(K), rows(C), rows(C, C), rows(K, C, N), lengths)


def document_ids(language: Language, documents: list[tuple[int, ...]]) -> Tensor:
    first = language.lengths[0]
    rows = [
        [CLS_ID, *(FIRST_WORD + n for n in d[:first]), SEP_ID, *(FIRST_WORD + n for n in d[first:]), SEP_ID]
        for d in documents
    ]
    return torch.tensor(rows)


@pytest.mark.parametrize("seed", range(20))
def test_what_can_be_known_of_a_replaced_word_is_what_enumeration_says(seed: int) -> None:
    """Pr(x), a place, a word from Pr(x_i | x_{−i}): the joint law of x and x̂, and Bayes' rule from x̂ back to x."""
    language = random_language(np.random.default_rng(seed))
    law = document_law(language)
    n = sum(language.lengths)
    others: dict[tuple[int, ...], float] = defaultdict(float)
    for (words, p), i in itertools.product(law.items(), range(n)):
        others[(i, *words[:i], *words[i + 1 :])] += p
    seen_law: dict[tuple[int, ...], float] = defaultdict(float)
    changed: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(n))
    for (words, p), i, new in itertools.product(law.items(), range(n), range(len(language.words))):
        seen = (*words[:i], new, *words[i + 1 :])
        q = p / n * law.get(seen, 0.0) / others[(i, *words[:i], *words[i + 1 :])]
        seen_law[seen] += q
        changed[seen][i] += q * (new != words[i])
    documents = [words for words, p in seen_law.items() if p > 0]
    assert {words: seen_law[words] for words in documents} == pytest.approx(law, abs=EXACT), "x̂ is text like any other"
    x = document_ids(language, documents)
    found = replaced_probability(language, x)
    wanted = np.stack([changed[words] / seen_law[words] for words in documents])
    np.testing.assert_allclose(found[is_word(x)].view(-1, n).numpy(), wanted, rtol=0, atol=EXACT)
    assert not found[~is_word(x)].any()
    assert (found <= 1 / n + EXACT).all(), "no word is ever suspicious by more than 1/n"


def test_a_gibbs_step_changes_at_most_one_word_and_each_place_equally_often() -> None:
    language = language_named("market")
    rng = np.random.default_rng(0)
    for draw in (draw_documents, draw_sentences):
        x = draw(language, 2000, rng)
        seen = gibbs_step(language, x, rng)
        replaced = seen != x
        assert (replaced.sum(1) <= 1).all()
        assert not replaced[~is_word(x)].any()
        assert is_word(seen[is_word(x)]).all()
        expected = replaced_probability(language, x)  # x is distributed as x̂ is
        words = is_word(x)
        # each place within five standard errors of its own expectation
        for i in words[0].nonzero()[:, 0].tolist():
            p = expected[:, i].mean().item()
            assert abs(replaced[:, i].double().mean().item() - p) < 5 * math.sqrt(p / 2000)


def test_the_perfect_generator_draws_from_what_all_other_words_say() -> None:
    """Also from those of the other sentence, which has the same topic."""
    language, count = tiny_language(), 20_000
    law, document = document_law(language), (0, 2, 1, 2)
    wanted: dict[tuple[int, ...], float] = defaultdict(float)
    for i in range(4):
        fits = {(*document[:i], n, *document[i + 1 :]) for n in range(4)} & law.keys()
        for words in fits:
            wanted[words] += law[words] / sum(law[other] for other in fits) / 4
    x = document_ids(language, [document] * count)
    seen = gibbs_step(language, x, np.random.default_rng(0))
    drawn = Counter(map(tuple, (seen[is_word(seen)].view(count, 4) - FIRST_WORD).tolist()))
    assert drawn.keys() <= wanted.keys()
    for words, p in wanted.items():
        assert within_binomial_bounds(drawn[words], count, p)


@pytest.mark.parametrize("seed", range(3))
def test_the_stated_probabilities_are_calibrated(seed: int) -> None:
    """Of the words that are said to be replaced with probability p, the share p is."""
    language = short_documents()
    rng = np.random.default_rng(seed)
    x = draw_documents(language, 20_000, rng)
    seen = gibbs_step(language, x, rng)
    words = is_word(x)
    stated, true = replaced_probability(language, seen)[words], (seen != x)[words]
    edges = stated.quantile(torch.linspace(0, 1, 6, dtype=torch.float64)[1:-1])
    group = torch.bucketize(stated, edges)
    for g in range(5):
        here = group == g
        p, share = stated[here].mean().item(), true[here].double().mean().item()
        assert abs(share - p) < 5 * math.sqrt(p / int(here.sum())), (g, p, share)


def test_entropy_of_a_bit_is_highest_at_one_half() -> None:
    assert bit_entropy(0.5) == pytest.approx(math.log(2))
    assert bit_entropy(0.0) == bit_entropy(1.0) == 0
    assert bit_entropy(0.1) == pytest.approx(-0.1 * math.log(0.1) - 0.9 * math.log(0.9))


# --- training ------------------------------------------------------------------------------------------------


def test_a_short_joint_run_lowers_both_losses_and_follows_from_its_seed() -> None:
    train = replace(SHORT_RUN, max_steps=40, batch_size=32, warmup_steps=5, eval_every=20, precision="fp32")
    language = tiny_language()
    size = network(language, layers=1, hidden=16)
    first, second = (train_electra(language, config=size, train=train, questions=500) for _ in range(2))
    assert [point.loss for point in first.curve] == [point.loss for point in second.curve]
    assert first.curve[0].loss > first.curve[1].loss
    assert first.detection == second.detection
    other = train_electra(language, config=size, train=replace(train, seed=1), questions=500)
    assert other.curve[-1].loss != first.curve[-1].loss
    assert first.baseline == bit_entropy(first.share)


DETECTOR = {"max_steps": 500, "batch_size": 256, "warmup_steps": 50}


@pytest.mark.slow
def test_against_the_perfect_generator_a_discriminator_comes_near_the_floor_and_never_below() -> None:
    language = short_documents()
    run = train_detector(language, config=network(language, hidden=32), train=replace(SHORT_RUN, **DETECTOR))
    result = run.result
    assert result.gap > -3 * result.standard_error
    # of what can be known beyond the mere number of replaced words, at least two thirds are known; measured: 0.82
    assert result.gap < (run.baseline - result.floor) / 3
    assert result.floor < run.baseline - 0.015


@pytest.mark.slow
def test_generator_and_discriminator_learn_together() -> None:
    language = short_documents(6)
    train = replace(SHORT_RUN, max_steps=700, batch_size=128, warmup_steps=50, grad_clip=50.0)
    run = train_electra(language, config=network(language, hidden=32), train=train)
    assert run.generator.gap > -3 * run.generator.standard_error
    assert run.generator.gap < 0.06  # twice what was measured; the unigram entropy lies 1.5 above the floor
    # the standard error of the mean of 49,152 losses of size 1 or less is below 0.005
    assert run.detection < run.baseline - 0.01
    assert run.errors <= run.share + 1e-3, "no worse than always saying original"

    x, selected, rng = batch(language, 2000, seed=5)
    with torch.no_grad():
        losses = electra_losses(run.model, x, selected, rng)
    hits = selected & (losses.seen == x)
    assert hits.sum() > 0.3 * selected.sum(), "a trained generator is often right"
    assert not losses.replaced[hits].any()
    assert losses.logits[losses.replaced].mean() > losses.logits[hits].mean() + 0.2
    assert not (losses.seen == MASK_ID).any()


def test_a_generator_is_compared_on_its_own_gaps() -> None:
    """Uniform scores cost log V; the floor is that of enumeration, in documents whose sentences share their topic."""
    language = tiny_language()
    model = small_pair().generator
    with torch.no_grad():
        for parameter in model.mlm.parameters():
            parameter.zero_()
    x, selected, _ = batch(language, 60)
    result = compare_generator(language, model, x, selected)
    assert result.loss == pytest.approx(math.log(VOCABULARY), abs=1e-5)  # fp32
    assert result.questions == int(selected.sum())

    law = document_law(language)
    losses = []
    for row, gaps in zip((x - FIRST_WORD)[:, [1, 2, 4, 5]].tolist(), selected[:, [1, 2, 4, 5]].tolist(), strict=True):
        fits = {d: p for d, p in law.items() if all(g or n == m for g, n, m in zip(gaps, row, d, strict=True))}
        for i in range(4):
            if gaps[i]:
                right = sum(p for d, p in fits.items() if d[i] == row[i])
                losses.append(-math.log(right / sum(fits.values())))
    assert result.floor == pytest.approx(np.mean(losses), abs=EXACT)
