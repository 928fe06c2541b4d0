"""A fine-tuned network as a folder that `transformers` opens, and back: labels and probabilities for new texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mlmkit.batches import to_device
from mlmkit.checkpoint import hf_config, read_parts
from mlmkit.errors import UserError
from mlmkit.finetuning.encoding import Encoded, batches_of, collate_texts, encode
from mlmkit.finetuning.heads import Network, SequenceClassifier, new_network
from mlmkit.finetuning.task import Example, Kind
from mlmkit.tokenizer import Tokenizer
from mlmkit.weights import State, encoder_from_hf, encoder_to_hf, read_json, write_json, write_tensors

ARCHITECTURES: dict[Kind, str] = {
    "sentence": "BertForSequenceClassification",
    "pair": "BertForSequenceClassification",
    "tokens": "BertForTokenClassification",
}
Text = str | tuple[str, str]
"""A sentence, or a pair of sentences."""


@dataclass(frozen=True)
class Prediction:
    """An answer about a text or a word.

    Attributes:
        text: what was asked about.
        label: the most probable label.
        probabilities: of all labels; they sum to 1.
    """

    text: str | tuple[str, ...]
    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        """Of the label."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Classifier:
    """A fine-tuned network with all that is needed to use it.

    Args:
        network: in evaluation mode.
        tokenizer: the one it was trained with.
        labels: their names.
        kind: what it labels.
        max_length: longest input; longer texts are cut.
    """

    network: Network
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    kind: Kind
    max_length: int

    def predict(self, texts: Sequence[Text]) -> list[Prediction]:
        """Label sentences, or pairs of sentences given as tuples.

        Raises:
            UserError: a text is empty or of another kind than the task's, or the network labels words.
        """
        if self.kind == "tokens":
            raise UserError("this network labels words, not texts; use its method tag")
        if isinstance(texts, str):
            raise UserError(f"predict takes a list of texts, got one text; write [{texts[:30]!r}]")
        examples = [_checked(text, self.kind) for text in texts]
        answers = self._probabilities(examples)
        return [self._prediction(text, found[0]) for text, (_, found) in zip(texts, answers, strict=True)]

    def tag(self, sentences: Sequence[str | Sequence[str]]) -> list[list[Prediction]]:
        """Label every word of some sentences, each a list of words or separated by blanks.

        A word without a token of its own, or beyond the longest input, is left out.

        Raises:
            UserError: a sentence is empty, or the network labels texts.
        """
        if self.kind != "tokens":
            raise UserError("this network labels texts, not words; use its method predict")
        if isinstance(sentences, str):
            raise UserError(f"tag takes a list of sentences, got one text; write [{sentences[:30]!r}]")
        words = [tuple(s.split()) if isinstance(s, str) else tuple(s) for s in sentences]
        if () in words:
            raise UserError(f"sentence {words.index(()) + 1} has no word; leave it out")
        answers = self._probabilities([Example(w, ()) for w in words])
        return [
            [self._prediction(some[i], p) for i, p in zip(e.shown, found, strict=True)]
            for some, (e, found) in zip(words, answers, strict=True)
        ]

    def _prediction(self, text: str | tuple[str, ...], probabilities: NDArray[np.float32]) -> Prediction:
        by_label = dict(zip(self.labels, probabilities.tolist(), strict=True))
        return Prediction(text, self.labels[int(probabilities.argmax())], by_label)

    def _probabilities(self, examples: Sequence[Example]) -> list[tuple[Encoded, NDArray[np.float32]]]:
        """Softmax of the scores at the places of each example (units, K), in the order of the examples."""
        encoded = encode(examples, self.kind, self.tokenizer, self.max_length)
        device = next(self.network.parameters()).device
        found: dict[int, NDArray[np.float32]] = {}
        with torch.no_grad():
            for rows in batches_of(encoded, size=64):
                batch = to_device(collate_texts([encoded[i] for i in rows], self.tokenizer.pad_id), device)
                probabilities = self.network(**batch).softmax(-1).cpu().numpy()  # (B, K) or (B, S, K)
                for row, p in zip(rows, probabilities, strict=True):
                    found[row] = p[None] if p.ndim == 1 else p[encoded[row].places]
        return [(e, found[row]) for row, e in enumerate(encoded)]

    def save(self, folder: str | Path) -> None:
        """Write network and tokenizer as a folder that `load_classifier` and the Auto classes of `transformers` open.

        Raises:
            UserError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder} ({error.strerror}); choose another folder") from None
        self.tokenizer.save(folder, max_length=self.max_length)
        names = {
            "id2label": {str(k): name for k, name in enumerate(self.labels)},
            "label2id": {name: k for k, name in enumerate(self.labels)},
            "finetuning_task": self.kind,
        }
        write_json(folder / "config.json", hf_config(self.network.config, ARCHITECTURES[self.kind]) | names)
        write_tensors(folder / "model.safetensors", to_hf(self.network))


def _checked(text: Text, kind: Kind) -> Example:
    parts = (text,) if isinstance(text, str) else tuple(text)
    wanted = 2 if kind == "pair" else 1
    if len(parts) != wanted or not all(isinstance(part, str) and part.strip() for part in parts):
        what = "pairs (a, b) of texts" if kind == "pair" else "texts"
        raise UserError(f"this network labels {what} that are not empty, got {text!r}")
    return Example(parts, ())


def to_hf(network: Network) -> State:
    """Weights under the names of `transformers`' BertForSequenceClassification or BertForTokenClassification."""
    theirs = encoder_to_hf(network.encoder, network.config)
    heads = {"classifier": network.classifier}
    if isinstance(network, SequenceClassifier):
        heads["bert.pooler.dense"] = network.pooler
    for name, layer in heads.items():
        theirs |= {f"{name}.{kind}": t.detach().cpu().contiguous() for kind, t in layer.state_dict().items()}
    return theirs


