"""Sentence pairs: both relations equally often, random seconds from elsewhere, and nothing that gives them away.

In most tests each token of a document is a number of its own, so a pair says where its tokens come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import FIRST, numbered_block, numbered_table, numbered_tokenizer, random_documents, within_binomial_bounds
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlmkit.corpus import Corpus
from mlmkit.errors import UserError
from mlmkit.pairs import (
    IS_NEXT,
    IS_RANDOM,
    Block,
    Pairs,
    _kept,
    _publish,
    lay_out,
    make_pairs,
    read_block,
    token_ids,
    tokenize_corpus,
)
from mlmkit.tokenizer import train_wordpiece

UNTRIMMED = 10_000
"""A length at which no pair of these tests is shortened."""


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs_of(documents: Sequence[Sequence[int]], max_length: int, seed: int = 0, short: float = 0.1) -> Pairs:
    return make_pairs(numbered_block(documents), max_length, generator(seed), short)


def document_of(block: Block, token: NDArray[Any]) -> NDArray[Any]:
    """Number of the document in which the token at a place of the block stands."""
    return np.searchsorted(block.sentences[block.documents], token, side="right") - 1


def prose_like(seed: int = 0, count: int = 4000) -> list[list[int]]:
    """Short documents of varied sentences, the hard case: chunks end where documents end."""
    return random_documents(generator(seed), count)


# --- the layout ----------------------------------------------------------------------------------------------


def test_a_pair_is_laid_out_as_cls_a_sep_b_sep_with_the_first_separator_in_segment_0() -> None:
    block, tokenizer = numbered_block([[2, 3], [1, 1]]), numbered_tokenizer(7)
    one = np.array([0])
    pairs = Pairs(one, one + 2, one + 2, one + 5, one + IS_NEXT, one, one)
    ids, segments, real = lay_out(block, pairs, one, tokenizer)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert ids.tolist() == [[cls, 5, 6, sep, 7, 8, 9, sep]]
    assert segments.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    assert real.all()


def test_pairs_of_different_length_are_padded_to_the_longest_rounded_up() -> None:
    block, tokenizer = numbered_block([[2, 3], [4, 5]]), numbered_tokenizer(14)
    start, middle, end, document = np.array([[0, 5], [2, 9], [5, 14], [0, 1]])
    pairs = Pairs(start, middle, middle, end, document * 0, document, document)
    for multiple_of, width in ((8, 16), (1, 12), (5, 15)):
        ids, segments, real = lay_out(block, pairs, np.array([1, 0]), tokenizer, multiple_of)
        assert ids.shape == segments.shape == real.shape == (2, width)
        assert real.sum(axis=1).tolist() == [12, 8]  # in the order of the rows asked for
        assert (ids[~real] == tokenizer.pad_id).all()
        assert (segments[~real] == 0).all()
        assert ids[1][:8].tolist() == [2, 5, 6, 3, 7, 8, 9, 3]
        assert segments[0][:12].tolist() == [0] * 6 + [1] * 6


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(8, 80))
def test_whatever_the_pair_its_row_is_cls_a_sep_b_sep_and_padding(seed: int, max_length: int) -> None:
    block = numbered_block([[3, 4], *random_documents(generator(seed), 5), [1, 9, 2]])
    pairs, tokenizer = make_pairs(block, max_length, generator(seed)), numbered_tokenizer(2000)
    rows = generator(seed).permutation(len(pairs))
    ids, segments, real = lay_out(block, pairs, rows, tokenizer)
    for i, row in enumerate(rows.tolist()):
        a = block.tokens[pairs.a_start[row] : pairs.a_end[row]].tolist()
        b = block.tokens[pairs.b_start[row] : pairs.b_end[row]].tolist()
        expected = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
        padding = ids.shape[1] - len(expected)
        assert ids[i].tolist() == expected + [tokenizer.pad_id] * padding
        assert segments[i].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * padding
        assert real[i].tolist() == [True] * len(expected) + [False] * padding
        assert pairs.lengths[row] == len(expected) <= max_length


# --- the relation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("documents", [prose_like(), [[5, 9]] * 6000, [[7] * 9000, [6] * 9000]])
def test_half_of_the_pairs_are_random(documents: list[list[int]]) -> None:
    """Each label is a toss of a fair coin, so the first n labels of a block are binomial (n, ½)."""
    labels = pairs_of(documents, 64).label
    n = 1500
    assert len(labels) > n
    assert within_binomial_bounds((labels[:n] == IS_RANDOM).sum(), n, 0.5)
    assert set(labels.tolist()) == {IS_NEXT, IS_RANDOM} == {0, 1}


def test_a_random_second_is_never_from_the_same_document() -> None:
    block = numbered_block(prose_like())
    pairs = make_pairs(block, 64, generator())
    random = pairs.label == IS_RANDOM
    assert (pairs.a_document != pairs.b_document)[random].all()
    for start, end, document in (
        (pairs.a_start, pairs.a_end, pairs.a_document),
        (pairs.b_start, pairs.b_end, pairs.b_document),
    ):
        np.testing.assert_array_equal(document_of(block, start), document)
        np.testing.assert_array_equal(document_of(block, end - 1), document)


def test_with_two_documents_the_second_comes_from_the_other_one() -> None:
    pairs = pairs_of([[3] * 50, [4] * 60], 32)
    random = pairs.label == IS_RANDOM
    assert random.any()
    assert (pairs.b_document[random] == 1 - pairs.a_document[random]).all()


def test_a_next_second_really_follows_the_first() -> None:
    """Without trimming B begins where A ends; and A begins and both end where a sentence does."""
    block = numbered_block(prose_like())
    pairs = make_pairs(block, UNTRIMMED, generator())
    following = pairs.label == IS_NEXT
    np.testing.assert_array_equal(pairs.b_start[following], pairs.a_end[following])
    assert (pairs.a_document == pairs.b_document)[following].all()
    for place in (pairs.a_start, pairs.a_end, pairs.b_start, pairs.b_end):
        assert np.isin(place, block.sentences).all()


def test_a_next_second_still_comes_after_the_first_when_both_were_trimmed() -> None:
    block = numbered_block(prose_like())
    pairs = make_pairs(block, 24, generator())
    following = pairs.label == IS_NEXT
    gap = pairs.b_start[following] - pairs.a_end[following]
    assert (gap >= 0).all()
    assert (gap > 0).any()
    assert (gap == 0).any()
    full = pairs.lengths[following] == 24
    assert (gap[~full] == 0).all()  # what was not shortened is one piece of text


# --- nothing but the text gives the label away ---------------------------------------------------------------


def best_threshold(values: NDArray[Any], labels: NDArray[Any]) -> float:
    """Accuracy of the best rule "random if the value is above (or below) t", over all t."""
    order = np.argsort(values, kind="stable")
    sorted_values, random = values[order], np.concatenate([[0], np.cumsum(labels[order])])
    below = np.arange(len(labels) + 1)
    right = (below - random) + (random[-1] - random)  # next below the cut, random above it
    cuts = np.concatenate([[True], sorted_values[1:] != sorted_values[:-1], [True]])
    share = right[cuts] / len(labels)
    return float(max(share.max(), (1 - share).max()))


def test_the_best_threshold_finds_a_label_that_can_be_read_off() -> None:
    labels = np.array([0, 1] * 500)
    assert best_threshold(labels * 3 + 7, labels) == 1.0
    assert best_threshold(-labels, labels) == 1.0
    assert best_threshold(np.zeros(1000), labels) == 0.5


def long_and_short(rng: np.random.Generator) -> list[list[int]]:
    """One document in ten is long; the others have two or three sentences."""
    sizes = np.where(rng.random(1500) < 0.1, rng.integers(60, 200, 1500), rng.integers(2, 4, 1500))
    return [np.maximum(1, rng.lognormal(2.5, 0.6, n)).astype(int).tolist() for n in sizes]


CORPORA = {
    "short": prose_like(1, 6000),
    "two sentences": [d[:2] for d in random_documents(generator(2), 16_000, 3) if len(d) > 1],
    "long": random_documents(generator(3), 250, 200),
    "long and short": long_and_short(generator(4)),
}


@pytest.mark.parametrize("max_length", [32, 128, 256])
@pytest.mark.parametrize("corpus", CORPORA)
def test_the_label_cannot_be_read_off_a_length(corpus: str, max_length: int) -> None:
    """The best threshold on the length of A, of B or of both is right in at most 54 % of the pairs.

    A coin's best threshold is above 50 % by chance; with the fewest pairs here (1,600) it may reach 53 %. BERT's
    own procedure reaches 60 %: a random B fills the chunk, a true one ends with its document.
    """
    pairs = pairs_of(CORPORA[corpus], max_length)
    a, b = pairs.a_end - pairs.a_start, pairs.b_end - pairs.b_start
    assert len(pairs) > 1500
    for name, values in {"A": a, "B": b, "both": a + b, "B − A": b - a}.items():
        assert best_threshold(values, pairs.label) <= 0.54, name


def test_the_label_cannot_be_read_off_the_place_of_b_in_its_document() -> None:
    """A true B is never the opening of a document, and often its close; so a random one must be the same.

    Openings have a style ("Return the …"): were they found in random seconds only, B alone would tell the label.
    """
    block = numbered_block([d for d in prose_like(5) if sum(d) < 120])
    pairs = make_pairs(block, 128, generator(), short_seq_prob=1.0)  # chunks of all lengths, none shortened
    opens = np.isin(pairs.b_start, block.sentences[block.documents])
    closes = np.isin(pairs.b_end, block.sentences[block.documents])
    assert not opens.any()
    shares = [closes[pairs.label == label].mean() for label in (IS_NEXT, IS_RANDOM)]
    assert 0.5 < shares[0] < 0.95
    assert abs(shares[0] - shares[1]) < 0.03  # four standard errors with 5,000 pairs of each kind


def test_a_random_second_is_as_long_as_the_true_one_would_have_been() -> None:
    """Pair by pair: of 32 continuations from elsewhere the best one is off by a token or so."""
    block = numbered_block(prose_like(6))
    pairs = make_pairs(block, UNTRIMMED, generator(), short_seq_prob=0.0)
    random = pairs.label == IS_RANDOM
    end_of_document = block.sentences[block.documents[1:]]
    true = end_of_document[pairs.a_document] - pairs.a_end  # here a chunk ends with its document
    assert np.median(np.abs(pairs.b_end - pairs.b_start - true)[random]) <= 1


# --- lengths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [8, 9, 16, 33, 128])
def test_no_pair_is_too_long_and_no_sentence_is_empty(max_length: int) -> None:
    pairs = pairs_of([*prose_like(7, 500), [300, 300], [1, 400], [400, 1], [1, 1]], max_length)
    assert pairs.lengths.max() == max_length
    assert (pairs.a_end > pairs.a_start).all()
    assert (pairs.b_end > pairs.b_start).all()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(5, 70))
def test_tokens_are_taken_from_the_longer_sentence_until_both_fit(a: int, b: int, limit: int) -> None:
    """BERT's loop, one token at a time; of two equally long sentences the second loses one."""
    found = _kept(np.array(a), np.array(b), limit)
    while a + b > limit:
        if a > b:
            a -= 1
        else:
            b -= 1
    assert found == (a, b)


