"""Tasks on notebook 14: a new head on a pre-trained encoder, clean labels, and an honest reading of the result."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.questions import choice, match, number, numbers
from mlmkit.grading.sets.downstream_code import ALIGN, F1, SHARED
from mlmkit.grading.sets.downstream_heads import NOT_COPIED, REPLACE
from mlmkit.grading.tasks import ConceptTask, Question

# 14.1 How many parameters are new


def _draw_new(rng: np.random.Generator) -> Question:
    H = int(rng.choice([128, 192, 256, 312, 384, 512, 768, 1024]))
    K = int(rng.choice([2, 3, 5, 6, 8, 14, 20, 41]))
    new, pooler = K * H + K, H * H + H
    return numbers(
        f"An encoder has hidden states of size **H = {H}**. Texts are to get one of **{K} labels**, as in section 1: "
        "encoder, pooler, one last layer. How many parameters are new (`new`)? And how many learn if the encoder is "
        "frozen and only the head is trained, pooler and last layer (`learning`)?",
        {"new": new, "learning": new + pooler},
        wrong={
            "the last layer has a bias too: one number for each label": {"new": K * H, "learning": K * H + pooler},
            "the pooler is not new: it is copied from the head of next-sentence prediction": {"new": new + pooler},
            f"with {K} labels the last layer has {K} rows, one for each label: a softmax wants a score for each": {
                "new": new - H - 1,
                "learning": new - H - 1 + pooler,
            },
            "the pooler is copied, and it learns all the same: frozen is the encoder, and the pooler lies above it": {
                "learning": new
            },
            f"the pooler is a layer from {H} numbers to {H}, with a bias": {"learning": new + H * H},
        },
        why=f"K·H + K = {K}·{H} + {K} = {new:,} numbers are new; the pooler adds H² + H = {pooler:,} that learn.",
        relative=1e-9,
    )


# 14.4 How many labels is it worth


def _draw_worth(rng: np.random.Generator) -> Question:
    few = int(rng.choice([100, 120, 160, 200]))
    many = few * int(rng.choice([3, 4, 5]))
    low, high = int(rng.integers(30, 36)), int(rng.integers(40, 46))
    slope = (high - low) / math.log(many / few)
    while True:  # until the wrong ways lead to different numbers
        goal = high + int(rng.integers(5, 12))
        labels = many * math.exp((goal - high) / slope)
        straight, restarted = many + (goal - high) * (many - few) / (high - low), labels * few / many
        if abs(straight - restarted) > 0.1 * straight:
            break
    return numbers(
        f"Counting words reaches **{low} %** with {few} labels and **{high} %** with {many}. A pre-trained network "
        f"reaches **{goal} %** with 40. If the accuracy of counting words went on in a straight line over log n, at "
        f"how many labels would it reach {goal} % (`labels`), and how many times as many as {many} is that "
        "(`factor`)? Three digits suffice.",
        {"labels": labels, "factor": labels / many},
        wrong={
            "you went on in a straight line over n; over log n each further point costs a constant factor, not a "
            "constant number of labels": {"labels": straight, "factor": straight / many},
            f"the factor is asked relative to {many}, the last point that was measured, not to {few}": {
                "factor": labels / few
            },
            "the factor is asked relative to the last point that was measured, not to the 40 labels of the other "
            "curve": {"factor": labels / 40},
            f"you began at {few} labels, but the line has reached {high} % at {many}; from there it goes on": {
                "labels": restarted,
                "factor": restarted / many,
            },
        },
        why=f"The line gains {slope:.2f} points per unit of ln n, so {goal - high} points more need "
        f"{labels / many:.2f} times as many labels as {many}: {labels:,.0f}. That lies outside what was measured; "
        "trust it little.",
        relative=0.02,
    )


# 14.5 The rate of the embeddings


def _draw_rate(rng: np.random.Generator) -> Question:
    lr, L = float(rng.choice([1e-3, 5e-4, 3e-4, 2e-4])), int(rng.choice([2, 3, 4, 6, 8, 12]))
    d = float(rng.choice([0.65, 0.7, 0.75, 0.8, 0.85, 0.9]))
    exact = lr * d ** (L + 1)
    return number(
        f"The learning rate falls from the head downwards by a factor d per layer, as in section 5: **η = {lr:g}**, "
        f"**d = {d:g}**, **{L} layers**. What is the rate of the embeddings? Three digits suffice.",
        exact,
        wrong={
            f"the head has depth 0 and layer {L} depth 1, so layer 1 has depth {L}: the embeddings lie deeper": exact
            / d,
            f"one depth too many: the head has 0, the layers {L} to 1 have 1 to {L}, the embeddings {L + 1}": exact * d,
            "the factor is multiplied in at each layer, not once": lr * d,
            "it is d^depth, a power, and not d · depth": lr * d * (L + 1),
            "the rate falls towards the embeddings: what lies near the input serves every task": lr / d ** (L + 1),
        },
        why=f"The embeddings have depth L + 1 = {L + 1}: {lr:g} · {d:g}^{L + 1} = {exact:.3g}.",
        relative=0.01,
    )


# 14.6 The best of many


def _flattery(recipes: int, n: int, p: float) -> float:
    """Expected points by which the best of equally good recipes exceeds p on a test part of n sentences."""
    factorial = np.cumsum(np.log(np.maximum(np.arange(n + 1), 1)))  # log k!
    k = np.arange(n + 1)
    one = np.exp(factorial[n] - factorial - factorial[::-1] + k * math.log(p) + (n - k) * math.log(1 - p))
    best = float((1 - np.minimum(one.cumsum(), 1)[:-1] ** recipes).sum())  # Σ_k Pr(best > k)
    return 100 * (best / n - p)


def _draw_best(rng: np.random.Generator) -> Question:
    recipes, p = int(rng.choice([10, 15, 20, 30, 50])), float(rng.choice([0.6, 0.65, 0.7, 0.75, 0.8]))
    small = int(rng.choice([200, 300, 400, 500]))
    one, ten = _flattery(recipes, small, p), _flattery(recipes, 10 * small, p)
    power = math.log10(ten / one)
    spread = 100 * math.sqrt(p * (1 - p) / small)
    return numbers(
        f"**{recipes} recipes** are all exactly equally good: right in **{100 * p:g} %** of the cases. You report the "
        f"one with the best score on a test part of **{small}** sentences. By how many percentage points does it "
        f"flatter on average (`small`)? And with **{10 * small:,}** sentences (`large`)? By which power of the number "
        "of sentences does this go, roughly (`power`)? Run the simulation of section 6 with your numbers; within 4 % "
        "is right.",
        {"small": one, "large": ten, "power": power},
        wrong={
            "ten times the sentences do not bring a tenth: chance shrinks with the square root of the number": {
                "large": one / 10,
                "power": -1.0,
            },
            "the power has a minus: the more sentences, the less it flatters": {"power": -power},
            "these are fractions; asked are percentage points, a hundred times as much": {
                "small": one / 100,
                "large": ten / 100,
            },
            "this is the score of the best; asked is by how many points it exceeds the true one": {
                "small": one + 100 * p,
                "large": ten + 100 * p,
            },
            "this is the standard deviation of one score; the best of many lies farther out": {
                "small": spread,
                "large": spread / math.sqrt(10),
            },
            "one recipe does not flatter, but the best of many does, also when all are equally good": {
                "small": 0.0,
                "large": 0.0,
            },
        },
        why=f"The best of {recipes} flatters by {one:.2f} points with {small} sentences and by {ten:.2f} with "
        f"{10 * small:,}: a factor of {one / ten:.2f}, near √10, so the power is about −½.",
        relative=0.04,
    )


# 14.9 A gap or a false word


MEASURED = {15: (66, 60), 20: (65, 58), 30: (64, 54), 40: (62, 48), 50: (60, 43), 60: (56, 39), 70: (52, 36)}
"""Share of hidden tokens → accuracy (%) with [MASK]s and with random tokens; 69 % with neither."""


def _draw_gap(rng: np.random.Generator) -> Question:
    share = int(rng.choice(list(MEASURED)))
    mask, random = MEASURED[share]
    return choice(
        "No labeled sentence held a [MASK]. In a run of notebook 14 (yours may differ a little) the finished "
        f"classifier, pre-trained by 80/10/10, answers 69 % of the test sentences right. With **{share} %** of their "
        f"tokens replaced by [MASK] it still answers **{mask} %** right, with {share} % replaced by random ordinary "
        f"tokens **{random} %**. Which explanation fits?",
        rng,
        right="A [MASK] says that a word is missing, and pre-training taught the encoder to go by the rest. A false "
        "word looks like any other: it is read as evidence, and mostly nothing tells it apart",
        wrong={
            "A [MASK] costs more than a false word: it never occurs in fine-tuning, so the classifier can make "
            "nothing of it": f"read the numbers again: {mask} % is more than {random} %. The discrepancy is real, but "
            "the encoder has met [MASK] in every batch of its pre-training and has not forgotten what a gap is",
            "In fine-tuning the classifier has learned from its labeled sentences how to read over a [MASK]": "there "
            "was no [MASK] in fine-tuning: [MASK] never occurs there. What it knows of gaps stems from pre-training",
            "A random token hides more words than a [MASK] does": f"both hide the same share, {share} % of the "
            "tokens, one for one. The difference lies in what stands there instead",
            "A [MASK] still carries the true word's vector, only weaker; a random token has another vector": "a [MASK] "
            "carries nothing of the true word: the same learned vector stands at every gap",
        },
        why=f"A gap removes evidence, a false word adds wrong evidence: {mask} % against {random} %. The tenth of "
        "random tokens in pre-training makes the encoder suspicious, but it cannot know which word is false.",
    )


# 14.11 Copied, left behind, new


def _draw_fates(rng: np.random.Generator) -> Question:
    words = bool(rng.random() < 0.5)
    jobs = ("a name, a verb or neither", "the name of a place or not") if words else ("praise or blame", "spam or not")
    job, L = str(rng.choice(jobs)), int(rng.choice([4, 6, 12, 24]))
    copied, left, new = "copied, as it is", "left behind", "new, from random numbers"
    task = f"say of every **word** whether it is {job}" if words else f"say of every **text** whether it is {job}"
    pooler = "the pooler, between h_cls and the question of next-sentence prediction"
    table, layers = "the table of token embeddings", f"the {L} layers of the encoder"
    mlm, nsp, last = (
        "the MLM head's own layer before the scores",
        "the last layer of the NSP head",
        "the scores of labels",
    )
    no_word_head = (
        "the word head answers which word is missing; nobody asks that now. Only the encoder below it is kept"
    )
    keep = "the encoder is what pre-training was for: starting it anew throws everything away"
    pairs = {table: copied, layers: copied, pooler: left if words else copied, mlm: left, nsp: left, last: new}
    return match(
        f"A pre-trained BERT with both heads is to {task}. What happens to each part?",
        rng,
        pairs=pairs,
        wrong={
            (layers, new): keep,
            (layers, left): keep,
            (table, new): keep,
            (
                table,
                left,
            ): "the word head shares this table, but it belongs to the encoder as well: no text can be read without it",
            (mlm, copied): no_word_head,
            (mlm, new): no_word_head,
            (nsp, copied): "its two scores say next or not; the labels of a task mean something else",
            (nsp, new): "this layer is not needed at all: the new scores take its place",
            (pooler, copied): "for words the scores read every hidden state, and no pooler is in between",
            (
                pooler,
                new,
            ): "no part needs new numbers here but the last layer: the pooler exists already, and is used for "
            "texts or not at all",
            (
                pooler,
                left,
            ): "the label of a text is read at [CLS], through the pooler, as next-sentence prediction was: it is kept",
            (last, copied): "the labels of this task did not exist in pre-training: nothing can be copied",
            (last, left): "without scores there is no answer; this is the one part that is added",
        },
        why="The encoder is kept, "
        + ("every hidden state is read without a pooler" if words else "h_cls is read through the pooler")
        + ", and only the last layer is new.",
    )


# 14.12 What strict=False hides


def _draw_careless(rng: np.random.Generator) -> Question:
    K = int(rng.choice([2, 3, 4, 5, 8, 10]))
    prefix = str(rng.choice(["bert.", "model.", "module.", "backbone."]))
    return choice(
        f"All names in a file of pre-trained weights begin with `{prefix}`. A colleague pours them into a classifier "
        f"for **{K} labels** with `load_state_dict(…, strict=False)` and fine-tunes it. What will she see?",
        rng,
        right=f"No error, a first loss near ln {K} = {math.log(K):.2f}, a loss that falls, and in the end a score "
        "like that of a network that was never pre-trained",
        wrong={
            "An error that names the tensors that were not found": "`strict=False` switches this error off. The names "
            "are only in what `load_state_dict` returns, and nobody looked",
            f"A first loss far above ln {K} = {math.log(K):.2f}, since the encoder is random": "the new layer is "
            "random and small in any case, so the first loss is near that number whatever lies below it: it cannot "
            "tell you",
            "A loss that never falls": "a random network learns too, only worse, and from few labels hardly anything "
            "that holds for new texts: the loss falls",
            "Nothing unusual: PyTorch finds the tensors by shape when the names do not fit": "PyTorch goes by names "
            f"alone; with `{prefix}` in front no name fits, and nothing is copied",
            "Only the last layer stays random, as it should": f"that would be so if the names fitted. With `{prefix}` "
            "in front of all of them the encoder stays random too",
        },
        why="Every tensor stays random, silently. Look at what `load_state_dict` returns, or copy strictly after "
        f"`{prefix}` is taken off, and compare some tensors.",
    )


TASKS = (
    ConceptTask(id="14.1", title="What is new", points=2, concepts=("C28",), draw=_draw_new, computed=True),
    SHARED,
    ConceptTask(id="14.4", title="What labels are worth", points=2, concepts=("C28",), draw=_draw_worth, computed=True),
    ConceptTask(
        id="14.5", title="The rate of the embeddings", points=2, concepts=("C28",), draw=_draw_rate, computed=True
    ),
    ConceptTask(id="14.6", title="The best of many", points=3, concepts=(), draw=_draw_best, computed=True),
    ALIGN,
    ConceptTask(id="14.9", title="A gap or a false word", points=2, concepts=("C14",), draw=_draw_gap),
    REPLACE,
    ConceptTask(id="14.11", title="Copied, left behind, new", points=2, concepts=("C28",), draw=_draw_fates),
    ConceptTask(id="14.12", title="What is not said", points=2, concepts=("C28",), draw=_draw_careless),
    NOT_COPIED,
    F1,
)
