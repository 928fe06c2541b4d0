"""A small language of which everything is known: a hidden Markov model over word classes, with a topic.

A document has a topic k, drawn once, and two sentences. A sentence is a chain of word classes c₁ … c_L, and each
class gives a word: Pr(x | k, c). Everything that can be said about the language follows from four tables, so the
best possible loss on it can be computed (`mlmkit.exact`).

Shapes: K topics, C classes, N words, L words in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Language:
    """A hidden Markov model with topics, and names for its words.

    Args:
        name: of the language.
        words: its vocabulary (N,), lower-case letters only.
        topics: names of the topics (K,).
        classes: names of the word classes (C,).
        topic: Pr(k), the topic of a document (K,).
        start: Pr(c₁), the class of a sentence's first word (C,).
        transition: Pr(c_{i+1} | c_i) in row c_i (C, C).
        emission: Pr(x | k, c) (K, C, N).
        lengths: number of words in the first and in the second sentence.

    Raises:
        UserError: a shape does not fit, a row is no distribution, or two words are equal.
    """

    name: str
    words: tuple[str, ...]
    topics: tuple[str, ...]
    classes: tuple[str, ...]
    topic: Floats
    start: Floats
    transition: Floats
    emission: Floats
    lengths: tuple[int, int] = (14, 14)

    def __post_init__(self) -> None:
        K, C, N = len(self.topics), len(self.classes), len(self.words)
        wanted = {"topic": (K,), "start": (C,), "transition": (C, C), "emission": (K, C, N)}
        for table, shape in wanted.items():
            values = getattr(self, table)
            if values.shape != shape:
                raise UserError(f"{self.name}: {table} must have shape {shape}, got {values.shape}")
            if (values < 0).any() or not np.allclose(values.sum(-1), 1, atol=1e-9):
                raise UserError(f"{self.name}: each row of {table} must be a distribution: numbers ≥ 0 that sum to 1")
        if len(set(self.words)) != N or not all(w.isascii() and w.isalpha() and w.islower() for w in self.words):
            raise UserError(f"{self.name}: words must be different and consist of the letters a to z")
        if min(self.lengths) < 1:
            raise UserError(f"{self.name}: a sentence has at least one word, got lengths {self.lengths}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Language:
        """Rebuild what `to_dict` gave."""
        first, second = data["lengths"]
        return cls(
            name=data["name"],
            words=tuple(data["words"]),
            topics=tuple(data["topics"]),
            classes=tuple(data["classes"]),
            topic=np.array(data["topic"]),
            start=np.array(data["start"]),
            transition=np.array(data["transition"]),
            emission=np.array(data["emission"]),
            lengths=(first, second),
        )

    @cached_property
    def word_probabilities(self) -> Floats:
        """Share of each word in the text of the language (N,): the exact unigram distribution."""
        total = np.zeros(len(self.words))
        for length in self.lengths:
            classes = self.start
            for _ in range(length):
                total += np.einsum("k,c,kcn->n", self.topic, classes, self.emission)
                classes = classes @ self.transition
        return total / total.sum()

    @property
    def unigram_entropy(self) -> float:
        """Entropy of the word frequencies, in nats: the best loss without looking at the context."""
        p = self.word_probabilities[self.word_probabilities > 0]
        return float(-(p * np.log(p)).sum())

    def sample(self, documents: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw documents.

        Args:
            documents: how many, D.
            rng: source of all draws.

        Returns:
            Word numbers (D, L₁ + L₂), both sentences one after the other, and topics (D,).
        """
        topic, start, transition, emission = (
            table.cumsum(-1) for table in (self.topic, self.start, self.transition, self.emission)
        )
        topics = _draw(np.broadcast_to(topic, (documents, len(topic))), rng)  # (D,)
        columns = []
        for length in self.lengths:
            classes = _draw(np.broadcast_to(start, (documents, len(start))), rng)  # (D,)
            for i in range(length):
                if i:
                    classes = _draw(transition[classes], rng)
                columns.append(_draw(emission[topics, classes], rng))
        return np.stack(columns, axis=1), topics

    def documents(self, count: int, rng: np.random.Generator) -> Iterator[list[str]]:
        """Draw documents as text: each a list of two sentences."""
        words = np.array(self.words)
        first = self.lengths[0]
        for start in range(0, count, 10_000):
            for row in words[self.sample(min(10_000, count - start), rng)[0]].tolist():
                yield [" ".join(row[:first]), " ".join(row[first:])]


