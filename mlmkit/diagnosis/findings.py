"""What a diagnosis says: findings, each with the number that proves it, and the catalog of faults they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """A mistake that runs without an error and teaches the model little or nothing.

    Attributes:
        title: what is wrong, in a few words.
        advice: what to change.
    """

    title: str
    advice: str


FAULTS: dict[str, Fault] = {
    "loss_on_all_positions": Fault(
        "the loss is taken where nothing was selected",
        "Set the labels to −100 outside A(x), or pick the logits at the selected positions, before the cross-entropy.",
    ),
    "labels_outside_selection": Fault(
        "labels stand outside the selection A(x)",
        "Start from labels that are −100 everywhere and write the true id at the selected positions only.",
    ),
    "specials_selected": Fault(
        "special tokens or padding are selected",
        "Leave [CLS], [SEP] and [PAD] out of the candidates before positions are chosen.",
    ),
    "no_attention_mask": Fault(
        "padding is visible to attention",
        "Hand attention_mask to the model: 1 at real tokens, 0 at [PAD].",
    ),
    "random_from_specials": Fault(
        "random replacements are drawn from special tokens",
        "Draw the random replacement from the ordinary ids only, without [PAD] [UNK] [CLS] [SEP] [MASK].",
    ),
    "static_masks": Fault(
        "the same sequence gets the same mask in every epoch",
        "Mask when a batch is made, not once beforehand, and do not seed the masks alike in every epoch.",
    ),
    "weights_not_tied": Fault(
        "the decoder of the MLM head does not share the word embeddings",
        "Let decoder.weight be the same parameter as word_embeddings.weight, and tie again after loading weights.",
    ),
    "decoder_bias_missing": Fault(
        "the decoder of the MLM head has no bias that learns",
        "Give the decoder a bias per token of the vocabulary and hand it to the optimizer.",
    ),
    "no_warmup_divergence": Fault(
        "the run diverged at a peak learning rate that it never warmed up to",
        "Let the learning rate rise from 0 over the first updates (some hundreds), or lower its peak.",
    ),
    "gradients_not_zeroed": Fault(
        "gradients of earlier updates are still there",
        "Call optimizer.zero_grad() after every optimizer.step().",
    ),
    "eval_mode": Fault(
        "the model is updated in evaluation mode",
        "Call model.train() before the updates, and again after every evaluation.",
    ),
    "dropout_off": Fault(
        "the configuration asks for dropout and none is active",
        "Call model.train() on the whole model, and build its dropout layers with the configured probability.",
    ),
    "labels_after_corruption": Fault(
        "the labels were read after the corruption",
        "Copy the true ids into the labels before [MASK] and random tokens are written over them.",
    ),
    "segments_all_zero": Fault(
        "every token belongs to segment 0",
        "Give B and its closing [SEP] the segment 1, and hand token_type_ids to the model.",
    ),
    "nsp_labels_constant": Fault(
        "the sentence relation is nearly always the same",
        "Let B be the true continuation for half of the pairs, drawn anew for each, and label them: 0 next, 1 random.",
    ),
    "nsp_negatives_from_same_document": Fault(
        "random second sentences come from the document of the first",
        "Draw the second sentence of a negative pair from another document.",
    ),
    "two_updates_per_batch": Fault(
        "a batch is followed by more than one update",
        "Add the two losses, call backward() once, and make one optimizer step.",
    ),
    "duplicates_across_split": Fault(
        "held-out text also stands in the training part",
        "Remove duplicates before the split, and put documents that resemble each other into the same part.",
    ),
    "stuck_at_unigram": Fault(
        "the MLM loss stays at the unigram entropy: the model knows word frequencies and reads no context",
        "Look for another fault first; without one, raise the learning rate or the initializer range, or train longer.",
    ),
    "averaged_before_weights": Fault(
        "the loss was averaged before its weights were applied",
        "Take the loss per position (reduction='none'), multiply by the weights, sum, and divide by their sum.",
    ),
    "nsp_ignore_index_zero": Fault(
        "pairs with label 0 are left out of the NSP loss",
        "Use one criterion for each head; only the MLM loss ignores a label, and that label is −100.",
    ),
}
"""Every fault that can be named, by its identifier."""


@dataclass(frozen=True)
class Finding:
    """One fault that was found.

    Attributes:
        fault: its identifier, a key of `FAULTS`.
        title: what is wrong, in a few words.
        evidence: a sentence with the number that proves it.
        value: that number.
        advice: what to change.
    """

    fault: str
    title: str
    evidence: str
    value: float
    advice: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.title}\n  evidence  {self.evidence}\n  change    {self.advice}"


def found(fault: str, evidence: str, value: float) -> Finding:
    """Make a finding; title and advice stand in the catalog.

    >>> found("segments_all_zero", "the segments of all 32 pairs are 0", 32.0).title
    'every token belongs to segment 0'
    """
    return Finding(fault, FAULTS[fault].title, evidence, float(value), FAULTS[fault].advice)


@dataclass(frozen=True)
class Diagnosis:
    """The findings, what was looked for, and what could not be looked for.

    It is a sequence of findings to `for`, `len` and `if`: a diagnosis without findings is false.

    Attributes:
        findings: the faults found, one finding each.
        checked: the faults that were looked for, found or not.
        not_checked: why the others were not: what is missing.
    """

    findings: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    not_checked: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def faults(self) -> tuple[str, ...]:
        """The identifiers of the faults found."""
        return tuple(finding.fault for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        count = len(self.findings)
        headline = "no fault found" if not count else "1 fault found" if count == 1 else f"{count} faults found"
        lines = [f"{headline}; {len(self.checked)} looked for"]
        lines += [str(finding) for finding in self.findings]
        if self.checked:
            lines.append(f"looked for: {', '.join(self.checked)}")
        lines += [f"not checked: {fault}: {reason}" for fault, reason in self.not_checked.items()]
        return "\n".join(lines)


def check(fault: str, outcome: Finding | str | None) -> Diagnosis:
    """Turn the outcome of one check into a diagnosis: a finding, a reason why it could not be made, or all is well.

    >>> check("eval_mode", None).checked
    ('eval_mode',)
    >>> check("eval_mode", "no update was recorded").not_checked
    {'eval_mode': 'no update was recorded'}
    """
    if isinstance(outcome, str):
        return Diagnosis(not_checked={fault: outcome})
    return Diagnosis(() if outcome is None else (outcome,), (fault,))


def merge(*diagnoses: Diagnosis) -> Diagnosis:
    """Put diagnoses together, in the order of the catalog; the first finding of a fault is kept.

    What one of them checked counts as checked, though another could not.

    >>> merge(check("eval_mode", "no update was recorded"), check("eval_mode", None)).not_checked
    {}
    """
    findings: dict[str, Finding] = {}
    reasons: dict[str, str] = {}
    for diagnosis in diagnoses:
        for finding in diagnosis:
            findings.setdefault(finding.fault, finding)
        for fault, reason in diagnosis.not_checked.items():
            reasons.setdefault(fault, reason)
    checked = {fault for diagnosis in diagnoses for fault in diagnosis.checked}
    return Diagnosis(
        tuple(findings[fault] for fault in _in_order(findings)),
        _in_order(checked),
        {fault: reasons[fault] for fault in _in_order(reasons.keys() - checked)},
    )


def _in_order(faults: Mapping[str, Any] | set[str]) -> tuple[str, ...]:
    return tuple(fault for fault in FAULTS if fault in faults)
