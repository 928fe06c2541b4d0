"""Numbers of the limits of masking: evidence, questions and passes, what independent answers lose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlmkit.grading.chance import apart, pick
from mlmkit.grading.questions import numbers
from mlmkit.grading.sets.limits_code import entropy
from mlmkit.grading.tasks import Question


def nats_lost(joint: np.ndarray[Any, Any]) -> float:
    """Nats lost by answering two words independently: KL(joint ‖ product)."""
    return entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint)


# 04.1 A visible word as evidence


def draw_evidence(rng: np.random.Generator) -> Question:
    """What a visible word at a selected position is worth."""
    while True:
        n, p = int(pick(rng, (4, 8, 20, 50, 100))), float(pick(rng, (0.1, 0.2, 0.3, 0.4, 0.6)))
        keep, random = float(pick(rng, (0.02, 0.05, 0.1, 0.15))), float(pick(rng, (0.05, 0.1, 0.15, 0.2)))
        ratio = (keep + random / n) / (random / n)
        seen = p * ratio / (p * ratio + 1 - p)
        only_kept = p * (ratio - 1) / (p * (ratio - 1) + 1 - p)
        share = keep / (keep + random)
        if apart(ratio, ratio - 1, keep / random + 1e-3, n + 0.5) and apart(seen, 1, p, only_kept, share, 1 / n):
            break
    word = str(pick(rng, ("soup", "boat", "worm", "bird", "onion")))
    return numbers(
        f"A language has n = {n} ordinary words. Of the selected words a share keep = {keep:g} stays, a share random "
        f"= {random:g} is replaced by one of all {n} ordinary words, drawn evenly, and the rest becomes [MASK]. At a "
        f"selected position the word **{word}** is visible; from the other words alone it would have the probability "
        f"{p:g} there. How strong is the evidence of the visible word, as a ratio to 1 in favor of {word} against "
        f"each other word (`evidence`)? What is Pr({word} | x̄), with what is seen at the position itself (`seen`)? "
        "And what would it be with keep = 0 and the same random (`without_keep`)? Three digits suffice.",
        {"evidence": ratio, "seen": seen, "without_keep": p},
        wrong={
            f'chance may draw the true word too: "{word}" is seen with probability keep + random/n if it is true, and '
            "with random/n if another word is": {"evidence": ratio - 1, "seen": only_kept},
            "one of n random words is drawn, so a false word turns into this one with probability random/n, not "
            "random": {"evidence": keep / random},
            "that is the answer for equal shares, keep = random; here the shares differ, and with them the evidence": {
                "evidence": n + 1
            },
            "a visible word at a selected position is no proof: chance may have put it there": {"seen": 1},
            "that is the answer from the other words; what stands at the position itself is evidence too": {"seen": p},
            "that is the share of the kept ones among the visible ones; the context speaks as well": {"seen": share},
            "with keep = 0 a visible word was drawn by chance, and chance may draw the true one: it does not become "
            "impossible": {"without_keep": 0},
            "with keep = 0 the other words still speak: chance draws every word alike, so the visible one changes "
            "nothing": {"without_keep": 1 / n},
        },
        why=f"keep + random/n against random/n is {ratio:.4g} to 1, so Pr({word} | x̄) = {p:g} · {ratio:.4g} / "
        f"({p:g} · {ratio:.4g} + {1 - p:g}) = {seen:.4g}. With keep = 0 every word is drawn alike: 1 to 1.",
    )


# 04.4 Questions and passes


def draw_passes(rng: np.random.Generator) -> Question:
    """Questions in a pass, passes for a text."""
    words, rate = 20 * int(rng.integers(3, 31)), float(pick(rng, (0.1, 0.15, 0.2, 0.25, 0.4)))
    masked = round(rate * words)
    return numbers(
        f"A document has **{words} words**. How many questions does one pass over it answer in training with the "
        f"causal pattern (`causal`), with simulated left-to-right masks (`simulated`), and with masks on {rate:.0%} "
        "of the words (`masked`)? And how many passes does it take to read log Pr(x) with the causal network "
        "(`read_causal`) and with the other two, in the way of notebook 04 (`read_masks`, the same for both)?",
        {"causal": words, "simulated": 1, "masked": masked, "read_causal": 1, "read_masks": words},
        wrong={
            "with simulated masks everything from i on is hidden, but x_i alone is asked for": {"simulated": words},
            "masks ask only at the selected words: the others are the condition": {"masked": words},
            "the causal pattern asks for every word in one pass, each from the words before it": {"causal": 1},
            "one pass is not enough for masks: each term of the chain rule has another x̄": {"read_masks": 1},
            "hiding other words in each pass until all had their turn does not give the chain rule: each term needs "
            "its own x̄, with everything from i on hidden": {"read_masks": round(1 / rate)},
            "the causal network gives all terms in one pass: position i reads only what is before the next word": {
                "read_causal": words
            },
        },
        why=f"{words} against 1 against {masked} questions: it shows in the number of updates. To read log Pr(x), "
        f"masks have to slide, {words} passes.",
        relative=1e-9,
    )


# 04.5 What joins the two losses


def draw_curve(rng: np.random.Generator) -> Question:
    """The masked losses and their average."""
    while True:
        m = int(rng.integers(6, 11))
        steps = np.sort(rng.uniform(0.08, 0.4, m))[::-1]
        curve = np.round(rng.uniform(0.6, 1.4) + np.cumsum(steps) - steps[0], 2)
        mean = float(curve.mean())
        first = int((curve > mean).argmax()) + 1
        half = float((curve[0] + curve[-1]) / 2)
        if apart(mean, half, *curve[[0, -1]]) and abs(curve - mean).min() > 0.02:
            break
    rows = ", ".join(f"k = {k}: {value:.2f}" for k, value in enumerate(curve, 1))
    return numbers(
        f"Documents of a language have {m} words. The lowest possible loss per hidden word, with k hidden words and "
        f"all sets of k alike, is {rows}. What is the lowest possible loss per word of a left-to-right model "
        "(`left_to_right`)? And what is the smallest k at which a perfect masked reader has a **higher** loss than a "
        "perfect left-to-right reader (`k`)? Three digits suffice.",
        {"left_to_right": mean, "k": first},
        wrong={
            "that is the loss with one hidden word, where both sides are visible: from left to right one side is": {
                "left_to_right": float(curve[0])
            },
            "that is the loss with every word hidden; from left to right the words before i are visible": {
                "left_to_right": float(curve[-1])
            },
            "that is the mean of the first and the last value; the left-to-right loss is the average over all k": {
                "left_to_right": half
            },
            "at this k the masked loss is still the lower one": {"k": first - 1},
        },
        why=f"the average over all k is {mean:.3f} nats, and k = {first} is the first above it. So a lower masked "
        "loss says nothing for masked models: a loss is a fact about a reader and the questions.",
    )


# 04.7 Two holes

HOLES = (
    ("the [MASK] bird catches the [MASK]", ("early", "late", "hungry"), ("worm", "bus")),
    ("the [MASK] cat drinks the [MASK]", ("gray", "old", "young"), ("milk", "water")),
    ("my [MASK] baker sells fine [MASK]", ("cheerful", "old", "new"), ("bread", "cake")),
    ("a [MASK] sailor mends the [MASK]", ("tired", "young", "tall"), ("net", "rope")),
)


def draw_holes(rng: np.random.Generator) -> Question:
    """What two independent answers lose."""
    text, firsts, lasts = pick(rng, HOLES)
    while True:
        a, b, c = (0.05 * int(k) for k in rng.integers((6, 1, 2), (12, 4, 7)))
        joint = np.round([[a, b], [0, c], [1 - a - b - c, 0]], 2)
        if joint[2, 0] < 0.04:
            continue
        product = joint.sum(1, keepdims=True) * joint.sum(0)
        lost, impossible = nats_lost(joint), float(product[joint == 0].sum())
        paid = entropy(joint.sum(0)) + entropy(joint.sum(1))
        if apart(lost, lost / math.log(2), entropy(joint), paid) and apart(impossible, 1 / 3):
            break
    table = "\n".join(
        f"- {v} … {w}: {joint[i, j]:.2f}" for i, v in enumerate(firsts) for j, w in enumerate(lasts) if joint[i, j] > 0
    )
    return numbers(
        f"In a language, **{text}** can be filled in four ways:\n\n{table}\n\nA perfect masked model answers both "
        "holes from one pass. How many nats does it lose against a reader who knows the joint distribution (`lost`)? "
        "If both holes are filled at once, each by a draw from its own answer, what share of the sentences does not "
        "exist (`impossible`)? Three digits suffice.",
        {"lost": lost, "impossible": impossible},
        wrong={
            "each single answer is right, and still the pair loses: the two are given independently": {"lost": 0},
            "these are bits; in nats the log is the natural one": {"lost": lost / math.log(2)},
            "that is the entropy of the joint, which even the best reader pays": {"lost": entropy(joint)},
            "that is what both answers pay together; lost is what exceeds the entropy of the joint": {"lost": paid},
            "both answers are perfect, but drawn independently they may make a pair that never occurs": {
                "impossible": 0
            },
            "the pairs are not equally likely: add up the product of the two answers over the pairs that never occur": {
                "impossible": 1 / 3
            },
        },
        why=f"H(first) + H(last) − H(both) = {lost:.3f} nats, and the product gives {firsts[1]}–{lasts[0]} and "
        f"{firsts[2]}–{lasts[1]} together {impossible:.3f}. Filled one after the other, none would be impossible.",
    )


# 04.9 The test that finds the mistakes


def draw_sums(rng: np.random.Generator) -> Question:
    """Scores that must add up to 1, and two that do not."""
    while True:
        a, b = (0.05 * int(k) for k in rng.integers((3, 3), (12, 10)))
        c = 1 - a - b
        if c < 0.1:
            continue
        one_hole = a / (a + b) + b / (b + c) * b / (a + b) + c / (b + c)
        if apart(1, one_hole, 3):
            break
    subject, other, deed, act = pick(
        rng, (("bird", "cat", "sings", "sleeps"), ("boat", "net", "sinks", "floats"), ("dog", "fox", "barks", "runs"))
    )
    return numbers(
        f"A language has three sentences: {subject} {deed} ({a:.2f}), {subject} {act} ({b:.2f}), {other} {act} "
        f"({c:.2f}). Score each by a sum of two logs, take exp of the score, and add over the three sentences. What "
        "is the sum if, for each i, everything from i on is masked (`from_i_on`), if everything behind i is masked "
        "and x_i itself is visible (`revealed`), and if x_i alone is masked (`one_hole`)? Three digits suffice.",
        {"from_i_on": 1, "revealed": 3, "one_hole": one_hole},
        wrong={
            "this is no distribution: with x_i alone masked each word helps to guess the other, and the sum exceeds "
            "1": {"one_hole": 1},
            "with x_i visible every sentence gets the probability 1, and there are three": {"revealed": 1},
            "with x_i visible the score is 0, and exp(0) is 1, for each of three sentences": {"revealed": 0},
            "masking everything from i on is the chain rule: these are the probabilities of the sentences": {
                "from_i_on": one_hole
            },
            "with everything from i on masked x_i is not visible to itself": {"from_i_on": 3},
        },
        why=f"only the chain rule gives a distribution over sentences. One hole at a time promises {one_hole:.3f}, x_i "
        "revealed even 3: a score that adds up to more than 1 has seen its answers.",
    )
