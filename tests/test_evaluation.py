"""Evaluation: averages over everything that was asked, probabilities that sum to one, baselines by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers import random_batch, small_model, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmkit.errors import UserError
from mlmkit.evaluation import (
    Baselines,
    Candidate,
    Metrics,
    bigram_cross_entropy,
    evaluate,
    evaluation_mode,
    fill_mask,
    mlm_accuracy,
    nsp_accuracy,
    pseudo_log_likelihood,
    unigram_counts,
    unigram_cross_entropy,
    unigram_entropy,
)
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining


@pytest.fixture(scope="module")
def model() -> BertForPreTraining:
    return small_model(vocab_size=tiny_tokenizer().vocab_size)


# --- a held-out part -----------------------------------------------------------------------------------------


def test_every_selected_position_and_every_pair_counts_once(model: BertForPreTraining) -> None:
    """Batches of different size: the mean over all positions, which is not the mean of the batches' means."""
    batches = [random_batch(model.config, lengths, seed) for seed, lengths in enumerate([[12] * 6, [4], [9, 5]])]
    batches[1]["labels"][:, 2:] = IGNORE
    found = evaluate(model, batches)

    words: list[tuple[float, bool]] = []
    relations: list[tuple[float, bool]] = []
    for batch in batches:
        with torch.no_grad():
            output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        log_p = output.mlm_logits.double().log_softmax(-1)
        for b, s in (batch["labels"] != IGNORE).nonzero().tolist():
            true = int(batch["labels"][b, s])
            words.append((-float(log_p[b, s, true]), int(log_p[b, s].argmax()) == true))
        for row, true in zip(output.nsp_logits.double(), batch["next_sentence_label"].tolist(), strict=True):
            relations.append((-float(row.log_softmax(-1)[true]), int(row.argmax()) == true))
    assert (found.selected, found.pairs) == (len(words), len(relations))
    assert len(relations) == 9
    # fp32 against float64
    assert found.mlm_loss == pytest.approx(np.mean([loss for loss, _ in words]), rel=1e-5)
    assert found.nsp_loss == pytest.approx(np.mean([loss for loss, _ in relations]), rel=1e-5)
    assert found.mlm_accuracy == pytest.approx(np.mean([hit for _, hit in words]))
    assert found.nsp_accuracy == pytest.approx(np.mean([hit for _, hit in relations]))
    means = [evaluate(model, [batch]).mlm_loss for batch in batches]
    assert abs(np.mean(means) - found.mlm_loss) > 0.01  # the two ways do differ here


def test_how_the_text_is_cut_into_batches_does_not_change_the_result(model: BertForPreTraining) -> None:
    batch = random_batch(model.config, [8] * 10)
    parts = [{n: t[a:b] for n, t in batch.items()} for a, b in ((0, 1), (1, 7), (7, 10))]
    whole, cut = evaluate(model, [batch]), evaluate(model, parts)
    assert cut.to_dict() == pytest.approx(whole.to_dict(), rel=1e-5)


def test_a_batch_without_a_selected_position_still_counts_its_pairs(model: BertForPreTraining) -> None:
    batch, empty = random_batch(model.config, [8] * 4, 0), random_batch(model.config, [8] * 3, 1)
    empty["labels"].fill_(IGNORE)
    found, alone = evaluate(model, [empty, batch]), evaluate(model, [batch])
    assert (found.mlm_loss, found.mlm_accuracy, found.selected) == (
        alone.mlm_loss,
        alone.mlm_accuracy,
        alone.selected,
    )
    assert found.pairs == 7


def test_nothing_to_evaluate_is_an_error_and_not_a_loss_of_0(model: BertForPreTraining) -> None:
    empty = random_batch(model.config, [8] * 3)
    empty["labels"].fill_(IGNORE)
    for batches in ([], [empty]):
        with pytest.raises(UserError, match="nothing to evaluate"):
            evaluate(model, batches)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_model_has_no_finite_loss(value: float) -> None:
    """A NaN read as 0 would be the best model ever seen."""
    broken = small_model()
    with torch.no_grad():
        broken.mlm.decoder.bias[7] = value
        broken.nsp.relation.bias[0] = value
    batch = random_batch(broken.config, [8] * 3)
    found = evaluate(broken, [batch])
    assert not math.isfinite(found.mlm_loss)
    assert not math.isfinite(found.nsp_loss)


