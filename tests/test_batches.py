"""Batches: new masks at every visit, an order that can be resumed anywhere, and hardly any padding.

Each token of the text is a number of its own, so a batch says where its tokens come from.
"""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    FIRST,
    numbered_block,
    numbered_table,
    numbered_tokenizer,
    random_documents,
    small_config,
    tokenizer_of,
    within_binomial_bounds,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlmkit.batches import Batch, Batches, collate, fingerprint, prefetch, to_device
from mlmkit.errors import UserError
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.pairs import make_pairs, read_block
from mlmkit.tokenizer import SPECIAL_TOKENS

MASK = SPECIAL_TOKENS.index("[MASK]")


def plan(documents: list[list[int]], **changes: Any) -> Batches:
    """All batches of numbered documents."""
    size = sum(map(sum, documents))
    settings_ = {"policy": MaskingPolicy(), "batch_size": 8, "max_length": 48, "seed": 0, **changes}
    return Batches(numbered_table(documents), numbered_tokenizer(size), **settings_)


def documents(seed: int = 0, count: int = 120, most: int = 12) -> list[list[int]]:
    return random_documents(np.random.default_rng(seed), count, most)


def true_ids(batch: Batch) -> Tensor:
    """x, put together from x̄ and the labels."""
    return torch.where(batch["labels"] == IGNORE, batch["input_ids"], batch["labels"])


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- one batch -----------------------------------------------------------------------------------------------


def test_a_batch_has_the_names_shapes_and_types_that_transformers_expects() -> None:
    for batch in plan(documents()).epoch(0):
        B, S = batch["input_ids"].shape
        shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
        wide = ("input_ids", "token_type_ids", "attention_mask", "labels")
        assert shapes == {**dict.fromkeys(wide, (B, S)), "next_sentence_label": (B,)}
        assert all(tensor.dtype == torch.int64 for tensor in batch.values())
        assert 1 <= B <= 8
        assert S % 8 == 0
        assert S - 8 < batch["attention_mask"].sum(1).max() <= 48


def test_transformers_takes_a_batch_as_it_is() -> None:
    from transformers import BertConfig, BertForPreTraining

    batches = plan(documents())
    config = small_config(vocab_size=batches.tokenizer.vocab_size, max_position_embeddings=48)
    model = BertForPreTraining(BertConfig(**vars(config)))
    batch = next(batches.epoch(0))
    output = model(**batch)
    assert output.prediction_logits.shape == (*batch["input_ids"].shape, config.vocab_size)
    assert torch.isfinite(output.loss)


def test_padding_is_never_attended_to_selected_or_in_segment_b() -> None:
    found_padding = 0
    for batch in plan(documents()).epoch(0):
        padding = batch["attention_mask"] == 0
        found_padding += int(padding.sum())
        assert (batch["input_ids"] == 0).eq(padding).all()
        assert (batch["labels"][padding] == IGNORE).all()
        assert (batch["token_type_ids"][padding] == 0).all()
    assert found_padding


def test_labels_are_the_true_tokens_where_something_is_predicted() -> None:
    """A and B are pieces of running text, so with the labels put back each is a run of consecutive numbers."""
    for batch in plan(documents()).epoch(0):
        for ids, segments, mask in zip(true_ids(batch), batch["token_type_ids"], batch["attention_mask"], strict=True):
            for segment in (0, 1):
                run = ids[(segments == segment) & (mask == 1) & (ids >= FIRST)]
                assert len(run)
                assert torch.equal(run, torch.arange(int(run[0]), int(run[0]) + len(run)))


def test_the_next_sentence_label_is_0_where_b_comes_from_the_document_of_a() -> None:
    found = documents()
    ends = torch.from_numpy(np.cumsum([sum(d) for d in found]) + FIRST)
    for batch in plan(found).epoch(0):
        ids = true_ids(batch)
        a = ids[:, 1].contiguous()
        b = torch.stack([row[segments == 1][0] for row, segments in zip(ids, batch["token_type_ids"], strict=True)])
        of_a, of_b = (torch.searchsorted(ends, token, right=True) for token in (a, b))
        assert torch.equal(batch["next_sentence_label"], (of_a != of_b).long())


