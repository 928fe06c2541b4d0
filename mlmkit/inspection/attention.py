"""Where the heads look: attention maps, and the habits of each head, measured.

A map shows which vectors were mixed, not why the model answered as it did: other weights can give the same answer,
and a position that is not looked at may matter through its neighbors (Jain & Wallace 2019, *Attention is not
Explanation*; for what may be said all the same, Wiegreffe & Pinter 2019).

Shapes: L layers, B batch, A heads, S sequence, H hidden, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.batches import Batch
from mlmkit.errors import UserError
from mlmkit.evaluation import evaluation_mode
from mlmkit.inspection.reading import Text, lay_out_text, overheard
from mlmkit.model import BertForPreTraining, SelfAttention
from mlmkit.tokenizer import CLS, SEP, Tokenizer

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Habits:
    """What each head does on the average of all positions that ask.

    Attributes:
        entropy: of the weights with which a position reads the others, in nats (L, A); 0 if it reads one only.
        even_entropy: if it read all alike, ln S.
        shares: attention that goes to "[CLS]", "[SEP]", "itself", "previous" and "next" (L, A); the last two
            averaged over the positions that have such a neighbor. They overlap: the next token may be [SEP].
        even: each of these shares if all positions were read alike.
    """

    entropy: Floats
    even_entropy: float
    shares: Mapping[str, Floats]
    even: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention of every head on one sequence.

    Attributes:
        tokens: of the sequence (S,).
        token_type_ids: segment of each (S,).
        weights: position q reads position k with weight `weights[layer, head, q, k]` (L, A, S, S); rows sum to 1.
    """

    tokens: tuple[str, ...]
    token_type_ids: tuple[int, ...]
    weights: Floats

    def habits(self) -> Habits:
        """Measure where each head looks in this sequence; `attention_habits` averages over many."""
        tally = _Tally()
        cls, sep = (torch.tensor([[token == name for token in self.tokens]]) for name in (CLS, SEP))
        tally.add(torch.from_numpy(self.weights)[:, None], torch.ones_like(cls), cls, sep)
        return tally.habits()

    def sharpest(self) -> tuple[int, int]:
        """Layer and head whose attention is the least spread out, by its entropy."""
        entropy = self.habits().entropy  # (L, A)
        layer, head = divmod(int(entropy.argmin()), entropy.shape[1])
        return layer, head


def attention_maps(model: BertForPreTraining, tokenizer: Tokenizer, a: Text, b: str | None = None) -> AttentionMaps:
    """Compute softmax(Q Kᵀ / √D) of every head on a text, or on a pair (Vaswani et al. 2017, eq. 1).

    The weights are computed anew from what enters each layer. **A map is no explanation** of an answer: it says
    what was mixed, not what mattered (Jain & Wallace 2019).

    Args:
        model: read without dropout.
        tokenizer: of the model.
        a: a text, or the ids of a whole sequence, [CLS] and [SEP] included.
        b: second sentence.

    Raises:
        UserError: the sequence is empty or too long, or an id is not in the vocabulary.
    """
    ids, segments = lay_out_text(model, tokenizer, a, b)  # (1, S)
    weights = all_weights(model, ids, segments)[:, 0]  # (L, A, S, S)
    return AttentionMaps(tuple(tokenizer.tokens(ids[0].tolist())), tuple(segments[0].tolist()), weights.numpy())


def attention_habits(model: BertForPreTraining, tokenizer: Tokenizer, batches: Iterable[Batch]) -> Habits:
    """Measure where each head looks, averaged over the real positions of many sequences.

    Raises:
        UserError: there is no batch.
    """
    tally = _Tally()
    for batch in batches:
        ids, real = batch["input_ids"], batch["attention_mask"]  # (B, S)
        weights = all_weights(model, ids, batch["token_type_ids"], real)  # (L, B, A, S, S)
        tally.add(weights, real.bool(), ids == tokenizer.cls_id, ids == tokenizer.sep_id)
    return tally.habits()


def all_weights(
    model: BertForPreTraining, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Compute the weights of all heads (L, B, A, S, S), in float64 on the CPU."""
    device = next(model.parameters()).device
    real = None if attention_mask is None else attention_mask.to(device)
    layers = [module for module in model.encoder.modules() if isinstance(module, SelfAttention)]
    with evaluation_mode(model), overheard(layers) as heard:
        model.encoder(input_ids.to(device), token_type_ids.to(device), real)
        found = [attention_weights(layer, *args[:2])[0] for layer, (args, _) in zip(layers, heard, strict=True)]
    return torch.stack([weights.double().cpu() for weights in found])


def attention_weights(layer: SelfAttention, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute what `SelfAttention` multiplies: the weights (B, A, S, S) and the values (B, A, S, D).

    Args:
        layer: whose projections are used.
        x: what enters it (B, S, H).
        bias: 0 where a key may be read and −∞ where not (B, 1, 1, S); None: all may.
    """
    B, S, H = x.shape
    q, k, v = layer.qkv(x).view(B, S, 3, layer.heads, H // layer.heads).permute(2, 0, 3, 1, 4)  # 3 × (B, A, S, D)
    scores = q @ k.transpose(2, 3) / (H // layer.heads) ** 0.5  # (B, A, S, S)
    return (scores if bias is None else scores + bias).softmax(-1), v


class _Tally:
    """Sums over all positions that ask, gathered batch by batch."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}  # (L, A)
        self._even: dict[str, float] = {}
        self._asking: dict[str, int] = {}

    def add(self, weights: Tensor, real: Tensor, cls: Tensor, sep: Tensor) -> None:
        """Add some sequences: weights (L, B, A, S, S); which positions are real, [CLS] and [SEP] (B, S)."""
        length = real.sum(1)[:, None]  # (B, 1)
        for name, read in _targets(real, cls, sep).items():
            asks = read.any(-1)  # (B, S)
            share = (weights * read[:, None]).sum(-1)  # (L, B, A, S)
            self._add(name, share, read.sum(-1) / length, asks)
        self._add("entropy", torch.special.entr(weights).sum(-1), length.log().expand(real.shape), real)

    def _add(self, name: str, values: Tensor, even: Tensor, asks: Tensor) -> None:
        total = (values * asks[:, None]).sum((1, 3))  # (L, A)
        self._totals[name] = self._totals.get(name, torch.zeros_like(total)) + total
        self._even[name] = self._even.get(name, 0.0) + float(even[asks].sum())
        self._asking[name] = self._asking.get(name, 0) + int(asks.sum())

    def habits(self) -> Habits:
        if not self._totals:
            raise UserError("there is no batch, so no head was seen at work: give at least one")
        means = {name: (total / max(self._asking[name], 1)).numpy() for name, total in self._totals.items()}
        even = {name: total / max(self._asking[name], 1) for name, total in self._even.items()}
        return Habits(means.pop("entropy"), even.pop("entropy"), means, even)


def _targets(real: Tensor, cls: Tensor, sep: Tensor) -> dict[str, Tensor]:
    """Which keys are of which kind, seen from each real position that asks; each (B, S, S)."""
    S = real.shape[1]
    pairs = real[:, :, None] & real[:, None, :]  # (B, S, S)
    offset = torch.arange(S)[None, :] - torch.arange(S)[:, None]  # (S, S) key − query
    return {
        CLS: pairs & cls[:, None, :],
        SEP: pairs & sep[:, None, :],
        "itself": pairs & (offset == 0),
        "previous": pairs & (offset == -1),
        "next": pairs & (offset == 1),
    }
