"""What a batch gives away: faults of labels, masks, padding, segments and pairs.

Every check looks at numbers only: the corrupted ids x̄, the labels, the attention mask, the segments, the relation.
Some faults show in one position that cannot come about otherwise; the others are counts, and a count becomes a
finding when chance explains it less than once in a million (`chance`). What was drawn once and shown again, as in
the second epoch of a small corpus, is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlmkit.corpus import Corpus
from mlmkit.diagnosis.chance import FALSE_ALARM, needed, surprising, surprising_together
from mlmkit.diagnosis.documents import pairs_from_one_document
from mlmkit.diagnosis.findings import Diagnosis, Finding, check, found, merge
from mlmkit.diagnosis.rows import Bools, Rows, read_rows, special_ids
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.pairs import IS_RANDOM

BERT = MaskingPolicy()
NO_LABELS = "no position has a label"
NO_RELATION = "the batch has no next_sentence_label"
HIT = 0.2
"""Share of random replacements that may be the true token: with words as frequent as in text it is far less."""
SPECIAL_DRAWS = 0.001
"""Share of special tokens among random replacements that is let pass: a draw from all of 30,522 ids has 0.0002."""
REPETITIONS = 1000
"""So many sequences that come twice are compared at most."""
IMBALANCE, CONSTANT = 0.6, 0.9
"""Share of the more frequent relation that chance and BERT's own script explain, and from which it is a fault."""


def diagnose_batch(
    batches: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    tokenizer: Any,
    policy: MaskingPolicy = BERT,
    corpus: Corpus | None = None,
) -> Diagnosis:
    """Look for faults in one batch, or in a list of batches, of anyone's pipeline.

    A healthy batch raises a false alarm at most once in a million, in each check. A batch without
    `attention_mask` or `token_type_ids` is taken as the model would take it: everything visible, all segments 0.

    Args:
        batches: dictionaries with Hugging Face's names: `input_ids`, `labels`, `attention_mask`,
            `token_type_ids` (B, S) and `next_sentence_label` (B,); tensors, arrays or lists. Batches of two epochs
            show whether the masks are drawn anew.
        tokenizer: ours, or a BERT tokenizer of `transformers`.
        policy: how the pipeline means to mask.
        corpus: the documents that the batches were made from; shows where second sentences come from.

    Returns:
        Findings, what was looked for, and what could not be looked for and why.

    Raises:
        UserError: a shape or a type does not fit, or the tokenizer lacks a special token.
    """
    rows = read_rows(batches, special_ids(tokenizer))
    drawn = rows.without_repetitions(rows.input_ids, rows.targets)
    outcomes = {
        "labels_outside_selection": labels_outside_selection(drawn, policy),
        "specials_selected": specials_selected(drawn),
        "no_attention_mask": no_attention_mask(drawn),
        "random_from_specials": random_from_specials(drawn),
        "static_masks": static_masks(rows, policy),
        "labels_after_corruption": labels_after_corruption(drawn),
        "segments_all_zero": segments_all_zero(drawn),
        "nsp_labels_constant": nsp_labels_constant(rows),
        "nsp_negatives_from_same_document": negatives_from_same_document(rows, tokenizer, corpus),
    }
    return merge(*(check(fault, outcome) for fault, outcome in outcomes.items()))


def labels_outside_selection(rows: Rows, policy: MaskingPolicy) -> Finding | str | None:
    """Compare how often a labeled position shows its own label with what `keep` and `random` explain."""
    x, labels = rows.input_ids, rows.targets
    below = (labels < 0) & rows.labeled
    if below.any():
        text = f"{below.sum()} labels are {labels[below][0]}; the only one that is ignored is {IGNORE}"
        return found("labels_outside_selection", text, below.sum())
    if not rows.labeled.any():
        return NO_LABELS
    if isinstance(labels_after_corruption(rows), Finding):
        return "the labels were read after the corruption: they equal the input everywhere"
    padding = rows.labeled & (labels == rows.specials.pad)
    strange = int((padding & ~np.isin(x, (rows.specials.pad, rows.specials.mask))).sum())
    if surprising(strange, int(padding.sum()), policy.random):
        text = f"the label of {strange} positions that hold another token is [PAD] ({rows.specials.pad}), not {IGNORE}"
        return found("labels_outside_selection", text, strange)
    explained = policy.keep + policy.random * max(HIT, 1 / rows.specials.ordinary)
    fates = _independent(rows.labeled, policy)
    for some, what in ((rows.word_labels, "labeled positions"), (~rows.word_labels, "special tokens with a label")):
        n, same = int((fates & some).sum()), int((fates & some & (x == labels)).sum())
        if surprising(same, n, explained):
            text = (
                f"{same} of {n} {what} show the true token ({same / n:.1%}); after a selection it would be "
                f"{policy.keep:.0%} kept: the others were never selected"
            )
            return found("labels_outside_selection", text, same / n)
    return _too_few(int(fates.sum()), explained, "labeled positions")


