"""How low can the loss go, and how far above it is a model.

The floor of masked language modeling is the mean entropy of the true posterior: no predictor, whatever it is, has a
lower expected loss. A model is compared with the perfect predictor on the same questions, so that the luck of the
draw cancels. Losses and entropies are in nats.

Shapes: B pairs, S sequence, V vocabulary, M selected positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlmkit.batches import Batch, collate
from mlmkit.errors import UserError
from mlmkit.exact.estimates import Estimate, ratio, sum_by_pair
from mlmkit.exact.inference import BERT, FIRST_WORD, Context, next_log_odds, posterior
from mlmkit.language import Language
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.pairs import IS_NEXT, IS_RANDOM, Block, Pairs
from mlmkit.tokenizer import word_tokenizer


class Readout(Protocol):
    """What a model gives: scores over the vocabulary (M, V) and of the two sentence relations (B, 2)."""

    @property
    def mlm_logits(self) -> Tensor: ...  # noqa: D102

    @property
    def nsp_logits(self) -> Tensor: ...  # noqa: D102


Model = Callable[[Tensor, Tensor, Tensor, Tensor], Readout]
"""Takes `input_ids`, `token_type_ids`, `attention_mask` and the selected positions, like `BertForPreTraining`."""


def exact_batches(
    language: Language, count: int, rng: np.random.Generator, policy: MaskingPolicy = BERT, batch_size: int = 256
) -> Iterator[Batch]:
    """Draw pairs straight from a language, masked, without a corpus on disk.

    With probability ½ B is the second sentence of the document whose first is A, otherwise that of a document of
    its own. All pairs are independent of each other. The batches are those of `mlmkit.batches.collate`.

    Args:
        language: where the words come from.
        count: number of pairs.
        rng: source of all draws.
        policy: how to mask.
        batch_size: pairs in a batch; the last may have fewer.

    Raises:
        UserError: count or batch_size is less than 1.
    """
    if min(count, batch_size) < 1:
        raise UserError(f"at least one pair and one pair in a batch are needed, got {count} and {batch_size}")
    tokenizer = word_tokenizer(language.words)
    for start in range(0, count, batch_size):
        size = min(batch_size, count - start)
        block, pairs = _draw_pairs(language, size, rng)
        yield collate(block, pairs, np.arange(size), tokenizer, policy, rng)


def _draw_pairs(language: Language, size: int, rng: np.random.Generator) -> tuple[Block, Pairs]:
    """Draw two documents for each pair: one gives A, and one of the two gives B."""
    words, _ = language.sample(2 * size, rng)  # (2 size, L₁ + L₂)
    L1, L = language.lengths[0], sum(language.lengths)
    starts = L * np.arange(2 * size + 1)  # where each document begins
    sentences = np.append(np.stack([starts[:-1], starts[:-1] + L1], axis=1).ravel(), starts[-1])
    block = Block((words + FIRST_WORD).astype(np.int32).ravel(), sentences, 2 * np.arange(2 * size + 1))
    label = np.where(rng.random(size) < 0.5, IS_NEXT, IS_RANDOM)
    a = np.arange(size)
    b = np.where(label == IS_NEXT, a, size + a)
    return block, Pairs(starts[a], starts[a] + L1, starts[b] + L1, starts[b] + L, label, a, b)


def mlm_floor(
    language: Language,
    rng: np.random.Generator,
    *,
    policy: MaskingPolicy = BERT,
    context: Context = "both",
    pairs: int = 4096,
) -> Estimate:
    """Lowest expected loss of masked language modeling, E[H(x_i | x̄, i ∈ A(x))], in nats.

    Args:
        language: where the words come from.
        rng: draws the pairs and their masks.
        policy: how x̄ is made.
        context: which other words the predictor may look at, as in `posterior`.
        pairs: how many are drawn; the standard error falls as 1/√pairs.

    Raises:
        UserError: as `posterior`, or too few pairs.
    """
    totals, counts = [], []
    for batch in exact_batches(language, pairs, rng, policy):
        selected = batch["labels"] != IGNORE  # (B, S)
        p = posterior(language, batch["input_ids"], selected, policy=policy, context=context)  # (M, V)
        totals.append(sum_by_pair(torch.special.entr(p).sum(-1), selected))
        counts.append(selected.sum(1))
    return ratio(torch.cat(totals), torch.cat(counts))


@dataclass(frozen=True)
class NSPOptimum:
    """Share of pairs whose relation the perfect predictor tells right, and its loss in nats."""

    accuracy: Estimate
    loss: Estimate


def nsp_optimum(
    language: Language, rng: np.random.Generator, *, policy: MaskingPolicy = BERT, pairs: int = 4096
) -> NSPOptimum:
    """Best accuracy E[max(p, 1 − p)] and lowest loss E[H(p)] for "B is next", with p = Pr(B is next | x̄).

    Two sentences only share a topic, so the answer is never certain.

    Args:
        language: where the words come from.
        rng: draws the pairs and their masks.
        policy: how x̄ is made; the sentences are read after the corruption, as in pre-training.
        pairs: how many are drawn.
    """
    odds = torch.cat(
        [next_log_odds(language, b["input_ids"], policy=policy) for b in exact_batches(language, pairs, rng, policy)]
    )
    p = torch.stack([odds, -odds], dim=1).sigmoid()  # (B, 2)
    one = torch.ones(len(p))
    return NSPOptimum(ratio(p.amax(1), one), ratio(torch.special.entr(p).sum(1), one))


@dataclass(frozen=True)
class IdealLosses:
    """What the perfect predictor gets on given questions; losses in nats."""

    mlm_loss: Estimate
    mlm_accuracy: Estimate
    nsp_loss: Estimate
    nsp_accuracy: Estimate


def ideal_losses(
    language: Language, batches: Iterable[Mapping[str, Tensor]], policy: MaskingPolicy = BERT
) -> IdealLosses:
    """Grade the perfect predictor, which answers with the true posterior, on these very questions.

    Args:
        language: from which the pairs were drawn.
        batches: with labels; from `exact_batches`, or a held-out part.
        policy: with which they were masked.

    Raises:
        UserError: fewer than two pairs or no selected position; or the pairs are not of this language.
    """
    sums = _Sums()
    for batch in batches:
        logs, relation_logs = _ideal_answers(language, batch, policy)
        sums.add("ideal", _grade(logs, relation_logs, batch))
        sums.add("count", _count(batch))
    return IdealLosses(
        mlm_loss=sums.per_word("ideal.mlm_loss"),
        mlm_accuracy=sums.per_word("ideal.mlm_hits"),
        nsp_loss=sums.per_pair("ideal.nsp_loss"),
        nsp_accuracy=sums.per_pair("ideal.nsp_hits"),
    )


@dataclass(frozen=True)
class Distance:
    """A model beside the perfect predictor, on the same questions.

    Attributes:
        mlm_loss: of the model.
        mlm_floor: of the perfect predictor.
        gap: mlm_loss − mlm_floor; its expectation is `kl`. Below 0 by more than three standard errors, the model knows
            what it cannot know: the answers leak.
        kl: mean KL(posterior ‖ model), never negative, and known more precisely than `gap`.
        nsp_accuracy, nsp_optimum: of the model and of the perfect predictor.
        nsp_gap: nsp_optimum − nsp_accuracy.
        nsp_loss, nsp_floor: of the model and of the perfect predictor.
        nsp_kl: mean KL(true probabilities of the relation ‖ model).
    """

    mlm_loss: Estimate
    mlm_floor: Estimate
    gap: Estimate
    kl: Estimate
    nsp_accuracy: Estimate
    nsp_optimum: Estimate
    nsp_gap: Estimate
    nsp_loss: Estimate
    nsp_floor: Estimate
    nsp_kl: Estimate


def distance_to_floor(
    language: Language, model: Model, batches: Iterable[Mapping[str, Tensor]], policy: MaskingPolicy = BERT
) -> Distance:
    """Tell how far a model is from perfect; it is read without dropout and without gradients.

    Args:
        language: from which the pairs were drawn.
        model: a `BertForPreTraining`, or any function of that form whose vocabulary is the language's.
        batches: with labels; from `exact_batches`, or a held-out part.
        policy: with which they were masked.

    Raises:
        UserError: as `ideal_losses`, or the model has another vocabulary.
    """
    sums = _Sums()
    with _reading(model) as device:
        for batch in batches:
            ideal, answers = _ideal_answers(language, batch, policy), _model_answers(model, batch, device)
            if answers[0].shape != ideal[0].shape:
                raise UserError(
                    f"the language {language.name!r} has {ideal[0].shape[1]} tokens and the model scores "
                    f"{answers[0].shape[1]}: train it on this language"
                )
            sums.add("ideal", _grade(*ideal, batch))
            sums.add("model", _grade(*answers, batch))
            sums.add("count", _count(batch))
            kl = sum_by_pair(kl_divergence(ideal[0].exp(), answers[0]), batch["labels"] != IGNORE)
            sums.add("kl", {"mlm": kl, "nsp": kl_divergence(ideal[1].exp(), answers[1])})
    return _distance(sums)


def _distance(sums: _Sums) -> Distance:
    """Means and differences of what was gathered."""
    return Distance(
        mlm_loss=sums.per_word("model.mlm_loss"),
        mlm_floor=sums.per_word("ideal.mlm_loss"),
        gap=sums.per_word("model.mlm_loss", minus="ideal.mlm_loss"),
        kl=sums.per_word("kl.mlm"),
        nsp_accuracy=sums.per_pair("model.nsp_hits"),
        nsp_optimum=sums.per_pair("ideal.nsp_hits"),
        nsp_gap=sums.per_pair("ideal.nsp_hits", minus="model.nsp_hits"),
        nsp_loss=sums.per_pair("model.nsp_loss"),
        nsp_floor=sums.per_pair("ideal.nsp_loss"),
        nsp_kl=sums.per_pair("kl.nsp"),
    )


def kl_divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) in nats, of distributions (…, V) → (…); where p is 0 nothing is added.

    >>> float(kl_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]).log())) == float(torch.tensor(2.0).log())
    True
    """
    return torch.where(p > 0, p * (p.log() - log_q), 0.0).sum(-1)


