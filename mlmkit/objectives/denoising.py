"""Denoising: an encoder–decoder reads a damaged sentence x̃ and writes the whole sentence x (Lewis et al. 2020, §2).

    loss = − log Pr(x | x̃; θ) = − Σ_t log Pr(x_t | x_0 … x_{t−1}, x̃; θ)

over *every* word, visible or not: unlike BERT, the decoder also has to copy. And unlike BERT, it predicts the hidden
words one after the other, each with those before it in view, so nothing is lost by independence: the lowest possible
loss is the entropy of the whole sentence, −log Pr(x | x̃).

On a `Language` it is known. By Bayes' rule

    Pr(x | x̃) = Pr(x) Pr(x̃ | x) / Pr(x̃),

and both Pr(x̃ | x) and Pr(x̃) sum over all ways in which the words of x̃ may be placed in a sentence of L words. The
forward algorithm does it: its state is the place i in the whole sentence, the place j in the damaged one, whether the
word before was hidden, and the word class.

Shapes: B sentences, L words in a sentence, W words and [MASK]s in the longest damaged sentence, T = L + 1 tokens to
write, K topics, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.exact.inference import FIRST_WORD, MASK_ID, PAD_ID
from mlmkit.language import Language
from mlmkit.masking import IntArray
from mlmkit.objectives.corruptions import Corruption, damage, frame, rotate_words
from mlmkit.objectives.decoder import EncoderDecoder
from mlmkit.objectives.training import SHORT_RUN, Comparison, Point, compare, draw_sentences, fit, network, seeded

UNHARMED = Corruption("mask", rate=0.0)


def restoration_log_probability(
    language: Language, words: IntArray, damaged: IntArray, corruption: Corruption
) -> Tensor:
    """log Pr(x | x̃), what a perfect denoiser would give the original sentence, in nats (B,).

    Computed in plain float64, so that Pr(x̃) must not underflow: sentences of up to a hundred words are safe.

    Args:
        language: whose sentences they are.
        words: x (B, L), ids of words.
        damaged: x̃ (B, W), as `damage` gives it.
        corruption: the law by which x̃ was made.

    Raises:
        UserError: x̃ is impossible in this language under this law.
    """
    x, seen = torch.from_numpy(words), torch.from_numpy(damaged)
    if corruption.kind == "rotate":
        turns = [torch.from_numpy(rotate_words(damaged, np.full(len(words), s))) for s in range(words.shape[1])]
        fits = torch.stack([(turn == x).all(1) for turn in turns]).sum(0)  # (B,) rotations that lead back to x
        evidence = torch.stack([_log_evidence(language, turn, UNHARMED, x.shape[1]) for turn in turns]).logsumexp(0)
        found = _log_evidence(language, x, UNHARMED, x.shape[1]) + fits.double().log() - evidence
    else:
        evidence = _log_evidence(language, seen, corruption, x.shape[1])
        found = _log_evidence(language, x, UNHARMED, x.shape[1]) + _log_channel(x, seen, corruption) - evidence
    if (evidence == -torch.inf).any():
        row = int((evidence == -torch.inf).int().argmax())
        raise UserError(f"row {row} cannot be a sentence of {language.name!r} damaged by {corruption}")
    return found


def _log_evidence(language: Language, seen: Tensor, corruption: Corruption, length: int) -> Tensor:
    """log Pr(x̃) (B,): sum over topics, classes, words, and what was hidden."""
    topic, start, emission = (torch.from_numpy(t) for t in (language.topic, language.start, language.emission))
    table = torch.zeros(FIRST_WORD + emission.shape[2], *emission.shape[:2], dtype=torch.float64)
    table[FIRST_WORD:] = emission.permute(2, 0, 1)  # (V, K, C); special tokens are no words
    copies = table[seen]  # (B, W, K, C)
    first = topic[:, None] * start  # (K, C)
    return _alignments(seen, corruption, length, first, torch.from_numpy(language.transition), lambda i: copies)


def _log_channel(words: Tensor, seen: Tensor, corruption: Corruption) -> Tensor:
    """log Pr(x̃ | x) (B,): sum over what was hidden. The words are given, so there is one topic and one class."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return _alignments(
        seen, corruption, words.shape[1], one, one, lambda i: (seen == words[:, i : i + 1])[:, :, None, None].double()
    )


