"""Questions of set 16 on intervals, patience, filling forms and leaked text."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from mlmkit.grading.cases import draw_form, draw_held_out, ngrams
from mlmkit.grading.questions import match, numbers
from mlmkit.grading.tasks import ConceptTask, Question

T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
"""97.5 % point of Student's distribution for n runs."""


def half_width(values: np.ndarray[Any, Any]) -> float:
    """Half the width of the 95 % interval of a mean."""
    return float(T[len(values)] * values.std(ddof=1) / math.sqrt(len(values)))


# 16.5 Three intervals


def _draw_intervals(rng: np.random.Generator) -> Question:
    while True:
        n = int(rng.choice([4, 5, 6]))
        luck = rng.normal(0, 0.35, n)
        old = np.round(1.6 + luck, 2)
        new = np.round(1.6 - rng.uniform(0.1, 0.4) + luck + rng.normal(0, 0.07, n), 2)
        d = new - old
        paired, single, two = half_width(d), half_width(new), half_width(d[:2])
        independent = T[n] * math.sqrt((new.var(ddof=1) + old.var(ddof=1)) / n)
        normal, biased = 1.96 * d.std(ddof=1) / math.sqrt(n), paired * math.sqrt(1 - 1 / n)
        found = sorted([paired, single, independent, normal, biased, paired * math.sqrt(n)])
        apart = all(b > 1.05 * a for a, b in pairwise(found)) and abs(two - single) > 0.1
        if apart and single > 2 * paired and two > 1.3 * paired:
            break
    rows = "\n".join(f"| {seed} | {a:.2f} | {b:.2f} |" for seed, (a, b) in enumerate(zip(old, new, strict=True)))
    return numbers(
        f"Two recipes, {n} seeds each; the gap to the floor in nats:\n\n| seed | old | new |\n|---|---|---|\n{rows}\n\n"
        f"Student's factor is {T[n]} for {n} runs and {T[2]} for 2. Give the half width of the 95 % interval of the "
        "mean of new − old, paired (`paired`); paired, but from seeds 0 and 1 only (`two`); and as if the runs were "
        "not paired, that is, of `new` minus the mean of `old` (`unpaired`). Three digits.",
        {"paired": paired, "two": two, "unpaired": single},
        wrong={
            "you exchanged the two: the paired interval is that of the differences within each seed": {
                "paired": single,
                "unpaired": paired,
            },
            "the paired interval is that of the differences within each seed; yours has the spread of `new`": {
                "paired": single
            },
            "divide the variance by n − 1, not by n: the mean was estimated from the same runs": {"paired": biased},
            "1.96 is the factor if the spread is known; with so few seeds take Student's factor": {"paired": normal},
            "the spread of a mean is smaller than that of one difference: divide by √n": {
                "paired": paired * math.sqrt(n)
            },
            f"with two seeds the factor is {T[2]}, since a spread from two runs is hardly known": {
                "two": two * T[n] / T[2]
            },
            "that treats both recipes as independent; asked for is `new` minus a fixed number, the mean of `old`": {
                "unpaired": independent
            },
        },
        why="Luck with the first weights lifts old and new alike: it cancels in the differences, and stays in the "
        "unpaired interval. Two seeds say little about the spread, and the factor pays for that.",
        relative=0.02,
    )


# 16.6 Patience


def _draw_patience(rng: np.random.Generator) -> Question:
    every = int(rng.choice([20, 25, 40, 50]))
    bump, best = int(rng.integers(2, 4)), int(rng.integers(6, 9))
    new = np.linspace(5.0, rng.uniform(2.8, 3.1), best + 1)
    new[bump] = new[bump - 1] + 0.06
    new = np.round(np.concatenate([new, new[best] + 0.05 * np.arange(1, 6) + rng.uniform(0, 0.02, 5)]), 2)
    early = int(rng.integers(1, 3))
    static = np.round(3.9 + rng.uniform(0, 0.2) + 0.21 * np.abs(np.arange(len(new)) - early), 2)
    rows = "\n".join(
        f"| {(k + 1) * every} | {a:.2f} | {b:.2f} |" for k, (a, b) in enumerate(zip(new, static, strict=True))
    )
    at = {name: (k + 1) * every for name, k in {"hasty": bump - 1, "kept": best, "static": early}.items()}
    stop, end = (best + 3) * every, len(new) * every
    return numbers(
        "Held-out losses of two runs on little text, in nats, one with new masks in every epoch and one with static "
        f"masks:\n\n| update | new masks | static masks |\n|---|---|---|\n{rows}\n\nWith patience P a run stops after "
        "P evaluations in a row without a new lowest loss, and keeps the model of the lowest one so far. New masks: of "
        "which update is the model kept with patience 1 (`hasty`) and with patience 2 (`kept`), and after which update "
        "does the run stop with patience 2 (`stop`)? Static masks, patience 2: of which update is the model kept "
        "(`static`)?",
        {**at, "stop": stop},
        wrong={
            "training losses fall to the end, so a rule that reads them keeps the last model; these are held-out "
            "losses, and they rise": {"kept": end, "stop": end},
            f"patience 1 does not get past the bump at update {(bump + 1) * every}: it stops there and never sees what "
            "comes after": {"hasty": at["kept"]},
            "the model that is kept is the best one so far, not that of the update at which the run stops": {
                "kept": stop
            },
            f"patience 2 survives the single bump at update {(bump + 1) * every}: the next loss is a new lowest one": {
                "kept": at["hasty"]
            },
            "the two runs turn at different updates: look at the second column": {"static": at["kept"]},
            "the run does not know that a loss is the lowest until two more have come": {"stop": at["kept"]},
            "with patience 2 it stops at the second evaluation without a new lowest loss": {"stop": stop - every},
        },
        why=f"Patience 1 stops at the bump and keeps update {at['hasty']}, {new[bump - 1] - new[best]:.2f} nats worse "
        f"than update {at['kept']}. Static masks turn at update {at['static']} already.",
        relative=1e-9,
    )


