"""When is a count too large to be chance: one exact binomial test, and one level of false alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FALSE_ALARM = 1e-6
"""How often a check of a healthy batch may name a fault by chance."""


def surprising(count: int, n: int, p: float) -> bool:
    """Tell whether Pr(X ≥ count) < `FALSE_ALARM` for X binomial with n trials of probability p.

    >>> surprising(9, 10, 0.1), surprising(3, 10, 0.1)
    (True, False)
    """
    from scipy.stats import binom

    return count > 0 and bool(binom.sf(count - 1, n, p) < FALSE_ALARM)


def surprising_together(count: int, chances: Sequence[float]) -> bool:
    """The same for trials whose probabilities differ: the law of their sum is made one trial at a time.

    >>> surprising_together(5, [1 / 28] * 5), surprising_together(2, [0.1] * 10)
    (True, False)
    """
    law = np.ones(1)  # law[k] = Pr(k successes so far)
    for p in chances:
        law = np.convolve(law, [1 - p, p])
    return count > 0 and bool(law[count:].sum() < FALSE_ALARM)


def needed(p: float) -> int:
    """Number of trials from which n successes of n are surprising: fewer cannot prove anything.

    >>> needed(0.5), needed(0.0)
    (20, 1)
    """
    if p >= 1:
        raise ValueError(f"successes of probability {p} are never surprising")
    return 1 if p <= 0 else math.floor(math.log(FALSE_ALARM) / math.log(p)) + 1