def test_tokens_go_from_the_front_or_the_back_with_equal_chance() -> None:
    """Sentences of 100 tokens, of which 14 or 15 stay: the front loses a binomial (lost, ½) number of them."""
    pairs = pairs_of([[100] * 300, [100] * 300], 32, short=0.0)
    front = pairs.a_start % 100
    lost = 100 - (pairs.a_end - pairs.a_start) % 100
    single = (pairs.label == IS_NEXT) & (pairs.b_start // 100 == pairs.a_start // 100 + 1)
    assert single.sum() > 100
    assert within_binomial_bounds(front[single].sum(), int(lost[single].sum()), 0.5)
    assert 10 < front[single].std() * 4 < 30  # each token for itself: √(85 · ¼) = 4.6, not all on one side


@pytest.mark.parametrize("short", [0.3, 1.0])
def test_the_target_length_is_short_with_the_given_probability_and_then_uniform(short: float) -> None:
    """Sentences of one token, so that a chunk is exactly as long as its target."""
    room = 21
    pairs = pairs_of([[1] * 60_000, [1] * 60_000], room + 3, short=short)
    following = pairs.lengths[pairs.label == IS_NEXT] - 3
    n = len(following)
    for length in range(2, room + 1):
        p = short / (room - 1) + (1 - short) * (length == room)
        assert within_binomial_bounds((following == length).sum(), n, p), length


def test_without_short_targets_every_pair_within_a_long_document_is_full() -> None:
    pairs = pairs_of([[1] * 5000, [1] * 5000], 24, short=0.0)
    following = pairs.label == IS_NEXT
    assert (pairs.lengths[following] < 24).sum() <= 2  # the last pair of each document
    assert (pairs.lengths == 24).mean() > 0.98  # a random B may be missing that is long enough for a tiny A


def test_the_cut_between_a_and_b_falls_on_each_sentence_boundary_equally_often() -> None:
    pairs = pairs_of([[1] * 60_000, [1] * 60_000], 13, short=0.0)  # chunks of ten sentences
    a = (pairs.a_end - pairs.a_start)[pairs.label == IS_NEXT]
    for length in range(1, 10):
        assert within_binomial_bounds((a == length).sum(), len(a), 1 / 9), length


# --- coverage and laws ---------------------------------------------------------------------------------------


def covered(pairs: Pairs, tokens: int) -> NDArray[Any]:
    """Which tokens stand in an A, or in the B that follows it."""
    following = pairs.label == IS_NEXT
    change = np.zeros(tokens + 1, dtype=np.int64)
    for start, end in ((pairs.a_start, pairs.a_end), (pairs.b_start[following], pairs.b_end[following])):
        np.add.at(change, start, 1)
        np.add.at(change, end, -1)
    return np.cumsum(change)[:-1] > 0


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=7), min_size=0, max_size=8),
    st.integers(8, 64),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.integers(0, 2**32),
)
def test_whatever_the_corpus_the_laws_of_pairs_hold(
    documents: list[list[int]], max_length: int, short: float, seed: int
) -> None:
    documents = [[2, 5], *documents, [3, 1, 4]]
    block = numbered_block(documents)
    pairs = make_pairs(block, max_length, generator(seed), short)
    assert pairs.lengths.max() <= max_length
    assert (pairs.a_start < pairs.a_end).all()
    assert (pairs.b_start < pairs.b_end).all()
    np.testing.assert_array_equal(pairs.a_document == pairs.b_document, pairs.label == IS_NEXT)
    np.testing.assert_array_equal(document_of(block, pairs.b_start), pairs.b_document)
    np.testing.assert_array_equal(document_of(block, pairs.b_end - 1), pairs.b_document)
    again = make_pairs(block, max_length, generator(seed), short)
    for name in vars(pairs):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(again, name))