def test_whole_words_and_spans_are_masked_as_wholes_in_a_batch() -> None:
    """Words of three pieces: "word" selects all three; "span" also gives all pieces of a span one fate."""
    vocabulary = [*SPECIAL_TOKENS, *(f"{'##' * (i % 3 > 0)}w{i}" for i in range(300))]
    block = numbered_block([[30, 30, 30, 30, 30]] * 2)
    pairs = make_pairs(block, 128, np.random.default_rng(0))
    rows = np.arange(len(pairs)).repeat(40)
    for unit in ("word", "span"):
        policy = MaskingPolicy(rate=0.3, unit=unit, span_max=4)  # type: ignore[arg-type]
        batch = collate(block, pairs, rows, tokenizer_of(vocabulary), policy, np.random.default_rng(0))
        selected, true = batch["labels"] != IGNORE, true_ids(batch)
        word = torch.where(true >= FIRST, (true - FIRST) // 3, -1)
        inside = (word[:, 1:] == word[:, :-1]) & (word[:, 1:] >= 0)
        assert (selected[:, 1:] == selected[:, :-1])[inside].all()
        one_fate = ((batch["input_ids"] == MASK)[:, 1:] == (batch["input_ids"] == MASK)[:, :-1])[
            inside & selected[:, 1:]
        ]
        assert bool(one_fate.all()) == (unit == "span")


# --- the same again, and never the same twice ----------------------------------------------------------------


@pytest.mark.parametrize("block_tokens", [2**24, 1500])
def test_starting_at_step_k_equals_skipping_k_batches(block_tokens: int) -> None:
    batches = plan(documents(count=80), block_tokens=block_tokens)
    whole = list(batches.epoch(3))
    assert len(whole) > 10
    for k in (0, 1, 5, len(whole) - 1, len(whole), len(whole) + 3):
        rest = list(batches.epoch(3, start=k))
        assert len(rest) == max(len(whole) - k, 0)
        assert all(same(a, b) for a, b in zip(whole[k:], rest, strict=True))


def test_a_batch_depends_on_seed_epoch_and_step_alone() -> None:
    """An object made anew, read in another order: the same batches."""
    found = documents()
    first = [list(islice(plan(found, seed=5).epoch(e), 3)) for e in (0, 1)]
    second = [list(islice(plan(found, seed=5).epoch(e), 3)) for e in (1, 0)][::-1]
    assert all(same(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def test_epochs_and_seeds_differ() -> None:
    found = documents()
    prints = [
        fingerprint(batch) for seed in (0, 1) for epoch in (0, 1) for batch in plan(found, seed=seed).epoch(epoch)
    ]
    assert len(set(prints)) == len(prints)


def test_the_same_pairs_get_new_masks_at_every_visit() -> None:
    """Dynamic masking: over many visits each token is predicted at some."""
    block = numbered_block(documents())
    pairs = make_pairs(block, 48, np.random.default_rng(0))
    rows, tokenizer = np.arange(16), numbered_tokenizer(len(block.tokens))
    visits = [
        collate(block, pairs, rows, tokenizer, MaskingPolicy(), np.random.default_rng(visit)) for visit in range(100)
    ]
    for visit in visits[1:]:
        assert torch.equal(true_ids(visit), true_ids(visits[0]))
        assert not torch.equal(visit["labels"], visits[0]["labels"])
    ever = torch.stack([visit["labels"] != IGNORE for visit in visits]).any(0)
    assert ever[true_ids(visits[0]) >= FIRST].all()  # missed with probability 0.85¹⁰⁰ = 9·10⁻⁸ each


def test_every_batch_of_every_epoch_draws_its_masks_anew() -> None:
    """Batches of pairs that are all equally long: were the draws the same, so would be the places."""
    batches = plan([[9, 9]] * 80, max_length=24)
    every = [batch["labels"] for epoch in range(3) for batch in islice(batches.epoch(epoch), 10)]
    full = [labels for labels in every if labels.shape == (8, 24)]  # all but the last batch of an epoch
    assert len(full) > 25
    assert len({(labels != IGNORE).numpy().tobytes() for labels in full}) == len(full)


def test_every_epoch_cuts_the_documents_anew_and_in_another_order() -> None:
    batches = plan(documents())
    rows = [[tuple(ids[mask == 1].tolist()) for b in batches.epoch(e) for ids, mask in seen(b)] for e in (0, 1)]
    assert len(set(rows[0]) & set(rows[1])) < len(rows[0]) / 2
    whole = plan([[9, 9]] * 80)  # here the true pairs are the same in each epoch
    firsts = [torch.cat([true_ids(b)[:, 1] for b in whole.epoch(e)]).tolist()[:50] for e in (0, 1)]
    assert firsts[0] != firsts[1]


def seen(batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(true_ids(batch), batch["attention_mask"], strict=True)


def test_without_end_means_epoch_after_epoch_from_any_place() -> None:
    batches = plan(documents(count=20))
    length = len(list(batches.epoch(0)))
    places, found = [], []
    for epoch, step, batch in islice(batches.forever(), length * 3):
        places.append((epoch, step))
        found.append(batch)
    assert places[length - 1] == (0, length - 1)
    assert places[length] == (1, 0)
    epochs = [batch for epoch in (0, 1, 2) for batch in batches.epoch(epoch)]
    assert all(same(a, b) for a, b in zip(found, epochs, strict=False))
    at = length + 2
    for (epoch, step), (e, s, batch) in zip(places[at:], batches.forever(*places[at]), strict=False):
        assert (epoch, step) == (e, s)
        assert same(batch, found[at])
        at += 1


# --- blocks: the corpus need not fit into memory -------------------------------------------------------------


def sentences_seen(batches: Batches, found: list[list[int]]) -> Counter[int]:
    """How often each sentence occurs in an A or in the B that follows it."""
    ends = np.cumsum(np.concatenate([np.asarray(d) for d in found])) + FIRST
    counts: Counter[int] = Counter()
    for batch in batches.epoch(0):
        ids, segments, relation = true_ids(batch), batch["token_type_ids"], batch["next_sentence_label"]
        own = (ids >= FIRST) & ((segments == 0) | (relation == 0)[:, None])
        for row, mask in zip(ids.numpy(), own.numpy(), strict=True):
            counts.update(set(np.searchsorted(ends, row[mask], side="right").tolist()))
    return counts


@pytest.mark.parametrize("block_tokens", [2**24, 600, 200, 1])
def test_every_sentence_is_seen_in_an_epoch_however_small_the_blocks(block_tokens: int) -> None:
    """Documents of at least two sentences that fit into a pair, so that nothing is trimmed away."""
    found = [d for d in documents(count=200, most=4) if len(d) >= 2 and sum(d) <= 60]
    batches = plan(found, block_tokens=block_tokens, max_length=160)
    counts = sentences_seen(batches, found)
    assert set(counts) == set(range(sum(map(len, found))))
    assert np.mean(list(counts.values())) < 2  # a last sentence left alone comes back now and then
    if block_tokens < 2**24:
        assert len(batches._block_bounds()) > 5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), max_size=30), st.integers(1, 60))
def test_blocks_follow_each_other_and_each_can_make_pairs(found: list[list[int]], block_tokens: int) -> None:
    found = [[1, 2], *found, [3, 1]]
    bounds = plan(found, block_tokens=block_tokens)._block_bounds()
    assert bounds[0][0] == 0
    assert bounds[-1][1] == len(found)
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    for first, stop in bounds:
        assert sum(len(d) >= 2 for d in found[first:stop]) >= 2


def test_blocks_are_about_as_large_as_asked_and_the_last_is_no_left_over() -> None:
    found = documents(count=400)
    batches = plan(found, block_tokens=3000)
    sizes = [len(read_block(batches.documents, *bounds).tokens) for bounds in batches._block_bounds()]
    longest = max(map(sum, found))
    assert len(sizes) > 5
    assert max(sizes) - min(sizes) <= 2 * longest
    assert abs(np.mean(sizes) - 3000) < 300


def test_the_memory_of_an_epoch_depends_on_the_block_not_on_the_corpus() -> None:
    """Four times the text, the same peak but for a tenth: what is kept per document is a few numbers."""

    def peak(count: int) -> int:
        batches = plan(documents(count=count), block_tokens=8000)
        next(batches.epoch(0))  # what is imported and cached once does not count
        tracemalloc.start()
        try:
            for _ in islice(batches.epoch(0), 30):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1600) < 1.1 * peak(400)


