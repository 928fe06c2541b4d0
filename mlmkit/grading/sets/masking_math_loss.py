"""The loss as a function to write: which positions it is taken on, and what it is divided by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmkit.grading.plain import Torch
from mlmkit.grading.tasks import CodeTask, Mistake

IGNORE = -100


def _log_pr(logits: Any) -> Any:
    return logits - logits.logsumexp(-1, keepdim=True)


def _each(logits: Any, labels: Any) -> Any:
    """−log Pr of every label, with 0 in place of −100."""
    return -_log_pr(logits).gather(-1, labels.clamp(min=0)[..., None])[..., 0]


def _mlm_loss(logits: Any, labels: Any) -> Any:
    selected = labels != IGNORE
    return (_each(logits, labels) * selected).sum() / selected.sum().clamp(min=1)


def _first_only(logits: Any, labels: Any) -> Any:
    selected = labels != IGNORE
    return _each(logits, labels)[selected][:1].sum()


def _last_only(logits: Any, labels: Any) -> Any:
    selected = labels != IGNORE
    return _each(logits, labels)[selected][-1:].sum()


def _mean_of_means(logits: Any, labels: Any) -> Any:
    selected = labels != IGNORE
    sums, counts = (_each(logits, labels) * selected).sum(1), selected.sum(1)
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def _ignore_zero(logits: Any, labels: Any) -> Any:
    selected = (labels != IGNORE) & (labels != 0)
    return (_each(logits, labels) * selected).sum() / selected.sum().clamp(min=1)


def _zero_over_zero(logits: Any, labels: Any) -> Any:
    selected = labels != IGNORE
    return _each(logits, labels)[selected].mean()


TOO_LATE = (
    "the average is taken before the weights: then the weights cancel, and the unselected positions stay in it. Keep "
    "the loss of each position apart, weight, add, and divide last"
)


def _draw_logits(rng: np.random.Generator) -> dict[str, Any]:
    batch, length, size = (int(n) for n in rng.integers((1, 2, 3), (5, 8, 9)))
    labels = rng.integers(0, size, (batch, length))
    labels[rng.random(labels.shape) < rng.choice([0.3, 0.7])] = IGNORE
    labels[rng.integers(batch), rng.integers(length)] = rng.integers(size)
    logits = rng.normal(scale=3, size=(batch, length, size)).astype(np.float32)
    return {"logits": Torch(logits), "labels": Torch(labels.astype(np.int64))}


def _labeled(*rows: Sequence[int], seed: int) -> dict[str, Any]:
    labels = np.array(rows, dtype=np.int64)
    logits = np.random.default_rng(seed).normal(scale=3, size=(*labels.shape, 5)).astype(np.float32)
    return {"logits": Torch(logits), "labels": Torch(labels)}


LOSS = CodeTask(
    id="02.10",
    title="The loss",
    points=5,
    concepts=("C10",),
    function="mlm_loss",
    reference=_mlm_loss,
    draw=_draw_logits,
    edges=(
        _labeled((-100, 2, -100, 4), seed=1),
        _labeled((-100, 1, -100), (3, 2, 4), seed=2),
        _labeled((0, -100, 0), (-100, -100, 3), seed=3),
        _labeled((-100, -100), (-100, -100), seed=4),
        _labeled((-100, 2, -100), seed=6),
        _labeled((1, -100), (-100, -100), (2, 3), seed=5),
    ),
    mistakes=(
        Mistake(
            "nothing selected",
            _zero_over_zero,
            "where nothing is selected your function divides 0 by 0, which is nan, and one nan ends a training run. "
            "The loss is 0 there: divide by at least 1",
        ),
        Mistake(
            "one token",
            _first_only,
            "your loss is that of the first selected token alone. The sum runs over all of A(x): the others were "
            "hidden for nothing, and no gradient reaches them",
        ),
        Mistake(
            "one token, the last",
            _last_only,
            "your loss is that of the last selected token alone. The sum runs over all of A(x): the others were "
            "hidden for nothing, and no gradient reaches them",
        ),
        Mistake(
            "every token",
            lambda logits, labels: _each(logits, labels).mean(),
            "your loss is taken on every position, with 0 in place of −100: where nothing was selected the model is "
            "pushed to say token 0. The loss is taken on the selected positions only",
        ),
        Mistake(
            "divided by all positions",
            lambda logits, labels: (_each(logits, labels) * (labels != IGNORE)).mean(),
            "you add up over the right positions but divide by all of them. N is the number of selected positions: "
            "otherwise padding makes the loss smaller",
        ),
        Mistake(
            "sum, not mean",
            lambda logits, labels: (_each(logits, labels) * (labels != IGNORE)).sum(),
            "your loss is the sum over the selected positions; it has to be divided by their number N once, at the end",
        ),
        Mistake(
            "mean of means",
            _mean_of_means,
            "you average each sequence first and then over the sequences: a lone token then weighs as much as all "
            "tokens of another sequence together. Add over the whole batch and divide once",
        ),
        Mistake(
            "0 is ignored",
            _ignore_zero,
            "the label 0 is skipped, but 0 is a token like any other here: only −100 says that no loss is taken",
        ),
        Mistake(
            "weighted too late",
            lambda logits, labels: _each(logits, labels).mean() * (labels != IGNORE).any(),
            TOO_LATE,
        ),
        Mistake(
            "weighted too late, and 0/0",
            lambda logits, labels: _each(logits, labels).mean() / (labels != IGNORE).any(),
            TOO_LATE,
        ),
        Mistake(
            "the sign",
            lambda logits, labels: -_mlm_loss(logits, labels),
            "the sign is turned: the loss is minus the log, so that a high probability gives a low loss",
        ),
        Mistake(
            "the best token",
            lambda logits, labels: _mlm_loss(logits, labels.where(labels == IGNORE, logits.argmax(-1))),
            "you read the probability of the model's favorite token. The loss reads that of the true token, the label",
        ),
    ),
    hints=(
        "`labels != -100` tells where the loss is taken. Read logits and labels only there.",
        "A log-softmax over the last axis gives log Pr of every token; pick the true one at each selected position, "
        "turn the sign, add up, and divide by how many there are. Think of a batch in which there are none.",
        '`F.cross_entropy(logits[selected], labels[selected], reduction="sum")` is the sum; what is missing is the '
        "division by N, which must not be 0.",
    ),
)