def test_evaluation_switches_dropout_and_gradients_off_and_puts_the_mode_back() -> None:
    model = small_model(hidden_dropout_prob=0.5)
    batch = random_batch(model.config, [8] * 3)
    for training in (True, False):
        model.train(training)
        first = evaluate(model, [batch])
        assert evaluate(model, [batch]) == first
        assert model.training is training
        with evaluation_mode(model):
            assert not model.training
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled()

    def failing() -> Iterator[dict[str, torch.Tensor]]:
        yield batch
        raise RuntimeError

    model.train()
    with pytest.raises(RuntimeError):
        evaluate(model, failing())
    assert model.training
    assert torch.is_grad_enabled()


def test_accuracy_is_the_share_of_highest_scores_that_are_true() -> None:
    logits = torch.tensor([[[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
    labels = torch.tensor([[1, IGNORE], [0, 0]])
    assert float(mlm_accuracy(logits, labels)) == pytest.approx(2 / 3)
    assert float(mlm_accuracy(logits.reshape(4, 3), labels.reshape(4))) == pytest.approx(2 / 3)
    assert float(nsp_accuracy(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))) == 0.5


def test_metrics_are_plain_numbers() -> None:
    metrics = Metrics(1.0, 0.5, 0.7, 0.6, 10, 4)
    assert metrics.to_dict() == {
        **{"mlm_loss": 1.0, "mlm_accuracy": 0.5, "nsp_loss": 0.7, "nsp_accuracy": 0.6},
        **{"selected": 10, "pairs": 4},
    }


# --- reading single sentences --------------------------------------------------------------------------------


def by_hand(model: BertForPreTraining, ids: list[int], position: int) -> list[float]:
    """The distribution at one position: scores, exponentials, their sum."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).mlm_logits[0, position].double().tolist()
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def test_the_probabilities_at_a_mask_are_a_softmax_over_the_whole_vocabulary(model: BertForPreTraining) -> None:
    tokenizer = tiny_tokenizer()
    text = "Ba [MASK] ki."
    [found] = fill_mask(model, tokenizer, text, top=10**6)
    assert len(found) == tokenizer.vocab_size
    assert sum(c.probability for c in found) == pytest.approx(1, abs=1e-5)  # V numbers in fp32
    ids, _ = tokenizer.pair_ids(text)
    expected = by_hand(model, ids, ids.index(tokenizer.mask_id))
    for candidate in found:
        assert candidate.probability == pytest.approx(expected[candidate.id], rel=1e-4, abs=1e-7)
        assert tokenizer.tokens([candidate.id]) == [candidate.token]
    probabilities = [c.probability for c in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert found[0].id == int(np.argmax(expected))


def test_every_mask_has_its_own_candidates_given_the_same_corrupted_text(model: BertForPreTraining) -> None:
    tokenizer = tiny_tokenizer()
    text = "[MASK] ba [MASK] [MASK]."
    found = fill_mask(model, tokenizer, text, top=3)
    assert [len(candidates) for candidates in found] == [3, 3, 3]
    ids, _ = tokenizer.pair_ids(text)
    positions = [i for i, token in enumerate(ids) if token == tokenizer.mask_id]
    for candidates, position in zip(found, positions, strict=True):
        expected = by_hand(model, ids, position)
        assert [c.id for c in candidates] == np.argsort(expected)[::-1][:3].tolist()
    assert isinstance(found[0][0], Candidate)
    assert len(fill_mask(model, tokenizer, text)[0]) == 5


def test_a_text_without_mask_is_refused(model: BertForPreTraining) -> None:
    with pytest.raises(UserError, match=r"there is no \[MASK\] in 'ba \[mask\]'"):
        fill_mask(model, tiny_tokenizer(), "ba [mask]")


def test_a_text_longer_than_the_model_reads_is_refused_with_both_lengths(model: BertForPreTraining) -> None:
    tokenizer = tiny_tokenizer()
    longest = " ".join(["ba"] * 29 + ["[MASK]"])  # 32 with [CLS] and [SEP]
    assert len(fill_mask(model, tokenizer, longest)) == 1
    for read in (fill_mask, pseudo_log_likelihood):
        with pytest.raises(UserError, match=r"the text has 33 tokens .*; this model reads at most 32"):
            read(model, tokenizer, f"{longest} ba")


@pytest.mark.parametrize("words", [1, 4, 30])
def test_pseudo_log_likelihood_hides_each_token_in_turn(model: BertForPreTraining, words: int) -> None:
    tokenizer = tiny_tokenizer()
    text = " ".join((["ba", "ki", "lo", ",", "ki"] * 6)[:words])
    ids, _ = tokenizer.pair_ids(text)
    assert len(ids) == words + 2
    expected = 0.0
    for i in range(1, len(ids) - 1):
        hidden = [*ids[:i], tokenizer.mask_id, *ids[i + 1 :]]
        expected += math.log(by_hand(model, hidden, i)[ids[i]])
    assert pseudo_log_likelihood(model, tokenizer, text) == pytest.approx(expected, rel=1e-5)


def test_a_long_text_is_scored_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty tokens, sixty sequences, but never more than 32 at a time: a text of 512 must fit into memory."""
    tokenizer = tiny_tokenizer()
    model = small_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=64)
    sizes: list[int] = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda ids, *rest, **named: sizes.append(len(ids)) or forward(ids, *rest, **named)
    )
    pseudo_log_likelihood(model, tokenizer, " ".join(["ba"] * 60))
    assert sizes == [32, 28]


def test_special_tokens_are_no_words_to_be_scored(model: BertForPreTraining) -> None:
    """A [MASK] in the text stays hidden while the others are scored."""
    tokenizer = tiny_tokenizer()
    ids, _ = tokenizer.pair_ids("ba [MASK] ki")
    expected = 0.0
    for i in (1, 3):
        hidden = [*ids[:i], tokenizer.mask_id, *ids[i + 1 :]]
        expected += math.log(by_hand(model, hidden, i)[ids[i]])
    assert pseudo_log_likelihood(model, tokenizer, "ba [MASK] ki") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("text", ["", "  ", "[MASK]", "日"])
def test_a_text_without_a_known_word_has_no_likelihood(model: BertForPreTraining, text: str) -> None:
    with pytest.raises(UserError, match="at least one known token"):
        pseudo_log_likelihood(model, tiny_tokenizer(), text)


def test_an_unlikely_token_costs_its_logits_and_not_infinity() -> None:
    """At a probability of e⁻²⁰⁰, fp32 knows only 0: the logarithm must be taken before the exponential."""
    tokenizer = tiny_tokenizer()
    model = small_model(vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        model.mlm.decoder.bias[tokenizer.id("ba")] = -200.0
    assert -230 < pseudo_log_likelihood(model, tokenizer, "ba") < -180


def test_reading_leaves_the_mode_of_the_model_as_it_was() -> None:
    tokenizer = tiny_tokenizer()
    model = small_model(vocab_size=tokenizer.vocab_size, hidden_dropout_prob=0.5)
    for training in (True, False):
        model.train(training)
        assert fill_mask(model, tokenizer, "ba [MASK]") == fill_mask(model, tokenizer, "ba [MASK]")
        pseudo_log_likelihood(model, tokenizer, "ba ki")
        assert model.training is training


# --- baselines -----------------------------------------------------------------------------------------------


def test_token_counts_add_up_over_the_parts_of_a_text() -> None:
    parts = [np.array([0, 2, 2]), np.array([], dtype=np.int64), np.array([3, 2])]
    assert unigram_counts(parts, 5).tolist() == [1, 0, 3, 1, 0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any))
def test_unigram_entropy_is_minus_the_sum_of_p_log_p(counts: list[int]) -> None:
    total = sum(counts)
    expected = -sum(c / total * math.log(c / total) for c in counts if c)
    found = unigram_entropy(np.array(counts))
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 <= found + 1e-12 <= math.log(len(counts)) + 1e-9


def test_unigram_cross_entropy_asks_the_training_text_and_never_calls_a_token_impossible() -> None:
    held_out, train = np.array([3, 1, 1]), np.array([6, 1, 0])
    expected = -(3 * math.log(7 / 10) + math.log(2 / 10) + math.log(1 / 10)) / 5  # add-one: 7, 2 and 1 of 10
    assert unigram_cross_entropy(held_out, train) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=9))
