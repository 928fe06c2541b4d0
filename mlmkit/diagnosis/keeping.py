"""What is kept of a loop of any length in bounded memory: its first batches, and a thinned curve of its losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmkit.batches import Batch
from mlmkit.evaluation import unigram_entropy
from mlmkit.masking import IGNORE

NAMES = ("input_ids", "token_type_ids", "attention_mask", "labels", "next_sentence_label")
ROWS = 64
"""Pairs that are kept of a batch: enough for every test, and a bound on the size of the record."""
POINTS = 2000
"""Longest curve; one that has grown longer is halved."""


@dataclass
class KeptBatches:
    """The first batches, and of later ones those rows that hold the same text again, as in the next epoch.

    Args:
        limit: how many first batches, and how many later ones.
        pad_id: id of [PAD].
    """

    limit: int
    pad_id: int
    first: list[Batch] = field(default_factory=list)
    again: list[Batch] = field(default_factory=list)
    texts: set[bytes] = field(default_factory=set)

    def add(self, batch: Mapping[str, Any]) -> None:
        """Keep a batch if there is still something to learn from it."""
        early = len(self.first) < self.limit
        if not early and (len(self.again) == self.limit or not self.texts):
            return
        kept = {name: torch.as_tensor(batch[name]).detach().cpu() for name in NAMES if batch.get(name) is not None}
        if "input_ids" not in kept or kept["input_ids"].dim() != 2:
            return
        texts = self._texts(kept)
        if early:
            rows = list(range(min(ROWS, len(texts))))
            self.texts |= {texts[i] for i in rows}
        else:
            rows = [i for i, text in enumerate(texts) if text in self.texts][:ROWS]
        if rows:
            part = {
                name: values[rows].long().clone() for name, values in kept.items() if values.shape[:1] == (len(texts),)
            }
            (self.first if early else self.again).append(part)

    def _texts(self, batch: Batch) -> list[bytes]:
        """What each row said before the corruption, without padding."""
        ids = batch["input_ids"].numpy()
        labels = batch["labels"].numpy() if "labels" in batch else np.full_like(ids, IGNORE)
        true = np.where(labels != IGNORE, labels, ids) if labels.shape == ids.shape else ids
        return [row[row != self.pad_id].tobytes() for row in true.astype(np.int64)]


@dataclass
class KeptCurve:
    """Losses and learning rates of all updates: means over windows whose length doubles when there are too many."""

    rows: list[dict[str, float]] = field(default_factory=list)
    waiting: list[tuple[int, float, dict[str, Tensor]]] = field(default_factory=list)
    window: list[dict[str, float]] = field(default_factory=list)
    stride: int = 1

    def add(self, step: int, lr: float, losses: dict[str, Tensor]) -> None:
        """Note an update; the losses stay on their device until `read`, so that no update waits for them."""
        self.waiting.append((step, lr, losses))

    def read(self) -> None:
        """Fetch the losses that were noted, and thin the curve."""
        for step, lr, losses in self.waiting:
            self.window.append({"step": step, "lr": lr, **{name: float(loss) for name, loss in losses.items()}})
            if len(self.window) == self.stride:
                self.rows.append(_mean(self.window))
                self.window = []
            if len(self.rows) == POINTS:
                self.rows = [_mean(self.rows[i : i + 2]) for i in range(0, POINTS, 2)]
                self.stride *= 2
        self.waiting = []


@dataclass
class KeptLabels:
    """How often each token was a label, and what that says about the unigram entropy."""

    counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, labels: Tensor | None) -> None:
        """Count the labels of a pass (N,), those that are ignored left out."""
        if labels is None:
            return
        new = torch.bincount(labels[labels >= 0].cpu(), minlength=len(self.counts))
        new[: len(self.counts)] += self.counts
        self.counts = new

    @property
    def total(self) -> int:
        """Number of labels counted."""
        return int(self.counts.sum())

    def entropy(self) -> float | None:
        """Entropy of the labels' frequencies, in nats; frequencies of few labels show too little of it.

        With m different tokens among n labels the entropy of the counts falls short by about (m − 1) / 2n (Miller
        1955), which is added.
        """
        if not self.total:
            return None
        different = int((self.counts > 0).sum())
        return unigram_entropy(self.counts.numpy()) + (different - 1) / (2 * self.total)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """One row for several: the last step, the largest learning rate, the mean of each loss."""
    means = {}
    for name in ("mlm", "nsp"):
        values = [row[name] for row in rows if name in row]
        if values:
            means[name] = sum(values) / len(values)
    return {"step": rows[-1]["step"], "lr": max(row["lr"] for row in rows), **means}
