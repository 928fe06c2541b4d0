"""Tasks on batches: padding, the order of the steps, orders that can be resumed, leakage."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.chance import apart
from mlmkit.grading.questions import choice, number, numbers, order, several
from mlmkit.grading.sets.padded_batches_code import ORDER, PAD
from mlmkit.grading.sets.padded_batches_leaks import LETTERS, MIRROR, OVERLAP, VISIBLE
from mlmkit.grading.tasks import ConceptTask, Question

SENTENCES = (
    ("The quick brown fox jumps over the lazy dog", 4),
    ("The quick brown fox jumps over the lazy dog", 8),
    ("A heavy boat finds the sweet fish", 3),
    ("The keeper cleans the glass and winds the clock", 5),
    ("She mends the torn page with thin paper", 5),
    ("Bees leave the hive and dance to the clover", 6),
    ("Two men dig while the guard hands out tea", 9),
    ("An old man helps me with the broken chain", 3),
)
"""Sentences with a position to select; [CLS] is at position 0."""


def _masked(rng: np.random.Generator) -> tuple[str, str, int]:
    """A sentence with one word hidden, the word, its position."""
    sentence, place = SENTENCES[int(rng.integers(len(SENTENCES)))]
    words = sentence.split()
    hidden = words[place - 1]
    words[place - 1] = "[MASK]"
    return " ".join(words), hidden, place


# 07.2 A label on padding


def _draw_padding_label(rng: np.random.Generator) -> Question:
    while True:
        N, k = int(rng.integers(20, 61)), int(rng.integers(10, 200))
        loss, p = round(float(rng.uniform(4, 8)), 1), float(rng.choice([0.5, 0.6, 0.7, 0.8, 0.9]))
        nats = -math.log(p)
        value = (N * loss + k * nats) / (N + k)
        wrong = {
            "padding leaves the loss alone only if its label is −100; 0 is a token, and each such position is one more "
            "question": loss,
            "the sum has grown, and so has N: each padding position with a label counts among the positions over which "
            "the mean is taken": (N * loss + k * nats) / N,
            "the padding positions are not free of charge: each costs −log of the probability of [PAD] there": N
            * loss
            / (N + k),
            "each position counts the same, so the two losses must be weighted by how many positions they stand for": (
                loss + nats
            )
            / 2,
        }
        if apart(value, *wrong.values(), relative=0.03):
            break
    return number(
        f"A batch has **N = {N}** selected positions, and the mean loss on them is **{loss} nats**. By mistake the "
        f"label of **{k} padding positions** is 0, the id of [PAD], where it should be −100. The model gives "
        f"[PAD] the probability **{p}** at each of them. Which loss is reported, in nats? Three digits suffice.",
        value,
        wrong=wrong,
        why=f"({N} · {loss} + {k} · {nats:.3f}) / ({N} + {k}) = {value:.3f}: the sum and N have both changed.",
        unit="nats",
    )


# 07.3 15 % of what


def _draw_width(rng: np.random.Generator) -> Question:
    words, S = int(rng.integers(6, 33)), int(rng.choice([40, 80, 120, 160, 200]))
    columns = 3 * S // 20
    values = {"words": words, "of_width": min(words, columns), "select": 0.15 * words}
    return numbers(
        f"A pair has **{words + 3} tokens**, [CLS] and both [SEP] included; every other token is a word. It stands "
        f"in a batch with **S = {S}**. How many of its tokens may be selected (`words`)? How many does the "
        "mistaken rule select that draws from these words, but as many as 15 % of the columns (`of_width`; "
        'section 3 of the notebook calls it "15 % of the width")? And how many does `select` choose on '
        "average, each word with probability 0.15 (`select`)?",
        values,
        wrong={
            "15 % of the columns is more than the pair has words; then all of them are selected, and there are no "
            "others": {"of_width": columns},
            "[CLS] and [SEP] are no candidates: 15 % is taken of the words": {"select": 0.15 * (words + 3)},
            "`select` draws from the words of the pair; how wide the batch is does not matter to it": {
                "select": columns
            },
            "[CLS] and both [SEP] are tokens, but may never be selected: three less": {"words": words + 3},
            "a pair has two [SEP] and one [CLS]": {"words": words + 1},
        },
        why=f"Of {words} words `select` takes {0.15 * words:.2f} on average; 15 % of {S} columns is {columns}, so "
        f"the other rule takes {min(words, columns)} of them: the rate depends on the company of the pair.",
    )


# 07.4 Seven steps


def _draw_steps(rng: np.random.Generator) -> Question:
    shown, hidden, place = _masked(rng)
    return order(
        f"One update of pre-training, for “{shown.replace('[MASK]', hidden)}” with “{hidden}” at position {place}. "
        "Put the seven steps in order.",
        rng,
        steps=(
            f"select: choose A(x) = {{{place}}}",
            "corrupt: write x̄ and the labels",
            "embed: look up a vector for each position",
            "encode: let the positions read each other",
            f"predict: give each of the V tokens a score at position {place}",
            f"loss: compare the scores with “{hidden}”",
            "update: change θ a little, against the gradient",
        ),
        because={
            (0, 1): "x̄ differs from x at the selected positions: before A(x) is chosen nobody knows where to corrupt",
            (0, 2): "what is embedded is x̄, and x̄ needs A(x): select comes first",
            (
                1,
                2,
            ): "what enters the network is x̄, so the sentence is corrupted first; embedding x would show the answer",
            (2, 3): "the encoder computes with vectors, and ids become vectors in “embed”",
            (3, 4): "the scores are computed from the hidden state at the position, which only the encoder gives; the "
            "embedding of [MASK] is the same in every sentence",
            (4, 5): "the loss compares scores with the true token, so the scores come first",
            (5, 6): "the update follows the gradient of the loss, so the loss comes first",
        },
        why="Select and corrupt make the batch; embed, encode, predict, loss and update happen in the model.",
    )


# 07.5 Never asked


def _draw_never_asked(rng: np.random.Generator) -> Question:
    while True:
        words, epochs = 1000 * int(rng.integers(2, 30)), int(rng.integers(3, 13))
        rate = float(rng.choice([0.1, 0.15, 0.2, 0.25, 0.3]))
        dynamic, static = words * (1 - rate) ** epochs, words * (1 - rate)
        if apart(dynamic, static, words - dynamic, words * (1 - rate * epochs), relative=0.03):
            break
    return numbers(
        f"A text has **{words:,} words**, and each is read once in every epoch. Each is selected with probability "
        f"**{rate:.2f}**. How many words, on average, have never been asked for after **{epochs} epochs**, with "
        "masks that are drawn at each visit (`dynamic`), and with masks drawn once (`static`)?",
        {"dynamic": dynamic, "static": static},
        wrong={
            "static masks ask for the same words in every epoch: more epochs reach no further word": {
                "static": dynamic
            },
            "dynamic masks ask for other words in each epoch: after more epochs fewer are left": {"dynamic": static},
            "these are the words that have been asked for; the question is for those that never were": {
                "dynamic": words - dynamic,
                "static": words - static,
            },
            "the chance to be left out is multiplied in each epoch; the chance to be selected does not add up, since a "
            "word can be selected twice": {"dynamic": words * (1 - rate * epochs)},
        },
        why=f"Left out once: {1 - rate:.2f}; left out {epochs} times with new draws: {1 - rate:.2f}^{epochs} = "
        f"{(1 - rate) ** epochs:.4f}. With static masks the first draw is the only one.",
        relative=0.01,
    )


# 07.6 How much is padding


def _share(rows: list[list[int]], multiple: int = 8, width: int = 0) -> float:
    """Share of padding of batches, each as wide as its longest row."""
    total = sum(len(row) * (width or -(-max(row) // multiple) * multiple) for row in rows)
    return 1 - sum(map(sum, rows)) / total


def _draw_padding(rng: np.random.Generator) -> Question:
    while True:
        lengths = rng.integers(9, 64, 8).tolist()
        B = int(rng.choice([8, 16, 32, 64, 128]))
        listed, by_length = ([rows[:4], rows[4:]] for rows in (lengths, sorted(lengths)))
        one, other = _share(listed), _share(by_length)
        S = -(-max(lengths) // 8) * 8
        wrong_one = [_share(listed, 1), 1 - one, float(np.mean([_share([row]) for row in listed]))]
        wrong_other = [_share(by_length, width=S), 1 - other, _share(by_length, 1)]
        if one - other > 0.1 and apart(one, *wrong_one, relative=0.03) and apart(other, *wrong_other, relative=0.03):
            break
    return numbers(
        f"Eight pairs have the lengths **{', '.join(map(str, lengths))}** and are put into batches of four; S is "
        "the longest of a batch, rounded up to a multiple of 8. Which share of all positions of the two "
        "rectangles together is padding, if the first four and the last four make a batch (`listed`), and if "
        "they are sorted by length first (`sorted`)? And which share does the formula for lengths that are "
        f"spread evenly say at **B = {B}** (`formula`)? Shares from 0 to 1.",
        {"listed": one, "sorted": other, "formula": (B - 1) / (2 * B)},
        wrong={
            "S is not the longest length, but the next multiple of 8": {
                "listed": wrong_one[0],
                "sorted": wrong_other[2],
            },
            "these are the shares of real tokens; padding is the rest": {"listed": 1 - one, "sorted": 1 - other},
            "the two rectangles have different sizes, so their shares cannot be averaged: count positions of both": {
                "listed": wrong_one[2]
            },
            "each batch has a width of its own: the short pairs need not be as wide as the longest of all": {
                "sorted": wrong_other[0]
            },
            "that is the share of the largest length that the longest of B reaches on average; padding is what the "
            "mean length leaves of it": {"formula": B / (B + 1)},
        },
        why=f"{sum(lengths)} real tokens in {round(sum(lengths) / (1 - one))} positions, or, sorted, in "
        f"{round(sum(lengths) / (1 - other))}. The formula: ({B} − 1) / (2 · {B}).",
        relative=0.01,
    )


# 07.7 The same batch again


def _draw_resumed(rng: np.random.Generator) -> Question:
    seed, epoch, step = int(rng.integers(10)), int(rng.integers(1, 8)), int(rng.integers(20, 90))
    stop = int(rng.integers(3, step - 5))
    place = f"epoch {epoch}, step {step}"
    return several(
        f"A run with seed {seed} makes the batch of {place} (`Batches` of section 7, dynamic masks). Which of these "
        "batches have the same fingerprint? Corpus and settings are the same in all.",
        rng,
        right={
            f"seed {seed}, {place}, in a run that was stopped at step {stop} of epoch {epoch} and resumed there": "a "
            "resumed run reads seed, epoch and step, and these are the same; how often it was stopped leaves "
            "no trace",
            f"seed {seed}, {place}, made alone, without any batch before it": "the draws of a batch depend on "
            "seed, epoch and step alone: no batch before it is needed",
            f"seed {seed}, {place}, made a second time in the same program": "nothing has a state, so a second "
            "time gives the same draws",
        },
        wrong={
            f"seed {seed}, epoch {epoch - 1}, step {step}": "the epoch is part of the numbers that the draws are "
            "made from: pairs, order and masks are new in each",
            f"seed {seed}, epoch {epoch}, step {step + 1}": "each step has its own pairs and its own masks",
            f"seed {seed + 1}, {place}": "another seed gives other pairs, another order and other masks",
        },
        why=f"pairs, order and masks are functions of seed {seed}, {place}: whatever has these has the same batch.",
    )


# 07.10 What the output layer reads


def _draw_reading(rng: np.random.Generator) -> Question:
    shown, hidden, i = _masked(rng)
    return choice(
        f"“{shown}”, with [CLS] at position 0: the model gives each token of the vocabulary a score for the blank at "
        f"position {i}. From which vector are the scores computed?",
        rng,
        right=f"$h_{i}$, what comes out of the encoder at position {i}",
        wrong={
            f"$e_{i}$, what enters the encoder at position {i}": f"e_{i} is made of [MASK], position {i} and the "
            "segment: it is the same in every sentence with a blank there. What the other words tell is only "
            "in the hidden state",
            "$h_0$, what comes out of the encoder at [CLS]": "that is one vector for the whole sentence, and two "
            "blanks would get the same scores; from h_0 the sentence relation is read",
            f"the row of “{hidden}” in the table of embeddings": f"nobody knows at the blank that “{hidden}” is the "
            "answer: its row is one of the V rows that are scored, not what they are scored by",
            "the mean of $h_0 \\dots h_m$": "the mean is the same for each blank of a sentence; each blank has a "
            "hidden state of its own",
        },
        why=f"h_{i} belongs to the blank and has read the other positions; “{hidden}” can be told from it and not "
        f"from e_{i}.",
    )


TASKS = (
    PAD,
    ConceptTask(
        id="07.2", title="A label on padding", points=2, concepts=("C10",), draw=_draw_padding_label, computed=True
    ),
    ConceptTask(id="07.3", title="15 % of what", points=2, concepts=("C13",), draw=_draw_width, computed=True),
    ConceptTask(id="07.4", title="Seven steps", points=2, concepts=("C21",), draw=_draw_steps),
    ConceptTask(id="07.5", title="Never asked", points=2, concepts=(), draw=_draw_never_asked, computed=True),
    ConceptTask(id="07.6", title="How much is padding", points=2, concepts=(), draw=_draw_padding, computed=True),
    ConceptTask(id="07.7", title="The same batch again", points=2, concepts=(), draw=_draw_resumed),
    OVERLAP,
    LETTERS,
    ConceptTask(id="07.10", title="What the output layer reads", points=1, concepts=("C21",), draw=_draw_reading),
    ORDER,
    MIRROR,
    VISIBLE,
)