Answers = tuple[Tensor, Tensor]
"""log Pr(x_i | …) at the selected positions (M, V) and log Pr(relation | …) (B, 2)."""


def _ideal_answers(language: Language, batch: Mapping[str, Tensor], policy: MaskingPolicy) -> Answers:
    """Logs of the true probabilities."""
    p = posterior(language, batch["input_ids"], batch["labels"] != IGNORE, policy=policy)
    odds = next_log_odds(language, batch["input_ids"], policy=policy)
    return p.log(), F.logsigmoid(torch.stack([odds, -odds], dim=1))  # IS_NEXT is column 0


def _model_answers(model: Model, batch: Mapping[str, Tensor], device: torch.device) -> Answers:
    """Logs of a model's probabilities, in float64 on the CPU."""
    b = {name: tensor.to(device) for name, tensor in batch.items()}
    output = model(b["input_ids"], b["token_type_ids"], b["attention_mask"], b["labels"] != IGNORE)
    return output.mlm_logits.cpu().double().log_softmax(-1), output.nsp_logits.cpu().double().log_softmax(-1)


def _grade(logs: Tensor, relation_logs: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses and right answers of each pair (B,), added up over its selected positions."""
    selected = batch["labels"] != IGNORE  # (B, S)
    true, relation = batch["labels"][selected], batch["next_sentence_label"]  # (M,), (B,)
    return {
        "mlm_loss": sum_by_pair(-logs.gather(1, true[:, None])[:, 0], selected),
        "mlm_hits": sum_by_pair(logs.argmax(1) == true, selected),
        "nsp_loss": -relation_logs.gather(1, relation[:, None])[:, 0],
        "nsp_hits": (relation_logs.argmax(1) == relation).double(),
    }


def _count(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number of selected positions of each pair (B,)."""
    return {"words": (batch["labels"] != IGNORE).sum(1)}


class _Sums:
    """Sums over each pair, gathered batch by batch."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = defaultdict(lambda: [torch.zeros(0)])

    def add(self, group: str, sums: Mapping[str, Tensor]) -> None:
        for name, values in sums.items():
            self._parts[f"{group}.{name}"].append(values)

    def per_word(self, name: str, minus: str | None = None) -> Estimate:
        return ratio(self._total(name, minus), torch.cat(self._parts["count.words"]))

    def per_pair(self, name: str, minus: str | None = None) -> Estimate:
        total = self._total(name, minus)
        return ratio(total, torch.ones_like(total))

    def _total(self, name: str, minus: str | None) -> Tensor:
        total = torch.cat(self._parts[name])
        return total if minus is None else total - torch.cat(self._parts[minus])


@contextmanager
def _reading(model: Model) -> Iterator[torch.device]:
    """Switch dropout and gradients off, and put a network's mode back afterwards; gives its device."""
    network = model if isinstance(model, nn.Module) else None
    was_training = network is not None and network.training
    first = next(network.parameters(), None) if network is not None else None
    if network is not None:
        network.eval()
    try:
        with torch.no_grad():
            yield torch.device("cpu") if first is None else first.device
    finally:
        if network is not None:
            network.train(was_training)
