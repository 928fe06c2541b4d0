"""Does B follow A: what a linear probe reads of the relation of two sentences (C26: what NSP buys)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlmkit.batches import Batch, to_device
from mlmkit.evaluation import evaluation_mode
from mlmkit.exact import next_log_odds
from mlmkit.inspection.linear import Probe, linear_probe
from mlmkit.inspection.reading import clean_pairs, hidden_states, language_of, untrained
from mlmkit.intervals import Share, share_of
from mlmkit.model import BertForPreTraining
from mlmkit.pairs import IS_NEXT
from mlmkit.preparation import Data


@dataclass(frozen=True)
class SentenceRelation:
    """How often linear probes tell whether B follows A, on clean text.

    Attributes:
        cls: from the vector of [CLS].
        mean: from the mean vector of all real positions.
        bag: from the mean of the token embeddings alone: words without order and without context.
        untrained_cls, untrained_mean: from the same vectors of the same network with fresh weights.
        head: what the model's own NSP head answers; it means nothing in a model trained without NSP.
        ceiling: what a perfect reader answers on these very pairs; None on text that is not of a known language.
    """

    cls: Probe
    mean: Probe
    bag: Probe
    untrained_cls: Probe
    untrained_mean: Probe
    head: Share
    ceiling: Share | None


def probe_sentence_relation(
    model: BertForPreTraining, data: Data, pairs: int = 4000, seed: int = 0
) -> SentenceRelation:
    """Ask linear probes on frozen vectors whether B follows A.

    The probes are fitted on the validation part and judged on the test part. To see what next-sentence prediction
    buys (C26), ask a model trained with it and one trained without: the questions are the same.

    A bag of words cannot answer by a linear rule: "the same topic" is no sum over words.

    Args:
        model: its encoder is frozen.
        data: of the model's run, as `prepare` gives it.
        pairs: about so many to fit on, and so many to judge on, if there are.
        seed: of the fresh weights to compare with.

    Raises:
        UserError: a part has too few pairs.
    """
    known, asked = (clean_pairs(data, split, pairs) for split in ("validation", "test"))
    answers, right = (torch.cat([b["next_sentence_label"] for b in part]).numpy() for part in (known, asked))
    before, after = ([_readouts(net, part) for part in (known, asked)] for net in (untrained(model, seed), model))
    found = {
        name: linear_probe(vectors[0][kind].numpy(), answers, vectors[1][kind].numpy(), right)
        for name, vectors, kind in (
            ("cls", after, "cls"),
            ("mean", after, "mean"),
            ("bag", after, "bag"),
            ("untrained_cls", before, "cls"),
            ("untrained_mean", before, "mean"),
        )
    }
    return SentenceRelation(**found, head=_head(model, asked), ceiling=_ceiling(data, asked))


def _readouts(model: BertForPreTraining, batches: list[Batch]) -> dict[str, Tensor]:
    """What the probes read of each pair (P, H)."""
    parts: dict[str, list[Tensor]] = {"cls": [], "mean": [], "bag": []}
    for batch in batches:
        real = batch["attention_mask"]  # (B, S)
        last = hidden_states(model, batch["input_ids"], batch["token_type_ids"], real)[-1]  # (B, S, H)
        weights = (real / real.sum(1, keepdim=True))[:, :, None]  # (B, S, 1)
        with torch.no_grad():
            words = model.encoder.embeddings.token.weight.cpu()[batch["input_ids"]]  # (B, S, H)
        parts["cls"].append(last[:, 0])
        parts["mean"].append((last * weights).sum(1))
        parts["bag"].append((words * weights).sum(1))
    return {name: torch.cat(some) for name, some in parts.items()}


def _head(model: BertForPreTraining, batches: list[Batch]) -> Share:
    """Right answers of the model's own NSP head."""
    hits = count = 0
    device = next(model.parameters()).device
    with evaluation_mode(model):
        for b in (to_device(batch, device) for batch in batches):
            vectors = model.encoder(b["input_ids"], b["token_type_ids"], b["attention_mask"])  # (B, S, H)
            hits += int((model.nsp(vectors).argmax(-1) == b["next_sentence_label"]).sum())
            count += len(vectors)
    return share_of(hits, count)


def _ceiling(data: Data, batches: list[Batch]) -> Share | None:
    """Right answers of a reader who knows the tables of the language, where the text is drawn from one."""
    language = language_of(data)
    if language is None:
        return None
    odds = np.concatenate([next_log_odds(language, b["input_ids"], policy=None).numpy() for b in batches])
    right = torch.cat([b["next_sentence_label"] for b in batches]).numpy()
    return share_of(((odds > 0) == (right == IS_NEXT)).sum(), len(right))
