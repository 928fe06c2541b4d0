"""Numbers of the mathematics of masking: counting, losses, underflow, gradients, the best answer to a mask."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlmkit.grading.chance import apart, pick
from mlmkit.grading.questions import numbers
from mlmkit.grading.tasks import Question

SENTENCES = (
    ("the early bird catches the worm", ((2, 6),)),
    ("A quick brown fox jumps over the lazy dog", ((2, 8), (3, 8), (4, 7))),
    ("a small boat sails across one wide river", ((2, 5), (3, 7), (4, 7))),
    ("our old baker sells warm bread every morning", ((2, 5), (3, 6), (4, 7))),
    ("two tall trees stand behind that red house", ((2, 7), (3, 5), (4, 7))),
    ("my gray cat sleeps under your kitchen table", ((3, 7), (2, 5), (4, 7))),
)
"""Sentences and the pairs of positions that may be hidden in them."""


def a_sentence(rng: np.random.Generator) -> tuple[list[str], int, int]:
    """Words with [CLS] at 0, and two positions to hide."""
    text, pairs = pick(rng, SENTENCES)
    return ["[CLS]", *text.split()], *pick(rng, pairs)


# 02.2 By counting

SCENES = (
    ("the {} bird catches the {}", ("early", "late", "hungry"), ("worm", "bus")),
    ("a {} sailor mends a long {}", ("young", "tired", "tall"), ("net", "rope")),
    ("the {} cat sleeps on the old {}", ("gray", "fat", "black"), ("mat", "sofa")),
    ("my {} baker sells some very fine {}", ("cheerful", "old", "busy"), ("bread", "cake")),
)


def draw_counting(rng: np.random.Generator) -> Question:
    """One mask and two, by counting sentences."""
    frame, (u, v, w), (s, t) = pick(rng, SCENES)
    a, b, c, d = (int(n) for n in rng.integers((4, 1, 3, 1), (9, 3, 6, 3)))
    total = a + b + c + d
    length, first, last = len(frame.split()), frame.split().index("{}") + 1, len(frame.split())
    lines = "\n".join(
        f"- {count} × [CLS] {frame.format(*words)}"
        for count, words in ((a, (u, s)), (b, (u, t)), (c, (v, t)), (d, (w, s)))
    )
    return numbers(
        f"A language has {total} sentences:\n\n{lines}\n\nCompute by counting the probability of **{v}** at position "
        f"{first}: with one mask, x̄ = [CLS] {frame.format('[MASK]', t)} (`one`), and with two, "
        f"x̄ = [CLS] {frame.format('[MASK]', '[MASK]')} (`two`). And at how many other positions could a second [MASK] "
        "stand that leaves the first of these probabilities exactly as it is (`harmless`)? Three digits suffice.",
        {"one": c / (b + c), "two": c / total, "harmless": length - 2},
        wrong={
            f'"{t}" is visible when one word is hidden: only the sentences that end in "{t}" fit x̄': {"one": c / total},
            f'with two masks "{t}" is hidden as well: all {total} sentences fit x̄': {"two": c / (b + c)},
            "sentences that occur more often count more often: count sentences, not kinds of sentences": {
                "one": 1 / 2,
                "two": 1 / 4,
            },
            f"that is one too many: a mask at position {last} does change it, since the word there tells which "
            "sentence it is; and position 0 is [CLS], which is never in A(x)": {"harmless": length - 1},
            "a second mask makes the first word harder to guess only where it hides a word that tells something": {
                "harmless": 0
            },
        },
        why=f'with "{t}" in sight {b + c} sentences fit, {c} of them with "{v}"; with both hidden all {total}. The '
        f"other {length - 2} words are the same in all sentences, so hiding one of them takes nothing away.",
    )


# 02.3 The loss by hand


def draw_by_hand(rng: np.random.Generator) -> Question:
    """The loss at two positions, from scores."""
    vocabulary = int(rng.choice([13, 20, 50, 100]))
    while True:
        a, b, c, d = (round(0.5 * int(n), 1) for n in rng.integers(2, 11, 4))
        exact = [_nats(true, rival, vocabulary) for true, rival in ((a, b), (c, d))]
        narrow = [_nats(true, rival, 2) for true, rival in ((a, b), (c, d))]
        mean = sum(exact) / 2
        if apart(*exact, *narrow, mean, 2 * mean, exact[0] / math.log(2), a, -c, math.exp(-exact[0])):
            break
    return numbers(
        f"The vocabulary has **V = {vocabulary}** tokens, and A(x) = {{2, 6}}. At position 2 the true token has the "
        f"score {a:g} and one other token {b:g}; at position 6 the true token has {c:g} and one other token {d:g}. "
        "**All other scores are 0.** Give −log Pr of the true token at each position (`position_2`, `position_6`), "
        "and the `loss`, in nats. Three digits suffice.",
        {"position_2": exact[0], "position_6": exact[1], "loss": mean},
        wrong={
            f"a score of 0 is no probability of 0: each of the other {vocabulary - 2} tokens adds e⁰ = 1 to the sum "
            "below the fraction": {"position_2": narrow[0], "position_6": narrow[1], "loss": sum(narrow) / 2},
            "these are logs to the base 2; a nat goes with the natural log": {"position_2": exact[0] / math.log(2)},
            "a score is not yet a log-probability: subtract the log of the sum of all e^score": {"position_2": a},
            "that is the sum over A(x): the loss divides it by N = 2": {"loss": 2 * mean},
            "the loss is not taken on one chosen token: both selected positions count": {"loss": exact[0]},
            "the loss is not taken on one chosen token: both selected positions count alike": {"loss": exact[1]},
        },
        why=f"the loss is ({exact[0]:.3f} + {exact[1]:.3f}) / 2 = {mean:.3f} nats. It falls when the true token's "
        "score rises, or when any other score falls.",
    )


def _nats(true: float, rival: float, vocabulary: int) -> float:
    return math.log(math.exp(true) + math.exp(rival) + vocabulary - 2) - true


# 02.4 A loss on every token


def draw_colleague(rng: np.random.Generator) -> Question:
    """What a loss on every token hides."""
    vocabulary, rate = int(rng.choice([4096, 8192, 30522])), float(rng.choice([0.1, 0.15, 0.2, 0.25]))
    blind = math.log(vocabulary)
    reported = round(rate * float(rng.uniform(0.6, 0.95)) * blind, 2)
    on_a = reported / rate
    return numbers(
        f"A colleague reports an MLM loss of **{reported:g}** nats on the first day, with V = {vocabulary} and "
        f"{rate:.0%} of the tokens selected and masked. It turns out that **every token was counted**. Assume that "
        "copying what stands in plain sight costs 0 nats. What is the loss on A(x) (`on_A`), and what is the loss of "
        "a model that knows nothing (`blind`)? Three digits suffice.",
        {"on_A": on_a, "blind": blind},
        wrong={
            "that is the reported number, an average over all tokens, most of which only had to be copied": {
                "on_A": reported
            },
            f"the whole sum comes from {rate:.0%} of the tokens: dividing it by fewer tokens makes the mean larger": {
                "on_A": reported * rate
            },
            f"you divided by the share of the copied tokens, {1 - rate:.0%}. The hidden ones are {rate:.0%}": {
                "on_A": reported / (1 - rate)
            },
            "that is a log to the base 2, in bits": {"blind": math.log2(vocabulary)},
            "that is a log to the base 10; a loss in nats takes the natural log": {"blind": math.log10(vocabulary)},
            "that is the probability of each token; its loss is minus the log": {"blind": 1 / vocabulary},
        },
        why=f"{reported:g} / {rate:g} = {on_a:.2f} nats on A(x), against {blind:.2f} of a model that knows nothing: "
        f"the {reported:g} came from copying.",
    )


# 02.5 When the product dies


def _factors(p: float, number: type[np.floating[Any]]) -> tuple[int, float]:
    """After how many factors p the product no longer changes, and what it is then."""
    product, n, factor = number(1), 0, number(p)
    while product * factor != product:
        product, n = product * factor, n + 1
    return n, float(product)


def draw_underflow(rng: np.random.Generator) -> Question:
    """Where a float32 product dies, or gets stuck."""
    p, q = float(rng.integers(2, 480)) / 1000, float(rng.choice([0.79, 0.82, 0.85, 0.87, 0.88, 0.9, 0.91, 0.92]))
    zero_at, wide = _factors(p, np.float32)[0], _factors(p, np.float64)[0]
    left = round(_factors(q, np.float32)[1] * 2.0**149)
    normal = math.floor(math.log(2.0**-126) / math.log(p)) + 1
    return numbers(
        f"Multiply **p = {p:g}** by itself in **float32**, factor by factor, as an untrained model's probabilities "
        "would be multiplied. After how many factors is the product exactly 0 (`zero_at`; search with a loop that "
        f"starts at 1)? With **p = {q:g}** the product never becomes 0: it gets stuck. Where, counted in smallest "
        "float32 numbers, 2⁻¹⁴⁹ (`stuck_at` = product · 2¹⁴⁹; allow 2000 factors)?",
        {"zero_at": zero_at, "stuck_at": left},
        wrong={
            "that is the length in float64, Python's own kind of number. Begin with np.float32(1) or a torch tensor, "
            "and keep to that kind": {"zero_at": wide},
            "at this length the product is still above 0: count the factor that makes it 0 as well": {
                "zero_at": zero_at - 1
            },
            "here the product leaves the numbers with all digits, near 1.2e-38; 0 comes later, after the subnormal "
            "numbers": {"zero_at": normal},
            "it does not become 0: near the end p times the product is rounded up to the product itself. If you see 0, "
            "the loop ran in float64": {"stuck_at": 0},
        },
        why=f"{zero_at} factors of {p:g} are enough, and {wide} in float64. With {q:g} the product stays at {left} · "
        f"2⁻¹⁴⁹: {q:g} · {left} = {q * left:.3g} is rounded to {left}. That is worse than 0, for it looks like a "
        "number.",
        relative=1e-9,
    )


# 02.6 Equal models


def draw_equal(rng: np.random.Generator) -> Question:
    """Two models with the same loss."""
    while True:
        p, q, r = (int(n) / 100 for n in rng.integers((40, 30, 65), (61, 61, 96)))
        right = p * q / r
        if p + q > r + 0.05 and apart(right, p + q - r, q, p * q, right / 2, q * r / p):
            break
    words, i, j = a_sentence(rng)
    return numbers(
        f"Two words are hidden: **{words[i]}** and **{words[j]}**. Model 2 gives them {p:g} and {q:g}. Model 1 gives "
        f'"{words[i]}" {r:g}. Which probability must model 1 give to "{words[j]}" so that both models have the same '
        "loss (`probability`), and what is this loss, the mean over both (`loss`, in nats)? Three digits suffice.",
        {"probability": right, "loss": -math.log(p * q) / 2},
        wrong={
            "with this number the mean probabilities are equal. The loss averages the logs, so the products must be "
            "equal": {"probability": p + q - r},
            f'model 1 is better at "{words[i]}", so it may be worse at "{words[j]}"': {"probability": q},
            f"this is the product that both models must reach; model 1 has already the factor {r:g}": {
                "probability": p * q
            },
            "the ratio is upside down: where model 1 is better, it may be worse elsewhere": {"probability": q * r / p},
            "that is the sum of both losses; the loss is their mean": {"loss": -math.log(p * q)},
            "average the losses, not the probabilities: the log of a mean is not the mean of the logs": {
                "loss": -math.log((p + q) / 2)
            },
        },
        why=f"{p:g} · {q:g} = {r:g} · {right:.4f}: equal products have equal sums of logs, and so equal losses.",
    )


# 02.7 The gradient


def draw_gradient(rng: np.random.Generator) -> Question:
    """The gradient of a sum of logs and of a product."""
    words, i, j = a_sentence(rng)
    p, size = float(rng.choice([0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])), int(rng.choice([500, 1000, 2000, 4096]))
    return numbers(
        f'A model gives "{words[i]}" the probability **{p:g}** and "{words[j]}" **1/{size}**. Take the derivative '
        f'with respect to the score of "{words[i]}" at its own position: of −(log Pr({words[i]}) + log '
        f"Pr({words[j]})) (`sum_of_logs`), and of the product Pr({words[i]}) · Pr({words[j]}) (`product`). Three "
        "digits suffice, so write small numbers as 1.23e-4.",
        {"sum_of_logs": p - 1, "product": p * (1 - p) / size},
        wrong={
            "the sign is turned: the loss falls when the true token's score rises": {"sum_of_logs": 1 - p},
            "that is the softmax; one-hot, a 1 at the true token, has to be subtracted": {"sum_of_logs": p},
            "that is divided by N = 2, and here the sum is asked for, not the mean": {"sum_of_logs": (p - 1) / 2},
            "that is the derivative with respect to the probability; the score acts on it through the softmax": {
                "sum_of_logs": -1 / p
            },
            f"the factor Pr({words[j]}) is missing: in a product each gradient is multiplied by the others' "
            "probabilities": {"product": p * (1 - p)},
            "that is the derivative with respect to the probability; times p(1 − p) it is that with respect to the "
            "score": {"product": 1 / size},
        },
        why=f'softmax minus one-hot is {p:g} − 1 = −{1 - p:.3g}: this still says how much of "{words[i]}" is not '
        f"learned. In the product the same message is scaled down by 1/{size}, because another word is hard.",
    )


# 02.8 What to divide by


def draw_division(rng: np.random.Generator) -> Question:
    """Sum, mean, mean of means."""
    while True:
        n, m = (int(k) for k in rng.integers((2, 5), (5, 13)))
        a, b = (0.25 * int(k) for k in rng.integers((1, 6), (6, 13)))
        total = n * a + m * b
        mean, of_means = total / (n + m), (a + b) / 2
        if apart(total, mean, of_means, total / 2):
            break
    return numbers(
        f"A batch has two sequences. The first has {n} selected tokens of loss {a:g} each, the second {m} tokens of "
        f"loss {b:g} each. Give the `sum` over A(x), the `mean` over N, the mean of the sentence means (`of_means`), "
        "and what `mlm_loss` returns (`mlm_loss`).",
        {"sum": total, "mean": mean, "of_means": of_means, "mlm_loss": mean},
        wrong={
            "mlm_loss does not average each sequence first: that would give a token of the first sequence more weight "
            "than one of the second": {"mlm_loss": of_means},
            "mlm_loss divides the sum by N, so that it can be held against ln V": {"mlm_loss": total},
            "the two means are exchanged": {"mean": of_means, "of_means": mean},
            "that is the mean of the sentence means; the mean over N divides the sum by the number of tokens": {
                "mean": of_means
            },
            "N is the number of selected tokens, not of sequences": {"mean": total / 2},
        },
        why=f"{total:g} / {n + m} = {mean:.4g}; each token has the weight 1/{n + m}. In the mean of means a token of "
        f"the first sequence would weigh 1/{2 * n}, one of the second 1/{2 * m}.",
    )


# 02.9 A language with a known answer


def draw_posterior(rng: np.random.Generator) -> Question:
    """The best answer to a mask, by Bayes' rule."""
    while True:
        a, b = (float(k) for k in rng.choice([0.6, 0.7, 0.75, 0.8, 0.9], 2))
        thing, deed = pick(rng, ("cat", "bird")), pick(rng, ("sleeps", "sings"))
        home = a * (a if thing == "cat" else 1 - a) * (b if deed == "sleeps" else 1 - b)
        yard = (1 - a) * (1 - a if thing == "cat" else a) * (1 - b if deed == "sleeps" else b)
        share = home / (home + yard)
        sleeps = share * b + (1 - share) * (1 - b)
        unread = a * b + (1 - a) * (1 - b)
        likely = b if share > 0.5 else 1 - b
        if apart(share, home, a, 0.5, 1 - share) and apart(sleeps, unread, likely, 0.5, home * b + yard * (1 - b)):
            break
    return numbers(
        "A document has a topic, **home** or **yard**, decided by a fair coin, and two sentences of a thing and a "
        f"deed. At home the thing is cat with {a:g}, else bird, and the deed is sleeps with {b:g}, else sings. In "
        f"the yard it is the other way round: cat {1 - a:.2g}, sleeps {1 - b:.2g}. The topic decides and nothing "
        f"else joins the words. Given x̄ = [CLS] cat [MASK] [SEP] {thing} {deed} [SEP], where every visible word is "
        "true and B is the next sentence for certain: what are Pr(home | x̄) (`home`) and Pr(sleeps | x̄) at "
        "position 2 (`sleeps`)? Three digits suffice.",
        {"home": share, "sleeps": sleeps},
        wrong={
            "the second sentence is not read here. It has the same topic, so it is evidence too": {
                "home": a,
                "sleeps": unread,
            },
            "Bayes' rule is not finished: divide by the sum over both topics": {"home": home},
            "no visible word was read: that is the coin": {"home": 0.5, "sleeps": 0.5},
            "that is Pr(yard | x̄)": {"home": 1 - share},
            "the answer averages over the topics, each with its posterior; it does not bet on the likelier one": {
                "sleeps": likely
            },
            "the weights of the topics must add up to 1 before they average": {"sleeps": home * b + yard * (1 - b)},
        },
        why=f"the weights of home and yard are {home:.4g} and {yard:.4g}, so Pr(home | x̄) = {share:.4g}, and "
        f"Pr(sleeps | x̄) = {share:.4g} · {b:g} + {1 - share:.4g} · {1 - b:.2g}. No model can do better, however "
        "large.",
    )
