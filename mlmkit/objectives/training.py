"""What all objectives share: fresh text of a language, a short training run, and the distance to the best answer.

The language can be drawn from without end, so no sentence is seen twice: there is nothing to overfit, no dropout and
no weight decay. A trained model is compared with the exact answer on the *same* questions. On each of them the loss
−log q(x) is that of the best predictor, −log p(x), plus a difference whose mean is KL(p ‖ q) ≥ 0. So in the mean a
model cannot be below its floor, and the pairing removes most of the noise.

Shapes: B sequences, S positions, L words in a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.exact.estimates import ratio
from mlmkit.exact.inference import CLS_ID, FIRST_WORD, MASK_ID, SEP_ID
from mlmkit.language import Language
from mlmkit.losses import mlm_loss
from mlmkit.masking import IGNORE, MaskingPolicy, mask, mlm_labels
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import learning_rate, resolve

SHORT_RUN = TrainConfig(max_steps=1000, batch_size=256, lr=4e-3, warmup_steps=100, eval_every=100, precision="auto")
"""One or two minutes on one core for a network of 2 layers × 64 on two sentences of 14 words."""


def network(language: Language, *, layers: int = 2, hidden: int = 64, heads: int = 4) -> ModelConfig:
    """Size of a small network that has room for a pair of sentences of a language; no dropout."""
    return ModelConfig(
        vocab_size=FIRST_WORD + len(language.words),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=sum(language.lengths) + 3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.08,  # wider than BERT's 0.02, which is meant for a hidden size of 768
    )


def draw_sentences(language: Language, count: int, rng: np.random.Generator) -> Tensor:
    """Draw `[CLS] A [SEP]` (B, L₁ + 2), the first sentences of documents, as ids."""
    words = language.sample(count, rng)[0][:, : language.lengths[0]]  # (B, L₁)
    return _framed([words])


def draw_documents(language: Language, count: int, rng: np.random.Generator) -> Tensor:
    """Draw `[CLS] A [SEP] B [SEP]` (B, L₁ + L₂ + 3), both sentences of a document, as ids.

    B always follows A, so the exact answers are those for `next_probability=1`.
    """
    words = language.sample(count, rng)[0]  # (B, L₁ + L₂)
    return _framed(np.split(words, [language.lengths[0]], axis=1))


def _framed(sentences: Sequence[NDArray[np.int64]]) -> Tensor:
    """[CLS] in front, [SEP] after each sentence (B, S)."""
    edge = np.ones((len(sentences[0]), 1), dtype=np.int64)
    parts = [CLS_ID * edge]
    for words in sentences:
        parts += [FIRST_WORD + words, SEP_ID * edge]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def segments(input_ids: Tensor) -> Tensor:
    """Segment of each position (B, S): 0 up to and with the first [SEP], 1 after it.

    >>> segments(torch.tensor([[2, 7, 3, 8, 3]])).tolist()
    [[0, 0, 0, 1, 1]]
    """
    ends = (input_ids == SEP_ID).int()
    return (ends.cumsum(1) - ends).clamp(max=1).long()


def masked_batch(
    language: Language, input_ids: Tensor, policy: MaskingPolicy, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Select, corrupt and label by the functions of `mlmkit.masking`; each word of a language is one token.

    Returns:
        x̄ and labels, both (B, S).
    """
    ids = input_ids.numpy()
    words = np.arange(FIRST_WORD, FIRST_WORD + len(language.words))
    corrupted, selected = mask(
        ids,
        policy,
        rng,
        special_ids=np.arange(FIRST_WORD),
        begins_word=ids >= FIRST_WORD,
        mask_id=MASK_ID,
        ordinary_ids=words,
    )
    return torch.from_numpy(corrupted), torch.from_numpy(mlm_labels(ids, selected))


def is_word(input_ids: Tensor) -> Tensor:
    """Where an ordinary word stands (B, S), boolean."""
    return input_ids >= FIRST_WORD


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let weights and dropout draw from a seed, and put PyTorch's global generator back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fresh_model(language: Language, size: ModelConfig, seed: int) -> BertForPreTraining:
    """Draw weights from a seed; the decoder's bias starts at the log frequencies of the words.

    So the first loss is about the unigram entropy, and the network does not spend updates on learning that.
    """
    with seeded(seed):
        model = BertForPreTraining(size)
    with torch.no_grad():
        frequencies = torch.from_numpy(language.word_probabilities).clamp(min=1e-6)
        model.mlm.decoder.bias[FIRST_WORD:] = frequencies.log().float()
        model.mlm.decoder.bias[:FIRST_WORD] = math.log(1e-6)  # special tokens are never the answer
    return model


