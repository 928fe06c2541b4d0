"""Tasks on what enters the encoder: token, position and segment, the row of [MASK], the row of [PAD]."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

from mlmkit.grading.chance import apart
from mlmkit.grading.questions import choice, number, several
from mlmkit.grading.sets.embedding_sum_code import EMBED, GRADIENT, SEGMENTS, Array
from mlmkit.grading.sets.embedding_sum_rows import draw_batch_size, draw_pad_row, draw_reached, draw_rows
from mlmkit.grading.tasks import ConceptTask, Question

Draw = Callable[[np.random.Generator], Question]

# A, B, the position of a word to hide (with [CLS] at 0), its segment
PAIRS = (
    ("old boat finds sweet fish", "the net is full", 5, 0),
    ("old boat finds sweet fish", "the net is full", 9, 1),
    ("birds sing", "worms hide", 4, 1),
    ("proud rose grows here", "bees like it", 2, 0),
    ("proud rose grows here", "bees like it", 6, 1),
    ("snow lies on the line", "the train waits", 8, 1),
    ("she mends the page", "rain taps on the roof", 4, 0),
    ("she mends the page", "rain taps on the roof", 6, 1),
)


def _hidden(rng: np.random.Generator) -> tuple[str, str, int, int]:
    """A pair with one word hidden, the word, its position and its segment."""
    a, b, place, segment = PAIRS[int(rng.integers(len(PAIRS)))]
    tokens = ["[CLS]", *a.split(), "[SEP]", *b.split(), "[SEP]"]
    word, tokens[place] = tokens[place], "[MASK]"
    return " ".join(tokens), word, place, segment


# 08.3 What an encoder without positions notices

WORDS = "cat dog chases flees sees old bird sings here loudly boat finds fish".split()


def _draw_exchanges(rng: np.random.Generator) -> Question:
    words = rng.choice(WORDS, 4, replace=False).tolist()
    in_a = int(rng.integers(1, 4))
    segment = [0] * in_a + [1] * (4 - in_a)
    every = list(combinations(range(4), 2))
    noticed = [pair for pair in every if segment[pair[0]] != segment[pair[1]]]
    silent = [pair for pair in every if pair not in noticed]
    noticed = [noticed[k] for k in rng.permutation(len(noticed))[:3]]
    listed = " ".join(f"{word}/{s}" for word, s in zip(["[CLS]", *words, "[SEP]"], [0, *segment, 1], strict=True))

    def name(pair: tuple[int, int]) -> str:
        return f"{words[pair[0]]} and {words[pair[1]]}"

    return several(
        "A network has no positions: its table P is 0 and stays 0. It reads tokens with these segments (word/segment): "
        f"**{listed}**. Two words are exchanged, and the segments stay with their places. Which exchanges change the "
        "hidden state at [CLS]?",
        rng,
        right={
            name(pair): f"“{words[pair[0]]}” enters with segment {segment[pair[0]]}, and after the exchange with "
            f"{segment[pair[1]]}: two other vectors enter than before, so the set that [CLS] reads is another"
            for pair in noticed
        },
        wrong={
            name(pair): f"both places have segment {segment[pair[0]]}, so the same two vectors enter, exchanged; [CLS] "
            "reads a set, and the set is the same"
            for pair in silent
        },
        why="Without P a word enters as its row plus the row of its segment: only an exchange across the segments "
        "gives other vectors.",
    )


# 08.4 Segments that are never told

# A and B of two inputs with a word at the same position, once in B and once in A
TWICE = (
    ("birds sing", "worms hide", "birds sing and worms hide", "nobody listens", "worms"),
    ("snow falls", "trains wait", "snow falls and trains wait", "we read", "trains"),
    ("the lamp turns", "ships pass", "the lamp turns while ships pass", "he sleeps", "ships"),
    ("he digs", "she reads", "he digs and she reads", "then they eat", "she"),
    ("pears fall", "goats eat them", "pears fall and goats eat", "the boy laughs", "goats"),
    ("my bike broke", "men help", "my bike broke but men help", "it runs", "men"),
)


def _draw_told(rng: np.random.Generator) -> Question:
    a, b, c, d, word = TWICE[int(rng.integers(len(TWICE)))]
    return choice(
        f"A network is trained and used with all segments 0. It reads “[CLS] {a} [SEP] {b} [SEP]” and “[CLS] {c} "
        f"[SEP] {d} [SEP]”: “{word}” stands in B of the first and in A of the second, at position "
        f"{len(a.split()) + 2}. How can the network find out in which sentence the word is?",
        rng,
        right="By attention: the word's place reads the others and finds whether a [SEP] stands before it",
        wrong={
            "From the row of its position: places of B come after those of A": "how long A is differs from pair to "
            "pair: the same position lies in A of one pair and in B of another",
            "From the rows of the segments: $G_0$ in A and $G_1$ in B": "all segments are 0, so G_0 is added "
            "everywhere, in A and in B",
            "Not at all: what segments tell can be known from nothing else": "the segment is the number of [SEP]s "
            "before a position, and the [SEP]s are in the input: segments tell it at once, but they are not "
            "the only source",
            f"From the row of “{word}” in the table of tokens": f"“{word}” has one row, and it is the same in A and "
            "in B",
        },
        why="What segments say can be computed from the [SEP]s, but it takes a head in a layer; with segments it "
        "is known before anything has been read.",
    )


# 08.5 A network without a row for [MASK]


def _draw_zero_row(rng: np.random.Generator) -> Question:
    usual, rise = round(float(rng.uniform(2.6, 3.2)), 2), round(float(rng.uniform(0.15, 0.4)), 2)
    new = round(usual + float(rng.uniform(0.03, 0.1)), 2)
    return number(
        f"A network has a held-out loss of **{usual:.2f} nats**; with zeros in place of the row of [MASK] on the "
        f"input side it has **{usual + rise:.2f}**. A second network is trained from the same start, and after "
        f"each of its updates the row of [MASK] is set back to zero. Its held-out loss is **{new:.2f}**. What "
        "is it when zeros are put in place of the row of [MASK] in the second network?",
        new,
        wrong={
            f"the rise of {rise:.2f} belongs to a network that had learned to expect its row of [MASK]; the second one "
            "has never seen anything but zeros there": new + rise,
            "that is the loss of the first network with zeros; the second has other weights, which were trained with "
            "zeros there": usual + rise,
            "that is the loss of the first network with its own row; nothing of it is put into the second": usual,
        },
        why=f"The row is zero already, so nothing changes: {new:.2f}. At a masked position LN(P_i + G_s) enters, "
        "and the second network was trained with just that.",
        unit="nats",
        relative=0.001,
    )


# 08.7 What enters at a masked position


def _draw_entering(rng: np.random.Generator) -> Question:
    shown, word, i, s = _hidden(rng)
    rest = f"+ P_{{{i}}} + G_{s})$"
    return choice(
        f"“{shown}”: “{word}” is hidden at position {i}. What enters the encoder there?",
        rng,
        right=f"$\\mathrm{{LN}}(e_{{\\text{{mask}}}} {rest}",
        wrong={
            "Zeros: the position is empty": "[MASK] is a token with a row of its own, which is learned like any other; "
            "position and segment are added as everywhere",
            f"$\\mathrm{{LN}}(E_{{\\text{{{word}}}}} {rest}": "then the answer would stand in the input; of "
            f"“{word}” nothing enters, its id was replaced by that of [MASK]",
            f"$\\mathrm{{LN}}(P_{{{i}}} + G_{s})$": "the row of [MASK] is missing: it is a learned vector, and "
            "without it the loss of a trained network rises",
            f"$\\mathrm{{LN}}(e_{{\\text{{mask}}}} + P_{{{i}}} + G_{1 - s})$": f"position {i} lies in {'AB'[s]}, so "
            f"its segment is {s}: it is the number of [SEP]s before it",
            f"$\\mathrm{{LN}}(\\overline{{E}} {rest}, with the mean $\\overline{{E}}$ of all rows": "[MASK] is "
            "looked up like any token: its own row enters, and no mean of the words",
        },
        why=f"The same vector enters for every word that could stand at position {i}, segment {s}; what it was has "
        "to come from the other positions.",
    )


# 08.12 With a pencil


def _norm(*rows: Array) -> Array:
    y = np.sum(rows, axis=0)
    return (y - y.mean()) / y.std() if y.std() else y * 0.0


def _draw_pencil(rng: np.random.Generator) -> Question:
    shown, word, i, s = _hidden(rng)
    while True:
        mask, hidden, P, G0, G1 = rng.integers(-2, 4, (5, 4))
        G, other = (G0, G1) if s == 0 else (G1, G0)
        y = mask + P + G
        value = float(_norm(y)[0])
        wrong = {
            "at a masked position the row of [MASK] enters; that of the hidden word appears nowhere": _norm(
                hidden, P, G
            )[0],
            "[MASK] is no gap: its row is added like that of any token": _norm(P, G)[0],
            f"position {i} lies in {'AB'[s]}: its segment row is G_{s}": _norm(mask, P, other)[0],
            "that is the sum; layer norm takes off the mean and divides by the standard deviation": y[0],
            "the variance of layer norm divides by 4, the number of numbers, and not by 3": value * math.sqrt(3 / 4),
            "after the mean is taken off, divide by the standard deviation": y[0] - y.mean(),
        }
        candidates = [value, *map(float, wrong.values())]
        if y.std() > 0 and min(map(abs, candidates)) > 0.1 and apart(*candidates, relative=0.06):
            break

    def row(values: Array) -> str:
        return "(" + ", ".join(f"{n}" for n in values).replace("-", "−") + ")"

    return number(
        f"“{shown}”: “{word}” is hidden at position {i}. H = 4, and the rows are E_[MASK] = **{row(mask)}**, "
        f"E_{word} = **{row(hidden)}**, P_{i} = **{row(P)}**, G_0 = **{row(G0)}**, G_1 = **{row(G1)}**; γ is 1, "
        f"β is 0, ε is 0. What is the first number of e_{i}? Three digits suffice.",
        value,
        wrong={says: float(other) for says, other in wrong.items()},
        why=f"The sum is {row(y)}, its mean {y.mean():.2f}, its standard deviation {y.std():.3f}: "
        f"({y[0]} − {y.mean():.2f}) / {y.std():.3f} = {value:.3f}.".replace("-", "−"),
        relative=0.01,
    )


def _concept(
    id: str, title: str, points: int, concepts: tuple[str, ...], draw: Draw, computed: bool = False
) -> ConceptTask:
    return ConceptTask(id=id, title=title, points=points, concepts=concepts, draw=draw, computed=computed)


TASKS = (
    _concept("08.1", "How large a batch", 2, (), draw_batch_size, computed=True),
    EMBED,
    _concept("08.3", "What is noticed without positions", 2, (), _draw_exchanges),
    _concept("08.4", "Segments that are never told", 1, ("C23",), _draw_told),
    _concept("08.5", "Zeros for [MASK]", 2, ("C17",), _draw_zero_row),
    _concept("08.6", "The row of [PAD]", 2, (), draw_pad_row, computed=True),
    _concept("08.7", "What enters at [MASK]", 1, ("C17",), _draw_entering),
    GRADIENT,
    _concept("08.9", "Whose rows get a gradient", 2, ("C17",), draw_reached),
    _concept("08.10", "How many rows", 2, ("C17",), draw_rows, computed=True),
    SEGMENTS,
    _concept("08.12", "With a pencil", 2, ("C17", "C23"), _draw_pencil, computed=True),
)
