"""What masking did to a sentence: the fate of each token, and the counts beside what is expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmkit.masking import BoolArray, IntArray, MaskingPolicy, mask
from mlmkit.tokenizer import Tokenizer
from mlmkit.widgets.sentences import Sentence

FATES = ("mask", "random", "keep")
_DRAWS, _REHEARSALS = range(2)  # streams of random numbers that must not meet


@dataclass(frozen=True)
class Tally:
    """How often something happened in this draw, and how often it does.

    Attributes:
        drawn: tokens in this draw.
        expected: mean over all draws, exact.
        low, high: 95 of 100 draws lie between them, both included.
    """

    drawn: int
    expected: float
    low: int
    high: int


@dataclass(frozen=True)
class Draw:
    """One corruption of a sentence.

    Attributes:
        sentence: x.
        seen: x̄ as tokens (S,).
        fates: "mask", "random", "keep", "" for a token that was not selected, "special" for one that never is (S,).
        tallies: of each fate, of "selected" (the three together) and of "untouched" (the other real tokens).
    """

    sentence: Sentence
    seen: tuple[str, ...]
    fates: tuple[str, ...]
    tallies: dict[str, Tally]


def draw_masks(
    tokenizer: Tokenizer,
    sentence: Sentence,
    policy: MaskingPolicy,
    seed: int,
    number: int = 0,
    rehearsals: int = 400,
) -> Draw:
    """Select and corrupt a sentence once, and as often again as it takes to say what is usual.

    The fates are read off by comparing x̄ with x, so a random token that happens to be the true one counts as kept.
    With n real tokens and N ordinary ones to draw from, the expected counts are n·rate·share, where 1/N of the share
    "random" goes over to "keep".

    Args:
        tokenizer: special and ordinary ids, word boundaries.
        sentence: x.
        policy: how to mask.
        seed: of all draws.
        number: which of them.
        rehearsals: draws from which the usual range is taken.
    """
    x, selected, corrupted = _corrupted(tokenizer, sentence, policy, np.random.default_rng((seed, _DRAWS, number)), 1)
    fates = _fates(tokenizer, x, selected, corrupted)  # (1, S)
    rng = np.random.default_rng((seed, _REHEARSALS))
    many = _fates(tokenizer, *_corrupted(tokenizer, sentence, policy, rng, rehearsals))  # (rehearsals, S)
    real = len(sentence.ordinary)
    luck = policy.random / len(tokenizer.ordinary_ids)
    shares = {"mask": policy.mask, "random": policy.random - luck, "keep": policy.keep + luck}
    expected = {fate: real * policy.rate * share for fate, share in shares.items()}
    expected |= {"selected": real * policy.rate, "untouched": real * (1 - policy.rate)}
    return Draw(
        sentence=sentence,
        seen=tuple(tokenizer.tokens(corrupted[0].tolist())),
        fates=tuple(fates[0].tolist()),
        tallies={what: _tally(what, fates, many, mean) for what, mean in expected.items()},
    )


def _corrupted(
    tokenizer: Tokenizer, sentence: Sentence, policy: MaskingPolicy, rng: np.random.Generator, times: int
) -> tuple[IntArray, BoolArray, IntArray]:
    """x, A(x) and x̄ of the same sentence several times, masked each time anew (times, S)."""
    x = np.tile(np.array(sentence.ids), (times, 1))  # (times, S)
    corrupted, selected = mask(
        x,
        policy,
        rng,
        special_ids=tokenizer.special_ids,
        begins_word=~tokenizer.is_continuation[x],
        mask_id=tokenizer.mask_id,
        ordinary_ids=tokenizer.ordinary_ids,
    )
    return x, selected, corrupted


def _fates(tokenizer: Tokenizer, x: IntArray, selected: BoolArray, corrupted: IntArray) -> NDArray[np.str_]:
    """What happened to each token, as the words of `Draw.fates` (B, S)."""
    fates = np.where(np.isin(x, tokenizer.special_ids), "special", "")
    changed = np.where(corrupted == tokenizer.mask_id, "mask", np.where(corrupted == x, "keep", "random"))
    return np.where(selected, changed, fates)


def _tally(what: str, fates: NDArray[np.str_], many: NDArray[np.str_], expected: float) -> Tally:
    """Count one fate, "selected" or "untouched" in this draw (1, S) and in the rehearsals."""
    counted = {"selected": FATES, "untouched": ("",)}.get(what, (what,))
    low, high = np.quantile(np.isin(many, counted).sum(1), [0.025, 0.975], method="nearest")
    return Tally(int(np.isin(fates, counted).sum()), expected, int(low), int(high))


def rebalance(shares: tuple[int, int, int], changed: int, value: int) -> tuple[int, int, int]:
    """Set one of three shares (in percent) and let the others give or take, in proportion, so that the sum is 100.

    What the changed share was before plays no part.

    >>> rebalance((80, 10, 10), changed=0, value=60)
    (60, 20, 20)
    """
    first, second = (i for i in range(3) if i != changed)
    rest = 100 - value
    others = shares[first] + shares[second]
    new = list(shares)
    new[changed] = value
    new[first] = round(rest * shares[first] / others) if others else rest // 2
    new[second] = rest - new[first]
    return new[0], new[1], new[2]
