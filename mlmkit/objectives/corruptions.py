"""Four ways to damage a sentence that an encoder–decoder must rebuild (Lewis et al. 2020, §2.2; Xiao & Zhu ch. 1).

    mask      each hidden word leaves one [MASK]: how many are missing, and where, can be seen
    infill    each run of hidden words leaves one [MASK]: where can be seen, how many cannot
    delete    hidden words leave nothing: the sentence is shorter, and neither can be seen
    rotate    no word is missing, but the sentence begins somewhere else and goes around

The same words may be hidden in the first three ways. Each shows less than the one before it: close the ranks of the
[MASK]s and a masked sentence becomes an infilled one, drop them and it becomes a deleted one.

Shapes: B sentences, L words in a sentence, W words and [MASK]s in the longest damaged sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mlmkit.errors import UserError
from mlmkit.exact.inference import CLS_ID, FIRST_WORD, MASK_ID, PAD_ID, SEP_ID
from mlmkit.masking import BoolArray, IntArray
from mlmkit.tokenizer import SPECIAL_TOKENS

Kind = Literal["mask", "infill", "delete", "rotate"]


@dataclass(frozen=True)
class Corruption:
    """How a sentence is damaged.

    Which words are hidden follows a Markov chain: a run of hidden words ends after each of its words with probability
    1/`run_length`, and runs begin so often that the share `rate` of all words is hidden. BART draws the lengths of
    runs from a Poisson law with mean 3; with geometric ones the best possible answer is known
    (`restoration_log_probability`).

    Args:
        kind: "mask", "infill", "delete" or "rotate".
        rate: probability that a word is hidden; rotation hides none.
        run_length: mean number of words in a run; None: each word is hidden by itself, the mean is then
            1 / (1 − rate).
        empty: probability that infilling puts a [MASK] that hides nothing in front of a visible word, or at the end;
            never beside another [MASK].

    Raises:
        UserError: a value is outside its range, or no chain has such a rate and run length.
    """

    kind: Kind = "mask"
    rate: float = 0.3
    run_length: float | None = None
    empty: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if not 0 <= self.rate < 1:
            raise UserError(f"rate must be at least 0 and less than 1, got {self.rate}")
        if not 0 <= self.empty < 1:
            raise UserError(f"empty must be at least 0 and less than 1, got {self.empty}")
        if self.run_length is not None and (self.run_length < 1 or self.begins > 1):
            least = max(1.0, self.rate / (1 - self.rate))
            raise UserError(
                f"run_length must be at least {least:g} to hide the share {self.rate:g}, got {self.run_length:g}"
            )

    @property
    def goes_on(self) -> float:
        """Probability that a word is hidden when the word before it is hidden."""
        return self.rate if self.run_length is None else 1 - 1 / self.run_length

    @property
    def begins(self) -> float:
        """Probability that a word is hidden when the word before it is visible.

        The share of hidden words stays the same from word to word if rate = rate · goes_on + (1 − rate) · begins.
        """
        return self.rate * (1 - self.goes_on) / (1 - self.rate)


def hide(shape: tuple[int, int], corruption: Corruption, rng: np.random.Generator) -> BoolArray:
    """Choose the words that are hidden (B, L), each with probability `rate`; not for rotation."""
    chance = rng.random(shape)
    hidden = np.zeros(shape, dtype=bool)
    hidden[:, :1] = chance[:, :1] < corruption.rate
    for i in range(1, shape[1]):
        hidden[:, i] = chance[:, i] < np.where(hidden[:, i - 1], corruption.goes_on, corruption.begins)
    return hidden


def mask_words(words: IntArray, hidden: BoolArray) -> IntArray:
    """Put [MASK] in the place of each hidden word (B, L).

    >>> mask_words(np.array([[10, 11, 12, 13]]), np.array([[False, True, True, False]])).tolist()
    [[10, 4, 4, 13]]
    """
    return np.where(hidden, MASK_ID, words)


def delete_words(words: IntArray, hidden: BoolArray) -> IntArray:
    """Take the hidden words out: no place-holder is left (B, W), padded with [PAD] at the end.

    >>> delete_words(np.array([[10, 11, 12, 13]]), np.array([[False, True, True, False]])).tolist()
    [[10, 13]]
    """
    return _close_ranks(words, ~hidden)


def infill_words(words: IntArray, hidden: BoolArray, empty: BoolArray | None = None) -> IntArray:
    """Put one [MASK] in the place of each run of hidden words (B, W), padded with [PAD] at the end.

    Args:
        words: the sentence (B, L).
        hidden: its hidden words (B, L).
        empty: where a [MASK] that hides nothing is put: in front of each word, and at the end (B, L + 1). It is not
            put where it would touch another [MASK].

    >>> infill_words(np.array([[10, 11, 12, 13]]), np.array([[False, True, True, False]])).tolist()
    [[10, 4, 13]]
    """
    B, L = words.shape
    edge = np.zeros((B, 1), dtype=bool)
    before, here = np.hstack([edge, hidden]), np.hstack([hidden, edge])  # (B, L + 1) is the word hidden?
    holes = here & ~before
    if empty is not None:
        holes |= empty & ~before & ~here
    text = np.full((B, 2 * L + 1), MASK_ID)  # a hole, the first word, a hole, the second word, …, a hole
    text[:, 1::2] = words
    present = np.empty(text.shape, dtype=bool)
    present[:, ::2], present[:, 1::2] = holes, ~hidden
    return _close_ranks(text, present)


def rotate_words(words: IntArray, first: IntArray) -> IntArray:
    """Begin each sentence at the word with number `first` (B,), and go around (B, L).

    >>> rotate_words(np.array([[10, 11, 12, 13]]), np.array([3])).tolist()
    [[13, 10, 11, 12]]
    """
    L = words.shape[1]
    return np.take_along_axis(words, (np.arange(L) + first[:, None]) % L, axis=1)


def _close_ranks(ids: IntArray, present: BoolArray) -> IntArray:
    """Move what is present to the front, in its order, and pad the rest: (B, n) → (B, W)."""
    order = np.argsort(~present, axis=1, kind="stable")
    count = present.sum(1)
    width = int(count.max(initial=0))
    moved = np.take_along_axis(ids, order, axis=1)[:, :width]
    return np.where(np.arange(width) < count[:, None], moved, PAD_ID)


def damage(words: IntArray, corruption: Corruption, rng: np.random.Generator) -> IntArray:
    """Draw x̃ from Pr(x̃ | x) (B, W), padded with [PAD] at the end.

    Args:
        words: x, ids of words only, all sentences of the same length (B, L).
        corruption: the law.
        rng: source of all draws.
    """
    B, L = words.shape
    if corruption.kind == "rotate":
        return rotate_words(words, rng.integers(0, L, size=(B,)))
    hidden = hide((B, L), corruption, rng)
    if corruption.kind == "mask":
        return mask_words(words, hidden)
    if corruption.kind == "delete":
        return delete_words(words, hidden)
    return infill_words(words, hidden, rng.random((B, L + 1)) < corruption.empty)


def frame(words: IntArray) -> Tensor:
    """Add [CLS] in front and [SEP] after the last word: (B, W) → ids (B, W + 2), padded.

    >>> frame(np.array([[10, 11], [12, 0]])).tolist()
    [[2, 10, 11, 3], [2, 12, 3, 0]]
    """
    B, W = words.shape
    framed = np.full((B, W + 2), PAD_ID, dtype=np.int64)
    framed[:, 0] = CLS_ID
    framed[:, 1:-1] = words
    framed[np.arange(B), 1 + (words != PAD_ID).sum(1)] = SEP_ID
    return torch.from_numpy(framed)


def show_corruptions(sentence: str, corruption: Corruption, rng: np.random.Generator) -> dict[Kind, str]:
    """Damage one sentence in each of the four ways; the same words are hidden in the first three.

    Args:
        sentence: words between spaces.
        corruption: rate, run length and empty holes; its kind does not matter.
        rng: source of all draws.

    Raises:
        UserError: there is no word.

    >>> shown = show_corruptions("the early bird catches the worm", Corruption(run_length=2), np.random.default_rng(10))
    >>> for kind, text in shown.items():
    ...     print(f"{kind:8}{text}")
    mask    the early [MASK] [MASK] the worm
    infill  the early [MASK] the worm
    delete  the early the worm
    rotate  worm the early bird catches the
    """
    names = [*SPECIAL_TOKENS, *sentence.split()]
    words = np.arange(FIRST_WORD, len(names))[None]  # (1, L) a word's id is its place
    if not words.size:
        raise UserError("a sentence has at least one word, got none; write words between spaces")
    seed = int(rng.integers(2**63))  # the same draws, hence the same hidden words, for every kind
    shown: dict[Kind, str] = {}
    for kind in get_args(Kind):
        ids = damage(words, replace(corruption, kind=kind), np.random.default_rng(seed))[0]
        shown[kind] = " ".join(names[i] for i in ids)
    return shown
