"""How good are the answers: everything is read off the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def confusion_matrix(truth: Counts, answers: Counts, labels: int) -> Counts:
    """Count how often label j was answered where i is true (K, K).

    Args:
        truth: true labels (N,).
        answers: labels answered (N,).
        labels: number of labels K.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), labels=2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(truth * labels + answers, minlength=labels * labels).reshape(labels, labels)


@dataclass(frozen=True, eq=False)
class Scores:
    """What a classifier got right and wrong on a part.

    Attributes:
        confusion: how often label j was answered where i is true (K, K); of texts, or of words.
    """

    confusion: Counts

    @property
    def count(self) -> int:
        """Number of answers."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def macro_f1(self) -> float:
        """Mean over the labels of F1 = 2 · right / (true + answered).

        Each label counts the same, however rare it is. A label that neither occurs nor is answered is left out.
        """
        right = self.confusion.diagonal()
        both = self.confusion.sum(0) + self.confusion.sum(1)
        return float((2 * right[both > 0] / both[both > 0]).mean())

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "confusion": self.confusion.tolist()}
