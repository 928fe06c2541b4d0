"""How good is it: losses and accuracies on held-out text, the baselines to beat, and reading single sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.batches import Batch, to_device
from mlmkit.errors import UserError
from mlmkit.losses import mlm_loss, nsp_loss
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import MASK, Tokenizer


@dataclass(frozen=True)
class Metrics:
    """Averages over a held-out part; losses in nats.

    Attributes:
        mlm_loss: mean −log Pr(x_i | x̄) over all selected positions (not a mean of batch means).
        mlm_accuracy: share of selected positions where the true token has the highest probability.
        nsp_loss: mean −log Pr(c | h_cls) over all pairs.
        nsp_accuracy: share of pairs whose relation is told right.
        selected: number of selected positions.
        pairs: number of pairs.
    """

    mlm_loss: float
    mlm_accuracy: float
    nsp_loss: float
    nsp_accuracy: float
    selected: int
    pairs: int

    def to_dict(self) -> dict[str, float]:
        """Plain data, for JSON."""
        return asdict(self)


@contextmanager
def evaluation_mode(model: BertForPreTraining) -> Iterator[None]:
    """Switch dropout and gradients off, and put the model's mode back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def mlm_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the selected positions whose true token scores highest; logits (…, V), labels (…), −100 ignored."""
    selected = labels != IGNORE
    return (logits.argmax(-1) == labels)[selected].float().mean()


def nsp_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the pairs whose relation scores highest; logits (B, 2), labels (B,)."""
    return (logits.argmax(-1) == labels).float().mean()


def evaluate(model: BertForPreTraining, batches: Iterable[Batch]) -> Metrics:
    """Measure a model on held-out batches, in fp32, without dropout.

    Use batches made with the same seed each time, so that every evaluation sees the same pairs and masks.

    Raises:
        UserError: there is no batch, or no position was selected.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(4, dtype=torch.float64)
    selected_count = pair_count = 0
    with evaluation_mode(model):
        for batch in (to_device(b, device) for b in batches):
            selected = batch["labels"] != IGNORE  # (B, S)
            labels, relation = batch["labels"][selected], batch["next_sentence_label"]
            output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"], selected)
            m, b = len(labels), len(relation)
            means = [mlm_loss(output.mlm_logits, labels), nsp_loss(output.nsp_logits, relation)]
            hits = [mlm_accuracy(output.mlm_logits, labels), nsp_accuracy(output.nsp_logits, relation)]
            weights = torch.tensor([m, b, m, b], dtype=torch.float64)
            sums += torch.where(weights > 0, torch.stack(means + hits).double().cpu() * weights, 0.0)
            selected_count, pair_count = selected_count + m, pair_count + b
    if selected_count == 0:
        raise UserError("nothing to evaluate: no position is selected in the held-out batches")
    return Metrics(
        mlm_loss=float(sums[0]) / selected_count,
        mlm_accuracy=float(sums[2]) / selected_count,
        nsp_loss=float(sums[1]) / pair_count,
        nsp_accuracy=float(sums[3]) / pair_count,
        selected=selected_count,
        pairs=pair_count,
    )


