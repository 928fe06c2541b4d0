"""Functions to write on what other models read: the decoder's input and target, replaced tokens and their labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlmkit.grading.plain import Torch
from mlmkit.grading.tasks import CodeTask, Mistake

# 15.4 What the decoder reads and writes


Example = tuple[Tensor, Tensor, Tensor]


def decoder_example(words: Tensor, cls_id: int, sep_id: int) -> Example:
    """Input, target and causal mask of a decoder that writes some words."""
    inputs = torch.cat([torch.tensor([cls_id]), words])
    targets = torch.cat([words, torch.tensor([sep_id])])
    return inputs, targets, torch.full((len(inputs), len(inputs)), -math.inf).triu(1)


def _changed(change: Callable[[Tensor, Tensor, Tensor], Example]) -> Callable[..., Example]:
    """The solution with something changed in what it returns."""
    return lambda words, cls_id, sep_id: change(*decoder_example(words, cls_id, sep_id))


def _draw_decoder(rng: np.random.Generator) -> dict[str, Any]:
    cls_id, sep_id = (int(i) for i in rng.permutation(5)[:2])
    return {"words": Torch(rng.integers(5, 90, int(rng.integers(1, 8)))), "cls_id": cls_id, "sep_id": sep_id}


DECODER = CodeTask(
    id="15.4",
    title="What the decoder reads and writes",
    points=4,
    concepts=("C19",),
    function="decoder_example",
    reference=decoder_example,
    draw=_draw_decoder,
    edges=(
        {"words": Torch(np.array([8, 9])), "cls_id": 2, "sep_id": 3},
        {"words": Torch(np.array([7])), "cls_id": 2, "sep_id": 3},
        {"words": Torch(np.array([6, 6, 6])), "cls_id": 1, "sep_id": 4},
    ),
    mistakes=(
        Mistake(
            "no shift",
            _changed(lambda x, y, mask: (y, y, mask)),
            "input and target are the same sequence: the decoder reads the word it has to name. The loss falls "
            "through its floor, and the model cannot write. Shift the input by one, with [CLS] in front",
        ),
        Mistake(
            "the end is not asked for",
            lambda words, cls_id, sep_id: decoder_example(words[:-1], cls_id, int(words[-1])),
            "the target ends with the last word: nobody asks for the end, and the model would never stop writing",
        ),
        Mistake(
            "no mask",
            _changed(lambda x, y, mask: (x, y, torch.zeros_like(mask))),
            "your mask is 0 everywhere: every step reads the words it shall write from the later inputs",
        ),
        Mistake(
            "itself hidden",
            _changed(lambda x, y, mask: (x, y, torch.full_like(mask, -math.inf).triu())),
            "your mask hides the diagonal too: step 0 could read nothing at all. Because of the shift a step may read "
            "its own input, which is the word before the one it names",
        ),
        Mistake(
            "the future",
            _changed(lambda x, y, mask: (x, y, mask.T)),
            "your mask is turned around: each step reads what comes after it. The row is the step, the column what it "
            "reads",
        ),
        Mistake(
            "exchanged",
            _changed(lambda x, y, mask: (y, x, mask)),
            "input and target are exchanged: the input begins with [CLS], the target ends with [SEP]",
        ),
    ),
    hints=(
        "Input and target are the same sentence, shifted by one place. Both have one entry more than there are words.",
        "Input: [CLS] and the words. Target: the words and [SEP]. Mask: −∞ where the column is greater than the row.",
        "`torch.full((T, T), -math.inf).triu(1)` keeps −∞ above the diagonal; `torch.cat` joins ids.",
    ),
)


# 15.6 Original or replaced


Labeled = tuple[Tensor, Tensor]


def rtd_batch(ids: Tensor, selected: Tensor, drawn: Tensor) -> Labeled:
    """What the discriminator reads, and where it differs from the original."""
    seen = ids.masked_scatter(selected, drawn)
    return seen, seen != ids


def _in_place(ids: Tensor, selected: Tensor, drawn: Tensor) -> Labeled:
    seen = ids
    seen[selected] = drawn
    return seen, seen != ids


def _judged(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Labeled]:
    """The solution with other labels, made of x, x̂ and the selection."""

    def answer(ids: Tensor, selected: Tensor, drawn: Tensor) -> Labeled:
        seen, _ = rtd_batch(ids, selected, drawn)
        return seen, change(ids, seen, selected)

    return answer


def _drawn(ids: Any, selected: Any, drawn: Any) -> dict[str, Any]:
    """Nested lists or arrays as tensors."""
    return {
        "ids": Torch(np.array(ids)),
        "selected": Torch(np.array(selected, dtype=bool)),
        "drawn": Torch(np.array(drawn, dtype=np.int64)),
    }


def _draw_replaced(rng: np.random.Generator) -> dict[str, Any]:
    ids = rng.integers(5, 12, (int(rng.integers(1, 4)), int(rng.integers(3, 10))))
    selected = rng.random(ids.shape) < rng.choice([0.2, 0.5])
    selected[0, 1] = True
    right = rng.random(int(selected.sum())) < 0.5
    return _drawn(ids, selected, np.where(right, ids[selected], rng.integers(5, 12, len(right))))


REPLACED = CodeTask(
    id="15.6",
    title="Original or replaced",
    points=4,
    concepts=("C20",),
    function="rtd_batch",
    reference=rtd_batch,
    draw=_draw_replaced,
    edges=(
        _drawn([[5, 6, 7]], [[0, 1, 1]], [6, 8]),
        _drawn([[5, 6, 7], [8, 9, 5]], [[1, 0, 1], [0, 1, 0]], [5, 7, 9]),
        _drawn([[5, 6], [7, 8]], [[1, 1], [1, 1]], [6, 5, 8, 7]),
    ),
    mistakes=(
        Mistake(
            "masked is replaced",
            _judged(lambda x, seen, selected: selected),
            "you label every masked position as replaced. Where the generator drew the true word, the original stands "
            "there: nobody could see a difference, and the label is original",
        ),
        Mistake(
            "x itself overwritten",
            _in_place,
            "nothing is ever replaced in your labels: you wrote the draws into `ids` itself and then compared it with "
            "itself. Make a copy first",
        ),
        Mistake(
            "the other way round",
            _judged(lambda x, seen, selected: seen == x),
            "your labels are turned around: 1 stands for replaced, 0 for original",
        ),
        Mistake(
            "only the masked ones asked",
            _judged(lambda x, seen, selected: torch.where(selected, (seen != x).long(), -100)),
            "you leave out what was not masked: the discriminator sees and judges every position",
        ),
        Mistake(
            "drawn right is replaced",
            _judged(lambda x, seen, selected: selected & (seen == x)),
            "you label as replaced what was masked and drawn right; that is the one case in which a masked word is "
            "original",
        ),
    ),
    hints=(
        "Two steps: put the draws in, then compare with x.",
        "Copy `ids` before you write into it; `copy[selected] = drawn` fills the places in reading order.",
        "The label is not the selection. It is one comparison of x̂ with `ids`.",
    ),
)
