"""The learner's own cases: batches, runs and texts drawn from his name, to be examined in the exercises of set 16.

Each function draws what the question of its task speaks of, so the numbers that a learner measures are those that
the judge knows. What is needed to examine a case can be imported from here too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mlmkit.diagnosis import diagnose, diagnose_batch, plant
from mlmkit.grading.remembering import remembered_learner
from mlmkit.grading.tasks import own_randomness

__all__ = ["diagnose", "diagnose_batch", "form", "held_out_sets", "ngrams", "planted_batches", "planted_run"]

Array = np.ndarray[Any, Any]
Batch = dict[str, Array]


def _own(task_id: str) -> np.random.Generator:
    """The randomness from which the question of this learner is drawn."""
    return own_randomness(remembered_learner(), task_id)


# 16.3 A run with a fault in its loop

LOOP_FAULTS = (
    "two_updates_per_batch",
    "eval_mode",
    "gradients_not_zeroed",
    "loss_on_all_positions",
    "averaged_before_weights",
    "nsp_ignore_index_zero",
)


def draw_run(rng: np.random.Generator) -> tuple[str, int]:
    """The fault of a run, and its seed."""
    return LOOP_FAULTS[rng.integers(len(LOOP_FAULTS))], int(rng.integers(1, 1000))


def planted_run() -> Path:
    """Train 24 updates with your own fault in the loop (task 16.3), under a recorder.

    Returns:
        The folder of the record, for `diagnose`.
    """
    fault, seed = draw_run(_own("16.3"))
    return plant(fault, Path(tempfile.mkdtemp()) / "run", seed)


# 16.4 Batches with a fault

BATCH_FAULTS = (
    "labels_after_corruption",
    "labels_outside_selection",
    "specials_selected",
    "random_from_specials",
    "no_attention_mask",
    "segments_all_zero",
    "nsp_labels_constant",
    "static_masks",
)
PAD, UNK, CLS, SEP, MASK = range(5)


def draw_batches(rng: np.random.Generator) -> tuple[int, list[Batch]]:
    """Which of `BATCH_FAULTS` it is, counted from 0, and the pairs as two epochs show them."""
    number, seed = int(rng.integers(len(BATCH_FAULTS))), int(rng.integers(2**31))
    return number, list(_epochs(BATCH_FAULTS[number], seed))


@cache
def _epochs(fault: str, seed: int) -> tuple[Batch, Batch]:
    from mlmkit.diagnosis import pipeline
    from mlmkit.language import language_named
    from mlmkit.tokenizer import word_tokenizer

    rng = np.random.default_rng(seed)
    tokenizer, right = word_tokenizer(language_named("market").words), pipeline.Pipeline()
    documents = pipeline.sample_documents(tokenizer, int(rng.integers(40, 60)), rng)
    text = pipeline.lay_out(pipeline.pair(documents, rng), tokenizer, right)
    first, second = (_masked(text, fault, rng) for _ in range(2))
    return first, {name: array.copy() for name, array in first.items()} if fault == "static_masks" else second


def _masked(text: Batch, fault: str, rng: np.random.Generator) -> Batch:
    """Select, corrupt and label, with a fault."""
    x = text["true_ids"]
    words = x > MASK
    chosen = (rng.random(x.shape) < 0.15) & (words | (fault == "specials_selected"))
    fate, other = rng.random(x.shape), rng.integers(MASK + 1, x.max() + 1, x.shape)
    if fault == "random_from_specials":
        other = np.where(rng.random(x.shape) < 0.4, rng.integers(0, MASK + 1, x.shape), other)
    corrupted = np.where(chosen, np.where(fate < 0.8, MASK, np.where(fate < 0.9, other, x)), x)
    labels = np.where(chosen | (words & (fault == "labels_outside_selection")), x, -100)
    batch = {**text, "input_ids": corrupted, "labels": labels}
    if fault == "labels_after_corruption":
        batch["labels"] = np.where(chosen, corrupted, -100)
    elif fault == "no_attention_mask":
        batch["attention_mask"] = np.ones_like(x)
    elif fault == "segments_all_zero":
        batch["token_type_ids"] = np.zeros_like(x)
    elif fault == "nsp_labels_constant":
        batch["next_sentence_label"] = np.ones_like(text["next_sentence_label"])
    return batch


def planted_batches() -> list[Batch]:
    """Two batches with your own fault in them (task 16.4): the same pairs, as two epochs show them.

    Returns:
        Dictionaries with `true_ids`, `input_ids`, `labels`, `attention_mask`, `token_type_ids` (B, S) and
        `next_sentence_label` (B,), arrays of integers. [PAD] is 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4.
    """
    return draw_batches(_own("16.4"))[1]


def measured(epochs: Sequence[Batch]) -> list[float]:
    """The eight numbers that task 16.4 asks about, in the order of `BATCH_FAULTS`."""
    batch, later = epochs
    true, x, labels = batch["true_ids"], batch["input_ids"], batch["labels"]
    words, labeled = true > MASK, labels != -100
    sep = true == SEP
    b = ((sep.cumsum(1) - sep) > 0) & (true != PAD)
    holes, holes_later = x == MASK, later["input_ids"] == MASK
    relation = batch["next_sentence_label"]
    return [
        int((labeled & holes & (labels == MASK)).sum()),
        int((words & labeled).sum()),
        int((~words & (x != true)).sum()),
        int((words & (x < MASK)).sum()),
        int(((true == PAD) & (batch["attention_mask"] == 1)).sum()),
        int((b & (batch["token_type_ids"] == 0)).sum()),
        int(max(relation.sum(), len(relation) - relation.sum())),
        int((holes.any(1) & (holes == holes_later).all(1)).sum()),
    ]


# 16.7 A form with two fields

PLACES = ("Lorne", "Milden", "Tarvo", "Quell", "Sandby", "Orrin", "Vesk", "Halm")
COUNTRIES = ("Arland", "Brenia", "Corvia", "Dunmark", "Estrel")


def draw_form(rng: np.random.Generator) -> tuple[list[str], list[str], Array, Array]:
    """Places, countries, how often each pair stands on a thousand forms, and which pairs are possible.

    One country has one large place, which is the most frequent of all; another has several, and is the most frequent
    country. A few forms hold a slip.
    """
    places = [str(name) for name in rng.permutation(PLACES)[:5]]
    countries = [str(name) for name in rng.permutation(COUNTRIES)[:3]]
    possible = np.zeros((5, 3), dtype=bool)
    possible[[0, 1, 2, 3, 4], [0, 1, 1, 1, 2]] = True
    slips = rng.integers(1, 4, (5, 3)) * ~possible
    large = int(rng.integers(290, 331))
    parts = [int(rng.integers(155, 185)) for _ in range(3)]
    counts = slips.copy()
    counts[possible] = [large, *parts, 1000 - large - sum(parts) - int(slips.sum())]
    rows, columns = rng.permutation(5), rng.permutation(3)
    order = np.ix_(rows, columns)
    return [places[i] for i in rows], [countries[i] for i in columns], counts[order], possible[order]


def form() -> tuple[list[str], list[str], Array, Array]:
    """Your own form (task 16.7).

    Returns:
        Places (5), countries (3), how many of a thousand forms hold each pair (5, 3), and whether it is possible.
    """
    return draw_form(_own("16.7"))


# 16.15 Three held-out sets

GRAM = 8
"""Length of the runs of words that are compared."""

Documents = list[list[str]]


def draw_held_out(rng: np.random.Generator) -> tuple[Documents, dict[str, Documents]]:
    """Training documents and three held-out sets, one of which holds altered copies of some of them."""
    from mlmkit.language import language_named

    vocabulary = language_named("market").words
    train = _documents(rng, 60, vocabulary)
    easy = _documents(rng, 15, vocabulary[:8])
    fresh = _documents(rng, 15, vocabulary)
    copied = int(rng.integers(5, 12))
    leaked = [_altered(train[i], rng, vocabulary) for i in rng.permutation(60)[:copied]]
    leaked = [*leaked, *_documents(rng, 15 - copied, vocabulary)]
    sets = [[fresh, easy, leaked][i] for i in rng.permutation(3)]
    return train, {name: [group[i] for i in rng.permutation(15)] for name, group in zip("ABC", sets, strict=True)}


def _documents(rng: np.random.Generator, count: int, words: Sequence[str]) -> Documents:
    return [[str(word) for word in rng.choice(words, rng.integers(30, 41))] for _ in range(count)]


def _altered(document: list[str], rng: np.random.Generator, words: Sequence[str]) -> list[str]:
    """A copy with other words at its beginning and one word in the middle exchanged."""
    new, place = _documents(rng, 1, words)[0][:4], int(rng.integers(14, 20))
    return [*new, *document[4:place], str(rng.choice(words)), *document[place + 1 :]]


def held_out_sets() -> tuple[Documents, dict[str, Documents]]:
    """Your own training documents, and the held-out sets "A", "B" and "C" (task 16.15), as lists of words."""
    return draw_held_out(_own("16.15"))


def ngrams(documents: Documents, n: int = GRAM) -> list[tuple[str, ...]]:
    """All runs of n words within a document, in order, with repetitions."""
    return [tuple(words[i : i + n]) for words in documents for i in range(len(words) - n + 1)]
