"""What independent predictions lose, and what each side of the context gives; on a small language, in nats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mlmkit.errors import UserError
from mlmkit.exact.estimates import Estimate, ratio, sum_by_pair
from mlmkit.exact.floors import exact_batches
from mlmkit.exact.inference import FIRST_WORD, MASK_ID, Context, joint_log_probability, posterior
from mlmkit.language import Language
from mlmkit.masking import IGNORE, MaskingPolicy

Pattern = Literal["random", "neighbors", "apart"]
_NOTHING_HIDDEN = MaskingPolicy(rate=0.0, count="binomial")


@dataclass(frozen=True)
class DependencyGap:
    """E[log Pr(x_A | x̄) − Σ_{i∈A} log Pr(x_i | x̄)]: for all masked words of a pair, and for each of them."""

    per_pair: Estimate
    per_word: Estimate


def dependency_gap(
    language: Language, rng: np.random.Generator, *, masks: int = 2, pattern: Pattern = "random", pairs: int = 4096
) -> DependencyGap:
    """What is lost by predicting masked words independently of each other, though each by its true posterior.

    The joint probability of the words behind several [MASK] is not the product of the probabilities at each. The
    expected difference of the logs is the multi-information of the words given x̄ (Watanabe 1960), never negative,
    and 0 only if the words do not depend on each other once x̄ is known (Xiao & Zhu ch. 1; Yang et al. 2019, XLNet, §2).

    Args:
        language: where the words come from.
        rng: draws the pairs and the masked positions.
        masks: how many words of each pair become [MASK]; all others are true.
        pattern: which: "random" ones, "neighbors" within a sentence, or as far "apart" as the pair allows, from the
            first word of A to the last of B.
        pairs: how many are drawn.

    Raises:
        UserError: the pair has no room for so many masks, or there is no such pattern.
    """
    gaps = []
    for batch in exact_batches(language, pairs, rng, _NOTHING_HIDDEN):
        x = batch["input_ids"]
        hidden = torch.zeros_like(x, dtype=torch.bool)  # (B, S)
        hidden.scatter_(1, torch.from_numpy(_positions(language.lengths, len(x), masks, pattern, rng)), True)
        seen = x.masked_fill(hidden, MASK_ID)
        joint = joint_log_probability(language, seen, torch.where(hidden, x, IGNORE), policy=None)  # (B,)
        p = posterior(language, seen, hidden, policy=None)  # (M, V)
        alone = p.gather(1, x[hidden][:, None]).log()[:, 0]  # (M,)
        gaps.append(joint - sum_by_pair(alone, hidden))
    gap = torch.cat(gaps)
    return DependencyGap(ratio(gap, torch.ones_like(gap)), ratio(gap, torch.full_like(gap, masks)))


def _positions(
    lengths: tuple[int, int], size: int, masks: int, pattern: Pattern, rng: np.random.Generator
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Choose the columns of `[CLS] A [SEP] B [SEP]` that are hidden in each pair (B, masks)."""
    first, n = lengths[0], sum(lengths)
    if not 1 <= masks <= (max(lengths) if pattern == "neighbors" else n):
        raise UserError(f"{masks} masks ({pattern}) have no place in two sentences of {first} and {n - first} words")
    if pattern == "random":
        words = rng.random((size, n)).argsort(axis=1)[:, :masks]  # (B, masks)
    elif pattern == "neighbors":
        starts = np.array([s for s in range(n - masks + 1) if s >= first or s + masks <= first])
        words = rng.choice(starts, size)[:, None] + np.arange(masks)
    elif pattern == "apart":
        words = np.broadcast_to(np.linspace(0, n - 1, masks).round().astype(np.int64), (size, masks))
    else:
        raise UserError(f"pattern must be one of {', '.join(get_args(Pattern))}, got {pattern!r}")
    return words + 1 + (words >= first)  # [CLS] stands before A, and [SEP] before B


@dataclass(frozen=True)
class ContextGain:
    """How uncertain a hidden word is, by what may be looked at.

    Attributes:
        entropy: mean entropy of the word in each context.
        above_both: entropy minus that with both sides, measured on the same words, so its error is smaller.
    """

    entropy: dict[Context, Estimate]
    above_both: dict[Context, Estimate]


def context_gain(
    language: Language, rng: np.random.Generator, *, policy: MaskingPolicy | None = None, pairs: int = 1024
) -> ContextGain:
    """Entropy of a hidden word given both sides, the left, the right, the two neighbors, or nothing but its place.

    More context can only lower the mean entropy (Cover & Thomas 2006, theorem 2.6.5); by how much is the gain.

    Args:
        language: where the words come from.
        rng: draws the pairs and their masks.
        policy: None: each word in turn is the only hole in a clean text. Otherwise the selected words of corrupted
            text, and what the corruption put in their place is seen, as in pre-training.
        pairs: how many are drawn.
    """
    sums: dict[Context, list[Tensor]] = {context: [] for context in get_args(Context)}
    counts = []
    for batch in exact_batches(language, pairs, rng, _NOTHING_HIDDEN if policy is None else policy):
        x = batch["input_ids"]
        asked = x >= FIRST_WORD if policy is None else batch["labels"] != IGNORE  # (B, S)
        for context, parts in sums.items():
            p = posterior(language, x, asked, policy=policy, context=context, own=policy is not None)  # (M, V)
            parts.append(sum_by_pair(torch.special.entr(p).sum(-1), asked))
        counts.append(asked.sum(1))
    total, count = {context: torch.cat(parts) for context, parts in sums.items()}, torch.cat(counts)
    return ContextGain(
        entropy={context: ratio(h, count) for context, h in total.items()},
        above_both={context: ratio(h - total["both"], count) for context, h in total.items()},
    )
