"""The functions to write of set 16 on batches that are mended and on intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlmkit.grading.chance import binomial_bounds
from mlmkit.grading.plain import Rng
from mlmkit.grading.tasks import Call, CodeTask, Inputs, Mistake

Array = np.ndarray[Any, Any]
Batch = dict[str, Array]
Special = dict[str, int]

ORDINARY, MANY_ROWS = 30, 20

# 16.10 Mend a batch


def lay_out(rng: np.random.Generator, rows: int, words: int, special: Special, ordinary: Array) -> Array:
    """Pairs `[CLS] A [SEP] B [SEP]` of 1 to `words` words each, padded to the longest (B, S)."""
    pairs = []
    for _ in range(rows):
        a, b = (rng.choice(ordinary, rng.integers(1, words + 1)).tolist() for _ in range(2))
        pairs.append([special["cls"], *a, special["sep"], *b, special["sep"]])
    longest = max(map(len, pairs)) + 1
    return np.array([row + [special["pad"]] * (longest - len(row)) for row in pairs])


def draw_special(rng: np.random.Generator) -> tuple[Special, Array]:
    """Ids of the special tokens, and 30 ordinary ids that are not consecutive."""
    ids = rng.permutation(80)
    return dict(zip(("pad", "unk", "cls", "sep", "mask"), map(int, ids[:5]), strict=True)), np.sort(
        ids[5 : 5 + ORDINARY]
    )


def _draw_ids(rng: np.random.Generator) -> Inputs:
    special, ordinary = draw_special(rng)
    ids = lay_out(rng, 40, 30, special, ordinary)
    return {"ids": ids, "rng": Rng(int(rng.integers(2**31))), "special": special, "ordinary_ids": ordinary}


def _selected(ids: Array, rng: np.random.Generator, special: Special, everything: bool = False) -> Array:
    candidates = np.isin(ids, [special[name] for name in ("cls", "sep", "pad")], invert=True)
    return (rng.random(ids.shape) < 0.15) & (candidates | everything)


def _batch(
    ids: Array,
    rng: np.random.Generator,
    special: Special,
    ordinary_ids: Array,
    *,
    choose: Callable[[Array, np.random.Generator, Special], Array] = _selected,
    random_ids: Callable[[Array, Special], Array] = lambda ordinary, special: ordinary,
    shares: tuple[float, float] = (0.8, 0.9),
    changed: Callable[[Batch, Array, Special], Batch] = lambda batch, ids, special: {},
) -> Batch:
    """The right batch, in which some parts can be exchanged for wrong ones."""
    selected, fate = choose(ids, rng, special), rng.random(ids.shape)
    other = rng.choice(random_ids(ordinary_ids, special), ids.shape)
    corrupted = np.where(fate < shares[0], special["mask"], np.where(fate < shares[1], other, ids))
    seps, real = (ids == special["sep"]).cumsum(1) - (ids == special["sep"]), ids != special["pad"]
    batch = {
        "input_ids": np.where(selected, corrupted, ids),
        "labels": np.where(selected, ids, -100),
        "token_type_ids": ((seps > 0) & real).astype(int),
        "attention_mask": real.astype(int),
    }
    return {**batch, **changed(batch, ids, special)}


NAMES = ("input_ids", "labels", "token_type_ids", "attention_mask")


def _verify(calls: Sequence[Call]) -> str | None:
    """Each batch by itself, the largest first, then the counts of all large ones."""
    counts = np.zeros(4, dtype=int)
    random_words = set()
    for call in sorted(calls, key=lambda call: -call.inputs["ids"].size):
        ids, special = call.inputs["ids"], call.inputs["special"]
        problem = _of_form(call.got, ids) or _of_layout(call.got, ids, special)
        problem = problem or _of_labels(call.got, ids, special, call.inputs["ordinary_ids"])
        if problem:
            return problem
        if len(ids) < MANY_ROWS:
            continue
        x, chosen = np.asarray(call.got["input_ids"]), np.asarray(call.got["labels"]) != -100
        words, masked = np.isin(ids, call.inputs["ordinary_ids"]), x == special["mask"]
        if all(len(set(chosen[words[:, column], column].tolist())) < 2 for column in range(1, 11)):
            return "all rows have the same positions selected: each token draws by itself"
        other = chosen & ~masked & (x != ids)
        random_words |= {(id(call), int(word)) for word in x[other]}
        counts += [words.sum(), chosen.sum(), masked.sum(), other.sum()]
    return _of_counts(counts, len(random_words))


def _of_form(got: Any, ids: Array) -> str | None:
    if not isinstance(got, dict) or set(got) != set(NAMES):
        return f"the result should be a dictionary with the keys {', '.join(NAMES)}"
    for name in NAMES:
        shape = np.asarray(got[name]).shape
        if shape != ids.shape:
            return f"{name} should have the shape of ids, {ids.shape}, and has {shape}"
    return None


def _of_layout(got: Any, ids: Array, special: Special) -> str | None:
    real, segment = ids != special["pad"], np.asarray(got["token_type_ids"])
    if (np.asarray(got["attention_mask"]) != real).any():
        return "attention_mask should be 1 at every real token and 0 at [PAD]: with 1 at [PAD] padding is read"
    sep = ids == special["sep"]
    second = ((sep.cumsum(1) - sep) > 0) & real
    if not segment.any():
        return "token_type_ids are 0 throughout rows that hold two sentences: give B and its [SEP] the segment 1"
    if (segment != second).any():
        return "token_type_ids should be 1 at the words of B and at the second [SEP], and 0 elsewhere, at [PAD] too"
    return None


def _of_labels(got: Any, ids: Array, special: Special, ordinary: Array) -> str | None:
    x, labels = np.asarray(got["input_ids"]), np.asarray(got["labels"])
    chosen, words = labels != -100, np.isin(ids, ordinary)
    if chosen[words].all() and len(ids) >= MANY_ROWS:
        return "every word has a label: outside A(x) the labels should be −100, or the loss is taken on every token"
    masked = chosen & (x == special["mask"])
    if (labels[masked] == special["mask"]).any():
        return "where [MASK] stands the label is [MASK] too: the labels were read after the corruption"
    if (chosen & ~words).any() or (x != ids)[~words].any():
        return "[CLS], [SEP] or [PAD] were selected: leave them out of the candidates"
    if (labels[chosen] != ids[chosen]).any():
        return "a label should be the true id, as it stands in ids: the labels were read after the corruption"
    if (x != ids)[~chosen].any():
        return "x̄ differs from x at positions without a label: outside A(x) nothing changes"
    random_words = x[chosen & (x != ids) & (x != special["mask"])]
    if not np.isin(random_words, ordinary).all():
        return "a random replacement is no ordinary token: draw it from ordinary_ids, without the special ids"
    return None


def _of_counts(counts: Array, different: int) -> str | None:
    words, chosen, masked, random = map(int, counts)
    low, high = binomial_bounds(words, 0.15)
    if not low <= chosen <= high:
        return f"{chosen} of {words} words were selected; with 15 % it would be {low} to {high}"
    for name, count, share in (("[MASK]", masked, 0.8), ("another word", random, 0.1 * (1 - 1 / ORDINARY))):
        low, high = binomial_bounds(chosen, share)
        if not low <= count <= high:
            return f"{count} of {chosen} selected words became {name}; with 80/10/10 it would be {low} to {high}"
    if different < random / 4:
        return f"the {random} random words are only {different} different ones: draw each by itself"
    return None


def _after(batch: Batch, ids: Array, special: Special) -> Batch:
    return {"labels": np.where(batch["labels"] != -100, batch["input_ids"], -100)}


def _padding_read(batch: Batch, ids: Array, special: Special) -> Batch:
    return {"attention_mask": np.ones_like(ids)}


def _first_sep(batch: Batch, ids: Array, special: Special) -> Batch:
    return {"token_type_ids": (((ids == special["sep"]).cumsum(1) > 0) & (ids != special["pad"])).astype(int)}


def _anything(ids: Array, rng: np.random.Generator, special: Special) -> Array:
    return _selected(ids, rng, special, everything=True)


def _one_row(ids: Array, rng: np.random.Generator, special: Special) -> Array:
    candidates = np.isin(ids, [special[name] for name in ("cls", "sep", "pad")], invert=True)
    return candidates & (rng.random(ids.shape[1]) < 0.15)


_SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
_SHORT = {"rng": Rng(3), "special": _SPECIAL, "ordinary_ids": np.arange(5, 15)}


def _wrong(name: str, says: str, **parts: Any) -> Mistake:
    return Mistake(name, lambda ids, rng, special, ordinary_ids: _batch(ids, rng, special, ordinary_ids, **parts), says)


MENDED = CodeTask(
    id="16.10",
    title="Mend a batch",
    points=6,
    concepts=("C22",),
    function="mended_batch",
    reference=_batch,
    draw=_draw_ids,
    rounds=6,
    edges=(
        {"ids": np.array([[2, 7, 3, 8, 9, 3]]), **_SHORT},
        {"ids": np.array([[2, 7, 3, 8, 9, 3, 0, 0], [2, 5, 6, 7, 3, 8, 9, 3]]), **_SHORT},
    ),
    verify=_verify,
    mistakes=(
        _wrong("special tokens and padding selected", "[CLS], [SEP] or [PAD] were selected", choose=_anything),
        _wrong("labels after the corruption", "the labels were read after the corruption", changed=_after),
        _wrong(
            "labels not −100 outside",
            "outside A(x) the labels should be −100",
            changed=lambda batch, ids, special: {"labels": ids},
        ),
        _wrong(
            "random ids from special ids",
            "draw it from ordinary_ids, without the special ids",
            random_ids=lambda ordinary, special: np.arange(max(ordinary.max(), *special.values()) + 1),
        ),
        _wrong(
            "segments all zero",
            "give B and its [SEP] the segment 1",
            changed=lambda batch, ids, special: {"token_type_ids": np.zeros_like(ids)},
        ),
        _wrong("first [SEP] in segment 1", "1 at the words of B and at the second [SEP]", changed=_first_sep),
        _wrong("padding is read", "with 1 at [PAD] padding is read", changed=_padding_read),
        _wrong("[MASK] alone", "became [MASK]; with 80/10/10", shares=(1.0, 1.0)),
        _wrong("one selection for all rows", "all rows have the same positions selected", choose=_one_row),
    ),
    hints=(
        "Go through `broken_batch` line by line and ask of each: which positions, read when, drawn from what? "
        "`x_bar = ids` makes no copy: what is written into one is written into both.",
        "Find the candidates first: every position whose id is not that of [CLS], [SEP] or [PAD]. Take the labels from "
        "`ids` before anything is changed, and only where a position is selected. The segment is 1 once a [SEP] has "
        "come before.",
        "`x_bar = ids.copy()`; `labels = np.where(selected, ids, -100)`; "
        "`other = rng.choice(ordinary_ids, ids.shape)`; "
        'with `sep = ids == special["sep"]`, `sep.cumsum(1) - sep` counts the [SEP] before each position.',
    ),
)

# 16.12 A paired interval


def _half(differences: Array, t: float, ddof: int = 1) -> float:
    return float(t * differences.std(ddof=ddof) / math.sqrt(len(differences)))


def _draw_runs(rng: np.random.Generator) -> Inputs:
    n = int(rng.integers(3, 9))
    luck = rng.normal(0, 0.4, n)
    old = np.round(2 + luck + rng.normal(0, 0.05, n), 3)
    new = np.round(2 + rng.normal(0, 0.3) + luck + rng.normal(0, 0.05, n), 3)
    return {"new": new, "old": old, "t": float(np.round(rng.uniform(2, 5), 3))}


def _unpaired(new: Array, old: Array, t: float) -> tuple[float, float]:
    return float(new.mean() - old.mean()), float(t * math.sqrt((new.var(ddof=1) + old.var(ddof=1)) / len(new)))


PAIRED = CodeTask(
    id="16.12",
    title="A paired interval",
    points=3,
    concepts=("C31",),
    function="paired_interval",
    reference=lambda new, old, t: (float((new - old).mean()), _half(new - old, t)),
    draw=_draw_runs,
    edges=(
        {"new": np.array([1.0, 2.0]), "old": np.array([2.0, 4.0]), "t": 12.706},
        {"new": np.array([1.5, 2.5, 0.5]), "old": np.array([1.0, 2.0, 0.0]), "t": 4.303},
    ),
    mistakes=(
        Mistake(
            "not paired",
            _unpaired,
            "your interval treats the two recipes as if their runs had nothing to do with each other. Take the "
            "difference within each seed first: what the seed does to both runs cancels there",
        ),
        Mistake(
            "the mean of old",
            lambda new, old, t: (float((new - old).mean()), _half(new - old.mean(), t)),
            "your spread is that of `new` alone. The old runs vary with the seed too, and mostly together with the "
            "new ones: take the difference within each seed",
        ),
        Mistake(
            "n in place of n − 1",
            lambda new, old, t: (float((new - old).mean()), _half(new - old, t, ddof=0)),
            "your variance divides by n. The mean was estimated from the same differences, so divide by n − 1 "
            "(`ddof=1` in numpy)",
        ),
        Mistake(
            "one seed",
            lambda new, old, t: (float((new - old)[0]), 0.0),
            "your result is the difference of one seed, without any spread. One seed says nothing about how far "
            "another seed would be from it",
        ),
        Mistake(
            "not divided by √n",
            lambda new, old, t: (float((new - old).mean()), _half(new - old, t) * math.sqrt(len(new))),
            "your half width is that of a single difference. The mean of n differences varies less: divide by √n",
        ),
        Mistake(
            "divided by n",
            lambda new, old, t: (float((new - old).mean()), _half(new - old, t) / math.sqrt(len(new))),
            "your half width is divided by n; the spread of a mean shrinks with √n only",
        ),
        Mistake(
            "the full width",
            lambda new, old, t: (float((new - old).mean()), 2 * _half(new - old, t)),
            "that is the whole width of the interval: the interval is mean ± half width",
        ),
        Mistake(
            "old − new",
            lambda new, old, t: (float((old - new).mean()), _half(new - old, t)),
            "the sign is turned around: the difference is new − old, negative where the new recipe has the lower loss",
        ),
    ),
    hints=(
        "Two runs with one seed began with the same weights. Which number of each pair is free of what they share?",
        "Make an array of the n differences. Everything after that is the interval of one mean: its mean, and t times "
        "the standard deviation divided by √n.",
        "With d = new − old, the half width is `t * d.std(ddof=1) / math.sqrt(len(d))`.",
    ),
)