def _alignments(
    seen: Tensor,
    corruption: Corruption,
    length: int,
    first: Tensor,
    transition: Tensor,
    copies: Callable[[int], Tensor],
) -> Tensor:
    """Log of the sum over all ways in which a sentence of `length` words becomes x̃ (B,).

    `visible[:, j]` and `hidden[:, j]` are Pr(x̃_1 … x̃_j, k, class of word i + 1, the word i was visible | hidden).

    Args:
        seen: x̃ (B, W).
        corruption: the law; not rotation.
        length: L.
        first: Pr(k, c₁) (K, C).
        transition: Pr(c′ | c) (C, C).
        copies: for each place i, Pr(x̃_j | k, c_i) of each word of x̃ as the visible word i (B, W, K, C).
    """
    B, W = seen.shape
    hole = (seen == MASK_ID)[:, :, None, None]  # (B, W, 1, 1)
    visible = torch.zeros(B, W + 1, *first.shape, dtype=torch.float64)
    visible[:, 0] = first
    hidden = torch.zeros_like(visible)
    for i in range(length):
        begins = corruption.rate if i == 0 else corruption.begins
        stays = (1 - begins) * _with_empty_holes(visible, hole, corruption)
        ends = (1 - corruption.goes_on) * hidden
        new, more = begins * visible, corruption.goes_on * hidden
        if corruption.kind == "mask":
            lost = _one_further((new + more)[:, :-1] * hole)
        elif corruption.kind == "infill":
            lost = _one_further(new[:, :-1] * hole) + more
        else:
            lost = new + more
        visible = _one_further((stays + ends)[:, :-1] * copies(i)) @ transition
        hidden = lost @ transition
    ways = (_with_empty_holes(visible, hole, corruption) + hidden).sum((2, 3))  # (B, W + 1)
    return ways.gather(1, (seen != PAD_ID).sum(1, keepdim=True))[:, 0].log()


def _one_further(states: Tensor) -> Tensor:
    """Move from place j to j + 1 of the damaged sentence: (B, W, K, C) → (B, W + 1, K, C)."""
    return F.pad(states, (0, 0, 0, 0, 1, 0))


def _with_empty_holes(visible: Tensor, hole: Tensor, corruption: Corruption) -> Tensor:
    """Let infilling write a [MASK] that hides nothing before it goes on with a visible word, or ends."""
    if corruption.kind != "infill":
        return visible
    return (1 - corruption.empty) * visible + corruption.empty * _one_further(visible[:, :-1] * hole)


@dataclass(frozen=True)
class DenoisingRun:
    """A trained denoiser.

    Attributes:
        model: in evaluation mode.
        corruption: what it was trained to mend.
        curve: its training losses, in nats per token.
        result: its loss and the floor on the same fresh sentences, in nats per token; [SEP] counts as a token.
    """

    model: EncoderDecoder
    corruption: Corruption
    curve: list[Point]
    result: Comparison


def draw_words(language: Language, count: int, rng: np.random.Generator) -> IntArray:
    """Draw first sentences, words only (B, L)."""
    return draw_sentences(language, count, rng)[:, 1:-1].numpy()


def token_losses(model: EncoderDecoder, words: IntArray, damaged: IntArray) -> Tensor:
    """−log Pr(x_t | x_0 … x_{t−1}, x̃; θ) of every word and of [SEP], with the true words before it (B, T)."""
    text = frame(words)  # (B, L + 2)
    logits = model(frame(damaged), text[:, :-1]).float()  # (B, T, V)
    return F.cross_entropy(logits.transpose(1, 2), text[:, 1:], reduction="none")


def train_denoiser(
    language: Language,
    corruption: Corruption,
    *,
    config: ModelConfig | None = None,
    train: TrainConfig = SHORT_RUN,
    questions: int = 4096,
) -> DenoisingRun:
    """Train an encoder–decoder on fresh sentences of a language and compare it with the best possible denoiser.

    Args:
        language: whose first sentences are damaged.
        corruption: how.
        config: size of the network, `network(language)` if absent; it gets room for every damaged sentence.
        train: updates, rates and seed.
        questions: number of fresh sentences for the comparison.
    """
    size = config or network(language)
    longest = 2 * language.lengths[0] + 3  # infilling with an empty hole everywhere, [CLS] and [SEP]
    size = replace(size, max_position_embeddings=max(size.max_position_embeddings, longest))
    with seeded(train.seed):
        model = EncoderDecoder(size)

    def loss(rng: np.random.Generator) -> Tensor:
        words = draw_words(language, train.batch_size, rng)
        return token_losses(model, words, damage(words, corruption, rng)).mean()

    curve = fit(model, loss, train)
    rng = np.random.default_rng([train.seed, 1])  # other sentences than in training
    return DenoisingRun(model, corruption, curve, compare_denoiser(language, model, corruption, questions, rng))


@torch.no_grad()
def compare_denoiser(
    language: Language, model: EncoderDecoder, corruption: Corruption, questions: int, rng: np.random.Generator
) -> Comparison:
    """Loss of a denoiser and its floor on the same fresh sentences, in nats per token.

    Only the probability of the whole sentence has a floor; it is shared out evenly over the tokens.
    """
    words = draw_words(language, questions, rng)
    damaged = damage(words, corruption, rng)
    losses = torch.cat([token_losses(model, *rows) for rows in _chunks(words, damaged)])  # (B, T)
    best = torch.cat([-restoration_log_probability(language, *rows, corruption) for rows in _chunks(words, damaged)])
    floors = (best / losses.shape[1])[:, None].expand_as(losses)  # (B, T)
    return compare(losses, floors, torch.ones_like(losses, dtype=torch.bool))


def _chunks(words: IntArray, damaged: IntArray, size: int = 512) -> list[tuple[IntArray, IntArray]]:
    """Cut both into blocks of sentences: bounds the memory."""
    return [(words[i : i + size], damaged[i : i + size]) for i in range(0, len(words), size)]
