"""What the curve of a run gives away: a divergence without warm-up, and a loss that sits at the unigram entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmkit.config import RunConfig
from mlmkit.diagnosis.findings import Diagnosis, Finding, check, found, merge
from mlmkit.history import History

NEAR_PEAK = 0.9
"""The warm-up is over at this share of the highest learning rate."""
SHORTEST_WARMUP = 10
"""A peak that is reached after fewer updates was not warmed up to."""
RISE, SPIKE = 0.5, 1.0
"""How far above its start a diverging loss ends, or leaps without recovering, in nats."""
PATIENCE = 300
"""So many updates after the warm-up a healthy model may still sit at the unigram entropy."""
BELOW, ABOVE = 0.05, 0.15
"""Nats around the unigram entropy that count as being at it."""


@dataclass(frozen=True)
class Curve:
    """The MLM loss of a run.

    Attributes:
        steps: updates done at each point, ascending (n,).
        losses: training loss there, of one update or the mean of the last few, in nats (n,); may be NaN.
        warmup: updates until the learning rate first comes near its peak (`warmup_updates`); None: not known.
        unigram: loss of a model that knows the frequencies of the training text only, in nats; None: not known.
        other_text: how far from `unigram` that of the training text may lie, if it was measured on other text.
        held_out: (updates done, loss) of the evaluations; `unigram` must then be that of the held-out text.
    """

    steps: Sequence[int]
    losses: Sequence[float]
    warmup: int | None = None
    unigram: float | None = None
    other_text: float = 0.0
    held_out: tuple[tuple[int, float], ...] = ()

    @property
    def start(self) -> float:
        """The loss before the first update: measured on held-out text, or else the first that was recorded.

        A leap in the first updates hides in a mean over them.
        """
        return self.held_out[0][1] if self.held_out and self.held_out[0][0] == 0 else float(self.losses[0])


def warmup_updates(rates: Sequence[float]) -> int:
    """Number of updates before the learning rate first comes near its highest value.

    >>> warmup_updates([0.1, 0.5, 1.0, 0.8]), warmup_updates([1.0, 0.9, 0.8])
    (2, 0)
    """
    highest = max(rates)
    return next(at for at, rate in enumerate(rates) if rate >= NEAR_PEAK * highest)


def curve_of(history: History) -> Curve:
    """The curve of a run of `pretrain`.

    The baselines of a run are those of its validation part; word frequencies of the training part differ a little.
    """
    train = RunConfig.from_dict(history.config).train
    return Curve(
        steps=[int(window["step"]) for window in history.training],
        losses=[window["mlm"] for window in history.training],
        warmup=math.ceil(NEAR_PEAK * train.warmup_steps),
        unigram=history.baselines.unigram_cross_entropy,
        other_text=0.2,
        held_out=tuple((e.step, e.mlm_loss) for e in history.evaluations),
    )


def check_curve(curve: Curve) -> Diagnosis:
    """Look for both faults that a curve can show."""
    outcomes = {
        "no_warmup_divergence": divergence_without_warmup(curve),
        "stuck_at_unigram": stuck_at_unigram(curve),
    }
    return merge(*(check(fault, outcome) for fault, outcome in outcomes.items()))


def divergence_without_warmup(curve: Curve) -> Finding | str | None:
    """Look for a loss that is not finite, ends above its start, or leaps and never comes below the unigram entropy."""
    if len(curve.losses) < 2:
        return "fewer than two losses were recorded"
    if curve.warmup is None:
        return "the learning rates are not known"
    if curve.warmup >= SHORTEST_WARMUP:
        return None
    losses = np.asarray(curve.losses, dtype=float)
    peak = f"the learning rate was at its peak after {curve.warmup} updates"
    if not np.isfinite(losses).all():
        step = int(np.asarray(curve.steps)[~np.isfinite(losses)][0])
        return found("no_warmup_divergence", f"{peak}, and the loss was not finite at update {step}", step)
    start, top = curve.start, float(losses.max())
    end = float(_tail(curve, int(curve.steps[-1] - curve.steps[0]) // 4).mean())
    ground = start if curve.unigram is None else curve.unigram - BELOW - curve.other_text
    if end > start + RISE or (top > start + SPIKE and end > ground):
        text = f"{peak}; the loss began at {start:.2f}, rose to {top:.2f} and stood at {end:.2f} in the last quarter"
        return found("no_warmup_divergence", text, max(top, end) - start)
    return None


def stuck_at_unigram(curve: Curve) -> Finding | str | None:
    """Look for a loss that stays near the unigram entropy long after the warm-up, and does not fall."""
    if curve.unigram is None:
        return "the unigram entropy of the text is not known"
    if not len(curve.losses):
        return "no loss was recorded"
    updates = int(curve.steps[-1]) - (curve.warmup or 0)
    if updates < PATIENCE:
        return f"{PATIENCE} updates after the warm-up are needed to tell, there are {max(updates, 0)}"
    recent = _tail(curve, PATIENCE)
    level, u = float(recent.mean()), curve.unigram
    falling = recent[: len(recent) // 2].mean() - recent[len(recent) // 2 :].mean() > BELOW
    if falling or not _at(level, u, curve.other_text):
        return None
    held_out = [loss for _, loss in curve.held_out]
    if held_out and not (_at(held_out[-1], u) and min(held_out) > u - BELOW):
        return None
    text = f"over the last {PATIENCE} updates the MLM loss is {level:.3f} nats, and the unigram entropy is {u:.3f}"
    return found("stuck_at_unigram", text, level - u)


def _at(loss: float, unigram: float, other_text: float = 0.0) -> bool:
    return -BELOW - other_text < loss - unigram < ABOVE + other_text


def _tail(curve: Curve, updates: int) -> NDArray[np.float64]:
    """The losses of the last so many updates; at least the last one."""
    steps = np.asarray(curve.steps)
    return np.asarray(curve.losses, dtype=float)[steps >= min(steps[-1] - updates + 1, steps[-1])]