@pytest.mark.parametrize("seed", range(5))
def test_every_sentence_of_a_document_with_two_occurs_beside_its_neighbors(seed: int) -> None:
    """Also the last one, which the cut may leave alone: it comes back until it is the next sentence."""
    block = numbered_block([[4, 4], [2, 2, 2], *prose_like(seed, 300)])
    for short in (0.0, 1.0):
        pairs = make_pairs(block, UNTRIMMED, generator(seed), short)
        several = np.repeat(np.diff(block.documents) >= 2, np.diff(block.sentences[block.documents]))
        np.testing.assert_array_equal(covered(pairs, len(block.tokens)), several)


def test_other_draws_give_other_pairs() -> None:
    first, second = (pairs_of(prose_like(0, 50), 64, seed) for seed in (0, 1))
    assert len(first) != len(second) or (first.a_start != second.a_start).any()


@pytest.mark.parametrize("documents", [[[3, 3, 3]], [[3], [4], [5]], [[3, 3], [4]]])
def test_without_two_documents_of_two_sentences_there_are_no_pairs(documents: list[list[int]]) -> None:
    with pytest.raises(UserError, match=r"two documents with two sentences each; of \d documents \d have two"):
        pairs_of(documents, 32)


def test_a_pair_needs_room_for_its_special_tokens_and_some_words() -> None:
    with pytest.raises(UserError, match=r"data\.max_length must be at least 8, got 7"):
        pairs_of([[3, 3], [3, 3]], 7)


