"""What a run reads and starts from: corpus, tokenizer, token tables, baselines, first weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mlmkit.batches import Batch, Batches
from mlmkit.config import RunConfig
from mlmkit.corpus import Corpus, cache_root, load_corpus
from mlmkit.evaluation import Baselines, bigram_cross_entropy, unigram_counts, unigram_cross_entropy, unigram_entropy
from mlmkit.exact import IdealLosses, ideal_losses, is_solved
from mlmkit.model import BertForPreTraining
from mlmkit.pairs import bigrams, token_ids, tokenize_corpus
from mlmkit.tokenizer import Tokenizer, load_tokenizer, train_wordpiece, word_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

EVALUATION_SEED = 1_000_003
"""Held-out pairs and masks are drawn from this seed in every run, so all evaluations see the same questions."""


@dataclass(frozen=True)
class Sentences:
    """All sentences of a split, read from disk anew each time one goes through them."""

    documents: Dataset

    def __iter__(self) -> Iterator[str]:
        return (sentence for document in self.documents for sentence in document["sentences"])


@dataclass(frozen=True)
class Data:
    """What a run reads: the corpus, its tokenizer, and the token tables of its parts."""

    config: RunConfig
    corpus: Corpus
    tokenizer: Tokenizer
    tables: dict[str, Dataset]

    def batches(self, split: str, seed: int) -> Batches:
        """All batches of "train", "validation" or "test"."""
        data = self.config.data
        return Batches(
            self.tables[split],
            self.tokenizer,
            self.config.masking,
            self.config.train.batch_size,
            data.max_length,
            seed,
            data.short_seq_prob,
            data.dynamic_masks,
        )

    def held_out(self, split: str, limit: int | None = None) -> Iterator[Batch]:
        """The batches of an evaluation: the same pairs and masks at every call, in every run, whatever its masks."""
        return islice(replace(self.batches(split, EVALUATION_SEED), dynamic_masks=True).epoch(0), limit)

    def counts(self, split: str) -> NDArray[np.int64]:
        """How often each ordinary token occurs in a part (V,)."""
        counts = unigram_counts(token_ids(self.tables[split]), self.tokenizer.vocab_size)
        counts[self.tokenizer.special_ids] = 0
        return counts

    def baselines(self, split: str) -> Baselines:
        """What a model must beat on a held-out part; on an exact language also what no model can beat."""
        counts = self.counts(split)
        floors = self._floors(split)
        return Baselines(
            uniform=math.log(self.tokenizer.vocab_size),
            unigram_cross_entropy=unigram_cross_entropy(counts, self.counts("train")),
            unigram_entropy=unigram_entropy(counts),
            bigram_cross_entropy=bigram_cross_entropy(
                bigrams(self.tables[split]), bigrams(self.tables["train"]), self.tokenizer.vocab_size
            ),
            mlm_floor=floors.mlm_loss.mean if floors else None,
            nsp_floor=floors.nsp_loss.mean if floors else None,
            nsp_optimum=floors.nsp_accuracy.mean if floors else None,
        )

    def _floors(self, split: str) -> IdealLosses | None:
        """The perfect predictor's losses on the held-out questions, where they can be computed."""
        language, data = self.corpus.language, self.config.data
        whole = language is not None and sum(language.lengths) + 3 <= data.max_length and data.short_seq_prob == 0
        if language is None or not whole or not is_solved(self.config.masking):
            return None
        batches = self.held_out(split, self.config.train.eval_batches)
        return ideal_losses(language, batches, self.config.masking)


def prepare(config: RunConfig, folder: Path, cache_dir: Path | None = None, corpus: Corpus | None = None) -> Data:
    """Load the corpus, learn or open the tokenizer, and tokenize.

    The vocabulary of an exact language is closed: its words are the tokens, and `data.vocab_size` is not used.

    Args:
        config: a whole run.
        folder: the tokenizer is kept in this folder, and opened from there if it exists.
        cache_dir: for corpora and token tables; default `cache_root()`.
        corpus: use this one instead of loading `config.data.corpus`.
    """
    data = config.data
    cache_dir = cache_dir or cache_root()
    if corpus is None:
        corpus = load_corpus(data.corpus, cache_dir=cache_dir, seed=data.seed, held_out=data.held_out)
    if (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(folder)
    else:
        if corpus.language is not None:
            tokenizer = word_tokenizer(corpus.language.words)
        else:
            tokenizer = train_wordpiece(Sentences(corpus["train"]), data.vocab_size, data.lowercase)
        tokenizer.save(folder)
    return Data(config, corpus, tokenizer, tokenize_corpus(corpus, tokenizer, cache_dir / "tokens"))


def build_model(config: RunConfig, data: Data) -> BertForPreTraining:
    """Draw the weights from the run's seed; the decoder's bias starts at the log frequencies if asked for."""
    torch.manual_seed(config.train.seed)
    model = BertForPreTraining(replace(config.model, vocab_size=data.tokenizer.vocab_size))
    if config.train.output_bias:
        counts = torch.from_numpy(data.counts("train") + 1).double()
        with torch.no_grad():
            model.mlm.decoder.bias.copy_((counts / counts.sum()).log())
    return model
