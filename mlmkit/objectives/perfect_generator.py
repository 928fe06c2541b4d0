"""Replaced-token detection against a perfect generator: the best discriminator is known.

ELECTRA's generator draws words from what it has learned (`mlmkit.objectives.electra`). Let a *perfect* one replace one
word: i is chosen uniformly among the n words of x, and x̂_i is drawn from the true Pr(x_i | x_{−i}). This is a step of
Gibbs sampling. It leaves the law of the language as it is, and it is reversible, Pr(x, i, x̂) = Pr(x̂, i, x), because
both sides are

    1/n · Pr(x_{−i}) Pr(x_i | x_{−i}) Pr(x̂_i | x_{−i}).

So who sees x̂ knows as much about the true x_i, if i was chosen, as about a fresh draw for that place:

    Pr(i was chosen and x_i ≠ x̂_i | x̂) = (1 − Pr(x̂_i | x̂_{−i})) / n.

The entropy of this bit, averaged over i, is the floor of every discriminator. The probability never exceeds ½ if n ≥ 2:
against a perfect generator the best guess is always "original", and accuracy says nothing. What a discriminator
learns is in its probabilities: how surprising is each word, given all others?

Shapes: B sequences, S positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.exact.inference import MASK_ID, posterior
from mlmkit.language import Language
from mlmkit.objectives.electra import Discriminator, bit_entropy, rtd_loss, sample_words
from mlmkit.objectives.training import (
    SHORT_RUN,
    Comparison,
    Point,
    compare,
    draw_documents,
    fit,
    is_word,
    network,
    seeded,
)


def gibbs_step(language: Language, input_ids: Tensor, rng: np.random.Generator) -> Tensor:
    """Let a perfect generator replace one word of each sequence: x̂ (B, S).

    Args:
        language: whose documents `[CLS] A [SEP] B [SEP]` or sentences `[CLS] A [SEP]` they are.
        input_ids: x (B, S).
        rng: source of the place and of the word, which may be the old one.
    """
    words = is_word(input_ids)
    keys = np.where(words.numpy(), rng.random(input_ids.shape), -1.0)
    chosen = F.one_hot(torch.from_numpy(keys.argmax(1)), input_ids.shape[1]).bool()  # (B, S)
    masked = input_ids.masked_fill(chosen, MASK_ID)
    law = posterior(language, masked, chosen, policy=None, next_probability=1.0)  # (B, V)
    return input_ids.masked_scatter(chosen, sample_words(law.log(), rng))


def replaced_probability(language: Language, seen: Tensor) -> Tensor:
    """Pr(x̂_i is not the original | x̂) after a `gibbs_step`, (1 − Pr(x̂_i | x̂_{−i})) / n at words, 0 elsewhere (B, S)."""
    words = is_word(seen)
    law = posterior(language, seen, policy=None, own=False, next_probability=1.0)  # (B, S, V)
    fits = law.gather(2, seen[..., None])[..., 0]  # (B, S)
    return torch.where(words, (1 - fits) / words.sum(1, keepdim=True), 0.0)


@dataclass(frozen=True)
class DetectorRun:
    """A discriminator that was trained against the perfect generator.

    Attributes:
        model: in evaluation mode.
        curve: its training losses, in nats per word.
        result: its loss and the floor on the same fresh text, in nats per word.
        baseline: loss of who knows only how many words are replaced.
    """

    model: Discriminator
    curve: list[Point]
    result: Comparison
    baseline: float


def train_detector(
    language: Language,
    *,
    config: ModelConfig | None = None,
    train: TrainConfig = SHORT_RUN,
    questions: int = 4096,
) -> DetectorRun:
    """Train a discriminator against the perfect generator and compare it with the best possible one.

    Args:
        language: whose documents it reads.
        config: size of the network; `network(language)` if absent.
        train: updates, rates and seed.
        questions: number of fresh documents for the comparison.
    """
    with seeded(train.seed):
        model = Discriminator(config or network(language))

    def loss(rng: np.random.Generator) -> Tensor:
        x = draw_documents(language, train.batch_size, rng)
        seen = gibbs_step(language, x, rng)
        return rtd_loss(model(seen), seen != x, is_word(x))

    curve = fit(model, loss, train)
    rng = np.random.default_rng([train.seed, 1])  # other documents than in training
    x = draw_documents(language, questions, rng)
    seen = gibbs_step(language, x, rng)
    replaced = (seen != x).double()
    with torch.no_grad():
        losses = F.binary_cross_entropy_with_logits(model(seen).double(), replaced, reduction="none")
    floors = F.binary_cross_entropy(replaced_probability(language, seen), replaced, reduction="none")
    words = is_word(x)
    return DetectorRun(model, curve, compare(losses, floors, words), bit_entropy(float(replaced[words].mean())))
