"""Left-to-right language modeling, once with masks and once with a causal attention pattern.

A language model factors the probability of a text from left to right,

    log Pr(x₁ … x_m) = Σ_i log Pr(x_i | x₁ … x_{i−1}).

Masked prediction contains this as a special case (Xiao & Zhu ch. 1): mask everything from i on, predict x_i, move i one
word to the right. So a masked model can be *read* as a language model, and it can be *trained* to be one:

    simulated   one i per sequence, drawn at random; x_i and all words after it are [MASK]; the loss is taken at i only
    causal      no [MASK] at all; position i may attend to positions ≤ i and predicts the word at i + 1; the loss is
                taken at every word of the same pass
    masked      BERT's own 15 % with both contexts, which never sees such masks in training

All three train the same network. Their common floor is the entropy of a word given what stands to its left,
and log Pr(x₁ … x_m) of the exact language by the forward algorithm is the sum above. The gain of the causal pattern is
that one pass asks m questions instead of one; the price is that no word is ever predicted from its right.

[SEP] and the segment of each place are taken as given, as padding is: only words are hidden and predicted.

Shapes: B sequences, S positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.exact.inference import BERT, MASK_ID, PAD_ID, posterior
from mlmkit.language import Language
from mlmkit.losses import mlm_loss
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.model import BertForPreTraining
from mlmkit.objectives.training import (
    SHORT_RUN,
    Comparison,
    Point,
    compare,
    draw_documents,
    fit,
    fresh_model,
    is_word,
    masked_batch,
    masked_loss,
    network,
    segments,
)

Objective = Literal["causal", "simulated", "masked"]


def hide_from(input_ids: Tensor, start: Tensor | int) -> Tensor:
    """Replace every word at or after a position by [MASK].

    Args:
        input_ids: x (B, S).
        start: first hidden position, one for all or one for each sequence (B,).

    Returns:
        x̄ (B, S).

    >>> hide_from(torch.tensor([[2, 7, 8, 3, 9, 3]]), 2).tolist()
    [[2, 7, 4, 3, 4, 3]]
    """
    at = torch.arange(input_ids.shape[1])
    first = torch.as_tensor(start).reshape(-1, 1)  # (B or 1, 1)
    return torch.where(is_word(input_ids) & (at >= first), MASK_ID, input_ids)


def simulated_batch(input_ids: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw a word i of each sequence, hide it and all words after it, and ask for x_i alone.

    Each word is drawn with the same probability, so the mean loss is that of Σ_i log Pr(x_i | x_{<i}) per word.

    Args:
        input_ids: x (B, S), with at least one word in each row.
        rng: draws i.

    Returns:
        x̄ and labels, both (B, S); labels are −100 but at i.
    """
    keys = torch.from_numpy(rng.random(input_ids.shape)).masked_fill(~is_word(input_ids), -1.0)
    start = keys.argmax(1)  # (B,) every word has the same chance of the largest key
    asked = torch.arange(input_ids.shape[1]) == start[:, None]  # (B, S)
    return hide_from(input_ids, start), torch.where(asked, input_ids, IGNORE)