# 16.7 Two fields at once


def _draw_form_question(rng: np.random.Generator) -> Question:
    places, countries, counts, possible = draw_form(rng)
    joint = counts / counts.sum()
    place, country = joint.sum(1), joint.sum(0)
    at_once = float((np.outer(place, country) * ~possible).sum())
    in_turn = float((joint * ~possible).sum())
    a, b = int(place.argmax()), int(country.argmax())
    table = "\n".join(
        f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(places, counts, strict=True)
    )
    possible_pairs = ", ".join(f"{places[i]}–{countries[j]}" for i, j in np.argwhere(possible))
    return numbers(
        "On a thousand forms a place and a country stand together so often:\n\n| | "
        + " | ".join(countries)
        + f" |\n|---|---|---|---|\n{table}\n\nPossible are {possible_pairs}; all other pairs are slips. A perfect "
        "model fills both blank fields with draws from its predictions. Which share of the forms gets an impossible "
        "pair if it draws both fields at once (`at_once`), and if it draws the place first and reads it before it "
        "draws the country (`in_turn`)? And on which share of the thousand forms do the most frequent place and the "
        "most frequent country stand together (`likeliest`)? Give three digits.",
        {"at_once": at_once, "in_turn": in_turn, "likeliest": float(joint[a, b])},
        wrong={
            "a perfect model predicts each field perfectly, and yet it draws the two independently: multiply the "
            "shares of place and country for each impossible pair": {"at_once": in_turn},
            "one after the other, the pair is drawn from the joint table: only its slips are impossible": {
                "in_turn": at_once
            },
            "the forms have slips too, and a perfect model predicts them as often as they come": {"in_turn": 0.0},
            "that is the share of possible pairs": {"at_once": 1 - at_once},
            "that is the product of the two shares, as if the fields had nothing to do with each other. Look into the "
            "table": {"likeliest": float(place[a] * country[b])},
            "that is the most frequent pair. The most frequent place and the most frequent country are another one": {
                "likeliest": float(joint.max())
            },
        },
        why=f"At once {at_once:.1%} of the forms are impossible, one after the other {in_turn:.1%}, as on the forms "
        f"themselves. {places[a]} and {countries[b]} are each the most frequent, and together they are a slip.",
        relative=0.01,
    )


# 16.15 Which set leaked