def test_no_frequencies_beat_the_texts_own(counts: list[tuple[int, int]]) -> None:
    """Gibbs: cross-entropy is never below entropy, which is why the entropy is the strict baseline."""
    held_out, train = np.array(counts).T
    held_out[0] += 1
    assert unigram_cross_entropy(held_out, train) >= unigram_entropy(held_out) - 1e-12


def test_guessing_the_relation_costs_ln_2() -> None:
    assert Baselines(
        uniform=5.0, unigram_cross_entropy=4.0, unigram_entropy=3.9, bigram_cross_entropy=3.5
    ).coin == math.log(2)


# --- neighbors -------------------------------------------------------------------------------------------------


def neighbors(*texts: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array(t[:-1]), np.array(t[1:])) for t in texts]


def test_a_bigram_table_pays_what_witten_and_bells_rule_says() -> None:
    """Counted by hand: after 0 come 1, 1, 2; after 1 comes 0. V = 4."""
    train = neighbors([0, 1, 0, 1], [0, 2])
    single = np.array([1, 2, 1, 0]) + 1.0  # how often each stands on the right, plus one
    single /= single.sum()
    after_0 = (np.array([0, 2, 1, 0]) + 2 * single) / (3 + 2)
    expected = -(math.log(after_0[1]) + math.log(after_0[3]) + math.log(single[1])) / 3
    assert bigram_cross_entropy(neighbors([0, 1], [0, 3], [3, 1]), train, 4) == pytest.approx(expected, abs=1e-12)


