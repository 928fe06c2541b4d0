"""What the looks share: text laid out for a model, what goes in and out of its parts, fresh weights, clean text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mlmkit.batches import Batch
from mlmkit.errors import UserError
from mlmkit.evaluation import evaluation_mode
from mlmkit.language import Language
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining
from mlmkit.preparation import Data
from mlmkit.tokenizer import SPECIAL_TOKENS, Tokenizer

Text = str | Sequence[int]
"""A text, or the ids of a whole sequence as they are, [CLS] and [SEP] included."""


def lay_out_text(
    model: BertForPreTraining, tokenizer: Tokenizer, a: Text, b: str | None = None
) -> tuple[Tensor, Tensor]:
    """Lay out `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` as one row.

    In a list of ids, segment 0 ends with the first [SEP].

    Returns:
        input_ids and token_type_ids (1, S), on the CPU.

    Raises:
        UserError: the sequence is empty or too long, an id is not in the vocabulary, or ids come with a second text.
    """
    if isinstance(a, str):
        ids, segments = tokenizer.pair_ids(a, b)
    elif b is not None:
        raise UserError("ids are a whole sequence already: leave the second text away, or give both as text")
    else:
        ids = [int(i) for i in a]
        first = ids.index(tokenizer.sep_id) if tokenizer.sep_id in ids else len(ids)
        segments = [int(i > first) for i in range(len(ids))]
    limit, known = model.config.max_position_embeddings, model.config.vocab_size
    if not 0 < len(ids) <= limit:
        raise UserError(f"a sequence has 1 to {limit} tokens in this model, [CLS] and [SEP] included; got {len(ids)}")
    if not all(0 <= i < known for i in ids):
        raise UserError(f"ids go from 0 to {known - 1} in this model, got {min(ids)} to {max(ids)}: another tokenizer?")
    return torch.tensor([ids]), torch.tensor([segments])  # (1, S)


@contextmanager
def overheard(modules: Iterable[nn.Module]) -> Iterator[list[tuple[tuple[Any, ...], Tensor]]]:
    """Listen while a block runs: a list that fills with (what went in, what came out), call by call."""
    heard: list[tuple[tuple[Any, ...], Tensor]] = []
    hooks = [m.register_forward_hook(lambda _, args, output: heard.append((args, output))) for m in modules]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def hidden_states(
    model: BertForPreTraining, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """What enters the encoder, and what each layer makes of it (L + 1, B, S, H); without dropout, on the CPU.

    The same as `hidden_states` of `transformers`: number 0 is the sum of embeddings after its layer norm.
    """
    device = next(model.parameters()).device
    real = None if attention_mask is None else attention_mask.to(device)
    with evaluation_mode(model), overheard([model.encoder.embeddings, *model.encoder.layers]) as heard:
        model.encoder(input_ids.to(device), token_type_ids.to(device), real)
    return torch.stack([output.float().cpu() for _, output in heard])  # (L + 1, B, S, H)


def untrained(model: BertForPreTraining, seed: int = 0) -> BertForPreTraining:
    """Draw the same network anew: what it shows without any training is no merit of the training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = BertForPreTraining(model.config)
    return fresh.to(next(model.parameters()).device).eval()


def clean(batch: Batch) -> Batch:
    """Put the true tokens back in the place of masks and random words; nothing is left to predict."""
    true = torch.where(batch["labels"] == IGNORE, batch["input_ids"], batch["labels"])  # (B, S)
    return {**batch, "input_ids": true, "labels": torch.full_like(true, IGNORE)}


def clean_pairs(data: Data, split: str, pairs: int) -> list[Batch]:
    """About so many sentence pairs of a held-out part, clean: the same at every call, all of them if there are fewer.

    Raises:
        UserError: fewer than one pair is asked for.
    """
    if pairs < 1:
        raise UserError(f"a probe needs at least one pair, got {pairs}")
    return [clean(batch) for batch in data.held_out(split, math.ceil(pairs / data.config.train.batch_size))]


def language_of(data: Data) -> Language | None:
    """Tell of which language the pairs are, whole and in its own words; None if it is not known."""
    language, cut = data.corpus.language, data.config.data
    if language is None or sum(language.lengths) + 3 > cut.max_length or cut.short_seq_prob > 0:
        return None
    words = data.tokenizer.tokens(range(len(SPECIAL_TOKENS), data.tokenizer.vocab_size))
    return language if words == list(language.words) else None
