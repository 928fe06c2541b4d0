"""Functions of the heads to write: what they read, and what the sentence relation costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlmkit.grading.plain import Torch
from mlmkit.grading.sets.encoder_layer_code import SINGLE, tensor
from mlmkit.grading.tasks import CodeTask, Mistake
from mlmkit.losses import nsp_loss

# 10.4 The average of the real positions


def _draw_average(rng: np.random.Generator) -> dict[str, Any]:
    sequences, length, size = (int(n) for n in rng.permutation(np.arange(2, 7))[:3])
    real = np.arange(length) < rng.integers(1, length + 1, (sequences, 1))
    return {"h": tensor(rng, sequences, length, size), "attention_mask": Torch(real.astype(np.int64))}


def _edge_average(lengths: list[int]) -> dict[str, Any]:
    S = max(lengths) + 1
    h = np.arange(len(lengths) * S * 2, dtype=np.float32).reshape(len(lengths), S, 2)
    real = np.arange(S) < np.array(lengths)[:, None]
    return {"h": Torch(h), "attention_mask": Torch(real.astype(np.int64))}


AVERAGE = CodeTask(
    id="10.4",
    title="The average instead of [CLS]",
    points=3,
    concepts=("C24",),
    function="average_real",
    reference=lambda h, attention_mask: torch.stack(
        [x[m.bool()].mean(0) for x, m in zip(h, attention_mask, strict=True)]
    ),
    draw=_draw_average,
    edges=(_edge_average([3]), _edge_average([1, 4, 2])),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "padding too",
            lambda h, attention_mask: h.mean(1),
            "your average runs over padding as well, so that the answer for a pair changes with its company in the "
            "batch",
        ),
        Mistake(
            "divided by S",
            lambda h, attention_mask: (h * attention_mask[:, :, None]).mean(1),
            "padding adds nothing to your sum, but you divide by S; divide by the number of real positions",
        ),
        Mistake(
            "one count for the batch",
            lambda h, attention_mask: (h * attention_mask[:, :, None]).sum(1) * len(h) / attention_mask.sum(),
            "you divide by the mean number of real positions in the batch; each sequence has a number of its own",
        ),
        Mistake(
            "[CLS] only",
            lambda h, attention_mask: h[:, 0],
            "this is the hidden state of [CLS], as BERT reads it; the task asks for the average of all real positions",
        ),
        Mistake(
            "one vector for the batch",
            lambda h, attention_mask: h[attention_mask.bool()].mean(0).expand(len(h), -1),
            "you average over all sequences of the batch; each has a vector of its own",
        ),
    ),
    hints=(
        "A sum over the real positions, divided by how many there are, for each sequence.",
        "Multiplied with a mask of 0 and 1, padding adds nothing: the mask needs a third axis, `attention_mask[:, :, "
        "None]`.",
        "`(h * mask).sum(1)` is the sum, (B, H); `mask.sum(1)` is how many, (B, 1).",
    ),
)

# 10.8 The scores at the selected positions


def _draw_scores(rng: np.random.Generator) -> dict[str, Any]:
    sequences, length, size, vocabulary = (int(n) for n in rng.permutation(np.arange(2, 9))[:4])
    selected = rng.random((sequences, length)) < 0.3
    selected[:, 0] = False
    selected[int(rng.integers(sequences)), int(rng.integers(1, length))] = True
    return {
        "e": tensor(rng, sequences, length, size),
        "h": tensor(rng, sequences, length, size),
        "selected": Torch(selected),
        "E": tensor(rng, vocabulary, size),
        "b": tensor(rng, vocabulary),
    }


def _of_cls(e: Tensor, h: Tensor, selected: Tensor, E: Tensor, b: Tensor) -> Tensor:
    return h[:, :1].expand_as(h)[selected] @ E.T + b


SCORES = CodeTask(
    id="10.8",
    title="Scores at the selected positions",
    points=4,
    concepts=("C21", "C10"),
    function="masked_scores",
    reference=lambda e, h, selected, E, b: h[selected] @ E.T + b,
    draw=_draw_scores,
    edges=tuple(_draw_scores(np.random.default_rng(seed)) for seed in range(3)),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "reads the embedding",
            lambda e, h, selected, E, b: e[selected] @ E.T + b,
            "you read the embedding, what goes into the encoder. At a blank that is the vector of [MASK] and its "
            "place, the same in every sentence; read the hidden state, what comes out there",
        ),
        Mistake(
            "reads [CLS]",
            _of_cls,
            "you read the hidden state of [CLS] for each blank: all blanks of a sentence get the same answer. Read the "
            "hidden state at the blank itself",
        ),
        Mistake(
            "every position",
            lambda e, h, selected, E, b: h @ E.T + b,
            "you score every position, selected or not: about seven times the work at a rate of 15 %",
        ),
        Mistake(
            "zeros in the input",
            lambda e, h, selected, E, b: (h * selected[:, :, None]) @ E.T + b,
            "you set the other hidden states to 0, but still multiply all of them with the table; pick the rows first",
        ),
        Mistake(
            "no bias",
            lambda e, h, selected, E, b: h[selected] @ E.T,
            "the bias is missing: each token has a number of its own that speaks for it in any context",
        ),
        Mistake(
            "probabilities",
            lambda e, h, selected, E, b: (h[selected] @ E.T + b).softmax(-1),
            "these are probabilities; asked are the scores before the softmax, as the loss takes them",
        ),
    ),
    hints=(
        "One of `e` and `h` has seen the rest of the sentence; the other is not needed here.",
        "A boolean array as an index picks rows: `h[selected]` has the shape (M, H), in the order of the text.",
        "The score of token v is the dot product with row v of `E`, for all tokens at once `… @ E.T`, plus `b`.",
    ),
)

# 10.9 The loss of the sentence relation


def _draw_nsp(rng: np.random.Generator) -> dict[str, Any]:
    sequences, length, size = (int(n) for n in rng.permutation(np.arange(2, 7))[:3])
    labels = rng.integers(0, 2, sequences)
    labels[:2] = rng.permutation([0, 1])
    return {
        "h": tensor(rng, sequences, length, size),
        "W_2": tensor(rng, size, size),
        "w_2": tensor(rng, size),
        "W_3": tensor(rng, 2, size),
        "w_3": tensor(rng, 2),
        "labels": Torch(labels),
    }


def _relation(read: Tensor, W_2: Tensor, w_2: Tensor, W_3: Tensor, w_3: Tensor) -> Tensor:
    return torch.tanh(read @ W_2.T + w_2) @ W_3.T + w_3


def _each_position(h: Tensor, labels: Tensor, *weights: Tensor) -> Tensor:
    scores = _relation(h, *weights)
    return F.cross_entropy(scores.flatten(0, 1), labels.repeat_interleave(h.shape[1]))


NSP = CodeTask(
    id="10.9",
    title="The loss of the sentence relation",
    points=4,
    concepts=("C24",),
    function="nsp_loss",
    reference=lambda h, W_2, w_2, W_3, w_3, labels: nsp_loss(_relation(h[:, 0], W_2, w_2, W_3, w_3), labels),
    draw=_draw_nsp,
    edges=tuple(_draw_nsp(np.random.default_rng(seed)) for seed in range(2)),
    tolerance=SINGLE,
    mistakes=(
        Mistake(
            "every position answers",
            lambda h, W_2, w_2, W_3, w_3, labels: _each_position(h, labels, W_2, w_2, W_3, w_3),
            "you let every position answer, and average over B·S answers. A pair has one answer, read from position "
            "0, and the mean is over the B pairs",
        ),
        Mistake(
            "mean over positions",
            lambda h, W_2, w_2, W_3, w_3, labels: F.cross_entropy(_relation(h.mean(1), W_2, w_2, W_3, w_3), labels),
            "you read the mean of all hidden states; BERT reads the one of [CLS], position 0, which has read the "
            "others",
        ),
        Mistake(
            "the last position",
            lambda h, W_2, w_2, W_3, w_3, labels: F.cross_entropy(_relation(h[:, -1], W_2, w_2, W_3, w_3), labels),
            "you read the last position; [CLS] stands at position 0",
        ),
        Mistake(
            "no tanh",
            lambda h, W_2, w_2, W_3, w_3, labels: F.cross_entropy((h[:, 0] @ W_2.T + w_2) @ W_3.T + w_3, labels),
            "the tanh of the pooler is missing: without it the two matrices are one",
        ),
        Mistake(
            "a sum",
            lambda h, W_2, w_2, W_3, w_3, labels: F.cross_entropy(
                _relation(h[:, 0], W_2, w_2, W_3, w_3), labels, reduction="sum"
            ),
            "this is the sum over the pairs; the loss is their mean, so that it does not grow with the batch",
        ),
        Mistake(
            "0 is ignored",
            lambda h, W_2, w_2, W_3, w_3, labels: F.cross_entropy(
                _relation(h[:, 0], W_2, w_2, W_3, w_3), labels, ignore_index=0
            ),
            "you ignore the label 0. Here 0 is no filling: it says that B follows A, and these pairs count as well",
        ),
        Mistake(
            "labels swapped",
            lambda h, W_2, w_2, W_3, w_3, labels: F.cross_entropy(_relation(h[:, 0], W_2, w_2, W_3, w_3), 1 - labels),
            'your labels are swapped: score 0 stands for "B follows A", which is the label 0',
        ),
    ),
    hints=(
        "Only one of the S hidden states of a pair is read.",
        "`h[:, 0]` is (B, H). Then a matrix with bias, tanh, a matrix with bias: (B, 2).",
        "`F.cross_entropy(scores, labels)` is the mean of −log Pr(c) over the pairs; both matrices stand transposed, "
        "`.T`.",
    ),
)
