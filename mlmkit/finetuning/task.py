"""A task with known answers: three parts of examples, and the names of the labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError

Kind = Literal["sentence", "pair", "tokens"]
"""What is labeled: a sentence, a pair of sentences, or every word of a sentence."""
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """What is read, and what is to be said about it.

    Attributes:
        text: one sentence, two sentences, or the words of a sentence.
        labels: numbers of labels: one for the text, or one for each word.
    """

    text: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """Labeled examples in three parts.

    Training reads `train`; `validation` decides when to stop and what to keep; `test` is looked at once, at the end.

    Args:
        name: shown in results.
        kind: what is labeled.
        labels: names of the labels, sorted; label k of an example is `labels[k]`.
        train, validation, test: the examples.
        notes: what a reader of the results should know about the parts.

    Raises:
        UserError: a part is empty, or the training part has fewer than two labels.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in PARTS:
            if not getattr(self, part):
                raise UserError(f"{self.name}: the {part} part has no example; give a file that has some")
        seen = sorted(set(truth(self.train).tolist()))
        if len(seen) < 2:
            only = self.labels[seen[0]]
            raise UserError(f"{self.name}: every training example has the label {only!r}; a task needs at least two")

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that identify examples and labels."""
        digest = hashlib.blake2b(json.dumps([self.kind, self.labels]).encode(), digest_size=8)
        for part in PARTS:
            for example in getattr(self, part):
                digest.update(json.dumps([part, example.text, example.labels]).encode())
        return digest.hexdigest()

    @cached_property
    def duplicates(self) -> int:
        """How many test examples have a text that is also in the training part: their answer may be remembered."""
        seen = {example.text for example in self.train}
        return sum(example.text in seen for example in self.test)

    def subset(self, examples: int, seed: int = 0) -> Task:
        """The same task with so few training examples, drawn at random; for learning curves over labeled data.

        Raises:
            UserError: there are not so many.
        """
        if not 1 <= examples <= len(self.train):
            raise UserError(f"{self.name} has {len(self.train)} training examples; cannot take {examples} of them")
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.train))[:examples])
        train = tuple(self.train[i] for i in rows)
        note = f"{examples} of {len(self.train)} training examples, drawn with seed {seed}"
        return Task(self.name, self.kind, self.labels, train, self.validation, self.test, (*self.notes, note))

    def __str__(self) -> str:
        counts = Counter(truth(self.train).tolist())
        shares = ", ".join(f"{name} {counts[k] / counts.total():.0%}" for k, name in enumerate(self.labels))
        lines = [
            f"{self.name}: {self.kind} classification, {len(self.labels)} labels ({shares} of the training part)",
            "  " + ", ".join(f"{part} {len(getattr(self, part)):,}" for part in PARTS),
        ]
        if self.duplicates:
            lines.append(f"  {self.duplicates} of the {len(self.test):,} test texts are also in the training part")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def truth(examples: Iterable[Example]) -> NDArray[np.int64]:
    """All labels of some examples, one after the other (units,): of texts, or of words."""
    return np.array([label for example in examples for label in example.labels], dtype=np.int64)


def split_off(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Divide examples at random into the rest and a share of them, both in their old order.

    Raises:
        UserError: there are too few.
    """
    count = round(share * len(examples))
    if count < 1:
        raise UserError(f"{len(examples)} examples are too few to hold a tenth out; name a file with validation=")
    taken = set(np.random.default_rng(seed).permutation(len(examples))[:count].tolist())
    return [e for i, e in enumerate(examples) if i not in taken], [examples[i] for i in sorted(taken)]
