"""Probes and calibration on a language of which the best possible answers are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import numbered_tokenizer, random_batch, small_model, tokenizer_of
from scipy.stats import binom
from torch import Tensor

from mlmkit.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from mlmkit.corpus import sample_corpus
from mlmkit.errors import UserError
from mlmkit.evaluation import evaluate
from mlmkit.exact import exact_batches, nsp_optimum, posterior
from mlmkit.inspection import (
    attention_habits,
    calibration,
    embedding_neighbors,
    linear_probe,
    probe_sentence_relation,
    probe_word_order,
    project_embeddings,
    reliability,
    untrained,
    word_classes,
)
from mlmkit.inspection import order as word_order
from mlmkit.inspection import relation as sentence_relation
from mlmkit.inspection.reading import clean_pairs, language_of
from mlmkit.intervals import share_of
from mlmkit.language import Language, draw_language, tiny_language
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import learning_rate, make_optimizer, train_step
from mlmkit.preparation import Data, prepare
from mlmkit.tokenizer import SPECIAL_TOKENS

CONFIG = RunConfig(
    data=DataConfig(max_length=13, short_seq_prob=0.0, held_out=0.2),
    masking=MaskingPolicy(count="binomial"),
    model=ModelConfig(
        vocab_size=17,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.08,
    ),
    train=TrainConfig(max_steps=400, batch_size=64, lr=8e-3, warmup_steps=40, precision="fp32", device="cpu"),
)
PAIRS = 1200
"""Pairs for a probe: its interval reaches about three points to each side."""


def small_language() -> Language:
    """Four classes in a circle, three words each; two topics that hardly share a word."""
    words = [group.split() for group in ("ba be bi", "da de di", "ka ke ki", "ma me mi")]
    return draw_language(6, words, name="small", topics=("one", "two"), lengths=(5, 5), peak=0.3)


@dataclass(frozen=True)
class Trained:
    model: BertForPreTraining
    data: Data
    language: Language


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A small BERT after four hundred updates: five seconds."""
    place, language = tmp_path_factory.mktemp("trained"), small_language()
    corpus = sample_corpus(language, 6000, held_out=0.2, cache_dir=place / "cache")
    data = prepare(CONFIG, place, place / "cache", corpus)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForPreTraining(CONFIG.model)
    optimizer = make_optimizer(model, CONFIG.train)
    for step, (_, _, batch) in zip(range(CONFIG.train.max_steps), data.batches("train", 0).forever(), strict=False):
        train_step(model, batch, optimizer, lr=learning_rate(step, CONFIG.train))
    return Trained(model.eval(), data, language)


# Shares and the linear probe


@pytest.mark.parametrize(("hits", "count"), [(0, 9), (9, 9), (3, 7), (520, 1000)])
def test_a_share_has_wilsons_interval(hits: int, count: int):
    found = share_of(hits, count)
    p, n, z = hits / count, count, 1.959963984540054
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found.value, found.count) == (p, n)
    assert found.low == pytest.approx(max(middle - half, 0), abs=1e-9)
    assert found.high == pytest.approx(min(middle + half, 1), abs=1e-9)


def test_the_interval_holds_the_true_probability_as_often_as_it_says():
    """On the average of all probabilities; at one of them a few per cent more or less, since a count has steps."""
    n, p = 60, np.linspace(0.05, 0.95, 181)
    shares = [share_of(hits, n) for hits in range(n + 1)]
    held = sum(binom.pmf(h, n, p) * ((s.low <= p) & (p <= s.high)) for h, s in enumerate(shares))
    assert held.mean() == pytest.approx(0.95, abs=0.005)
    assert 0.9 < held.min() < held.max() < 0.99


def test_a_share_is_told_with_its_interval():
    assert str(share_of(520, 1000)) == "52.0% (48.9% to 55.1%)"


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UserError, match="at least one answer"):
        share_of(0, 0)


def blobs(rng: np.random.Generator, n: int, far: float) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 2, n)
    return rng.normal(size=(n, 5)) + far * labels[:, None] * [1, 0, 0, 0, 0], labels


@pytest.mark.parametrize("seed", range(3))
def test_a_probe_finds_what_a_line_separates_and_nothing_in_noise(seed: int):
    rng = np.random.default_rng(seed)
    assert linear_probe(*blobs(rng, 400, 12.0), *blobs(rng, 400, 12.0)).accuracy.value == 1.0
    noise = linear_probe(*blobs(rng, 400, 0.0), *blobs(rng, 4000, 0.0)).accuracy
    assert abs(noise.value - 0.5) < 0.03  # four standard errors of 4000 coins
    best = linear_probe(*blobs(rng, 4000, 2.0), *blobs(rng, 4000, 2.0)).accuracy.value
    assert best == pytest.approx(0.841, abs=0.025)  # Φ(1), the best there is; four standard errors


