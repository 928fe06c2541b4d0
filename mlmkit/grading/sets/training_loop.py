"""Tasks on a run: one update for both losses, the learning rate, reading a curve, stopping in time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mlmkit.grading.questions import choice, numbers, order
from mlmkit.grading.sets.training_loop_code import RATE, STOP, UPDATE
from mlmkit.grading.tasks import ConceptTask, Question

# 11.1 What two updates cost


def _draw_cost(rng: np.random.Generator) -> Question:
    n = 100 * int(rng.integers(3, 13))
    forward, step = int(rng.integers(6, 15)), int(rng.integers(2, 6))
    backward = 2 * forward
    one = n * (forward + backward + step) / 1000
    return numbers(
        f"A run reads **{n} batches**. On its machine a forward pass takes {forward} ms, a backward pass {backward} ms "
        f"and a step of the optimizer {step} ms. The right loop makes one update for each batch. `two_updates_step` "
        "makes two: first one for the masked words, then a second one for the sentence relation, whose gradient is "
        "taken at the parameters that the first one has left. For that loop: how many `updates` and how many "
        "`forwards` (forward passes) are made, and how many seconds does it take (`two`)? And how many seconds does "
        "the right loop take (`one`)?",
        {"updates": 2 * n, "forwards": 2 * n, "one": one, "two": 2 * one},
        wrong={
            "one forward pass cannot serve both updates: the first update has moved the parameters, so the hidden "
            "states for the second gradient must be computed anew": {
                "forwards": n,
                "two": n * (forward + 2 * backward + 2 * step) / 1000,
            },
            "each backward pass needs its own forward pass before it, at the parameters of that moment": {
                "forwards": n
            },
            "one update for MLM and then one for NSP are two updates for each batch": {"updates": n},
            "the right loop adds the losses: one forward pass, one backward pass and one step of the optimizer for a "
            "batch": {"one": 2 * one},
            "both loops cannot take the same time: the second update needs passes of its own": {"two": one},
        },
        why=f"Two updates for each of {n} batches are {2 * n}, each with its own two passes: {2 * one:g} s in place of "
        f"{one:g} s.",
    )


# 11.9 Where one update lands, and where two


def _draw_landing(rng: np.random.Generator) -> Question:
    while True:
        a, b = (float(x) for x in rng.choice([1.0, 2.0, 3.0, 4.0], 2, replace=False))
        m, n, theta = (float(x) for x in rng.choice(np.arange(-4, 7), 3, replace=False))
        rate = float(rng.choice([0.05, 0.1, 0.15]))
        first, second = a * (theta - m), b * (theta - n)
        one, half = theta - rate * (first + second), theta - rate * (first + second) / 2
        middle = theta - rate * first
        two = middle - rate * b * (middle - n)
        other = theta - rate * second
        back = other - rate * a * (other - m)
        found = sorted([one, half, two, back, middle, theta])
        if min(y - x for x, y in pairwise(found)) > 0.04 and min(map(abs, found)) > 0.1:
            break
    return numbers(
        "A model with a single parameter θ has the two losses\n\n"
        f"$$\\mathcal L_{{\\mathrm{{MLM}}}} = \\tfrac12 \\cdot {a:g}\\,(\\theta - ({m:g}))^2, \\qquad "
        f"\\mathcal L_{{\\mathrm{{NSP}}}} = \\tfrac12 \\cdot {b:g}\\,(\\theta - ({n:g}))^2 .$$\n\n"
        f"It stands at θ = {theta:g}, and the learning rate of plain gradient descent is {rate:g}. Where does **one** "
        "update on the sum of the losses lead (`one`), and where two updates, first for MLM and then for NSP, each "
        "with the gradient at the place where θ then stands (`two`)? Give at least three digits.",
        {"one": one, "two": two},
        wrong={
            "you took both gradients at the old θ in both cases. Then the two updates would be the same as one; but "
            "the second gradient is taken where the first update has led": {"two": one},
            "one update on the sum is not the same as an update for MLM and then one for NSP: in the sum both "
            "gradients are taken at the old θ": {"one": two},
            "the losses are added, not averaged: so are their gradients": {"one": half},
            "your two updates come in the other order: MLM is first": {"two": back},
            "your update follows MLM alone": {"one": middle},
        },
        why=f"At {theta:g} the gradients are {first:g} and {second:g}: one update leads to {one:.4g}. After MLM alone "
        f"θ is {middle:.4g}, where the gradient of NSP is {b * (middle - n):.4g}, and that leads to {two:.4g}.",
        relative=0.003,
    )


# 11.10 Read the curves


def _draw_curves(rng: np.random.Generator) -> Question:
    every, patience, best = int(rng.choice([100, 200, 250, 500])), int(rng.integers(2, 5)), int(rng.integers(4, 7))
    count = best + patience + 4
    held = np.zeros(count)
    held[: best + 1] = np.linspace(6.8, rng.uniform(3.2, 3.8), best + 1)
    held[2] = held[1] + 0.05
    low = held[best]
    held[best + 1 :] = low + rng.uniform(0.05, 0.4, count - best - 1)
    held[best + patience + 1] = low - rng.uniform(0.05, 0.15)
    training = np.linspace(6.9, rng.uniform(1.2, 2.0), count)
    rows = "\n".join(f"| {k * every} | {training[k]:.2f} | {held[k]:.2f} |" for k in range(count))
    stop, keep, end = (best + patience) * every, best * every, (count - 1) * every
    return numbers(
        "A run was planned to this table's last row. It was evaluated at these updates (losses of masked words, in "
        f"nats):\n\n| update | training loss | held-out loss |\n|---|---|---|\n{rows}\n\n"
        f"With **patience {patience}** it stops after {patience} evaluations in a row without a new lowest loss. After "
        "which update does it stop (`stop`), and of which update is the model kept (`keep`)?",
        {"stop": stop, "keep": keep},
        wrong={
            "the training loss falls to the end, so a rule that reads it never stops. It tells how well the model "
            "knows its own text, not how it does on other text": {"stop": end, "keep": end},
            "the lowest held-out loss of the whole table comes after the stop: the run never gets there": {
                "keep": (best + patience + 1) * every
            },
            "the model in the folder is the best one, not the last: since the best evaluation the held-out loss has "
            "been higher each time": {"keep": stop},
            f"the evaluations must be in a row: the rise at update {2 * every} was followed by a new lowest loss, and "
            "the count began anew": {"stop": stop - every},
            "the training loss falls to the end, so a rule that reads it never stops. Patience counts held-out "
            "evaluations": {"stop": end},
            "you waited one evaluation too long: the count had reached the patience before": {"stop": stop + every},
        },
        why=f"The held-out loss is lowest at update {keep} ({low:.2f} nats); {patience} evaluations later, at update "
        f"{stop}, none has been lower.",
        relative=1e-9,
    )


# 11.11 What the curves say


def _draw_diagnosis(rng: np.random.Generator) -> Question:
    floor = float(rng.uniform(2.0, 2.6))
    best, end, train = floor + rng.uniform(0.9, 1.3), floor + rng.uniform(1.8, 2.6), floor - rng.uniform(0.3, 0.9)
    at, last = 25 * int(rng.integers(3, 8)), 100 * int(rng.integers(5, 11))
    texts = 100 * int(rng.integers(4, 15))
    return choice(
        f"A network was trained on {texts} documents of an exact language, masked once and for all. The floor, the "
        f"lowest loss that a model can have on text it has not seen, is {floor:.2f} nats. The held-out loss was lowest "
        f"at update {at} ({best:.2f} nats) and is {end:.2f} at update {last}; the training loss has fallen to "
        f"{train:.2f}. What do you conclude?",
        rng,
        right=f"The model learns its answers by heart: keep the one of update {at}, and get more text or new masks",
        wrong={
            f"The training loss is below the floor, so the model of update {last} is the better one: go on": (
                "below the floor is possible only for a model that has seen the answers. On text it has not seen, it "
                "has become worse"
            ),
            "The training loss is still falling, so the model has not finished learning: go on until it is level": (
                f"this rule never stops in time: the training loss fell all the while in which the held-out loss rose "
                f"from {best:.2f} to {end:.2f}"
            ),
            "The held-out documents are harder than the training ones: that is why the held-out loss rises": (
                "harder documents would have a higher loss from the beginning. They are the same at each evaluation, "
                "so what has changed is the model"
            ),
            "The network is too small for the language: that is why the held-out loss rises": (
                "a network that is too small could not fit the training text so well. Too little text is the trouble"
            ),
        },
        why=f"The held-out loss turned at update {at} while the training loss went on, even below {floor:.2f} nats. "
        "Stopping there cures the symptom; more text, or new masks each time, the illness.",
    )


# 11.12 A run, from texts to its number


def _draw_run(rng: np.random.Generator) -> Question:
    warmup, patience = 50 * int(rng.integers(2, 13)), int(rng.integers(3, 8))
    return order(
        "A run is made so that its last number can be believed. Put its parts into their order.",
        rng,
        steps=(
            "put some documents aside: a validation part and a test part",
            "learn the vocabulary, and count how frequent each token is",
            "set the output bias to the log frequencies, and evaluate for the first time",
            f"make the first {warmup} updates, each with a higher learning rate than the one before",
            "make further updates with a falling rate, with an evaluation on the validation part now and then",
            f"stop after {patience} evaluations in a row without a new lowest validation loss",
            "load the parameters of the best evaluation",
            "evaluate on the test part, once, and report the result",
        ),
        because={
            (0, 1): "the documents are put aside first: vocabulary and counts must come from the training part alone",
            (1, 2): "the output bias needs the vocabulary and the counts",
            (2, 3): "the output bias is where the training starts, so it is set before the first update",
            (3, 4): "the warm-up comes first: large steps would wreck a network that is still a jumble",
            (4, 5): "the rule of patience reads the evaluations on the validation part, which must be there first",
            (5, 6): "which evaluation is the best one is known when the run has stopped",
            (6, 7): "the test part judges the model that is kept, the best one, and not the last",
            (5, 7): "whoever looks at the test part before the stop can choose by it; then it is held out no more",
        },
        why="What is put aside takes no part in vocabulary, training or choice; so the last number is one about text "
        "that nobody has looked at.",
    )


# 11.13 How much was read


def _draw_read(rng: np.random.Generator) -> Question:
    pairs, length = int(rng.choice([32, 64, 128])), int(rng.choice([64, 128]))
    real = int(length * rng.uniform(0.6, 0.85))
    updates = 500 * int(rng.integers(4, 17))
    seen = pairs * real * updates / 1e6
    epochs = float(rng.choice([2.5, 3.2, 4.5, 6.4, 12.5]))
    corpus = round(seen / epochs, 3)
    return numbers(
        f"A run makes **{updates:,} updates** with batches of {pairs} pairs. They are padded to {length} positions, "
        f"and a pair has {real} real tokens on average. The training part has {corpus:g} million real tokens; 15 % of "
        "the real tokens are selected. How many million real tokens were read, repetitions counted (`seen`)? How many "
        "times was the training part read through (`epochs`)? On how many million tokens was the loss of masked words "
        "taken in all (`predicted`)? Three digits suffice.",
        {"seen": seen, "epochs": seen / corpus, "predicted": 0.15 * seen},
        wrong={
            "padding is not read: count the real tokens, not all positions": {"seen": pairs * length * updates / 1e6},
            "the loss is taken on the selected tokens only, 15 % of those that were read": {"predicted": seen},
            "what is read again is selected again: the 15 % are of all tokens read, not of the training part": {
                "predicted": 0.15 * corpus
            },
            "you counted pairs and not tokens": {"seen": pairs * updates / 1e6},
            "an epoch is one time through the training part; an update is a step of it": {"epochs": updates},
        },
        why=f"{updates:,} · {pairs} · {real} = {seen:.4g} million real tokens, {seen / corpus:.3g} times the "
        f"{corpus:g} million of the training part.",
    )


TASKS = (
    ConceptTask(id="11.1", title="What two updates cost", points=2, concepts=("C25",), draw=_draw_cost, computed=True),
    STOP,
    RATE,
    UPDATE,
    ConceptTask(
        id="11.9",
        title="Where one update lands, and where two",
        points=3,
        concepts=("C25",),
        draw=_draw_landing,
        computed=True,
    ),
    ConceptTask(id="11.10", title="Read the curves", points=3, concepts=("C27",), draw=_draw_curves, computed=True),
    ConceptTask(id="11.11", title="What the curves say", points=2, concepts=("C27",), draw=_draw_diagnosis),
    ConceptTask(id="11.12", title="From texts to a number", points=2, concepts=("C27",), draw=_draw_run),
    ConceptTask(id="11.13", title="How much was read", points=2, concepts=(), draw=_draw_read, computed=True),
)
