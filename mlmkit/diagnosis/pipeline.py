"""A small pre-training pipeline, in parts that can be exchanged one by one: material for `planted`.

It is a loop as one finds it in many places: sample documents, pair sentences, mask, run the model, take both losses,
update. The text is drawn from the course's language, the model is one layer of 32 numbers, and a run takes a second.

Shapes: P pairs, S sequence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.batches import Batch
from mlmkit.config import ModelConfig
from mlmkit.corpus import Corpus
from mlmkit.diagnosis.recorder import record
from mlmkit.language import language_named
from mlmkit.losses import mlm_loss, nsp_loss
from mlmkit.masking import MaskingPolicy, candidates, corrupt, mlm_labels, select
from mlmkit.model import BertForPreTraining
from mlmkit.pairs import IS_NEXT, IS_RANDOM
from mlmkit.tokenizer import Tokenizer, word_tokenizer

Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]
Document = list[list[int]]
"""Sentences of a document, each a list of token ids."""
DOCUMENTS = 100
BATCH_SIZE = 32
PEAK = 2e-3
POLICY = MaskingPolicy()


# From documents to pairs


def sample_documents(tokenizer: Tokenizer, number: int, rng: np.random.Generator) -> list[Document]:
    """Draw documents of six sentences of eight to twelve words from the course's language."""
    words, _ = dataclasses.replace(language_named("market"), lengths=(36, 36)).sample(number, rng)  # (D, 72)
    ids = tokenizer.ordinary_ids[words]
    return [[row[i : i + rng.integers(8, 13)].tolist() for i in range(0, 72, 12)] for row in ids]


