"""Tasks on choosing positions and corrupting them: 80/10/10, spans, what the loss is taken on."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.chance import apart
from mlmkit.grading.questions import choice, match, number, numbers
from mlmkit.grading.sets.corruption_code import CHANNEL, LABELS, SELECT
from mlmkit.grading.sets.corruption_fates import CORRUPT, SPANS
from mlmkit.grading.tasks import ConceptTask, Question

# 03.1 How many of each


def _draw_counts(rng: np.random.Generator) -> Question:
    real = 200 * int(rng.integers(2, 16))
    selected = round(0.15 * real)
    mask, random = round(0.8 * selected), round(0.1 * selected)
    values = {"selected": selected, "mask": mask, "random": random, "kept": random, "untouched": real - selected}
    return numbers(
        f"A text has **{real} real tokens**. BERT's recipe is applied: 15 % are selected, and of these 80/10/10. How "
        "many tokens are selected (`selected`), how many of them become [MASK] (`mask`), a random token (`random`), "
        "stay as they are (`kept`)? How many tokens are not selected at all (`untouched`), and on how many is the loss "
        "taken (`loss`)? Give the averages.",
        {**values, "loss": selected},
        wrong={
            f"the loss is taken on all {selected} selected tokens, not only on the {mask} that became [MASK]: the "
            "model has to name the random and the kept ones as well": {"loss": mask},
            f"the {real - mask} tokens that do not show [MASK] are not all ignored: {2 * random} of them are selected, "
            f"{random} random and {random} kept, and the loss is taken on them": {"untouched": real - mask},
            "the kept tokens look untouched, but they are selected: the loss is taken on them. Untouched are only "
            "those that were not selected": {"untouched": real - selected + random},
            "80, 10 and 10 % are shares of the selected tokens, not of all tokens": {
                "mask": round(0.8 * real),
                "random": round(0.1 * real),
                "kept": round(0.1 * real),
            },
            "the loss is not taken on every token: what was not selected stands in the input for the model to copy": {
                "loss": real
            },
        },
        why=f"15 % of {real} is {selected}; of these 80 % is {mask}, 10 % is {random}, and another 10 % is {random}. "
        f"The loss is taken on all {selected}.",
        relative=1e-9,
    )


# 03.3 Rounding


def _draw_rounding(rng: np.random.Generator) -> Question:
    while True:
        lengths = [int(rng.integers(2, 4)), int(rng.integers(4, 7)), int(rng.integers(11, 30))]
        expected = [0.15 * length for length in lengths]
        total = sum(lengths)
        nearest = sum(max(1, round(k)) for k in expected) / total
        zero = sum(round(k) for k in expected) / total
        of_shares = sum(max(1, round(k)) / length for k, length in zip(expected, lengths, strict=True)) / 3
        down = sum(math.floor(k) for k in expected) / total
        if apart(nearest, zero, of_shares, down, 0.15, relative=0.05):
            break
    short, middle, long = lengths
    return numbers(
        f"Three sentences have **{short}, {middle} and {long}** real tokens; r = 0.15. `nearest`: which share of all "
        f"{total} tokens is selected when k = max(1, round(r·U)) in each sentence? `expected`: what is E[k] for the "
        f"sentence with {middle} tokens under stochastic rounding, k = ⌊r·U + u⌋? `stochastic`: which share of all "
        f"{total} tokens is selected on average under stochastic rounding? Give shares as numbers between 0 and 1; "
        "three digits suffice.",
        {"nearest": nearest, "expected": expected[1], "stochastic": 0.15},
        wrong={
            "E[k] is an average over draws, and need not be whole: do not round it": {
                "expected": max(1, round(expected[1]))
            },
            "the number goes up by one with the probability of the fraction that the floor cuts off, so the average is "
            "not the floor": {"expected": math.floor(expected[1])},
            "max(1, …) takes at least one token of each sentence, also of the short ones": {"nearest": zero},
            "the share over all sentences is selected tokens by tokens, not the mean of the three shares": {
                "nearest": of_shares
            },
            "stochastic rounding has no bias: its average is not that of rounding to the nearest": {
                "stochastic": nearest
            },
            "that is rounding down; stochastic rounding goes up as often as is needed to make up for it": {
                "stochastic": down
            },
        },
        why=f"Rounding to the nearest selects {nearest * total:.0f} of {total}. Under stochastic rounding E[k] = r·U, "
        f"here 0.15 · {middle} = {expected[1]:.3g}, so the share is 0.15 whatever the lengths.",
    )


# 03.5 What a visible token tells

RECIPES = [(80, 20, 0), (80, 15, 5), (70, 20, 10), (60, 20, 20), (80, 5, 15), (50, 30, 20), (90, 5, 5)]


def _draw_visible(rng: np.random.Generator) -> Question:
    mask, random, keep = (share / 100 for share in RECIPES[rng.integers(len(RECIPES))])
    rate, n = float(rng.choice([0.15, 0.2, 0.3, 0.4])), int(rng.choice([5, 8, 10]))
    seen = rate * (1 - mask) + 1 - rate
    true = (keep + random / n) / (1 - mask)
    return numbers(
        f"A recipe selects **{100 * rate:g} %** of the tokens; of these **{100 * mask:g} %** become [MASK], "
        f"**{100 * random:g} %** a token drawn from n = **{n}** equally likely ordinary ones, **{100 * keep:g} %** are "
        "kept. All n are equally frequent in the text. You see an ordinary token. `selected`: how probable is it that "
        "it is in A(x)? `true`: if it is in A(x), how probable is it that it is the true one? Give three digits after "
        "the point, or more.",
        {"selected": rate * (1 - mask) / seen, "true": true},
        wrong={
            "not only [MASK] is asked for: random and kept tokens are in A(x) too": {"selected": 0.0},
            f"that is the probability of being selected and seen as ordinary; divide it by that of seeing an ordinary "
            f"token, {seen:.4g}": {"selected": rate * (1 - mask)},
            "seeing an ordinary token tells something: most selected ones show [MASK], so the probability is lower "
            "than the rate": {"selected": rate},
            "a random token may be the true one by chance, with probability 1/n": {"true": keep / (1 - mask)},
            "given that the token is in A(x) and not [MASK], divide by the probability of that, random + keep": {
                "true": keep + random / n
            },
            "that would count the tokens that are not selected as well; here the token is known to be in A(x)": {
                "true": (1 - rate + rate * (keep + random / n)) / seen
            },
        },
        why=f"Of all tokens {rate * (1 - mask):.4g} are selected and look ordinary, {1 - rate:.4g} are not selected: "
        f"{rate * (1 - mask):.4g}/{seen:.4g}. Of the former, those kept and 1/{n} of the random ones are true.",
    )


# 03.6 The best trust


def _draw_trust(rng: np.random.Generator) -> Question:
    while True:
        n = int(rng.integers(6, 31))
        random, keep = (int(share) for share in rng.choice([2, 4, 5, 6, 8, 10, 12, 15], 2, replace=False))
        odds = n * keep / random
        right, swapped = math.log(1 + odds), math.log(1 + n * random / keep)
        others = [math.log(n + 1), math.log(odds), math.log2(1 + odds), 1 + odds]
        if odds > 1.5 and apart(right, swapped, *others):
            break
    return number(
        f"A vocabulary has n = **{n}** ordinary tokens. Of the selected tokens **{random} %** become a random one and "
        f"**{keep} %** are kept (the rest becomes [MASK]). By how much (t*, in nats) should a model raise the logit of "
        "the ordinary token that it sees at a selected position? Three digits suffice.",
        right,
        wrong={
            "random and kept are exchanged: the more tokens are kept, the more a visible one can be trusted": swapped,
            "log(n + 1) belongs to equal shares of random and kept tokens; here they differ": others[0],
            "the 1 is missing: a random token is the true one with probability 1/n, and that speaks for the visible "
            "token too": others[1],
            "that is the logarithm to base 2; nats take the natural one": others[2],
            "that is the ratio of the two probabilities; a logit is raised by its logarithm": others[3],
        },
        why=f"t* = log(1 + n·keep/random) = log(1 + {n}·{keep}/{random}) = {right:.3f}.",
        unit="nats",
    )


# 03.7 Coverage


def _draw_epochs(rng: np.random.Generator) -> Question:
    while True:
        rate, left = float(rng.choice([0.1, 0.12, 0.15, 0.2, 0.25, 0.3])), float(rng.choice([5, 2, 1, 0.5, 0.2])) / 100
        exact = math.log(left) / math.log(1 - rate)
        epochs = math.ceil(exact)
        linear, of_rate = math.ceil((1 - left) / rate), math.ceil(math.log(left) / math.log(rate))
        if 0.05 < exact % 1 < 0.95 and len({epochs, epochs - 1, linear, of_rate}) == 4:
            break
    return number(
        f"Each epoch draws a new A(x) at the rate **{rate:g}**. After how many whole epochs is the expected share of "
        f"tokens that were never selected at most **{100 * left:g} %** for the first time?",
        epochs,
        wrong={
            f"one epoch too few: {1 - rate:g}^{epochs - 1} is {100 * (1 - rate) ** (epochs - 1):.3f} %, still more "
            f"than {100 * left:g} %": (epochs - 1),
            "the draws of two epochs overlap: an epoch selects a share of the tokens that are left, not new ones "
            "only": linear,
            f"{rate:g}^E is the share that was selected in every epoch; never selected are {1 - rate:g}^E": of_rate,
            "an epoch is read to its end: round up to a whole number": exact,
        },
        why=f"{1 - rate:g}^E ≤ {left:g} for E ≥ log {left:g} / log {1 - rate:g} = {exact:.2f}, so {epochs} epochs.",
        relative=1e-9,
    )


# 03.8 Spans of a given mean length


def _mean_length(q: float, longest: int) -> float:
    return (1 - (1 - q) ** longest) / q


def _renormalized_mean(q: float, longest: int) -> float:
    shares = q * (1 - q) ** np.arange(longest)
    return float(shares @ np.arange(1, longest + 1) / shares.sum())


def _draw_span_length(rng: np.random.Generator) -> Question:
    longest, mean = int(rng.choice([8, 10, 12])), float(rng.choice([3, 3.25, 3.5, 3.75, 4, 4.25, 4.5]))
    low, high = 0.001, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_length(middle, longest) > mean else (low, middle)
    return number(
        f"After each word a span ends with probability q, and after **{longest}** words at the latest. For which q is "
        f"the mean length **{mean:g}** words? Solve it numerically; three digits suffice.",
        low,
        wrong={
            f"1/q is the mean length without a longest span; cutting at {longest} words makes spans shorter, so q must "
            "be smaller": 1 / mean,
            "q is the probability that the span ends, and this is the one that it goes on": 1 - low,
            "with q = 1 every span is a single word: single tokens are no spans of that mean length": 1.0,
            f"with q = 0.2, as SpanBERT has it, the mean is {_mean_length(0.2, longest):.2f} words here": 0.2,
        },
        why=f"(1 − (1 − q)^{longest})/q = {mean:g} at q = {low:.4f}. Without the longest span it would be 1/{mean:g}.",
    )


# 03.13 Three numbers in one sentence


def _draw_classmate(rng: np.random.Generator) -> Question:
    real = 200 * int(rng.integers(1, 21))
    selected = round(0.15 * real)
    mask, kept = round(0.8 * selected), round(0.1 * selected)
    unchanged, ignored = real - selected + kept, real - selected
    return choice(
        f"A text of {real} real tokens came out with exactly {mask} [MASK], {kept} random tokens (none of them the "
        f"true one) and {kept} kept. A classmate says: “{mask} are masked, so {real - mask} tokens are unchanged, and "
        "the loss ignores them all.” What is true?",
        rng,
        right=f"{real - mask} do not show [MASK], {unchanged} are unchanged, {ignored} are ignored by the loss",
        wrong={
            f"{real - mask} do not show [MASK], {real - mask} are unchanged, {real - mask} are ignored by the loss": (
                f"of the {real - mask} tokens without [MASK] {kept} are random tokens, so they did change, and "
                f"{2 * kept} are selected (random and kept): the loss is taken on them"
            ),
            f"{real - mask} do not show [MASK], {unchanged} are unchanged, {unchanged} are ignored by the loss": (
                f"being unchanged does not mean being ignored: the {kept} kept tokens are unchanged, and the loss is "
                "taken on them, since they were selected"
            ),
            f"{real - mask} do not show [MASK], {ignored} are unchanged, {ignored} are ignored by the loss": (
                f"the {kept} kept tokens are unchanged as well, beside the {ignored} that were not selected"
            ),
            f"{real - mask} do not show [MASK], {unchanged} are unchanged, none is ignored by the loss": (
                f"the loss is taken on A(x) only: the {ignored} tokens that were not selected are ignored"
            ),
        },
        why=f"Three questions, three numbers: {real} − {mask}, {ignored} + {kept}, and {real} − {selected}.",
    )


# 03.14 Labels that were rebuilt


def _draw_rebuilt(rng: np.random.Generator) -> Question:
    rate = float(rng.choice([0.15, 0.2, 0.25, 0.3, 0.4]))
    mask, random, keep = [(80, 10, 10), (70, 20, 10), (60, 20, 20), (75, 10, 15)][rng.integers(4)]
    kept_selection, shows, differs, always = "A(x) itself", "x̄ shows [MASK]", "x̄ differs from x", "the token is real"
    shares = {
        kept_selection: rate,
        shows: rate * mask / 100,
        differs: rate * (mask + random) / 100,
        always: 1.0,
    }
    names = [list(shares)[i] for i in rng.permutation(4)]
    item = {name: f"{100 * shares[name]:.1f} % of the real tokens have a label" for name in names}
    return match(
        f"Four programs corrupt the same long text with the same recipe (rate {rate:g}, shares {mask}/{random}/{keep}, "
        "a large vocabulary). They differ in one line: where a label is set. Which program counts which share of "
        "labels? Each sets a label where …",
        rng,
        pairs={item[name]: name for name in names},
        wrong={
            (item[shows], kept_selection): "A(x) has the whole rate; here the random and the kept tokens got no label",
            (item[differs], kept_selection): "A(x) has the whole rate; here the kept tokens got no label",
            (item[kept_selection], shows): "only a part of A(x) shows [MASK]: the rest is random or kept",
            (item[kept_selection], differs): "kept tokens are in A(x) and do not differ from x",
            (item[differs], shows): "random tokens differ from x too, so this is more than the share of [MASK]",
            (item[shows], differs): "random tokens differ from x too, so they should be counted here",
            (item[always], kept_selection): "the loss is taken on A(x), not on every real token",
            (item[kept_selection], always): "only the selected tokens are counted here, not all real ones",
        },
        why=f"A(x) has {100 * shares[kept_selection]:.1f} % of the tokens. [MASK] stands on {mask} % of A(x), and "
        f"{mask + random} % of it look different; both ways to rebuild A(x) from x̄ lose labels.",
    )


C13, C16 = ("C13",), ("C16",)

TASKS = (
    ConceptTask(id="03.1", title="How many of each", points=2, concepts=C13, draw=_draw_counts, computed=True),
    ConceptTask(id="03.3", title="Rounding", points=2, concepts=C13, draw=_draw_rounding, computed=True),
    CHANNEL,
    ConceptTask(
        id="03.5", title="What a visible token tells", points=3, concepts=C13, draw=_draw_visible, computed=True
    ),
    ConceptTask(id="03.6", title="How far to trust", points=2, concepts=C13, draw=_draw_trust, computed=True),
    ConceptTask(id="03.7", title="Never selected", points=1, concepts=C13, draw=_draw_epochs, computed=True),
    ConceptTask(
        id="03.8", title="Mean length of a span", points=2, concepts=C16, draw=_draw_span_length, computed=True
    ),
    LABELS,
    SELECT,
    CORRUPT,
    SPANS,
    ConceptTask(id="03.13", title="Changed, or counted", points=1, concepts=("C10", "C13"), draw=_draw_classmate),
    ConceptTask(id="03.14", title="Labels made from x̄", points=2, concepts=C13, draw=_draw_rebuilt, computed=True),
)
