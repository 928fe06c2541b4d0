"""Tasks on leakage: text on both sides of a split, and answers that stand in the input."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmkit.grading.chance import apart
from mlmkit.grading.questions import match, number
from mlmkit.grading.tasks import CodeTask, ConceptTask, Mistake, Question

Array = np.ndarray[Any, Any]
Documents = list[list[str]]


# 07.8 Text on both sides


def _grams(document: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(document[k : k + n]) for k in range(len(document) - n + 1)]


def _all_grams(documents: Documents, n: int) -> list[tuple[str, ...]]:
    return [gram for document in documents for gram in _grams(document, n)]


def _share(asked: list[Any], known: set[Any]) -> float:
    return sum(gram in known for gram in asked) / len(asked) if asked else 0.0


def _overlap(train: Documents, held_out: Documents, n: int) -> float:
    """As `mlmkit.corpus.ngram_overlap`, without its imports, which take seconds."""
    return _share(_all_grams(held_out, n), set(_all_grams(train, n)))


def _overlap_of_kinds(train: Documents, held_out: Documents, n: int) -> float:
    return _share(sorted(set(_all_grams(held_out, n))), set(_all_grams(train, n)))


def _overlap_joined(train: Documents, held_out: Documents, n: int) -> float:
    joined = [[[word for document in part for word in document]] for part in (train, held_out)]
    return _share(_all_grams(joined[1], n), set(_all_grams(joined[0], n)))


def _overlap_without_last(train: Documents, held_out: Documents, n: int) -> float:
    short = [[gram for document in part for gram in _grams(document, n)[:-1]] for part in (train, held_out)]
    return _share(short[1], set(short[0]))


def _jaccard(train: Documents, held_out: Documents, n: int) -> float:
    one, other = (set(_all_grams(part, n)) for part in (train, held_out))
    return len(one & other) / len(one | other) if one | other else 0.0


def _draw_split(rng: np.random.Generator) -> dict[str, Any]:
    words = "sea ship wind rock lamp fish boat net".split()
    train = [rng.choice(words, int(rng.integers(1, 12))).tolist() for _ in range(rng.integers(1, 7))]
    held_out = [rng.choice(words, int(rng.integers(1, 12))).tolist() for _ in range(rng.integers(1, 5))]
    if rng.random() < 0.7:  # a near copy
        twin = [word if rng.random() > 0.15 else "pear" for word in train[int(rng.integers(len(train)))]]
        held_out.append(twin)
    return {"train": train, "held_out": held_out, "n": int(rng.choice([1, 2, 3, 4]))}


OVERLAP = CodeTask(
    id="07.8",
    title="Text on both sides of the split",
    points=4,
    concepts=("C30",),
    function="overlap",
    reference=_overlap,
    draw=_draw_split,
    edges=(
        {"train": [["the", "sea", "is", "calm"]], "held_out": [["the", "sea", "is", "wild"]], "n": 3},
        {"train": [["a", "b", "c"]], "held_out": [["a", "b"], ["c"]], "n": 3},
        {"train": [["a"], ["b"]], "held_out": [["a", "b", "a", "b", "c"]], "n": 2},
        {"train": [["a", "b"]], "held_out": [["a", "b"], ["a", "b", "a", "b"], ["c", "d"]], "n": 2},
        {"train": [["a", "b", "c", "d", "e"]], "held_out": [["b", "c", "d"]], "n": 3},
    ),
    mistakes=(
        Mistake(
            "kinds",
            _overlap_of_kinds,
            "you count each different n-gram once; a held-out n-gram that occurs three times counts three times",
        ),
        Mistake(
            "from the other side",
            lambda train, held_out, n: _overlap(held_out, train, n),
            "you give the share of the training n-grams that occur in the held-out part; it is the held-out text whose "
            "newness is asked for",
        ),
        Mistake(
            "across documents",
            _overlap_joined,
            "your n-grams run across the border between two documents: an n-gram lies within one document",
        ),
        Mistake(
            "last one missing",
            _overlap_without_last,
            "you miss the last n-gram of each document: a document of k words has k − n + 1 of them",
        ),
        Mistake(
            "single words",
            lambda train, held_out, n: _overlap(train, held_out, 1),
            "you look for single words, and nearly every word of a new text is known; n words in the same order are "
            "the sign of a copy",
        ),
        Mistake(
            "over both parts",
            _jaccard,
            "you divide by the n-grams of both parts together; divide by those of the held-out part",
        ),
    ),
    hints=(
        "Make the n-grams of the training documents once, as a set of tuples: looking one up is then quick.",
        "A document of k words has k − n + 1 n-grams. List those of the held-out documents, repeated ones too.",
        "`tuple(document[k : k + n]) for k in range(len(document) - n + 1)`; count how many are in the set.",
    ),
)


# 07.9 Scores that are too good

PLACES = ("north", "south", "east", "west")
LABEL, COPIES, SOUND = (
    "the answer stands in the letter",
    "held-out letters are near copies of training letters",
    "neither: the score may be believed",
)
TOPICS = {
    "repairs": "lamp broken switch leak wire crack noise spare".split(),
    "sales": "order price catalog sample color size stock buy".split(),
    "billing": "invoice paid sum bank account twice refund due".split(),
}
COMMON = "my the a please since last week we have not yet still and you send again near house street was".split()
GREETING = "dear sir or madam i write because".split()
Letter = tuple[list[str], str]


def _faults(number: int) -> dict[str, str]:
    """What is wrong with each collection; every kind occurs."""
    rng = np.random.default_rng([number, 0])
    kinds = [LABEL, COPIES, SOUND, (LABEL, COPIES, SOUND)[int(rng.integers(3))]]
    return {place: kinds[k] for place, k in zip(PLACES, rng.permutation(4), strict=True)}


def _letter(rng: np.random.Generator, fault: str, label: str) -> Letter:
    words = []
    for u in rng.random(14):
        if u < (0.4 if fault == SOUND else 0.12):
            words.append(str(rng.choice(TOPICS[label])))
        elif u < 0.5:
            topic = str(rng.choice(list(TOPICS))) if u > 0.44 else ""  # now and then a word of any topic
            words.append(str(rng.choice(TOPICS.get(topic, COMMON))))
        else:
            words.append(str(rng.choice(COMMON)))
    if rng.random() < 0.2:  # letters speak of departments, of any
        words[int(rng.integers(14))] = str(rng.choice(list(TOPICS)))
    return [*GREETING, *words, *([label] if fault == LABEL else [])], label


def _near_copy(rng: np.random.Generator, letter: Letter) -> Letter:
    words = list(letter[0])
    words[int(rng.integers(len(GREETING), len(words)))] = str(rng.choice(COMMON))
    return words, letter[1]


def letters(number: int) -> dict[str, tuple[list[Letter], list[Letter]]]:
    """Four collections of letters as training and held-out letters; a letter is its words and its department.

    Args:
        number: of the question.
    """
    collections = {}
    for k, (place, fault) in enumerate(_faults(number).items()):
        rng = np.random.default_rng([number, 1 + k])
        train, held_out = ([_letter(rng, fault, label) for label in [*TOPICS] * many] for many in (100, 40))
        if fault == COPIES:
            held_out = [_near_copy(rng, train[int(i)]) for i in rng.permutation(300)[:120]]
        collections[place] = train, held_out
    return collections


EXPLAIN = {
    (
        LABEL,
        COPIES,
    ): "the 5-grams known from training are those of the greeting, which begins every letter; the name of "
    "its own department stands in every one of these letters",
    (
        LABEL,
        SOUND,
    ): "every letter holds the name of its own department, which is the label: the reader needs nothing else. "
    "In use the name is written on the letter only after somebody has read it",
    (
        COPIES,
        LABEL,
    ): "names of departments occur, but those of other departments as well, so they give nothing away; look "
    "at the 5-grams known from training",
    (
        COPIES,
        SOUND,
    ): "well over half of the held-out 5-grams occur in training, far more than the greeting explains: the "
    "reader has met these letters before",
    (SOUND, LABEL): "names of departments occur, but those of other departments as well: a name says nothing about the "
    "label",
    (SOUND, COPIES): "the 5-grams known from training are nearly all those of the greeting, which begins every letter; "
    "what comes after it is new",
}


def _draw_letters(rng: np.random.Generator) -> Question:
    number = int(rng.integers(1, 10_000))
    faults = _faults(number)
    return match(
        "Letters are sorted by department. In four collections a simple reader names the department of nearly all "
        "held-out letters. Which of these scores may be believed? Your collections have the number "
        f"**{number}**: write it into the cell below, run the experiment, and match. An option may serve twice.",
        rng,
        pairs=faults,
        wrong={
            (place, said): EXPLAIN[fault, said]
            for place, fault in faults.items()
            for said in (LABEL, COPIES, SOUND)
            if said != fault
        },
        why="Nothing in the scores told the collections apart; a look for the label in the input, and the 5-grams "
        "known from training, did.",
    )


# 07.12 The overlap of a mirror


def _draw_mirror(rng: np.random.Generator) -> Question:
    while True:
        n, changed = int(rng.choice([5, 6, 8, 10])), float(rng.choice([0.02, 0.04, 0.06, 0.1, 0.15, 0.2]))
        held = float(rng.choice([0.1, 0.15, 0.2, 0.25, 0.3]))
        value = (1 - held) * (1 - changed) ** n
        wrong = {
            "an n-gram is known only if none of its words was changed; you took the chance of a single word": (1 - held)
            * (1 - changed),
            "not every twin is on the other side: the twin of a held-out page is in training with the probability with "
            "which any page is": (1 - changed) ** n,
            "the twin of a held-out page is in training with the share of the pages that are trained on, not of those "
            "that are held out": held * (1 - changed) ** n,
            "that is the share of n-grams that are new; known are those in which no word was changed": 1 - value,
        }
        if apart(value, *wrong.values(), relative=0.03):
            break
    return number(
        "Every page of a site has one mirror, in which each word was replaced by another one with probability "
        f"**{changed}**. All pages and mirrors are shuffled, and **{100 * held:.0f} %** of them are held out. Which "
        f"share of the held-out **{n}-grams** occurs in training, about? (Pages that are no mirrors of each "
        "other have none in common.) A share from 0 to 1; three digits suffice.",
        value,
        wrong=wrong,
        why=f"{1 - held:.2f} · {1 - changed:.2f}^{n} = {value:.4f}: the twin must be in training, and none of {n} "
        "words changed.",
        relative=0.01,
    )


# 07.13 Answers that stand in the input


def _visible(input_ids: Array, labels: Array) -> float:
    asked = labels != -100
    return float((input_ids == labels)[asked].mean()) if asked.any() else 0.0


def _draw_shown(rng: np.random.Generator) -> dict[str, Any]:
    shape = (int(rng.integers(1, 5)), int(rng.integers(4, 20)))
    x = rng.integers(5, 12, shape)
    asked = rng.random(shape) < rng.choice([0.15, 0.5])
    asked[0, 0] = True
    shown = np.where(asked & (rng.random(shape) < rng.choice([0.2, 0.8])), 4, x)
    shown = np.where(asked & (rng.random(shape) < 0.2), rng.integers(5, 12, shape), shown)
    return {"input_ids": shown, "labels": np.where(asked, x, -100)}


VISIBLE = CodeTask(
    id="07.13",
    title="Answers that stand in the input",
    points=3,
    concepts=("C30", "C13"),
    function="visible_share",
    reference=_visible,
    draw=_draw_shown,
    edges=(
        {"input_ids": np.array([[2, 4, 8, 9, 3]]), "labels": np.array([[-100, 7, 8, -100, -100]])},
        {"input_ids": np.array([[2, 7, 3], [2, 8, 3]]), "labels": np.array([[-100, 7, -100], [-100, 8, -100]])},
        {"input_ids": np.array([[2, 7, 3, 0]]), "labels": np.full((1, 4), -100)},
        {
            "input_ids": np.array([[2, 4, 6, 4, 3], [2, 9, 3, 0, 0]]),
            "labels": np.array([[-100, 7, 6, 5, -100], [-100, 9, -100, -100, -100]]),
        },
    ),
    mistakes=(
        Mistake(
            "of all positions",
            lambda input_ids, labels: float((input_ids == labels).mean()),
            "you divide by all positions; the share is taken of the questions, the positions whose label is not −100",
        ),
        Mistake(
            "hidden instead of visible",
            lambda input_ids, labels: 1 - _visible(input_ids, labels) if (labels != -100).any() else 0.0,
            "you count the questions whose answer does not stand in the input; a leak shows in those where it does",
        ),
        Mistake(
            "not [MASK]",
            lambda input_ids, labels: float((input_ids != 4)[labels != -100].mean()) if (labels > 0).any() else 0.0,
            "you count every question that does not show [MASK]; a random word shows no answer either",
        ),
        Mistake(
            "mean over rows",
            lambda input_ids, labels: float(
                np.mean([_visible(x, y) for x, y in zip(input_ids, labels, strict=True)])  # questions per row differ
            ),
            "you take the mean of the shares of the rows; each question counts the same, in whatever row it stands",
        ),
    ),
    hints=(
        "Which positions are questions? Only there are the two arrays compared.",
        "A boolean array selects the questions; another says where the two arrays agree.",
        "`(input_ids == labels)[labels != -100].mean()`, after the case that nothing is asked.",
    ),
)

LETTERS = ConceptTask(
    id="07.9", title="Scores that are too good", points=3, concepts=("C30",), draw=_draw_letters, computed=True
)
MIRROR = ConceptTask(
    id="07.12", title="The overlap of a mirror", points=2, concepts=("C30",), draw=_draw_mirror, computed=True
)
