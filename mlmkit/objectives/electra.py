"""ELECTRA: a generator puts plausible words into the gaps, a discriminator finds them (Clark et al. 2020, §2).

A small masked language model, the generator, is trained by MLM. Words drawn from its predictions fill the gaps: x̂.
The discriminator reads x̂ and says at *every* position whether the word was replaced:

    loss = − Σ_{i ∈ A} log Pr_G(x_i | x̄)  −  λ Σ_i log Pr_D(is x̂_i = x_i? | x̂)        each averaged over its terms

A drawn word that happens to be the true one counts as original. The pair is not adversarial: the generator is trained
to be right, not to deceive, and no gradient passes through the drawing of words.

How well replaced words can be detected at all is told in `mlmkit.objectives.perfect_generator`.

Shapes: B sequences, S positions, H hidden, V vocabulary, M masked positions of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.exact.inference import FIRST_WORD, MASK_ID, posterior
from mlmkit.language import Language
from mlmkit.losses import mlm_loss
from mlmkit.masking import MaskingPolicy, select
from mlmkit.model import BertForPreTraining, Encoder, initialize
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
    segments,
)

GAPS = MaskingPolicy(rate=0.15, mask=1.0, random=0.0, keep=0.0, count="binomial")
"""What the generator is asked: each word is masked by itself with probability 0.15, and always by [MASK]."""
ELECTRA_RUN = replace(SHORT_RUN, grad_clip=50.0)
"""A short run whose bound on the gradient is as large as λ: clipped to 1, little would be left for the generator."""


class Discriminator(nn.Module):
    """The encoder of BERT and one logit for each position: was this word replaced?"""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.replaced = nn.Linear(config.hidden_size, 1)
        initialize(self, config.initializer_range)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """x̂ (B, S) → logits of "replaced" (B, S)."""
        hidden = self.encoder(input_ids, segments(input_ids), attention_mask)  # (B, S, H)
        return self.replaced(F.gelu(self.dense(hidden)))[..., 0]


class Electra(nn.Module):
    """A generator and a discriminator that share their token and position embeddings.

    After training the generator is thrown away; the discriminator's encoder is what is fine-tuned. `torch.manual_seed`
    before the call makes it reproducible.

    Args:
        config: size of the discriminator.
        generator_layers: depth of the generator, smaller than the discriminator: too good a generator makes a task
            that is too hard (Clark et al. 2020, §3.2). Its width is the same, since the embeddings are shared.
    """

    def __init__(self, config: ModelConfig, generator_layers: int = 1) -> None:
        super().__init__()
        self.generator = BertForPreTraining(replace(config, num_hidden_layers=generator_layers))
        self.discriminator = Discriminator(config)
        own, shared = self.discriminator.encoder.embeddings, self.generator.encoder.embeddings
        own.token, own.position = shared.token, shared.position


@dataclass(frozen=True)
class ElectraLosses:
    """The losses of one forward pass, and what was shown to the discriminator.

    Attributes:
        total: mlm + λ · rtd, on which `backward` is called once.
        mlm: of the generator, in nats per masked word.
        rtd: replaced-token detection, in nats per word.
        seen: x̂ (B, S).
        replaced: where x̂ differs from x (B, S), boolean.
        logits: of "replaced" (B, S).
    """

    total: Tensor
    mlm: Tensor
    rtd: Tensor
    seen: Tensor
    replaced: Tensor
    logits: Tensor


def draw_gaps(input_ids: Tensor, rng: np.random.Generator, policy: MaskingPolicy = GAPS) -> Tensor:
    """Choose the words that are masked (B, S), boolean."""
    return torch.from_numpy(select(is_word(input_ids).numpy(), policy, rng))


def sample_words(logits: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a word from each row of scores (M, V) → ids (M,); no gradient, and never a special token.

    >>> sample_words(torch.tensor([[9.0, 9, 9, 9, 9, 0, -99]]), np.random.default_rng(0)).tolist()
    [5]
    """
    cumulative = logits.detach()[:, FIRST_WORD:].double().softmax(-1).cumsum(-1)  # (M, V − 5)
    chance = torch.from_numpy(rng.random((len(logits), 1))).to(logits.device)
    found = (cumulative <= chance * cumulative[:, -1:]).sum(-1)  # (M,)
    return FIRST_WORD + found.clamp(max=cumulative.shape[1] - 1)  # rounding must not lead past the last word


def rtd_loss(logits: Tensor, replaced: Tensor, words: Tensor) -> Tensor:
    """Average −log Pr_D(replaced or not) over all words, in nats.

    [CLS], [SEP] and padding are never replaced; counting them would only dilute the number.

    Args:
        logits: of "replaced" (B, S).
        replaced: the truth (B, S), boolean.
        words: where words stand (B, S), boolean.

    >>> round(float(rtd_loss(torch.zeros(1, 3), torch.tensor([[False, True, False]]), torch.ones(1, 3).bool())), 4)
    0.6931
    """
    return F.binary_cross_entropy_with_logits(logits[words].float(), replaced[words].float())