def slide(input_ids: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Move the first mask from left to right and collect log Pr(x_i | x_{<i}) of every word.

    The prediction at i is made from x̄ in which x_i and all later words are [MASK]: what stands there cannot matter.

    Args:
        input_ids: x (B, S), with padding after the end if lengths differ.
        predict: x̄ (b, S) and the place that is asked about in each row (b, S) → log-probabilities (b, V).

    Returns:
        Natural logs (B, S), 0 where no word stands.
    """
    word = is_word(input_ids)
    found = torch.zeros(input_ids.shape, dtype=torch.float64)
    for i in word.any(0).nonzero().flatten().tolist():
        x = input_ids[word[:, i]]  # (b, S) the sequences that have a word here
        asked = (torch.arange(x.shape[1]) == i).expand_as(x)
        logs = predict(hide_from(x, i), asked)  # (b, V)
        found[word[:, i], i] = logs.gather(1, x[:, i, None])[:, 0].double()
    return found


def log_probabilities_by_masks(model: BertForPreTraining, input_ids: Tensor) -> Tensor:
    """Read log Pr(x_i | x_{<i}) of every word from a masked model (B, S), 0 where no word stands.

    It takes one pass for each position; see `slide`.

    Args:
        model: in evaluation mode.
        input_ids: x (B, S), with padding after the end if lengths differ.
    """

    def predict(x: Tensor, asked: Tensor) -> Tensor:
        return model(x, segments(x), x != PAD_ID, asked).mlm_logits.float().log_softmax(-1)

    return slide(input_ids, predict)


def log_probability_by_masks(model: BertForPreTraining, input_ids: Tensor) -> Tensor:
    """Σ_i log Pr(x_i | x_{<i}) of each sequence (B,), in nats, read from a masked model by sliding the mask."""
    return log_probabilities_by_masks(model, input_ids).sum(1)


def causal_bias(length: int) -> Tensor:
    """What is added to the attention scores: 0 where key ≤ query, −∞ where the key comes later (1, 1, S, S).

    >>> causal_bias(3)[0, 0].tolist()
    [[0.0, -inf, -inf], [0.0, 0.0, -inf], [0.0, 0.0, 0.0]]
    """
    return torch.full((length, length), float("-inf")).triu(1)[None, None]


def causal_logits(model: BertForPreTraining, input_ids: Tensor) -> Tensor:
    """Run the network with a causal attention pattern, in one pass.

    Embeddings, layers and head are BERT's; only the bias differs, and that position i speaks about the word at i + 1.
    Padding comes after the end, where no word looks.

    Returns:
        Scores (B, S, V); those at i depend on x_0 … x_i.
    """
    x = model.encoder.embeddings(input_ids, segments(input_ids))  # (B, S, H)
    bias = causal_bias(input_ids.shape[1])
    for layer in model.encoder.layers:
        x = layer(x, bias)
    return model.mlm(x)


def causal_log_probabilities(model: BertForPreTraining, input_ids: Tensor) -> Tensor:
    """log Pr(x_i | x_{<i}) of every word in one causal pass (B, S), 0 where no word stands."""
    logs = causal_logits(model, input_ids[:, :-1]).float().log_softmax(-1)  # (B, S − 1, V)
    found = logs.gather(2, input_ids[:, 1:, None])[..., 0].double()  # (B, S − 1)
    return torch.nn.functional.pad(found * is_word(input_ids[:, 1:]), (1, 0))


def causal_loss(model: BertForPreTraining, input_ids: Tensor) -> Tensor:
    """Mean −log Pr(x_i | x_{<i}) over all words of the batch, in nats."""
    labels = torch.where(is_word(input_ids), input_ids, IGNORE)
    return mlm_loss(causal_logits(model, input_ids[:, :-1]), labels[:, 1:])


def exact_log_probabilities(language: Language, input_ids: Tensor) -> Tensor:
    """The true log Pr(x_i | x_{<i}) of every word of a document (B, S), 0 where no word stands.

    Its negative, averaged over words, is the floor of every left-to-right model.

    Args:
        language: whose text it is.
        input_ids: x as `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, B the next sentence (B, S).
    """
    p = posterior(language, input_ids, policy=None, context="left", own=False, next_probability=1.0)  # (B, S, V)
    found = p.gather(2, input_ids[..., None])[..., 0].log()  # (B, S)
    return torch.where(is_word(input_ids), found, 0.0)


def exact_log_probabilities_by_masks(
    language: Language, input_ids: Tensor, policy: MaskingPolicy | None = None
) -> Tensor:
    """What a perfect masked model answers when it is read from left to right (B, S), 0 where no word stands.

    With `policy=None` it takes the visible words for true, and the sum over a document is its log-probability, as with
    `exact_log_probabilities`. With BERT's policy it is a perfect BERT, which thinks that any visible word may have been
    put there at random: it pays for that doubt although nothing is wrong with it.

    Args:
        language: whose text it is.
        input_ids: documents as in `exact_log_probabilities`.
        policy: what the masked model believes about how x̄ was made.
    """
    return slide(input_ids, lambda x, asked: posterior(language, x, asked, policy=policy, next_probability=1.0).log())


@dataclass(frozen=True)
class TrainedLM:
    """A network trained by one of the three objectives, read from left to right.

    Attributes:
        model: in evaluation mode.
        curve: `measured` is the loss on held-out text, read from left to right, in nats per word.
        result: the same at the end, beside its floor.
    """

    model: BertForPreTraining
    curve: list[Point]
    result: Comparison

    def updates_to(self, loss: float) -> float:
        """Updates after which the held-out loss first is at most this; infinity if it never is."""
        return next((float(point.step) for point in self.curve if point.measured <= loss), math.inf)


def train_lm(
    language: Language,
    objective: Objective,
    *,
    config: TrainConfig = SHORT_RUN,
    size: ModelConfig | None = None,
    policy: MaskingPolicy = BERT,
    held_out: int = 256,
) -> TrainedLM:
    """Train a network on documents of a language and read it as a left-to-right language model.

    Args:
        language: fresh documents are drawn from it at every update.
        objective: "causal", "simulated" (both are language models) or "masked" (BERT's, read out against its habit).
        config: of the run; with the same seed all objectives start from the same weights and see the same documents.
        size: of the network; `network(language)` if absent.
        policy: how "masked" masks.
        held_out: documents on which the readout is measured.

    Raises:
        UserError: no such objective.
    """
    if objective not in get_args(Objective):
        raise UserError(f"objective must be one of {', '.join(get_args(Objective))}, got {objective!r}")
    model = fresh_model(language, size or network(language), config.seed)
    text = draw_documents(language, held_out, np.random.default_rng([config.seed, 1]))
    read = causal_log_probabilities if objective == "causal" else log_probabilities_by_masks

    def loss(rng: np.random.Generator) -> Tensor:
        documents, masks = rng.spawn(2)
        x = draw_documents(language, config.batch_size, documents)
        if objective == "causal":
            return causal_loss(model, x)
        hidden = simulated_batch(x, masks) if objective == "simulated" else masked_batch(language, x, policy, masks)
        return masked_loss(model, *hidden)

    def held_out_loss() -> float:
        return -float(read(model, text)[is_word(text)].mean())

    curve = fit(model, loss, config, held_out_loss)
    with torch.no_grad():
        result = compare(-read(model, text), -exact_log_probabilities(language, text), is_word(text))
    return TrainedLM(model, curve, result)