# --- tables on disk ------------------------------------------------------------------------------------------

TEXTS = {
    "train": [["The cat sat.", "  ", "It slept."], ["", "\t"], ["A dog ran.", "Cats sat."]] * 30,
    "validation": [["The dog slept.", "It ran."], ["A cat.", "A dog."]],
}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus.from_documents("pets", TEXTS, tmp_path / "cache")


def test_a_tokenised_corpus_holds_the_ids_of_each_sentence_and_drops_empty_ones(corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = train_wordpiece((s for d in TEXTS["train"] for s in d), 60)
    tables = tokenize_corpus(corpus, tokenizer, tmp_path / "tokens")
    assert set(tables) == {"train", "validation"}
    for split, documents in TEXTS.items():
        encoded = [[ids for ids in tokenizer.encode_batch(sentences) if ids] for sentences in documents]
        encoded = [sentences for sentences in encoded if sentences]
        assert tables[split]["sentence_lengths"][:] == [[len(s) for s in d] for d in encoded]
        assert tables[split]["input_ids"][:] == [[i for s in d for i in s] for d in encoded]
    assert len(tables["train"]) == 60


def test_tables_are_memory_mapped_from_disk(corpus: Corpus, tmp_path: Path) -> None:
    tables = tokenize_corpus(corpus, train_wordpiece(["the cat sat"] * 3, 60), tmp_path / "tokens")
    for table in tables.values():
        assert table.cache_files
        assert all((tmp_path / "tokens") in Path(file["filename"]).parents for file in table.cache_files)


def test_what_was_tokenised_once_is_opened_and_another_vocabulary_has_its_own_tables(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, other = (train_wordpiece(["the cat sat. a dog ran."] * 3, size) for size in (30, 60))
    folder = tmp_path / "tokens"
    first = tokenize_corpus(corpus, tokenizer, folder)
    assert len(list(folder.iterdir())) == 1  # and nothing half-written beside it
    monkeypatch.setattr(type(tokenizer), "encode_batch", lambda *_: pytest.fail("tokenized again"))
    again = tokenize_corpus(corpus, tokenizer, folder)
    assert again["train"]["input_ids"][:] == first["train"]["input_ids"][:]
    monkeypatch.undo()
    second = tokenize_corpus(corpus, other, folder)
    assert second["train"]["input_ids"][:] != first["train"]["input_ids"][:]
    assert len(list(folder.iterdir())) == 2


def test_an_interrupted_tokenisation_leaves_nothing_behind(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = train_wordpiece(["the cat sat"] * 3, 60)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "encode_batch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize_corpus(corpus, tokenizer, tmp_path / "tokens")
    assert list((tmp_path / "tokens").iterdir()) == []
    assert len(tokenize_corpus(corpus, tokenizer, tmp_path / "tokens")["train"]) == 60


def test_of_two_processes_that_tokenise_at_once_the_first_one_wins(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "by").write_text(name)
    _publish(tmp_path / "first", tmp_path / "target")
    _publish(tmp_path / "second", tmp_path / "target")
    assert (tmp_path / "target" / "by").read_text() == "first"
    with pytest.raises(OSError, match="absent"):
        _publish(tmp_path / "absent", tmp_path / "other")


def test_a_block_is_a_slice_of_the_table_as_flat_arrays() -> None:
    documents = [[2, 3], [1], [4, 1, 1], [5]]
    table = numbered_table(documents)
    whole = read_block(table, 0, 100)
    assert whole.tokens.tolist() == list(range(FIRST, FIRST + 17))
    assert whole.sentences.tolist() == [0, 2, 5, 6, 10, 11, 12, 17]
    assert whole.documents.tolist() == [0, 2, 3, 6, 7]
    part = read_block(table, 1, 3)
    assert part.tokens.tolist() == list(range(FIRST + 5, FIRST + 12))
    assert part.sentences.tolist() == [0, 1, 5, 6, 7]
    assert part.documents.tolist() == [0, 1, 4]


def test_the_ids_of_a_split_come_in_order_and_all_of_them() -> None:
    """10,001 documents: one more than is read at a time."""
    chunks = list(token_ids(numbered_table([[1, 1]] * 10_001)))
    assert [len(chunk) for chunk in chunks] == [20_000, 2]
    np.testing.assert_array_equal(np.concatenate(chunks), np.arange(FIRST, FIRST + 20_002))
