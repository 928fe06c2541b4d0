"""A tiny BERT that knows a handful of sentences by heart."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from helpers import small_config

from mlmkit.losses import mlm_loss
from mlmkit.masking import IGNORE, MaskingPolicy, candidates, corrupt, mlm_labels, select
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer, word_tokenizer

SENTENCES = (
    "the early bird catches the worm",
    "the lazy dog sleeps on the warm floor",
    "a quick brown fox jumps over a fence",
    "every old door opens with some small key",
)


@cache
def memorized(steps: int = 250) -> tuple[BertForPreTraining, Tokenizer]:
    """Train on `SENTENCES` until most hidden words are found; two seconds. Leave the model as it is."""
    tokenizer = word_tokenizer(sorted({word for sentence in SENTENCES for word in sentence.split()}))
    rows = [tokenizer.pair_ids(sentence)[0] for sentence in SENTENCES]
    length = max(map(len, rows))
    x = np.array([row + [tokenizer.pad_id] * (length - len(row)) for row in rows])  # (B, S)
    real = torch.from_numpy((x != tokenizer.pad_id).astype(np.int64))
    policy, rng = MaskingPolicy(rate=0.3), np.random.default_rng(0)
    maskable = candidates(x, tokenizer.special_ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForPreTraining(small_config(vocab_size=tokenizer.vocab_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        chosen = select(maskable, policy, rng)
        ids = {"mask_id": tokenizer.mask_id, "ordinary_ids": tokenizer.ordinary_ids}
        corrupted = torch.from_numpy(corrupt(x, chosen, policy, rng, **ids))
        labels = torch.from_numpy(mlm_labels(x, chosen))
        selected = labels != IGNORE
        optimizer.zero_grad()
        output = model(corrupted, torch.zeros_like(corrupted), real, selected)
        mlm_loss(output.mlm_logits, labels[selected]).backward()
        optimizer.step()
    return model.eval(), tokenizer
