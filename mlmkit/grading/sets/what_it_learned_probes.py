"""Tasks on probes: what they must be compared with, and what follows from them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from mlmkit.grading.questions import choice, numbers, several
from mlmkit.grading.tasks import CodeTask, ConceptTask, Mistake, Question

Array = np.ndarray[Any, Any]

# 13.7 Numbers to ask for

SUBJECTS = (
    "were two neighboring words exchanged?",
    "does B follow A?",
    "is the hidden word a noun?",
    "do both sentences have the same topic?",
)
BESIDE_THE_POINT = {
    "the share of right answers on the questions that the probe was fitted on": (
        "a probe with many weights fits even answers without meaning well; this number says how much it can learn by "
        "heart"
    ),
    "the loss of masked words of the model, on held-out text": (
        "a good number to have, but it says nothing about what the probe reads from the vectors"
    ),
    "the map of attention of the last layer, on a few examples": (
        "a map shows which vectors were mixed; it is no control of a probe, and a few examples prove anything"
    ),
    "the interval at 99 % in place of 95 %": (
        "that is the same measurement once more: an interval tells about the draw of questions, not what the number "
        "would be without any training"
    ),
}


def _draw_report(rng: np.random.Generator) -> Question:
    middle, n = int(rng.integers(56, 65)), int(rng.choice([800, 1000, 1500, 2000]))
    half = 1.96 * math.sqrt(middle * (100 - middle) / n)
    subject = SUBJECTS[int(rng.integers(len(SUBJECTS)))]
    kept = [list(BESIDE_THE_POINT)[i] for i in sorted(rng.permutation(4)[:3])]
    return several(
        f'A colleague fits a linear probe on frozen hidden states and reports: "{subject}" is answered rightly in '
        f"**{middle} %** of {n} questions that it was not fitted on (interval {middle - half:.1f} to "
        f"{middle + half:.1f} %). He concludes that the training has taught it. Which of these numbers could refute "
        "him?",
        rng,
        right={
            "the same probe on the same network with fresh weights": (
                "if it is as good there, the training has put nothing into the vectors: the input alone can be read so "
                "well"
            ),
            "the share of the most frequent answer among the questions": (
                f"if that is {middle} % too, whoever gives this answer always does as well, without any vector"
            ),
            "the same probe on coins: answers without meaning, the same one wherever an input comes again": (
                "if it is as good on coins, it has learned its inputs by heart, and the share says nothing about the "
                "question"
            ),
        },
        wrong={item: BESIDE_THE_POINT[item] for item in kept},
        why="Fresh weights, the most frequent answer, and coins: if one of them comes near the reported share, nothing "
        "is left that the training must have taught.",
    )


# 13.13 Read a table of probes


def _draw_table(rng: np.random.Generator) -> Question:
    n = int(rng.choice([400, 600, 1000, 1024, 2000]))
    while True:
        low, high = (0.82, 0.68, 0.5, 0.5, 0.52), (0.93, 0.78, 0.6, 0.58, 0.6)
        a, b, fresh, coins, majority = (round(float(x), 3) for x in rng.uniform(low, high))
        kept, added, by_half = (b - majority) / (a - majority), (a - b) / (a - majority), (b - 0.5) / (a - 0.5)
        rows = sorted([a, b, fresh, coins, majority, 0.5])
        if min(y - x for v in (rows, sorted([kept, added, by_half, b / a])) for x, y in pairwise(v)) > 0.012:
            break
    half = 1.96 * math.sqrt(a * (1 - a) / n)
    return numbers(
        f"A linear probe reads the sentence relation off $h_{{\\text{{cls}}}}$. Share of right answers on {n} "
        "questions that it was not fitted on:\n\n| what is read | right |\n|---|---|\n"
        f"| trained with MLM and NSP | {a:.1%} |\n| trained with MLM alone | {b:.1%} |\n| fresh weights | {fresh:.1%} "
        f"|\n| trained with both, coins as answers | {coins:.1%} |\n| always the most frequent answer | {majority:.1%} "
        "|\n\nFor the model with both tasks, as shares between 0 and 1: what is the `selectivity` of the probe "
        "(against coins), the `gain` over always giving the most frequent answer, and `half` the width of the 95 % "
        "interval, 1.96·√(p(1−p)/n)? And what part of this gain is there with MLM alone (`kept`)? Three digits "
        "suffice.",
        {"selectivity": a - coins, "gain": a - majority, "half": half, "kept": kept},
        wrong={
            "a share of right answers has no zero at 0: whoever knows nothing already has that of the most frequent "
            "answer. Compare what is above it": {"kept": b / a},
            "the answers are not half and half: the most frequent one is right more often than a coin": {
                "gain": a - 0.5,
                "kept": by_half,
            },
            "the answers are not half and half; take what is above the most frequent answer": {"gain": a - 0.5},
            "what is kept is measured above the most frequent answer, in both models": {"kept": by_half},
            "this is what the second task added, not what is there without it": {"kept": added},
            "this is the distance to fresh weights; selectivity is the distance to the same probe on coins": {
                "selectivity": a - fresh
            },
            "this is one standard error; half the width of the 95 % interval is 1.96 of them": {"half": half / 1.96},
            "the root is missing": {"half": 1.96 * a * (1 - a) / n},
        },
        why=f"{a - coins:.3f} above the coins and {a - majority:.3f} above the most frequent answer, ± {half:.3f}. "
        f"With MLM alone {b - majority:.3f} of it is there; one run of each kind can only hint that the rest is due to "
        "NSP.",
        relative=0.01,
    )


# 13.14 What a probe is worth


def _most_frequent(labels: Array) -> int:
    values, counts = np.unique(labels, return_counts=True)
    return int(values[counts.argmax()])


def _judged(answers: Array, labels: Array, fitted: Array, coin_answers: Array, coin_labels: Array) -> dict[str, float]:
    accuracy = float((answers == labels).mean())
    coins = float((coin_answers == coin_labels).mean())
    majority = float((labels == _most_frequent(fitted)).mean())
    return {"accuracy": accuracy, "majority": majority, "selectivity": accuracy - coins}


def _changed(key: str, value: Any) -> Any:
    """A wrong solution: one entry of the right result is another."""

    def answer(**given: Array) -> dict[str, float]:
        right = _judged(**given)
        return {**right, key: float(value(right, **given))}

    return answer


def _case(answers: Any, labels: Any, fitted: Any, coin_answers: Any, coin_labels: Any) -> dict[str, Any]:
    names = ("answers", "labels", "fitted", "coin_answers", "coin_labels")
    return dict(zip(names, map(np.asarray, (answers, labels, fitted, coin_answers, coin_labels)), strict=True))


def _draw_probe(rng: np.random.Generator) -> dict[str, Any]:
    classes, n = int(rng.integers(2, 4)), int(rng.integers(10, 40))
    while True:
        weights = rng.dirichlet(np.full(classes, 3.0))
        labels, fitted = rng.choice(classes, n, p=weights), rng.choice(classes, int(rng.integers(11, 40)), p=weights)
        counts = np.sort(np.bincount(fitted, minlength=classes))
        if counts[-1] > counts[-2]:
            break
    answers = np.where(rng.random(n) < 0.5, labels, rng.integers(0, classes, n))
    coins = rng.integers(0, 2, n + 3)
    coin_answers = np.where(rng.random(n + 3) < rng.uniform(0, 0.5), coins, rng.integers(0, 2, n + 3))
    return _case(answers, labels, fitted, coin_answers, coins)


PROBE = CodeTask(
    id="13.14",
    title="What a probe is worth",
    points=3,
    concepts=("C26",),
    function="judge_probe",
    reference=_judged,
    draw=_draw_probe,
    edges=(
        _case([0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]),
        _case([1, 1], [1, 1], [2, 2, 1], [1, 0, 1], [1, 0, 1]),
    ),
    mistakes=(
        Mistake(
            "majority of the questions",
            _changed("majority", lambda right, labels, **rest: (labels == _most_frequent(labels)).mean()),
            "your majority is taken from the labels of the questions asked; whoever guesses knows only those that were "
            "fitted on",
        ),
        Mistake(
            "majority among the fitted",
            _changed("majority", lambda right, fitted, **rest: (fitted == _most_frequent(fitted)).mean()),
            "your majority is its share among the labels that were fitted on; it must be judged on the questions "
            "asked, like the probe",
        ),
        Mistake(
            "one in the number of classes",
            _changed("majority", lambda right, labels, **rest: 1 / len(np.unique(labels))),
            "you compare with a blind guess among the classes; whoever always gives the most frequent label does "
            "better when one is more frequent",
        ),
        Mistake(
            "a coin",
            _changed("majority", lambda right, **rest: 0.5),
            "you compare with one half; with unequal labels, or three of them, doing better than nothing means "
            "something else",
        ),
        Mistake(
            "over the majority",
            _changed("selectivity", lambda right, **rest: right["accuracy"] - right["majority"]),
            "your selectivity is measured from the majority; it is the distance to the same probe on coins, which can "
            "only be learned by heart",
        ),
        Mistake(
            "over one half",
            _changed("selectivity", lambda right, **rest: right["accuracy"] - 0.5),
            "your selectivity is measured from one half; a probe can be better than that on coins, by learning by "
            "heart",
        ),
        Mistake(
            "turned around",
            _changed("selectivity", lambda right, **rest: -right["selectivity"]),
            "your selectivity has the wrong sign: accuracy on the question minus accuracy on the coins",
        ),
    ),
    hints=(
        "Three shares: of the probe, of a guesser without vectors, of the probe on coins.",
        "The guesser knows only `fitted`: it gives the most frequent label there, for every question.",
        "`np.bincount(fitted).argmax()` is that label; then three means of comparisons, and a difference.",
    ),
)


# 13.15 What follows from a probe


def _draw_follows(rng: np.random.Generator) -> Question:
    head = float(rng.uniform(48.5, 51.5))
    probe, fresh = float(rng.uniform(68, 79)), float(rng.uniform(49, 52))
    ceiling = probe + float(rng.uniform(12, 18))
    coins = float(rng.uniform(49, 52))
    return choice(
        f"A model was trained **without NSP**. On new pairs its own head for the sentence relation is right in "
        f"{head:.1f} %. A linear probe on its $h_{{\\text{{cls}}}}$ is right in {probe:.1f} % (interval ± 2.7); with "
        f"fresh weights in {fresh:.1f} %, on coins in {coins:.1f} %; a perfect reader would be right in {ceiling:.1f} "
        "%. Both relations are equally frequent. What follows?",
        rng,
        right="The vectors hold part of the relation, though the head was never trained to read it",
        wrong={
            "The vectors hold nothing about the relation, since the head tosses a coin": (
                "the head was never trained, so it says nothing about the vectors; the probe, which was, does much "
                "better than a coin"
            ),
            "The model uses the relation when it predicts the hidden words": (
                "a probe shows what can be read off the vectors, not what the model reads"
            ),
            f"NSP would buy {ceiling - probe:.1f} points: the distance to the perfect reader": (
                "that is how much is missing in this model. What NSP buys takes runs with NSP, with more than one seed"
            ),
            "The probe has learned the relation by itself: its success says nothing about the vectors": (
                "then it would do as well with fresh weights, or on coins; both stay near one half"
            ),
        },
        why=f"{probe:.1f} % on new pairs against {fresh:.1f} % with fresh weights and {coins:.1f} % on coins: part of "
        "the relation was learned from masked words alone.",
    )


CONTROLS = ConceptTask(id="13.7", title="Numbers to ask for", points=2, concepts=("C26",), draw=_draw_report)
TABLE = ConceptTask(
    id="13.13", title="Read a table of probes", points=3, concepts=("C26",), draw=_draw_table, computed=True
)
FOLLOWS = ConceptTask(id="13.15", title="What follows from a probe", points=2, concepts=("C26",), draw=_draw_follows)
