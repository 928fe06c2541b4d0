"""The chain rule in two ways: a masked language model that hides all that follows is a left-to-right model."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmkit.errors import UserError
from mlmkit.exact.inference import FIRST_WORD, MASK_ID, log_evidence, posterior
from mlmkit.language import Language


def log_probability(language: Language, input_ids: Tensor, next_probability: float = 1.0) -> Tensor:
    """log Pr(x) of clean text in nats (B,), summed over all classes and topics by the forward algorithm.

    Args:
        language: whose text it is.
        input_ids: `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` without [MASK], padded (B, S).
        next_probability: probability that B belongs to the document of A; 1: it is one document.

    Raises:
        UserError: there is a [MASK] in the text.
    """
    return log_evidence(language, _clean(input_ids), policy=None, next_probability=next_probability)


def chain_by_masks(language: Language, input_ids: Tensor, next_probability: float = 1.0) -> Tensor:
    """Σ_i log Pr(x_i | x_0 … x_{i−1}, [MASK] … [MASK]) in nats (B,): everything from i on is masked, x_i predicted.

    Each term has its own x̄, so nothing is predicted from itself or from what follows. The sum equals
    `log_probability`: masked language modeling contains left-to-right modeling (Xiao & Zhu ch. 1). Arguments and
    errors as there.
    """
    x = _clean(input_ids)
    word = x >= FIRST_WORD  # (B, S)
    total = torch.zeros(len(x), dtype=torch.float64)
    for i in range(x.shape[1]):
        here, hidden = word.clone(), word.clone()
        here[:, :i], here[:, i + 1 :] = False, False  # position i alone
        hidden[:, :i] = False  # i and all that follows
        seen = x.masked_fill(hidden, MASK_ID)
        p = posterior(language, seen, here, policy=None, next_probability=next_probability)  # (M, V)
        total[here.any(1)] += p.gather(1, x[here][:, None]).log()[:, 0]
    return total


def chain_by_prefix(language: Language, input_ids: Tensor, next_probability: float = 1.0) -> Tensor:
    """Σ_i log Pr(x_i | x_0 … x_{i−1}) in nats (B,): the words are there, but only those to the left are looked at.

    Arguments and errors as in `log_probability`, to which it is equal.
    """
    x = _clean(input_ids)
    word = x >= FIRST_WORD  # (B, S)
    p = posterior(language, x, policy=None, context="left", own=False, next_probability=next_probability)  # (B, S, V)
    return torch.where(word, p.gather(2, x[:, :, None])[:, :, 0], 1.0).log().sum(1)


def _clean(input_ids: Tensor) -> Tensor:
    """Hand text on that has no [MASK] in it."""
    x = input_ids.cpu()
    if (x == MASK_ID).any():
        raise UserError("the chain rule is about whole texts: give input_ids without [MASK]")
    return x
