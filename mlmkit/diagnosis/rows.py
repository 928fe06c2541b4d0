"""The rows of anyone's batches as plain arrays, and the ids that a tokenizer gives to the special tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlmkit.errors import UserError
from mlmkit.masking import IGNORE
from mlmkit.tokenizer import Tokenizer

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
TWO_DIMENSIONAL = ("input_ids", "labels", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Specials:
    """The special ids of a vocabulary, and how many other tokens it has."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    ordinary: int

    @property
    def ids(self) -> list[int]:
        """All five."""
        return [self.pad, self.unk, self.cls, self.sep, self.mask]


def special_ids(tokenizer: Any) -> Specials:
    """Read the special ids of a tokenizer of ours or of `transformers`.

    Raises:
        UserError: one of the five is missing.
    """
    ours = isinstance(tokenizer, Tokenizer)
    found: dict[str, Any] = {
        name: getattr(tokenizer, f"{name}_id" if ours else f"{name}_token_id", None) for name in _NAMES
    }
    missing = [f"[{name.upper()}]" for name, value in found.items() if value is None]
    if missing:
        raise UserError(
            f"the tokenizer names no {', '.join(missing)}: give one of mlmkit or a BERT tokenizer of transformers"
        )
    total = tokenizer.vocab_size if ours else len(tokenizer)
    return Specials(**found, ordinary=total - len(_NAMES))


_NAMES = tuple(field.name for field in fields(Specials) if field.name != "ordinary")


@dataclass(frozen=True)
class Rows:
    """The rows of some batches, one below the other, filled up to the longest with [PAD] that does not `exist`.

    Attributes:
        specials: ids of the special tokens.
        exists: false where a shorter batch was filled up (R, S).
        input_ids: x̄, the corrupted sequences (R, S).
        labels: true ids, −100 where no loss is taken (R, S); None where the batches have none, as for the rest.
        attention_mask: true where attention looks (R, S).
        token_type_ids: segments (R, S).
        next_sentence_label: 0 next, 1 random (R,).
    """

    specials: Specials
    exists: Bools
    input_ids: Ints
    labels: Ints | None
    attention_mask: Bools | None
    token_type_ids: Ints | None
    next_sentence_label: Ints | None

    @cached_property
    def targets(self) -> Ints:
        """The labels (R, S), −100 everywhere where the batches have none."""
        return np.full_like(self.input_ids, IGNORE) if self.labels is None else self.labels

    @cached_property
    def labeled(self) -> Bools:
        """Positions that have a label (R, S)."""
        return self.targets != IGNORE

    @cached_property
    def word_labels(self) -> Bools:
        """Positions whose label is an ordinary token (R, S)."""
        return (self.targets >= 0) & np.isin(self.targets, self.specials.ids, invert=True)

    @cached_property
    def true_ids(self) -> Ints:
        """What stood there before the corruption, as far as the labels tell: x (R, S)."""
        s = self.specials
        structure = np.isin(self.targets, (s.cls, s.sep))
        masked_padding = (self.targets == s.pad) & (self.input_ids == s.mask)  # elsewhere a 0 is a filler
        return np.where(self.word_labels | structure | masked_padding, self.targets, self.input_ids)

    def without_repetitions(self, *columns: Ints) -> Rows:
        """Keep the first of rows that agree in these columns: what was drawn once must be counted once."""
        _, first = np.unique(np.concatenate(columns, axis=1), axis=0, return_index=True)
        chosen = np.sort(first)
        names = [field.name for field in fields(self) if field.name != "specials"]
        parts: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(self, **{name: part[chosen] for name, part in parts.items() if part is not None})


def read_rows(batches: Mapping[str, Any] | Sequence[Mapping[str, Any]], specials: Specials) -> Rows:
    """Put batches together.

    Args:
        batches: one dictionary with Hugging Face's names, or several; tensors, arrays or lists.
        specials: from `special_ids`.

    Raises:
        UserError: there is no batch or no `input_ids`, the batches have different keys, or a shape or a type
            does not fit.
    """
    several = [batches] if isinstance(batches, Mapping) else list(batches)
    if not several:
        raise UserError("there is no batch to look at: give a dictionary with input_ids, or a list of them")
    read = [_read(batch, number) for number, batch in enumerate(several)]
    names = read[0].keys()
    for number, batch in enumerate(read):
        for name in names ^ batch.keys():
            raise UserError(
                f"batch {number} and batch 0 differ: only one of them has {name!r}; give batches of one kind"
            )
    longest = max(batch["input_ids"].shape[1] for batch in read)
    fill = {"input_ids": specials.pad, "labels": IGNORE, "attention_mask": 0, "token_type_ids": 0, "exists": 0}
    columns: dict[str, Any] = dict.fromkeys((*TWO_DIMENSIONAL, "next_sentence_label"))
    columns |= {
        name: np.concatenate([_widen(batch[name], longest, fill[name]) for batch in read])
        for name in (*TWO_DIMENSIONAL, "exists")
        if name in names
    }
    if "next_sentence_label" in names:
        columns["next_sentence_label"] = np.concatenate([batch["next_sentence_label"] for batch in read])
    return Rows(specials, **columns)


def _read(batch: Any, number: int) -> dict[str, NDArray[Any]]:
    """The known columns of a batch as arrays of integers and of truth values."""
    if not isinstance(batch, Mapping):
        raise UserError(f"batch {number} must be a dictionary with input_ids and labels, got {type(batch).__name__}")
    if "input_ids" not in batch:
        raise UserError(f"batch {number} has no input_ids, only {', '.join(map(str, batch)) or 'nothing'}")
    found = {name: _array(batch[name], name, number) for name in TWO_DIMENSIONAL if batch.get(name) is not None}
    shape = found["input_ids"].shape
    for name, array in found.items():
        if array.ndim != 2 or array.shape != shape or 0 in shape:
            wanted = f"{shape}, that of input_ids" if len(shape) == 2 and 0 not in shape else "(B, S)"
            raise UserError(f"batch {number}: {name} must have the shape {wanted}, got {array.shape}")
    if "attention_mask" in found:
        found["attention_mask"] = found["attention_mask"] != 0
    if batch.get("next_sentence_label") is not None:
        relation = _array(batch["next_sentence_label"], "next_sentence_label", number)
        if relation.shape not in ((shape[0],), (shape[0], 1)) or not np.isin(relation, (0, 1, IGNORE)).all():
            raise UserError(
                f"batch {number}: next_sentence_label must be 0 or 1 for each of the {shape[0]} rows, "
                f"got the shape {relation.shape} and the values {np.unique(relation)[:5].tolist()}"
            )
        found["next_sentence_label"] = relation.reshape(-1)
    return {**found, "exists": np.ones(shape, dtype=bool)}


def _array(values: Any, name: str, number: int) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError:
        raise UserError(f"batch {number}: the rows of {name} have different lengths; pad them") from None
    if array.dtype.kind not in ("iubf" if name == "attention_mask" else "iub"):
        raise UserError(f"batch {number}: {name} must hold whole numbers, got {array.dtype}")
    return array if array.dtype.kind == "f" else array.astype(np.int64)


def _widen(array: NDArray[Any], width: int, value: int) -> NDArray[Any]:
    """Add columns on the right."""
    return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=value)
