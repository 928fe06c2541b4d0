"""Functions to write about speed: counting operations, a softmax in blocks, one gradient from several ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmkit.config import ModelConfig
from mlmkit.flops import forward_flops
from mlmkit.grading.tasks import CodeTask, Mistake

Array = np.ndarray[Any, Any]
Answer = tuple[float, Array]
States = tuple[list[float], list[float], Array]


# 12.8 One gradient from several ranks


def _combine(losses: Array, gradients: Array, counts: Array) -> Answer:
    shares = counts / max(int(counts.sum()), 1)
    return float(shares @ losses), shares @ gradients


def _only_ranks_with_tokens(losses: Array, gradients: Array, counts: Array) -> Answer:
    some = counts > 0
    return float(losses[some].mean()), gradients[some].mean(0)


def _draw_ranks(rng: np.random.Generator) -> dict[str, Any]:
    ranks, n = int(rng.integers(2, 6)), int(rng.integers(1, 5))
    counts = rng.integers(1, 40, ranks)
    if rng.random() < 0.3:
        counts[rng.integers(ranks)] = 0
    some = counts > 0
    return {
        "losses": rng.uniform(2, 8, ranks) * some,
        "gradients": rng.normal(0, 1, (ranks, n)) * some[:, None],
        "counts": counts,
    }


COMBINE = CodeTask(
    id="12.8",
    title="One gradient from several ranks",
    points=4,
    concepts=("C10",),
    function="combine",
    reference=_combine,
    draw=_draw_ranks,
    edges=(
        {"losses": np.array([4.0, 7.0]), "gradients": np.array([[6.0, 0.0], [0.0, 3.0]]), "counts": np.array([2, 4])},
        {"losses": np.array([5.0, 0.0]), "gradients": np.array([[1.0, 2.0], [0.0, 0.0]]), "counts": np.array([3, 0])},
        {"losses": np.zeros(2), "gradients": np.zeros((2, 3)), "counts": np.array([0, 0])},
        {"losses": np.array([3.0]), "gradients": np.array([[1.0, -1.0]]), "counts": np.array([7])},
        {"losses": np.array([3.0, 5.0]), "gradients": np.array([[1.0], [2.0]]), "counts": np.array([0, 1])},
    ),
    mistakes=(
        Mistake(
            "mean of means",
            lambda losses, gradients, counts: (float(losses.mean()), gradients.mean(0)),
            "you take the mean over the ranks: a token on a rank with few of them counts more than one on a rank with "
            "many. The mean is over tokens",
        ),
        Mistake(
            "gradient by ranks",
            lambda losses, gradients, counts: (_combine(losses, gradients, counts)[0], gradients.mean(0)),
            "your loss is weighted by tokens, but your gradient is a mean over ranks: it would belong to another loss",
        ),
        Mistake(
            "mean of the ranks with tokens",
            _only_ranks_with_tokens,
            "you leave out the ranks without tokens, but the others still count the same, however many tokens they "
            "have",
        ),
        Mistake(
            "sum",
            lambda losses, gradients, counts: (float(losses.sum()), gradients.sum(0)),
            "you add up the means of the ranks: loss and gradient grow with the number of ranks",
        ),
        Mistake(
            "not divided",
            lambda losses, gradients, counts: (float(counts @ losses), counts @ gradients),
            "you weight by tokens and forget to divide by all of them: this is the sum over tokens, not the mean",
        ),
        Mistake(
            "divided by the ranks",
            lambda losses, gradients, counts: (float(counts @ losses) / len(counts), counts @ gradients / len(counts)),
            "you weight by tokens, which asks for a division by all tokens, not by the number of ranks",
        ),
    ),
    hints=(
        "How much should one selected token count? Does it matter on which rank it stands?",
        "The mean of rank r stands for `counts[r]` tokens: multiply by that, add up, divide by all tokens. The same "
        "for the gradients.",
        "`shares = counts / counts.sum()`, with care when the sum is 0; then a weighted sum, for example with `@`.",
    ),
)


# 12.9 A softmax in blocks


def _blocks(scores: Array, values: Array, block: int, shrink: bool = True, own: bool = False) -> States:
    mu, sigma = -math.inf, 0.0
    u = np.zeros(values.shape[1])
    mus, sigmas = [], []
    for start in range(0, len(scores), block):
        s, v = scores[start : start + block], values[start : start + block]
        new = max(mu, float(s.max()))
        factor = math.exp(mu - new) if shrink else 1.0
        e = np.exp(s - (float(s.max()) if own else new))
        mu, sigma, u = new, sigma * factor + float(e.sum()), u * factor + e @ v
        mus.append(mu)
        sigmas.append(sigma)
    return mus, sigmas, u / sigma


def _sum_shrunk_only(scores: Array, values: Array, block: int) -> States:
    mus, sigmas, _ = _blocks(scores, values, block)
    running = np.repeat(mus, block)[: len(scores)]
    return mus, sigmas, np.exp(scores - running) @ values / sigmas[-1]


def _not_divided(scores: Array, values: Array, block: int) -> States:
    mus, sigmas, answer = _blocks(scores, values, block)
    return mus, sigmas, answer * sigmas[-1]


def _last_state(scores: Array, values: Array, block: int) -> Any:
    mus, sigmas, answer = _blocks(scores, values, block)
    return mus[-1], sigmas[-1], answer


def _own_maxima(scores: Array, values: Array, block: int) -> States:
    mus = [float(scores[i : i + block].max()) for i in range(0, len(scores), block)]
    return mus, *_blocks(scores, values, block, shrink=False, own=True)[1:]


def _draw_blocks(rng: np.random.Generator) -> dict[str, Any]:
    n, d = int(rng.integers(3, 10)), int(rng.integers(1, 4))
    return {
        "scores": np.round(rng.normal(0, 2, n), 2) + float(rng.choice([0, 0, 300])),
        "values": np.round(rng.normal(0, 1, (n, d)), 2),
        "block": int(rng.integers(1, n + 1)),
    }


BLOCKS = CodeTask(
    id="12.9",
    title="A softmax in blocks",
    points=5,
    concepts=(),
    function="softmax_in_blocks",
    reference=_blocks,
    draw=_draw_blocks,
    edges=(
        {"scores": np.array([1.0, 3, 2, 5, 4, 0]), "values": np.eye(6)[:, :2] + np.eye(6)[:, 3:5], "block": 2},
        {"scores": np.array([5.0, 1, 0, 2, 1]), "values": np.arange(5.0)[:, None], "block": 2},
        {"scores": np.array([1000.0, 1001, 1003]), "values": np.array([[1.0, 0], [0, 1], [1, 1]]), "block": 1},
        {"scores": np.array([-1000.0, -1001]), "values": np.array([[1.0], [0.0]]), "block": 5},
        {"scores": np.array([0.0]), "values": np.array([[3.0, -1.0]]), "block": 1},
    ),
    mistakes=(
        Mistake(
            "nothing shrinks",
            lambda scores, values, block: _blocks(scores, values, block, shrink=False),
            "when the maximum moves, σ and u still hold exponentials that were measured against the old one: multiply "
            "both by e^(μ − μ′)",
        ),
        Mistake(
            "each block against its own maximum",
            lambda scores, values, block: _blocks(scores, values, block, shrink=False, own=True),
            "each of your blocks is measured against its own maximum. The weights still sum to 1, but the best key of "
            "every block counts the same, however low its score",
        ),
        Mistake(
            "each block its own maximum as μ",
            _own_maxima,
            "your μ is the maximum of the block, not the largest score so far, and each block is measured against its "
            "own",
        ),
        Mistake(
            "new block against its own maximum",
            lambda scores, values, block: _blocks(scores, values, block, own=True),
            "you shrink what came before, but measure a new block against its own maximum; it must be the largest "
            "score so far",
        ),
        Mistake(
            "u does not shrink",
            _sum_shrunk_only,
            "you shrink σ but not u: the values of earlier blocks then weigh too much",
        ),
        Mistake(
            "not divided",
            _not_divided,
            "your answer is u; the weights sum to 1 only after the division by the last σ",
        ),
        Mistake(
            "last state only",
            _last_state,
            "you return the last μ and σ as numbers; asked for are lists, with one entry for each block",
        ),
    ),
    hints=(
        "Carry three things from block to block: the largest score so far, the sum of exponentials, the weighted sum "
        "of values. What is wrong with the old sums when the largest score changes?",
        "Start with μ = −∞, σ = 0, u = 0. In each block find the new μ first, multiply σ and u by e^(μ − μ′), then add "
        "what the block brings.",
        "In the loop: `new = max(mu, s.max())`, `e = np.exp(s - new)`, `sigma = sigma * np.exp(mu - new) + e.sum()`; "
        "the same for `u` with `e @ v`.",
    ),
)


# 12.12 Count the operations


def _count(H: int, F: int, V: int, L: int, lengths: Sequence[int], selected: Sequence[int]) -> int:
    config = ModelConfig(vocab_size=V, hidden_size=H, num_hidden_layers=L, intermediate_size=F, num_attention_heads=1)
    return int(forward_flops(config, lengths, selected).total)


def _formula(H: int, F: int, V: int, L: int, lengths: Sequence[int], read: Sequence[int], scored: Sequence[int]) -> int:
    """The count when `read` positions of each sequence leave the last layer and `scored` are scored."""
    T, r = sum(lengths), sum(read)
    layers = (L - 1) * sum(8 * n * H * H + 4 * n * n * H + 4 * n * H * F for n in lengths)
    pairs = sum(a * n for a, n in zip(read, lengths, strict=True))
    last = 4 * T * H * H + 4 * r * H * H + 4 * pairs * H + 4 * r * H * F
    return layers + last + 2 * sum(scored) * H * (H + V) + 2 * len(lengths) * H * (H + 2)


def _pairs_across(H: int, F: int, V: int, L: int, lengths: Sequence[int], selected: Sequence[int]) -> int:
    T, r = sum(lengths), len(lengths) + sum(selected)
    own = (L - 1) * sum(n * n for n in lengths) + sum((1 + m) * n for m, n in zip(selected, lengths, strict=True))
    return _count(H, F, V, L, lengths, selected) + 4 * H * ((L - 1) * T * T + r * T - own)


def _draw_network(rng: np.random.Generator) -> dict[str, Any]:
    H, B = int(rng.choice([4, 8, 16, 64])), int(rng.integers(1, 5))
    lengths = [int(n) for n in rng.integers(4, 40, B)]
    return {
        "H": H,
        "F": H * int(rng.integers(2, 5)),
        "V": int(rng.integers(20, 500)),
        "L": int(rng.integers(1, 5)),
        "lengths": lengths,
        "selected": [int(rng.integers(0, n - 2)) for n in lengths],
    }


COUNT = CodeTask(
    id="12.12",
    title="Count the operations",
    points=4,
    concepts=(),
    function="count_forward",
    reference=_count,
    draw=_draw_network,
    edges=(
        {"H": 4, "F": 8, "V": 10, "L": 1, "lengths": [6], "selected": [1]},
        {"H": 4, "F": 8, "V": 10, "L": 2, "lengths": [6, 3], "selected": [0, 1]},
        {"H": 128, "F": 512, "V": 4096, "L": 2, "lengths": [64], "selected": [10]},
    ),
    mistakes=(
        Mistake(
            "head at all positions",
            lambda H, F, V, L, lengths, selected: _formula(H, F, V, L, lengths, [1 + m for m in selected], lengths),
            "you score every position. The decoder is the largest matrix of all, and the loss looks only at the "
            "selected positions",
        ),
        Mistake(
            "everything at all positions",
            lambda H, F, V, L, lengths, selected: _formula(H, F, V, L, lengths, lengths, lengths),
            "you score every position and let the last layer answer everywhere; it is read only at [CLS] and at the "
            "selected positions",
        ),
        Mistake(
            "last layer at all positions",
            lambda H, F, V, L, lengths, selected: _formula(H, F, V, L, lengths, lengths, selected),
            "your last layer answers at all positions; it is read only at [CLS] and at the selected ones",
        ),
        Mistake(
            "[CLS] forgotten",
            lambda H, F, V, L, lengths, selected: _formula(H, F, V, L, lengths, selected, selected),
            "your last layer answers at the selected positions only; [CLS] is read too, by the head of the sentence "
            "relation",
        ),
        Mistake(
            "padding counted",
            lambda H, F, V, L, lengths, selected: _count(H, F, V, L, [max(lengths)] * len(lengths), selected),
            "you count each sequence with the longest length: padding is no useful work",
        ),
        Mistake(
            "pairs across sequences",
            _pairs_across,
            "you square the number of all tokens: a position reads only its own sequence, so the squares of the "
            "lengths are added",
        ),
        Mistake(
            "multiplications only",
            lambda **sizes: _count(**sizes) // 2,
            "your count is half of the right one: a multiplication and an addition are two operations, hence 2mkn",
        ),
        Mistake(
            "an update",
            lambda **sizes: 3 * _count(**sizes),
            "your count is that of an update, three times a forward pass; asked is for the forward pass",
        ),
    ),
    hints=(
        "Go through the sequences one by one and add up: a token is read by its own sequence only.",
        "A sequence of n tokens with m selected: L − 1 whole layers, the last layer with r = 1 + m positions that ask, "
        "the MLM head at m positions, the NSP head once.",
        "Start from `(L - 1) * (8 * n * H**2 + 4 * n * n * H + 4 * n * H * F)`; the last layer is `4 * n * H**2 + r * "
        "(…)`.",
    ),
)

TASKS = (COMBINE, BLOCKS, COUNT)
