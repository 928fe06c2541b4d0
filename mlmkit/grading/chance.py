"""What is drawn for a question, and bounds that a random function must keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from mlmkit.grading.plain import Rng

ERROR = 1e-9
"""Probability with which a right solution leaves the bounds by chance, on either side."""


Option = TypeVar("Option")


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """One of some options."""
    return options[int(rng.integers(len(options)))]


def fresh_seed(rng: np.random.Generator) -> Rng:
    """A generator for the learner's function, seeded anew in each call."""
    return Rng(int(rng.integers(2**31)))


def apart(*values: float, relative: float = 0.02) -> bool:
    """Whether no two numbers are so near that an answer could mean either.

    >>> apart(1.0, 1.5, -1.0), apart(1.0, 1.01)
    (True, False)
    """
    return all(b - a > relative * max(abs(a), abs(b)) + 1e-7 for a, b in pairwise(sorted(values)))


def binomial_bounds(trials: int, probability: float, error: float = ERROR) -> tuple[int, int]:
    """Exact bounds of a count: smaller or larger counts have at most the probability `error` on each side.

    Args:
        trials: independent trials.
        probability: of each.
        error: on each side.

    >>> binomial_bounds(1000, 0.15)
    (87, 221)
    """
    if trials == 0 or probability in (0, 1):
        return round(trials * probability), round(trials * probability)
    k = np.arange(trials)
    ratios = np.log((trials - k) / (k + 1)) + math.log(probability / (1 - probability))  # of Pr(k + 1) to Pr(k)
    law = np.exp(trials * math.log1p(-probability) + np.concatenate([[0.0], np.cumsum(ratios)]))
    low = int(np.searchsorted(np.cumsum(law), error))
    return low, trials - int(np.searchsorted(np.cumsum(law[::-1]), error))
