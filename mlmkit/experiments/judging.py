"""Train one run and judge it: its own record, and questions that are the same for every run of the experiment.

The loss under one corruption cannot be compared with the loss under another: with 40 % masked the questions are harder
than with 15 %, and the same model has another loss. So all models answer the same questions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.batches import Batch
from mlmkit.config import RunConfig
from mlmkit.evaluation import evaluate, evaluation_mode
from mlmkit.exact import FIRST_WORD, distance_to_floor, exact_batches, is_solved
from mlmkit.history import History
from mlmkit.language import Language
from mlmkit.masking import IGNORE, MaskingPolicy, candidates
from mlmkit.model import BertForPreTraining
from mlmkit.preparation import EVALUATION_SEED, Data, prepare
from mlmkit.pretraining import pretrain
from mlmkit.tokenizer import CLS, SEP, SPECIAL_TOKENS, Tokenizer

PAIRS = 2048
"""Sentence pairs about which all models are asked, and documents of a probe."""
HOLES = MaskingPolicy(mask=1.0, random=0.0, keep=0.0, count="binomial")
"""How the perfect model reads clean text with holes: every word that stands there is true."""


def run_and_judge(config: RunConfig, base: RunConfig, folder: Path) -> dict[str, float]:
    """Train a run, or go on with it, or open it; then measure all metrics that its corpus allows.

    Args:
        config: of the run.
        base: of the experiment; its masking makes the common questions.
        folder: of the run.
    """
    run = pretrain(config, folder, resume=True, progress=False)
    return from_history(run.history) | judge(run.model, base, prepare(config, folder))


def judge(model: BertForPreTraining, base: RunConfig, data: Data) -> dict[str, float]:
    """Ask a model the common questions; of a known language also compare it with the perfect model."""
    rng = np.random.default_rng([EVALUATION_SEED, 1])
    common = common_questions(base, data)
    holes = [ask_one(batch, data.tokenizer, rng, hide=True) for batch in common]
    clean = [ask_one(batch, data.tokenizer, rng, hide=False) for batch in common]
    metrics = evaluate(model, common)
    found = {"common_mlm_loss": metrics.mlm_loss, "common_mlm_accuracy": metrics.mlm_accuracy}
    found |= {"common_nsp_loss": metrics.nsp_loss, "common_nsp_accuracy": metrics.nsp_accuracy}
    for name, batches in {"hole": holes, "clean": clean}.items():
        metrics = evaluate(model, batches)
        found |= {f"{name}_loss": metrics.mlm_loss, f"{name}_accuracy": metrics.mlm_accuracy}
    found["cls_relation"] = cls_relation(model, clean)
    if data.corpus.language is not None and is_solved(base.masking):
        found |= from_perfect(model, data.corpus.language, common, holes, base.masking)
        found["word_topic"] = word_topic(model, data.corpus.language, np.random.default_rng([EVALUATION_SEED, 2]))
    return found


def from_history(history: History) -> dict[str, float]:
    """What the record says of the model that the run left behind."""
    kept = history.best if history.config["train"]["patience"] else history.last
    names = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
    return {name: getattr(kept, name) for name in names} | {
        "seconds": history.last.seconds,
        "tokens": history.last.tokens,
    }


def common_questions(base: RunConfig, data: Data) -> list[Batch]:
    """About `PAIRS` pairs, masked as the base configuration says, however the run was trained.

    Of a known language they are drawn anew: they are then the same for corpora of any size. Otherwise they come from
    the test part of the run's corpus.
    """
    size = base.train.batch_size
    if data.corpus.language is not None:
        rng = np.random.default_rng(EVALUATION_SEED)
        return list(exact_batches(data.corpus.language, PAIRS, rng, base.masking, size))
    train = replace(data.config.train, batch_size=size)
    judged = replace(data, config=replace(data.config, masking=base.masking, train=train))
    return list(judged.held_out("test", math.ceil(PAIRS / size)))


def ask_one(batch: Batch, tokenizer: Tokenizer, rng: np.random.Generator, *, hide: bool) -> Batch:
    """The clean text of a batch, with one word of each pair as the question.

    Args:
        batch: whose labels say what stood at the selected positions.
        tokenizer: special ids.
        rng: chooses the words.
        hide: put [MASK] in the place of the word.
    """
    true = torch.where(batch["labels"] == IGNORE, batch["input_ids"], batch["labels"])  # (B, S)
    words = candidates(true.numpy(), tokenizer.special_ids)  # (B, S)
    chosen = np.where(words, rng.random(words.shape), -1.0).argmax(1)  # (B,)
    asked = torch.from_numpy(words & (np.arange(words.shape[1]) == chosen[:, None]))  # (B, S)
    shown = true.masked_fill(asked, tokenizer.mask_id) if hide else true
    return {**batch, "input_ids": shown, "labels": true.masked_fill(~asked, IGNORE)}


def from_perfect(
    model: BertForPreTraining, language: Language, common: list[Batch], holes: list[Batch], policy: MaskingPolicy
) -> dict[str, float]:
    """How far a model is from the perfect one on the common questions, and on clean text with a hole."""
    masked = distance_to_floor(language, model, common, policy)
    hole = distance_to_floor(language, model, holes, HOLES)
    return {
        "mlm_gap": masked.gap.mean,
        "kl": masked.kl.mean,
        "nsp_gap": masked.nsp_gap.mean,
        "hole_gap": hole.gap.mean,
        "hole_kl": hole.kl.mean,
    }


def cls_relation(model: BertForPreTraining, clean: list[Batch]) -> float:
    """How well a linear classifier tells from the vector of [CLS] whether B follows A, on clean text.

    The encoder is frozen and the NSP head not used: it says what the vector holds.
    """
    vectors = [_hidden(model, b["input_ids"], b["token_type_ids"], b["attention_mask"])[:, 0] for b in clean]
    relation = torch.cat([batch["next_sentence_label"] for batch in clean]).numpy()
    return linear_accuracy(torch.cat(vectors), relation, 2)


def word_topic(model: BertForPreTraining, language: Language, rng: np.random.Generator) -> float:
    """How well a linear classifier tells the topic of a clean document from the vector of one word, in mid-sentence."""
    words, topics = language.sample(PAIRS, rng)  # (D, L₁ + L₂), (D,)
    first = language.lengths[0]
    cls, sep = (np.full((PAIRS, 1), SPECIAL_TOKENS.index(token)) for token in (CLS, SEP))
    words = words + FIRST_WORD
    ids = torch.from_numpy(np.concatenate([cls, words[:, :first], sep, words[:, first:], sep], axis=1))  # (D, S)
    segments = (torch.arange(ids.shape[1]) > first + 1).long().expand_as(ids)
    vectors = [
        _hidden(model, ids[rows], segments[rows], torch.ones_like(ids[rows]))[:, 1 + first // 2]
        for rows in torch.arange(PAIRS).split(256)
    ]
    return linear_accuracy(torch.cat(vectors), topics, len(language.topics))


def _hidden(model: BertForPreTraining, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Vectors of the last layer (B, S, H), without dropout, on the CPU."""
    device = next(model.parameters()).device
    with evaluation_mode(model):
        found: Tensor = model.encoder(input_ids.to(device), token_type_ids.to(device), attention_mask.to(device))
    return found.cpu()


def linear_accuracy(vectors: Tensor, labels: NDArray[np.int64], classes: int) -> float:
    """Accuracy of ridge regression onto one-hot labels, fitted on the first half and tested on the second.

    Args:
        vectors: (D, H).
        labels: class of each (D,).
        classes: how many there are.
    """
    features = np.c_[vectors.double().numpy(), np.ones(len(vectors))]  # (D, H + 1)
    targets = np.eye(classes)[labels]  # (D, classes)
    half = len(features) // 2
    known, wanted = features[:half], targets[:half]
    weights = np.linalg.solve(known.T @ known + np.eye(features.shape[1]), known.T @ wanted)
    return float(((features[half:] @ weights).argmax(1) == labels[half:]).mean())
