"""The forward and the backward pass over the classes of a sentence, for each topic by itself, in log space.

With y_i the observation at position i, Rabiner (1989, §III) gives

    forward:   a_i(c) = log Pr(y_1 … y_{i−1}, c_i = c | k)        without the word at i itself
    backward:  b_i(c) = log Pr(y_{i+1} … y_L | c_i = c, k)

Shapes: B pairs, 2 sentences, L words of the longer sentence, K topics, C classes, N words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlmkit.language import Language


@dataclass(frozen=True)
class Tables:
    """Of a language: log Pr(k) (K,), log Pr(c₁) (C,), Pr(c′ | c) (C, C) and Pr(x | k, c) (K, C, N)."""

    topic: Tensor
    start: Tensor
    transition: Tensor
    emission: Tensor


def tables(language: Language) -> Tables:
    """Take the tables of a language over into torch, float64."""
    topic, start, transition, emission = (
        torch.from_numpy(table).double()
        for table in (language.topic, language.start, language.transition, language.emission)
    )
    return Tables(topic.log(), start.log(), transition, emission)


def log_matmul(logs: Tensor, matrix: Tensor) -> Tensor:
    """log(exp(logs) @ matrix) without underflow: the largest entry of each row is taken out first.

    >>> log_matmul(torch.tensor([[-2000.0, -torch.inf]]), torch.eye(2))
    tensor([[-2000.,   -inf]])
    """
    top = logs.amax(-1, keepdim=True).clamp(min=-1e30)  # a row of −∞ stays one
    return ((logs - top).exp() @ matrix).log() + top


@dataclass(frozen=True)
class Passes:
    """a and b (B, 2, L, K, C), and log Pr(sentence | k) (B, 2, K)."""

    before: Tensor
    after: Tensor
    sentence: Tensor


def forward_backward(t: Tables, seen: Tensor) -> Passes:
    """Run both passes over log Pr(y_i | k, c_i) (B, 2, L, K, C)."""
    L = seen.shape[2]
    before, after = [t.start.expand_as(seen[:, :, 0])], [torch.zeros_like(seen[:, :, 0])]
    for i in range(1, L):
        before.append(log_matmul(before[-1] + seen[:, :, i - 1], t.transition))
        after.append(log_matmul(after[-1] + seen[:, :, L - i], t.transition.T))
    a, b = torch.stack(before, dim=2), torch.stack(after[::-1], dim=2)
    return Passes(a, b, (a[:, :, 0] + seen[:, :, 0] + b[:, :, 0]).logsumexp(-1))


def prior(t: Tables, seen: Tensor) -> Tensor:
    """log Pr(c_i), before anything is read (B, 2, L, K, C)."""
    found = [t.start]
    for _ in range(1, seen.shape[2]):
        found.append(log_matmul(found[-1], t.transition))
    return torch.stack(found)[:, None].expand_as(seen)


def left_neighbor(t: Tables, seen: Tensor) -> Tensor:
    """log Pr(y_{i−1}, c_i | k), at the first word log Pr(c₁) (B, 2, L, K, C)."""
    before = log_matmul(prior(t, seen) + seen, t.transition)
    return torch.cat([t.start.expand_as(before[:, :, :1]), before[:, :, :-1]], dim=2)


def right_neighbor(t: Tables, seen: Tensor) -> Tensor:
    """log Pr(y_{i+1} | c_i, k), at the last word 0 (B, 2, L, K, C)."""
    after = log_matmul(seen, t.transition.T)
    return torch.cat([after[:, :, 1:], torch.zeros_like(after[:, :, :1])], dim=2)
