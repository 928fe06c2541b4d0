"""The probabilities of a small language by plain enumeration: nothing here is shared with `mlmkit.exact`.

A world is everything that happens when a pair is made: the relation r, both topics, the classes of all words, the
words, which of them are selected, and what comes out of the corruption. All worlds are written down in one table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.language import Language
from mlmkit.masking import MaskingPolicy

Floats = NDArray[np.float64]
CLS, SEP, MASK_ID, FIRST = 2, 3, 4, 5
MASK = -1
"""An observation that is no word; words are observed as their numbers."""


def sparse_rows(rng: np.random.Generator, *shape: int, zeros: float) -> Floats:
    """Random distributions in the last axis, some of whose entries are 0."""
    table = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    table[rng.random(shape) < zeros] = 0
    empty = table.sum(-1) == 0
    table[empty, rng.integers(shape[-1])] = 1
    return table / table.sum(-1, keepdims=True)


def random_language(rng: np.random.Generator, lengths: tuple[int, int], zeros: float = 0.2) -> Language:
    """A language of 1–2 topics, 1–3 classes and 2–4 words, as far as all its pairs can be enumerated."""
    n = sum(lengths)
    K, C, N = rng.integers(1, 3), rng.integers(1, 4 if n < 5 else 3), rng.integers(2, 5 if n < 5 else 4)
    return Language(
        name="random",
        words=tuple("abcd"[:N]),
        topics=tuple("tu"[:K]),
        classes=tuple("cde"[:C]),
        topic=sparse_rows(rng, K, zeros=0),
        start=sparse_rows(rng, C, zeros=zeros),
        transition=sparse_rows(rng, C, C, zeros=zeros),
        emission=sparse_rows(rng, K, C, N, zeros=zeros),
        lengths=lengths,
    )


def pair_table(language: Language, next_probability: float = 0.5) -> Floats:
    """Pr(r, x_1, …, x_n) of all pairs (2, N, …, N); r is 0 where B is the next sentence."""
    N, K, C = len(language.words), len(language.topics), len(language.classes)
    first, n = language.lengths[0], sum(language.lengths)
    table = np.zeros((2, *[N] * n))
    for r, k_a, k_b in product((0, 1), range(K), range(K)):
        if r == 0:
            p = next_probability * language.topic[k_a] * (k_a == k_b)
        else:
            p = (1 - next_probability) * language.topic[k_a] * language.topic[k_b]
        for classes in product(range(C), repeat=n):
            weight, words = p, np.ones(())
            for j, c in enumerate(classes):
                opens = j in (0, first)
                weight = weight * (language.start[c] if opens else language.transition[classes[j - 1], c])
                words = np.multiply.outer(words, language.emission[k_a if j < first else k_b, c])
            table[r] += weight * words
    return table


def sentence_table(language: Language) -> Floats:
    """The same for single sentences as long as A: Pr(x_1, …, x_L) in both rows of (2, N, …, N), halved."""
    table = pair_table(language)
    alone = table.sum(axis=(0, *range(1 + language.lengths[0], table.ndim)))
    return np.stack([alone, alone]) / 2


def worlds(
    table: Floats,
    seen: Sequence[int],
    policy: MaskingPolicy | None,
    visible: Collection[int] | None = None,
    selected: Collection[int] = (),
) -> Floats:
    """Pr(s, r, x, what is seen) of all worlds (2, …, 2, 2, N, …, N): n axes of selection, one of r, n of words.

    Args:
        table: from `pair_table` or `sentence_table`.
        seen: what stands at each of the n positions.
        policy: how it came there; None: [MASK] was put in by hand, all the rest is true.
        visible: positions that are looked at; all if absent.
        selected: positions that are known to be selected; this knowledge costs no probability.
    """
    n, N = len(seen), table.shape[1]
    x = np.arange(N)
    found = table[(None,) * n]
    for j, y in enumerate(seen):
        if policy is None:
            kept = [np.ones(N) if y == MASK else 1.0 * (x == y)] * 2
            rate = 0.5
        else:
            unselected = 1.0 * (x == y)
            corrupted = np.full(N, policy.mask) if y == MASK else policy.keep * (x == y) + policy.random / N
            kept, rate = [unselected, corrupted], policy.rate
        if visible is not None and j not in visible:
            kept = [np.ones(N)] * 2
        chance = (0.0, 1.0) if j in selected else (1 - rate, rate)
        factor = np.stack([chance[0] * kept[0], chance[1] * kept[1]])  # (s_j, x_j)
        shape = [1] * (2 * n + 1)
        shape[j], shape[n + 1 + j] = 2, N
        found = found * factor.reshape(shape)
    return found


def word_posterior(found: Floats, i: int) -> Floats:
    """Pr(x_i | what is seen) (N,), from all worlds; NaN where nothing of the kind can be seen."""
    n = (found.ndim - 1) // 2
    weights = found.sum(axis=tuple(a for a in range(found.ndim) if a != n + 1 + i))
    return weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), np.nan)


def draw(table: Floats, policy: MaskingPolicy | None, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Draw the words of a pair and what is seen of them; without a policy each word is hidden with probability ½."""
    cell = rng.choice(table.size, p=table.ravel() / table.sum())
    words = [int(w) for w in np.unravel_index(cell, table.shape)[1:]]
    seen = []
    for word in words:
        fate = rng.random()
        if policy is None:
            seen.append(MASK if fate < 0.5 else word)
        elif rng.random() >= policy.rate:
            seen.append(word)
        elif fate < policy.mask:
            seen.append(MASK)
        else:
            seen.append(int(rng.integers(table.shape[1])) if fate < policy.mask + policy.random else word)
    return words, seen


