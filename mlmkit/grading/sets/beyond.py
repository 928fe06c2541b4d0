"""Tasks on notebook 15: spans, denoising by an encoder–decoder, replaced-token detection."""

from __future__ import annotations

import math

import numpy as np

from mlmkit.grading.questions import choice, match, number, numbers
from mlmkit.grading.sets.beyond_code import DAMAGE, SHARE
from mlmkit.grading.sets.beyond_models import DECODER, REPLACED
from mlmkit.grading.tasks import ConceptTask, Question

# 15.2 What the span-boundary head reads


def _draw_edges(rng: np.random.Generator) -> Question:
    length, H, places = int(rng.choice([3, 4])), int(rng.choice([32, 64, 128, 256])), int(rng.choice([10, 12, 15, 20]))
    start = int(rng.integers(2, 5))
    end = start + length - 1
    alone, V = end + int(rng.integers(2, 4)), int(rng.choice([500, 1000, 4000]))
    asked = start if length == 3 and rng.random() < 0.5 else end
    asked = int(rng.integers(start, end + 1)) if length == 4 else asked
    A = ", ".join(map(str, [*range(start, end + 1), alone]))
    size = places * H + 4 * H * H + 6 * H
    return numbers(
        f"A sentence of {alone + 2} words stands at positions 1 to {alone + 2}, and **A(x) = {{{A}}}**. Which two "
        f"hidden states does the span-boundary head read for **x_{asked}** (positions `before` and `after`), and "
        f"which place vector p_j (`place`, the j)? And how many parameters does this head add for **H = {H}** and a "
        f"table of **{places} places** (`parameters`), with W₁, b₁, W₂, b₂ and two layer norms as in section 2? Its "
        f"output layer is shared with the MLM head (V = {V}).",
        {"before": start - 1, "after": end + 1, "place": asked - start + 1, "parameters": size},
        wrong={
            "these are the first and the last state inside the span; the head reads the visible tokens outside it": {
                "before": start,
                "after": end,
            },
            f"these are the neighbors of x_{asked} itself; the head reads the visible tokens next to its whole span": {
                "before": asked - 1,
                "after": asked + 1,
            },
            f"{alone} is a span of its own: a visible token lies between": {"before": start - 1, "after": alone + 1},
            "places are counted from 1: j = i − s + 1": {"place": asked - start},
            "the place is counted from the beginning of the span, not of the sentence": {"place": asked},
            "the output layer is shared with the MLM head: it adds nothing": {"parameters": size + V * H + V},
            "u has three parts, two hidden states and the place vector: W₁ is H × 3H": {"parameters": size - H * H},
            "each of the two layer norms has 2H parameters": {"parameters": size - 4 * H},
            f"the table of places is learned too: {places} vectors": {"parameters": size - places * H},
        },
        why=f"The span is {start} … {end}, its visible neighbors stand at {start - 1} and {end + 1}, and j = {asked} "
        f"− {start} + 1. The head adds {places}·H + (3H² + H) + (H² + H) + 4H = {size:,} parameters.",
        relative=1e-9,
    )


# 15.3 In how many ways


def _draw_ways(rng: np.random.Generator) -> Question:
    kept, gaps = [(2, 2), (3, 2), (3, 3), (4, 2), (4, 3)][int(rng.integers(5))]
    missing = gaps + int(rng.integers(1, 4))
    words = [str(word) for word in rng.permutation("gull follows windy boat salty rose sees bee".split())[:kept]]
    slots = set(rng.permutation(kept + 1)[:gaps].tolist())
    infilled = " ".join(w for k in range(kept + 1) for w in (["[MASK]"] if k in slots else []) + words[k : k + 1])
    n = kept + missing
    delete, infill = math.comb(n, kept), math.comb(missing - 1, gaps - 1)
    return numbers(
        f"**{n} words** were written. In how many ways may the hidden words have been placed if deletion left "
        f"“{' '.join(words)}” (`delete`)? And if you receive “{infilled}”, infilled (`infill`)? Every [MASK] hides at "
        "least one word.",
        {"delete": delete, "infill": infill},
        wrong={
            "the words that are left keep their order: choose their places, do not arrange them": {
                "delete": math.perm(n, kept)
            },
            f"deletion shows no gap: the {missing} missing words need not stand together": {"delete": kept + 1},
            "every [MASK] hides at least one word: gaps of none do not count": {
                "infill": math.comb(missing + gaps - 1, gaps - 1)
            },
            "each [MASK] of an infilled sentence hides a run, of one word or of several. How the missing words are "
            "shared out cannot be seen": {"infill": 1},
            "the [MASK]s show where words are missing: fewer ways are left than after deletion": {"infill": delete},
            "the lengths of the gaps are not free: together they must give the words that are missing": {
                "infill": missing**gaps
            },
        },
        why=f"Choose the places of {kept} words among {n}: {delete} ways. {missing} missing words in {gaps} gaps, "
        f"each of at least one: {infill} ways.",
        relative=1e-9,
    )


