"""Functions of the encoder to write: causal bias, attention, heads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmkit.grading.comparing import Tolerance
from mlmkit.grading.plain import Torch
from mlmkit.grading.tasks import CodeTask, Mistake
from mlmkit.model import attention
from mlmkit.objectives.simulated_lm import causal_bias

SINGLE = Tolerance(relative=1e-4, absolute=2e-5)
"""For float32: sums may be taken in any order."""


def tensor(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Torch:
    """Normal float32 numbers of a shape."""
    return Torch((scale * rng.standard_normal(shape)).astype(np.float32))


# 09.4 The bias of a left-to-right model


def _lower(length: int, first: int) -> Tensor:
    """−∞ from the diagonal `first` on, 0 below it."""
    return torch.zeros(length, length).masked_fill(torch.ones(length, length).triu(first).bool(), -math.inf)


CAUSAL = CodeTask(
    id="09.4",
    title="A bias that hides the future",
    points=2,
    concepts=("C06",),
    function="causal_bias",
    reference=lambda length: causal_bias(length)[0, 0],
    draw=lambda rng: {"length": int(rng.integers(2, 9))},
    edges=({"length": 1}, {"length": 3}),
    rounds=4,
    mistakes=(
        Mistake(
            "its own position hidden",
            lambda length: _lower(length, 0),
            "you hide each position from itself as well: row 0 is −∞ everywhere, and its softmax is 0/0, which is nan",
        ),
        Mistake(
            "transposed",
            lambda length: _lower(length, 1).T,
            "you hide the past and leave the future open: rows ask and columns are read, so −∞ belongs where j > i",
        ),
        Mistake(
            "a pattern of 0 and 1",
            lambda length: torch.ones(length, length).tril(),
            "you give 1 where a position may be read and 0 where not. But a bias is added to the scores, and adding 0 "
            "hides nothing: it must be 0 where reading is allowed, and −∞ where not",
        ),
        Mistake(
            "the next position seen",
            lambda length: _lower(length, 2),
            "you leave the next position open: position i would see x_{i+1}, the very word that it should predict",
        ),
        Mistake(
            "−1e9",
            lambda length: _lower(length, 1).clamp(min=-1e9),
            "−10⁹ is in practice as good, but the task asks for −∞ itself, `-math.inf`: then nothing depends on how "
            "large the scores are",
        ),
    ),
    hints=(
        "Row i asks, column j is read. Which j come later than i?",
        "Start from zeros and put −∞ above the diagonal; the diagonal stays 0.",
        "`torch.full((length, length), -math.inf)` has −∞ everywhere; `.triu(…)` keeps what is above a diagonal.",
    ),
)

# 09.10 Attention


def _bias_of(kind: str, rng: np.random.Generator, length: int) -> Torch:
    """Nothing hidden, some keys hidden (not the first), or the future."""
    bias = np.zeros((length, length), np.float32)
    if kind == "padding" and length > 1:
        bias[:, int(rng.integers(1, length)) :] = -np.inf
    if kind == "causal":
        bias[np.triu_indices(length, 1)] = -np.inf
    return Torch(bias)


def _draw_attention(rng: np.random.Generator) -> dict[str, Any]:
    heads, length, size = (int(n) for n in rng.permutation(np.arange(2, 7))[:3])
    q, k, v = (tensor(rng, heads, length, size, scale=1.5) for _ in range(3))
    return {"q": q, "k": k, "v": v, "bias": _bias_of(str(rng.choice(["none", "padding", "causal"])), rng, length)}


def _edges_of_attention() -> tuple[dict[str, Any], ...]:
    rng = np.random.default_rng(9)
    found = []
    for kind, shape in [("none", (1, 1, 2)), ("padding", (2, 4, 3)), ("causal", (1, 3, 2)), ("none", (2, 3, 4))]:
        q, k, v = (tensor(rng, *shape) for _ in range(3))
        found.append({"q": q, "k": k, "v": v, "bias": _bias_of(kind, rng, shape[1])})
    return tuple(found)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(1, 2) / k.shape[2] ** 0.5


ATTENTION = CodeTask(
    id="09.10",
    title="Attention",
    points=5,
    concepts=("C06",),
    function="attention",
    reference=lambda q, k, v, bias: attention(q[None], k[None], v[None], bias[None, None])[0],
    draw=_draw_attention,
    edges=_edges_of_attention(),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "masked after the softmax",
            lambda q, k, v, bias: (_scores(q, k).softmax(-1) * (bias == 0)) @ v,
            "you hide keys after the softmax: their weights become 0, but the weights that are left no longer sum to "
            "1. Add the bias to the scores, before the softmax",
        ),
        Mistake(
            "no division",
            lambda q, k, v, bias: (q @ k.transpose(1, 2) + bias).softmax(-1) @ v,
            "your scores are not divided by √D: their variance grows with D, and the softmax picks one key",
        ),
        Mistake(
            "divided by D",
            lambda q, k, v, bias: (q @ k.transpose(1, 2) / k.shape[2] + bias).softmax(-1) @ v,
            "your scores are divided by D instead of √D: they come out too small, and every position reads nearly "
            "evenly",
        ),
        Mistake(
            "softmax over those who ask",
            lambda q, k, v, bias: (_scores(q, k) + bias).softmax(1) @ v,
            "your softmax runs over the positions that ask: the columns of the weights sum to 1, and the rows do not",
        ),
        Mistake(
            "softmax over the heads",
            lambda q, k, v, bias: (_scores(q, k) + bias).softmax(0) @ v,
            "your softmax runs over the heads (axis 0): each head has weights of its own, over the keys",
        ),
        Mistake(
            "scores times a mask",
            lambda q, k, v, bias: (_scores(q, k) * (bias == 0)).softmax(-1) @ v,
            "you multiply the scores of hidden keys by 0. A score of 0 is a score: e⁰ = 1, and the key is read",
        ),
        Mistake(
            "the bias is not used",
            lambda q, k, v, bias: _scores(q, k).softmax(-1) @ v,
            "your result does not depend on the bias: hidden keys are read like all others",
        ),
    ),
    hints=(
        "Three steps: scores of all pairs (A, S, S), weights (A, S, S), averages of the values (A, S, D).",
        "`q @ k.transpose(1, 2)` has all dot products. Divide by √D, add the bias, then the softmax over what is read.",
        "The softmax runs along the last axis of `(scores / D**0.5 + bias)`; the weights are multiplied with `v` by "
        "`@`.",
    ),
)

# 09.11 Several heads


def _draw_heads(rng: np.random.Generator) -> dict[str, Any]:
    heads, size, length = int(rng.choice([1, 2, 3, 4])), int(rng.integers(2, 5)), int(rng.integers(2, 8))
    q, k, v = (tensor(rng, length, heads * size, scale=1.5) for _ in range(3))
    return {"q": q, "k": k, "v": v, "heads": heads}


def _cut(x: Tensor, heads: int) -> Tensor:
    return x.reshape(len(x), heads, -1).transpose(0, 1)


def _in_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in each head: 3 × (a, S, D) → (a, S, D)."""
    return _scores(q, k).softmax(-1) @ v


