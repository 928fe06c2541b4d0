"""What several test files build on: numbered words, small tokenizers, small models, random batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import tokenizers
import torch
from scipy.stats import binom
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor

from mlmkit.config import ModelConfig
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining
from mlmkit.pairs import Block
from mlmkit.tokenizer import SPECIAL_TOKENS, Tokenizer, train_wordpiece

FIRST = len(SPECIAL_TOKENS)
"""Id of the first ordinary token."""

ONE_IN_A_BILLION = 1e-9
"""How often an exact bound may fail by chance; the seeds are fixed, so a test that passes keeps passing."""


def within_binomial_bounds(count: int, n: int, p: float) -> bool:
    """Is a count of successes in n trials what probability p gives, but for one case in a billion?"""
    low, high = binom.interval(1 - ONE_IN_A_BILLION, n, p)
    return bool(low <= count <= high)


# --- text in which every token is unique, so that a token says where it comes from ---------------------------


def numbered_block(documents: Sequence[Sequence[int]]) -> Block:
    """Documents given by their sentences' lengths; the tokens are FIRST, FIRST + 1, … in the order of the text."""
    lengths = np.concatenate([np.asarray(d, dtype=np.int64) for d in documents])
    return Block(
        np.arange(FIRST, FIRST + lengths.sum(), dtype=np.int32),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([[0], np.cumsum([len(d) for d in documents])]).astype(np.int64),
    )


def numbered_table(documents: Sequence[Sequence[int]]) -> Any:
    """The same as a tokenized split."""
    from datasets import Dataset, Features, List, Value

    ids = np.split(numbered_block(documents).tokens, np.cumsum([sum(d) for d in documents])[:-1])
    columns = {"input_ids": ids, "sentence_lengths": [list(d) for d in documents]}
    return Dataset.from_dict(
        columns, features=Features({"input_ids": List(Value("int32")), "sentence_lengths": List(Value("int64"))})
    )


@cache
def numbered_tokenizer(size: int) -> Tokenizer:
    """A vocabulary of the special tokens and the whole words w0, w1, …: one for each numbered token."""
    vocabulary = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(size))]
    return tokenizer_of(vocabulary)


def tokenizer_of(vocabulary: Sequence[str]) -> Tokenizer:
    """A tokenizer with a given vocabulary; words are separated by spaces."""
    ids = {token: i for i, token in enumerate(vocabulary)}
    backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([token for token in SPECIAL_TOKENS if token in ids])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]") if token in ids],
    )
    return Tokenizer(backend)


def random_documents(rng: np.random.Generator, count: int, most: int = 8, mean: float = 2.3) -> list[list[int]]:
    """Documents of 1 to `most` sentences whose lengths vary as in prose (log-normal)."""
    return [
        np.maximum(1, rng.lognormal(mean, 0.6, rng.integers(1, most + 1))).astype(int).tolist() for _ in range(count)
    ]


# --- text that is text ---------------------------------------------------------------------------------------

SYLLABLES = ("ba", "de", "ki", "lo", "mu", "na", "po", "ri", "sta", "tre", "vi", "zen")


def prose(seed: int, sentences: int) -> list[str]:
    """Sentences of invented words, some frequent, most rare, with capitals, digits and punctuation."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(300)]
    p = 1 / np.arange(1, 301)
    found = [" ".join(rng.choice(words, rng.integers(3, 15), p=p / p.sum())) for _ in range(sentences)]
    return [f"{s.capitalize()}{rng.choice(['.', '?', ', 42.', ' (e.g.)'])}" for s in found]


@cache
def tiny_tokenizer(vocab_size: int = 200, lowercase: bool = True) -> Tokenizer:
    """A WordPiece tokenizer learned from `prose`."""
    return train_wordpiece(prose(0, 400), vocab_size, lowercase)


# --- models --------------------------------------------------------------------------------------------------


def small_config(**changes: Any) -> ModelConfig:
    """A network of a few thousand weights, without dropout."""
    return ModelConfig(
        **{
            "vocab_size": 50,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 32,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **changes,
        }
    )


def small_model(seed: int = 0, **changes: Any) -> BertForPreTraining:
    """A model with weights large enough that attention and both heads say something."""
    torch.manual_seed(seed)
    model = BertForPreTraining(small_config(**{"initializer_range": 0.3, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            assert torch.isfinite(parameter).all(), name
    return model.eval()


def random_batch(config: ModelConfig, lengths: Sequence[int], seed: int = 0) -> dict[str, Tensor]:
    """Pairs of random tokens with the given lengths, padded to the longest; 30 % of them are [MASK]."""
    rng = np.random.default_rng(seed)
    B, S = len(lengths), max(lengths)
    at, length = np.arange(S)[None], np.array(lengths)[:, None]
    real = at < length  # (B, S)
    true = np.where(real, rng.integers(FIRST, config.vocab_size, (B, S)), config.pad_token_id)
    selected = real & (rng.random((B, S)) < 0.3)
    selected[:, 1] = True
    arrays = {
        "input_ids": np.where(selected, SPECIAL_TOKENS.index("[MASK]"), true),
        "token_type_ids": (real & (at >= length // 2)).astype(np.int64),
        "attention_mask": real.astype(np.int64),
        "labels": np.where(selected, true, IGNORE),
        "next_sentence_label": rng.integers(0, 2, B),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
