"""A mean over random pairs, and how far it may be off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlmkit.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    >>> str(Estimate(1.98437, 0.0031))
    '1.984 ± 0.003'
    """

    mean: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.standard_error:.3f}"


def ratio(total: Tensor, count: Tensor) -> Estimate:
    """Mean of values that come in groups: the words of one pair depend on each other, the pairs do not.

    With t_b the sum of the values in pair b and n_b their number, the mean is r = Σ t_b / Σ n_b, and

        standard error = √(B/(B−1) · Σ (t_b − r n_b)²) / Σ n_b

    (the ratio estimator; Cochran 1977, *Sampling Techniques*, §2.11). To treat the words as independent would
    give too small an error.

    Args:
        total: sum of the values in each pair (B,).
        count: number of values in each pair (B,).

    Raises:
        UserError: fewer than two pairs, or nothing was counted.

    >>> ratio(torch.tensor([1.0, 3.0]), torch.ones(2))
    Estimate(mean=2.0, standard_error=1.0)
    """
    total, count = total.double(), count.double()
    B, n = len(total), float(count.sum())
    if B < 2 or n == 0:
        raise UserError(
            f"a mean with its error needs two pairs and a selected position, got {B} and {n:.0f}: give more"
        )
    mean = float(total.sum()) / n
    spread = float((total - mean * count).square().sum())
    return Estimate(mean, (B / (B - 1) * spread) ** 0.5 / n)


def sum_by_pair(values: Tensor, selected: Tensor) -> Tensor:
    """Add up the values (M,) at the selected positions (B, S) of each pair (B,)."""
    sums = torch.zeros(len(selected), dtype=torch.float64)
    return sums.index_add(0, selected.nonzero()[:, 0], values.double())
