"""What a predictor cannot know that ignores the order of the words: dynamic programming over bags of classes.

Shapes: K topics, C classes, N words, G bags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError
from mlmkit.exact.inference import BERT, check_policy
from mlmkit.language import Language
from mlmkit.masking import MaskingPolicy

Floats = NDArray[np.float64]
LARGEST = 200_000
"""So many bags are still computed, in some ten seconds."""


def order_blind_bound(language: Language, policy: MaskingPolicy = BERT) -> float:
    """A loss that no predictor gets below which ignores the order of the words, in nats; computed, not sampled.

    Such a predictor sees the words of a pair as a bag. We tell it more than that: the topic, at which place in the
    sentence the word stands, how often each class occurs among the other words of its sentence, and, as for the
    floor, what the corruption left at the place itself. Once the topic and the classes are known, words do not depend
    on each other, so the bag of the other words adds nothing to this; and the other sentence only speaks of the topic.
    Whoever knows less cannot do better than the mean entropy of the word given all this.

    With m the bag of classes at the other places, Pr(c_i, m) comes from a forward and a backward pass whose states are
    a class and the bag of those read so far.

    Args:
        language: up to eight classes or so at fourteen words: the number of bags grows as L^(C−1).
        policy: what happens at a selected position.

    Raises:
        UserError: there are too many bags, or the policy has no exact answer.
    """
    check_policy(policy)
    lengths = set(language.lengths)  # two sentences of equal length have the same mean: one is enough
    return float(np.concatenate([_entropies(language, policy, length) for length in lengths]).mean())


@dataclass(frozen=True)
class _Bags:
    """Bags of classes and a weight for each and each class: Pr(bag, class), or Pr(bag | class).

    A bag with n_c words of class c has the key Σ_c n_c (L+1)^c, so two bags are united by adding their keys.
    """

    keys: NDArray[np.int64]  # (G,)
    weights: Floats  # (G, C)


def _entropies(language: Language, policy: MaskingPolicy, L: int) -> Floats:
    """Entropy of the word at each place of a sentence of L words, given what `order_blind_bound` reveals (L,)."""
    C = len(language.classes)
    if math.comb(L - 1 + C - 1, C - 1) > LARGEST or (L + 1) ** C >= 2**63:
        raise UserError(f"{C} classes in sentences of {L} words make too many bags of classes: take a smaller language")
    one = (L + 1) ** np.arange(C, dtype=np.int64)  # (C,) keys of the bags with one word
    nothing = np.zeros(1, dtype=np.int64)
    before = [_Bags(nothing, language.start[None])]
    after = [_Bags(nothing, np.ones((1, C)))]
    for _ in range(1, L):
        left, right = before[-1], after[-1]
        before.append(_add_one(left.keys, one, left.weights[:, :, None] * language.transition))
        after.append(_add_one(right.keys, one, right.weights[:, :, None] * language.transition.T[None]))
    return np.array([_entropy(language, policy, _unite(before[i], after[L - 1 - i])) for i in range(L)])


def _add_one(keys: NDArray[np.int64], one: NDArray[np.int64], weights: Floats) -> _Bags:
    """Put one more word into each bag; `weights` (G, C, C) are by its class and the class of the next place."""
    C = len(one)
    return _gather((keys[:, None] + one).ravel(), weights.reshape(-1, C))


def _unite(left: _Bags, right: _Bags) -> _Bags:
    """Bags of all words but one, from those on both sides of it: Pr(c_i, m)."""
    keys = (left.keys[:, None] + right.keys).ravel()
    found, place = np.unique(keys, return_inverse=True)
    columns = [
        np.bincount(place, np.multiply.outer(a, b).ravel(), minlength=len(found))
        for a, b in zip(left.weights.T, right.weights.T, strict=True)
    ]
    return _Bags(found, np.stack(columns, axis=1))


def _gather(keys: NDArray[np.int64], weights: Floats) -> _Bags:
    """Add up the weights of equal bags."""
    found, place = np.unique(keys, return_inverse=True)
    sums = np.zeros((len(found), weights.shape[1]))
    np.add.at(sums, place, weights)
    return _Bags(found, sums)


def _entropy(language: Language, policy: MaskingPolicy, bags: _Bags) -> float:
    """H(x_i | k, m, y_i), where y_i is what the corruption left at a selected position."""
    mass = bags.weights.sum(1)  # (G,) Pr(m)
    keep = mass > 0
    classes = bags.weights[keep] / mass[keep, None]  # (G, C) Pr(c_i | m)
    total = 0.0
    for p_topic, emission in zip(language.topic, language.emission, strict=True):
        p = classes @ emission  # (G, N) Pr(x_i | k, m)
        total += p_topic * float(mass[keep] @ _after_channel(p, policy))
    return total


def _after_channel(p: Floats, policy: MaskingPolicy) -> Floats:
    """H(x | y) for words with distributions p (G, N) that were selected and corrupted (G,).

    [MASK] says nothing: H(x). Otherwise y is x or a random word, and H(x | y) = H(x) + H(y | x) − H(y).
    """
    H = _entropies_of(p)
    seen = policy.keep + policy.random  # probability that a word stands there
    if seen == 0:
        return H
    N = p.shape[1]
    other = policy.random / seen / N  # Pr(y) of each word that is put in at random
    row = np.full(N, other)
    row[0] += policy.keep / seen  # Pr(y | x): the same numbers for each x, in another order
    return H + seen * (_entropies_of(row[None]) - _entropies_of(policy.keep / seen * p + other))


def _entropies_of(p: Floats) -> Floats:
    """−Σ p log p of each row (G, N) → (G,)."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
