"""Functions of the encoder to write: layer norm, feed-forward network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlmkit.grading.plain import Torch
from mlmkit.grading.sets.encoder_layer_code import SINGLE, tensor
from mlmkit.grading.tasks import CodeTask, Mistake

# 09.12 Layer norm


def _draw_norm(rng: np.random.Generator) -> dict[str, Any]:
    sequences, length, size = (int(n) for n in rng.permutation(np.arange(2, 7))[:3])
    h = Torch((2 * rng.standard_normal((sequences, length, size)) + rng.normal()).astype(np.float32))
    eps = float(rng.choice([1e-12, 1e-5, 0.25]))
    return {"h": h, "gamma": tensor(rng, size), "beta": tensor(rng, size), "eps": eps}


def _example(h: Any, eps: float) -> dict[str, Any]:
    array = np.array(h, np.float32)
    size = array.shape[-1]
    gamma, beta = np.linspace(1, 2, size), np.linspace(-1, 1, size)
    return {
        "h": Torch(array),
        "gamma": Torch(gamma.astype(np.float32)),
        "beta": Torch(beta.astype(np.float32)),
        "eps": eps,
    }


def _norm_over(h: Tensor, gamma: Tensor, beta: Tensor, eps: float, *axes: int) -> Tensor:
    variance = h.var(axes, correction=0, keepdim=True)
    return gamma * (h - h.mean(axes, keepdim=True)) / (variance + eps).sqrt() + beta


def _root_first(h: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    spread = h.var(-1, correction=0, keepdim=True).sqrt()
    return gamma * (h - h.mean(-1, keepdim=True)) / (spread + eps) + beta


NORM = CodeTask(
    id="09.12",
    title="Layer norm",
    points=4,
    concepts=(),
    function="layer_norm",
    reference=lambda h, gamma, beta, eps: F.layer_norm(h, h.shape[-1:], gamma, beta, eps),
    draw=_draw_norm,
    edges=(
        _example([[[1, 3, 5, 7]]], 1e-12),
        _example([[[2, 2, 2], [0, 1, 2]]], 0.25),
        _example([[[1, 2]], [[5, 1]], [[0, 3]]], 1e-5),
    ),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "divided by H − 1",
            lambda h, gamma, beta, eps: (
                gamma * (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True) + eps).sqrt() + beta
            ),
            "your variance divides by H − 1, as PyTorch's `var` and `std` do unless told otherwise. Layer norm divides "
            "by H: `correction=0`, or the mean of the squares",
        ),
        Mistake(
            "over the positions",
            lambda h, gamma, beta, eps: _norm_over(h, gamma, beta, eps, 1),
            "your mean and variance run over the positions of a sequence. Layer norm looks at the H numbers of one "
            "position and nothing else",
        ),
        Mistake(
            "over the batch",
            lambda h, gamma, beta, eps: _norm_over(h, gamma, beta, eps, 0, 1),
            "your mean and variance run over all positions of the batch, for each number of the vector: that is batch "
            "norm, and a sentence would depend on its company",
        ),
        Mistake(
            "one mean for everything",
            lambda h, gamma, beta, eps: _norm_over(h, gamma, beta, eps, 0, 1, 2),
            "you take one mean and one variance of all numbers: each position has its own",
        ),
        Mistake(
            "ε outside the root",
            _root_first,
            "you add ε to the root of the variance; it belongs under the root, √(σ² + ε)",
        ),
        Mistake(
            "no scale and shift",
            lambda h, gamma, beta, eps: F.layer_norm(h, h.shape[-1:], eps=eps),
            "γ and β are missing: they are learned, so that a layer may choose another size and mean for each number",
        ),
    ),
    hints=(
        "Two numbers for each position: the mean of its H numbers, and the mean of the squares of what is left.",
        "`keepdim=True` keeps the last axis, so that (B, S, 1) can be subtracted from (B, S, H).",
        "`mu = h.mean(-1, keepdim=True)`, the variance likewise from `(h - mu) ** 2`; then the formula as it stands.",
    ),
)

# 09.13 The feed-forward network


def _draw_feed_forward(rng: np.random.Generator) -> dict[str, Any]:
    length, size, inner = (int(n) for n in rng.permutation(np.arange(2, 8))[:3])
    shapes = {"h": (length, size), "W_up": (inner, size), "b_up": (inner,), "W_down": (size, inner), "b_down": (size,)}
    return {name: tensor(rng, *shape) for name, shape in shapes.items()}


def _with(function: Any) -> Any:
    """A feed-forward network with some function in the middle."""
    return lambda h, W_up, b_up, W_down, b_down: function(h @ W_up.T + b_up) @ W_down.T + b_down


FEED_FORWARD = CodeTask(
    id="09.13",
    title="The feed-forward network",
    points=3,
    concepts=(),
    function="feed_forward",
    reference=_with(F.gelu),
    draw=_draw_feed_forward,
    edges=tuple(_draw_feed_forward(np.random.default_rng(seed)) for seed in range(2)),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "nothing in the middle",
            _with(lambda u: u),
            "there is no GELU between the two matrices: two matrices in a row are one, and the inner numbers are worth "
            "nothing",
        ),
        Mistake("ReLU", _with(F.relu), "your function is ReLU, 0 for negative numbers; GELU(u) = u · Φ(u) is not"),
        Mistake(
            "the tanh version",
            _with(lambda u: F.gelu(u, approximate="tanh")),
            "your GELU is the approximation by tanh, which a checkpoint calls gelu_new; it differs in the fourth "
            "digit. The task asks for the exact one, with erf",
        ),
        Mistake(
            "Φ alone",
            _with(lambda u: (1 + torch.erf(u / 2**0.5)) / 2),
            "you pass on Φ(u), the share; GELU passes on that share of u, so u · Φ(u)",
        ),
        Mistake(
            "residual inside",
            lambda h, W_up, b_up, W_down, b_down: h + F.gelu(h @ W_up.T + b_up) @ W_down.T + b_down,
            "you add h: the residual sum comes after this function, and is not part of it",
        ),
    ),
    hints=(
        "Three lines: up, GELU, down.",
        "Rows of `h` are positions, so up is `h @ W_up.T + b_up`. Φ(u) = (1 + erf(u / √2)) / 2.",
        "`u / 2 * (1 + torch.erf(u / 2**0.5))` is GELU; then down in the same way as up.",
    ),
)
