"""Functions to write about a run: when to stop, how large a step, one update for both losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmkit.config import TrainConfig
from mlmkit.grading.comparing import Tolerance
from mlmkit.grading.tasks import CodeTask, Mistake
from mlmkit.optimization import learning_rate

Array = np.ndarray[Any, Any]
Curve = Sequence[float]


# 11.6 When to stop


def _stop(held_out: Curve, training: Curve, patience: int) -> tuple[int, int]:
    best = 0
    for k, loss in enumerate(held_out):
        if loss < held_out[best]:
            best = k
        if k - best == patience:
            return best, k
    return best, len(held_out) - 1


def _never_reset(held_out: Curve, training: Curve, patience: int) -> tuple[int, int]:
    best = failed = 0
    for k in range(1, len(held_out)):
        if held_out[k] < held_out[best]:
            best = k
        else:
            failed += 1
        if failed == patience:
            return best, k
    return best, len(held_out) - 1


def _against_previous(held_out: Curve, training: Curve, patience: int) -> tuple[int, int]:
    rises = 0
    for k in range(1, len(held_out)):
        rises = 0 if held_out[k] < held_out[k - 1] else rises + 1
        if rises == patience:
            return int(np.argmin(held_out[: k + 1])), k
    return int(np.argmin(held_out)), len(held_out) - 1


def _case(held_out: Curve, training: Curve, patience: int) -> dict[str, Any]:
    return {"held_out": held_out, "training": training, "patience": patience}


def _draw_curves(rng: np.random.Generator) -> dict[str, Any]:
    n = int(rng.integers(5, 16))
    turn = int(rng.integers(1, n + 3))
    way = np.abs(np.arange(n) - turn) * rng.uniform(0.03, 0.3) + rng.normal(0, 0.15, n)
    training = 7 - 4 * np.arange(n) / n - rng.uniform(0, 0.2, n)
    held, seen = ([round(float(x), 3) for x in curve] for curve in (4 + way, training))
    return _case(held, seen, int(rng.integers(1, 5)))


STOP = CodeTask(
    id="11.6",
    title="Stop in time",
    points=4,
    concepts=("C27",),
    function="stop",
    reference=_stop,
    draw=_draw_curves,
    rounds=25,
    edges=(
        _case([7.0, 5.0, 4.0, 4.5, 4.4, 4.6, 3.0], [7.0, 5.0, 3.5, 3.0, 2.5, 2.0, 1.5], 3),
        _case([5.0, 4.0, 3.0], [5.0, 4.0, 3.1], 2),
        _case([5.0, 4.0, 4.0, 4.0, 3.0], [5.0, 4.0, 3.0, 2.0, 1.0], 2),
        _case([5.0, 6.0, 4.0, 4.5, 3.0, 3.5, 3.4, 2.0], [5.0, 4.0, 3.5, 3.0, 2.9, 2.5, 2.0, 1.0], 2),
        _case([4.0], [4.0], 1),
        _case([4.0, 5.0, 6.0], [4.0, 3.0, 2.0], 1),
    ),
    mistakes=(
        Mistake(
            "training loss",
            lambda held_out, training, patience: _stop(training, training, patience),
            "you stop by the training loss: it goes on falling while the model learns its text by heart. Only text "
            "that was kept from training shows the turn",
        ),
        Mistake(
            "best of the whole curve",
            lambda held_out, **rest: (int(np.argmin(held_out)), _stop(held_out, **rest)[1]),
            "your best evaluation may lie after the stop: a run that has stopped never gets there",
        ),
        Mistake(
            "the last model",
            lambda **curves: (_stop(**curves)[1],) * 2,
            "you keep the last model: it has had `patience` evaluations without a new lowest loss since the best one",
        ),
        Mistake(
            "one evaluation late",
            lambda held_out, training, patience: _stop(held_out, training, patience + 1),
            "you stop one evaluation late: `patience` evaluations in a row without a new lowest loss are enough",
        ),
        Mistake(
            "count never starts anew",
            _never_reset,
            "your count goes on after a new lowest loss; it must begin at 0 again, since the evaluations count in a "
            "row",
        ),
        Mistake(
            "against the previous one",
            _against_previous,
            "you compare with the evaluation before; a loss that falls a little after a rise is still no new lowest",
        ),
        Mistake(
            "equal is new",
            lambda held_out, **rest: _stop([loss - 1e-9 * k for k, loss in enumerate(held_out)], **rest),
            "an equal loss counts as a new lowest in your function; it must be lower",
        ),
    ),
    hints=(
        "Which of the two curves shows that a model gets worse on text that it has not read?",
        "Go through the held-out losses and remember the index of the lowest so far. How many evaluations ago was it?",
        "Inside the loop: `if held_out[k] < held_out[best]: best = k`, and stop as soon as `k - best` is `patience`.",
    ),
)


# 11.7 The learning rate


def _rate(step: int, peak: float, warmup: int, total: int) -> float:
    return learning_rate(step, TrainConfig(lr=peak, warmup_steps=warmup, max_steps=total))


def _from_zero(step: int, peak: float, warmup: int, total: int) -> float:
    return peak * step / warmup if step < warmup else _rate(step, peak, warmup, total)


def _fall_from_start(step: int, peak: float, warmup: int, total: int) -> float:
    return _rate(step, peak, warmup, total) if step < warmup else peak * (total - step) / total


def _fall_too_long(step: int, peak: float, warmup: int, total: int) -> float:
    return _rate(step, peak, warmup, total) if step < warmup else peak * (1 - (step - warmup) / total)


def _draw_rate(rng: np.random.Generator) -> dict[str, Any]:
    total = int(rng.integers(20, 2000))
    warmup = int(rng.integers(2, total // 2))
    step = int(rng.integers(0, warmup) if rng.random() < 0.4 else rng.integers(warmup, total))
    return {"step": step, "peak": float(rng.choice([1.0, 0.004, 1e-3])), "warmup": warmup, "total": total}


RATE = CodeTask(
    id="11.7",
    title="Up, then down",
    points=3,
    concepts=(),
    function="rate",
    reference=_rate,
    draw=_draw_rate,
    rounds=20,
    edges=(
        {"step": 0, "peak": 1.0, "warmup": 10, "total": 110},
        {"step": 9, "peak": 1.0, "warmup": 10, "total": 110},
        {"step": 10, "peak": 1.0, "warmup": 10, "total": 110},
        {"step": 109, "peak": 1.0, "warmup": 10, "total": 110},
        {"step": 0, "peak": 2.0, "warmup": 0, "total": 5},
        {"step": 4, "peak": 2.0, "warmup": 0, "total": 5},
        {"step": 3, "peak": 1.0, "warmup": 4, "total": 5},
        {"step": 4, "peak": 1.0, "warmup": 4, "total": 5},
    ),
    tolerance=Tolerance(relative=1e-4, absolute=1e-9),
    mistakes=(
        Mistake(
            "first update with rate 0",
            _from_zero,
            "your first update has the rate 0 and does nothing: during the warm-up the rate is (step + 1)/warmup of "
            "the peak",
        ),
        Mistake(
            "no fall",
            lambda step, peak, warmup, total: peak * min(1.0, (step + 1) / max(warmup, 1)),
            "your rate stays at the peak after the warm-up; it should fall to 0 in a straight line",
        ),
        Mistake(
            "fall counted from 0",
            _fall_from_start,
            "your rate jumps down at the end of the warm-up: the fall lasts total − warmup updates, not total",
        ),
        Mistake(
            "fall too slow",
            _fall_too_long,
            "your rate does not come down to 0: after the warm-up only total − warmup updates are left to fall in",
        ),
        Mistake(
            "no warm-up",
            lambda step, peak, warmup, total: peak * (total - step) / total,
            "your rate starts at the peak: large steps at the beginning can wreck the network",
        ),
    ),
    hints=(
        "Two straight lines. Which values have they at both ends?",
        "Up: one part in `warmup` more at each update, the first update already has one part. Down: the share of the "
        "updates after the warm-up that are still to come.",
        "`peak * (step + 1) / warmup` while `step < warmup`; then `peak * (total - step) / …`.",
    ),
)


# 11.8 One update of AdamW


def _adamw(
    theta: Array, grad: Array, m: Array, v: Array, t: int, rate: float, decay: float
) -> tuple[Array, Array, Array]:
    m = 0.9 * m + 0.1 * grad
    v = 0.98 * v + 0.02 * grad**2
    step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.98**t)) + 1e-6)
    return (1 - rate * decay) * theta - rate * step, m, v


def _one_update(theta: Array, grad_mlm: Array, grad_nsp: Array, **rest: Any) -> tuple[Array, Array, Array]:
    return _adamw(theta, grad_mlm + grad_nsp, **rest)


def _two_updates(
    theta: Array, grad_mlm: Array, grad_nsp: Array, m: Array, v: Array, t: int, **rest: Any
) -> tuple[Array, Array, Array]:
    theta, m, v = _adamw(theta, grad_mlm, m, v, t, **rest)
    return _adamw(theta, grad_nsp, m, v, t, **rest)


def _two_counted(
    theta: Array, grad_mlm: Array, grad_nsp: Array, m: Array, v: Array, t: int, **rest: Any
) -> tuple[Array, Array, Array]:
    theta, m, v = _adamw(theta, grad_mlm, m, v, t, **rest)
    return _adamw(theta, grad_nsp, m, v, t + 1, **rest)


def _decay_in_gradient(
    theta: Array, grad_mlm: Array, grad_nsp: Array, decay: float, **rest: Any
) -> tuple[Array, Array, Array]:
    return _adamw(theta, grad_mlm + grad_nsp + decay * theta, decay=0.0, **rest)


def _uncorrected(theta: Array, grad_mlm: Array, grad_nsp: Array, t: int, **rest: Any) -> tuple[Array, Array, Array]:
    return _adamw(theta, grad_mlm + grad_nsp, t=10**6, **rest)


def _squares_apart(
    theta: Array, grad_mlm: Array, grad_nsp: Array, m: Array, v: Array, t: int, rate: float, decay: float
) -> tuple[Array, Array, Array]:
    m = 0.9 * m + 0.1 * (grad_mlm + grad_nsp)
    v = 0.98 * v + 0.02 * (grad_mlm**2 + grad_nsp**2)
    step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.98**t)) + 1e-6)
    return (1 - rate * decay) * theta - rate * step, m, v


def _draw_update(rng: np.random.Generator) -> dict[str, Any]:
    n, t = int(rng.integers(2, 6)), int(rng.integers(1, 12))
    first = t == 1
    return {
        "theta": rng.normal(0, 1, n),
        "grad_mlm": rng.normal(0, 1, n),
        "grad_nsp": rng.normal(0, rng.choice([0.05, 1.0]), n),
        "m": np.zeros(n) if first else rng.normal(0, 0.5, n),
        "v": np.zeros(n) if first else rng.uniform(0.01, 1, n),
        "t": t,
        "rate": float(rng.choice([0.05, 0.1, 0.2])),
        "decay": float(rng.choice([0.01, 0.1, 0.3])),
    }


_BLANK = {"m": np.zeros(2), "v": np.zeros(2), "t": 1, "rate": 0.1, "decay": 0.1}

UPDATE = CodeTask(
    id="11.8",
    title="One update for both losses",
    points=5,
    concepts=("C25",),
    function="one_update",
    reference=_one_update,
    draw=_draw_update,
    edges=(
        {"theta": np.array([1.0, -2.0]), "grad_mlm": np.array([0.5, 0.5]), "grad_nsp": np.array([0.5, -1.5]), **_BLANK},
        {
            "theta": np.array([1.0, -2.0]),
            "grad_mlm": np.array([0.4, -3.0]),
            "grad_nsp": np.array([-0.4, 3.0]),
            **_BLANK,
        },
        {
            "theta": np.array([1.0, 1.0]),
            "grad_mlm": np.array([2e-6, 1e-6]),
            "grad_nsp": np.array([1e-6, 0.0]),
            **_BLANK,
        },
        {"theta": np.array([1.0, 1.0]), "grad_mlm": np.zeros(2), "grad_nsp": np.zeros(2), **_BLANK},
    ),
    tolerance=Tolerance(relative=1e-5, absolute=1e-7),
    mistakes=(
        Mistake(
            "two updates",
            _two_updates,
            "you make two updates, one for MLM and then one for NSP. Both gradients were taken at the same θ: add them "
            "first. Adam also blows the second, small gradient up to a step of full length",
        ),
        Mistake(
            "two updates, counted",
            _two_counted,
            "you make two updates, one for MLM and then one for NSP, and count both. There is one batch, one sum and "
            "one update; with two, Adam blows the second, small gradient up to a step of full length",
        ),
        Mistake(
            "average",
            lambda grad_mlm, grad_nsp, **rest: _adamw(grad=(grad_mlm + grad_nsp) / 2, **rest),
            "you average the two gradients; the loss is the sum, so its gradient is the sum",
        ),
        Mistake(
            "decay in the gradient",
            _decay_in_gradient,
            "you put the decay into the gradient, where Adam divides it away with the rest; AdamW shrinks θ directly",
        ),
        Mistake(
            "averages not corrected",
            _uncorrected,
            "you use m and v as they are; they began at 0 and are too small at first: divide by 1 − 0.9^t and 1 − "
            "0.98^t",
        ),
        Mistake(
            "squares of the parts",
            _squares_apart,
            "your v adds the squares of both gradients; it is the square of their sum that belongs there",
        ),
    ),
    hints=(
        "How many gradients does the optimizer see for one batch?",
        "Add both gradients first. Then m, v, the two corrected averages, and the new θ, in this order.",
        "`g = grad_mlm + grad_nsp`, `m = 0.9 * m + 0.1 * g`, `v = 0.98 * v + 0.02 * g**2`; then the formula for θ, "
        "with the new m and v.",
    ),
)

TASKS = (STOP, RATE, UPDATE)
