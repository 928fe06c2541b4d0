"""Right solutions of exercise set 01, written in different ways."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import torch


def _shares_of_prefixes(sentence: str, language: list[str]) -> Any:
    """Each factor is the count of a longer beginning over that of a shorter one."""
    begins = Counter(tuple(other.split()[:i]) for other in language for i in range(len(other.split()) + 1))
    words = sentence.split()
    factors = []
    for i in range(len(words)):
        factors.append(begins[tuple(words[: i + 1])] / begins[tuple(words[:i])])
        if factors[-1] == 0:
            break
    return factors, math.log(math.prod(factors)) if factors[-1] else -math.inf


def _array_of_words(sentence: str, language: list[str]) -> Any:
    """Comparing a table of words, with a running mask."""
    table, words = np.array([other.split() for other in language]), np.array(sentence.split())
    alive, factors = np.ones(len(table), dtype=bool), []
    for column, word in zip(table.T, words, strict=True):
        factors.append(np.mean(column[alive] == word))
        alive &= column == word
        if not alive.any():
            break
    with np.errstate(divide="ignore"):
        return np.array(factors), np.log(np.array(factors)).sum()


def _shrinking_list(sentence: str, language: list[str]) -> Any:
    """Sentences that no longer fit are thrown away on the way."""
    left, factors = [other.split() for other in language], torch.zeros(0, dtype=torch.float64)
    for i, word in enumerate(sentence.split()):
        kept = [other for other in left if other[i] == word]
        factors = torch.cat([factors, torch.tensor([len(kept) / len(left)], dtype=torch.float64)])
        left = kept
        if not left:
            break
    return factors.tolist(), factors.log().sum()


def _triangle(kind: str, n: int, prefix: int) -> Any:
    pattern = np.ones((n, n), dtype=int)
    if kind != "bidirectional":
        pattern = np.tril(pattern)
    if kind == "prefix":
        pattern[:prefix, :prefix] = 1
    return pattern


def _lists(kind: str, n: int, prefix: int) -> Any:
    def looks(i: int, j: int) -> bool:
        if kind == "bidirectional":
            return True
        if kind == "prefix" and i < prefix:
            return j < prefix
        return j <= i

    return [[looks(i, j) for j in range(n)] for i in range(n)]


def _tensor(kind: str, n: int, prefix: int) -> Any:
    first = {"causal": 0, "bidirectional": n, "prefix": prefix}[kind]
    pattern = torch.ones(n, n).tril().bool()
    pattern[:, :first] = True
    return pattern


def _one_by_one(h: torch.Tensor, label_head: torch.Tensor, token_head: torch.Tensor, position: int) -> Any:
    return {
        "label": torch.argmax(h[0] @ label_head),
        "distribution": torch.softmax(h[position] @ token_head, dim=0),
        "vectors": h.clone(),
        "sequence": [int((row @ token_head).argmax()) for row in h],
    }


def _in_numpy(h: torch.Tensor, label_head: torch.Tensor, token_head: torch.Tensor, position: int) -> Any:
    states, labels, tokens = h.double().numpy(), label_head.double().numpy(), token_head.double().numpy()
    scores = np.exp(states @ tokens)
    return {
        "label": int(np.argmax(states[0] @ labels)),
        "distribution": scores[position] / scores[position].sum(),
        "vectors": states,
        "sequence": scores.argmax(axis=1).astype(np.int32),
    }


def _with_einsum(h: torch.Tensor, label_head: torch.Tensor, token_head: torch.Tensor, position: int) -> Any:
    log_p = torch.einsum("nh,hv->nv", h, token_head).log_softmax(1)
    return {
        "sequence": log_p.max(dim=1).indices,
        "vectors": [row.tolist() for row in h],
        "distribution": log_p[position].exp().tolist(),
        "label": int(torch.einsum("nh,hk->nk", h, label_head)[0].topk(1).indices),
    }


VARIANTS = {
    "01.4": (_shares_of_prefixes, _array_of_words, _shrinking_list),
    "01.6": (_triangle, _lists, _tensor),
    "01.9": (_one_by_one, _in_numpy, _with_einsum),
}
