"""The capstone: a learner's own functions in the real trainer, on a language whose best possible loss is known.

    trained = train(select_positions, corrupt_tokens, make_pairs, mlm_loss, pretraining_loss, attention)

The judge draws a language that nobody has seen, lets the submission train on it, takes nothing back but the weights,
and measures on its own side how far from the floor they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.exact import distance_to_floor, exact_batches
from mlmkit.exact.inference import CLS_ID, FIRST_WORD, MASK_ID, SEP_ID
from mlmkit.language import Language, draw_language
from mlmkit.losses import Losses
from mlmkit.masking import mlm_labels
from mlmkit.model import BertForPreTraining
from mlmkit.objectives.training import network, seeded, segments
from mlmkit.optimization import learning_rate, make_optimizer, train_step

WORDS = (
    "gull crab seal otter tern",
    "swims dives rests hunts sings",
    "old small grey bright wet",
    "rock wave sand pier cave",
)
RUN = TrainConfig(max_steps=600, batch_size=128, lr=5e-3, warmup_steps=60, weight_decay=0.0, beta2=0.98, eval_every=50)
RATE = 0.15
HELD_OUT = 4000
NEAR = 0.1
"""A gap of this many nats above the floor earns all points: the course's own functions come to about 0.055."""

Part = Callable[..., Any]


@dataclass(frozen=True)
class Point:
    """Losses after some updates, averaged over the updates since the last point, in nats."""

    step: int
    mlm: float
    nsp: float


@dataclass(frozen=True)
class Trained:
    """What a training run gave.

    Attributes:
        weights: name → array, as `BertForPreTraining.state_dict` has them.
        curve: the losses on the way.
        seed: of the language.
    """

    weights: Mapping[str, NDArray[np.float32]]
    curve: tuple[Point, ...]
    seed: int


@dataclass(frozen=True)
class Capstone:
    """How good a trained model is.

    Attributes:
        gap: MLM loss above the floor, in nats.
        floor: lowest possible MLM loss, in nats.
        unigram: MLM loss of the best model that does not look at the context, in nats.
        nsp_accuracy, nsp_optimum: share of right answers to "is B the next sentence", and the largest possible.
        share: of the points, between 0 and 1.
    """

    gap: float
    floor: float
    unigram: float
    nsp_accuracy: float
    nsp_optimum: float
    share: float

    def explain(self) -> str:
        """What the numbers say, in words."""
        told = (
            f"MLM loss {self.floor + self.gap:.3f} nats, {self.gap:.3f} above the floor of {self.floor:.3f} (unigram "
            f"entropy {self.unigram:.3f}); NSP accuracy {self.nsp_accuracy:.1%} of at most {self.nsp_optimum:.1%}"
        )
        if self.floor + self.gap > self.unigram + 0.2:
            told += (
                ". It is surer of wrong words than a model that knows nothing: what it was trained on is not what it "
                "reads now; look at x̄ and at the labels"
            )
        elif self.floor + self.gap > self.unigram - 0.05:
            told += (
                ". The model has learned how frequent the words are and nothing about their context: look at the "
                "attention, and at whether the loss is taken at the selected positions"
            )
        elif self.gap > NEAR:
            told += ". It reads the context, but not all of it: look at the shares 80/10/10, and at the attention"
        if self.nsp_accuracy < 0.5 + 0.5 * (self.nsp_optimum - 0.5):
            told += ". It does not tell the next sentence from another: look at the labels of the pairs, and at the sum"
        return told


def capstone_language(seed: int) -> Language:
    """A language of twenty words in four classes and two topics, drawn from a seed."""
    words = [group.split() for group in WORDS]
    return draw_language(seed, words, name=f"shore-{seed}", topics=("sea", "shore"), lengths=(6, 7))


def _config(language: Language) -> ModelConfig:
    return network(language, layers=2, hidden=64)


def train(
    select_positions: Part,
    corrupt_tokens: Part,
    make_pairs: Part,
    mlm_loss: Part,
    pretraining_loss: Part,
    attention: Part,
    *,
    seed: int = 0,
    run: TrainConfig = RUN,
) -> Trained:
    """Train a small BERT in which six functions are yours: about half a minute on one core.

    Args:
        select_positions: of task 03.10.
        corrupt_tokens: of task 03.11.
        make_pairs: of task 06.7.
        mlm_loss: of task 02.10; the curve shows what it says.
        pretraining_loss: of task 10.10; its first value is minimized.
        attention: of task 09.10.
        seed: of the language.
        run: updates, rate and batch size.

    Raises:
        UserError: the loss is no longer finite.
    """
    language = capstone_language(seed)
    with seeded(seed):
        model = BertForPreTraining(_config(language))
    layer: Any
    for layer in model.encoder.layers:
        layer.attention.attend = _attending(attention)
    optimizer, rng = make_optimizer(model, run), np.random.default_rng(seed)
    curve: list[Point] = []
    window: list[tuple[float, float]] = []

    def loss(model: BertForPreTraining, batch: Mapping[str, Tensor], nsp_weight: float) -> Losses:
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        total, _, nsp = pretraining_loss(
            output.mlm_logits, batch["labels"], output.nsp_logits, batch["next_sentence_label"]
        )
        return Losses(total, mlm_loss(output.mlm_logits, batch["labels"]), nsp)

    for step in range(run.max_steps):
        batch = _batch(language, run.batch_size, rng, make_pairs, select_positions, corrupt_tokens)
        losses, _ = train_step(model, batch, optimizer, lr=learning_rate(step, run), loss=loss)
        if not math.isfinite(float(losses.total)):
            raise UserError(f"the loss became {float(losses.total)} after {step + 1} updates")
        window.append((float(losses.mlm), float(losses.nsp)))
        if (step + 1) % run.eval_every == 0:
            mlm, nsp = np.mean(window, axis=0)
            curve.append(Point(step + 1, float(mlm), float(nsp)))
            window.clear()
    weights = {name: value.numpy().astype(np.float32) for name, value in model.state_dict().items()}
    return Trained(weights, tuple(curve), seed)


