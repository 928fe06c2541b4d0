"""Tasks on sentence pairs: the layout, true and random B's, shortcuts, the loss, and how good one can be."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.chance import apart
from mlmkit.grading.questions import choice, match, number, numbers
from mlmkit.grading.sets.sentence_pairs_code import FALSE_LABELS, LAY_OUT, TRUNCATE
from mlmkit.grading.sets.sentence_pairs_drawn import MAKE_PAIRS
from mlmkit.grading.tasks import ConceptTask, Question

# 06.3 Shortcuts

LEAKS = [
    ("of news stories", "the first word of a sentence", "second sentences often begin with “He”, “It” or “But”"),
    ("from two sources, letters and manuals", "which source B is from", "a document comes from one source only"),
    ("of diaries", "a year that both sentences name", "a diary names its year again and again"),
    ("of plays", "the name of a speaker at the beginning", "two neighbors are seldom spoken by the same person"),
    ("of recipes", "the last character of A", "a heading ends with a colon, and its list follows"),
    ("of scanned books", "the spelling of common words in A and B", "each book keeps to one spelling"),
    ("of web pages", "the number of capital letters in B", "openings and headings have many of them"),
    ("of court cases", "the number at the beginning of a sentence", "the number in B is often that in A plus one"),
]


def _draw_shortcut(rng: np.random.Generator) -> Question:
    corpus, feature, fact = LEAKS[rng.integers(len(LEAKS))]
    return choice(
        f"In a corpus {corpus}, {fact}. Half of the pairs are true, half take a random B from another document. You "
        f"fear that **{feature}** gives c away. Which measurement tells whether it does?",
        rng,
        right="Fit a rule that sees nothing else on one half of the pairs, and compare its accuracy on the other half "
        "with 50 %",
        wrong={
            "Fit a rule that sees nothing else on all pairs, and compare its accuracy on the same pairs with 50 %": (
                "a rule with enough cases fits chance: on its own pairs it is above 50 % even where there is nothing "
                "to find"
            ),
            "Train the model; if its NSP loss falls below ln 2, it uses this": (
                "a loss below ln 2 says that the model can tell c, and not by what: it may have read the sentences"
            ),
            "Count the labels; if half of the pairs have c = 1, nothing is given away": (
                "equal shares say that guessing earns 50 %. What can be seen may still differ between the two halves"
            ),
            "Count how often it is so in true pairs; if often, it gives c away": (
                "a share counts only beside that of the random pairs: where it is as frequent there, it tells nothing"
            ),
        },
        why=f"If {feature} alone, on pairs it was not fitted to, tells c clearly better than a coin, the answer can be "
        "had without reading. Section 3 measures the length so.",
    )


# 06.5 Loss and accuracy


def _draw_loss(rng: np.random.Generator) -> Question:
    while True:
        sure = rng.choice([0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.98], 3, replace=False)
        p = [*sure.tolist(), float(rng.choice([0.02, 0.05, 0.1, 0.15])), float(rng.choice([0.3, 0.35, 0.4, 0.45]))]
        p = [p[i] for i in rng.permutation(5)][: int(rng.integers(4, 6))]
        losses, mean = [-math.log(one) for one in p], sum(p) / len(p)
        loss, accuracy = sum(losses) / len(p), sum(one > 0.5 for one in p) / len(p)
        others = [sum(losses), -math.log(mean), 1 - mean, loss / math.log(2), loss / math.log(10)]
        if min(p) < 0.2 and apart(loss, *others) and apart(accuracy, mean):
            break
    return numbers(
        f"A model gives the true relation the probabilities **{', '.join(f'{one:g}' for one in p)}** in {len(p)} "
        "pairs. Compute its NSP loss in nats (`loss`), its accuracy, when it answers with the likelier relation "
        "(`accuracy`, between 0 and 1), and say which pair costs most (`costliest`, counted from 1). Three digits "
        "suffice.",
        {"loss": loss, "accuracy": accuracy, "costliest": p.index(min(p)) + 1},
        wrong={
            "the loss is the mean over the pairs, not their sum": {"loss": others[0]},
            "that is −log of the mean probability; the loss is the mean of the −log, and feels a single bad answer": {
                "loss": others[1]
            },
            "1 − p is no cross-entropy: take −log p": {"loss": others[2]},
            "that is the logarithm to base 2; nats take the natural one": {"loss": others[3]},
            "that is the logarithm to base 10; nats take the natural one": {"loss": others[4]},
            "accuracy counts answers: a pair is right when the true relation has more than 0.5, and then it counts as "
            "1": {"accuracy": mean},
            "the surest right answer costs least: −log p is small where p is near 1": {
                "costliest": p.index(max(p)) + 1
            },
        },
        why=f"−log {min(p):g} = {-math.log(min(p)):.2f} nats is {-100 * math.log(min(p)) / sum(losses):.0f} % of the "
        "sum. The accuracy does not see how wrong a wrong answer is.",
    )


# 06.6 The ceiling


def _draw_ceiling(rng: np.random.Generator) -> Question:
    topics = int(rng.choice([4, 5, 6, 7, 8, 9, 10, 12]))
    surest = topics / (topics + 1)
    return numbers(
        f"On a language with **{topics}** equally likely topics both sentences of a document have the same topic; a "
        "random B has any of them. Half of the pairs are true. Suppose that the topics of A and B can always be seen, "
        "and nothing else helps. What is the highest possible accuracy (`accuracy`)? And when the topics agree, what "
        "is Pr(c = 0) (`surest`)? Three digits suffice.",
        {"accuracy": 0.5 + 0.5 * (1 - 1 / topics), "surest": surest},
        wrong={
            "a random B may have the same topic by chance, and then nobody can tell: the accuracy stays below 1": {
                "accuracy": 1.0
            },
            "that is how sure one can be when the topics agree; when they differ, “random” is certain, so the accuracy "
            "is higher": {"accuracy": surest},
            "that is the share of random pairs whose topics differ, all of them answered rightly; true pairs are "
            "answered rightly too, since their topics agree": {"accuracy": 1 - 1 / topics},
            f"agreeing topics are no proof: one random pair in {topics} agrees as well": {"surest": 1.0},
            "the two relations are equally frequent among all pairs, and no longer among those whose topics agree": {
                "surest": 0.5
            },
            "that is the share of random pairs whose topics differ; the odds of true against random are 1 to "
            f"1/{topics}, so divide by their sum": {"surest": 1 - 1 / topics},
        },
        why=f"All true pairs and {topics - 1} of {topics} random ones are answered rightly. Among the pairs that "
        f"agree, true and random ones stand {topics} to 1.",
        relative=0.002,
    )


# 06.8 Count positions

SENTENCES = [
    "the bird waits",
    "nobody has a ticket",
    "the boats stay at home",
    "it looks for a worm",
    "the early bird catches the worm",
    "the late bird waits for the bus",
    "water is carried from the well every morning",
    "a mouse crosses the yard while the cat is asleep",
    "the doors close",
    "the driver counts the coins twice",
]


def _draw_positions(rng: np.random.Generator) -> Question:
    one, other = (SENTENCES[i] for i in rng.choice(len(SENTENCES), 2, replace=False))
    a, b = len(one.split()), len(other.split())
    return numbers(
        f"A = “{one}”, B = “{other}”, each word one token. They are laid out as a pair. How long is the sequence "
        "(`length`)? At which position stands the first [SEP] (`first_sep`)? Which position is the last (`last`)? How "
        "many positions have segment 0, how many segment 1 (`segment_0`, `segment_1`)?",
        {"length": a + b + 3, "first_sep": a + 1, "last": a + b + 2, "segment_0": a + 2, "segment_1": b + 1},
        wrong={
            "the second [SEP] is missing: B is ended by one as well": {
                "length": a + b + 2,
                "last": a + b + 1,
                "segment_1": b,
            },
            "the first [SEP] ends A, and has its segment: 0": {"segment_0": a + 1, "segment_1": b + 2},
            "[CLS] is missing: it stands at position 0, in segment 0": {
                "length": a + b + 2,
                "first_sep": a,
                "last": a + b + 1,
                "segment_0": a + 1,
            },
            "positions count from 0, where [CLS] stands": {"first_sep": a + 2, "last": a + b + 3},
            "the positions begin with 0, so the last one is smaller than the length by one": {"last": a + b + 3},
            "positions do not start again at B: they run on": {"last": b + 1},
        },
        why=f"1 + {a} + 1 positions of segment 0, {b} + 1 of segment 1; positions 0 to {a + b + 2}.",
        relative=1e-9,
    )


# 06.9 False labels


def _draw_false(rng: np.random.Generator) -> Question:
    sentences = int(rng.integers(4, 13))
    count = 40 * sentences * int(rng.integers(2, 8))
    return number(
        f"A corpus has documents of **{sentences}** sentences. By mistake a “random” B is any sentence of A's own "
        f"document, each of the {sentences} with the same probability (A itself too); A always has a successor. Of "
        f"**{count}** pairs half get the label “random”. In how many of all pairs do you expect a label that is "
        "plainly false?",
        count / 2 / sentences,
        wrong={
            "only the half that is called random can be false here: a true B is the next one": count / sentences,
            f"A itself can be drawn too, so there are {sentences} sentences to draw from": count / 2 / (sentences - 1),
            "a random sentence of the same document is the next one now and then, and is called random all the "
            "same": 0.0,
            "the label is false only where the sentence drawn is truly the next one; the others are bad pairs, and "
            "their labels are not false": count / 2,
            "that counts the pairs called random whose label is not false": count / 2 * (1 - 1 / sentences),
        },
        why=f"{count}/2 pairs are called random, and one in {sentences} of them is truly the next. In the others both "
        "sentences still tell the same story.",
    )


# 06.10 Which task asks for what

MLM, NSP = "masked language modeling, at the selected positions", "next-sentence prediction, from h_cls"
NEITHER = "neither: it takes labels of a task"
WORDS = [
    "Which word fits between “the guard” and “the door”?",
    "That a plural follows “two”",
    "Which piece completes “un ##lock [MASK]”?",
    "That after “catches the” here “worm” is likelier than “wall”",
    "Which preposition stands between “the boats stay” and “home”?",
]
RELATIONS = [
    "Whether “it looks for a worm” may follow “the bird wakes early”",
    "Whether two sentences belong to one document",
    "A single vector that says something about the pair as a whole",
    "Whether “the oven is hot” and “the bus leaves at nine” belong together",
    "One yes or no for each pair, made from the corpus without labeling by hand",
]
LABELS = [
    "Which of two reviews a customer calls the better one",
    "Into which of a firm's folders a mail belongs",
    "Which of five marks a teacher gave an essay",
]


def _draw_tasks(rng: np.random.Generator) -> Question:
    chosen = {WORDS[i]: MLM for i in rng.choice(len(WORDS), 2, replace=False)}
    chosen |= {RELATIONS[i]: NSP for i in rng.choice(len(RELATIONS), 2, replace=False)}
    chosen |= {LABELS[rng.integers(len(LABELS))]: NEITHER}
    items = [list(chosen)[i] for i in rng.permutation(5)]
    explained = {
        (MLM, NSP): "this is about a word at its place; NSP asks for one answer for the whole pair",
        (NSP, MLM): "this is about the pair as a whole; MLM asks for words, each at its place",
        (NEITHER, MLM): "a corpus does not contain this answer; hidden words do not ask for it",
        (NEITHER, NSP): "NSP only knows whether B follows A; this answer is not in the corpus",
        (MLM, NEITHER): "the corpus itself has the answer: it is the word that was hidden",
        (NSP, NEITHER): "the corpus itself has the answer: it knows what follows what",
    }
    return match(
        "Which of the two pre-training tasks asks for it directly?",
        rng,
        pairs={item: chosen[item] for item in items},
        wrong={
            (item, option): says for item in items for (true, option), says in explained.items() if true == chosen[item]
        },
        why="MLM teaches words from their surroundings, NSP one thing about two sentences; both make their labels from "
        "the text.",
    )


# 06.11 Symptoms

SAME = "A random B is drawn from A's own document"
IGNORED = "Both losses share one criterion with ignore_index = 0"
CUT = "Too long pairs lose the end of the whole sequence"
FILLED = "A random B begins anywhere and is filled up to the room; a true B ends with its document"
ALL_NEXT = "Every B is the true next sentence"


def _draw_symptoms(rng: np.random.Generator) -> Question:
    share, room = int(rng.integers(58, 72)), int(rng.choice([61, 125, 253, 509]))
    symptoms = {
        SAME: "The NSP loss stays near ln 2 = 0.693 however long one trains, while the MLM loss falls as it should",
        IGNORED: "The NSP loss falls nearly to 0, and the model calls every pair random, true ones too",
        CUT: f"Where A has {room} tokens or more, no word has segment 1",
        FILLED: f"A rule that sees only the length of a pair is right in {share} % of the pairs",
        ALL_NEXT: "The NSP loss falls nearly to 0, and the model calls every pair next",
    }
    kept = [list(symptoms)[i] for i in rng.permutation(5)[:4]]
    return match(
        f"Four programs make pairs with room for {room} tokens, each with another fault. Which fault shows itself how?",
        rng,
        pairs={symptoms[fault]: fault for fault in kept},
        extra=[fault for fault in symptoms if fault not in kept],
        wrong={
            (symptoms[IGNORED], ALL_NEXT): "with true pairs only, the model would learn to say “next”",
            (
                symptoms[ALL_NEXT],
                IGNORED,
            ): "label 0 says next; where it is ignored only random pairs are left to learn from",
            (symptoms[SAME], IGNORED): "with the true pairs ignored the loss is easily made small: always say “random”",
            (symptoms[SAME], ALL_NEXT): "with one label only the loss is easily made small: always say it",
            (symptoms[SAME], FILLED): "where something gives the answer away the loss falls below ln 2",
            (symptoms[FILLED], SAME): "drawing from A's own document makes c hard to tell, also from a length",
            (symptoms[FILLED], CUT): "cutting makes long pairs equally long, true ones and random ones alike",
            (symptoms[IGNORED], SAME): "with B's from A's own document c can hardly be told: the loss stays high",
            (symptoms[ALL_NEXT], SAME): "with B's from A's own document c can hardly be told: the loss stays high",
        },
        why="A loss near ln 2 says that c cannot be told; one near 0 with a single answer, that one label is missing; "
        "a good rule that does not read, that something gives c away.",
    )


C23, C24 = ("C23",), ("C24",)

TASKS = (
    LAY_OUT,
    FALSE_LABELS,
    ConceptTask(id="06.3", title="Told without reading", points=2, concepts=C24, draw=_draw_shortcut),
    TRUNCATE,
    ConceptTask(id="06.5", title="Loss and accuracy", points=2, concepts=C24, draw=_draw_loss, computed=True),
    ConceptTask(id="06.6", title="The ceiling", points=2, concepts=C24, draw=_draw_ceiling, computed=True),
    MAKE_PAIRS,
    ConceptTask(id="06.8", title="Count positions", points=2, concepts=C23, draw=_draw_positions, computed=True),
    ConceptTask(id="06.9", title="Plainly false labels", points=2, concepts=C24, draw=_draw_false, computed=True),
    ConceptTask(id="06.10", title="Which task asks for it", points=2, concepts=("C24", "C26"), draw=_draw_tasks),
    ConceptTask(id="06.11", title="Faults and symptoms", points=2, concepts=C24, draw=_draw_symptoms),
)
