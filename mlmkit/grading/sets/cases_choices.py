"""Questions of set 16 that end in a decision: which candidate, which claim, which objective."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmkit.grading.questions import choice, several
from mlmkit.grading.sets.cases_numbers import half_width
from mlmkit.grading.tasks import ConceptTask, Question

# 16.8 Which candidates pass

MIXES = ["half and half", "a quarter for the writer", "a third for the writer", "masked, 40 %, and half for the writer"]


def _draw_product(rng: np.random.Generator) -> Question:
    search, write = round(float(rng.uniform(0.7, 1.1)), 1), round(float(rng.uniform(0.3, 0.6)), 1)
    memory = 10 * int(rng.integers(8, 21))
    fits = memory / 4

    def gaps(limit: float, low: float, high: float) -> list[float]:
        return [round(limit * float(rng.uniform(low, high)), 2) for _ in range(2)]

    def size(low: float = 0.5, high: float = 0.93) -> float:
        return round(fits * float(rng.uniform(low, high)), 1)

    both = int(rng.integers(2)) == 1
    one_seed = gaps(search, 0.6, 0.7)
    one_seed[rng.integers(2)] = round(search * float(rng.uniform(1.08, 1.15)), 2)
    mixes = [MIXES[i] for i in rng.permutation(4)]
    rows: dict[str, tuple[float, list[float], list[float]]] = {
        mixes[0]: (size(), gaps(search, 0.75, 0.95), gaps(write, 0.75, 0.95)),
        mixes[1]: (size(), one_seed, gaps(write, 0.7, 0.9)),
        mixes[2]: (size(1.3, 1.8), gaps(search, 0.6, 0.75), gaps(write, 0.6, 0.75)),
        "masked, 15 %": (size(), gaps(search, 0.4, 0.5), gaps(write, 1.5, 2.2)),
        "writing alone": (size(), gaps(search, 1.15, 1.25), gaps(write, 0.1, 0.2)),
    }
    if both:
        rows[mixes[3]] = (size(0.94, 0.97), gaps(search, 0.85, 0.97), gaps(write, 0.85, 0.97))
    table = "\n".join(
        f"| {name} | {rows[name][0]:g} | " + " | ".join(f"{gap:.2f}" for gap in (*rows[name][1], *rows[name][2])) + " |"
        for name in sorted(rows)
    )
    keeps = "it keeps every limit: both gaps in both seeds, and the memory"
    wrong = {
        mixes[1]: f"its mean over the seeds is below {search}, but one seed is at {max(one_seed):.2f}: the limit was "
        "set for both seeds, and you do not know which of them you will ship",
        mixes[2]: f"both gaps are fine, but {rows[mixes[2]][0]:g} million parameters of 4 bytes are "
        f"{4 * rows[mixes[2]][0]:.0f} MB, more than {memory}",
        "masked, 15 %": f"it searches best, and it cannot write: {max(rows['masked, 15 %'][2]):.2f} is above {write}. "
        "Each need has a limit of its own",
        "writing alone": "it writes by far the best, and an average over both needs would hide that it fails at "
        f"search: {max(rows['writing alone'][1]):.2f} is above {search}",
    }
    return several(
        "A company wants one model that searches and writes. These limits were fixed before the experiment: a gap of "
        f"at most **{search}** nats at search and of at most **{write}** at writing, in both seeds, and at most "
        f"**{memory} MB** for the parameters in fp32 (4 bytes each; 1 MB is a million bytes).\n\n| candidate | million "
        f"parameters | search, seed 0 | seed 1 | write, seed 0 | seed 1 |\n|---|---|---|---|---|---|\n{table}\n\nWhich "
        "candidates pass?",
        rng,
        right={name: keeps for name in rows if name not in wrong},
        wrong=wrong,
        why="Each need is held against its own limit, in each seed, before anything is averaged.",
    )


# 16.13 Which claims does the table support

RECIPES = {
    "drops the sentence task (no NSP)": ["loss at a hole", "loss on clean words", "loss of the sentence relation"],
    "masks 40 % in place of 15 %": ["loss at a hole", "loss on clean words", "loss of the sentence relation"],
    "puts [MASK] at all selected positions": ["loss at a hole", "loss on clean words", "loss of a tagger"],
    "draws the masks once, and keeps them (static masks)": ["loss at a hole", "loss on rare words", "loss of a tagger"],
}
SEEDS = 5
VERDICTS = [
    ("lower", "higher", "open"),
    ("lower", "open", "open"),
    ("higher", "open", "open"),
    ("lower", "lower", "open"),
]


def _differences(rng: np.random.Generator, verdict: str) -> np.ndarray[Any, Any]:
    """New − old for each seed, with an interval that clearly excludes 0, or clearly does not."""
    while True:
        mean = {"lower": -1, "higher": 1, "open": 0}[verdict] * float(rng.uniform(0.15, 0.4))
        d = np.round(rng.normal(mean, 0.06 if mean else 0.2, SEEDS), 2)
        ratio = abs(d.mean()) / half_width(d)
        if verdict == "open" and 0.1 < ratio < 0.6 and d.min() < -0.15 and d.max() > 0.1 and d.mean() < 0:
            return d
        if verdict != "open" and ratio > 1.5:
            return d


def _draw_claims(rng: np.random.Generator) -> Question:
    recipe = list(RECIPES)[rng.integers(len(RECIPES))]
    verdicts = [str(verdict) for verdict in rng.permutation(VERDICTS[rng.integers(len(VERDICTS))])]
    d = [_differences(rng, verdict) for verdict in verdicts]
    names = RECIPES[recipe]
    rows = "\n".join(f"| {k} | " + " | ".join(f"{x[k]:+.2f}" for x in d) + " |" for k in range(SEEDS))
    right, wrong = {}, {}
    for name, verdict, x in zip(names, verdicts, d, strict=True):
        told = f"the interval is {x.mean():+.2f} ± {half_width(x):.2f}"
        if verdict == "open":
            best = int(x.argmin())
            wrong[f"It lowers the {name}: seed {best} shows it, by {-x[best]:.2f} nats"] = (
                f"one seed is no proof: {told}, and it contains 0. Another seed says the contrary"
            )
            wrong[f"It makes no difference to the {name}"] = (
                f"{told}. It contains 0, and other values too: nothing is shown, neither a difference nor that there "
                "is none"
            )
        else:
            right[f"It {'lowers' if verdict == 'lower' else 'raises'} the {name} in these networks"] = (
                f"{told}, and 0 lies outside"
            )
    shown = next(k for k, verdict in enumerate(verdicts) if verdict != "open")
    direction = "lowers" if verdicts[shown] == "lower" else "raises"
    wrong[f"It {direction} the {names[shown]} of every network, also of a large one after a long training"] = (
        "a verdict holds where it was measured: here only in small networks after a short training"
    )
    return several(
        f"A new recipe **{recipe}**. Small networks were trained with the old and the new recipe, {SEEDS} seeds each; "
        "the table has new − old on common questions, in nats, so negative means that the new one is better.\n\n| seed "
        f"| {' | '.join(names)} |\n|---|---|---|---|\n{rows}\n\nStudent's factor is 2.776. Compute the three 95 % "
        "intervals. Which claims does the table support?",
        rng,
        right=right,
        wrong=wrong,
        why="; ".join(f"{n}: {x.mean():+.2f} ± {half_width(x):.2f}" for n, x in zip(names, d, strict=True))
        + ". What excludes 0 is shown, for networks like these.",
    )


# 16.14 Choose an objective


def _search_and_write(rng: np.random.Generator) -> tuple[str, str, dict[str, str]]:
    share = int(rng.integers(20, 45))
    return (
        f"One model has to find passages, for which it reads them whole, and to write answers word by word ({share} % "
        "of the requests). Both needs have a limit.",
        "A mix of both: some batches masked on both sides, some asked from the left; each need measured on its own",
        {
            "Masked modeling alone: who can fill blanks from both sides can also write": "a model that always had the "
            "right side in view was never asked to do without it: its gap at writing is large",
            "Left-to-right modeling alone, since every text can be written from the left": "it has never read from the "
            "right, and its vectors of passages miss that; it fails at search",
            "A mix, judged by the average of both gaps": "the average hides which need fails: a very good gap at one "
            "can outweigh a failure at the other",
        },
    )


def _regulated(rng: np.random.Generator) -> tuple[str, str, dict[str, str]]:
    demand = int(rng.choice([90, 95, 98]))
    return (
        "An assistant says whether a passage belongs to a document. By regulation at least "
        f"{demand} % of what it says must be right; it may keep silent.",
        "Keep the sentence head's probabilities, and answer above a threshold that was fitted on one half of the "
        "questions and checked on the other",
        {
            "Train until its accuracy over all questions is high, and let it answer everything": "the demand is on "
            "what it says. If it may keep silent, the unsure answers need not be given, and if it may not, no "
            "objective makes it sure",
            "Choose the threshold with the best share of right answers on the test questions, and report that "
            "share": "a threshold that was chosen on these questions flatters itself there: check it on others",
            "Replace the head by a model that writes fluent answers": "fluency is no evidence: what is needed is a "
            "probability for each answer, and the right to be silent",
        },
    )


def _small_device(rng: np.random.Generator) -> tuple[str, str, dict[str, str]]:
    documents, memory = 100 * int(rng.integers(2, 9)), int(rng.choice([50, 60, 80]))
    return (
        f"A classifier has to run on a device with {memory} MB for its parameters, and there are {documents} documents "
        "of the subject to train on.",
        "A small network that fits, masked anew in each epoch, stopped by patience on held-out text",
        {
            "The same network with masks drawn once, which saves work": "with static masks it learns a list of holes "
            "by heart: on little text the held-out loss turns much earlier",
            "The same network, trained until the training loss is lowest": "on little text the training loss falls "
            "long after the held-out loss has turned",
            "The largest network of the course: more parameters learn more": "it does not fit into the memory, and "
            "with so few documents it learns them by heart",
        },
    )


def _pictures(rng: np.random.Generator) -> tuple[str, str, dict[str, str]]:
    cost = float(rng.uniform(0.3, 0.8))
    return (
        "An assistant writes the words between pictures and tables. What follows the gap stands on the page already, "
        "the gap may be of any length, and reading only from the left costs "
        f"{cost:.2f} nats for each word, above the limit.",
        "Infilling by an encoder–decoder: it reads both sides and writes as many words as are needed",
        {
            "A larger left-to-right model": "the cost is a property of the text, not of the model: what stands to the "
            "right stays unread, however large the model is",
            "Masked modeling with one [MASK] for each missing word": "the length of the gap is not known, so nobody "
            "can say how many [MASK] to write",
            "Next-sentence prediction, which knows what follows": "it says whether B follows A; it writes nothing",
        },
    )


def _forms(rng: np.random.Generator) -> tuple[str, str, dict[str, str]]:
    share = int(rng.integers(60, 90))
    return (
        f"A product returns all fields of a form: blank ones filled, filled ones ({share} % of them) confirmed or "
        "corrected. A model trained with [MASK] at all selected positions fails at filled fields.",
        "Train with 80/10/10, so that selected positions also show a word, right or wrong; judge on forms as they come",
        {
            "Train the same model longer: its training loss is still falling": "its loss asks only at [MASK]: it can "
            "fall for ever without a word about filled fields",
            "Put [MASK] over all fields in the product, so that its inputs look like the training": "then what "
            "was filled in is thrown away, and with it most of what is known",
            "Select 40 % in place of 15 %, still with [MASK] alone": "more blanks ask more often, but never at a field "
            "that is filled in",
        },
    )


SITUATIONS = (_search_and_write, _regulated, _small_device, _pictures, _forms)


def _draw_objective(rng: np.random.Generator) -> Question:
    text, right, wrong = SITUATIONS[rng.integers(len(SITUATIONS))](rng)
    return choice(
        f"{text} What do you propose?",
        rng,
        right=right,
        wrong=wrong,
        why="The objective asks in training what the product asks later, and a number with a limit decides.",
    )


PRODUCT = ConceptTask(
    id="16.8", title="Which candidates pass", points=2, concepts=("C29",), draw=_draw_product, computed=True
)
CLAIMS = ConceptTask(
    id="16.13", title="What the table supports", points=3, concepts=("C31",), draw=_draw_claims, computed=True
)
OBJECTIVE = ConceptTask(id="16.14", title="Choose an objective", points=2, concepts=("C29",), draw=_draw_objective)
