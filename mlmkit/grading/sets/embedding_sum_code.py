"""Functions to write on embeddings: what enters the encoder, which rows learn, segments."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmkit.grading.plain import Torch
from mlmkit.grading.tasks import CodeTask, Mistake

Array = np.ndarray[Any, Any]


# 08.2 What enters the encoder (the arguments are torch tensors)


def _embedded(ids: Any, segments: Any, E: Any, P: Any, G: Any, gamma: Any, beta: Any, eps: float) -> Any:
    import torch

    from mlmkit.config import ModelConfig
    from mlmkit.model import Embeddings

    size = {"vocab_size": len(E), "hidden_size": E.shape[1], "num_attention_heads": 1, "layer_norm_eps": eps}
    layer = Embeddings(ModelConfig(**size, max_position_embeddings=len(P), type_vocab_size=len(G))).eval()
    parts = (layer.token, E), (layer.position, P), (layer.segment, G)
    with torch.no_grad():
        for part, table in parts:
            part.weight.copy_(table)
        layer.norm.weight.copy_(gamma)
        layer.norm.bias.copy_(beta)
        return layer(ids, segments)


def _normed(y: Any, gamma: Any, beta: Any, eps: float, axis: int = -1, less: int = 0, outside: bool = False) -> Any:
    """Layer norm, with the ways in which it goes wrong."""
    centered = y - y.mean(axis, keepdim=True)
    variance = y.var(axis, keepdim=True, correction=less)
    return gamma * centered / (variance.sqrt() + eps if outside else (variance + eps).sqrt()) + beta


def _sum(ids: Any, segments: Any, E: Any, P: Any, G: Any) -> Any:
    return E[ids] + P[: ids.shape[1]] + G[segments]


def _restarted(ids: Any, segments: Any, E: Any, P: Any, G: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """Positions begin again at 0 with segment B."""
    import torch

    places = torch.arange(ids.shape[1]).expand_as(ids)
    places = places - segments * (segments == 0).sum(1, keepdim=True)
    return _normed(E[ids] + P[places] + G[segments], gamma, beta, eps)


def _draw_embedding(rng: np.random.Generator) -> dict[str, Any]:
    B, S, H, V = (int(rng.integers(low, high)) for low, high in ((1, 4), (3, 8), (4, 9), (8, 15)))
    segments = (np.arange(S) > rng.integers(0, S, (B, 1))).astype(np.int64)

    def table(*shape: int) -> Torch:
        return Torch(rng.normal(0, 1, shape).astype(np.float32))

    tables = {"E": table(V, H), "P": table(S + int(rng.integers(0, 4)), H), "G": table(2, H)}
    norm = {"gamma": table(H), "beta": table(H), "eps": float(rng.choice([1e-6, 0.1, 1.0]))}
    return {"ids": Torch(rng.integers(0, V, (B, S))), "segments": Torch(segments), **tables, **norm}


def _whole(*rows: Any) -> Torch:
    return Torch(np.array(rows, dtype=np.float32))


_PLAIN = {"gamma": Torch(np.ones(4, np.float32)), "beta": Torch(np.zeros(4, np.float32)), "eps": 0.1}
_TABLES = {
    "E": _whole([0, 0, 0, 0], [1, 0, 2, -1], [0, -2, 1, 1], [1, 1, 1, 1]),
    "P": _whole([1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]),
    "G": _whole([0, 0, 0, 0], [1, 1, -1, -1]),
}
EMBED = CodeTask(
    id="08.2",
    title="What enters the encoder",
    points=5,
    concepts=("C17", "C23"),
    function="embed",
    reference=_embedded,
    draw=_draw_embedding,
    edges=(
        {
            "ids": Torch(np.array([[2, 1, 3]])),
            "segments": Torch(np.array([[0, 1, 1]])),
            **_TABLES,
            **_PLAIN,
        },
        {"ids": Torch(np.array([[3, 0, 3]])), "segments": Torch(np.array([[0, 0, 0]])), **_TABLES, **_PLAIN},
        {
            "ids": Torch(np.array([[1, 2], [1, 2]])),
            "segments": Torch(np.array([[0, 1], [0, 1]])),
            **_TABLES,
            **_PLAIN,
        },
    ),
    mistakes=(
        Mistake(
            "no positions",
            lambda ids, segments, E, P, G, gamma, beta, eps: _normed(E[ids] + G[segments], gamma, beta, eps),
            "the rows of P are missing: without them the same words in another order give the same vectors, reordered",
        ),
        Mistake(
            "no segments",
            lambda ids, segments, E, P, G, gamma, beta, eps: _normed(E[ids] + P[: ids.shape[1]], gamma, beta, eps),
            "the rows of G are missing: a word at a position enters as the same vector in A and in B",
        ),
        Mistake(
            "positions along the batch",
            lambda ids, segments, E, P, G, gamma, beta, eps: _normed(
                E[ids] + P[: len(ids)][:, None] + G[segments], gamma, beta, eps
            ),
            "you add P_b to every position of sequence b: positions count along the sequence, not along the batch",
        ),
        Mistake(
            "positions begin again",
            _restarted,
            "your positions begin at 0 again in segment B; they count from [CLS] to the last [SEP] without a break",
        ),
        Mistake(
            "no norm",
            lambda ids, segments, E, P, G, gamma, beta, eps: _sum(ids, segments, E, P, G),
            "you return the sum of the three rows; layer norm is missing",
        ),
        Mistake(
            "standardized only",
            lambda ids, segments, E, P, G, gamma, beta, eps: _normed(_sum(ids, segments, E, P, G), 1, 0, eps),
            "γ and β are missing: the norm has a learned scale and shift",
        ),
        Mistake(
            "divided by H − 1",
            lambda ids, segments, E, P, G, gamma, beta, eps: _normed(
                _sum(ids, segments, E, P, G), gamma, beta, eps, less=1
            ),
            "your variance divides by H − 1, as torch does unless told otherwise; layer norm divides by H "
            "(`correction=0`)",
        ),
        Mistake(
            "ε outside the root",
            lambda ids, segments, E, P, G, gamma, beta, eps: _normed(
                _sum(ids, segments, E, P, G), gamma, beta, eps, outside=True
            ),
            "you add ε to the square root; it belongs under it, beside the variance",
        ),
        Mistake(
            "over the positions",
            lambda ids, segments, E, P, G, gamma, beta, eps: _normed(
                _sum(ids, segments, E, P, G), gamma, beta, eps, axis=1
            ),
            "you take mean and variance over the positions of a sequence; they are those of the H numbers of one "
            "vector",
        ),
        Mistake(
            "norm before the sum",
            lambda ids, segments, E, P, G, gamma, beta, eps: sum(
                _normed(part, gamma, beta, eps) for part in (E[ids], P[: ids.shape[1]], G[segments])
            ),
            "you bring each row to a standard size and then add; first comes the sum, then one norm",
        ),
    ),
    hints=(
        "Two steps: the sum of three rows for each position, then the norm along the last axis.",
        "`E[ids]` is (B, S, H) and `P[:S]` is (S, H): the sum spreads P over the batch by itself.",
        "With `d = y - y.mean(-1, keepdim=True)` the rest is γ · d / √(mean of d² + ε) + β.",
    ),
)


# 08.8 Which rows learn (the arguments are torch tensors)


def _table_gradient(ids: Any, asked: Any, vocab_size: int) -> Any:
    import torch
    from torch.nn import functional as F

    table = torch.zeros(vocab_size, asked.shape[-1], requires_grad=True)
    with torch.enable_grad():
        (F.embedding(ids, table) * asked).sum().backward()
    return table.grad


def _last_only(ids: Any, asked: Any, vocab_size: int) -> Any:
    gradient = asked.new_zeros(vocab_size, asked.shape[-1])
    for token, request in zip(ids.flatten().tolist(), asked.flatten(0, 1), strict=True):
        gradient[token] = request
    return gradient


def _averaged(ids: Any, asked: Any, vocab_size: int) -> Any:
    counts = ids.flatten().bincount(minlength=vocab_size)
    return _table_gradient(ids, asked, vocab_size) / counts.clamp(min=1)[:, None]


def _by_position(ids: Any, asked: Any, vocab_size: int) -> Any:
    gradient = asked.new_zeros(vocab_size, asked.shape[-1])
    S = min(vocab_size, ids.shape[1])
    gradient[:S] = asked.sum(0)[:S]
    return gradient


def _draw_requests(rng: np.random.Generator) -> dict[str, Any]:
    B, S, H, V = (int(rng.integers(low, high)) for low, high in ((1, 4), (2, 9), (1, 5), (6, 12)))
    asked = rng.normal(0, 1, (B, S, H)).astype(np.float32)
    return {"ids": Torch(rng.integers(0, V, (B, S))), "asked": Torch(asked), "vocab_size": V}


GRADIENT = CodeTask(
    id="08.8",
    title="Which rows learn",
    points=4,
    concepts=("C17",),
    function="table_gradient",
    reference=_table_gradient,
    draw=_draw_requests,
    edges=(
        {"ids": Torch(np.array([[2, 4, 4]])), "asked": _whole(*[[[1, 0], [2, 3], [5, -1]]]), "vocab_size": 6},
        {
            "ids": Torch(np.array([[1, 4], [4, 0]])),
            "asked": _whole(*[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
            "vocab_size": 5,
        },
        {"ids": Torch(np.array([[0, 0, 0]])), "asked": _whole(*[[[1], [2], [-3]]]), "vocab_size": 3},
    ),
    mistakes=(
        Mistake(
            "last one only",
            _last_only,
            "a token that occurs twice keeps only one request: `gradient[ids] = …`, and `gradient[ids] += …` as well, "
            "write each row once; what its occurrences ask for has to be added up",
        ),
        Mistake("averaged", _averaged, "you take the mean over the occurrences of a token; a gradient is their sum"),
        Mistake(
            "by position",
            _by_position,
            "you add up by position: that is the gradient of the table of positions; here row v belongs to token v",
        ),
        Mistake(
            "first sequence only",
            lambda ids, asked, vocab_size: _table_gradient(ids[:1], asked[:1], vocab_size),
            "you look at the first sequence only; all sequences of the batch share one table",
        ),
        Mistake(
            "every row",
            lambda ids, asked, vocab_size: asked.sum((0, 1)).expand(vocab_size, -1),
            "you give every row the sum of all requests; the row of a token collects only what its own places ask for",
        ),
    ),
    hints=(
        "Begin with zeros (V, H), and go through the places of the batch one by one.",
        "The place (b, i) holds token `ids[b, i]` and asks for `asked[b, i]`: to which row is that added?",
        "`gradient[ids[b, i]] += asked[b, i]` in two loops; or flatten both, and `index_add_` in one line.",
    ),
)


# 08.11 Segments


def _segments(ids: Array, sep_id: int, pad_id: int) -> Array:
    separators = ids == sep_id
    return np.where(ids == pad_id, 0, separators.cumsum(1) - separators)


def _draw_pairs(rng: np.random.Generator) -> dict[str, Any]:
    pad_id, cls_id, sep_id = (int(i) for i in rng.permutation(6)[:3])
    rows = []
    for _ in range(rng.integers(1, 5)):
        a, b = (rng.integers(6, 40, rng.integers(1, 6)).tolist() for _ in range(2))
        rows.append([cls_id, *a, sep_id, *([*b, sep_id] if rng.random() < 0.75 else [])])
    S = max(map(len, rows)) + int(rng.integers(0, 3))
    ids = np.array([row + [pad_id] * (S - len(row)) for row in rows])
    return {"ids": ids, "sep_id": sep_id, "pad_id": pad_id}


SEGMENTS = CodeTask(
    id="08.11",
    title="Segments from the ids",
    points=3,
    concepts=("C23",),
    function="segments_of",
    reference=_segments,
    draw=_draw_pairs,
    edges=(
        {"ids": np.array([[2, 7, 3, 8, 3, 0]]), "sep_id": 3, "pad_id": 0},
        {"ids": np.array([[2, 7, 9, 3, 8, 3], [2, 9, 3, 0, 0, 0]]), "sep_id": 3, "pad_id": 0},
        {"ids": np.array([[1, 6, 6, 0, 6, 0, 5, 5]]), "sep_id": 0, "pad_id": 5},
    ),
    mistakes=(
        Mistake(
            "the first [SEP] in B",
            lambda ids, sep_id, pad_id: np.where(ids == pad_id, 0, np.minimum((ids == sep_id).cumsum(1), 1)),
            "your first [SEP] has segment 1; it closes A and belongs to it: only the [SEP]s before a position count",
        ),
        Mistake(
            "[SEP] counts itself",
            lambda ids, sep_id, pad_id: np.where(ids == pad_id, 0, (ids == sep_id).cumsum(1)),
            "your [SEP]s count themselves: the first gets segment 1 and the last 2; only those before a position count",
        ),
        Mistake(
            "padding",
            lambda ids, sep_id, pad_id: (ids == sep_id).cumsum(1) - (ids == sep_id),
            "behind the last [SEP] your count goes on: padding gets 1 or 2; it is to have 0",
        ),
        Mistake(
            "all 0",
            lambda ids, sep_id, pad_id: np.zeros_like(ids),
            "all your segments are 0, as if nothing had been handed over: B has segment 1",
        ),
        Mistake(
            "the last [SEP] in A",
            lambda ids, sep_id, pad_id: np.where(ids == sep_id, 0, _segments(ids, sep_id, pad_id)),
            "your last [SEP] has segment 0; it closes B, and belongs to it",
        ),
    ),
    hints=(
        "The segment of a position is the number of [SEP]s before it, in its own row.",
        "A running sum along the row counts the [SEP]s up to a position, the position itself included: take that "
        "one away.",
        "With `is_sep = ids == sep_id` the count is `is_sep.cumsum(1) - is_sep`; then set padding to 0 with "
        "`np.where`.",
    ),
)

CODE_TASKS = (EMBED, GRADIENT, SEGMENTS)