def layout(rows: Sequence[Sequence[int]], first: int) -> Tensor:
    """Write rows of n observations as `[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` where all n words are A."""
    lines = []
    for row in rows:
        ids = [MASK_ID if y == MASK else FIRST + y for y in row]
        lines.append([CLS, *ids[:first], SEP, *([*ids[first:], SEP] if len(ids) > first else [])])
    return torch.tensor(lines)


def columns(n: int, first: int) -> list[int]:
    """Where the n words stand in a line of `layout`."""
    return [1 + j + (j >= first) for j in range(n)]


def channels(N: int, policy: MaskingPolicy) -> tuple[Floats, Floats]:
    """Pr(y | x) (N, N + 1) at a selected position, and where nobody knows whether it is; [MASK] comes last."""
    true = np.eye(N, N + 1)
    corrupted = policy.keep * true
    corrupted[:, :N] += policy.random / N
    corrupted[:, N] += policy.mask
    return corrupted, (1 - policy.rate) * true + policy.rate * corrupted


def posterior_table(table: Floats, policy: MaskingPolicy, i: int) -> Floats:
    """Pr(r, x_i, ȳ | i is selected) of everything that can be seen (2, N, N + 1, …, N + 1)."""
    n, N = table.ndim - 1, table.shape[1]
    corrupted, hidden = channels(N, policy)
    words, seen = "abcdef"[:n], "uvwxyz"[:n]
    pairs = ",".join(a + b for a, b in zip(words, seen, strict=True))
    factors = [corrupted if j == i else hidden for j in range(n)]
    return np.einsum(f"r{words},{pairs}->r{words[i]}{seen}", table, *factors, optimize=True)


def relation_table(table: Floats, policy: MaskingPolicy) -> Floats:
    """Pr(r, ȳ) of everything that can be seen (2, N + 1, …, N + 1)."""
    n, N = table.ndim - 1, table.shape[1]
    words, seen = "abcdef"[:n], "uvwxyz"[:n]
    pairs = ",".join(a + b for a, b in zip(words, seen, strict=True))
    return np.einsum(f"r{words},{pairs}->r{seen}", table, *[channels(N, policy)[1]] * n, optimize=True)


def entropy(p: Floats) -> float:
    """−Σ p log p in nats."""
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