def split(documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """Hold out every fifth document."""
    return [d for i, d in enumerate(documents) if i % 5], documents[::5]


@dataclass(frozen=True)
class Pair:
    """Two sentences, and whether B is the next one."""

    a: list[int]
    b: list[int]
    label: int


def pair(documents: list[Document], rng: np.random.Generator) -> list[Pair]:
    """Let B follow A in half of the pairs, and come from another document in the others."""
    pairs = []
    for d, document in enumerate(documents):
        for i in (0, 2, 4):
            if rng.random() < 0.5:
                pairs.append(Pair(document[i], document[i + 1], IS_NEXT))
            else:
                other = documents[(d + rng.integers(1, len(documents))) % len(documents)]
                pairs.append(Pair(document[i], other[rng.integers(6)], IS_RANDOM))
    return pairs


# From pairs to batches


def segments(second: Bools) -> Ints:
    """Give segment 1 to B and its [SEP], and 0 to the rest (P, S)."""
    return second.astype(np.int64)


def choose(x: Ints, tokenizer: Tokenizer, rng: np.random.Generator) -> Bools:
    """Select 15 % of the words (P, S)."""
    return select(candidates(x, tokenizer.special_ids), POLICY, rng)


def replace_words(x: Ints, selected: Bools, tokenizer: Tokenizer, rng: np.random.Generator) -> Ints:
    """Put in [MASK], a random word, or the word itself (P, S)."""
    ordinary = tokenizer.ordinary_ids
    return corrupt(x, selected, POLICY, rng, mask_id=tokenizer.mask_id, ordinary_ids=ordinary)


def label(x: Ints, corrupted: Ints, selected: Bools) -> Ints:
    """Ask for the true id at the selected positions (P, S)."""
    return mlm_labels(x, selected)


def mask_each_epoch(make: Callable[[], Batch]) -> Iterator[Batch]:
    """Mask the whole text anew for every epoch."""
    while True:
        yield make()


# The model


def build(counts: Ints) -> BertForPreTraining:
    """One layer of 32 numbers, with dropout; the decoder's bias starts at the log frequencies of the tokens (V,)."""
    model = BertForPreTraining(
        ModelConfig(
            vocab_size=len(counts),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            initializer_range=0.05,
        )
    )
    with torch.no_grad():
        model.mlm.decoder.bias.copy_(torch.from_numpy(np.log((counts + 1) / (counts + 1).sum())))
    return model


def train_mode(model: BertForPreTraining) -> None:
    """Before an update: dropout on."""
    model.train()


# Losses and updates


def losses(model: BertForPreTraining, batch: Batch) -> tuple[Tensor, Tensor]:
    """Both losses; the MLM loss looks at the labeled positions only."""
    output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    return mlm_loss(output.mlm_logits, batch["labels"]), nsp_loss(output.nsp_logits, batch["next_sentence_label"])


Losses = Callable[[BertForPreTraining, Batch], tuple[Tensor, Tensor]]


def update(model: BertForPreTraining, optimizer: torch.optim.Optimizer, batch: Batch, losses: Losses) -> None:
    """One backward pass of the sum, one step."""
    optimizer.zero_grad()
    mlm, nsp = losses(model, batch)
    (mlm + nsp).backward()
    optimizer.step()


def warm_up(step: int) -> float:
    """Rise to the peak in twenty updates."""
    return PEAK * min(1.0, (step + 1) / 20)


@dataclass(frozen=True)
class Pipeline:
    """The parts of the loop, in the order of the data, and how many updates show what it does."""

    split: Callable[[list[Document]], tuple[list[Document], list[Document]]] = split
    pair: Callable[[list[Document], np.random.Generator], list[Pair]] = pair
    segments: Callable[[Bools], Ints] = segments
    choose: Callable[[Ints, Tokenizer, np.random.Generator], Bools] = choose
    replace: Callable[[Ints, Bools, Tokenizer, np.random.Generator], Ints] = replace_words
    label: Callable[[Ints, Ints, Bools], Ints] = label
    epochs: Callable[[Callable[[], Batch]], Iterator[Batch]] = mask_each_epoch
    build: Callable[[Ints], BertForPreTraining] = build
    mode: Callable[[BertForPreTraining], None] = train_mode
    losses: Losses = losses
    update: Callable[[BertForPreTraining, torch.optim.Optimizer, Batch, Losses], None] = update
    rate: Callable[[int], float] = warm_up
    steps: int = 24


# The loop


def lay_out(pairs: list[Pair], tokenizer: Tokenizer, parts: Pipeline) -> dict[str, Ints]:
    """Write all pairs as `[CLS] A [SEP] B [SEP]`, padded to the longest (P, S)."""
    rows = [[tokenizer.cls_id, *p.a, tokenizer.sep_id, *p.b, tokenizer.sep_id] for p in pairs]
    S = max(map(len, rows))
    x = np.array([row + [tokenizer.pad_id] * (S - len(row)) for row in rows])
    at, end_of_a = np.arange(S), np.array([[len(p.a) + 1] for p in pairs])
    return {
        "true_ids": x,
        "token_type_ids": parts.segments((at > end_of_a) & (x != tokenizer.pad_id)),
        "attention_mask": (x != tokenizer.pad_id).astype(np.int64),
        "next_sentence_label": np.array([p.label for p in pairs]),
    }


def mask(text: dict[str, Ints], tokenizer: Tokenizer, parts: Pipeline, rng: np.random.Generator) -> Batch:
    """Select, corrupt, label."""
    x = text["true_ids"]
    selected = parts.choose(x, tokenizer, rng)
    corrupted = parts.replace(x, selected, tokenizer, rng)
    arrays = {**text, "input_ids": corrupted, "labels": parts.label(x, corrupted, selected)}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def batches(epochs: Iterator[Batch], rng: np.random.Generator) -> Iterator[Batch]:
    """Cut each epoch into batches, in an order of its own."""
    for everything in epochs:
        order = torch.from_numpy(rng.permutation(len(everything["input_ids"])))
        for rows in order.split(BATCH_SIZE):
            yield {name: values[rows] for name, values in everything.items()}


def run(parts: Pipeline, out_dir: Path, seed: int, steps: int) -> None:
    """Train with these parts, under a recorder that writes into `out_dir`."""
    rng = np.random.default_rng(seed)
    tokenizer = word_tokenizer(language_named("market").words)
    documents, held_out = parts.split(sample_documents(tokenizer, DOCUMENTS, rng))
    texts: dict[str, Iterable[list[str]]] = {
        name: [[" ".join(tokenizer.tokens(sentence)) for sentence in document] for document in some]
        for name, some in (("train", documents), ("validation", held_out))
    }
    corpus = Corpus.from_documents("planted", texts, out_dir / "corpus")
    text = lay_out(parts.pair(documents, rng), tokenizer, parts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = parts.build(np.bincount([t for d in documents for s in d for t in s], minlength=tokenizer.vocab_size))
        optimizer = torch.optim.AdamW(model.parameters())
        stream = batches(parts.epochs(lambda: mask(text, tokenizer, parts, rng)), rng)
        with record(model, optimizer, out_dir, tokenizer=tokenizer, policy=POLICY, corpus=corpus) as recorder:
            for step, batch in enumerate(recorder.watch(islice(stream, steps))):
                optimizer.param_groups[0]["lr"] = parts.rate(step)
                parts.mode(model)
                parts.update(model, optimizer, batch, parts.losses)
