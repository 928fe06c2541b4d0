"""Tasks on sequence models: input, output and parameters, the chain rule, [CLS], and what may be looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np

from mlmkit.grading.plain import Torch
from mlmkit.grading.questions import numbers
from mlmkit.grading.sets.sequence_models_code import CHAIN, PATTERN
from mlmkit.grading.sets.sequence_models_words import (
    draw_factor,
    draw_gaps,
    draw_outputs,
    draw_patterns,
    draw_steps,
    draw_symbols,
)
from mlmkit.grading.tasks import CodeTask, ConceptTask, Mistake, Question

EXACT = 1e-9


# 01.1 The size of θ


def _draw_size(rng: np.random.Generator) -> Question:
    V, d, K = 10 * int(rng.integers(2, 60)), int(rng.integers(3, 13)), int(rng.integers(2, 6))
    V2, d2 = V + 10 * int(rng.integers(1, 9)), 2 * d
    n = int(rng.integers(5, 10))
    n2 = n + int(rng.integers(3, 9))
    now = V * d + d * K + K
    right = {"now": now, "longer": now, "vocabulary": V2 * d + d * K + K, "vectors": V * d2 + d2 * K + K, "step": now}
    return numbers(
        f"A model as `g` in the notebook has a table with a vector of size **{d}** for each of **{V}** tokens, and a "
        f"matrix with a bias that turns the mean vector into **{K}** scores. It reads a sentence of **{n}** tokens. "
        f"How many numbers does θ hold `now`; and after each of these changes, one at a time: a sentence of **{n2}** "
        f"tokens (`longer`), a vocabulary of **{V2}** tokens (`vocabulary`), vectors of size **{d2}** (`vectors`), one "
        "more training step (`step`)?",
        right,
        wrong={
            "θ is not part of the input, nor the input part of θ: the tokens of the sentence come with each call and "
            "are not counted": {"now": now + n, "longer": now + n2},
            "a longer sentence reads more rows of the table, and adds none: the table has one for each token of the "
            "vocabulary, not one for each token of the sentence": {"longer": now + (n2 - n) * d},
            f"the bias of the matrix is missing: {K} more numbers": {name: value - K for name, value in right.items()},
            "a training step changes the values of the numbers in θ, not how many there are": {"step": 2 * now},
            "each token of the vocabulary has a vector of its own, so the table grows with it": {"vocabulary": now},
            "the matrix reads the vector: when it is longer, the matrix grows as well": {"vectors": V * d2 + d * K + K},
        },
        why=f"θ is the table, {V} × {d}, and the matrix with its bias, {d} × {K} + {K}: together {now}. The sentence "
        "is input, and a step only changes values.",
        relative=EXACT,
    )


# 01.3 Questions with known answers


def _draw_questions(rng: np.random.Generator) -> Question:
    size, sentences = int(rng.choice([8, 10, 12, 15, 20])), 100 * int(rng.integers(4, 60))
    words = size * sentences
    return numbers(
        f"A text of **{words:,} words** has sentences of **{size}** words each. How many questions with known answers "
        "does it hold when the answer is a hidden word (`words`: one question for each word, hidden alone), and when a "
        "pair of neighboring sentences is shown and the answer is “these are neighbors” (`pairs`: each pair of "
        "neighbors once)? And for how many of all these questions must a person write the answer down (`people`)?",
        {"words": words, "pairs": sentences - 1, "people": 0},
        wrong={
            "the last sentence has no neighbor behind it: between n sentences there are n − 1 places": {
                "pairs": sentences
            },
            "a sentence in the middle belongs to two pairs: one with the sentence before, one with that after": {
                "pairs": sentences // 2
            },
            "15 % are hidden in one pass; but each word can be hidden once, and asks its own question": {
                "words": round(0.15 * words)
            },
            "no one writes answers down: the hidden word and the order of the sentences stand in the text itself": {
                "people": words + sentences - 1
            },
            "the pairs need no labels by people either: the text says which sentences are neighbors": {
                "people": sentences - 1
            },
        },
        why=f"Each of the {words:,} words can be hidden, and {sentences:,} sentences have {sentences - 1:,} pairs of "
        "neighbors. The text itself knows all the answers.",
        relative=EXACT,
    )


# 01.5 [CLS]


def _draw_cls(rng: np.random.Generator) -> Question:
    n, percent = int(rng.integers(4, 13)), int(rng.integers(56, 90))
    loss = 2 + int(rng.integers(0, 200)) / 100
    return numbers(
        f"A text is [CLS] and **{n} words**. On how many of its embeddings $e_0, e_1, …$ does $h_0$ depend in a "
        "`causal` model, and on how many when every position may look at every other (`both`)? A program averages −log "
        f"Pr over all {n + 1} positions, [CLS] included, and reports **{loss:.2f} nats**: what is the loss for each "
        f"word (`per_word`)? In a task with two labels **{percent} %** of the texts carry the more frequent one: what "
        "accuracy, between 0 and 1, is the best that a causal model can reach when the label is read from $h_0$ alone "
        "(`accuracy`)? Three digits suffice.",
        {"causal": 1, "both": n + 1, "per_word": loss * (n + 1) / n, "accuracy": percent / 100},
        wrong={
            "[CLS] is not predicted like a word: it is certain, adds 0 nats, and makes the mean too small": {
                "per_word": loss
            },
            f"there are {n + 1} terms in the mean and {n} words: the loss for a word is larger than the mean": {
                "per_word": loss * n / (n + 1)
            },
            "in a causal model position 0 may look to its left, where nothing stands, and at itself: at no word": {
                "causal": n + 1
            },
            "a position may look at itself: h₀ depends on e₀": {"causal": 0},
            "h₀ depends on the embedding of [CLS] as well": {"both": n},
            "in a causal model h₀ is the same for every text, since it depends on [CLS] alone: the best answer is "
            "always the more frequent label": {"accuracy": 1.0},
            "two labels give one half only when they are equally frequent": {"accuracy": 0.5},
        },
        why=f"Causal h₀ knows [CLS] and no word, so it can only name the more frequent label. The whole loss, {n + 1} "
        f"× {loss:.2f} nats, belongs to {n} words, since log Pr([CLS]) = 0.",
    )


# 01.13 What each side is worth

SCENES = (
    (("early", "late"), ("bird", "train"), ("sings", "leaves")),
    (("warm", "cold"), ("soup", "wind"), ("steams", "blows")),
    (("old", "new"), ("clock", "song"), ("ticks", "ends")),
    (("red", "green"), ("apple", "light"), ("shines", "falls")),
    (("small", "big"), ("dog", "boat"), ("barks", "sinks")),
    (("tired", "happy"), ("cook", "child"), ("sleeps", "laughs")),
)


def _entropy(counts: np.ndarray[Any, Any]) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _entropies(table: np.ndarray[Any, Any]) -> dict[str, float]:
    """H of the middle axis of a table (left, word, right), given nothing, left, right, both."""
    left, right = table.sum(2), table.sum(0)
    return {
        "none": _entropy(left.sum(0)),
        "left": _entropy(left) - _entropy(left.sum(1)),
        "right": _entropy(right) - _entropy(right.sum(0)),
        "both": _entropy(table) - _entropy(table.sum(1)),
    }


def _wrong_entropies(table: np.ndarray[Any, Any]) -> dict[str, dict[str, float]]:
    H = _entropies(table)
    left, right = table.sum(2), table.sum(0).T
    bits = {name: value / math.log(2) for name, value in H.items()}
    return {
        "these are bits: with the natural logarithm the unit is nats, and the numbers are smaller": bits,
        "the two sides together tell more than the better one of them: take the entropy for each pair of left and "
        "right word": {"both": min(H["left"], H["right"])},
        "what the two sides tell cannot just be added up: take the entropy for each pair of left and right word": {
            "both": H["left"] + H["right"] - H["none"]
        },
        "this is the entropy of the hidden word and its neighbor together: what is known must not be counted": {
            "left": _entropy(left),
            "right": _entropy(right),
        },
        "the entropies of the two contexts are averaged as if both were equally frequent: weigh each by its count": {
            "left": sum(map(_entropy, left)) / 2,
            "right": sum(map(_entropy, right)) / 2,
        },
    }


def _draw_entropies(rng: np.random.Generator) -> Question:
    lefts, words, rights = SCENES[int(rng.integers(len(SCENES)))]
    while True:
        table = rng.integers(0, 8, (2, 2, 2))
        H, wrong = _entropies(table) if (table.sum(1) > 0).all() else {"both": 0.0}, {}
        if min(H.values()) < 0.15:
            continue
        wrong = _wrong_entropies(table)
        told = [[H["both"], *(one["both"] for one in wrong.values() if "both" in one)]]
        told += [[H[side], *(one[side] for one in wrong.values() if side in one)] for side in ("left", "right")]
        if all(b - a > 0.03 for values in told for a, b in pairwise(sorted(values))):
            break
    lines = [
        f'    ("{lefts[i]}", "{words[k]}", "{rights[j]}"): {table[i, k, j]},' for i, k, j in product(range(2), repeat=3)
    ]
    code = "\n".join(["```python", "counts = {", *lines, "}", "```"])
    return numbers(
        f"A language has texts of three words, and this is how often each of the eight occurs:\n\n{code}\n\nThe "
        "**middle word is hidden**. What is its entropy in nats when nothing is known (`none`), the word to the left "
        "(`left`), the word to the right (`right`), both (`both`)? Four digits suffice; a new cell for the "
        "computation is welcome.",
        H,
        wrong=wrong,
        why=f"One side leaves {H['left']:.3f} or {H['right']:.3f} nats of the {H['none']:.3f}, both sides together "
        f"{H['both']:.3f}: what a left-to-right model cannot know here is worth {H['left'] - H['both']:.3f} nats.",
    )


# 01.9 Four read-outs


def _draw_hidden(rng: np.random.Generator, size: tuple[int, int, int, int] | None = None) -> dict[str, Any]:
    """Hidden states and heads whose largest scores are clearly the largest."""
    n, width, labels, vocabulary = size or (
        int(number) for number in (rng.integers(3, 8), rng.integers(2, 6), rng.integers(2, 5), rng.integers(4, 10))
    )
    while True:
        h, label_head, token_head = (
            rng.normal(size=shape).astype(np.float32) for shape in ((n, width), (width, labels), (width, vocabulary))
        )
        scores = [np.sort(h[:1] @ label_head), np.sort(h @ token_head)]
        if all((part[:, -1] - part[:, -2] > 0.01).all() for part in scores):
            break
    heads = {"label_head": Torch(label_head), "token_head": Torch(token_head)}
    return {"h": Torch(h), **heads, "position": int(rng.integers(1, n))}


def read_out(h: Any, label_head: Any, token_head: Any, position: int) -> dict[str, Any]:
    """Four kinds of output from the same hidden states, as torch tensors."""
    scores = h @ token_head
    return {
        "label": int((h[0] @ label_head).argmax()),
        "distribution": scores[position].softmax(-1),
        "vectors": h,
        "sequence": scores.argmax(-1),
    }


def _but(**changes: Callable[[Any, Any, Any, int], Any]) -> Callable[..., Any]:
    """The right read-outs but for some of them."""

    def answer(h: Any, label_head: Any, token_head: Any, position: int) -> Any:
        right = read_out(h, label_head, token_head, position)
        return {**right, **{name: change(h, label_head, token_head, position) for name, change in changes.items()}}

    return answer


READ_OUT = CodeTask(
    id="01.9",
    title="One encoder, four outputs",
    points=4,
    concepts=("C02", "C05"),
    function="read_out",
    reference=read_out,
    draw=_draw_hidden,
    edges=(
        _draw_hidden(np.random.default_rng(1), (5, 4, 2, 8)),
        {**_draw_hidden(np.random.default_rng(6), (2, 3, 3, 4)), "position": 1},
    ),
    mistakes=(
        Mistake(
            "label from the mean",
            _but(label=lambda h, label_head, token_head, position: int((h.mean(0) @ label_head).argmax())),
            "your label is read from the mean of all vectors: BERT's is read from h₀, the vector of [CLS], which has "
            "collected what it needs from all positions",
        ),
        Mistake(
            "label from the end",
            _but(label=lambda h, label_head, token_head, position: int((h[-1] @ label_head).argmax())),
            "your label is read from the last position, as GPT does it: an encoder that looks to both sides sums the "
            "text up in h₀, the vector of [CLS]",
        ),
        Mistake(
            "scores for probabilities",
            _but(distribution=lambda h, label_head, token_head, position: h[position] @ token_head),
            "your distribution holds scores: they can be negative and do not sum to 1. A softmax is missing",
        ),
        Mistake(
            "softmax over positions",
            _but(distribution=lambda h, label_head, token_head, position: (h @ token_head).softmax(0)[position]),
            "your softmax runs over the positions: the probabilities of all tokens at one position must sum to 1",
        ),
        Mistake(
            "distribution of [CLS]",
            _but(distribution=lambda h, label_head, token_head, position: (h[0] @ token_head).softmax(-1)),
            "your distribution is read at [CLS]: it is asked at `position`, where the hidden word stands. [CLS] is "
            "never predicted like a word",
        ),
        Mistake(
            "position off by one",
            _but(distribution=lambda h, label_head, token_head, position: (h[position - 1] @ token_head).softmax(-1)),
            "your distribution is read one position to the left: row 0 of h is [CLS], so row i belongs to x_i itself",
        ),
        Mistake(
            "best position for each token",
            _but(sequence=lambda h, label_head, token_head, position: (h @ token_head).argmax(0)),
            "your sequence has one number for each token of the vocabulary: the largest score was taken over the "
            "positions. Take it over the vocabulary, at each position",
        ),
        Mistake(
            "one vector for the text",
            _but(vectors=lambda h, label_head, token_head, position: h.mean(0)),
            "your vectors are averaged into one: one vector per token was asked, and h has them already",
        ),
    ),
    hints=(
        "A head is a matrix: `h[i] @ head` gives the scores at position i, and `h @ head` those at all positions.",
        "The label reads row 0, the distribution row `position`, the sequence all rows. Only the distribution needs a "
        "softmax: it does not change which score is the largest.",
        "`(h[0] @ label_head).argmax()`; `(… @ token_head).softmax(-1)`; `h`; `(h @ token_head).argmax(1)`.",
    ),
)


TASKS = (
    ConceptTask(id="01.1", title="The size of θ", points=3, concepts=("C01",), draw=_draw_size, computed=True),
    ConceptTask(id="01.2", title="Which kind of output", points=2, concepts=("C02",), draw=draw_outputs),
    ConceptTask(
        id="01.3", title="Questions with answers", points=2, concepts=("C03",), draw=_draw_questions, computed=True
    ),
    CHAIN,
    ConceptTask(id="01.5", title="What [CLS] knows", points=3, concepts=("C05",), draw=_draw_cls, computed=True),
    PATTERN,
    ConceptTask(id="01.7", title="Which gap", points=1, concepts=("C07",), draw=draw_gaps),
    ConceptTask(id="01.8", title="Symbols and their roles", points=2, concepts=("C01",), draw=draw_symbols),
    READ_OUT,
    ConceptTask(id="01.10", title="Two questions", points=2, concepts=("C03",), draw=draw_steps),
    ConceptTask(id="01.11", title="What stands behind the bar", points=1, concepts=("C04",), draw=draw_factor),
    ConceptTask(id="01.12", title="Three patterns", points=2, concepts=("C06",), draw=draw_patterns),
    ConceptTask(
        id="01.13", title="What each side is worth", points=3, concepts=("C07",), draw=_draw_entropies, computed=True
    ),
)