def _independent(labeled: Bools, policy: MaskingPolicy) -> Bools:
    """Labeled positions whose fates are drawn one by one: all, or with words and spans the first of each run."""
    if policy.unit == "token":
        return labeled
    starts = labeled.copy()
    starts[:, 1:] &= ~labeled[:, :-1]
    return starts


def _too_few(n: int, p: float, what: str) -> str | None:
    """The reason why n trials prove nothing; None where they would."""
    if p >= 1:
        return "the policy leaves every selected token as it is"
    return None if n >= needed(p) else f"{needed(p)} {what} are needed to tell, there are {n}"


def specials_selected(rows: Rows) -> Finding | str | None:
    """Find labels [CLS], [SEP] or [PAD] where something else stands now: they were chosen and corrupted.

    A label [PAD] beside an ordinary token is another fault: zeros in place of −100.
    """
    if not rows.labeled.any():
        return NO_LABELS
    s = rows.specials
    counts = {
        name: int(((rows.targets == label) & (rows.input_ids != label) & allowed).sum())
        for name, label, allowed in (
            ("[CLS]", s.cls, True),
            ("[SEP]", s.sep, True),
            ("[PAD]", s.pad, rows.input_ids == s.mask),
        )
    }
    total = sum(counts.values())
    if not total:
        return None
    named = ", ".join(f"{name} {count} times" for name, count in counts.items() if count)
    text = f"special tokens were corrupted and are to be predicted: {named}; {rows.labeled.sum()} labels in all"
    return found("specials_selected", text, total)


def no_attention_mask(rows: Rows) -> Finding | str | None:
    """Find [PAD] at the ends of rows where attention looks."""
    padding = rows.exists & _at_the_ends(rows.true_ids == rows.specials.pad)
    total = int(padding.sum())
    if not total:
        return "the batch has no padding"
    if rows.attention_mask is None:
        return found("no_attention_mask", f"{total} positions are [PAD], and there is no attention_mask", total)
    visible = int((padding & rows.attention_mask).sum())
    text = f"attention_mask is not 0 at {visible} of {total} positions that hold [PAD]"
    return found("no_attention_mask", text, visible) if visible else None


def _at_the_ends(padding: Bools) -> Bools:
    """Padding before the first or after the last real token of a row; a row without one is all padding."""
    before = np.logical_and.accumulate(padding, axis=1)
    after = np.logical_and.accumulate(padding[:, ::-1], axis=1)[:, ::-1]
    return before | after


def random_from_specials(rows: Rows) -> Finding | str | None:
    """Find special tokens in the place of selected words; a random [MASK] looks like any other and is not seen."""
    s = rows.specials
    replaced = rows.word_labels & (rows.input_ids != rows.targets) & (rows.input_ids != s.mask)
    special = replaced & np.isin(rows.input_ids, s.ids)
    n, count = int(replaced.sum()), int(special.sum())
    if surprising(count, n, SPECIAL_DRAWS):
        text = f"{count} of {n} random replacements are [PAD], [UNK], [CLS] or [SEP]"
        return found("random_from_specials", text, count / n)
    return _too_few(n, SPECIAL_DRAWS, "random replacements")