def test_how_the_training_text_is_cut_does_not_change_a_bigram_table() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 20, (2, 500))
    whole, parts = [(left, right)], [(left[:100], right[:100]), (left[100:], right[100:])]
    once, in_parts = bigram_cross_entropy(whole, whole, 20), bigram_cross_entropy(parts, parts, 20)
    assert once == pytest.approx(in_parts, abs=1e-12)  # sums in another order


def test_a_bigram_table_reaches_the_entropy_of_a_word_given_its_left_neighbor() -> None:
    """Each token decides between two next ones: the entropy given the left neighbor is ln 2."""
    rng = np.random.default_rng(0)
    text = [0]
    for bit in rng.integers(0, 2, 40_000):
        text.append((2 * text[-1] + int(bit)) % 16)
    loss = bigram_cross_entropy(neighbors(text[30_000:]), neighbors(text[:30_000]), 16)
    assert loss == pytest.approx(math.log(2), abs=0.01)  # 30,000 pairs for 32 probabilities
    counts = np.bincount(text, minlength=16)
    assert loss < unigram_entropy(counts) - 1.9  # ln 16 = 2.77


def test_a_bigram_table_without_training_text_says_all_are_equal() -> None:
    assert bigram_cross_entropy(neighbors([0, 1, 2]), [], 8) == pytest.approx(math.log(8))


def test_only_so_much_training_text_is_read_for_a_bigram_table() -> None:
    first, second = neighbors([0, 1, 0, 1]), neighbors([0, 2, 0, 2])
    assert bigram_cross_entropy(first, first + second, 4, limit=3) == bigram_cross_entropy(first, first, 4)
