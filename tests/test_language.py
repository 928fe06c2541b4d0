"""The exact language: its tables are distributions, and its text follows them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from mlmkit.errors import UserError
from mlmkit.language import LANGUAGES, Language, draw_language, language_named, tiny_language

NAMES = sorted(LANGUAGES)
P_TOO_SMALL = 1e-6
"""A correct sampler falls below this once in a million tests."""


@pytest.mark.parametrize("name", NAMES)
def test_every_table_of_a_named_language_is_a_distribution_with_readable_words(name):
    language = language_named(name)
    for table in (language.topic, language.start, language.transition, language.emission):
        assert (table >= 0).all()
        np.testing.assert_allclose(table.sum(-1), 1, atol=1e-12)
    assert all(word.isalpha() and word.islower() for word in language.words)
    assert language.name == name


@pytest.mark.parametrize("name", NAMES)
def test_word_frequencies_are_those_of_the_exact_unigram_distribution(name):
    language = language_named(name)
    words, _ = language.sample(4000, np.random.default_rng(1))
    # One word of each document: words of one document depend on each other, which a χ² test must not see.
    rng = np.random.default_rng(2)
    counts = np.bincount(words[np.arange(4000), rng.integers(words.shape[1], size=4000)], minlength=len(language.words))
    possible = language.word_probabilities > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], 4000 * language.word_probabilities[possible]).pvalue > P_TOO_SMALL


def test_topics_and_words_given_the_topic_follow_their_tables():
    language = tiny_language()
    words, topics = language.sample(20_000, np.random.default_rng(0))
    assert chisquare(np.bincount(topics), 20_000 * language.topic).pvalue > P_TOO_SMALL
    for k in range(2):
        first = np.bincount(words[topics == k][:, 0], minlength=4)[:2]
        assert chisquare(first, first.sum() * language.emission[k, 0, :2]).pvalue > P_TOO_SMALL


def test_a_class_follows_a_class_as_the_transition_table_says():
    language = language_named("market")  # each word belongs to one class, so classes can be read off the words
    words, _ = language.sample(3000, np.random.default_rng(3))
    classes = language.emission[0].argmax(0)[words]
    first, second = classes[:, 4], classes[:, 5]
    for c in range(len(language.classes)):
        after = np.bincount(second[first == c], minlength=len(language.classes))
        assert chisquare(after, after.sum() * language.transition[c]).pvalue > P_TOO_SMALL
    starts = np.bincount(classes[:, 14], minlength=len(language.classes))  # the second sentence begins anew
    assert chisquare(starts, 3000 * language.start).pvalue > P_TOO_SMALL


def test_both_sentences_of_a_document_have_its_topic():
    only = np.eye(2)[:, None]  # topic k always says word k
    one = np.ones(1)
    language = Language("pure", ("ab", "cd"), ("k", "l"), ("c",), np.full(2, 0.5), one, np.ones((1, 1)), only, (3, 5))
    words, topics = language.sample(50, np.random.default_rng(0))
    np.testing.assert_array_equal(words, np.repeat(topics[:, None], 8, axis=1))
    assert set(topics) == {0, 1}


def test_documents_are_two_sentences_of_the_right_lengths_and_the_same_seed_gives_the_same_text():
    language = replace(language_named("market"), lengths=(3, 5))
    text = list(language.documents(7, np.random.default_rng(0)))
    assert [[len(s.split()) for s in document] for document in text] == [[3, 5]] * 7
    assert text == list(language.documents(7, np.random.default_rng(0)))
    assert text != list(language.documents(7, np.random.default_rng(1)))
    assert {word for document in text for s in document for word in s.split()} <= set(language.words)


def test_the_unigram_entropy_of_equally_likely_words_is_ln_n():
    even = np.full((1, 1, 4), 0.25)
    one = np.ones(1)
    language = Language("even", ("a", "b", "c", "d"), ("k",), ("c",), one, one, np.ones((1, 1)), even, (2, 2))
    assert language.unigram_entropy == pytest.approx(np.log(4), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_language_survives_json(name):
    language = language_named(name)
    again = Language.from_dict(json.loads(json.dumps(language.to_dict())))
    assert again.to_dict() == language.to_dict()
    np.testing.assert_array_equal(
        again.sample(5, np.random.default_rng(0))[0], language.sample(5, np.random.default_rng(0))[0]
    )


def test_the_seed_decides_the_tables_and_words_may_belong_to_several_classes():
    groups = [["a", "b"], ["b", "c"]]
    first, same, other = (draw_language(seed, groups) for seed in (0, 0, 1))
    assert first.to_dict() == same.to_dict() != other.to_dict()
    assert first.words == ("a", "b", "c")
    assert (first.emission[:, :, 1] > 0).all()
    assert (first.emission[:, 0, 2] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topic": np.array([0.5, 0.6])}, "each row of topic must be a distribution"),
        ({"topic": np.array([1.5, -0.5])}, "each row of topic must be a distribution"),
        ({"start": np.array([1.0])}, r"start must have shape \(2,\), got \(1,\)"),
        ({"words": ("cat", "cat", "sleeps", "sings")}, "words must be different"),
        ({"words": ("Cat", "bird", "sleeps", "sings")}, "letters a to z"),
        ({"lengths": (0, 2)}, "at least one word"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        replace(tiny_language(), **change)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="no language 'sea'; choose one of market, harbor, forest, tiny"):
        language_named("sea")
