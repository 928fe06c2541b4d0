"""Any BERT checkpoint of `transformers`, with or without heads, as our model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mlmkit.checkpoint import Parts, assemble, read_parts
from mlmkit.exchange.hub import fetch
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer
from mlmkit.weights import State, hf_shapes, to_hf_state

HEADS = {"MLM head": "cls.predictions.", "pooler": "bert.pooler.", "NSP head": "cls.seq_relationship."}
"""Parts that a checkpoint may lack → what the names of their weights begin with."""


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere.

    Attributes:
        model: in evaluation mode, in fp32.
        tokenizer: its own.
        fresh: parts that the checkpoint did not have and that were newly drawn: "MLM head", "pooler", "NSP head".
            Until they are trained, what they answer means nothing.
        ignored: names of weights in the checkpoint that a `BertForPreTraining` has no place for, such as a classifier.
        folder: where the files lie.
    """

    model: BertForPreTraining
    tokenizer: Tokenizer
    fresh: tuple[str, ...]
    ignored: tuple[str, ...]
    folder: Path


def import_hf(folder_or_name: str | Path, *, revision: str | None = None, seed: int = 0) -> Imported:
    """Open any BERT checkpoint in the format of `transformers`: a folder, or a name on the Hugging Face hub.

    The encoder must be whole. A head that is missing as a whole is drawn from `seed`; what belongs to another task is
    left out. Pickles (`pytorch_model.bin`) are opened so that nothing in them can run.

    Args:
        folder_or_name: for example "google-bert/bert-base-uncased".
        revision: branch, tag or commit on the hub.
        seed: of the heads that the checkpoint lacks.

    Raises:
        UserError: it cannot be found, is damaged or incomplete, or is no BERT; the message says what is missing.
    """
    folder = fetch(folder_or_name, revision)
    parts = read_parts(folder)
    fresh = tuple(part for part, prefix in HEADS.items() if not any(name.startswith(prefix) for name in parts.weights))
    wanted = hf_shapes(parts.config)
    ignored = tuple(sorted(name for name in parts.weights if name not in wanted))
    whole = replace(parts, weights=parts.weights | _drawn(parts, fresh, seed))
    return Imported(assemble(whole, folder), parts.tokenizer, fresh, ignored, folder)


def _drawn(parts: Parts, fresh: tuple[str, ...], seed: int) -> State:
    """New weights for the heads that are missing."""
    if not fresh:
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = to_hf_state(BertForPreTraining(parts.config))
    prefixes = tuple(HEADS[part] for part in fresh)
    return {name: tensor for name, tensor in drawn.items() if name.startswith(prefixes)}