def masked_loss(model: BertForPreTraining, corrupted: Tensor, labels: Tensor) -> Tensor:
    """Mean −log Pr(x_i | x̄) over the labeled positions, in nats."""
    selected = labels != IGNORE
    return mlm_loss(model(corrupted, segments(corrupted), selected=selected).mlm_logits, labels[selected])


@dataclass(frozen=True)
class Point:
    """One point of a training curve.

    Attributes:
        step: updates done.
        loss: mean training loss since the point before, in nats.
        measured: what `measure` gave at this point, NaN without it.
    """

    step: int
    loss: float
    measured: float = math.nan


def fit(
    model: nn.Module,
    loss: Callable[[np.random.Generator], Tensor],
    config: TrainConfig = SHORT_RUN,
    measure: Callable[[], float] | None = None,
) -> list[Point]:
    """Minimize a loss on fresh batches with AdamW, linear warm-up and linear decay, on the CPU.

    Args:
        model: its parameters are trained; it is left in evaluation mode.
        loss: draws a batch with the generator that it is given, and returns the loss to minimize.
        config: updates, rates, clipping, precision and seed; `weight_decay` is not used.
        measure: called every `eval_every` updates and at the end, in evaluation mode and without gradients.

    Returns:
        A point for every `eval_every` updates, and one for the last.

    Raises:
        UserError: the loss is no longer finite.
    """
    rng = np.random.default_rng(config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(config.beta1, config.beta2), eps=config.eps, weight_decay=0.0, fused=True
    )
    config = resolve(replace(config, device="cpu"))
    curve: list[Point] = []
    window: list[Tensor] = []
    model.train()
    with seeded(config.seed):
        for step in range(1, config.max_steps + 1):
            optimizer.param_groups[0]["lr"] = learning_rate(step - 1, config)
            window.append(_update(model, optimizer, lambda: loss(rng), config))
            if step % config.eval_every == 0 or step == config.max_steps:
                mean = float(torch.stack(window).mean())
                if not math.isfinite(mean):
                    raise UserError(f"the loss became {mean} before update {step}; lower lr, now {config.lr:g}")
                curve.append(Point(step, mean, _measured(model, measure)))
                window.clear()
    model.eval()
    return curve


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], config: TrainConfig
) -> Tensor:
    """One forward and one backward pass, and one step; gives the loss before it, detached."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16) if config.precision == "bf16" else nullcontext():
        value = loss()
    value.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
    optimizer.step()
    return value.detach()


def _measured(model: nn.Module, measure: Callable[[], float] | None) -> float:
    """Look at the model without training it."""
    if measure is None:
        return math.nan
    model.eval()
    with torch.no_grad():
        value = measure()
    model.train()
    return value


@dataclass(frozen=True)
class Comparison:
    """A model and the best possible predictor on the same questions; losses in nats per word.

    Attributes:
        loss: mean loss of the model.
        floor: mean loss of the exact answer.
        standard_error: of the gap between them, over sequences.
        questions: number of words that were asked about.
    """

    loss: float
    floor: float
    standard_error: float
    questions: int

    @property
    def gap(self) -> float:
        """Nats per word that are left to learn: an estimate of KL(p ‖ q) ≥ 0."""
        return self.loss - self.floor


def compare(losses: Tensor, floors: Tensor, asked: Tensor) -> Comparison:
    """Average both losses over the words that were asked about.

    Words of one sequence are not independent, so the standard error of the gap is taken over sequences
    (`mlmkit.exact.estimates.ratio`).

    Args:
        losses: −log q(x) of the model (B, …); only asked places are read.
        floors: −log p(x) of the exact answer, of the same shape.
        asked: which places are words that were asked about, boolean, of the same shape.

    Raises:
        UserError: fewer than two sequences, or nothing was asked.
    """

    def total(values: Tensor) -> Tensor:
        """Sum of the asked values of each sequence (B,)."""
        return torch.where(asked, values.double(), 0.0).flatten(1).sum(1)

    count = asked.flatten(1).sum(1)  # (B,)
    gap = ratio(total(losses) - total(floors), count)
    loss, floor = (float(total(values).sum() / count.sum()) for values in (losses, floors))
    return Comparison(loss, floor, gap.standard_error, int(count.sum()))
