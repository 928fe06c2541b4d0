"""Tasks on WordPiece: learning pieces by merges, applying them by longest match, and what a loss per token is worth."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from mlmkit.grading.questions import choice, numbers, order
from mlmkit.grading.sets.wordpiece_code import LONGEST_MATCH, MERGES
from mlmkit.grading.tasks import ConceptTask, Question

# 05.2 From text to words

NUMBERS = {"3.14": (3, 2), "12:30": (3, 2), "1.000.000": (5, 3), "24/7": (3, 2), "192.168.0.1": (7, 4), "9,5": (3, 2)}
HYPHENS = {
    "don't": (3, 2),
    "mother-in-law": (5, 3),
    "re-open": (3, 2),
    "rock'n'roll": (5, 3),
    "o'clock": (3, 2),
    "up-to-date": (5, 3),
}
ACCENTS = {
    "naïve": "naive",
    "café": "cafe",
    "über": "uber",
    "façade": "facade",
    "señor": "senor",
    "jalapeño": "jalapeno",
}
"""Strings with their number of words: with punctuation as words, and when it is dropped."""


def _draw_words(rng: np.random.Generator) -> Question:
    number, hyphen, accent = (str(rng.choice(list(pool))) for pool in (NUMBERS, HYPHENS, ACCENTS))
    (n, n_bare), (h, h_bare) = NUMBERS[number], HYPHENS[hyphen]
    return numbers(
        "Into how many words does “uncased” BERT cut each of these strings, before it looks for pieces? "
        f"`number`: **{number}**, `mark`: **{hyphen}**, `accent`: **{accent}**. And how many words are all three "
        "together when they stand in a row, with spaces between them and a period at the end (`all`)?",
        {"number": n, "mark": h, "accent": 1, "all": n + h + 2},
        wrong={
            "text is cut not only at spaces: each punctuation mark is cut off and becomes a word of its own": {
                "number": 1,
                "mark": 1,
                "all": 3,
            },
            "punctuation is cut off, but not thrown away: each mark is a word of its own": {
                "number": n_bare,
                "mark": h_bare,
                "all": n_bare + h_bare + 1,
            },
            "the accent is dropped from its letter; it is neither a cut nor a word": {"accent": 2},
            "the period at the end is a word of its own": {"all": n + h + 1},
        },
        why=f"Letters and digits stay together, each of the marks is a word, and “{accent}” becomes "
        f"“{ACCENTS[accent]}”, one word.",
        relative=1e-9,
    )


# 05.4 When longest match fails

SYLLABLES = "ba de fi go ku la me ni po ru sa te vi wo xu zy".split()
"""Each begins with another consonant, so that a word of them cannot be read in two ways."""


def _draw_greedy(rng: np.random.Generator) -> Question:
    x, y, z, w, other = (SYLLABLES[i] for i in rng.permutation(len(SYLLABLES))[:5])
    vocabulary = [x, x + y, f"##{y}{z}", f"##{w}", w]
    right, plain, second = x + y + z, x + y + w, w + y + z
    unknown, unmarked = x + w + other, y + z + w
    shown = "  ".join(f"`{vocabulary[i]}`" for i in rng.permutation(len(vocabulary)))
    return choice(
        f"The whole vocabulary is {shown}. Which word becomes [UNK] by longest match although it **could** be cut into "
        "pieces of this vocabulary?",
        rng,
        right=right,
        wrong={
            plain: f"longest match cuts this word as {x + y} ##{w}",
            second: f"longest match cuts this word as {w} ##{y}{z}",
            unknown: f"this word is [UNK], but no cut of it exists: “{other}” is in no piece",
            unmarked: f"this word is [UNK], but no cut of it exists: ##{y}{z} can only continue a word, not begin one",
        },
        why=f"Longest match takes {x + y} and is left with “{z}”, which no piece fits; {x} ##{y}{z} would have worked. "
        "It is greedy, and never goes back.",
    )


# 05.5 From text to an input with masks

ROWS = (
    ("The unbaked loaves stayed.", "unbaked", "un ##baked"),
    ("She rereads the letters.", "rereads", "re ##reads"),
    ("The talkers walked away.", "talkers", "talk ##ers"),
    ("They reopened a window.", "reopened", "re ##opened"),
    ("He uncovered the bread.", "uncovered", "un ##covered"),
    ("Our bakeries are open.", "bakeries", "baker ##ies"),
    ("An unread book waits.", "unread", "un ##read"),
    ("The smallest reader won.", "smallest", "small ##est"),
)


def _draw_order(rng: np.random.Generator) -> Question:
    text, word, pieces = ROWS[int(rng.integers(len(ROWS)))]
    bare = text.strip(".").split()
    selected = [str(rng.choice([one for one in bare if one != word])), pieces.split()[1]]
    steps = [
        "the text is brought to lower case, without accents, and cut into words at spaces and punctuation",
        f"each word is cut into pieces by longest match: {word} becomes {pieces}",
        "each piece is replaced by its number in the vocabulary",
        "the ids of [CLS] and [SEP] are put around the others, so that each token has its position",
        f"positions are selected among the ordinary tokens, say those of “{selected[0].lower()}” and “{selected[1]}”",
        "the ids at the selected positions are noted as labels",
        "at most of the selected positions the id of [MASK] is put in",
    ]
    return order(
        f"A sentence is prepared for masked language modeling: *{text}* In which order do these steps happen?",
        rng,
        steps=steps,
        because={
            (
                5,
                6,
            ): "the labels are noted before anything is hidden: afterwards the ids at these positions are [MASK]'s",
            (1, 4): f"positions are positions of pieces: nobody can select “{selected[1]}” while “{word}” is one word",
            (1, 6): f"a word that is hidden before it is cut would leave one [MASK], whatever its number of pieces; "
            f"“{word}” has two, and the labels would be lost",
            (
                0,
                1,
            ): "longest match works on single words in lower case: first the text is cut at spaces and punctuation",
            (1, 2): "only pieces have numbers: “" + word + "” is not in the vocabulary, its pieces are",
            (2, 3): "[CLS] and [SEP] are put in as ids, around the ids of the text",
            (3, 4): "positions are counted with [CLS] at 0: it has to be there before positions are selected",
            (4, 5): "before positions are selected, no one knows which ids are the labels",
        },
        why="First the tokenizer does its whole work, then tokens are selected, remembered, and hidden. Hiding words "
        "in the text would lose the labels and the number of their pieces.",
    )


# 05.6 Two vocabularies, two currencies


def _draw_losses(rng: np.random.Generator) -> Question:
    while True:
        small, large = int(rng.integers(135, 190)) / 100, int(rng.integers(103, 131)) / 100
        a, b = int(rng.integers(26, 36)) / 10, int(rng.integers(32, 50)) / 10
        words = 1000 * int(rng.integers(2, 40))
        per_word = {"A": a * small, "B": b * large}
        wrong = _wrong_losses(a, b, small, large, words)
        told = [{**per_word, "saved": words * (a * small - b * large), **one} for one in [{}, *wrong.values()]]
        apart = all(_differ(one, other) for one, other in combinations(told, 2))
        if b > 1.1 * a and a * small > 1.05 * b * large and apart:
            break
    return numbers(
        f"Two models have read the same text. Model A has a loss of **{a:.1f} nats per token** at **{small:.2f}** "
        f"tokens a word, model B **{b:.1f} nats per token** at **{large:.2f}** tokens a word. How many nats does each "
        f"pay for a word (`A`, `B`), and how many fewer than A does B pay for a text of **{words:,} words** (`saved`; "
        "negative if B pays more)? Round nothing on the way.",
        {**per_word, "saved": words * (a * small - b * large)},
        wrong=wrong,
        why=f"A pays {a * small:.2f} nats for a word, B {b * large:.2f}: B predicts the text better, although its loss "
        "per token is higher. A takes smaller and more steps.",
        relative=0.01,
    )


def _wrong_losses(a: float, b: float, small: float, large: float, words: int) -> dict[str, dict[str, float]]:
    """What misconceptions lead to."""
    return {
        "these are the losses per token: a word has more tokens than one, and each of them is paid for": {
            "A": a,
            "B": b,
            "saved": words * (a - b),
        },
        "nats per token times tokens per word gives nats per word; you have divided": {
            "A": a / small,
            "B": b / large,
            "saved": words * (a / small - b / large),
        },
        "the losses per word are right, but the difference is taken of the losses per token: the same text has more "
        "tokens for A than for B": {"saved": words * (a - b)},
        "the sign is turned round: B pays less for a word than A, so it saves something": {
            "saved": words * (b * large - a * small)
        },
        "this is saved on a single word": {"saved": a * small - b * large},
    }


def _differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers are told apart, by at least 3 % somewhere."""
    return any(abs(one[name] - other[name]) > 0.03 * abs(one[name]) for name in one)


TASKS = (
    ConceptTask(id="05.2", title="From text to words", points=1, concepts=(), draw=_draw_words, computed=True),
    MERGES,
    ConceptTask(id="05.4", title="When longest match fails", points=2, concepts=(), draw=_draw_greedy),
    ConceptTask(id="05.5", title="What comes first", points=2, concepts=(), draw=_draw_order),
    ConceptTask(id="05.6", title="Two vocabularies", points=2, concepts=(), draw=_draw_losses, computed=True),
    LONGEST_MATCH,
)