# 15.5 Between two floors


def _draw_floor(rng: np.random.Generator) -> Question:
    mask = float(rng.integers(15, 40)) / 100
    delete = mask + float(rng.integers(8, 20)) / 100
    between, below, above = mask + 0.4 * (delete - mask), 0.6 * mask, delete + 0.5 * (delete - mask)
    return choice(
        "The same words of the same sentences are hidden three times. The floor of a denoiser is "
        f"**{mask:.2f}** nats per token after masking and **{delete:.2f}** after deletion. Which of these can be its "
        "floor after infilling?",
        rng,
        right=f"{between:.3f}: an infilled sentence can be computed from the masked one, and the deleted one from it",
        wrong={
            f"{below:.3f}: infilling leaves fewer [MASK]s, so less is hidden": "fewer [MASK]s hide the same words, "
            "and show less: how many words are missing is gone. No floor can fall by that",
            f"{above:.3f}: a [MASK] that may stand for any number of words confuses more than none at all": "a reader "
            "may ignore the [MASK]s, and then has a deleted sentence: a floor is what the best reader reaches, and it "
            "cannot be worse off with more to see",
            f"{mask + delete:.3f}, the sum: both how many and where are lost": "infilling does show where words are "
            "missing; and a reader never knows less than one who has the deleted sentence only",
        },
        why=f"Each way shows no more than the one before it, so {mask:.2f} ≤ {between:.3f} ≤ {delete:.2f}.",
    )


# 15.7 What a detection loss is worth


