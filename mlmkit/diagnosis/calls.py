"""One call of the model in anyone's loop: what it was given, what the batch says, and what came out.

Shapes: B batch, S sequence, V vocabulary, N rows of MLM logits (B·S, or M at the selected positions).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlmkit.losses import mlm_loss, nsp_loss
from mlmkit.masking import IGNORE

MLM_LOGITS = ("mlm_logits", "prediction_logits", "logits")
NSP_LOGITS = ("nsp_logits", "seq_relationship_logits")
"""Names of the logits in our output and in those of `transformers`."""


@dataclass(frozen=True)
class Call:
    """A forward pass.

    Attributes:
        ids: what the model read (B, S).
        attention_mask, token_type_ids: what it was given with it (B, S), or None.
        mlm, nsp: logits (…, V) and (B, 2), or None; detached, so that they do not keep the graph alive.
        labels: (B, S), or None.
        row_ids, row_labels: token and label behind each row of the MLM logits (N,), or None if they do not match.
        relation: NSP labels (B,), or None.
    """

    ids: Tensor
    attention_mask: Tensor | None
    token_type_ids: Tensor | None
    mlm: Tensor | None
    nsp: Tensor | None
    labels: Tensor | None
    row_ids: Tensor | None
    row_labels: Tensor | None
    relation: Tensor | None

    def reference_losses(self) -> dict[str, Tensor]:
        """Both losses as they should be taken, in nats; without that of which logits or labels are missing."""
        losses = {}
        with torch.no_grad():
            if self.mlm is not None and self.row_labels is not None and bool((self.row_labels != IGNORE).any()):
                logits = self.mlm.reshape(-1, self.mlm.shape[-1])  # (N, V)
                losses["mlm"] = mlm_loss(logits[self.row_labels != IGNORE], self.row_labels[self.row_labels != IGNORE])
            if self.nsp is not None and self.relation is not None:
                losses["nsp"] = nsp_loss(self.nsp, self.relation)
        return losses

    def as_batch(self) -> dict[str, Tensor | None]:
        """What the model was given, with its labels: for loops whose batches are not handed through `watch`."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
            "labels": self.labels,
            "next_sentence_label": self.relation,
        }


def read_heads(output: Any) -> tuple[Tensor | None, Tensor | None]:
    """Find MLM and NSP logits by the names they have in a model's output."""

    def named(names: tuple[str, ...]) -> Tensor | None:
        for name in names:
            found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
            if isinstance(found, Tensor):
                return found
        return None

    return named(MLM_LOGITS), named(NSP_LOGITS)


def read_call(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    output: Any,
    batch: Mapping[str, Any],
    ignored_label: int | None,
) -> Call | None:
    """Match the arguments and the output of a call with the batch that the loop is working on.

    Labels are taken from the call if it has some, else from the batch; the batch may be larger than the call (a loop
    that cuts it up), and then its labels are of no use.

    Args:
        module: the model, without wrappers.
        args, kwargs: of its forward.
        output: what it returned.
        batch: the one handed through by `watch`, or empty.
        ignored_label: a label that means the same as −100 in this loop.

    Returns:
        None if the model was given no ids.
    """
    given = _bind(module, args, kwargs)
    ids = given.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        return None

    def fitting(name: str, shape: torch.Size) -> Tensor | None:
        for place in (given, batch):
            values = place.get(name)
            if values is not None and tuple(values.shape) == shape:
                return torch.as_tensor(values).to(ids.device).long()
        return None

    mlm, nsp = (head if head is None else head.detach() for head in read_heads(output))
    labels, relation = fitting("labels", ids.shape), fitting("next_sentence_label", ids.shape[:1])
    if labels is not None and ignored_label is not None:
        labels = labels.masked_fill(labels == ignored_label, IGNORE)
    rows = match_rows(mlm, ids, labels, given.get("selected")) if mlm is not None and labels is not None else None
    row_ids, row_labels = rows or (None, None)
    return Call(
        ids, given.get("attention_mask"), given.get("token_type_ids"), mlm, nsp, labels, row_ids, row_labels, relation
    )


def _bind(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a forward pass by their names; a single dictionary counts as named arguments."""
    if len(args) == 1 and isinstance(args[0], Mapping):
        return {**args[0], **kwargs}
    try:
        return {**inspect.signature(module.forward).bind_partial(*args).arguments, **kwargs}
    except TypeError:  # more arguments than the signature shows
        return dict(kwargs)


def match_rows(logits: Tensor, ids: Tensor, labels: Tensor, selected: Any) -> tuple[Tensor, Tensor] | None:
    """Give the token and the label behind each row of the MLM logits, or None if they cannot be matched.

    Args:
        logits: (B, S, V), or (M, V) at `selected`.
        ids: what the model read (B, S).
        labels: (B, S).
        selected: positions handed to the model (B, S), boolean, or None.

    Returns:
        Two vectors (N,).
    """
    if logits.shape[:-1] in (ids.shape, (ids.numel(),)):
        return ids.flatten(), labels.flatten()
    if not isinstance(selected, Tensor) or selected.shape != ids.shape:
        selected = labels != IGNORE  # picked by the labels themselves
    selected = selected.bool()
    if logits.shape[:-1] == (int(selected.sum()),):
        return ids[selected], labels[selected]
    return None
