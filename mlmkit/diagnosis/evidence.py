"""What a recorder saw of a training loop, as plain data that can be written beside the run and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mlmkit.batches import Batch
from mlmkit.diagnosis.findings import Diagnosis, Finding
from mlmkit.diagnosis.rows import Specials
from mlmkit.errors import UserError
from mlmkit.weights import read_json, read_tensors, write_json, write_tensors

EVIDENCE = "evidence.json"
BATCHES = "batches.safetensors"


@dataclass
class Pass:
    """One forward pass whose loss was sent backward, in numbers.

    Attributes:
        step: optimizer steps made before it.
        padding: positions at the ends of rows that hold [PAD] in what the model read.
        visible_padding: those of them that the attention mask given to the model does not hide.
        pairs_read: rows with an NSP label and two [SEP].
        pairs_told_apart: those of them for which the model was given a segment other than 0.
        unlabeled: positions with MLM logits and label −100; None if logits and labels could not be matched.
        reached: unlabeled positions at which the gradient of the loss is not 0.
        reached_share: their share of the absolute gradient at all MLM logits.
        toward_own: reached positions, [PAD] aside, whose gradient asks for the token that stands there.
        toward_other: reached positions, [PAD] aside, whose gradient asks for another token.
        other_token: the token that most of these ask for.
        other_share: the share of `toward_other` that asks for it.
        pairs: pairs with NSP label 0 and 1 whose NSP loss is not negligible; None if there is no NSP loss.
        silent_pairs: those of them at whose NSP logits the gradient is exactly 0.
        left_over: norm of the gradient that already lay in the parameters when this backward pass began, where an
            optimizer step came in between; None where none did.
    """

    step: int
    padding: int
    visible_padding: int
    pairs_read: int
    pairs_told_apart: int
    unlabeled: int | None = None
    reached: int = 0
    reached_share: float = 0.0
    toward_own: int = 0
    toward_other: int = 0
    other_token: int | None = None
    other_share: float = 0.0
    pairs: tuple[int, int] | None = None
    silent_pairs: tuple[int, int] = (0, 0)
    left_over: float | None = None


@dataclass
class Structure:
    """What the output layer is made of; None where the layer could not be found.

    Attributes:
        tied: whether the decoder matrix is the matrix of the word embeddings.
        bias: whether the decoder has a bias that the optimizer trains.
    """

    tied: bool | None = None
    bias: bool | None = None


@dataclass
class Evidence:
    """Everything a recorder noted.

    Attributes:
        specials: ids of the special tokens.
        policy: the masking policy that the loop is meant to follow.
        dropout: largest dropout probability that the model's configuration asks for.
        ignored_label: a second label, beside −100, that the MLM loss was seen to ignore: the id of [PAD], or None.
        structure: of the output layer.
        passes: the first forward passes, in full.
        updates: optimizer steps made.
        backward: backward passes seen.
        in_eval_mode: backward passes with the model in evaluation mode.
        without_dropout: backward passes with the model in training mode and nothing in it that drops.
        watched: batches handed through `watch`, the last one included.
        stepped_twice: watched batches on which more than one optimizer step was made.
        curve: reference losses of every update, thinned to windows of equal length: step, lr, mlm, nsp.
        labels: labels seen in all updates.
        unigram_entropy: entropy of their frequencies, in nats, with the correction of Miller and Madow for its bias
            on few labels; None before there are any.
        documents: what the checks that need the documents said; None without a corpus.
        batches: the first batches, and later ones that hold the same text again.
    """

    specials: Specials
    policy: dict[str, Any]
    dropout: float = 0.0
    ignored_label: int | None = None
    structure: Structure = field(default_factory=Structure)
    passes: list[Pass] = field(default_factory=list)
    updates: int = 0
    backward: int = 0
    in_eval_mode: int = 0
    without_dropout: int = 0
    watched: int = 0
    stepped_twice: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    labels: int = 0
    unigram_entropy: float | None = None
    documents: Diagnosis | None = None
    batches: list[Batch] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write both files, each in one step; the batches first, since only their number is in the other."""
        tensors = {
            f"{i:04d}/{name}": values.to(torch.int32).contiguous()
            for i, batch in enumerate(self.batches)
            for name, values in batch.items()
        }
        write_tensors(folder / BATCHES, tensors)
        data = asdict(self)
        del data["batches"]
        write_json(folder / EVIDENCE, data)

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Read what `write` wrote.

        Raises:
            UserError: a file is missing or damaged.
        """
        path = folder / EVIDENCE
        data = read_json(path)
        batches: dict[str, Batch] = {}
        for key, values in sorted(read_tensors(folder / BATCHES).items()):
            number, _, name = key.partition("/")
            batches.setdefault(number, {})[name] = values.long()
        try:
            specials = Specials(**data.pop("specials"))
            structure = Structure(**data.pop("structure"))
            passes = [_pass(one) for one in data.pop("passes")]
            documents = _diagnosis(data.pop("documents"))
            found: dict[str, Any] = {"structure": structure, "passes": passes, "documents": documents}
            return cls(specials, **data, **found, batches=list(batches.values()))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__} {error}; record the run again") from None


def _pass(data: Mapping[str, Any]) -> Pass:
    """A pass from JSON, where pairs of numbers are lists."""
    pairs = data["pairs"]
    return Pass(**{**data, "pairs": pairs and tuple(pairs), "silent_pairs": tuple(data["silent_pairs"])})


def _diagnosis(data: Mapping[str, Any] | None) -> Diagnosis | None:
    """A diagnosis from JSON."""
    if data is None:
        return None
    findings = tuple(Finding(**one) for one in data["findings"])
    return Diagnosis(findings, tuple(data["checked"]), data["not_checked"])