def test_a_probe_cannot_tell_whether_two_signs_agree():
    """Which no linear rule can; two sentences on the same topic are such a question."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (4000, 2))
    agree = (signs[:, 0] == signs[:, 1]).astype(int)
    found = linear_probe(signs[:2000], agree[:2000], signs[2000:], agree[2000:])
    assert found.accuracy.value < 0.6
    product = signs.prod(1, keepdims=True)
    assert linear_probe(product[:2000], agree[:2000], product[2000:], agree[2000:]).accuracy.value == 1.0


def test_the_scale_of_a_column_does_not_matter():
    rng = np.random.default_rng(3)
    (known, answers), (asked, right) = blobs(rng, 300, 1.0), blobs(rng, 300, 1.0)
    scale, shift = np.array([1e-4, 1e4, 1.0, 30.0, 0.2]), np.arange(5.0)
    plain = linear_probe(known, answers, asked, right)
    assert linear_probe(known * scale + shift, answers, asked * scale + shift, right) == plain


def test_many_numbers_and_few_questions_are_learned_by_heart():
    rng = np.random.default_rng(4)
    known, asked = rng.normal(size=(80, 200)), rng.normal(size=(2000, 200))
    found = linear_probe(known, rng.integers(0, 2, 80), asked, rng.integers(0, 2, 2000))
    assert found.fitted.value > 0.95
    assert abs(found.accuracy.value - 0.5) < 0.045  # four standard errors of 2000 coins


def test_a_probe_without_questions_or_with_one_answer_is_refused():
    some = np.ones((3, 2))
    with pytest.raises(UserError, match="got 0 and 3"):
        linear_probe(np.ones((0, 2)), np.ones(0, int), some, np.ones(3, int))
    with pytest.raises(UserError, match="got 3 and 0"):
        linear_probe(some, np.ones(3, int), np.ones((0, 2)), np.ones(0, int))
    with pytest.raises(UserError, match="the same answer"):
        linear_probe(some, np.ones(3, int), some, np.ones(3, int))


# The relation of two sentences


def test_training_with_nsp_puts_the_relation_into_cls_where_a_line_can_read_it(trained: Trained):
    found = probe_sentence_relation(trained.model, trained.data, PAIRS)
    assert found.ceiling is not None
    assert found.cls.accuracy.value > found.ceiling.value - 0.05  # of what a perfect reader answers
    assert found.mean.accuracy.value > found.ceiling.value - 0.08
    assert found.head.value > found.ceiling.value - 0.05
    for control in (found.untrained_cls, found.untrained_mean, found.bag):
        assert control.accuracy.value < found.cls.accuracy.low - 0.05
        assert control.accuracy.count == found.ceiling.count >= PAIRS
    assert found.bag.accuracy.low < 0.5 + 0.02, "a bag of words tells the relation by a linear rule"


def test_the_ceiling_is_the_best_accuracy_that_there_is(tmp_path: Path):
    language = tiny_language()
    data = data_of(language, tmp_path, documents=4000)
    model = BertForPreTraining(replace(CONFIG.model, vocab_size=9))
    found = probe_sentence_relation(model, data, 800)
    visible = MaskingPolicy(rate=1e-9, mask=1.0, random=0.0, keep=0.0, count="binomial")
    best = nsp_optimum(language, np.random.default_rng(0), policy=visible, pairs=8000).accuracy
    assert found.ceiling is not None
    spread = math.sqrt(best.mean * (1 - best.mean) / found.ceiling.count)
    assert abs(found.ceiling.value - best.mean) < 4 * (spread + best.standard_error)


def test_what_the_probes_read_are_means_over_the_real_positions_and_the_vector_of_cls():
    model = small_model()
    batch = random_batch(model.config, [11, 5])
    with torch.no_grad():
        vectors = model.encoder(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        table = model.encoder.embeddings.token.weight
    found = sentence_relation._readouts(model, [batch, batch])
    for row, length in enumerate([11, 5]):
        expected = {
            "cls": vectors[row, 0],
            "mean": vectors[row, :length].mean(0),
            "bag": table[batch["input_ids"][row, :length]].mean(0),
        }
        for name, vector in expected.items():
            assert len(found[name]) == 4
            torch.testing.assert_close(found[name][row], vector, atol=1e-5, rtol=1e-5)  # sums in another order
            assert torch.equal(found[name][row], found[name][row + 2])


def test_the_same_questions_are_asked_at_every_call(trained: Trained):
    one, again = (probe_sentence_relation(trained.model, trained.data, 200) for _ in range(2))
    assert one == again


def data_of(language: Language, place: Path, documents: int = 400, **changes: object) -> Data:
    config = replace(CONFIG, data=replace(CONFIG.data, **changes))
    corpus = sample_corpus(language, documents, held_out=0.2, cache_dir=place / "cache")
    return prepare(config, place, place / "cache", corpus)


def test_a_perfect_reader_is_known_where_the_pairs_are_whole_and_the_words_the_languages(tmp_path: Path):
    data = data_of(small_language(), tmp_path)
    assert language_of(data) == data.corpus.language is not None
    for change in ({"max_length": 12}, {"short_seq_prob": 0.1}):
        cut = replace(data.config.data, **change)
        assert language_of(replace(data, config=replace(data.config, data=cut))) is None
    assert language_of(replace(data, tokenizer=numbered_tokenizer(12))) is None
    assert language_of(replace(data, corpus=replace(data.corpus, language=None))) is None


def test_without_a_perfect_reader_there_is_no_ceiling(trained: Trained):
    unknown = replace(trained.data, corpus=replace(trained.data.corpus, language=None))
    assert probe_sentence_relation(trained.model, unknown, 100).ceiling is None
    assert probe_word_order(trained.model, unknown, 100).ceiling is None


@pytest.mark.parametrize("probe", [probe_sentence_relation, probe_word_order])
def test_a_probe_needs_a_pair(probe, trained: Trained):
    with pytest.raises(UserError, match="at least one pair, got 0"):
        probe(trained.model, trained.data, 0)


# The order of words


def test_the_order_of_words_has_to_be_learned_and_is_read_from_the_layers(trained: Trained):
    found = probe_word_order(trained.model, trained.data, PAIRS)
    assert found.ceiling is not None
    layers = len(found.trained)
    assert layers == len(found.untrained) == len(found.control) == trained.model.config.num_hidden_layers + 1
    last = found.trained[-1].accuracy
    assert last.low > 0.58
    assert found.ceiling.value > 0.95 > last.value, "in this language a wrong order is nearly always seen"
    for probe in (found.trained[0], *found.untrained):
        assert probe.accuracy.value < 0.58, "order is read off what has not seen the neighbor, or learned nothing"
        assert probe.accuracy.value < last.low
    differences = [t.accuracy.value - c.accuracy.value for t, c in zip(found.trained, found.control, strict=True)]
    assert found.selectivity == pytest.approx(differences)


def test_a_perfect_reader_never_errs_where_a_wrong_order_cannot_occur(tmp_path: Path):
    """In the tiny language a thing is followed by what it does, never the other way."""
    model = BertForPreTraining(replace(CONFIG.model, vocab_size=9))
    found = probe_word_order(model, data_of(tiny_language(), tmp_path, documents=1000), 300)
    assert found.ceiling is not None
    assert found.ceiling.value == 1.0


def test_half_of_the_questions_have_two_neighboring_words_exchanged_and_nothing_else(trained: Trained):
    batches = clean_pairs(trained.data, "test", PAIRS)
    asked = word_order._ask(batches, trained.data.tokenizer, np.random.default_rng(0))
    places = torch.cat(asked.places)
    shown, true = (torch.cat([b["input_ids"] for b in some]) for some in (asked.shown, batches))
    assert len(shown) == len(true) == len(places), "a pair without two neighbors in this language?"
    assert (places[:, 1] == places[:, 0] + 1).all()
    changed = shown != true
    assert (changed.sum(1) == 2 * torch.from_numpy(asked.exchanged)).all()
    rows = torch.arange(len(places))[:, None]
    assert changed[rows, places].sum() == changed.sum()
    assert (asked.words == shown[rows, places].numpy()).all()
    assert (asked.words[:, 0] != asked.words[:, 1]).all()
    back = shown.clone()
    back[rows, places] = shown[rows, places.flip(1)]
    assert torch.equal(torch.where(torch.from_numpy(asked.exchanged == 1)[:, None], back, shown), true)
    assert abs(asked.exchanged.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(places))  # four standard errors
    assert len(set(places[:, 0].tolist())) == 8, "each place with a right neighbor is asked about"


def test_words_in_pieces_are_not_exchanged():
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, "play", "##ing", "well", "now"])
    play, ing, well, now = (tokenizer.id(token) for token in ("play", "##ing", "well", "now"))
    rows = [
        [tokenizer.cls_id, play, ing, well, now, tokenizer.sep_id],
        [tokenizer.cls_id, well, play, ing, now, tokenizer.sep_id],
        [tokenizer.cls_id, now, now, tokenizer.mask_id, well, play],
    ]
    found = word_order._neighbors(np.array(rows), tokenizer)
    assert [np.flatnonzero(row).tolist() for row in found] == [[3], [], [4]]


def test_text_without_two_neighbors_is_refused():
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, "a"])
    ids = torch.tensor([[tokenizer.cls_id, tokenizer.id("a"), tokenizer.id("a"), tokenizer.sep_id]])
    with pytest.raises(UserError, match="no two neighboring words"):
        word_order._ask([{"input_ids": ids}], tokenizer, np.random.default_rng(0))


def test_the_controls_coin_depends_on_the_two_words_and_their_order_alone(trained: Trained):
    asked = word_order._ask(clean_pairs(trained.data, "test", PAIRS), trained.data.tokenizer, np.random.default_rng(0))
    coins = word_order._coins(asked, 5)
    tossed = {tuple(two): coin for two, coin in zip(asked.words.tolist(), coins.tolist(), strict=True)}
    assert [tossed[tuple(two)] for two in asked.words.tolist()] == coins.tolist()
    assert {0, 1} == set(tossed.values())
    both = [(tossed[a, b], tossed[b, a]) for a, b in tossed if (b, a) in tossed]
    assert any(x != y for x, y in both), "the order of the two does not matter to the coin"
    assert (word_order._coins(asked, 6) != coins).any()


# What training does to the embeddings and the heads


def test_words_of_a_class_lie_together_after_training(trained: Trained):
    classes = word_classes(trained.language)
    after = project_embeddings(trained.model, trained.data.tokenizer, classes)
    assert after.purity is not None
    assert after.chance == pytest.approx(2 / 11)
    assert after.purity.low > after.chance
    for seed in range(3):
        before = project_embeddings(untrained(trained.model, seed), trained.data.tokenizer, classes)
        assert before.purity is not None
        assert before.purity.value < after.purity.value
    assert sum(after.explained) > sum(before.explained), "classes take up no direction of their own"


def test_mask_moves_away_from_where_it_began(trained: Trained):
    tokenizer = trained.data.tokenizer
    before, after = (embedding_neighbors(m, tokenizer) for m in (untrained(trained.model), trained.model))
    assert after.norm > 1.5 * before.norm
    assert after.tokens != before.tokens


def test_trained_heads_are_sharper_than_fresh_ones(trained: Trained):
    tokenizer, batches = trained.data.tokenizer, list(trained.data.held_out("test", 4))
    before, after = (attention_habits(m, tokenizer, batches) for m in (untrained(trained.model), trained.model))
    assert before.entropy.min() > 0.97 * before.even_entropy, "fresh weights read nearly all alike"
    assert after.entropy.min() < 0.8 * after.even_entropy
    neighbors = np.maximum(after.shares["previous"], after.shares["next"])
    assert neighbors.max() > 2 * after.even["next"], "no head reads the neighbors, which tell the class"
    assert before.even == after.even


# Calibration


def test_bins_are_of_equal_number_and_the_error_is_their_weighted_distance():
    found = reliability([0.9, 0.2, 0.3, 0.7, 1.0], [True, False, True, False, True], bins=2)
    low, high = found.bins
    assert (low.accuracy.count, high.accuracy.count) == (3, 2)
    assert low.confidence == pytest.approx(0.4)
    assert high.confidence == pytest.approx(0.95)
    assert low.accuracy.value == pytest.approx(1 / 3)
    assert high.accuracy.value == 1.0
    assert found.ece == pytest.approx(0.6 * abs(1 / 3 - 0.4) + 0.4 * 0.05)
    assert found.confidence == pytest.approx(3.1 / 5)
    assert found.accuracy.value == pytest.approx(3 / 5)
    spread = [math.sqrt(0.16 + 0.21 + 0.21) / 3, math.sqrt(0.09) / 2]
    assert found.chance == pytest.approx((0.6 * spread[0] + 0.4 * spread[1]) * math.sqrt(2 / math.pi))


def test_chance_is_the_mean_error_of_perfectly_calibrated_answers():
    rng = np.random.default_rng(0)
    p = rng.beta(2, 2, 600)
    errors = [reliability(p, rng.random(600) < p).ece for _ in range(80)]
    chance = reliability(p, rng.random(600) < p).chance
    # the errors spread by a quarter of their mean, so the mean of 80 is known to 3 %; 60 answers are nearly normal
    assert np.mean(errors) == pytest.approx(chance, rel=0.1)


def top_answers(p: Tensor, true: Tensor) -> tuple[np.ndarray, np.ndarray]:
    best, word = p.max(-1)
    return best.numpy(), (word == true).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_the_perfect_posterior_is_calibrated_and_a_sharpened_one_is_caught(seed: int):
    language, parts, truths = small_language(), [], []
    for batch in exact_batches(language, 4000, np.random.default_rng(seed)):
        selected = batch["labels"] != IGNORE
        parts.append(posterior(language, batch["input_ids"], selected))
        truths.append(batch["labels"][selected])
    p, true = torch.cat(parts), torch.cat(truths)
    perfect = reliability(*top_answers(p, true))
    assert perfect.ece < 2 * perfect.chance  # ten bins: the error spreads by a quarter of its mean
    assert sum(b.accuracy.low <= b.confidence <= b.accuracy.high for b in perfect.bins) >= 7  # of ten; 9.5 on average
    sharp = reliability(*top_answers((3 * p.log()).softmax(-1), true))
    assert sharp.ece > 5 * perfect.ece
    assert sharp.confidence > sharp.accuracy.high, "it claims too much"
    flat = reliability(*top_answers((0.3 * p.log()).softmax(-1), true))
    assert flat.ece > 5 * perfect.ece
    assert flat.confidence < flat.accuracy.low


@contextmanager
def sharpened(model: BertForPreTraining, by: float) -> Iterator[None]:
    """Multiply all scores for words."""
    hook = model.mlm.register_forward_hook(lambda module, args, scores: by * scores)
    try:
        yield
    finally:
        hook.remove()


def test_a_trained_model_is_nearly_calibrated_until_its_scores_are_tripled(trained: Trained):
    batches = list(trained.data.held_out("test"))
    found = calibration(trained.model, batches)
    metrics = evaluate(trained.model, batches)
    assert found.accuracy.count == metrics.selected == sum(b.accuracy.count for b in found.bins)
    assert found.accuracy.value == pytest.approx(metrics.mlm_accuracy)
    assert found.ece < 0.08
    with sharpened(trained.model, 3.0):
        sharp = calibration(trained.model, batches)
    assert sharp.accuracy.value == pytest.approx(found.accuracy.value), "the order of the answers was changed"
    assert sharp.ece > 2 * found.ece
    assert sharp.confidence > found.confidence + 0.05


def test_only_masks_are_judged_if_asked_for(trained: Trained):
    batches = list(trained.data.held_out("test"))
    mask_id = trained.data.tokenizer.mask_id
    found = calibration(trained.model, batches, bins=4, mask_id=mask_id)
    assert len(found.bins) == 4
    masks = sum(int(((b["labels"] != IGNORE) & (b["input_ids"] == mask_id)).sum()) for b in batches)
    selected = sum(int((b["labels"] != IGNORE).sum()) for b in batches)
    assert found.accuracy.count == masks < selected
    words = [replace_masks(b, mask_id) for b in batches]
    assert found.accuracy.value == pytest.approx(evaluate(trained.model, words).mlm_accuracy)


def replace_masks(batch: dict[str, Tensor], mask_id: int) -> dict[str, Tensor]:
    """The batch with labels at [MASK] alone."""
    return {**batch, "labels": batch["labels"].masked_fill(batch["input_ids"] != mask_id, IGNORE)}


@pytest.mark.parametrize(
    ("confidence", "right", "bins", "message"),
    [
        ([0.5], [True, False], 1, "one probability and one verdict"),
        ([[0.5]], [[True]], 1, r"got shapes \(1, 1\)"),
        ([0.5, 1.2], [True, True], 1, "got 0.5 to 1.2: softmax"),
        ([-0.1, 0.5], [True, True], 1, "got -0.1 to 0.5"),
        ([math.nan, 0.5], [True, True], 1, "got nan"),
        ([0.5, 0.5], [True, True], 3, "3 bins need at least as many answers, and one; got 2"),
        ([0.5, 0.5], [True, True], 0, "0 bins"),
        ([], [], 1, "got 0"),
    ],
)
def test_answers_that_cannot_be_judged_are_refused(confidence: list, right: list, bins: int, message: str):
    with pytest.raises(UserError, match=message):
        reliability(confidence, right, bins)
