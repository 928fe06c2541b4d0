"""Tasks on judging a trained model: losses and probabilities, calibration, probes and their controls, floor and gap."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from mlmkit.grading.questions import choice, numbers
from mlmkit.grading.sets.what_it_learned_code import CALIBRATION, TOP
from mlmkit.grading.sets.what_it_learned_probes import CONTROLS, FOLLOWS, PROBE, TABLE
from mlmkit.grading.tasks import ConceptTask, Question

SENTENCES = (
    ("the cat sat on the [MASK]", "mat", "sofa"),
    ("she opened the [MASK] and read", "book", "letter"),
    ("he drank a cup of [MASK]", "tea", "coffee"),
    ("the train left the [MASK] at noon", "station", "city"),
    ("return the number of [MASK]", "items", "rows"),
    ("an error is [MASK]", "raised", "returned"),
)
BY_MEAN = (
    "the mean of probabilities and the sum of losses disagree here: a word that is given little costs more than a word "
    "that is given much can bring in"
)

# 13.1 A second best word


def _draw_second(rng: np.random.Generator) -> Question:
    sentence, true, other = SENTENCES[int(rng.integers(len(SENTENCES)))]
    b = float(rng.integers(31, 43)) / 100
    e = b + float(rng.choice([-0.08, -0.06, 0.02, 0.03, 0.04]))
    top = e + 0.05
    better, worse = ("E", "B") if e > b else ("B", "E")
    return numbers(
        f'"{sentence}", and the hidden word is *{true}*. Model B gives "{true}" **{b:.2f}**, more than any other word. '
        f'Model E gives "{true}" **{e:.2f}** and "{other}" {top:.2f}. What are the losses of the position (`loss_b`, '
        "`loss_e`, in nats), and what is the accuracy of each model on this one position (`accuracy_b`, `accuracy_e`)? "
        "Three digits suffice.",
        {"loss_b": -math.log(b), "loss_e": -math.log(e), "accuracy_b": 1, "accuracy_e": 0},
        wrong={
            "you lost the minus: a loss is −log of a probability, and never negative": {
                "loss_b": math.log(b),
                "loss_e": math.log(e),
            },
            "that would make a lower probability a lower loss. It is the other way round: the loss is −log of what the "
            "true word was given, not of what was left for "
            "others": {"loss_b": -math.log(1 - b), "loss_e": -math.log(1 - e)},
            f'the loss reads the probability of the true word, "{true}", not that of the word which E likes best': {
                "loss_e": -math.log(top)
            },
            "these losses are in bits: log is the natural one, and the unit is nats": {
                "loss_b": -math.log2(b),
                "loss_e": -math.log2(e),
            },
            "an accuracy asks only whether the best word is the true one. It does not see how near the true word "
            "came": {
                "accuracy_b": b,
                "accuracy_e": e,
            },
            "the best word of E is another one, whatever its loss": {"accuracy_e": 1},
            "the two losses are in the wrong places: the higher probability has the lower loss": {
                "loss_b": -math.log(e),
                "loss_e": -math.log(b),
            },
        },
        why=f"−log {b:.2f} = {-math.log(b):.3f} and −log {e:.2f} = {-math.log(e):.3f}: {better} has the lower loss, "
        f"{worse} the higher one. The accuracy only sees that B's best word is right.",
    )


# 13.2 Three models, two masks


def _draw_two_masks(rng: np.random.Generator) -> Question:
    grid = np.arange(5, 100, 5) / 100
    while True:
        p = rng.choice(grid, (3, 2))
        sums, means = -np.log(p).sum(1), p.mean(1)
        by_loss, by_mean = (sums < sums[2]).sum() + 1, (means > means[2]).sum() + 1
        apart = min(b - a for a, b in pairwise(sorted(sums))) > 0.15
        apart &= min(b - a for a, b in pairwise(sorted(means))) > 0.02
        if apart and by_loss != 2 and by_mean != by_loss and (p != p[:, ::-1]).all():
            break
    P, R, S = (float(x) for x in sums)
    given = "; ".join(f"{name} gives {a:.2f} and {b:.2f}" for name, (a, b) in zip("PRS", p, strict=True))
    logs = [-math.log(m) for m in means]
    return numbers(
        "A sentence has two masks. Three models give the true words these probabilities at the first and at the second "
        f"mask: {given}. What is the sum of both losses of each model, in nats (`P`, `R`, `S`)? At which place stands "
        "S **by the sum of the losses** (`by_loss`: 1 for the best model, 3 for the worst), and at which **by the mean "
        "of the probabilities** (`by_mean`)?",
        {"P": P, "R": R, "S": S, "by_loss": int(by_loss), "by_mean": int(by_mean)},
        wrong={
            "this is the wrong way round, as if a lower probability were a lower loss: the model with the lowest sum "
            "of losses is the best": {"by_loss": 4 - int(by_loss)},
            "this is −log of the mean probability. The logs are taken first, one for each mask, and then added": dict(
                zip("PRS", logs, strict=True)
            ),
            "this is the mean of both losses; asked is their sum": {"P": P / 2, "R": R / 2, "S": S / 2},
            "this is the product of both probabilities; its −log is the sum of the losses": dict(
                zip("PRS", (float(x) for x in p.prod(1)), strict=True)
            ),
            **({BY_MEAN: {"by_loss": 2}} if by_mean == 2 else {}),
            "by the mean of the probabilities the order is another than by the losses": {"by_mean": int(by_loss)},
        },
        why=f"The sums are {P:.2f}, {R:.2f} and {S:.2f} nats, so S stands at place {by_loss}; its mean probability "
        f"{means[2]:.3f} would put it at place {by_mean}.",
    )


# 13.4 Scores times a factor


def _draw_factor(rng: np.random.Generator) -> Question:
    while True:
        p = np.sort(rng.dirichlet([5, 3, 2]).round(2))[::-1]
        p[2] = round(1 - p[0] - p[1], 2)
        if 0.4 <= p[0] <= 0.7 and p[1] - p[2] >= 0.05 and p[0] - p[1] >= 0.1 and p[2] >= 0.04:
            factor, true = float(rng.choice([0.5, 2.0, 3.0])), int(rng.integers(0, 2))
            powers = p**factor
            new = powers / powers.sum()
            soft = np.exp(factor * p) / np.exp(factor * p).sum()
            if abs(soft[0] - p[0]) > 0.02 and abs(soft[0] - new[0]) > 0.02 and abs(new[true] / p[true] - 1) > 0.05:
                break
    words = ["list", "file", "name"]
    given = ", ".join(f"{word} {value:.2f}" for word, value in zip(words, p, strict=True))
    much = "more than it keeps" if factor > 1 else "less than it keeps"
    return numbers(
        f"At a position a model knows three words, with the probabilities {given}. The true word is *{words[true]}*. "
        f"Now all scores are **multiplied by {factor:g}** before the softmax. What probability does the best word get "
        "(`claimed`), and what is the loss of the position (`loss`, in nats)? Three digits suffice. (Up to a constant "
        "that the softmax does not see, a score is the logarithm of the probability.)",
        {"claimed": float(new[0]), "loss": -math.log(new[true])},
        wrong={
            "the order of the words stays, and so does the accuracy; but the probabilities change": {
                "claimed": float(p[0]),
                "loss": -math.log(p[true]),
            },
            "you multiplied the probabilities inside a softmax. Scores are their logarithms: times a factor, they "
            "raise the probabilities to a power": {"claimed": float(soft[0]), "loss": -math.log(soft[true])},
            "raised to a power the numbers do not sum to 1 any more: divide by their sum": {
                "claimed": float(powers[0]),
                "loss": -math.log(powers[true]),
            },
            "the loss reads the new probability of the true word": {"loss": -math.log(p[true])},
        },
        why=f"Each probability is raised to the power {factor:g} and divided by the sum {powers.sum():.4g}: the best "
        f"word gets {new[0]:.3f} in place of {p[0]:.2f}. A model that was calibrated now claims {much}, with the same "
        "answers.",
    )


# 13.9 [MASK] as an input


def _draw_row(rng: np.random.Generator) -> Question:
    sentence = SENTENCES[int(rng.integers(len(SENTENCES)))][0]
    place = sentence.split().index("[MASK]") + 1
    other = ["the", "list", "is", "of"][int(rng.integers(4))]
    return choice(
        f"In a copy of a trained model the row of [MASK] in the table of token embeddings is set to zero, for the "
        "input only. "
        f'Then "{sentence}" is read, with [CLS] at position 0 and one token for each word. In a second copy the row is '
        f'replaced by that of the word "{other}". What enters the encoder at position {place}, before the layer norm?',
        rng,
        right=f'First: position {place} plus segment, no token part. Second: the same plus the vector of "{other}"',
        wrong={
            f'First: nothing, a vector of zeros. Second: the vector of "{other}" alone': (
                "position and segment are added at every place, whatever the token part is"
            ),
            "Both times what entered before: the model knows which positions are selected": (
                "the encoder is told that a word is hidden by e_mask and by nothing else; A(x) is no input"
            ),
            "Both times the vector of the hidden word: only the output layer reads [MASK]": (
                "the hidden word is not in the input at all; what stands there is the row of [MASK], a learned vector"
            ),
            "Both times the same as before the change: the row of [MASK] is not learned, and zero anyway": (
                "e_mask is drawn at random and learned like every row; after training it is as long as that of a word"
            ),
        },
        why="What enters is token + position + segment. e_mask is the learned token part, which says that here is a "
        "question; "
        f'with zeros that sign is gone, and with the vector of "{other}" it says something false.',
    )


# 13.16 Floor and gap


def _draw_gap(rng: np.random.Generator) -> Question:
    while True:
        p, q = ((rng.dirichlet([4, 3, 2]) * 20).round() / 20 for _ in range(2))
        if min(*p, *q) < 0.05 or abs(p.sum() - 1) > 1e-9 or abs(q.sum() - 1) > 1e-9:
            continue
        floor = float(-(p * np.log(p)).sum())
        loss = float(-(p * np.log(q)).sum())
        back = float((q * np.log(q / p)).sum())
        own = float(-(q * np.log(q)).sum())
        if loss - floor > 0.06 and abs(back - (loss - floor)) > 0.02 and abs(own - floor) > 0.03:
            break
    gap = loss - floor
    shown = [", ".join(f"{x:.2f}" for x in values) for values in (p, q)]
    return numbers(
        f"At a position three words are possible, with the true probabilities p = ({shown[0]}). A model answers with "
        f"q = ({shown[1]}). In nats: what loss does it have here on average (`loss`), what is the lowest that any "
        "model can have (`floor`), and how much of the loss is the model's own (`gap`)? Three digits suffice.",
        {"loss": loss, "floor": floor, "gap": gap},
        wrong={
            "this is KL(q ‖ p): the mean must be taken with the true probabilities p, and then floor and gap add up to "
            "the loss": {"gap": back},
            "the words come with the probabilities p, whatever the model believes: the mean of −log q is taken with "
            "p": {"loss": own},
            "the floor is the entropy of the true probabilities, not of the model's": {"floor": own},
            "the lowest loss is not 0: nobody can know which of the three words comes": {"floor": 0, "gap": loss},
            "part of the loss is the language's own, which no model can avoid": {"gap": loss},
            "this is −log p averaged with q; it is the model's answer that is scored, on words that come from p": {
                "loss": float(-(q * np.log(p)).sum())
            },
        },
        why=f"The floor is H(p) = {floor:.3f} nats, the gap KL(p ‖ q) = {gap:.3f}, together {loss:.3f}.",
        relative=0.01,
    )


TASKS = (
    ConceptTask(id="13.1", title="A second best word", points=2, concepts=("C12",), draw=_draw_second, computed=True),
    ConceptTask(
        id="13.2", title="Three models, two masks", points=3, concepts=("C12",), draw=_draw_two_masks, computed=True
    ),
    ConceptTask(
        id="13.4", title="Scores times a factor", points=2, concepts=("C12",), draw=_draw_factor, computed=True
    ),
    CONTROLS,
    ConceptTask(id="13.9", title="[MASK] as an input", points=2, concepts=("C17",), draw=_draw_row),
    TOP,
    CALIBRATION,
    TABLE,
    PROBE,
    FOLLOWS,
    ConceptTask(id="13.16", title="Floor and gap", points=3, concepts=("C12",), draw=_draw_gap, computed=True),
)