def load_classifier(folder: str | Path) -> Classifier:
    """Open what `finetune` wrote, or a BERT classifier saved by `transformers`.

    Raises:
        UserError: the folder holds no classifier, or a file is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that `mlmkit finetune --out` wrote")
    told = read_json(folder / "config.json")
    kind = _kind(folder, told)
    parts = read_parts(folder)
    names = told.get("id2label") or {}
    labels = tuple(names[str(k)] for k in range(len(names)) if str(k) in names)
    if len(labels) < 2 or len(labels) != len(names):
        raise UserError(f"{folder / 'config.json'} does not name the labels 0, 1, … in id2label; put a good copy there")
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten
        network = new_network(parts.config, kind, len(labels)).eval()
    _fill(network, parts.weights, folder)
    return Classifier(network, parts.tokenizer, labels, kind, _max_length(folder, parts.config.max_position_embeddings))


def _max_length(folder: Path, limit: int) -> int:
    """The longest input as the tokenizer's settings say it, and never more than the network reads."""
    path = folder / "tokenizer_config.json"
    told = read_json(path).get("model_max_length") if path.is_file() else None
    return min(int(told), limit) if isinstance(told, int | float) and told >= 8 else limit


def _kind(folder: Path, told: dict[str, object]) -> Kind:
    """What a folder's network labels; one from elsewhere that labels texts takes single sentences."""
    architecture = next(iter(told.get("architectures") or []), None)  # type: ignore[call-overload]
    if architecture not in ARCHITECTURES.values():
        raise UserError(
            f"{folder} holds {architecture or 'an unnamed architecture'}, not a classifier; "
            "give the folder that `mlmkit finetune --out` wrote"
        )
    if architecture == ARCHITECTURES["tokens"]:
        return "tokens"
    return "pair" if told.get("finetuning_task") == "pair" else "sentence"


def _fill(network: Network, theirs: State, folder: Path) -> None:
    """Read weights with `transformers`' names into a network."""
    layers = {"classifier": network.classifier}
    if isinstance(network, SequenceClassifier):
        layers["bert.pooler.dense"] = network.pooler
    try:
        network.encoder.load_state_dict(encoder_from_hf(theirs, network.config))
        for name, layer in layers.items():
            layer.load_state_dict({kind: theirs[f"{name}.{kind}"].float() for kind in ("weight", "bias")})
    except KeyError as missing:
        raise UserError(f"{folder}: the weights have no {missing}: they are not those of a classifier") from None
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: the weights do not fit config.json: {reason}") from None