def unigram_counts(ids: Iterable[NDArray[np.integer]], vocab_size: int) -> NDArray[np.int64]:
    """Count each token of a text (V,)."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for chunk in ids:
        counts += np.bincount(chunk, minlength=vocab_size)
    return counts


def unigram_entropy(counts: NDArray[np.integer]) -> float:
    """Entropy −Σ p log p of a text's own token frequencies, in nats: the best loss without looking at the context.

    It is the strict form of the baseline: frequencies of the *same* text, which no model can know beforehand. A
    model that knows only the training text's frequencies pays a little more.

    >>> round(unigram_entropy(np.array([1, 1, 1, 1])), 4) == round(math.log(4), 4)
    True
    """
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def unigram_cross_entropy(counts: NDArray[np.integer], train_counts: NDArray[np.integer]) -> float:
    """Loss on a text of a model that gives each token its (add-one) frequency in the training text, in nats."""
    p = (train_counts + 1) / (train_counts + 1).sum()
    return float(-(counts * np.log(p)).sum() / counts.sum())


TokenPairs = Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]


def bigram_cross_entropy(held_out: TokenPairs, train: TokenPairs, vocab_size: int, limit: int = 20_000_000) -> float:
    """Loss of the model that knows the left neighbor of a token and nothing else, in nats.

    The counts c of the training text are smoothed by Witten and Bell's rule (1991, method C): with T(a) different
    tokens seen after a,

        Pr(b | a) = (c(a, b) + T(a) Pr(b)) / (c(a) + T(a)),    Pr(b) = (c(b) + 1) / (Σ c + V).

    A network whose loss stays above this line has learned less than a table of pairs.

    Args:
        held_out: neighbors of the text to be judged, as `mlmkit.pairs.bigrams` gives them.
        train: neighbors of the training text.
        vocab_size: V.
        limit: read about so many pairs of the training text at most.
    """
    keys, counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    for left, right in train:
        found, times = np.unique(left * vocab_size + right, return_counts=True)
        keys, place = np.unique(np.concatenate([keys, found]), return_inverse=True)
        counts = np.bincount(place, weights=np.concatenate([counts, times])).astype(np.int64)
        if counts.sum() >= limit:
            break
    after = np.bincount(keys // vocab_size, weights=counts, minlength=vocab_size)  # c(a) (V,)
    kinds = np.bincount(keys // vocab_size, minlength=vocab_size)  # T(a) (V,)
    single = np.bincount(keys % vocab_size, weights=counts, minlength=vocab_size) + 1.0
    single /= single.sum()  # Pr(b) (V,)
    total, number = 0.0, 0
    for left, right in held_out:
        key = left * vocab_size + right
        place = np.minimum(np.searchsorted(keys, key), max(len(keys) - 1, 0))
        seen = np.where(keys[place] == key, counts[place], 0) if len(keys) else np.zeros(len(key))
        weight = np.maximum(kinds[left], 1)  # a token never seen on the left says nothing: Pr(b)
        total -= np.log((seen + weight * single[right]) / (after[left] + weight)).sum()
        number += len(key)
    return float(total / max(number, 1))


@dataclass(frozen=True)
class Baselines:
    """What a model must beat, and where that is known, what no model can beat; in nats.

    Attributes:
        uniform: ln V, every token equally likely.
        unigram_cross_entropy: frequencies of the training text.
        unigram_entropy: frequencies of the held-out text itself.
        bigram_cross_entropy: a table of neighboring tokens of the training text.
        coin: ln 2, guessing the sentence relation.
        mlm_floor, nsp_floor: losses of the perfect model on the held-out questions; None on real text.
        nsp_optimum: its share of right answers to the sentence relation; None on real text.
    """

    uniform: float
    unigram_cross_entropy: float
    unigram_entropy: float
    bigram_cross_entropy: float
    coin: float = math.log(2)
    mlm_floor: float | None = None
    nsp_floor: float | None = None
    nsp_optimum: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A token that may stand at a masked position, and its probability."""

    token: str
    id: int
    probability: float


def fill_mask(model: BertForPreTraining, tokenizer: Tokenizer, text: str, top: int = 5) -> list[list[Candidate]]:
    """Predict every [MASK] of a text: the `top` most probable tokens at each, best first.

    The probabilities are a softmax over the whole vocabulary. Several masks are predicted independently of each
    other, given the same x̄.

    Raises:
        UserError: the text has no [MASK], or is too long for the model.
    """
    ids, segments = tokenizer.pair_ids(text)
    positions = [i for i, token in enumerate(ids) if token == tokenizer.mask_id]
    if not positions:
        raise UserError(f"there is no {MASK} in {text!r}; write it where a word is to be predicted")
    row = torch.tensor([ids])  # (1, S)
    probabilities = _log_probabilities(model, row, segments, row == tokenizer.mask_id).exp()  # (masks, V)
    best = probabilities.topk(min(top, probabilities.shape[-1]), dim=-1)
    return [
        [Candidate(tokenizer.tokens([i])[0], i, p) for i, p in zip(row_ids, row_p, strict=True)]
        for row_ids, row_p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def pseudo_log_likelihood(model: BertForPreTraining, tokenizer: Tokenizer, text: str) -> float:
    """Σ_i log Pr(x_i | x with x_i masked), in nats: each token hidden in turn (Salazar et al. 2020, eq. 2).

    It scores how well a sentence fits; it is not the log-probability of the sentence.

    Raises:
        UserError: the text is empty or too long for the model.
    """
    ids, segments = tokenizer.pair_ids(text)
    positions = [i for i, token in enumerate(ids) if token not in tokenizer.special_ids]
    if not positions:
        raise UserError("pseudo-log-likelihood needs a text with at least one known token")
    total = 0.0
    for some in torch.tensor(positions).split(32):  # N ≤ 32 of them at a time
        rows = torch.arange(len(some))
        masked = torch.tensor(ids).repeat(len(some), 1)  # (N, S)
        selected = torch.zeros_like(masked, dtype=torch.bool)
        selected[rows, some] = True
        true, masked[selected] = masked[selected], tokenizer.mask_id  # (N,)
        total += float(_log_probabilities(model, masked, segments, selected)[rows, true].double().sum())
    return total


def _log_probabilities(model: BertForPreTraining, input_ids: Tensor, segments: list[int], selected: Tensor) -> Tensor:
    """Compute log Pr over the vocabulary at the selected positions of some sequences (M, V), on the CPU."""
    limit = model.config.max_position_embeddings
    if len(segments) > limit:
        raise UserError(f"the text has {len(segments)} tokens with [CLS] and [SEP]; this model reads at most {limit}")
    device = next(model.parameters()).device
    with evaluation_mode(model):
        token_type_ids = torch.tensor(segments, device=device).expand_as(input_ids)
        output = model(input_ids.to(device), token_type_ids, selected=selected.to(device))
        return output.mlm_logits.float().log_softmax(-1).cpu()
