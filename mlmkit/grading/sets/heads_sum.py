"""Functions to write where the two losses meet: their sum, and the gradient of a shared matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlmkit.grading.plain import Torch
from mlmkit.grading.sets.encoder_layer_code import SINGLE, tensor
from mlmkit.grading.tasks import CodeTask, Mistake
from mlmkit.losses import mlm_loss, nsp_loss

IGNORE = -100

# 10.10 Both losses and their sum


def _draw_both(rng: np.random.Generator) -> dict[str, Any]:
    sequences, length, vocabulary = (int(n) for n in rng.permutation(np.arange(2, 8))[:3])
    labels = rng.integers(0, vocabulary, (sequences, length))
    labels[rng.random(labels.shape) < 0.6] = IGNORE
    labels[0, :2] = int(rng.integers(1, vocabulary)), IGNORE
    labels[1, :2] = IGNORE
    return _both(labels, rng, vocabulary)


def _both(labels: np.ndarray[Any, Any], rng: np.random.Generator, vocabulary: int) -> dict[str, Any]:
    return {
        "mlm_logits": tensor(rng, *labels.shape, vocabulary, scale=2),
        "labels": Torch(labels),
        "nsp_logits": tensor(rng, len(labels), 2, scale=2),
        "next_sentence_label": Torch(rng.integers(0, 2, len(labels))),
    }


def _edges_of_both() -> tuple[dict[str, Any], ...]:
    rng = np.random.default_rng(10)
    uneven = np.full((3, 5), IGNORE)
    uneven[0, 1:4], uneven[1, 2] = (1, 0, 3), 2
    return (
        _both(uneven, rng, 4),
        _both(np.full((2, 4), IGNORE), rng, 5),
        _both(np.array([[IGNORE, 0, IGNORE]]), rng, 3),
    )


def _mlm_nsp(mlm_logits: Tensor, labels: Tensor, nsp_logits: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
    return mlm_loss(mlm_logits, labels), nsp_loss(nsp_logits, relation)


def _summed(mlm: Tensor, nsp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return mlm + nsp, mlm, nsp


def _pot(mlm_logits: Tensor, labels: Tensor, nsp_logits: Tensor, next_sentence_label: Tensor) -> tuple[Tensor, ...]:
    mlm, nsp = _mlm_nsp(mlm_logits, labels, nsp_logits, next_sentence_label)
    N, B = (labels != IGNORE).sum(), len(labels)
    return (N * mlm + B * nsp) / (N + B), mlm, nsp


def _averaged(
    mlm_logits: Tensor, labels: Tensor, nsp_logits: Tensor, next_sentence_label: Tensor
) -> tuple[Tensor, ...]:
    mlm, nsp = _mlm_nsp(mlm_logits, labels, nsp_logits, next_sentence_label)
    return (mlm + nsp) / 2, mlm, nsp


def _mean_of_means(
    mlm_logits: Tensor, labels: Tensor, nsp_logits: Tensor, next_sentence_label: Tensor
) -> tuple[Tensor, ...]:
    mlm = torch.stack([mlm_loss(z, y) for z, y in zip(mlm_logits, labels, strict=True)]).mean()
    return _summed(mlm, nsp_loss(nsp_logits, next_sentence_label))


def _over_all(
    mlm_logits: Tensor, labels: Tensor, nsp_logits: Tensor, next_sentence_label: Tensor
) -> tuple[Tensor, ...]:
    mlm, nsp = _mlm_nsp(mlm_logits, labels, nsp_logits, next_sentence_label)
    return _summed(mlm * (labels != IGNORE).sum() / labels.numel(), nsp)


BOTH = CodeTask(
    id="10.10",
    title="Both losses and their sum",
    points=5,
    concepts=("C25", "C10"),
    function="pretraining_loss",
    reference=lambda mlm_logits, labels, nsp_logits, next_sentence_label: _summed(
        *_mlm_nsp(mlm_logits, labels, nsp_logits, next_sentence_label)
    ),
    draw=_draw_both,
    edges=_edges_of_both(),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "one pot",
            _pot,
            "your total is one pot: all terms of both losses, divided by everything that was counted. Then the "
            "weight of NSP depends on how many words were selected. Add the two means",
        ),
        Mistake(
            "half of the sum",
            _averaged,
            "your total is the average of the two losses; BERT minimizes their sum",
        ),
        Mistake(
            "loss on every position",
            lambda mlm_logits, labels, nsp_logits, next_sentence_label: _summed(
                *_mlm_nsp(mlm_logits, labels.clamp(min=0), nsp_logits, next_sentence_label)
            ),
            "your MLM loss is taken on every position, with −100 read as the token 0; −100 says that there is no loss",
        ),
        Mistake(
            "divided by every position",
            _over_all,
            "you add up the right terms, but divide by B·S. The MLM loss is a mean over the N selected tokens",
        ),
        Mistake(
            "mean of means",
            _mean_of_means,
            "you take a mean for each sequence, and the mean of these: a token in a sequence with few selected "
            "tokens then counts more than others. The mean is over all N selected tokens of the batch",
        ),
        Mistake(
            "nan when nothing is selected",
            lambda mlm_logits, labels, nsp_logits, next_sentence_label: _summed(
                F.cross_entropy(mlm_logits.flatten(0, 1), labels.flatten()),
                F.cross_entropy(nsp_logits, next_sentence_label),
            ),
            "when nothing is selected your MLM loss is 0/0, which is nan; divide by at least 1, so that it is 0",
        ),
        Mistake(
            "0 is ignored in both",
            lambda mlm_logits, labels, nsp_logits, next_sentence_label: _summed(
                mlm_loss(mlm_logits, labels),
                F.cross_entropy(nsp_logits, next_sentence_label, ignore_index=0),
            ),
            "you ignore the label 0 in the sentence relation. There it says that B follows A, and these pairs count",
        ),
    ),
    hints=(
        "Each loss owns its mean: over the N selected tokens, over the B pairs. Only the two means are added.",
        '`selected = labels != -100` picks rows of scores and labels alike; `F.cross_entropy(…, reduction="sum")` '
        "adds up.",
        "`max(1, int(selected.sum()))` below the line keeps an empty batch at 0; the sentence part is a plain "
        "`F.cross_entropy`.",
    ),
)

# 10.11 The gradient of the sum


def _draw_gradients(rng: np.random.Generator) -> dict[str, Any]:
    length, size, vocabulary = (int(n) for n in rng.permutation(np.arange(3, 8))[:3])
    labels = np.full(length, IGNORE)
    places = rng.choice(np.arange(1, length), int(rng.integers(1, length)), replace=False)
    labels[places] = rng.integers(0, vocabulary, len(places))
    shapes = {"K": (size, size), "e": (length, size), "E": (vocabulary, size), "W": (2, size)}
    arrays = {name: tensor(rng, *shape, scale=0.8) for name, shape in shapes.items()}
    return {**arrays, "labels": Torch(labels), "c": int(rng.integers(2))}


def _losses(K: Tensor, e: Tensor, E: Tensor, W: Tensor, labels: Tensor, c: int) -> tuple[Tensor, Tensor]:
    h = e @ K.T
    return mlm_loss(h @ E.T, labels), nsp_loss((h[0] @ W.T)[None], torch.tensor([c]))


def _by(K: Tensor, e: Tensor, E: Tensor, W: Tensor, labels: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """The gradients of the two losses by K."""
    K = K.clone().requires_grad_()
    mlm, nsp = _losses(K, e, E, W, labels, c)
    return torch.autograd.grad(mlm, K, retain_graph=True)[0], torch.autograd.grad(nsp, K)[0]


def _reference(**inputs: Any) -> tuple[Tensor, ...]:
    mlm, nsp = _by(**inputs)
    return mlm, nsp, mlm + nsp


def _accumulated(**inputs: Any) -> tuple[Tensor, ...]:
    mlm, nsp = _by(**inputs)
    return mlm, mlm + nsp, 2 * (mlm + nsp)


def _halved(**inputs: Any) -> tuple[Tensor, ...]:
    mlm, nsp = _by(**inputs)
    return mlm, nsp, (mlm + nsp) / 2


def _aliased(**inputs: Any) -> tuple[Tensor, ...]:
    mlm, nsp = _by(**inputs)
    return (2 * (mlm + nsp),) * 3


def _pot_gradients(**inputs: Any) -> tuple[Tensor, ...]:
    mlm, nsp = _by(**inputs)
    N = int((inputs["labels"] != IGNORE).sum())
    return mlm, nsp, (N * mlm + nsp) / (N + 1)


def _second_place(**inputs: Any) -> tuple[Tensor, ...]:
    mlm, _ = _by(**inputs)
    _, nsp = _by(**{**inputs, "K": inputs["K"] - mlm})
    return mlm, nsp, mlm + nsp


def _every_position(**inputs: Any) -> tuple[Tensor, ...]:
    mlm, _ = _by(**inputs)
    K = inputs["K"].clone().requires_grad_()
    scores = inputs["e"] @ K.T @ inputs["W"].T
    nsp = F.cross_entropy(scores, torch.full((len(scores),), inputs["c"]))
    by_nsp = torch.autograd.grad(nsp, K)[0]
    return mlm, by_nsp, mlm + by_nsp


GRADIENTS = CodeTask(
    id="10.11",
    title="The gradient of the sum",
    points=6,
    concepts=("C25",),
    function="shared_gradients",
    reference=_reference,
    draw=_draw_gradients,
    edges=tuple(_draw_gradients(np.random.default_rng(seed)) for seed in range(3)),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "not cleared",
            _accumulated,
            "your second and third gradient contain the ones before: `backward` adds to `.grad`. Clear it in between "
            "(`K.grad = None`), or use `torch.autograd.grad`, which returns the gradient of one loss",
        ),
        Mistake(
            "three times the same tensor",
            _aliased,
            "all three results are the same tensor, `K.grad`, which `backward` goes on adding to; take a copy after "
            "each backward pass, and clear it",
        ),
        Mistake(
            "the average",
            _halved,
            "your third gradient is half of the sum; the losses are added, not averaged, and so are their gradients",
        ),
        Mistake(
            "one pot",
            _pot_gradients,
            "your third gradient is that of one pot, divided by N + 1; add the two means, each with its own "
            "denominator",
        ),
        Mistake(
            "an update in between",
            _second_place,
            "you take the NSP gradient after an update for MLM, at another K. Both are taken at the same K; only "
            "then is their sum the gradient of the sum",
        ),
        Mistake(
            "NSP at every position",
            _every_position,
            "your sentence relation is read at every position; it is read at position 0, [CLS], only",
        ),
    ),
    hints=(
        "Let autograd do the work: make `K` a tensor that wants a gradient, and compute both losses from one `h = e "
        "@ K.T`.",
        "MLM: `F.cross_entropy(h @ E.T, labels)` skips −100 by itself. NSP: scores `W @ h[0]`, one row, one label.",
        "`torch.autograd.grad(loss, K, retain_graph=True)[0]` is the gradient of one loss; call it for each of the "
        "three.",
    ),
)
