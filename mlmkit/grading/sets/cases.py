"""Tasks on choosing and debugging: read a loss, name a fault, judge a recipe, choose an objective."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, pairwise

import numpy as np

from mlmkit.grading.cases import BATCH_FAULTS, draw_batches, draw_run, measured
from mlmkit.grading.questions import choice, match, number, numbers
from mlmkit.grading.sets.cases_choices import CLAIMS, OBJECTIVE, PRODUCT
from mlmkit.grading.sets.cases_code import MENDED, PAIRED
from mlmkit.grading.sets.cases_faults import NAME_FAULT
from mlmkit.grading.sets.cases_numbers import FORM, INTERVALS, LEAK, PATIENCE, REPORTS
from mlmkit.grading.tasks import ConceptTask, Question

# 16.1 Stuck


def _draw_stuck(rng: np.random.Generator) -> Question:
    while True:
        size = int(rng.choice([2000, 4000, 8000, 16_000, 30_000]))
        frequent, share = int(rng.choice([20, 50, 100, 200])), float(rng.choice([0.4, 0.5, 0.6, 0.7]))
        rare = size - frequent
        uniform = math.log(size)
        unigram = share * math.log(frequent / share) + (1 - share) * math.log(rare / (1 - share))
        inside = share * math.log(frequent) + (1 - share) * math.log(rare)
        values = sorted([uniform, unigram, inside, unigram / math.log(2)])
        if all(b > 1.03 * a for a, b in pairwise(values)):
            break
    loss = round(unigram - float(rng.uniform(0.4, 0.9)), 2)
    return numbers(
        f"A vocabulary has **{size:,} tokens**. {frequent} of them, all equally frequent, make up **{100 * share:.0f} "
        f"%** of the text; the other {rare:,}, again equally frequent, make up the rest. Compute ln V (`uniform`) and "
        "the unigram entropy (`unigram`). One run has been stuck for a long time, at exactly the unigram entropy. "
        f"Another has come down to **{loss:.2f}** nats on held-out text. How many nats has this second run gained by "
        "reading the context (`reading`)? Give four digits.",
        {"uniform": uniform, "unigram": unigram, "reading": unigram - loss},
        wrong={
            "you compared with ln V. From there to the unigram entropy a model comes by counting words, without "
            "reading anything: subtract the loss from the unigram entropy": {"reading": uniform - loss},
            "that is what counting gains, from ln V to the unigram entropy; the context can only be seen in what is "
            "below the unigram entropy": {"reading": uniform - unigram},
            "the unigram entropy equals ln V only if all tokens are equally frequent": {"unigram": uniform},
            "that is the logarithm to base 2; nats take the natural one": {"uniform": math.log2(size)},
            "one piece is missing: −log p of a frequent token is log(number of frequent ones) − log(their share), and "
            "so for the rare ones": {"unigram": inside},
            "that is the entropy in bits; nats take the natural logarithm": {"unigram": unigram / math.log(2)},
        },
        why=f"A frequent token has probability {share:g}/{frequent}, a rare one {1 - share:.2g}/{rare}: the entropy is "
        f"{unigram:.3f}, and the run that sits there knows frequencies only. The other is {unigram - loss:.2f} below.",
        relative=0.012,
    )


# 16.3 A fault in the loop

LOOPS = {
    "two_updates_per_batch": (
        "Each batch is followed by two optimizer steps, one for each loss. Add the losses, and make one step",
        "then the record would count more than one optimizer step for a batch; yours counts one for each",
    ),
    "eval_mode": (
        "The model is updated as an evaluation left it, with dropout off. Call `model.train()` before the updates",
        "then the record would say that `model.training` was False in the backward passes",
    ),
    "gradients_not_zeroed": (
        "Each update follows the sum of all gradients so far. Call `optimizer.zero_grad()` after each step",
        "then a gradient would already lie in the parameters when a backward pass begins; in yours nothing does",
    ),
    "loss_on_all_positions": (
        "The cross-entropy is taken at every position, of the token that stands there. Set the labels to −100 outside "
        "A(x)",
        "then the gradient at unlabeled positions would ask for the very token that stands there. The diagnosis says "
        "whether there is any gradient at them, and for which token it asks",
    ),
    "averaged_before_weights": (
        "The loss is averaged over all slots, and only then multiplied by the weights. Weigh the losses one by one, "
        "then divide by the sum of the weights",
        "then the gradient at unlabeled positions would ask for one and the same token everywhere, the filler. The "
        "diagnosis says whether there is any gradient at them, and for which token it asks",
    ),
    "nsp_ignore_index_zero": (
        "One criterion serves both heads and ignores label 0, so true next sentences are left out. Give each head its "
        "own criterion",
        "then the gradient at the sentence head would be 0 for all pairs with label 0; in yours they get one",
    ),
}


def _draw_loop(rng: np.random.Generator) -> Question:
    fault, _ = draw_run(rng)
    others = [name for name in LOOPS if name != fault]
    chosen = [others[i] for i in rng.permutation(len(others))[: int(rng.integers(3, 5))]]
    return choice(
        "`planted_run()` trains a small network for 24 updates in a loop with a fault; its loss falls like any other. "
        "The record of the run is in the folder that you got. What is wrong, and what has to be changed?",
        rng,
        right=LOOPS[fault][0],
        wrong={LOOPS[name][0]: LOOPS[name][1] for name in chosen},
        why=f"The diagnosis names `{fault}`, and its evidence is a number that a healthy loop cannot give.",
    )


# 16.4 A fault in the batches

COUNTS = (
    "positions that have a label and show [MASK], where the label is [MASK]",
    "words (no special tokens) that have a label",
    "[CLS], [SEP] and [PAD] of `true_ids` in whose place `input_ids` has another id",
    "words of `true_ids` in whose place `input_ids` has [PAD], [UNK], [CLS] or [SEP]",
    "[PAD] of `true_ids` where `attention_mask` is 1",
    "positions of B and its [SEP] where `token_type_ids` is 0",
    "pairs with the more frequent one of the two relations",
    "rows that show [MASK] somewhere, and in the second epoch at exactly the same positions",
)


def _draw_evidence(rng: np.random.Generator) -> Question:
    fault, epochs = draw_batches(rng)
    found, later = measured(epochs), measured([epochs[1], epochs[0]])
    order = [int(k) for k in rng.permutation(len(BATCH_FAULTS))]
    lines = "\n".join(f"{k}. `{BATCH_FAULTS[i]}`: number of {COUNTS[i]}" for k, i in enumerate(order, 1))
    words, pairs = int((epochs[0]["true_ids"] > 4).sum()), len(epochs[0]["labels"])
    normal = {
        "labels_outside_selection": f"of {words} words, near the rate of 15 %",
        "nsp_labels_constant": f"of {pairs} pairs, near one half",
    }
    wrong: dict[str, dict[str, float]] = {
        f"line {k} counts {found[i]} in your batches, {normal.get(BATCH_FAULTS[i], 'as healthy batches do')}: that is "
        "not the fault": {"fault": k}
        for k, i in enumerate(order, 1)
        if i != fault
    }
    proof = found[fault]
    wrong["that is the number in both epochs together; the first one is asked for"] = {"proof": proof + later[fault]}
    wrong["that is the number in the second epoch; the first one is asked for"] = {"proof": later[fault]}
    return numbers(
        "`planted_batches()` gives two batches, the same pairs in two epochs, and there is a fault in them. Each line "
        f"names a fault and a number that tells whether it is there:\n\n{lines}\n\nWhich fault is it (`fault`, its "
        "number in the list), and which number proves it (`proof`, the count of its line **in the first batch**)?",
        {"fault": order.index(fault) + 1, "proof": proof},
        wrong=wrong,
        why=f"It is `{BATCH_FAULTS[fault]}`: {proof} {COUNTS[fault]}.",
        relative=1e-9,
    )


# 16.9 One batch, and nothing to read

WORDS = ["fish", "boat", "bread", "old", "sells", "finds", "today", "again"]


def _entropy(labels: list[str]) -> float:
    """Mean of −log of each label's share among the labels."""
    counts = Counter(labels)
    return -sum(n * math.log(n / len(labels)) for n in counts.values()) / len(labels)