def test_a_corpus_without_pairs_says_what_it_needs() -> None:
    for found in ([[3, 3]], [[3], [4]]):
        with pytest.raises(UserError, match="two documents with two sentences each"):
            next(plan(found).epoch(0))
    nothing = replace(plan([[3, 3]]), documents=numbered_table([[3, 3]]).select([]))
    with pytest.raises(UserError, match="of 0 documents 0 have two"):
        next(nothing.epoch(0))


# --- masked once and for all ---------------------------------------------------------------------------------


def examples(batches: Batches, epoch: int) -> list[str]:
    """The examples of an epoch in order, each without its padding, so that it can be told from the others."""
    found = []
    for batch in batches.epoch(epoch):
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            wide = [batch[name][row, :length].tolist() for name in ("input_ids", "token_type_ids", "labels")]
            found.append(f"{wide} {int(batch['next_sentence_label'][row])}")
    return found


@pytest.mark.parametrize("block_tokens", [2**24, 1500])
def test_static_masks_show_the_same_examples_in_every_epoch_in_another_order(block_tokens: int) -> None:
    batches = plan(documents(), dynamic_masks=False, block_tokens=block_tokens)
    first, second = examples(batches, 0), examples(batches, 1)
    assert sorted(first) == sorted(second)
    assert first != second
    together = [{fingerprint(batch) for batch in batches.epoch(epoch)} for epoch in (0, 1)]
    # in a block of few pairs the shortest may meet again: they are sorted by length
    assert len(together[0] & together[1]) < len(together[0]) / 20, "other examples should meet in a batch"
    other_seed = examples(replace(batches, seed=1), 0)
    assert len(set(first) & set(other_seed)) < len(first) / 20  # a short pair may be cut and masked alike by chance