def _attending(attention: Part) -> Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]:
    """Bring a function of (A, S, D) into the model's form (B, A, S, D); here nothing is hidden, and nothing dropped."""

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
        length = k.shape[2]
        nothing_hidden = torch.zeros(length, length)
        mixed = attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), nothing_hidden)  # (BA, S, D)
        return mixed.reshape(q.shape)

    return attend


def _batch(
    language: Language, size: int, rng: np.random.Generator, make_pairs: Part, select: Part, corrupt: Part
) -> dict[str, Tensor]:
    """Documents → pairs → x̄ and labels, by the learner's functions; all pairs are equally long: no padding."""
    first, _ = language.lengths
    words, _ = language.sample(2 * size, rng)
    text = [[" ".join(map(str, FIRST_WORD + part)) for part in (w[:first], w[first:])] for w in words]
    # one call for each pair, with one foreign sentence: the second of its document, as the floor assumes
    pairs = [make_pairs([text[i], [text[size + i][1]]], rng)[0] for i in range(size)]
    ids = np.array([[CLS_ID, *_ids(a), SEP_ID, *_ids(b), SEP_ID] for a, b, _ in pairs])  # (B, S)
    selected = np.asarray(select(ids >= FIRST_WORD, RATE, rng), dtype=bool)
    ordinary = np.arange(FIRST_WORD, FIRST_WORD + len(language.words))
    corrupted = np.asarray(corrupt(ids.copy(), selected, rng, MASK_ID, ordinary))
    arrays = {
        "input_ids": corrupted,
        "token_type_ids": segments(torch.from_numpy(ids)),
        "attention_mask": np.ones_like(ids),
        "labels": mlm_labels(ids, selected),
        "next_sentence_label": np.array([label for _, _, label in pairs]),
    }
    return {name: torch.from_numpy(np.asarray(array, dtype=np.int64)) for name, array in arrays.items()}


def _ids(sentence: str) -> list[int]:
    return [int(word) for word in sentence.split()]


def measure(weights: Mapping[str, Any], seed: int) -> Capstone:
    """Tell how far a trained model is from the best possible, on pairs that it has not seen.

    Args:
        weights: of `Trained`, in the memory of the judge: its own model, its own attention, its own pairs.
        seed: of the language.

    Raises:
        UserError: the weights are not those of the capstone's model.
    """
    language = capstone_language(seed)
    model = BertForPreTraining(_config(language))
    model.load_state_dict(_checked(weights, model.state_dict()))
    batches = list(exact_batches(language, HELD_OUT, np.random.default_rng([seed, 1])))
    found = distance_to_floor(language, model.eval(), batches)
    floor, gap = found.mlm_floor.mean, found.gap.mean
    unigram = language.unigram_entropy
    accuracy, optimum = found.nsp_accuracy.mean, found.nsp_optimum.mean
    return Capstone(gap, floor, unigram, accuracy, optimum, _share(gap, unigram - floor, accuracy, optimum))


def _checked(weights: Mapping[str, Any], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(weights, Mapping) or set(weights) != set(expected):
        raise UserError("the weights are not those of the capstone's model: hand over what `train` returns")
    checked = {}
    for name, tensor in expected.items():
        array = np.asarray(weights[name], dtype=np.float32)
        if array.shape != tuple(tensor.shape) or not np.isfinite(array).all():
            raise UserError(f"the weight {name} should be finite and of shape {tuple(tensor.shape)}")
        checked[name] = torch.from_numpy(array)
    return checked


def _share(gap: float, unigram_gap: float, accuracy: float, optimum: float) -> float:
    """Four fifths of the points for the words, one for the sentences; both from chance (0) to as near as `NEAR` (1)."""
    words = 1 - (gap - NEAR) / (unigram_gap - NEAR)
    sentences = (accuracy - 0.5) / (optimum - 0.02 - 0.5)
    return float(0.8 * np.clip(words, 0, 1) + 0.2 * np.clip(sentences, 0, 1))


def plain(trained: Trained) -> dict[str, Any]:
    """What crosses the wall: the weights, and the curve for the report."""
    return {"weights": dict(trained.weights), "curve": [[p.step, p.mlm, p.nsp] for p in trained.curve]}


def shorter(steps: int) -> TrainConfig:
    """The same run with fewer updates, for a first look."""
    return replace(RUN, max_steps=steps, warmup_steps=max(1, steps // 10), eval_every=max(1, min(50, steps)))


def picture(curve: Sequence[Point], result: Capstone) -> Any:
    """Draw the loss on the way, between the unigram entropy and the floor."""
    from mlmkit.plots import BLUE, GREY, new_figure

    figure, (axes,) = new_figure(width=7)
    axes.plot([p.step for p in curve], [p.mlm for p in curve], color=BLUE, marker="o", label="your MLM loss (training)")
    axes.axhline(result.unigram, color=GREY, linestyle=":", label="unigram entropy")
    axes.axhline(result.floor, color=GREY, linestyle="--", label="floor")
    axes.set(xlabel="updates", ylabel="nats")
    axes.legend(frameon=False)
    return figure