def _draw_blind(rng: np.random.Generator) -> Question:
    while True:
        size = int(rng.integers(40, 80))
        places = sorted(int(place) for place in rng.choice(np.arange(1, 12), 3, replace=False))
        labels = {place: [str(word) for word in rng.choice(WORDS, int(rng.integers(2, 6)))] for place in places}
        every = [word for row in labels.values() for word in row]
        right = sum(len(row) * _entropy(row) for row in labels.values()) / len(every)
        by_place = sum(_entropy(row) for row in labels.values()) / 3
        values = [0.0, right, by_place, _entropy(every), math.log(size), math.log(len(set(every)))]
        apart = all(abs(a - b) > 0.03 for a, b in combinations(values[1:], 2))
        if apart and right > 0.3:
            break
    rows = "\n".join(f"| {place} | {', '.join(row)} |" for place, row in labels.items())
    return number(
        "A network is to overfit one batch, without dropout. By mistake it is handed `torch.zeros_like(input_ids)`. "
        f"The vocabulary has {size} tokens. All rows of the batch are equally long and have the same segments; these "
        f"are all its labels, each from a row of its own:\n\n| position | labels |\n|---|---|\n{rows}\n\nTo which loss "
        "can it fall, if the updates go on for ever? Three digits suffice.",
        right,
        wrong={
            "a network that can tell the rows from each other would reach 0. This one cannot: it reads the same zeros "
            "in each row, and gives the same answer at the same position": 0.0,
            "that is the entropy of all labels together. The ids are hidden, but the position embeddings are not: the "
            "network can learn other frequencies for each position": _entropy(every),
            "ln V is the loss of a network that knows nothing. This one still learns which labels are frequent, and "
            "where": math.log(size),
            "frequent labels are more probable, so the loss is not the logarithm of the number of words": math.log(
                len(set(every))
            ),
            "the loss is a mean over labels, not over positions: a position with more labels counts more": by_place,
        },
        why="At each position the best answer is the shares of its labels, whatever the row: the mean of −log of these "
        f"shares over all {len(every)} labels is {right:.3f}. An id that is not read is a row that is not known.",
        unit="nats",
        relative=0.01,
    )