def test_dynamic_masks_hardly_ever_show_an_example_twice() -> None:
    """Only a pair of a few tokens can be drawn and masked alike twice."""
    batches = plan(documents())
    first, second = examples(batches, 0), examples(batches, 1)
    assert len(set(first) & set(second)) < 0.02 * len(first)


def test_static_examples_are_masked_as_the_policy_says_and_padded_no_more_than_needed() -> None:
    policy = MaskingPolicy(rate=0.3, count="binomial")
    batches = list(plan(documents(count=400), policy=policy, dynamic_masks=False).epoch(3))
    words = sum(int((true_ids(b) >= FIRST).sum()) for b in batches)
    selected = sum(int((b["labels"] != IGNORE).sum()) for b in batches)
    assert within_binomial_bounds(selected, words, 0.3)
    for batch in batches:
        S = batch["input_ids"].shape[1]
        assert S % 8 == 0
        assert S - 8 < batch["attention_mask"].sum(1).max() <= S


def test_a_static_epoch_goes_on_from_any_step() -> None:
    batches = plan(documents(), dynamic_masks=False, block_tokens=1500)
    whole = list(batches.epoch(1))
    for start in (0, 1, len(whole) // 2, len(whole)):
        rest = list(batches.epoch(1, start))
        assert len(rest) == len(whole) - start
        assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))


# --- order ---------------------------------------------------------------------------------------------------