def _draw_leak(rng: np.random.Generator) -> Question:
    train, sets = draw_held_out(rng)
    known = set(ngrams(train))
    share = {name: float(np.mean([gram in known for gram in ngrams(group)])) for name, group in sets.items()}
    leaked = max(share, key=lambda name: share[name])
    easy = min(sets, key=lambda name: len({word for document in sets[name] for word in document}))
    copies = float(np.mean([any(gram in known for gram in ngrams([document])) for document in sets[leaked]]))
    vocabulary = {word for document in train for word in document}
    loss = {name: round(float(rng.uniform(2.9, 3.2)), 2) for name in sets}
    loss |= {easy: round(float(rng.uniform(1.9, 2.1)), 2), leaked: round(float(rng.uniform(2.2, 2.4)), 2)}
    told = ", ".join(f"{name} {value:.2f}" for name, value in loss.items())
    words = float(np.mean([word in vocabulary for document in sets[leaked] for word in document]))
    return numbers(
        f"A model has these losses on three held-out sets, in nats: {told}. No document of them stands in the training "
        "text word for word, and yet one of the sets holds copies that were altered a little. Which one (`set`: 1 for "
        "A, 2 for B, 3 for C)? Which share of its runs of 8 words stands in the training text "
        "(`overlap`)? Three digits.",
        {"set": "ABC".index(leaked) + 1, "overlap": share[leaked]},
        wrong={
            f"a low loss is no proof: set {easy} uses only a few words and is easy for every model. None of its runs "
            "of 8 words is known from training": {"set": "ABC".index(easy) + 1},
            "that set has fresh text: none of its runs of 8 words is known from training": {
                "set": next(k for k, name in enumerate("ABC", 1) if name not in (easy, leaked))
            },
            "no document stands there word for word, but most of the text of some does: compare runs of words": {
                "overlap": 0.0
            },
            "single words are known in any text of the same language: compare runs of 8": {"overlap": words},
            "that is the share of documents that have a run in common with training; asked for is the share of the "
            "runs": {"overlap": copies},
        },
        why=f"{share[leaked]:.1%} of the runs of set {leaked} are known, and none of the other sets. Set {easy} has "
        "the lowest loss because it is easy.",
        relative=0.005,
    )


# 16.16 Four reports

FAILURES = {
    "mismatch": "mismatch: training inputs do not look like the product's",
    "leakage": "leakage: the score was made on known answers",
    "incoherence": "incoherence: words are predicted without each other",
    "noise": "nothing: one seed differs from another as much",
}


def _draw_reports(rng: np.random.Generator) -> Question:
    low, high = (rng.uniform(*ends, 2) for ends in ((1.8, 2.2), (3.6, 4.4)))
    in_turn = int(rng.integers(2, 6))
    forms = int(rng.integers(30, 50))
    gap, spread = float(rng.uniform(0.02, 0.05)), float(rng.uniform(0.09, 0.15))
    texts = {
        "mismatch": f"held-out loss at [MASK] {low[0]:.2f} nats; at fields that are filled in already "
        f"{high[0]:.2f} nats",
        "leakage": f"held-out loss {low[1]:.2f} nats; without the documents that share 8-grams with training "
        f"{high[1]:.2f}",
        "incoherence": f"loss at each field as low as it can be; {forms} % of forms wrong when both fields are filled "
        f"at once, {in_turn} % when one after the other",
        "noise": f"the new recipe is better by {gap:.2f} nats with one seed; the old one against itself with another "
        f"seed: {spread:.2f}",
    }
    names = [list(texts)[i] for i in rng.permutation(4)]
    drop = int(rng.integers(5))  # with 4 all reports are shown
    names = [name for k, name in enumerate(names) if k != drop]
    says = {
        ("mismatch", "leakage"): "nothing here was compared with the training text; two kinds of *input* were",
        ("mismatch", "incoherence"): "each field is asked by itself here, and one kind of input fails",
        ("leakage", "mismatch"): "the inputs are of one kind; what differs is whether the text is known from training",
        ("leakage", "noise"): "the loss changes far more than seeds do, and only by leaving out known text",
        ("incoherence", "mismatch"): "the same model, asked in turn, is nearly always right: its training fits",
        ("incoherence", "leakage"): "no score is too good here; the joint result is bad",
        ("noise", "leakage"): "the gain is small, and a mere change of seed gives a larger one",
        ("noise", "mismatch"): "a change of seed gives a larger difference: nothing has been shown yet",
    }
    return match(
        "These measurements were reported to you, each about another model. Which failure does each of them show?",
        rng,
        pairs={texts[name]: FAILURES[name] for name in names},
        wrong={(texts[a], FAILURES[b]): text for (a, b), text in says.items() if a in names},
        why="Mismatch shows on the product's own inputs, leakage when known text is left out, incoherence in the joint "
        "result; and a difference that is smaller than a placebo shows nothing.",
        extra=[text for name, text in FAILURES.items() if name not in names],
    )


INTERVALS = ConceptTask(
    id="16.5", title="Three intervals", points=3, concepts=("C31",), draw=_draw_intervals, computed=True
)
PATIENCE = ConceptTask(id="16.6", title="How patient", points=2, concepts=("C27",), draw=_draw_patience, computed=True)
FORM = ConceptTask(
    id="16.7", title="Two fields at once", points=3, concepts=("C29", "C30"), draw=_draw_form_question, computed=True
)
LEAK = ConceptTask(id="16.15", title="Which set leaked", points=3, concepts=("C30",), draw=_draw_leak, computed=True)
REPORTS = ConceptTask(id="16.16", title="From a report to its cause", points=2, concepts=("C30",), draw=_draw_reports)
