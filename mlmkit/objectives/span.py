"""Consecutive masking, and the span-boundary objective (Joshi et al. 2020, §3).

BERT hides single tokens, which the two neighbors often give away. Spans hide several words in a row, with geometric
lengths (`MaskingPolicy(unit="span")`): the fewer words stand close by, the more must be inferred from afar, and the
entropy of a word given what is left can only grow with the span around it.

The span-boundary objective (SBO) asks for the same words a second time, from less: word x_i at place j of a span that
covers s … e is predicted from the hidden states of the two visible tokens next to the span, and an embedding of j,

    u = [h_{s−1}; h_{e+1}; p_j],   y_i = LN(GELU(W₂ LN(GELU(W₁ u)))),   loss = −log Pr(x_i | x̄) − log Pr(x_i | y_i).

So the encoder must store the content of the span at its edges. Both losses have the same floor, that of x_i given x̄,
since the edges have read all of x̄. All selected words become [MASK] here, so x̄ is true wherever a word stands.

A span is a maximal run of selected positions: two chosen units side by side are one span, and a run of one is no
consecutive masking, only a single masked token.

Shapes: B sequences, S positions, H hidden, V vocabulary, M selected positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.exact.inference import MASK_ID, posterior
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
    network,
    seeded,
    segments,
)

SPANS = MaskingPolicy(mask=1.0, random=0.0, keep=0.0, unit="span")
"""15 % of the words in spans of geometric length, mean 4.5, all of them [MASK]."""


@dataclass(frozen=True)
class Spans:
    """The span around each selected position; meaningless elsewhere.

    Attributes:
        before: position of the last visible token before the span, s − 1 (B, S).
        after: position of the first visible token after it, e + 1 (B, S).
    """

    before: Tensor
    after: Tensor

    @property
    def length(self) -> Tensor:
        """Number of positions in the span, e − s + 1 (B, S)."""
        return self.after - self.before - 1

    @property
    def place(self) -> Tensor:
        """Place of the position in its span, counted from 1: i − s + 1 (B, S)."""
        return torch.arange(self.before.shape[1]) - self.before


def find_spans(selected: Tensor) -> Spans:
    """Find the maximal run of selected positions around each position.

    Args:
        selected: A(x) (B, S), without the first and the last position of a row, where [CLS] and [SEP] or padding stand.

    Raises:
        UserError: a span has no token before or after it.

    >>> spans = find_spans(torch.tensor([[False, True, False, True, True, False]]))
    >>> spans.length[0, [1, 3, 4]].tolist(), spans.place[0, [1, 3, 4]].tolist()
    ([1, 2, 2], [1, 1, 2])
    """
    if bool(selected[:, [0, -1]].any()):
        raise UserError("a span needs a visible token on each side, but the first or the last position is selected")
    S = selected.shape[1]
    at = torch.arange(S).expand_as(selected)
    before = at.masked_fill(selected, -1).cummax(1).values  # (B, S)
    after = at.masked_fill(selected, S).flip(1).cummin(1).values.flip(1)  # (B, S)
    return Spans(before, after)


def span_lengths(selected: Tensor) -> Tensor:
    """Count the spans of each length: entry n is the number of maximal runs of n selected positions (S + 1,).

    >>> span_lengths(torch.tensor([[False, True, False, True, True, False]])).tolist()
    [0, 1, 1, 0, 0, 0, 0]
    """
    spans = find_spans(selected)
    first = selected & (spans.place == 1)  # one position for each span
    return torch.bincount(spans.length[first], minlength=selected.shape[1] + 1)


def consecutive_share(selected: Tensor) -> float:
    """Share of the selected tokens that have a selected neighbor; a single masked token is no consecutive masking.

    >>> round(consecutive_share(torch.tensor([[False, True, False, True, True, False]])), 3)
    0.667
    """
    tokens = span_lengths(selected) * torch.arange(selected.shape[1] + 1)
    return float(tokens[2:].sum() / tokens.sum().clamp(min=1))


class SpanBoundaryHead(nn.Module):
    """Two boundary states and a place → scores over the vocabulary: two GELU layers, tied decoder (SpanBERT, eq. 1)."""

    def __init__(self, config: ModelConfig, decoder: nn.Linear) -> None:
        super().__init__()
        H = config.hidden_size
        self.place = nn.Embedding(config.max_position_embeddings, H)
        self.first, self.first_norm = nn.Linear(3 * H, H), nn.LayerNorm(H, eps=config.layer_norm_eps)
        self.second, self.second_norm = nn.Linear(H, H), nn.LayerNorm(H, eps=config.layer_norm_eps)
        self.decoder = decoder

    def forward(self, hidden: Tensor, selected: Tensor) -> Tensor:
        """(B, S, H), (B, S) → (M, V) at the selected positions, whose own hidden states are not read."""
        spans = find_spans(selected)
        row, _ = selected.nonzero(as_tuple=True)  # (M,)
        left, right = hidden[row, spans.before[selected]], hidden[row, spans.after[selected]]  # (M, H)
        u = torch.cat([left, right, self.place(spans.place[selected])], dim=-1)  # (M, 3H)
        y = self.first_norm(F.gelu(self.first(u)))  # (M, H)
        return self.decoder(self.second_norm(F.gelu(self.second(y))))


class SpanBert(nn.Module):
    """A BERT that predicts hidden words twice: from their own place, and from the two edges of their span."""

    def __init__(self, bert: BertForPreTraining) -> None:
        super().__init__()
        self.bert = bert
        self.sbo = SpanBoundaryHead(bert.config, bert.mlm.decoder)
        for layer in (self.sbo.place, self.sbo.first, self.sbo.second):
            nn.init.normal_(layer.weight, std=bert.config.initializer_range)
        for linear in (self.sbo.first, self.sbo.second):
            nn.init.zeros_(linear.bias)

    def forward(self, corrupted: Tensor, selected: Tensor) -> tuple[Tensor, Tensor]:
        """x̄ and A(x), both (B, S) → scores of the MLM head and of the SBO head, both (M, V)."""
        hidden = self.bert.encoder(corrupted, segments(corrupted))  # (B, S, H)
        return self.bert.mlm(hidden[selected]), self.sbo(hidden, selected)


def span_loss(model: SpanBert, corrupted: Tensor, labels: Tensor) -> Tensor:
    """Mean −log Pr(x_i | x̄) − log Pr(x_i | y_i) over the selected positions, in nats (SpanBERT, §3.2)."""
    selected = labels != IGNORE
    by_place, by_edges = model(corrupted, selected)
    return mlm_loss(by_place, labels[selected]) + mlm_loss(by_edges, labels[selected])


def question_losses(model: SpanBert, language: Language, corrupted: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """−log Pr(x_i | x̄) of each hidden word by both heads and by the exact answer.

    Args:
        model: in evaluation mode.
        language: whose documents they are.
        corrupted: x̄, in which every hidden word is [MASK] (B, S).
        labels: true ids at these positions, −100 elsewhere (B, S).

    Returns:
        Losses of the MLM head, of the SBO head, and the floor, each (B, S); 0 where nothing is hidden.
    """
    selected = labels != IGNORE
    with torch.no_grad():
        heads = [logits.double().log_softmax(-1) for logits in model(corrupted, selected)]
    exact = posterior(language, corrupted, selected, policy=None, next_probability=1.0).log()
    found = []
    for logs in (*heads, exact):  # (M, V)
        losses = torch.zeros(labels.shape, dtype=torch.float64)
        losses[selected] = -logs.gather(1, labels[selected][:, None])[:, 0]
        found.append(losses)
    return tuple(found)


@dataclass(frozen=True)
class TrainedSpans:
    """A trained model, and both heads beside their floor.

    Attributes:
        model: in evaluation mode.
        curve: training loss, MLM + SBO.
        mlm, sbo: each head on held-out text with the masks of training.
    """

    model: SpanBert
    curve: list[Point]
    mlm: Comparison
    sbo: Comparison


def train_spans(
    language: Language,
    *,
    policy: MaskingPolicy = SPANS,
    config: TrainConfig = SHORT_RUN,
    size: ModelConfig | None = None,
    held_out: int = 1024,
) -> TrainedSpans:
    """Train MLM + SBO on documents of a language with masked spans.

    Args:
        language: fresh documents are drawn from it at every update.
        policy: lengths and rate of the spans; what is selected must become [MASK].
        config: of the run.
        size: of the network; `network(language)` if absent.
        held_out: documents of the final comparison.

    Raises:
        UserError: the policy puts anything but [MASK], so that the edge of a span would not be true text.
    """
    if policy.mask < 1:
        raise UserError(f"spans are hidden behind [MASK] here: set masking.mask to 1, got {policy.mask}")
    bert = fresh_model(language, size or network(language), config.seed)
    with seeded(config.seed + 1):  # other draws than those of the network
        model = SpanBert(bert)

    def loss(rng: np.random.Generator) -> Tensor:
        return span_loss(model, *masked_batch(language, draw_documents(language, config.batch_size, rng), policy, rng))

    curve = fit(model, loss, config)
    rng = np.random.default_rng([config.seed, 1])
    corrupted, labels = masked_batch(language, draw_documents(language, held_out, rng), policy, rng)
    mlm, sbo, floor = question_losses(model, language, corrupted, labels)
    asked = labels != IGNORE
    return TrainedSpans(model, curve, compare(mlm, floor, asked), compare(sbo, floor, asked))


def hide_one_span(input_ids: Tensor, length: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Hide one span of a given length in each sequence, with a visible word before and after it.

    Args:
        input_ids: x (B, S).
        length: words in the span.
        rng: draws where it begins, each possible place with the same probability.

    Returns:
        x̄ and labels, both (B, S).

    Raises:
        UserError: a sequence has no sentence that is long enough.
    """
    S = input_ids.shape[1]
    word = is_word(input_ids)
    room = word.unfold(1, length + 2, 1).all(2) if length + 2 <= S else word[:, :0]  # (B, places)
    if not bool(room.any(1).all()):
        raise UserError(f"a span of {length} with a word on each side needs a sentence of {length + 2} words")
    start = torch.from_numpy(rng.random(room.shape)).masked_fill(~room, -1.0).argmax(1)[:, None] + 1  # (B, 1)
    at = torch.arange(S)
    hidden = (at >= start) & (at < start + length)  # (B, S)
    return torch.where(hidden, MASK_ID, input_ids), torch.where(hidden, input_ids, IGNORE)


def losses_by_place(
    model: SpanBert, language: Language, length: int, rng: np.random.Generator, documents: int = 1024
) -> list[tuple[Comparison, Comparison]]:
    """Loss of each place of a span of a given length beside its floor: (MLM head, SBO head) for places 1 … length.

    Args:
        model: in evaluation mode.
        language: documents are drawn from it.
        length: words in the span; one span per document, with a visible word on each side.
        rng: draws documents and spans.
        documents: how many.
    """
    corrupted, labels = hide_one_span(draw_documents(language, documents, rng), length, rng)
    asked = labels != IGNORE
    rows = [losses[asked].view(documents, length) for losses in question_losses(model, language, corrupted, labels)]
    mlm, sbo, floor = (row[:, :, None] for row in rows)  # (B, length, 1)
    once = torch.ones(documents, 1, dtype=torch.bool)
    return [(compare(mlm[:, j], floor[:, j], once), compare(sbo[:, j], floor[:, j], once)) for j in range(length)]