def _bit(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def _draw_detection(rng: np.random.Generator) -> Question:
    rate, hits = float(rng.choice([0.15, 0.2, 0.25])), float(rng.choice([0.3, 0.4, 0.6, 0.65, 0.7]))
    p = rate * (1 - hits)
    loss = round(_bit(p) - float(rng.uniform(0.02, 0.06)), 3)
    gain = _bit(p) - loss

    def as_if(share: float) -> dict[str, float]:
        return {"replaced": share, "accuracy": 1 - share, "baseline": _bit(share), "gain": _bit(share) - loss}

    return numbers(
        f"**{100 * rate:g} %** of the words are masked, and the generator draws **{100 * hits:g} %** of these right. A "
        f"discriminator reaches a detection loss of **{loss:.3f}** nats per word. Which share of the words is replaced "
        "(`replaced`)? Which accuracy has who always says “original” (`accuracy`)? Which loss has who knows only that "
        "share (`baseline`, in nats)? And what is the discriminator's loss worth, measured against it (`gain`, in "
        "nats)? Shares as fractions; four digits after the point suffice.",
        {"replaced": p, "accuracy": 1 - p, "baseline": _bit(p), "gain": gain},
        wrong={
            "masked is not replaced: where the generator draws the true word, the original stands there": as_if(rate),
            "what was drawn right is original; replaced is the rest of the masked words": as_if(rate * hits),
            "the baseline is in bits; a nat is ln 2 of these: use the natural logarithm": {
                "baseline": _bit(p) / math.log(2),
                "gain": _bit(p) / math.log(2) - loss,
            },
            "this is half of the entropy of a bit: the words that were not replaced have a term as well": {
                "baseline": -p * math.log(p),
                "gain": -p * math.log(p) - loss,
            },
            "ln 2 is the loss of a coin; who knows the share does much better without reading a word": {
                "baseline": math.log(2),
                "gain": math.log(2) - loss,
            },
            "the gain is the baseline minus the loss: a lower loss is better": {"gain": -gain},
        },
        why=f"{100 * p:.4g} % are replaced, so always “original” is right in {100 * (1 - p):.4g} % without reading. "
        f"What counts is the loss: {_bit(p):.4f} − {loss:.3f} = {gain:.4f} nats per word were learned.",
        relative=0.02,
    )


# 15.8 The damage of the product


SHOWS = {"mask": "where words are missing and how many", "infill": "where words are missing, but not how many"}
SHOWS["delete"] = "neither where words are missing nor how many"
PRODUCTS = {
    "delete": (
        "must repair transcripts in which a bad line has swallowed words without a trace",
        "must mend chat messages whose writers left words out; nothing shows where",
    ),
    "infill": (
        "must restore typed copies in which every unreadable passage, long or short, became one “(…)”",
        "must fill recordings in which each noise, of whatever length, was transcribed as one “[noise]”",
    ),
    "mask": (
        "must restore forms in which blots cover words, one box for each word",
        "must complete subtitles in which each lost word is a “***” of its own",
    ),
}
PAIRS = (("mask", "delete"), ("infill", "delete"), ("mask", "infill"), ("delete", "infill"), ("delete", "mask"))
"""What was offered → what the product needs, where a short training tells the two clearly apart."""


def _draw_product(rng: np.random.Generator) -> Question:
    offered, needed = PAIRS[int(rng.integers(len(PAIRS)))]
    other = next(kind for kind in SHOWS if kind not in (offered, needed))
    return choice(
        f"A product {rng.choice(PRODUCTS[needed])}. A colleague offers a denoiser that was trained on the damage "
        f"`{offered}`. Set `offered` and `product` in the cell below and run it. Which number do you show her, and "
        "what do you train?",
        rng,
        right=f"The gap of her model on `{needed}`, beside that of a model trained on `{needed}`, which I would train",
        wrong={
            f"The gap of her model on `{offered}`: it is near its floor, so it knows the language, and that is what "
            "counts": f"a small gap on `{offered}` tells of damage that the product does not have. The product shows "
            f"{SHOWS[needed]}; read it on that",
            f"The gap of her model on `{needed}`; then I would train on `{other}`, as a compromise": "there is no "
            f"need for a compromise: `{other}` shows {SHOWS[other]}, the product shows {SHOWS[needed]}. The damage in "
            "training should be the damage in use",
            "The share of visible words that her model copies right: it is what users see first": "copying visible "
            "words is nearly free for every denoiser. The difference sits on the hidden words",
            f"Her model's loss on `{needed}` beside BERT's loss; then I would fill in words by BERT": "the two losses "
            "have different denominators, all tokens and hidden words only; and a BERT fills [MASK]s one by one and "
            "cannot write a text of another length than it reads",
        },
        why=f"Trained on `{offered}`, the model has never met what the product shows: {SHOWS[needed]}. Its gap there "
        f"is clearly larger than that of a model trained on `{needed}`.",
    )


# 15.9 Hidden neighbors by chance


def _draw_chance(rng: np.random.Generator) -> Question:
    r = float(rng.choice([0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]))
    return number(
        f"Each word is masked by itself with probability **{r:g}**. Take the masked words in the middle of long "
        "sentences: for which share of them is at least one neighbor masked as well?",
        1 - (1 - r) ** 2,
        wrong={
            "the two neighbors may both be masked; adding their probabilities counts that case twice": 2 * r,
            "this is the chance of one neighbor; there are two": r,
            "this is the chance that both neighbors are masked; one of them suffices": r * r,
            "this is the chance that neither neighbor is masked; asked is for the rest": (1 - r) ** 2,
            "the word itself is masked already: only its two neighbors are left to chance": 1 - (1 - r) ** 3,
        },
        why=f"1 − (1 − {r:g})² = {1 - (1 - r) ** 2:.4g}. In spans of several words nearly every masked word has one.",
        relative=0.01,
    )


# 15.11 One sentence, four kinds of damage


def _draw_kinds(rng: np.random.Generator) -> Question:
    sentences = (
        "the early bird catches the worm",
        "a quick brown fox jumps over lazy dogs",
        "salty gull follows windy boat",
        "every good story needs a quiet end",
        "old friends rarely send long letters home",
    )
    words = str(rng.choice(sentences)).split()
    n = int(rng.integers(2, 4))
    at = int(rng.integers(1, len(words) - n))
    before, after, turn = words[:at], words[at + n :], int(rng.integers(2, len(words)))
    lines = {
        "masking": [*before, *["[MASK]"] * n, *after],
        "infilling": [*before, "[MASK]", *after],
        "deletion": [*before, *after],
        "rotation": words[turn:] + words[:turn],
    }
    text = {name: " ".join(line) for name, line in lines.items()}
    moved = " ".join([*before, *after, *["[MASK]"] * n])
    placeholder = "a [MASK] is a place-holder: after deletion nothing is left where the words stood"
    return match(
        f"“{' '.join(words)}” is damaged in four ways; the first three hide the same words. Which line comes from "
        "which?",
        rng,
        pairs=text,
        wrong={
            ("deletion", text["infilling"]): placeholder,
            ("deletion", text["masking"]): placeholder,
            ("deletion", moved): "deletion puts no place-holders anywhere, neither in the gap nor at the end",
            ("infilling", text["masking"]): "infilling leaves one [MASK] for a run of hidden words, not one for each "
            "word",
            ("infilling", text["deletion"]): "infilling still shows where words are missing, by one [MASK]",
            ("masking", text["infilling"]): f"masking leaves a [MASK] for each hidden word, here {n}",
            ("masking", moved): "a [MASK] stands where the word stood; it is not moved",
            ("masking", text["deletion"]): "masking leaves a [MASK] for each hidden word; here nothing is left of them",
            ("rotation", text["deletion"]): "rotation loses no word: it begins elsewhere and goes around",
        },
        why=f"Masking shows {SHOWS['mask']}, infilling only where, deletion neither. After rotation no word is "
        "missing.",
        extra=[moved],
    )


# 15.12 Not adversarial


def _draw_game(rng: np.random.Generator) -> Question:
    true, false = (str(word) for word in rng.permutation("gull bee boat rose".split())[:2])
    fooled, weight = bool(rng.random() < 0.5), int(rng.choice([10, 25, 50, 100]))
    verdict = "takes it for original" if fooled else "recognizes it as replaced"
    return choice(
        f"“{true}” was masked, the generator drew “{false}”, and the discriminator **{verdict}**. The detection loss "
        f"enters the sum with the weight **λ = {weight}**. What does it tell the layers of the generator?",
        rng,
        right="Nothing: the drawn word is a number through which no gradient passes. They learn from the generator's "
        "own MLM loss only, to be right",
        wrong={
            "To deceive: its gradient makes words more likely that the discriminator takes for original": "that would "
            "be an adversarial game. Nothing pushes the generator to make the detection loss larger: no gradient "
            "reaches its layers, and MLM asks it for the true word",
            "To help: its gradient makes words more likely that the discriminator recognizes": "no gradient of the "
            "detection loss reaches the generator's layers, in neither direction: they end at the draw",
            f"The same as the MLM loss, only {weight} times as strongly": f"λ = {weight} weights the discriminator's "
            "loss, a small number, for the discriminator. The generator's layers get no gradient from it at any weight",
            "Something only when the discriminator was wrong": "a detection loss has a gradient in both cases, and in "
            "both it ends at the draw, before the generator",
        },
        why="The two are trained side by side, not against each other. They meet only in the embeddings that they "
        "share.",
    )


TASKS = (
    SHARE,
    ConceptTask(id="15.2", title="What the edges read", points=3, concepts=("C16",), draw=_draw_edges, computed=True),
    ConceptTask(id="15.3", title="In how many ways", points=2, concepts=("C19",), draw=_draw_ways, computed=True),
    DECODER,
    ConceptTask(id="15.5", title="Between two floors", points=1, concepts=("C19",), draw=_draw_floor),
    REPLACED,
    ConceptTask(
        id="15.7",
        title="What a detection loss is worth",
        points=3,
        concepts=("C20",),
        draw=_draw_detection,
        computed=True,
    ),
    ConceptTask(
        id="15.8",
        title="The damage of the product",
        points=2,
        concepts=("C19", "C29"),
        draw=_draw_product,
        computed=True,
    ),
    ConceptTask(id="15.9", title="Neighbors by chance", points=1, concepts=("C16",), draw=_draw_chance, computed=True),
    DAMAGE,
    ConceptTask(id="15.11", title="One sentence, four kinds of damage", points=2, concepts=("C19",), draw=_draw_kinds),
    ConceptTask(id="15.12", title="No game", points=2, concepts=("C20",), draw=_draw_game),
)
