"""Tasks on the encoder: attention with a pencil, masks, heads, layer norm, what each part is for, how many numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mlmkit.grading.questions import match, numbers, several
from mlmkit.grading.sets.encoder_layer_code import ATTENTION, CAUSAL, HEADS
from mlmkit.grading.sets.encoder_layer_counts import draw_attention_parameters, draw_encoder_parameters, draw_pattern
from mlmkit.grading.sets.encoder_layer_parts import FEED_FORWARD, NORM
from mlmkit.grading.tasks import ConceptTask, Question

SENTENCES = (
    "the early bird catches worms",
    "a quick fox jumps high",
    "the cat chased a mouse",
    "my old dog sleeps late",
    "two small boats drift home",
)


def _word(rng: np.random.Generator, *words: str) -> str:
    return words[int(rng.integers(len(words)))]


def _differ(*rows: tuple[float, ...]) -> bool:
    """Whether each two rows differ by more than any tolerance in every place."""
    return all(
        abs(a - b) > 0.03 * max(1.0, abs(a), abs(b))
        for i, one in enumerate(rows)
        for other in rows[:i]
        for a, b in zip(one, other, strict=True)
    )


# 09.1 A weighted average


def _draw_average(rng: np.random.Generator) -> Question:
    tokens = ["[CLS]", *_word(rng, *SENTENCES).split(), "[SEP]"]
    shares = [(1, 1), (1, 3), (3, 1), (1, 4), (2, 3), (1, 1, 2), (1, 2, 2)][int(rng.integers(7))]
    while True:
        e = rng.integers(0, 9, (len(tokens), 2))
        read = rng.choice(np.arange(1, len(tokens) - 1), len(shares), replace=False)
        weights = np.array(shares) / sum(shares)
        right, total, mean = weights @ e[read], e[read].sum(0), e.mean(0)
        if _differ(tuple(right), tuple(total), tuple(mean)):
            break
    vectors = ", ".join(f"`{token}` ({x}, {y})" for token, (x, y) in zip(tokens, e.tolist(), strict=True))
    reads = ", ".join(f'"{tokens[j]}" with {Fraction(s, sum(shares))}' for j, s in zip(read, shares, strict=True))
    asker = _word(rng, "[CLS]", "[SEP]")
    return numbers(
        f"Seven positions have these vectors: {vectors}. In one head the values are these vectors themselves, and "
        f"`{asker}` reads {reads}, and nothing else. Which vector does it get? Give its `first` and its `second` "
        "number.",
        {"first": float(right[0]), "second": float(right[1])},
        wrong={
            "this is the plain sum of the vectors that are read; each counts with its weight, and the weights sum to "
            "1": {
                "first": float(total[0]),
                "second": float(total[1]),
            },
            "this is the mean of all seven vectors; a head gives the positions that it does not read the weight 0": {
                "first": float(mean[0]),
                "second": float(mean[1]),
            },
        },
        why=f"The vectors that are read, each times its weight, add up to ({right[0]:.4g}, {right[1]:.4g}). It lies "
        "among them: weights that are not negative and sum to 1 lead nowhere else.",
    )


# 09.2 One head with a pencil


def _draw_pencil(rng: np.random.Generator) -> Question:
    words = _word(rng, *SENTENCES).split()[1:4]
    while True:
        q = rng.integers(0, 4, 2)
        k = np.array([(1, 0), (0, 1), (0, 0), (1, 1)])[rng.permutation(4)[:3]]
        v = rng.integers(0, 6, (3, 2))
        s = k @ q
        rows = [2.0**s / (2.0**s).sum(), s / max(s.sum(), 1), np.exp(s) / np.exp(s).sum(), np.full(3, 1 / 3)]
        found = [(*row, *(row @ v)) for row in rows]
        if all(_differ(found[0][2:3] + found[0][3:], other[2:3] + other[3:]) for other in found[1:]) and s.max() < 5:
            break
    names = ("weight_1", "weight_2", "weight_3", "first", "second")
    right, shares, natural, even = ({n: float(x) for n, x in zip(names, row, strict=True)} for row in found)
    pairs = ", ".join(f'"{w}" {tuple(a)} and {tuple(b)}' for w, a, b in zip(words, k.tolist(), v.tolist(), strict=True))
    total = int((2**s).sum())
    weights = ", ".join(f"{2**n}/{total}" for n in s.tolist())
    return numbers(
        f'One head, D = 2, three positions. Their keys and values are: {pairs}. The query of "{words[0]}" is '
        f"√2 · ln 2 · ({q[0]}, {q[1]}), so that each score q·k/√D is ln 2 times a whole number. Compute with a "
        f'pencil the weights with which "{words[0]}" reads the three words in their order, and the two numbers of what '
        "it gets (`first`, `second`). You may write fractions, as 4/7; with decimals three digits suffice.",
        right,
        wrong={
            "your weights are in proportion to the scores; the softmax takes their exponentials first: a score of n "
            "· ln 2 counts 2 to the power n, and even a score of 0 counts 1": shares,
            "your exponentials are those of the whole numbers. The scores are ln 2 times a whole number n, and "
            "exp(n · ln 2) is 2 to the power n, not e to the power n": natural,
            "this is the plain mean, as if the query were zero: here the scores differ, and so do the weights": even,
        },
        why=f"The whole numbers are {', '.join(map(str, s.tolist()))}, so the exponentials add up to {total}, the "
        f"weights are {weights}, and the values weighted with them give ({found[0][3]:.4f}, {found[0][4]:.4f}).",
    )


# 09.3 What the division does


def _draw_variance(rng: np.random.Generator) -> Question:
    D = int(rng.choice([16, 64, 100, 256, 400, 1024]))
    a, b = [(1, 2), (2, 2), (0.5, 0.25), (3, 2), (0.5, 0.5), (4, 0.5)][int(rng.integers(6))]
    raw = D * a * b
    return numbers(
        f"All entries of a query and a key are independent, with mean 0. Those of the query have variance {a:g}, "
        f"those of the key {b:g}, and D = {D}. What is the variance of the dot product q·k (`raw`), of q·k/√D "
        "(`by_root`), and of q·k/D (`by_D`)? Three digits suffice.",
        {"raw": raw, "by_root": a * b, "by_D": a * b / D},
        wrong={
            "these are standard deviations; the variance is their square": {
                "raw": math.sqrt(raw),
                "by_root": math.sqrt(a * b),
                "by_D": math.sqrt(a * b / D),
            },
            "dividing a number by c divides its variance by c², not by c": {
                "by_root": raw / math.sqrt(D),
                "by_D": a * b,
            },
            f"one term has the variance {a * b:g}, but a dot product adds D = {D} of them, and variances of "
            "independent terms add": {"raw": a * b, "by_root": a * b / D, "by_D": a * b / D**2},
        },
        why=f"Each of the {D} terms has variance {a:g} · {b:g} = {a * b:g}, together {raw:g}. Divided by √D the "
        f"variance no longer depends on D. Divided by D it is {a * b / D:.3g}: the scores are nearly equal, and the "
        "head reads nearly evenly until its queries and keys have grown.",
    )


# 09.7 Which functions are worth their place


def _draw_between(rng: np.random.Generator) -> Question:
    factor = int(rng.integers(2, 6))
    curved = {
        "ReLU: max(u, 0)": "ReLU has a bend at 0, so that the whole is no longer linear",
        "u²": "u² is not linear: it breaks f(x + y) + f(0) = f(x) + f(y)",
        "tanh(u)": "tanh is curved, and so is the network with it",
        "|u|": "|u| has a bend at 0, as ReLU has",
        "GELU: u · Φ(u)": "GELU is curved: this is BERT's own choice",
    }
    straight = {
        f"{factor}u": f"a factor {factor} can be put into W_down: two matrices in a row are still one matrix",
        "−u": "a change of sign can be put into W_down: the whole stays linear",
        f"u + {factor}": f"adding {factor} only changes the bias: matrix, shift, matrix is a matrix and a bias",
        "u/2 + 1": "a straight line in the middle: its factor goes into W_down and its constant into the bias",
        "u, without any function": "two matrices in a row are one matrix of H × H: the inner numbers are worth nothing",
    }
    right = [list(curved)[i] for i in rng.permutation(5)[:3]]
    wrong = [list(straight)[i] for i in rng.permutation(5)[:3]]
    return several(
        "Which of these functions, put between `up` and `down`, give a feed-forward network that can do more than one "
        "matrix of H × H with a bias?",
        rng,
        right={name: curved[name] for name in right},
        wrong={name: straight[name] for name in wrong},
        why=f"Only a function that is no straight line keeps the two matrices apart: {', '.join(right)}.",
    )


# 09.14 What each part is for

RESIDUAL, NORMS, ROOT = "the residual sums are missing", "the layer norms are missing", "scores are not divided by √D"
AFTER, GELU = "padding is masked after the softmax", "there is no GELU between `up` and `down`"
ROWS, PLACES = "heads are split with `reshape(a, S, D)`", "the position embeddings are missing"
DROPOUT = "dropout is on: `eval()` was forgotten"


def _draw_symptoms(rng: np.random.Generator) -> Question:
    few, many = int(rng.integers(2, 5)), int(rng.choice([256, 512, 1024]))
    symptoms = {
        f"In a fresh network the vectors of all positions point the same way after {few} layers. Their size is as it "
        "should be": RESIDUAL,
        f"With larger matrices the hidden states grow from layer to layer, and after {8 * few} layers they are "
        "thousands of times too large": NORMS,
        f"With random queries and keys, D = {many}, nearly all weight goes to one key, and the softmax passes hardly "
        "any gradient back": ROOT,
        f"The output for a sentence changes when its batch gets {many // 16} positions longer; padding has the "
        "weight 0, but the weights of the real words sum to less than 1": AFTER,
        "A feed-forward network obeys f(x + y) + f(0) = f(x) + f(y), however large its F is": GELU,
        f"In a layer of {few} heads the output at `[CLS]` does not depend on the last words; nothing is masked, and "
        "all shapes are right": ROWS,
        "When two words change places, each keeps exactly the vector that it had": PLACES,
        f"The same sentence, sent through {few} times, gives {few} different results": DROPOUT,
    }
    same, grow, sharp, company = list(symptoms)[:4]
    chosen = [list(symptoms)[i] for i in sorted(rng.permutation(8)[:5])]
    return match(
        "Five encoders have one fault each. Which fault explains what is seen?",
        rng,
        pairs={symptom: symptoms[symptom] for symptom in chosen},
        wrong={
            (same, NORMS): "the norms are at work, the size is right. What makes positions alike is that nearly even "
            "averages replace what was there, instead of being added to it",
            (
                same,
                PLACES,
            ): "different words would still have different vectors; what wipes out the words is that averages "
            "replace them, instead of being added to them",
            (grow, RESIDUAL): "a residual sum does not bring vectors to a size; only the norm does",
            (grow, ROOT): "√D sharpens or softens the weights; an average of values never grows by it",
            (sharp, NORMS): "the norm sets the size of what enters; a dot product of D terms grows with D all the same",
            (sharp, AFTER): "a mask has nothing to do with it: the variance of q·k is D, and the softmax saturates",
            (company, DROPOUT): "dropout would change the result from pass to pass, also without any padding",
            (company, ROWS): "a wrong split tears tokens apart, but its weights still sum to 1 over all keys",
        },
        why="Each part prevents one thing, and most of these faults leave all shapes right: one has to measure.",
        extra=[part for part in (RESIDUAL, NORMS, ROOT) if part not in {symptoms[c] for c in chosen}][:1],
    )


# 09.15 Masked too late


def _draw_too_late(rng: np.random.Generator) -> Question:
    powers = [int(n) for n in rng.choice([1, 2, 3, 4, 5, 6, 8], int(rng.integers(2, 5)), replace=False)]
    total = sum(powers)
    padding = int(rng.choice([n for n in (3, 5, 7, 9, 20, 30) if n != total]))
    first = powers[0]
    scores = ", ".join(f"ln {n}" for n in powers)
    return numbers(
        f"A position scores {len(powers)} real keys with {scores}, and {padding} keys of padding with 0 each. Give "
        "the weight of the first key when padding is masked before the softmax (`before`), its weight when padding "
        "is set to 0 after the softmax (`after`), and what the weights of all keys then sum to (`sum_after`). "
        "Fractions or three digits.",
        {"before": first / total, "after": first / (total + padding), "sum_after": total / (total + padding)},
        wrong={
            "a softmax over all keys gives weights that sum to 1, but then some are set to 0, and nobody hands out "
            "their share again": {"sum_after": 1.0},
            f"here padding still has its share: e⁰ = 1 for each of the {padding} keys. A score of −∞ takes them out "
            "of the sum": {"before": first / (total + padding)},
            "masked after the softmax, padding has already had its part in the denominator": {"after": first / total},
            "this is what padding had; asked is what is left to the real keys": {
                "sum_after": padding / (total + padding)
            },
        },
        why=f"The exponentials of the real keys add up to {total}, those of padding to {padding}. Masked before: "
        f"{first}/{total}. After: {first}/{total + padding}, and the sum {total}/{total + padding} depends on how "
        "long the batch is.",
    )


TASKS = (
    ConceptTask(id="09.1", title="A weighted average", points=1, concepts=(), draw=_draw_average, computed=True),
    ConceptTask(id="09.2", title="One head with a pencil", points=2, concepts=(), draw=_draw_pencil, computed=True),
    ConceptTask(id="09.3", title="Divided by √D, or by D", points=2, concepts=(), draw=_draw_variance, computed=True),
    CAUSAL,
    ConceptTask(id="09.5", title="More heads", points=1, concepts=(), draw=draw_attention_parameters, computed=True),
    ConceptTask(id="09.7", title="Between up and down", points=1, concepts=(), draw=_draw_between),
    ConceptTask(
        id="09.8", title="Count an encoder", points=2, concepts=(), draw=draw_encoder_parameters, computed=True
    ),
    ATTENTION,
    HEADS,
    NORM,
    FEED_FORWARD,
    ConceptTask(id="09.14", title="What each part is for", points=2, concepts=(), draw=_draw_symptoms),
    ConceptTask(id="09.15", title="Masked too late", points=2, concepts=(), draw=_draw_too_late, computed=True),
    ConceptTask(id="09.16", title="Who sees whom", points=2, concepts=("C05", "C06"), draw=draw_pattern, computed=True),
)
