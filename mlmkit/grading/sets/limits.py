"""Tasks on the limits of masking and its relatives: the discrepancy, lost dependencies, left to right by masks."""

from __future__ import annotations

import numpy as np

from mlmkit.grading.chance import pick
from mlmkit.grading.questions import choice
from mlmkit.grading.sets.limits_code import LOST, QUESTIONS
from mlmkit.grading.sets.limits_numbers import (
    HOLES,
    draw_curve,
    draw_evidence,
    draw_holes,
    draw_passes,
    draw_sums,
    nats_lost,
)
from mlmkit.grading.tasks import ConceptTask, Question

# 04.6 What is learned at a visible word

RECIPES = (("80/10/10", 20), ("90/5/5", 10), ("70/15/15", 30), ("60/20/20", 40))


def _draw_discrepancy(rng: np.random.Generator) -> Question:
    recipe, share = pick(rng, RECIPES)
    text, word = pick(
        rng,
        (
            ("this soup sells twice", "soup"),
            ("the early bird catches the worm", "bird"),
            ("old onion sells a boat", "onion"),
            ("the cat sat on the mat", "cat"),
            ("a small boat crosses the river", "boat"),
        ),
    )
    return choice(
        "Two equal networks are trained on the same text: A always writes [MASK] at the selected positions, B writes "
        f"{recipe} ([MASK], random, kept). Both reach about the same loss at a [MASK]. Now they read the clean "
        f'sentence "{text}", and we look at their answers at the position that shows "{word}". What is to be '
        "expected?",
        rng,
        right=f'B mostly names "{word}"; A may name anything, since its objective never asked at a visible word',
        wrong={
            f'Both name "{word}": at a [MASK] they are equally good, and a visible word is easier': "a visible word "
            "is easy only for a network that was asked there. A was asked at [MASK] only, so nothing pulled it "
            "toward using what stands at the position itself",
            f'A names "{word}" more often than B, since A never saw a random word and has no reason to doubt': "A has "
            "no reason to doubt and none to trust: its training loss does not depend on its answers at visible words",
            f"Neither does better than at a [MASK], where {100 - share}% of B's questions are asked": f"{share}% of "
            "B's questions are at a visible word, and that is enough to learn mostly to trust it",
            f"B answers as if it had been trained on clean text: {recipe} removes the discrepancy": "it softens the "
            "discrepancy and does not remove it: in B's training there are still [MASK] tokens, which no clean text "
            "has, and B still doubts a visible word a little",
        },
        why=f"{share}% of B's questions stand at a visible word, and none of A's. In use there is no [MASK] at all, "
        "so what A does at visible words was never trained.",
    )


# 04.8 When nothing is lost


def _draw_nothing_lost(rng: np.random.Generator) -> Question:
    text, (u, v, _), (s, t) = pick(rng, HOLES)

    def row(a: float, b: float, c: float, d: float) -> str:
        return f"{u}–{s} {a:.2f}, {u}–{t} {b:.2f}, {v}–{s} {c:.2f}, {v}–{t} {d:.2f}"

    p, q = pick(rng, ((0.6, 0.7), (0.8, 0.6), (0.7, 0.8), (0.9, 0.6), (0.6, 0.8), (0.3, 0.9), (0.2, 0.7)))
    small = float(pick(rng, (0.05, 0.1, 0.15, 0.2)))
    hole = float(pick(rng, (0.2, 0.3, 0.4)))
    tables = {"sure": np.diag([0.5, 0.5]), "even": np.array([[0.5 - small, small], [small, 0.5 - small]])}
    gap = np.array([[hole, 0.0], [1 - 2 * hole + 0.1, hole - 0.1]])
    return choice(
        f"**{text}**: for each language below you see how often the two holes are filled in which way. In which "
        "language does a masked model lose **nothing** by answering both holes independently?",
        rng,
        right=row(p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q)),
        wrong={
            row(0.5, 0, 0, 0.5): f"each hole has a fair answer, but each tells the other completely: "
            f"{nats_lost(tables['sure']):.3f} nats are lost, and half of the sentences filled at once do not exist",
            row(0.5 - small, small, small, 0.5 - small): f"the table is symmetric, and every pair occurs, but the "
            f"words still depend on each other: {nats_lost(tables['even']):.3f} nats are lost. Compare with the "
            "product, 0.25 everywhere",
            row(*(float(value) for value in gap.ravel())): f"the pair {u}–{t} never occurs although both words do: "
            f"independent answers give it a share, and {nats_lost(gap):.3f} nats are lost",
        },
        why=f'the share of "{s}" is {q:g} beside "{u}" and beside "{v}": neither word tells anything about the other, '
        "so the joint is the product of its margins.",
    )


# 04.10 A claim


def _draw_claim(rng: np.random.Generator) -> Question:
    masked = 1.2 + 0.05 * int(rng.integers(8))
    causal = masked + 0.3 + 0.05 * int(rng.integers(8))
    return choice(
        f'A friend says: "My masked model, {pick(rng, (10, 15, 20))}% of the words hidden, has a loss of '
        f"{masked:.2f} nats, and my left-to-right model {causal:.2f}. So the masked model knows the language "
        'better." What is wrong?',
        rng,
        right="The two losses answer different questions: one reader may have both, and the masked one rises with the "
        "number of hidden words",
        wrong={
            "Nothing: the lower loss is the better model, whatever is asked": "that holds for the same questions. "
            "With most words in sight a hidden word is easier than the next word from the left, for any reader",
            "The masked loss has to be divided by the share of hidden words before it is compared": "it is already a "
            "mean per hidden word. What differs is not how many questions are asked but how much is visible",
            "The left-to-right model must have seen x_i, since its loss is the higher one": "who sees x_i has a loss "
            "near 0. From the left alone a higher loss is to be expected",
            "Masked models predict the words independently, so their loss is too high to be compared": "the single "
            "answers are right, and the loss counts nothing else: what is lost is the pair. The masked loss is low "
            "because much is visible",
        },
        why="averaged over all numbers of hidden words, the masked loss of a perfect reader is its left-to-right loss.",
    )


TASKS = (
    ConceptTask(
        id="04.1", title="A visible word as evidence", points=3, concepts=("C14",), draw=draw_evidence, computed=True
    ),
    LOST,
    QUESTIONS,
    ConceptTask(id="04.4", title="Questions and passes", points=2, concepts=("C18",), draw=draw_passes, computed=True),
    ConceptTask(
        id="04.5", title="What joins the two losses", points=2, concepts=("C18",), draw=draw_curve, computed=True
    ),
    ConceptTask(id="04.6", title="Asked only at [MASK]", points=2, concepts=("C14",), draw=_draw_discrepancy),
    ConceptTask(id="04.7", title="Two holes, one pass", points=3, concepts=("C15",), draw=draw_holes, computed=True),
    ConceptTask(id="04.8", title="When nothing is lost", points=2, concepts=("C15",), draw=_draw_nothing_lost),
    ConceptTask(id="04.9", title="Do they add up to 1?", points=2, concepts=("C18",), draw=draw_sums, computed=True),
    ConceptTask(id="04.10", title="A friend's claim", points=1, concepts=("C18",), draw=_draw_claim),
)
