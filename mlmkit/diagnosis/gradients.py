"""Read a forward pass and the gradients at its logits: what the model sees, what the loss asks for, and of whom.

The gradient of −log softmax(z)_y with respect to z is softmax(z) − onehot(y): its only negative entry is at y. So a row
of the gradient says whether the loss looks at this position at all, and which token it wants there.

Shapes: N positions with logits, V vocabulary, B pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlmkit.diagnosis.calls import Call
from mlmkit.diagnosis.evidence import Pass
from mlmkit.diagnosis.rows import Specials
from mlmkit.masking import IGNORE

NEGLIGIBLE = 1e-4
"""A pair whose relation is known so surely may lose its gradient to rounding: it says nothing about the loss."""


def look(call: Call, step: int, specials: Specials) -> Pass:
    """Count what a call shows before its gradient comes: visible padding, pairs, and whether segments tell them apart.

    Args:
        call: arguments and output of a forward pass.
        step: optimizer steps made before it.
        specials: ids of the special tokens.
    """
    padding = _at_the_ends(call.ids == specials.pad)  # (B, S)
    mask, segments = call.attention_mask, call.token_type_ids
    if mask is None:
        visible = padding
    elif mask.shape == call.ids.shape:
        visible = padding & mask.bool()
    else:  # a mask of each query by itself: what it hides cannot be said in one number per position
        visible = torch.zeros_like(padding)
    pairs = ((call.ids == specials.sep).sum(-1) >= 2) & (call.relation is not None)  # (B,)
    told = (segments != 0).any(-1) if segments is not None else torch.zeros_like(pairs)
    return Pass(
        step=step,
        padding=int(padding.sum()),
        visible_padding=int(visible.sum()),
        pairs_read=int(pairs.sum()),
        pairs_told_apart=int((pairs & told).sum()),
    )


def _at_the_ends(padding: Tensor) -> Tensor:
    """Padding before the first or after the last real token of a row; inside it, [PAD] is a replaced word."""
    before = padding.int().cumprod(-1)
    after = padding.int().flip(-1).cumprod(-1).flip(-1)
    return (before + after) > 0


def read_mlm(seen: Pass, gradient: Tensor, ids: Tensor, labels: Tensor, pad_id: int) -> None:
    """Note where the gradient of the MLM loss arrives, and which token it asks for.

    Args:
        seen: the pass to note it in.
        gradient: at the MLM logits (N, V).
        ids: what the model read there (N,).
        labels: (N,), −100 where no loss is due.
        pad_id: id of [PAD].
    """
    mass = gradient.float().abs().sum(-1)  # (N,)
    due = labels != IGNORE
    reached = ~due & (mass > 0)
    seen.unlabeled, seen.reached = int((~due).sum()), int(reached.sum())
    seen.reached_share = float(mass[reached].sum() / mass.sum()) if seen.reached else 0.0
    telling = reached & (ids != pad_id)  # at [PAD] a loss on all positions and a filler ask for the same
    asked = gradient[telling].argmin(-1)
    other = asked[asked != ids[telling]]
    seen.toward_own, seen.toward_other = len(asked) - len(other), len(other)
    if len(other):
        tokens, counts = other.unique(return_counts=True)
        seen.other_token = int(tokens[counts.argmax()])
        seen.other_share = float(counts.max()) / len(other)


def ignores(gradient: Tensor, labels: Tensor, label: int) -> bool:
    """Tell whether a loss takes no notice of a label that is not −100, while it does of the others.

    Args:
        gradient: at the MLM logits (N, V).
        labels: (N,).
        label: the one in question.
    """
    mass = gradient.abs().sum(-1)  # (N,)
    others = (labels != IGNORE) & (labels != label)
    return bool((labels == label).any() and others.any() and (mass[labels == label] == 0).all() and mass[others].any())


def read_nsp(seen: Pass, gradient: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Count, for each label, the pairs that the NSP loss should learn from and those it is silent about.

    Args:
        seen: the pass to note it in.
        gradient: at the NSP logits (B, 2).
        logits: (B, 2).
        labels: 0 or 1 (B,).
    """
    p_true = logits.detach().double().softmax(-1).gather(1, labels[:, None])[:, 0]  # (B,)
    open_ = 1 - p_true > NEGLIGIBLE
    silent = open_ & (gradient.abs().sum(-1) == 0)
    seen.pairs = int((open_ & (labels == 0)).sum()), int((open_ & (labels == 1)).sum())
    seen.silent_pairs = int((silent & (labels == 0)).sum()), int((silent & (labels == 1)).sum())


def norm_of(optimizer: torch.optim.Optimizer) -> float:
    """Norm of all gradients that lie in the optimizer's parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return float(sum(p.grad.float().square().sum() for p in parameters)) ** 0.5