def predict_gaps(generator: BertForPreTraining, masked: Tensor, selected: Tensor) -> Tensor:
    """Scores of the generator at the masked positions (M, V)."""
    return generator(masked, segments(masked), selected=selected).mlm_logits


def electra_losses(
    model: Electra, input_ids: Tensor, selected: Tensor, rng: np.random.Generator, weight: float = 50.0
) -> ElectraLosses:
    """Mask, predict, fill the gaps, detect: both losses of one batch.

    Args:
        model: generator and discriminator.
        input_ids: true text x without padding (B, S).
        selected: words that are masked (B, S), boolean.
        rng: source of the words drawn from the generator.
        weight: λ; Clark et al. use 50, since the loss of a yes-or-no question is small.
    """
    masked = input_ids.masked_fill(selected, MASK_ID)
    guesses = predict_gaps(model.generator, masked, selected)  # (M, V)
    mlm = mlm_loss(guesses, input_ids[selected])
    seen = input_ids.masked_scatter(selected, sample_words(guesses, rng))
    replaced = seen != input_ids
    logits = model.discriminator(seen)  # (B, S)
    rtd = rtd_loss(logits, replaced, is_word(input_ids))
    return ElectraLosses(mlm + weight * rtd, mlm, rtd, seen, replaced, logits)


def bit_entropy(p: float) -> float:
    """−p log p − (1 − p) log(1 − p), in nats.

    >>> round(bit_entropy(0.5), 4), bit_entropy(0.0)
    (0.6931, 0.0)
    """
    q = torch.tensor([p, 1 - p], dtype=torch.float64)
    return float(torch.special.entr(q).sum())


@dataclass(frozen=True)
class ElectraRun:
    """A generator and a discriminator that were trained together.

    Attributes:
        model: in evaluation mode.
        curve: total training losses, mlm + λ · rtd.
        generator: MLM loss and floor on the same fresh text, in nats per masked word.
        detection: loss of the discriminator on it, in nats per word.
        baseline: loss of who knows only how many words are replaced.
        share: of the words that are replaced; always answering "original" is wrong so often.
        errors: how often the discriminator's guess, replaced or not, is wrong.
    """

    model: Electra
    curve: list[Point]
    generator: Comparison
    detection: float
    baseline: float
    share: float
    errors: float


def train_electra(
    language: Language,
    *,
    config: ModelConfig | None = None,
    generator_layers: int = 1,
    weight: float = 50.0,
    train: TrainConfig = ELECTRA_RUN,
    questions: int = 4096,
) -> ElectraRun:
    """Train generator and discriminator together, one update for both losses, and judge both on fresh text.

    Args:
        language: whose documents they read.
        config: size of the discriminator; `network(language)` if absent.
        generator_layers: depth of the generator.
        weight: λ.
        train: updates, rates and seed.
        questions: number of fresh documents for the judgment.
    """
    with seeded(train.seed):
        model = Electra(config or network(language), generator_layers)

    def loss(rng: np.random.Generator) -> Tensor:
        x = draw_documents(language, train.batch_size, rng)
        return electra_losses(model, x, draw_gaps(x, rng), rng, weight).total

    curve = fit(model, loss, train)
    rng = np.random.default_rng([train.seed, 1])  # other documents than in training
    x = draw_documents(language, questions, rng)
    selected = draw_gaps(x, rng)
    with torch.no_grad():
        losses = electra_losses(model, x, selected, rng, weight)
    words = is_word(x)
    share = float(losses.replaced[words].double().mean())
    wrong = (losses.logits > 0) != losses.replaced
    return ElectraRun(
        model,
        curve,
        compare_generator(language, model.generator, x, selected),
        float(losses.rtd),
        bit_entropy(share),
        share,
        float(wrong[words].double().mean()),
    )


@torch.no_grad()
def compare_generator(
    language: Language, generator: BertForPreTraining, input_ids: Tensor, selected: Tensor
) -> Comparison:
    """MLM loss of a generator and its floor on the same masked words of documents, in nats per word."""
    masked = input_ids.masked_fill(selected, MASK_ID)
    true = input_ids[selected][:, None]  # (M, 1)
    guesses = predict_gaps(generator, masked, selected).double().log_softmax(-1)  # (M, V)
    law = posterior(language, masked, selected, policy=None, next_probability=1.0)  # (M, V)
    losses, floors = torch.zeros(2, *input_ids.shape, dtype=torch.float64)
    losses[selected] = -guesses.gather(1, true)[:, 0]
    floors[selected] = -law.gather(1, true)[:, 0].log()
    return compare(losses, floors, selected)