def _rows_cut(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    return _in_heads(*(x.reshape(heads, len(x), -1) for x in (q, k, v))).reshape(q.shape)


def _right_heads(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (_cut(x, heads)[None] for x in (q, k, v))
    mixed = attention(q, k, v, None)[0]  # (a, S, D)
    return mixed.transpose(0, 1).flatten(1)


def _scaled_by_all(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    return _cut_and_join(q / heads**0.5, k, v, heads)


def _cut_and_join(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    return _in_heads(*(_cut(x, heads) for x in (q, k, v))).transpose(0, 1).reshape(q.shape)


def _interleaved(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    parts = (x.reshape(len(x), -1, heads).permute(2, 0, 1) for x in (q, k, v))
    return _in_heads(*parts).permute(1, 2, 0).reshape(q.shape)


HEADS = CodeTask(
    id="09.11",
    title="Several heads: split, attend, join",
    points=5,
    concepts=(),
    function="multi_head",
    reference=_right_heads,
    draw=_draw_heads,
    edges=tuple(_draw_heads(np.random.default_rng(seed)) for seed in range(3)),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "rows cut",
            _rows_cut,
            "your heads hold rows instead of columns: `view(heads, S, D)` reads the numbers line by line, so that each "
            "head sees a part of the sentence only. Cut the columns, then swap the axes",
        ),
        Mistake(
            "joined without swapping back",
            lambda q, k, v, heads: _in_heads(*(_cut(x, heads) for x in (q, k, v))).reshape(q.shape),
            "the splitting is right, but you join without swapping the axes back: the numbers of one position are "
            "strewn over several rows",
        ),
        Mistake(
            "one head",
            lambda q, k, v, heads: _in_heads(q[None], k[None], v[None])[0],
            "you attend with a single head of size H: each head must have weights of its own",
        ),
        Mistake(
            "√H",
            _scaled_by_all,
            "you divide by √H. A dot product in a head has D = H / heads terms, so divide by √D",
        ),
        Mistake(
            "every other column",
            _interleaved,
            "your head r takes the columns r, r + heads, r + 2·heads, …; it should take D neighboring columns",
        ),
    ),
    hints=(
        "A loop over the heads is fine: head r works with the columns r·D to (r + 1)·D of q, k and v.",
        "All at once: (S, H) → `view(S, heads, D)` → `transpose(0, 1)` gives (heads, S, D). Then attention as in "
        "09.10.",
        "On the way back first `transpose(0, 1)`, then `reshape(S, H)`; and the scores are divided by `D**0.5`.",
    ),
)
