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
from mlmkit.errors import UserError
from mlmkit.evaluation import Baselines, bigram_cross_entropy, unigram_counts, unigram_cross_entropy, unigram_entropy
from mlmkit.exact import IdealLosses, ideal_losses, is_solved
from mlmkit.exchange import import_hf
from mlmkit.history import History
from mlmkit.model import BertForPreTraining
from mlmkit.pairs import bigrams, token_ids, tokenize_corpus
from mlmkit.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer, train_wordpiece, word_tokenizer
from mlmkit.vocabulary import add_embeddings, add_words, frequent_words
from mlmkit.weights import read_json

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
        if language is None or not is_solved(self.config.masking):
            return None
        whole = sum(language.lengths) + 3 <= data.max_length and data.short_seq_prob == 0
        words = self.tokenizer.tokens(range(len(SPECIAL_TOKENS), self.tokenizer.vocab_size))
        if not whole or words != list(language.words):  # a checkpoint may bring another vocabulary
            return None
        batches = self.held_out(split, self.config.train.eval_batches)
        return ideal_losses(language, batches, self.config.masking)


def adopt(config: RunConfig) -> RunConfig:
    """Give a run that starts from a checkpoint the size of the checkpoint's network.

    Raises:
        UserError: there is no such checkpoint, or its sequences are shorter than `data.max_length`.
    """
    name = config.start.checkpoint
    if name is None:
        return config
    model = import_hf(name).model.config
    if config.data.max_length > model.max_position_embeddings:
        raise UserError(
            f"data.max_length {config.data.max_length} exceeds the {model.max_position_embeddings} positions "
            f"of {name}: lower it"
        )
    return replace(config, model=model)


def prepare(config: RunConfig, folder: Path, cache_dir: Path | None = None, corpus: Corpus | None = None) -> Data:
    """Load the corpus, learn or open the tokenizer, and tokenize.

    The vocabulary is learned from the training part, or taken from the checkpoint that the run starts from. That of
    an exact language is closed: its words are the tokens, and `data.vocab_size` is not used.

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
        tokenizer = _make_tokenizer(config, corpus)
        tokenizer.save(folder)
    return Data(config, corpus, tokenizer, tokenize_corpus(corpus, tokenizer, cache_dir / "tokens"))


def reopen(folder: Path, source: str | None = None, cache_dir: Path | None = None) -> Data:
    """Open what a run read, to judge its model.

    Args:
        folder: of the run.
        source: judge on another corpus, as `load_corpus` takes it.
        cache_dir: as in `prepare`.

    Raises:
        UserError: the run's corpus has changed since: its held-out parts may hold text of the training.
    """
    config = RunConfig.from_dict(read_json(folder / "run.json"))
    if source is not None:
        return prepare(replace(config, data=replace(config.data, corpus=source)), folder, cache_dir)
    data = prepare(config, folder, cache_dir)
    then, now = History.load(folder).corpus["fingerprint"], data.corpus.fingerprint
    if then != now:
        raise UserError(
            f"the corpus has changed since the run began (fingerprint {then}, now {now}): its held-out parts may hold "
            "text of the training; restore it, or name another corpus"
        )
    return data


def _make_tokenizer(config: RunConfig, corpus: Corpus) -> Tokenizer:
    data, start = config.data, config.start
    if start.checkpoint is not None:
        tokenizer = import_hf(start.checkpoint).tokenizer
        return add_words(tokenizer, frequent_words(tokenizer, Sentences(corpus["train"]), start.new_words))
    if corpus.language is not None:
        return word_tokenizer(corpus.language.words)
    return train_wordpiece(Sentences(corpus["train"]), data.vocab_size, data.lowercase)


def draw_model(config: RunConfig, data: Data) -> BertForPreTraining:
    """Draw a network of the run's size from its seed."""
    size = data.tokenizer.vocab_size
    if config.start.checkpoint is not None:  # it may have spare rows
        size = max(size, config.model.vocab_size)
    torch.manual_seed(config.train.seed)
    return BertForPreTraining(replace(config.model, vocab_size=size, pad_token_id=data.tokenizer.pad_id))


def build_model(config: RunConfig, data: Data) -> BertForPreTraining:
    """Draw the first weights from the run's seed, or take those of the checkpoint from which it starts.

    Drawn weights have the decoder's bias at the log frequencies if asked for. What a checkpoint lacks is drawn, and
    words that its vocabulary lacks begin as the mean of their pieces.
    """
    if config.start.checkpoint is not None:
        found = import_hf(config.start.checkpoint, seed=config.train.seed)
        return add_embeddings(found.model, found.tokenizer, data.tokenizer)
    model = draw_model(config, data)
    if config.train.output_bias:
        counts = torch.from_numpy(data.counts("train") + 1).double()
        with torch.no_grad():
            model.mlm.decoder.bias.copy_((counts / counts.sum()).log())
    return model
