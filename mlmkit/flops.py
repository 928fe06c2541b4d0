"""How much arithmetic a forward pass and an update take: the useful floating-point operations, counted by formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from mlmkit.config import ModelConfig
from mlmkit.errors import UserError


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of the matrix products, by part; `total` is their sum.

    The embeddings have no field: looking up a row multiplies nothing. Biases, activations, softmax and layer norms
    take less than a hundredth of the work at BERT's sizes and are left out, as is usual.

    Attributes:
        attention_projections: inputs → queries, keys, values, and mixed values → output.
        attention_scores: queries times keys, and weights times values.
        feed_forward: up to the inner size and down again.
        mlm_head: the dense layer and the decoder over the vocabulary.
        nsp_head: the pooler and the two scores of the sentence relation.
    """

    attention_projections: float
    attention_scores: float
    feed_forward: float
    mlm_head: float
    nsp_head: float

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(getattr(self, part.name) for part in fields(self))


def forward_flops(config: ModelConfig, lengths: Sequence[float], selected: Sequence[float] | None = None) -> Flops:
    """Count the useful operations of one forward pass of `BertForPreTraining`.

    A product of matrices (m, k) and (k, n) takes 2·m·k·n: one multiplication and one addition for each pair of
    numbers that meet. A layer in which r positions of a sequence ask and n are read takes

        projections  2H²·(2n + 2r)     queries and outputs at r positions, keys and values at n
        scores       4H·r·n            queries times keys, weights times values
        feed-forward 4HF·r

    In every layer but the last r = n. The last one is computed only where it is read out: r = 1 + m, that is [CLS]
    and the m selected positions, for which the MLM head then takes 2H² + 2HV each. The NSP head takes 2H² + 4H for a
    sequence. Padding and the positions that fill up a batch are not useful and do not count. (Kaplan et al. 2020,
    §2.1, count the same products for a decoder; that only what the model needs should count, and not all that a
    program does, is Chowdhery et al. 2022, appendix B.)

    Args:
        config: sizes of the network.
        lengths: real tokens of each sequence, [CLS] and [SEP] included (B,).
        selected: selected positions of each sequence (B,); None: scores are computed at all positions, as by a
            forward pass without `selected`.

    >>> tiny = ModelConfig(vocab_size=10, hidden_size=4, num_hidden_layers=1, intermediate_size=8)
    >>> forward_flops(tiny, lengths=[6], selected=[1])
    Flops(attention_projections=512, attention_scores=192, feed_forward=256, mlm_head=112, nsp_head=48)
    """
    H, F, V, L = config.hidden_size, config.intermediate_size, config.vocab_size, config.num_hidden_layers
    if selected is not None and len(selected) != len(lengths):
        raise UserError(f"one count of selected positions for each length: got {len(selected)} for {len(lengths)}")
    predicted = lengths if selected is None else selected
    read = lengths if selected is None else [1 + m for m in selected]
    tokens, asked = sum(lengths), sum(read)
    pairs = (L - 1) * sum(n * n for n in lengths) + sum(r * n for r, n in zip(read, lengths, strict=True))
    return Flops(
        attention_projections=2 * H * H * ((L - 1) * 4 * tokens + 2 * tokens + 2 * asked),
        attention_scores=4 * H * pairs,
        feed_forward=4 * H * F * ((L - 1) * tokens + asked),
        mlm_head=2 * H * (H + V) * sum(predicted),
        nsp_head=2 * H * (H + 2) * len(lengths),
    )


def training_flops(config: ModelConfig, lengths: Sequence[float], selected: Sequence[float] | None = None) -> Flops:
    """Count the useful operations of one update: three times those of its forward pass.

    The backward pass of a product Y = X W is two products of the same size, for the gradients of X and of W. What the
    optimizer does is left out: it grows with the number of weights, not with the number of tokens.

    Args:
        config, lengths, selected: as in `forward_flops`.
    """
    forward = forward_flops(config, lengths, selected)
    return Flops(**{part.name: 3 * getattr(forward, part.name) for part in fields(forward)})


def utilization(flops: float, seconds: float, peak: float) -> float:
    """Model FLOPs utilization, MFU = flops / (seconds · peak) (Chowdhery et al. 2022, appendix B).

    Args:
        flops: useful operations that were done.
        seconds: wall-clock time that they took.
        peak: operations in a second that the device can do at best in this precision; of all devices together, if
            several worked.

    Raises:
        UserError: a time or a peak that is not positive.

    >>> utilization(flops=3e12, seconds=0.1, peak=100e12)
    0.3
    """
    for name, value in (("seconds", seconds), ("peak", peak)):
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} must be positive, got {value:g}")
    return flops / (seconds * peak)