# 16.17 Read the curves

READINGS = {
    "plateau": "has learned word frequencies, and nothing about the context",
    "leak": "answers leak: a label stands in the input, or held-out text in training",
    "memorizes": "knows its training text by heart",
    "neighbors": "reads no more than the neighboring word",
    "reads": "reads its context; judge the answers",
}


def _draw_ladder(rng: np.random.Generator) -> Question:
    size = int(rng.choice([500, 1000, 2000, 8000]))
    unigram = math.log(size) - float(rng.uniform(0.8, 1.4))
    bigram, floor = unigram - float(rng.uniform(0.9, 1.2)), unigram - float(rng.uniform(2.0, 2.4))
    near = float(rng.uniform(0.03, 0.06))
    losses = {
        "plateau": (unigram + 0.01, unigram + 0.02),
        "leak": (floor - 0.5 - near, floor - 0.45),
        "memorizes": (floor - 0.7, bigram + 0.3 + near),
        "neighbors": (bigram + 0.35, bigram + 0.4 + near),
        "reads": (floor + 0.25 + near, floor + 0.3 + near),
    }
    chosen = [list(losses)[i] for i in rng.permutation(5)[:4]]
    items = {name: f"training {losses[name][0]:.2f}, held out {losses[name][1]:.2f}" for name in chosen}
    says = {
        ("plateau", "reads"): f"far below ln V, but at the unigram entropy of {unigram:.2f}: so far comes who counts",
        ("plateau", "neighbors"): "a model that read its neighbor would be near the bigram line",
        ("leak", "reads"): "its held-out loss is below the floor, and no reader can be that good",
        ("leak", "memorizes"): "whoever knows only the training text is bad on held-out text; this one is too good",
        ("memorizes", "reads"): "the training loss alone is good; on held-out text it is above the bigram line",
        ("memorizes", "leak"): "below the floor is the training loss only; the held-out loss is high",
        ("memorizes", "neighbors"): "look at both losses: the training loss is below the floor",
        ("neighbors", "plateau"): "it is clearly below the unigram entropy",
        ("neighbors", "reads"): "its held-out loss is above the bigram line, that of a table of neighbors",
        ("neighbors", "memorizes"): "its training loss is near its held-out loss",
        ("reads", "leak"): "it is above the floor, on both texts: a good reader may be there",
        ("reads", "memorizes"): "its training loss is near its held-out loss",
    }
    return match(
        f"A known language has V = {size:,}: ln V = {math.log(size):.2f}, unigram entropy {unigram:.2f}, bigram line "
        f"{bigram:.2f}, floor {floor:.2f} nats. Four runs ended with these losses. What does each have to show?",
        rng,
        pairs={items[name]: READINGS[name] for name in chosen},
        wrong={(items[a], READINGS[b]): text for (a, b), text in says.items() if a in items},
        why="First the held-out loss against the floor, then the distance of both losses, then the unigram and the "
        "bigram line, in this order.",
        extra=[READINGS[name] for name in READINGS if name not in chosen],
    )


C22 = ("C22",)

TASKS = (
    ConceptTask(id="16.1", title="Stuck", points=2, concepts=C22, draw=_draw_stuck, computed=True),
    ConceptTask(id="16.3", title="A fault in the loop", points=2, concepts=C22, draw=_draw_loop, computed=True),
    ConceptTask(id="16.4", title="A fault in the batches", points=3, concepts=C22, draw=_draw_evidence, computed=True),
    INTERVALS,
    PATIENCE,
    FORM,
    PRODUCT,
    ConceptTask(id="16.9", title="One batch, nothing to read", points=2, concepts=C22, draw=_draw_blind, computed=True),
    MENDED,
    NAME_FAULT,
    PAIRED,
    CLAIMS,
    OBJECTIVE,
    LEAK,
    REPORTS,
    ConceptTask(id="16.17", title="Four pairs of losses", points=2, concepts=C22, draw=_draw_ladder, computed=True),
)
