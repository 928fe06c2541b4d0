"""Embeddings in the plane: the two directions in which some words differ most, and whether groups lie together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError
from mlmkit.inspection.embeddings import token_embeddings
from mlmkit.intervals import Share, share_of
from mlmkit.language import Language
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer

Floats = NDArray[np.float64]
SHOWN = 60
"""How many words are taken if nobody says which: as many as a picture can name."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Words in the plane.

    Attributes:
        tokens: the words (N,).
        coordinates: of each along the two directions (N, 2).
        explained: share of the variance that lies along each direction (2,). What lies outside of the plane is not
            seen: two words that meet in the picture may be far apart.
        groups: of each word (N,); None if none were given.
        purity: share of the words whose nearest other word is of their own group, by the cosine of their centered
            embeddings, in all H dimensions; None without groups.
        chance: what `purity` would be if the nearest word were any other word.
    """

    tokens: tuple[str, ...]
    coordinates: Floats
    explained: tuple[float, float]
    groups: tuple[str, ...] | None = None
    purity: Share | None = None
    chance: float | None = None


def project_embeddings(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    words: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> Projection:
    """Lay the embeddings of some words flat by principal components (Pearson 1901).

    With the centered embeddings X = U Σ Vᵀ (N, H), the coordinates are the first two columns of U Σ, and the share
    of the variance along direction j is σ_j² / Σ σ². The first direction's sign is chosen by nobody; the word that
    lies farthest out is drawn on the positive side.

    Args:
        model: its token embeddings, before position and segment are added.
        tokenizer: of the model.
        words: which tokens; in groups, as a mapping from a group's name to its words; if absent, the first sixty tokens
            of more than two letters that begin a word, in a learned vocabulary the most frequent ones.

    Raises:
        UserError: fewer than three words, a word twice, or one that is no single token.
    """
    chosen = _grouped(tokenizer, words)
    tokens = [token for group in chosen.values() for token in group]
    if len(tokens) < 3 or len(set(tokens)) < len(tokens):
        raise UserError(f"a projection needs three different words or more, each once; got {len(tokens)}: {tokens[:9]}")
    table = token_embeddings(model)[[tokenizer.id(token) for token in tokens]]  # (N, H)
    centered = table - table.mean(0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    flat = u[:, :2] * s[:2]  # (N, 2)
    flat = flat * np.sign(flat[np.abs(flat).argmax(0), [0, 1]])
    explained = s[:2] ** 2 / (s**2).sum()
    found = Projection(tuple(tokens), flat, (float(explained[0]), float(explained[1])))
    if not isinstance(words, Mapping):
        return found
    groups = [name for name, group in chosen.items() for _ in group]
    own = np.array([[a == b for b in groups] for a in groups])  # (N, N)
    chance = (own.sum(1) - 1).mean() / (len(tokens) - 1)
    return Projection(found.tokens, flat, found.explained, tuple(groups), _purity(centered, own), float(chance))


def word_classes(language: Language) -> dict[str, list[str]]:
    """Group the words of a language by the class that emits them most, for `project_embeddings`."""
    given = np.einsum("k,kcn->cn", language.topic, language.emission)  # (C, N) Pr(x | c)
    best = given.argmax(0)  # (N,)
    words = np.array(language.words)
    return {name: words[best == c].tolist() for c, name in enumerate(language.classes) if (best == c).any()}


def _grouped(tokenizer: Tokenizer, words: Sequence[str] | Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    """The words by group; all in one if there are none."""
    if isinstance(words, Mapping):
        return {name: list(group) for name, group in words.items()}
    if words is not None:
        return {"": list(words)}
    tokens = tokenizer.tokens(tokenizer.ordinary_ids.tolist())
    return {"": [token for token in tokens if len(token) > 2 and token.isalpha()][:SHOWN]}


def _purity(centered: Floats, own: NDArray[np.bool_]) -> Share:
    """Words whose nearest other word is of their own group."""
    unit = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)  # (N, H)
    cosines = unit @ unit.T  # (N, N)
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.argmax(1)  # (N,)
    return share_of(own[np.arange(len(own)), nearest].sum(), len(own))
