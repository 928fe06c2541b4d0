"""The embedding of a token among the others, and what enters the encoder where it stands.

[MASK] has a learned embedding like any word (Devlin et al. 2019, §3.1; Xiao & Zhu ch. 1). At a masked position i the
encoder receives

    layer_norm(e_mask + position_i + segment_i):

the word that was hidden is gone, its place is not. Where the matrix of embeddings is also the decoder's (tied, as in
BERT), [MASK] is at the same time an answer that is never right, and its row is pushed away from what answers need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mlmkit.errors import UserError
from mlmkit.inspection.reading import Text, lay_out_text
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import MASK, Tokenizer

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """A token's embedding among all others.

    Attributes:
        token: whose.
        tokens: the nearest others, nearest first.
        cosines: cosine of the angle to each.
        norm: length of its embedding.
        norms: lengths of the embeddings of all ordinary tokens (N,).
        distance: from its embedding to the mean of the ordinary tokens'.
        distances: from each ordinary token's to that mean (N,).
    """

    token: str
    tokens: tuple[str, ...]
    cosines: tuple[float, ...]
    norm: float
    norms: Floats
    distance: float
    distances: Floats


def embedding_neighbors(model: BertForPreTraining, tokenizer: Tokenizer, token: str = MASK, top: int = 10) -> Neighbors:
    """Find the tokens whose embeddings point in the direction of one token's: cos(e, e′) = e·e′ / (‖e‖ ‖e′‖).

    All tokens are candidates but the token itself, [PAD] and reserved entries. With `untrained(model)` in the
    place of the model: how it was before the training.

    Args:
        model: its embeddings before position and segment are added.
        tokenizer: of the model.
        token: one token of the vocabulary.
        top: how many.

    Raises:
        UserError: `token` is no single token, or `top` is less than 1.
    """
    if top < 1:
        raise UserError(f"top must be at least 1, got {top}")
    table = token_embeddings(model)  # (V, H)
    own, ordinary = tokenizer.id(token), tokenizer.ordinary_ids
    mean = table[ordinary].mean(0)  # (H,)
    others = np.setdiff1d(np.union1d(ordinary, tokenizer.special_ids), [own, tokenizer.pad_id])
    norms = np.linalg.norm(table, axis=1)  # (V,)
    cosines = table[others] @ table[own] / np.maximum(norms[others] * norms[own], 1e-12)
    best = np.argsort(-cosines, kind="stable")[:top]
    return Neighbors(
        token=token,
        tokens=tuple(tokenizer.tokens(others[best].tolist())),
        cosines=tuple(cosines[best].tolist()),
        norm=float(norms[own]),
        norms=norms[ordinary],
        distance=float(np.linalg.norm(table[own] - mean)),
        distances=np.linalg.norm(table[ordinary] - mean, axis=1),
    )


def token_embeddings(model: BertForPreTraining) -> Floats:
    """Copy the matrix of token embeddings (V, H), in float64."""
    weight: torch.Tensor = model.encoder.embeddings.token.weight
    return weight.detach().double().cpu().numpy()


@dataclass(frozen=True, eq=False)
class Entering:
    """What enters the encoder at each position, and of what it is the sum.

    Attributes:
        tokens: of the sequence (S,).
        token, position, segment: the three embeddings that are added (S, H).
        vectors: layer_norm(token + position + segment), what the first layer reads (S, H).
    """

    tokens: tuple[str, ...]
    token: Floats
    position: Floats
    segment: Floats
    vectors: Floats


def what_enters(model: BertForPreTraining, tokenizer: Tokenizer, a: Text, b: str | None = None) -> Entering:
    """Take apart what enters the encoder: token + position + segment, then layer norm (Devlin et al. 2019, fig. 2).

    Where the text has [MASK], `token` is e_mask, the same row at every such position.

    Raises:
        UserError: as `attention_maps`.
    """
    ids, segments = lay_out_text(model, tokenizer, a, b)  # (1, S)
    embeddings = model.encoder.embeddings
    with torch.no_grad():
        device = embeddings.token.weight.device
        token = embeddings.token(ids.to(device))[0]  # (S, H)
        position = embeddings.position.weight[: ids.shape[1]]  # (S, H)
        segment = embeddings.segment(segments.to(device))[0]  # (S, H)
        vectors = embeddings.norm(token + position + segment)  # (S, H)
    parts = (part.detach().double().cpu().numpy() for part in (token, position, segment, vectors))
    return Entering(tuple(tokenizer.tokens(ids[0].tolist())), *parts)