def test_an_epoch_holds_every_pair_once_in_full_batches_but_one() -> None:
    batches = plan(documents(), bucket=4)
    pairs = make_pairs(
        read_block(batches.documents, 0, 10**6), 48, batches._rng(0, 0, 0), batches.short_seq_prob
    )  # the pairs of block 0 in epoch 0
    sizes = Counter(len(batch["input_ids"]) for batch in batches.epoch(0))
    assert sum(size * n for size, n in sizes.items()) == len(pairs)
    assert sizes[8] == len(pairs) // 8
    rows = np.concatenate(batches._order(pairs, np.random.default_rng(0)))
    assert sorted(rows.tolist()) == list(range(len(pairs)))


def test_sorting_by_length_within_groups_saves_most_of_the_padding() -> None:
    found = documents(count=600)

    def padding(bucket: int) -> float:
        masks = [batch["attention_mask"] for batch in plan(found, max_length=128, bucket=bucket).epoch(0)]
        return 1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)

    bucketed, random_order = padding(32), padding(1)
    assert random_order > 0.2
    assert bucketed < random_order / 2


def test_short_and_long_batches_come_mixed() -> None:
    """Sorting alone would train on short pairs first: along an epoch, lengths are uncorrelated."""
    batches = plan(documents(count=600), max_length=128, bucket=1000)  # one group holds them all
    widths = [batch["input_ids"].shape[1] for batch in batches.epoch(0)]
    assert len(set(widths)) > 3
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 5 / len(widths) ** 0.5  # standard errors


# --- in the background ---------------------------------------------------------------------------------------


def producers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mlmkit-prefetch"]


def test_prefetching_keeps_the_order_and_ends() -> None:
    for depth in (1, 4, 100):
        assert list(prefetch(range(50), depth)) == list(range(50))
    assert list(prefetch([])) == []
    assert not producers()


def test_prefetching_works_ahead_but_not_further_than_its_depth() -> None:
    """With one item in use and three in the queue, one more waits in the producer's hand."""
    made = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    ahead = prefetch(items(), depth=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 10
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3, 4]
    ahead.close()  # type: ignore[attr-defined]


def test_an_error_comes_out_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise UserError("the third is missing")

    ahead = prefetch(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(UserError, match="the third is missing"):
        next(ahead)
    assert not producers()


def test_closing_the_iterator_stops_the_thread() -> None:
    """Also one that waits before a full queue."""

    def endless() -> Iterator[int]:
        i = 0
        while True:
            yield i
            i += 1

    ahead = prefetch(endless(), depth=1)
    assert next(ahead) == 0
    assert len(producers()) == 1
    ahead.close()  # type: ignore[attr-defined]
    assert not producers()


def test_prefetched_batches_are_the_batches() -> None:
    batches = plan(documents(count=30))
    assert [fingerprint(b) for b in prefetch(batches.epoch(0))] == [fingerprint(b) for b in batches.epoch(0)]


# --- identity and device -------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_fingerprint_changes_with_any_element(data: st.DataObject) -> None:
    batch = first_batch()
    name = data.draw(st.sampled_from(sorted(batch)))
    place = tuple(data.draw(st.integers(0, size - 1)) for size in batch[name].shape)
    changed = {key: tensor.clone() for key, tensor in batch.items()}
    assert fingerprint(changed) == fingerprint(batch)
    changed[name][place] += 1
    assert fingerprint(changed) != fingerprint(batch)
    assert len(fingerprint(batch)) == 12


def first_batch() -> Batch:
    return next(plan([[5, 6], [7, 8], [3, 3, 3]]).epoch(0))


def test_a_fingerprint_knows_names_and_shapes_but_not_the_order_of_the_names() -> None:
    batch = first_batch()
    print_ = fingerprint(batch)
    assert fingerprint(dict(reversed(batch.items()))) == print_
    assert fingerprint({**batch, "input_ids": batch["input_ids"].reshape(-1)}) != print_
    swapped = {**batch, "labels": batch["input_ids"], "input_ids": batch["labels"]}
    assert fingerprint(swapped) != print_


def test_moving_a_batch_to_a_device_keeps_its_content() -> None:
    batch = first_batch()
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    for device in devices:
        moved = to_device(batch, device)
        assert all(tensor.device.type == device.type for tensor in moved.values())
        assert fingerprint(moved) == fingerprint(batch)