def _draw(cumulative: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one number from each row of cumulative probabilities (D, n) → (D,)."""
    return (rng.random((len(cumulative), 1)) * cumulative[:, -1:] >= cumulative).sum(-1)


def draw_language(
    seed: int,
    words: Sequence[Sequence[str]],
    *,
    name: str = "drawn",
    classes: Sequence[str] | None = None,
    follows: Sequence[Sequence[int]] | None = None,
    topics: Sequence[str] = ("first", "second", "third"),
    lengths: tuple[int, int] = (14, 14),
    surprise: float = 0.03,
    likeness: float | Sequence[float] = 0.1,
    peak: float = 0.4,
) -> Language:
    """Draw the tables of a language from a seed.

    Args:
        seed: of all draws.
        words: the words of each class; a word may belong to several classes.
        name: of the language.
        classes: names of the classes; numbers if absent.
        follows: classes that may follow each class; the next two, in a circle, if absent.
        topics: names of the topics, all equally frequent.
        lengths: number of words in the first and in the second sentence.
        surprise: probability that any class whatever comes next instead.
        likeness: how much the topics share: 0 is nothing but chance, 1 is all; one number, or one for each class.
        peak: parameter of the symmetric Dirichlet law of a topic's words: the smaller, the fewer words it prefers.

    Raises:
        UserError: as `Language`.
    """
    rng = np.random.default_rng(seed)
    C, K = len(words), len(topics)
    vocabulary = tuple(dict.fromkeys(word for group in words for word in group))
    number = {word: i for i, word in enumerate(vocabulary)}
    shared = np.broadcast_to(likeness, C)
    transition = np.zeros((C, C))
    for c in range(C):
        after = list(follows[c]) if follows else sorted({(c + 1) % C, (c + 2) % C})
        transition[c, after] = rng.dirichlet(np.full(len(after), 3.0))
    emission = np.zeros((K, C, len(vocabulary)))
    for c, group in enumerate(words):
        places = [number[word] for word in group]
        common = rng.dirichlet(np.full(len(group), 2.0))
        for k in range(K):
            special = rng.dirichlet(np.full(len(group), peak))
            emission[k, c, places] = shared[c] * common + (1 - shared[c]) * special
    return Language(
        name=name,
        words=vocabulary,
        topics=tuple(topics),
        classes=tuple(classes or map(str, range(C))),
        topic=np.full(K, 1 / K),
        start=np.full(C, 1 / C),
        transition=(1 - surprise) * transition + surprise / C,
        emission=emission,
        lengths=lengths,
    )


def tiny_language() -> Language:
    """A language for pencil and paper: two topics, two classes, four words, sentences of two words.

    A sentence is a thing and what it does. In the topic "home" the thing is mostly a cat, in "yard" mostly a bird;
    a cat sleeps or sings no more and no less than a bird: only the topic joins the words.
    """
    return Language(
        name="tiny",
        words=("cat", "bird", "sleeps", "sings"),
        topics=("home", "yard"),
        classes=("thing", "deed"),
        topic=np.array([0.5, 0.5]),
        start=np.array([1.0, 0.0]),
        transition=np.array([[0.0, 1.0], [1.0, 0.0]]),
        emission=np.array([[[0.75, 0.25, 0, 0], [0, 0, 0.75, 0.25]], [[0.25, 0.75, 0, 0], [0, 0, 0.25, 0.75]]]),
        lengths=(2, 2),
    )


_MARKET_WORDS = {
    "adjective": "old small green heavy quiet bright cold sweet round slow red wooden proud",
    "noun": "boat fish onion soup knife rose bee gull net pot tree stone bridge",
    "verb": "finds washes sells hides carries watches likes lifts paints mends sees holds follows",
    "adverb": "slowly again here today often twice softly never once soon gladly almost first",
}
_MARKET_FOLLOWS = {
    "adjective": ("adjective", "noun"),
    "noun": ("verb", "adverb"),
    "verb": ("adjective", "noun"),
    "adverb": ("verb", "adverb"),
}
_HARBOR_WORDS = {
    "determiner": "the a this that every some no another",
    "adjective": "old small green heavy quiet bright cold sweet",
    "noun": "boat fish onion soup knife rose bee gull net pot",
    "verb": "finds washes sells hides carries watches likes lifts",
    "adverb": "slowly again here today often twice softly never",
    "link": "near under behind with before over while beside",
}
_HARBOR_FOLLOWS = {
    "determiner": ("adjective", "noun"),
    "adjective": ("noun", "adjective"),
    "noun": ("verb", "link"),
    "verb": ("determiner", "adverb"),
    "adverb": ("link", "determiner"),
    "link": ("determiner", "noun"),
}
_FOREST_WORDS = """
    the a this that every some no another each any        one two three four five six seven eight nine ten
    old small green heavy quiet bright cold sweet round slow      red blue black white grey brown pink gold pale dark
    boat fish onion soup knife rose bee gull net pot    tree stone river bridge road hill wall gate field barn
    finds washes sells hides carries watches likes lifts paints mends
    sleeps waits sings falls grows turns stops shines runs sinks
    slowly again here today often twice softly never once soon
    near under behind with before over while beside above across
"""


def market() -> Language:
    """The course's language: four word classes of thirteen words, three topics, two sentences of fourteen words.

    What stands on the left of a word leaves two classes open, what stands on the right leaves two, and both together
    leave one: the classes are the four pairs of bits, and a class (a, b) is followed by (b, 0) or (b, 1). So a reader
    needs both sides; and the topic, which says which words of the class, needs the whole text.
    """
    return _with_grammar("market", _MARKET_WORDS, _MARKET_FOLLOWS)


def harbor() -> Language:
    """A language between the two others: six classes, fifty words; neighbors leave more than one class open."""
    return _with_grammar("harbor", _HARBOR_WORDS, _HARBOR_FOLLOWS)


def _with_grammar(name: str, words: dict[str, str], follows: dict[str, tuple[str, str]]) -> Language:
    classes = list(words)
    return draw_language(
        0,
        [group.split() for group in words.values()],
        name=name,
        classes=classes,
        follows=[[classes.index(after) for after in follows[c]] for c in classes],
        topics=("harbor", "kitchen", "garden"),
    )


def forest() -> Language:
    """A harder language: ten classes of twenty words each out of a hundred, so every word belongs to two classes."""
    words = _FOREST_WORDS.split()
    groups = [words[i : i + 10] for i in range(0, 100, 10)]
    return draw_language(
        0, [a + b for a, b in zip(groups, groups[1:] + groups[:1], strict=True)], name="forest", likeness=0.3
    )


LANGUAGES = {"market": market, "harbor": harbor, "forest": forest, "tiny": tiny_language}
"""The languages that have a name."""


def language_named(name: str) -> Language:
    """Make one of the languages that have a name.

    Raises:
        UserError: there is none of this name.

    >>> language_named("tiny").words
    ('cat', 'bird', 'sleeps', 'sings')
    """
    if name not in LANGUAGES:
        raise UserError(f"there is no language {name!r}; choose one of {', '.join(LANGUAGES)}")
    return LANGUAGES[name]()
