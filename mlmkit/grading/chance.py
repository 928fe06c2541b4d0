"""Bounds that a random function must keep: so wide that chance alone does not leave them."""

from __future__ import annotations

import math

import numpy as np

ERROR = 1e-9
"""Probability with which a right solution leaves the bounds by chance, on either side."""


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
