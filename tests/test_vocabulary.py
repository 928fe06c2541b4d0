"""New words: which save the most, what the tokenizer then does, and where their embeddings begin."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import small_model, tiny_tokenizer, tokenizer_of

from mlmkit.errors import UserError
from mlmkit.tokenizer import SPECIAL_TOKENS
from mlmkit.vocabulary import add_embeddings, add_words, frequent_words

PIECES = [*SPECIAL_TOKENS, "ten", "##sor", "##s", "a", "gra", "##dient", "##x"]


# Which words


def test_the_words_that_save_the_most_positions_come_first() -> None:
    """n occurrences of a word of p pieces save n · (p − 1) positions."""
    tokenizer = tokenizer_of(PIECES)
    text = ["tensor " * 5 + "gradientxx " * 2 + "a " * 50 + "tens " * 3]
    assert frequent_words(tokenizer, text, 10, min_count=1) == ["gradientxx", "tensor", "tens"]  # 6, 5, 3
    assert frequent_words(tokenizer, text, 1, min_count=1) == ["gradientxx"]
    before, after = tokenizer, add_words(tokenizer, ["gradientxx", "tensor", "tens"])
    assert len(before.encode(text[0])) - len(after.encode(text[0])) == 6 + 5 + 3


def test_equally_saving_words_come_in_alphabetical_order() -> None:
    assert frequent_words(tokenizer_of(PIECES), ["tens tensor ax"], 3, min_count=1) == ["ax", "tens", "tensor"]


def test_rare_words_and_words_that_cannot_be_cut_are_left_out() -> None:
    tokenizer = tokenizer_of(PIECES)
    assert frequent_words(tokenizer, ["tensor tensor tens zebra zebra"], 10, min_count=2) == ["tensor"]


def test_words_are_counted_as_the_tokenizer_normalizes_them() -> None:
    """An uncased vocabulary folds case and strips accents; punctuation is no part of a word."""
    tokenizer = tiny_tokenizer()
    found = frequent_words(tokenizer, ["Badelokilozé, BADELOKILOZE badelokiloze."], 3, min_count=3)
    assert len(tokenizer.encode("badelokiloze")) > 1
    assert found == ["badelokiloze"]


# The tokenizer


def test_a_new_word_becomes_one_token_and_the_old_ones_stay() -> None:
    before = tiny_tokenizer()
    after = add_words(before, ["badelokiloze", "zenzenzenba"])
    assert after.encode("zenzenzenba Badelokiloze") == [before.vocab_size + 1, before.vocab_size]
    old = list(range(before.vocab_size))
    assert after.tokens(old) == before.tokens(old)
    assert after.pair_ids("ba", "ki") == before.pair_ids("ba", "ki")
    assert before.vocab_size == len(old)  # the old tokenizer was not changed


def test_a_word_that_begins_with_a_new_one_is_cut_behind_it() -> None:
    after = add_words(tokenizer_of(PIECES), ["tensor"])
    assert after.pieces("tensors") == ["tensor", "##s"]


@pytest.mark.parametrize(
    ("words", "what"),
    [(["ten"], "already a token"), (["tensor", "tensor"], "already a token"), (["two words"], "cannot be a token")],
)
def test_what_cannot_become_a_token_is_refused(words: list[str], what: str) -> None:
    with pytest.raises(UserError, match=what):
        add_words(tokenizer_of(PIECES), words)


def test_a_capital_letter_cannot_enter_an_uncased_vocabulary() -> None:
    with pytest.raises(UserError, match="in lower case"):
        add_words(tiny_tokenizer(), ["Badelokiloze"])


# The embeddings


@pytest.mark.parametrize("padding", [0, 1, 5], ids=["exact", "one spare row", "spare rows for all"])
def test_old_tokens_keep_their_scores_and_a_new_one_gets_the_mean_of_its_pieces(padding: int) -> None:
    before = tokenizer_of(PIECES)
    after = add_words(before, ["tensor", "gradientx"])
    old = small_model(vocab_size=before.vocab_size + padding)
    new = add_embeddings(old, before, after)
    ids = torch.tensor([[2, 5, 6, 4, 8, 3]])  # known to both
    with torch.no_grad():
        a, b = old(ids).mlm_logits, new(ids).mlm_logits
    first = before.vocab_size
    torch.testing.assert_close(b[..., :first], a[..., :first], rtol=0, atol=0)  # the same products
    # sums in another order: a few units in the last place of float32
    torch.testing.assert_close(b[..., first], a[..., [5, 6]].mean(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(b[..., first + 1], a[..., [9, 10, 11]].mean(-1), rtol=1e-5, atol=1e-5)
    assert new.config == replace(old.config, vocab_size=max(after.vocab_size, before.vocab_size + padding))
    assert not new.training


def test_new_words_take_no_more_probability_than_their_pieces_have() -> None:
    before = tokenizer_of(PIECES)
    after = add_words(before, ["tensor", "gradientx"])
    new = add_embeddings(small_model(vocab_size=before.vocab_size), before, after)
    with torch.no_grad():
        p = new(torch.tensor([[2, 4, 7, 4, 3]])).mlm_logits.softmax(-1)
    assert (p[..., 12] <= p[..., [5, 6]].mean(-1)).all()
    assert (p[..., 13] <= p[..., [9, 10, 11]].mean(-1)).all()


def test_the_model_that_was_given_is_not_changed_nor_the_stream_of_random_numbers() -> None:
    before = tokenizer_of(PIECES)
    old = small_model(vocab_size=before.vocab_size)
    weights = {name: value.clone() for name, value in old.state_dict().items()}
    state = torch.get_rng_state()
    new = add_embeddings(old, before, add_words(before, ["tensor"]))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, weights[name]) for name, value in old.state_dict().items())
