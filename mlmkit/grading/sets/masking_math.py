"""Tasks on the mathematics of masking: A(x) and x̄, the objective as a sum of logs, the loss and its gradient."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.chance import apart, pick
from mlmkit.grading.questions import choice, numbers, several
from mlmkit.grading.sets.masking_math_code import SCORE, X_BAR
from mlmkit.grading.sets.masking_math_loss import LOSS
from mlmkit.grading.sets.masking_math_numbers import (
    a_sentence,
    draw_by_hand,
    draw_colleague,
    draw_counting,
    draw_division,
    draw_equal,
    draw_gradient,
    draw_posterior,
    draw_underflow,
)
from mlmkit.grading.tasks import ConceptTask, Question


def _slip(words: list[str], i: int, j: int) -> tuple[int, int, str]:
    """The positions that are hidden when [CLS] is miscounted, and what to say of it."""
    if j + 1 < len(words):
        return i + 1, j + 1, "the words were counted from 0, but position 0 is [CLS]: position i is the i-th word"
    return i - 1, j - 1, "[CLS] was counted as position 1, but it stands at position 0: position i is the i-th word"


# 02.12 Which of these is x̄?


def _draw_possible(rng: np.random.Generator) -> Question:
    words, i, j = a_sentence(rng)
    strange = str(rng.choice(["lamp", "green", "slowly", "seven", "music"]))
    k = int(rng.choice([p for p in range(1, len(words)) if p not in (i - 1, i, i + 1, j - 1, j, j + 1)] or [j - 1]))

    def shown(changes: dict[int, str]) -> str:
        return " ".join(changes.get(p, word) for p, word in enumerate(words))

    at_i, at_j = pick(rng, [("[MASK]", words[j]), (words[i], "[MASK]"), ("[MASK]", strange), (strange, "[MASK]")])
    low, high, slipped = _slip(words, i, j)
    return choice(
        f"x = {shown({})} and **A(x) = {{{i}, {j}}}**. Under BERT's recipe a selected token becomes [MASK], or a "
        "random token, or stays as it is. Which of these can be x̄?",
        rng,
        right=shown({i: at_i, j: at_j}),
        wrong={
            shown({low: "[MASK]", high: "[MASK]"}): slipped,
            shown(
                {i: "[MASK]", j: "[MASK]", k: strange}
            ): f'"{words[k]}" was replaced at position {k}, which is not in A(x): outside A(x), x̄ must equal x',
            shown(
                {0: "[MASK]", i: "[MASK]", j: "[MASK]"}
            ): "[CLS] is never in A(x): it is there to be read out, not to be guessed",
            shown({i: "", j: ""})
            .replace("  ", " ")
            .strip(): "the selected words are gone, and all later positions have "
            "moved. Masking writes something at each position; it removes none",
        },
        why=f"x̄ may differ from x at positions {i} and {j} only, and need not differ at both: A(x) cannot be read "
        "off from x̄, so the labels must remember it.",
    )


# 02.13 Two masks


def _draw_two_masks(rng: np.random.Generator) -> Question:
    words, i, j = a_sentence(rng)
    one, other = words[i], words[j]
    both = " ".join("[MASK]" if p in (i, j) else word for p, word in enumerate(words))
    return choice(
        f"x = {' '.join(words)}, A(x) = {{{i}, {j}}}, and both words become [MASK]. From what are **{one}** and "
        f"**{other}** predicted in training?",
        rng,
        right=f"both from the same text: {both}",
        wrong={
            f'"{one}" from the text that shows "{other}", and "{other}" from the text that shows "{one}"': "that "
            "hides one word at a time: each word would help to guess the other, and the score would be too good. "
            "Both are hidden in the same x̄",
            f'first "{one}" from {both}; then "{other}" from the same text with "{one}" filled in': "nothing is "
            "filled in between: there is one x̄ and one pass through the model. Filling in one after the other is a "
            "way to use a model, not to train it",
            f"only one of the two, chosen at random, from {both}": "every position of A(x) is predicted. To count one "
            "of them would waste the answer that the same pass has already paid for",
            f"both from the full text: {' '.join(words)}": "the model is shown x̄, not x: in x the answers could be "
            "copied",
        },
        why="every hidden word is predicted from x̄, and in x̄ all of them are hidden: neither may see the other's "
        "answer.",
    )


# 02.14 What is made large


def _draw_objective(rng: np.random.Generator) -> Question:
    words, i, j = a_sentence(rng)
    low, high, slipped = _slip(words, i, j)

    def log_sum(*positions: int) -> str:
        return " + ".join(f"log Pr({words[p]} \\| x̄)" for p in positions)

    others = [p for p in range(1, len(words)) if p not in (i, j)]
    return choice(
        f"x = {' '.join(words)}, with [CLS] at position 0, and **A(x) = {{{i}, {j}}}**. Which is the term of this "
        "sentence in the objective?",
        rng,
        right=log_sum(i, j),
        wrong={
            log_sum(low, high): slipped,
            f"Pr({words[i]} \\| x̄) · Pr({words[j]} \\| x̄)": "that is the product of the probabilities. It has the "
            "same maximizer on paper, but the objective adds logs: no underflow, and gradients add",
            log_sum(*others): "these are the words outside A(x): they stand in x̄ for the model to see, and are the "
            "condition, not the question",
            log_sum(*range(1, len(words))): "that sums over every word. The inner sum runs over A(x) and nothing else: "
            "what is visible could be copied",
            log_sum(int(pick(rng, (i, j)))): "that is one chosen token. The sum runs over all of A(x)",
        },
        why=f'positions {i} and {j} hold "{words[i]}" and "{words[j]}"; the logs of their probabilities, given x̄, '
        "are added.",
    )


# 02.15 Why a sum of logs


def _draw_why_logs(rng: np.random.Generator) -> Question:
    vocabulary, n = int(rng.choice([1024, 4096, 8192, 30522])), int(rng.choice([30, 60, 200, 1200]))
    dies = math.ceil(149 * math.log(2) / math.log(vocabulary))
    return several(
        f"A batch has {n} selected tokens, and an untrained model gives each true token about 1/{vocabulary}. Why is "
        "the objective a sum of logs and not the product of the probabilities? Name **all** reasons that hold.",
        rng,
        right={
            f"In float32 the product of the {n} probabilities is exactly 0, and so is its gradient": f"the product "
            f"underflows: about {dies} factors of 1/{vocabulary} are enough",
            "The gradient of the sum is the sum of the tokens' gradients, so a batch can be cut into pieces": "in a "
            "sum each token contributes its own gradient, whoever else is in the batch; in a product each is "
            "multiplied by all other probabilities",
            "Nothing is lost: on paper the sum and the product have the same maximizer θ̂": "log is increasing, so "
            "what makes the product largest makes its log largest, and that is the sum of the logs",
        },
        wrong={
            "The sum has a better maximizer θ̂ than the product": "both have the same: log is increasing, and the log "
            "of the product is the sum of the logs",
            "The log turns small probabilities into positive numbers": "the log of a probability is never positive; "
            "it is the minus sign that makes the loss so",
            "A product of probabilities may exceed 1, a sum of logs may not": "a product of numbers between 0 and 1 "
            "stays between 0 and 1",
        },
        why=f"the product of {n} factors 1/{vocabulary} is 0 in float32 long before the end, while the sum of logs is "
        f"−{n * math.log(vocabulary):,.0f}, a number like any other.",
    )


# 02.16 The lowest loss

PLACES = (
    ("The cat sat on the [MASK]", ("mat", "sofa", "roof", "moon")),
    ("The sailor tied the boat to the [MASK]", ("pier", "tree", "rock", "cloud")),
    ("She put the milk into the [MASK]", ("fridge", "cup", "bag", "piano")),
    ("They planted roses in the [MASK]", ("garden", "park", "field", "soup")),
)


def _draw_lowest(rng: np.random.Generator) -> Question:
    text, places = pick(rng, PLACES)
    high, middle, low = 0.36 + 0.01 * int(rng.integers(5)), 0.29 + 0.01 * int(rng.integers(4)), 0.05
    sure = 0.74 + 0.01 * int(rng.integers(7))

    def row(*p: float) -> str:
        return ", ".join(f"{word} {value:.2f}" for word, value in zip(places, p, strict=True))

    return choice(
        f"**{text}**: the hidden word was **{places[0]}**. Four models answer. Which has the lowest loss here?",
        rng,
        right=row(high, high + 0.08, 0.1, 0.82 - 2 * high),
        wrong={
            row(
                middle, 0.25, 0.26, 0.49 - middle
            ): f'its first guess is "{places[0]}", but the loss does not ask for the '
            f"first guess. It is −log Pr({places[0]}), and another model gives that word more",
            row(low, 0.2, 0.1, 0.65): f"a lower probability of the true word is a higher loss: −log {low} = "
            f"{-math.log(low):.2f} nats. The log is increasing, −log is decreasing",
            row(
                0.1, sure, 0.08, 0.82 - sure
            ): "this is the model that is most certain, but of another word. The loss reads "
            f"the probability of the true one, {0.1}",
        },
        why=f"the lowest loss is the highest Pr({places[0]}): −log {high:.2f} = {-math.log(high):.3f} nats, although "
        f'this model likes "{places[1]}" even better.',
    )


# 02.17 Two models, two masks


def _draw_two_models(rng: np.random.Generator) -> Question:
    words, i, j = a_sentence(rng)
    while True:
        a, b, c, d = (int(k) / 100 for k in rng.integers((85, 4, 38, 38), (98, 20, 56, 56)))
        if a + b > c + d + 0.04 and a * b < 0.8 * c * d:
            uneven, even = -math.log(a * b) / 2, -math.log(c * d) / 2
            if apart(uneven, even, 2 * uneven, 2 * even, -math.log((a + b) / 2), -math.log((c + d) / 2)):
                break
    first_is_even = bool(rng.integers(2))
    (p, q, loss_1), (r, s, loss_2) = [(c, d, even), (a, b, uneven)][:: 1 if first_is_even else -1]
    better = 1 if first_is_even else 2
    return numbers(
        f"Two words are hidden. Model 1 gives **{words[i]}** the probability {p:g} and **{words[j]}** {q:g}; model 2 "
        f"gives them {r:g} and {s:g}. What is the loss of each model on this sentence, the mean over both masks "
        "(`model_1`, `model_2`, in nats), and which model is better (`better`, 1 or 2)? Three digits suffice.",
        {"model_1": loss_1, "model_2": loss_2, "better": better},
        wrong={
            "average the losses, not the probabilities: the log of a mean is not the mean of the logs, and forgives a "
            "bad guess": {"model_1": -math.log((p + q) / 2), "model_2": -math.log((r + s) / 2), "better": 3 - better},
            "these are sums over both masks; the loss divides by N = 2": {"model_1": 2 * loss_1, "model_2": 2 * loss_2},
            "the sign is missing: a loss is minus the log, and never negative": {
                "model_1": -loss_1,
                "model_2": -loss_2,
            },
            "the losses are right, and the lower loss is the better one; the mean probability would name the other "
            "model, because it forgives a bad guess": {"better": 3 - better},
        },
        why=f"{min(loss_1, loss_2):.3f} is less than {max(loss_1, loss_2):.3f} nats: one bad guess costs more than a "
        "good one earns.",
    )


TASKS = (
    X_BAR,
    ConceptTask(id="02.2", title="One mask, two masks", points=2, concepts=("C09",), draw=draw_counting, computed=True),
    ConceptTask(id="02.3", title="The loss by hand", points=2, concepts=("C10",), draw=draw_by_hand, computed=True),
    ConceptTask(
        id="02.4", title="A loss on every token", points=2, concepts=("C10",), draw=draw_colleague, computed=True
    ),
    ConceptTask(
        id="02.5", title="When the product dies", points=2, concepts=("C11",), draw=draw_underflow, computed=True
    ),
    ConceptTask(id="02.6", title="Equal models", points=2, concepts=("C12",), draw=draw_equal, computed=True),
    ConceptTask(
        id="02.7", title="Softmax minus one-hot", points=2, concepts=("C10", "C11"), draw=draw_gradient, computed=True
    ),
    ConceptTask(id="02.8", title="What to divide by", points=2, concepts=("C10",), draw=draw_division, computed=True),
    ConceptTask(id="02.9", title="A known answer", points=3, concepts=("C12",), draw=draw_posterior, computed=True),
    LOSS,
    SCORE,
    ConceptTask(id="02.12", title="Which of these is x̄?", points=1, concepts=("C08",), draw=_draw_possible),
    ConceptTask(id="02.13", title="Two masks, one x̄", points=1, concepts=("C09",), draw=_draw_two_masks),
    ConceptTask(id="02.14", title="What is made large", points=2, concepts=("C10", "C11"), draw=_draw_objective),
    ConceptTask(id="02.15", title="Why a sum of logs", points=2, concepts=("C11",), draw=_draw_why_logs),
    ConceptTask(id="02.16", title="The lowest loss", points=1, concepts=("C12",), draw=_draw_lowest),
    ConceptTask(
        id="02.17", title="Two models, two masks", points=2, concepts=("C12",), draw=_draw_two_models, computed=True
    ),
)
