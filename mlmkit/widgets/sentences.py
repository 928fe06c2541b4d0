"""What was typed, as the model will read it: cut into tokens once, before anything is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlmkit.errors import UserError
from mlmkit.masking import candidates
from mlmkit.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sentence:
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, position by position.

    Attributes:
        ids: x (S,).
        segments: 0 for A, 1 for B (S,).
        tokens: the pieces as they are printed (S,).
        maskable: true for ordinary tokens: no special token, nothing unknown (S,).
        note: what the reader should know about it, or "".
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    tokens: tuple[str, ...]
    maskable: tuple[bool, ...]
    note: str = ""

    @property
    def ordinary(self) -> list[int]:
        """Positions that may be hidden."""
        return [position for position, may_be_hidden in enumerate(self.maskable) if may_be_hidden]


def as_read(tokenizer: Tokenizer, a: str, b: str | None = None, limit: int | None = None) -> Sentence:
    """Cut a text, or a pair of texts, into the tokens that a model reads.

    Args:
        tokenizer: of the model.
        a: first text; a [MASK] in it stays one.
        b: second text; an empty one is none.
        limit: most tokens that the model can read, [CLS] and [SEP] included.

    Raises:
        UserError: there is no token, or there are too many.

    >>> from mlmkit.tokenizer import word_tokenizer
    >>> as_read(word_tokenizer(["cat", "mat"]), "cat mat").tokens
    ('[CLS]', 'cat', 'mat', '[SEP]')
    """
    ids, segments = tokenizer.pair_ids(a, b if b and b.strip() else None)
    if set(ids) <= {tokenizer.cls_id, tokenizer.sep_id}:
        raise UserError("there is no text: type some words")
    if limit is not None and len(ids) > limit:
        raise UserError(f"{len(ids)} tokens with [CLS] and [SEP] are too many: at most {limit} can be read; type less")
    unknown = ids.count(tokenizer.unk_id)
    note = f"not in this vocabulary: {unknown} of the words, read as [UNK] and never hidden" if unknown else ""
    return Sentence(
        ids=tuple(ids),
        segments=tuple(segments),
        tokens=tuple(tokenizer.tokens(ids)),
        maskable=tuple(candidates(np.array(ids), tokenizer.special_ids).tolist()),
        note=note,
    )
