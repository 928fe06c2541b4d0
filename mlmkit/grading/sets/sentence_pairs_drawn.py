"""The function to write of set 06 that draws: pairs, half of them with a B from another document."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mlmkit.grading.chance import binomial_bounds
from mlmkit.grading.plain import Rng
from mlmkit.grading.sets.sentence_pairs_code import Documents, draw_documents
from mlmkit.grading.tasks import Call, CodeTask, Inputs, Mistake


def _make(documents: Documents, rng: np.random.Generator, choose: Any, label: Any) -> list[tuple[str, str, int]]:
    """Draw a pair for each sentence with a successor: `choose` gives the random B, `label` the label."""
    pairs = []
    for d, document in enumerate(documents):
        for a, following in pairwise(document):
            c = int(rng.random() < 0.5)
            pairs.append((a, choose(d) if c else following, label(c)))
    return pairs


def _pick(documents: Documents, rng: np.random.Generator, allowed: Any) -> Any:
    def choose(d: int) -> str:
        other = documents[rng.choice([k for k in range(len(documents)) if allowed(k, d)])]
        return other[rng.integers(len(other))]

    return choose


def _pairs(allowed: Any = lambda k, d: k != d, label: Any = int) -> Any:
    return lambda documents, rng: _make(documents, rng, _pick(documents, rng, allowed), label)


def _first_of_another(documents: Documents, rng: np.random.Generator) -> list[tuple[str, str, int]]:
    return _make(documents, rng, lambda d: documents[d - 1][0], int)


def _one_in_ten(documents: Documents, rng: np.random.Generator) -> list[tuple[str, str, int]]:
    pairs = _make(documents, rng, _pick(documents, rng, lambda k, d: k != d), int)
    after = {a: b for document in documents for a, b in pairwise(document)}
    return [pair if rng.random() < 0.2 else (pair[0], after[pair[0]], 0) for pair in pairs]


def _draw_corpus(rng: np.random.Generator) -> Inputs:
    return {"documents": draw_documents(rng, rng.integers(8, 14, 8).tolist()), "rng": Rng(int(rng.integers(2**31)))}


def _verify_pairs(calls: Sequence[Call]) -> str | None:
    """The right A's, true labels, B's from other documents, half of each."""
    counts = dict.fromkeys(("random", "all", "first", "following", "long", "changes", "neighbors"), 0)
    found: list[tuple[Documents, Any]] = []
    for call in calls:
        if problem := _form_problem(call):
            return problem
        found += [(call.inputs["documents"], pair) for pair in call.got]
    labels = {int(c) for _, (_, _, c) in found}
    if len(labels) == 1:
        return f"every pair has label {labels.pop()}: half of the pairs should be true ones, half random ones"
    problems = [problem for documents, pair in found if (problem := _pair_problem(documents, *pair))]
    if problems and not any(_pair_problem(documents, a, b, 1 - int(c)) for documents, (a, b, c) in found):
        return "your labels are exchanged: 0 says that B follows A, 1 that it is from another document"
    if problems:
        return problems[0]
    for call in calls:
        _count(counts, call.inputs["documents"], call.got)
    return _chance_problem(counts)


def _form_problem(call: Call) -> str | None:
    """Triples of two sentences and a label, one for each sentence with a successor."""
    expected = [a for document in call.inputs["documents"] for a in document[:-1]]
    got = call.got
    if not isinstance(got, list | tuple) or any(not isinstance(p, list | tuple) or len(p) != 3 for p in got):
        return "the result should be a list of triples (a, b, c)"
    for a, b, c in got:
        if not isinstance(a, str) or not isinstance(b, str):
            return "A and B should be sentences, as they stand in the documents"
        if not isinstance(c, int | float | np.ndarray) or np.ndim(c) or c not in (0, 1):
            return f"a label should be 0 or 1, and is {c!r}"
    if [a for a, _, _ in got] != expected:
        return (
            f"the A's should be the {len(expected)} sentences that have a successor in their document, in order; you "
            f"give {len(got)} pairs, and other A's"
        )
    return None


def _pair_problem(documents: Documents, a: str, b: str, c: int) -> str | None:
    home = next(document for document in documents if a in document)
    if not any(b in document for document in documents):
        return f"B should be a whole sentence of the documents, and is {b!r}"
    follows = b in home and home.index(b) == home.index(a) + 1
    if c == 0 and not follows:
        return f"({a!r}, {b!r}) has label 0, and B does not follow A in its document"
    if c == 1 and b in home:
        even = ", and here B is even the next one" if follows else ""
        return f"({a!r}, {b!r}) has label 1, and both are from the same document{even}: B must come from another one"
    return None


def _count(counts: dict[str, int], documents: Documents, got: Sequence[Sequence[Any]]) -> None:
    """Add what the pairs of one call show."""
    where = {sentence: (d, i) for d, document in enumerate(documents) for i, sentence in enumerate(document)}
    labels = [int(c) for _, _, c in got]
    counts["random"] += sum(labels)
    counts["all"] += len(labels)
    counts["changes"] += sum(one != other for one, other in pairwise(labels))
    counts["neighbors"] += max(0, len(labels) - 1)
    for a, b, c in got:
        if c == 1 and len(documents) > 4:
            counts["long"] += 1
            counts["first"] += where[b][1] == 0
            counts["following"] += where[b][0] == (where[a][0] + 1) % len(documents)


def _chance_problem(counts: dict[str, int]) -> str | None:
    total = counts["all"]
    low, high = binomial_bounds(total, 0.5)
    if not low <= counts["random"] <= high:
        return f"{counts['random'] / total:.1%} of the pairs have label 1, and 50 % were asked for"
    if counts["changes"] > binomial_bounds(counts["neighbors"], 0.5)[1]:
        return "labels take turns: each pair draws its own label"
    if max(counts["first"], counts["following"]) > 0.5 * counts["long"]:
        return "the random B is nearly always the same one: draw its document and its sentence anew for each pair"
    return None


_STORIES = [["s1", "s2", "s3"], ["t1"], ["u1", "u2"]]

MAKE_PAIRS = CodeTask(
    id="06.7",
    title="Draw pairs",
    points=5,
    concepts=("C24",),
    function="make_pairs",
    reference=_pairs(),
    draw=_draw_corpus,
    edges=({"documents": _STORIES, "rng": Rng(1)}, {"documents": [["s1", "s2"], ["t1"]], "rng": Rng(2)}),
    verify=_verify_pairs,
    mistakes=(
        Mistake("from the same document", _pairs(lambda k, d: k == d), "both are from the same document"),
        Mistake("from any document", _pairs(lambda k, d: True), "both are from the same document"),
        Mistake("label always 1", _pairs(label=lambda c: 1), "every pair has label 1"),
        Mistake(
            "always the next",
            lambda documents, rng: [(a, b, 0) for document in documents for a, b in pairwise(document)],
            "every pair has label 0",
        ),
        Mistake("labels exchanged", _pairs(label=lambda c: 1 - c), "your labels are exchanged"),
        Mistake("the first of another", _first_of_another, "the random B is nearly always the same one"),
        Mistake("a tenth", _one_in_ten, "of the pairs have label 1, and 50 % were asked for"),
    ),
    hints=(
        "For each document, and for each sentence but the last: first draw the label, then choose B.",
        "Label 0 takes the next sentence. Label 1 draws a document among the *others*, and then one of its sentences.",
        "`other = rng.choice([k for k in range(len(documents)) if k != d])`, then `documents[other][rng.integers(…)]`.",
    ),
)
