"""Examples → tensors: dynamic masks, batches of similar length, an order that can be resumed anywhere.

Nothing here has a state. The pairs of a block depend on (seed, epoch, block), the masks of a batch on
(seed, epoch, step): a resumed run sees exactly what the uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from mlmkit.masking import MaskingPolicy, mask, mlm_labels
from mlmkit.pairs import Block, Ints, Pairs, lay_out, make_pairs, read_block
from mlmkit.tokenizer import Tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

Batch = dict[str, Tensor]
"""`input_ids`, `token_type_ids`, `attention_mask`, `labels` (B, S) and `next_sentence_label` (B,), all int64:
Hugging Face's names, so `transformers.BertForPreTraining(**batch)` takes it as it is."""

T = TypeVar("T")
_PAIRS, _ORDER, _MASKS = range(3)  # streams of random numbers that must not meet


def collate(
    block: Block,
    pairs: Pairs,
    rows: Ints,
    tokenizer: Tokenizer,
    policy: MaskingPolicy,
    rng: np.random.Generator,
) -> Batch:
    """Lay out some pairs, choose A(x), corrupt, and label; the masks are new at each call.

    Args:
        block: where the tokens are.
        pairs: ranges of A and B.
        rows: which of them (B,).
        tokenizer: special and ordinary ids.
        policy: how to mask.
        rng: source of the masks.
    """
    input_ids, token_type_ids, real = lay_out(block, pairs, rows, tokenizer)  # (B, S)
    corrupted, selected = mask(
        input_ids,
        policy,
        rng,
        special_ids=tokenizer.special_ids,
        begins_word=~tokenizer.is_continuation[input_ids],
        mask_id=tokenizer.mask_id,
        ordinary_ids=tokenizer.ordinary_ids,
    )
    arrays = {
        "input_ids": corrupted,
        "token_type_ids": token_type_ids,
        "attention_mask": real.astype(np.int64),
        "labels": mlm_labels(input_ids, selected),
        "next_sentence_label": pairs.label[rows],
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@dataclass(frozen=True)
class Batches:
    """All batches of a tokenized split, epoch by epoch.

    Args:
        documents: a split from `tokenize_corpus`, in shuffled order.
        tokenizer: the one it was tokenized with.
        policy: how to mask.
        batch_size: pairs in a batch B; the last batch of a block may have fewer.
        max_length: longest pair S.
        seed: of pairs, order and masks.
        short_seq_prob: share of pairs with a random shorter target.
        dynamic_masks: new pairs and masks in each epoch; False: the same in each, in another order. The block is then
            masked as a whole and kept in memory.
        block_tokens: memory bound: pairs are planned for about so many tokens at a time.
        bucket: pairs are sorted by length within groups of so many batches.
    """

    documents: Dataset
    tokenizer: Tokenizer
    policy: MaskingPolicy
    batch_size: int
    max_length: int
    seed: int
    short_seq_prob: float = 0.1
    dynamic_masks: bool = True
    block_tokens: int = 2**24
    bucket: int = 32

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on; skipped ones cost only the planning of pairs."""
        step = 0
        for number, (first, stop) in enumerate(self._block_bounds()):
            block = read_block(self.documents, first, stop)
            drawn_in = epoch if self.dynamic_masks else 0
            pairs = make_pairs(block, self.max_length, self._rng(_PAIRS, drawn_in, number), self.short_seq_prob)
            masked = None if self.dynamic_masks else self._masked_once(block, pairs, number)
            for rows in self._order(pairs, self._rng(_ORDER, epoch, number)):
                if step >= start:
                    rng = self._rng(_MASKS, epoch, step)
                    yield _rows(masked, rows) if masked else self._collate(block, pairs, rows, rng)
                step += 1

    def _collate(self, block: Block, pairs: Pairs, rows: Ints, rng: np.random.Generator) -> Batch:
        return collate(block, pairs, rows, self.tokenizer, self.policy, rng)

    def _masked_once(self, block: Block, pairs: Pairs, number: int) -> Batch:
        """All pairs of a block as one batch, with masks that depend on the seed and the block alone."""
        return self._collate(block, pairs, np.arange(len(pairs)), self._rng(_MASKS, 0, number))

    def forever(self, epoch: int = 0, step: int = 0) -> Generator[tuple[int, int, Batch], None, None]:
        """Yield (epoch, step in the epoch, batch) without end, from a given place on."""
        while True:
            for batch in self.epoch(epoch, step):
                yield epoch, step, batch
                step += 1
            epoch, step = epoch + 1, 0

    def _rng(self, stream: int, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, *place])

    def _block_bounds(self) -> list[tuple[int, int]]:
        """Cut the documents into equal runs of about `block_tokens` tokens, each with two that make pairs."""
        rows = self.documents.with_format("arrow")

        def total(column: str, least: int = 0) -> Ints:
            """Running sum of the lengths, or of how many are at least `least`; tokens are not read."""
            parts = [
                chunk.value_lengths().to_numpy(zero_copy_only=False)
                for start in range(0, len(rows), 100_000)
                for chunk in rows[start : start + 100_000][column].chunks
            ]
            lengths = np.concatenate([np.zeros(1, dtype=np.int64), *parts])
            return np.cumsum(lengths >= least if least else lengths, dtype=np.int64)  # (documents + 1,)

        tokens, usable = total("input_ids"), total("sentence_lengths", least=2)
        blocks = max(1, round(int(tokens[-1]) / self.block_tokens))
        cuts = [0]
        for cut in np.searchsorted(tokens, tokens[-1] * np.arange(1, blocks) / blocks).tolist():
            if usable[cut] - usable[cuts[-1]] >= 2 and usable[-1] - usable[cut] >= 2:
                cuts.append(cut)
        return list(pairwise([*cuts, len(rows)]))

    def _order(self, pairs: Pairs, rng: np.random.Generator) -> list[Ints]:
        """Rows of each batch: shuffled, sorted by length within groups, batches shuffled again."""
        order = rng.permutation(len(pairs))
        group = self.batch_size * self.bucket
        batches: list[Ints] = []
        for begin in range(0, len(order), group):
            rows = order[begin : begin + group]
            rows = rows[np.argsort(pairs.lengths[rows], kind="stable")]
            batches += np.split(rows, range(self.batch_size, len(rows), self.batch_size))
        return [batches[i] for i in rng.permutation(len(batches))]


def _rows(batch: Batch, rows: Ints, multiple_of: int = 8) -> Batch:
    """Some rows of a batch, without the columns that are padding in all of them but for a multiple of 8."""
    some = {name: tensor[torch.from_numpy(rows)] for name, tensor in batch.items()}
    longest = int(some["attention_mask"].sum(1).max())
    S = -(-longest // multiple_of) * multiple_of
    return {name: tensor[:, :S] if tensor.dim() == 2 else tensor for name, tensor in some.items()}


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> Batch:
    """Copy a batch to the device; to a GPU from pinned memory, without waiting."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in batch.items()}
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}


def fingerprint(batch: Mapping[str, Tensor]) -> str:
    """Twelve hex digits that identify a batch's content."""
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(batch):
        digest.update(f"{name} {tuple(batch[name].shape)}".encode())
        digest.update(batch[name].cpu().numpy().tobytes())
    return digest.hexdigest()


def prefetch(items: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """Prepare the next items in a thread while the current one is in use; errors come out where the item would."""
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, daemon=True, name="mlmkit-prefetch")
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
