"""Calibration: of all answers given with probability 0.7, are 70 % right?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlmkit.batches import Batch, to_device
from mlmkit.errors import UserError
from mlmkit.evaluation import evaluation_mode
from mlmkit.intervals import Share, share_of
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence: their mean probability, and how many were right."""

    confidence: float
    accuracy: Share


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of the best answers can be believed.

    Attributes:
        bins: answers sorted by their probability, in parts of equal number.
        confidence: mean probability of the best answer.
        accuracy: how often it was right.
        ece: expected calibration error, the mean of |accuracy − confidence| over all answers, by bins.
        chance: the `ece` that a perfectly calibrated model would show on so many answers, by chance.
    """

    bins: tuple[Bin, ...]
    confidence: float
    accuracy: Share
    ece: float
    chance: float


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> Calibration:
    """Compare the probabilities of some answers with how often they were right (Guo et al. 2017, §2).

        ECE = Σ_b n_b/n · |accuracy(b) − confidence(b)|

    in bins of equal number (Nguyen & O'Connor 2015), so that each is known equally well. Even a perfect model has
    ECE > 0 on a finite sample: with σ_b² = Σ p(1 − p) / n_b² in each bin, about Σ_b n_b/n · σ_b √(2/π); that is
    `chance`. The answers are taken to be independent.

    Args:
        confidence: probability that was given to each answer (n,).
        right: whether it was right (n,).
        bins: how many.

    Raises:
        UserError: lengths differ, a number is no probability, or there are fewer answers than bins.

    >>> reliability([0.5, 0.5, 1.0, 1.0], [True, False, True, True], bins=2).ece
    0.0
    """
    p, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if p.ndim != 1 or p.shape != hits.shape:
        raise UserError(f"each answer needs one probability and one verdict, got shapes {p.shape} and {hits.shape}")
    if not ((p >= 0) & (p <= 1 + 1e-6)).all():
        raise UserError(f"probabilities lie between 0 and 1, got {p.min():.3g} to {p.max():.3g}: softmax the scores")
    if not 1 <= bins <= len(p):
        raise UserError(f"{bins} bins need at least as many answers, and one; got {len(p)}")
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    found = tuple(Bin(float(p[part].mean()), share_of(hits[part].sum(), len(part))) for part in parts)
    weights = [len(part) / len(p) for part in parts]
    spread = [math.sqrt((p[part] * (1 - p[part]).clip(0)).sum()) / len(part) for part in parts]
    return Calibration(
        bins=found,
        confidence=float(p.mean()),
        accuracy=share_of(hits.sum(), len(p)),
        ece=sum(w * abs(b.accuracy.value - b.confidence) for w, b in zip(weights, found, strict=True)),
        chance=sum(w * s for w, s in zip(weights, spread, strict=True)) * math.sqrt(2 / math.pi),
    )


def calibration(
    model: BertForPreTraining, batches: Iterable[Batch], bins: int = 10, mask_id: int | None = None
) -> Calibration:
    """Tell how far the probability of a model's best word can be believed, on held-out text.

    Args:
        model: read without dropout.
        batches: with labels, for example `data.held_out("test")`.
        bins: of equal number.
        mask_id: judge only positions where this token stands, what `fill_mask` is asked about; None: all that were
            selected, those with a random or the true word too.

    Raises:
        UserError: fewer answers than bins.
    """
    confidence, right = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    device = next(model.parameters()).device
    with evaluation_mode(model):
        for b in (to_device(batch, device) for batch in batches):
            selected = b["labels"] != IGNORE  # (B, S)
            if mask_id is not None:
                selected &= b["input_ids"] == mask_id
            output = model(b["input_ids"], b["token_type_ids"], b["attention_mask"], selected)
            best, word = output.mlm_logits.float().softmax(-1).max(-1)  # (M,)
            confidence.append(best.cpu().double().numpy())
            right.append((word == b["labels"][selected]).cpu().numpy())
    return reliability(np.concatenate(confidence), np.concatenate(right), bins)