def static_masks(rows: Rows, policy: MaskingPolicy) -> Finding | str | None:
    """Compare the selections of sequences that come twice.

    All sets of k of U units are equally likely, so a selection that is neither empty nor all comes again with
    probability at most 1/C(U, k) ≤ 1/U, whatever the rate and the count. Of words and spans there are at least two.
    """
    if not rows.labeled.any():
        return NO_LABELS
    maskable = np.isin(rows.true_ids, rows.specials.ids, invert=True)
    selected = rows.labeled & maskable
    telling = selected.any(axis=1) & (selected != maskable).any(axis=1)
    first: dict[bytes, int | None] = {}
    same: list[bool] = []
    chances: list[float] = []
    for row in np.flatnonzero(telling).tolist():
        key = rows.true_ids[row].tobytes()
        earlier = first.setdefault(key, row)
        if earlier is not None and earlier != row and len(same) < REPETITIONS:
            same.append(bool((selected[earlier] == selected[row]).all()))
            chances.append(1 / int(maskable[row].sum()) if policy.unit == "token" else 0.5)
            first[key] = None  # a third one would not be independent of the first two
    n, count = len(same), sum(same)
    if surprising_together(count, chances):
        text = f"{count} of {n} sequences that came twice had the same positions selected both times"
        return found("static_masks", text, count / n)
    enough = math.prod(chances) < FALSE_ALARM
    return None if enough else f"more sequences that come twice are needed to tell, there are {n}"


def labels_after_corruption(rows: Rows) -> Finding | str | None:
    """Find [MASK] as the label of what was masked."""
    masked = rows.labeled & (rows.input_ids == rows.specials.mask)
    n, count = int(masked.sum()), int((masked & (rows.targets == rows.specials.mask)).sum())
    if not n:
        return "no labeled position holds [MASK]" if rows.labeled.any() else NO_LABELS
    text = f"at {count} of {n} labeled positions that hold [MASK] the label is [MASK] too"
    return found("labels_after_corruption", text, count / n) if 2 * count > n else None


def segments_all_zero(rows: Rows) -> Finding | str | None:
    """Look for segment 1 in the rows that hold two sentences."""
    if rows.next_sentence_label is None:
        return "the batch has no next_sentence_label: its rows need not be pairs"
    pairs = (rows.true_ids == rows.specials.sep).sum(axis=1) >= 2
    total = int(pairs.sum())
    if not total:
        return "no row holds two [SEP]"
    if rows.token_type_ids is None:
        text = f"{total} rows hold two sentences, and there are no token_type_ids"
        return found("segments_all_zero", text, total)
    if rows.token_type_ids[pairs].any():
        return None
    return found("segments_all_zero", f"token_type_ids are 0 throughout {total} rows that hold two sentences", total)


def nsp_labels_constant(rows: Rows) -> Finding | str | None:
    """Count the more frequent relation; pairs that come again are counted once."""
    if rows.next_sentence_label is None:
        return NO_RELATION
    labels = rows.without_repetitions(rows.true_ids).next_sentence_label
    assert labels is not None
    labels = labels[labels != IGNORE]
    n, ones = len(labels), int(labels.sum())
    count, label = max((ones, 1), (n - ones, 0))
    if surprising(count, n, IMBALANCE) and count >= CONSTANT * n:
        return found("nsp_labels_constant", f"next_sentence_label is {label} for {count} of {n} pairs", count / n)
    return _too_few(n, IMBALANCE, "different pairs")


def negatives_from_same_document(rows: Rows, tokenizer: Any, corpus: Corpus | None) -> Finding | str | None:
    """Look up both sentences of the pairs labeled random."""
    if rows.next_sentence_label is None:
        return NO_RELATION
    if corpus is None:
        return "no corpus was given"
    different = rows.without_repetitions(rows.true_ids)
    pairs = [
        pair
        for row, label in zip(different.true_ids, different.next_sentence_label, strict=True)  # type: ignore[arg-type]
        if label == IS_RANDOM and (pair := _sentences(row.tolist(), rows))
    ]
    return pairs_from_one_document(pairs, corpus, tokenizer)


def _sentences(row: list[int], rows: Rows) -> tuple[list[int], list[int]] | None:
    """Tokens of A and of B in [CLS] A [SEP] B [SEP]; None where a row has no such form."""
    ends = [at for at, token in enumerate(row) if token == rows.specials.sep]
    if row[0] != rows.specials.cls or len(ends) < 2 or ends[0] == 1 or ends[-1] == ends[0] + 1:
        return None
    return row[1 : ends[0]], row[ends[0] + 1 : ends[-1]]
