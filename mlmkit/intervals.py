"""Error bars: of a mean over seeds, of a difference between runs with the same seeds, of a share of right answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError

LEVEL = 0.95
"""How often an interval holds the true value: a mean if the seeds' results are normally distributed, a probability if
the answers are independent."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half the width of its interval.

    Attributes:
        mean: over the seeds.
        half_width: the interval is mean ± half_width; None with one seed, which says nothing about the spread.
        seeds: how many there were.
    """

    mean: float
    half_width: float | None
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def mean_interval(values: Sequence[float] | NDArray[np.float64], level: float = LEVEL) -> Interval | None:
    """Student's interval of a mean: x̄ ± t_{n−1} · s / √n, with s² = Σ (x − x̄)² / (n − 1).

    Args:
        values: one for each seed; NaN where a run failed, which is left out.
        level: how often the interval is to hold the true mean.

    Returns:
        None if no value is left.

    >>> mean_interval([1.0])
    Interval(mean=1.0, half_width=None, seeds=1)
    """
    found = np.asarray(values, dtype=np.float64)
    found = found[~np.isnan(found)]
    n = len(found)
    if n == 0:
        return None
    if n == 1:
        return Interval(float(found[0]), None, 1)
    from scipy.stats import t

    half_width = t.ppf((1 + level) / 2, n - 1) * found.std(ddof=1) / math.sqrt(n)
    return Interval(float(found.mean()), float(half_width), n)


def paired_interval(
    values: Sequence[float] | NDArray[np.float64],
    reference: Sequence[float] | NDArray[np.float64],
    level: float = LEVEL,
) -> Interval | None:
    """Interval of the mean difference `values` − `reference`, seed by seed.

    Two runs with one seed begin with the same weights and, where their data are the same, read them in the same
    order: what the seed does to both cancels in the difference.

    Args:
        values, reference: one for each seed, in the same order; NaN where a run failed.
        level: as in `mean_interval`.
    """
    return mean_interval(np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64), level)


@dataclass(frozen=True)
class Share:
    """A share of right answers with its interval.

    Attributes:
        value: right answers / all answers.
        low, high: interval of the probability that an answer is right.
        count: of answers.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def share_of(hits: int, count: int, level: float = LEVEL) -> Share:
    """Give a share with Wilson's (1927) binomial interval.

    It stays within 0 and 1, and holds near its ends, where p ± 1.96 √(p(1−p)/n) does not. Answers are taken to be
    independent of each other.

    Raises:
        UserError: nothing was counted.

    >>> print(share_of(8, 10))
    80.0% (49.0% to 94.3%)
    """
    if count < 1:
        raise UserError("a share needs at least one answer, and there is none: give more text")
    from scipy.stats import binomtest

    hits, count = int(hits), int(count)
    found = binomtest(hits, count).proportion_ci(level, method="wilson")
    return Share(hits / count, float(found.low), float(found.high), count)
