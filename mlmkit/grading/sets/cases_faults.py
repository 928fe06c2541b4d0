"""The function to write of set 16 that names the fault of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmkit.grading.cases import BATCH_FAULTS
from mlmkit.grading.sets.cases_code import Array, Batch, Special, draw_special, lay_out
from mlmkit.grading.tasks import CodeTask, Inputs, Mistake

FAULTS = ("none", *(name for name in BATCH_FAULTS if name != "static_masks"))  # which one batch cannot show


def _healthy(rng: np.random.Generator, special: Special, ordinary: Array, rows: int, padded: bool) -> Batch:
    """A batch in which each fate occurs, and both relations."""
    ids = lay_out(rng, rows, 9, special, ordinary)
    if not padded:
        ids = np.array([np.concatenate([row[:1], rng.choice(ordinary, 4), row[-1:]]) for row in ids])
        ids[:, 3] = ids[:, -1] = special["sep"]
    words = np.isin(ids, ordinary)
    chosen = words & (rng.random(ids.shape) < 0.2)
    places = rng.permutation(np.flatnonzero(words))[:6]
    chosen.flat[places] = True
    fate = np.asarray(rng.random(ids.shape))
    fate.flat[places] = [0.1, 0.2, 0.85, 0.86, 0.95, 0.96]
    corrupted = np.where(fate < 0.8, special["mask"], np.where(fate < 0.9, rng.choice(ordinary, ids.shape), ids))
    sep = ids == special["sep"]
    label = rng.permutation(np.arange(rows) % 3 // 2)
    return {
        "true_ids": ids,
        "input_ids": np.where(chosen, corrupted, ids),
        "labels": np.where(chosen, ids, -100),
        "attention_mask": (ids != special["pad"]).astype(int),
        "token_type_ids": (((sep.cumsum(1) - sep) > 0) & (ids != special["pad"])).astype(int),
        "next_sentence_label": label if rng.random() < 0.5 else 1 - label,
    }


def planted(rng: np.random.Generator, fault: str, rows: int = 12, padded: bool = True) -> Inputs:
    """A batch with one fault, and the ids of the special tokens."""
    special, ordinary = draw_special(rng)
    batch = _healthy(rng, special, ordinary, rows, padded or fault == "no_attention_mask")
    ids, x, labels = batch["true_ids"], batch["input_ids"], batch["labels"]
    if fault == "labels_after_corruption":
        batch["labels"] = np.where(labels != -100, x, -100)
    elif fault == "labels_outside_selection":
        batch["labels"] = np.where(np.isin(ids, ordinary), ids, -100)
    elif fault == "specials_selected":
        name = str(rng.choice(["cls", "sep"] if not (ids == special["pad"]).any() else ["cls", "sep", "pad"]))
        place = rng.choice(np.flatnonzero(ids == special[name]))
        labels.flat[place], x.flat[place] = special[name], special["mask"]
    elif fault == "random_from_specials":
        changed = np.flatnonzero((labels != -100) & (x != ids) & (x != special["mask"]))
        place = changed[0] if len(changed) else np.flatnonzero(labels != -100)[0]
        x.flat[place] = special[str(rng.choice(["pad", "unk", "cls", "sep"]))]
    elif fault == "no_attention_mask":
        batch["attention_mask"] = np.ones_like(ids)
    elif fault == "segments_all_zero":
        batch["token_type_ids"] = np.zeros_like(ids)
    elif fault == "nsp_labels_constant":
        batch["next_sentence_label"] = np.full(len(ids), int(rng.integers(2)))
    return {"batch": batch, "special": special}


def _draw(rng: np.random.Generator) -> Inputs:
    fault = FAULTS[rng.integers(len(FAULTS))]
    return planted(rng, fault, rows=int(rng.integers(8, 20)), padded=bool(rng.random() < 0.7))


def named(batch: Batch, special: Special) -> str:
    """Look at one kind of position after the other."""
    ids, x, labels = batch["true_ids"], batch["input_ids"], batch["labels"]
    structure = np.isin(ids, [special[name] for name in ("cls", "sep", "pad")])
    chosen = labels != -100
    if (structure & (chosen | (x != ids))).any():
        return "specials_selected"
    if (chosen & (labels != ids)).any():
        return "labels_after_corruption"
    if chosen[~structure].all():
        return "labels_outside_selection"
    if (~structure & np.isin(x, [special[name] for name in ("pad", "unk", "cls", "sep")])).any():
        return "random_from_specials"
    if (batch["attention_mask"] != (ids != special["pad"])).any():
        return "no_attention_mask"
    if not batch["token_type_ids"].any():
        return "segments_all_zero"
    if len(set(batch["next_sentence_label"].tolist())) == 1:
        return "nsp_labels_constant"
    return "none"


def _kept_is_leak(batch: Batch, special: Special) -> str:
    if (batch["labels"] == batch["input_ids"]).any():
        return "labels_after_corruption"
    return named(batch, special)


def _kept_is_outside(batch: Batch, special: Special) -> str:
    found = named(batch, special)
    kept = ((batch["labels"] != -100) & (batch["labels"] == batch["input_ids"])).any()
    return "labels_outside_selection" if found == "none" and kept else found


def _mask_is_special(batch: Batch, special: Special) -> str:
    chosen = batch["labels"] != -100
    found = named(batch, special)
    special_there = np.isin(batch["input_ids"][chosen], list(special.values())).any()
    return "random_from_specials" if found == "none" and special_there else found


def _ones_everywhere(batch: Batch, special: Special) -> str:
    found = named(batch, special)
    return "no_attention_mask" if found == "none" and batch["attention_mask"].all() else found


def _more_than_half(batch: Batch, special: Special) -> str:
    relation = batch["next_sentence_label"]
    found = named(batch, special)
    return "nsp_labels_constant" if found == "none" and abs(relation.mean() - 0.5) > 0.1 else found


def _without(fault: str) -> Any:
    return lambda batch, special: "none" if (found := named(batch, special)) == fault else found


_EDGES = (*FAULTS, "none")
NAME_FAULT = CodeTask(
    id="16.11",
    title="Name the fault",
    points=6,
    concepts=("C22",),
    function="name_fault",
    reference=named,
    draw=_draw,
    rounds=16,
    edges=(
        *(planted(np.random.default_rng(k), fault) for k, fault in enumerate(_EDGES)),
        *(planted(np.random.default_rng(40 + k), "none", padded=False) for k in range(2)),
        *(planted(np.random.default_rng(50 + k), "specials_selected", rows=8) for k in range(6)),
        *(planted(np.random.default_rng(60 + k), "random_from_specials", rows=8) for k in range(8)),
        *(planted(np.random.default_rng(70 + k), "nsp_labels_constant", rows=8) for k in range(3)),
    ),
    mistakes=(
        Mistake(
            "kept tokens taken for labels after corruption",
            _kept_is_leak,
            "you call it labels_after_corruption when a label equals what stands in x̄. A tenth of the selected tokens "
            "is kept, so that happens in every healthy batch: look at whether labels equal `true_ids`",
        ),
        Mistake(
            "kept tokens taken for labels outside",
            _kept_is_outside,
            "you call a healthy batch labels_outside_selection because a labeled position shows its true token. That "
            "is what kept tokens look like; the fault is that *every* word has a label",
        ),
        Mistake(
            "[MASK] counted among the special replacements",
            _mask_is_special,
            "you count [MASK] among the special tokens that replace words. [MASK] belongs there; [PAD], [UNK], [CLS] "
            "and [SEP] do not",
        ),
        Mistake(
            "ones are right without padding",
            _ones_everywhere,
            "you call a mask of ones a fault also where the batch has no padding. Then nothing has to be hidden: "
            "compare the mask with where [PAD] stands",
        ),
        Mistake(
            "more than half",
            _more_than_half,
            "you call the relation constant as soon as one of the two is more frequent. With so few pairs that is "
            "chance; the fault is that there is only one",
        ),
        Mistake(
            "specials are not looked at",
            _without("specials_selected"),
            "you miss batches in which [CLS], [SEP] or [PAD] was selected: look at what stands at these positions of "
            "`true_ids`, in the labels and in x̄",
        ),
        Mistake(
            "segments are not looked at",
            _without("segments_all_zero"),
            "you miss batches whose segments are 0 throughout, though each row holds two sentences",
        ),
    ),
    hints=(
        "Write one condition for each fault, and test each on positions that it speaks of: words, special positions, "
        "labeled positions, padding.",
        "Three masks say nearly everything: `chosen = labels != -100`; `structure`, where true_ids is [CLS], [SEP] or "
        "[PAD]; and x̄ ≠ true_ids. A labeled position whose label is not its true id was labeled too late.",
        '`structure = np.isin(ids, [special[k] for k in ("cls", "sep", "pad")])`; specials_selected is '
        "`(structure & (chosen | (x != ids))).any()`; labels_outside_selection is `chosen[~structure].all()`.",
    ),
)
