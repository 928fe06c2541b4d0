"""What a batch gives away: each fault is named from the numbers alone, and healthy batches raise nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FIRST, numbered_tokenizer, prose, tiny_tokenizer

from mlmkit.batches import Batches
from mlmkit.corpus import Corpus
from mlmkit.diagnosis.batch import diagnose_batch
from mlmkit.diagnosis.chance import FALSE_ALARM, needed, surprising, surprising_together
from mlmkit.diagnosis.findings import FAULTS, Diagnosis, check, found, merge
from mlmkit.diagnosis.rows import special_ids
from mlmkit.errors import UserError
from mlmkit.language import language_named
from mlmkit.masking import IGNORE, MaskingPolicy, candidates, corrupt, mlm_labels, select, units
from mlmkit.pairs import tokenize_corpus
from mlmkit.tokenizer import SPECIAL_TOKENS, Tokenizer, word_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
BERT = MaskingPolicy()
MARKET = language_named("market")
TOKENIZER = word_tokenizer(MARKET.words)
SPECIALS = np.arange(FIRST)
SEEDS = range(3)
BATCH_FAULTS = {
    "labels_outside_selection",
    "specials_selected",
    "no_attention_mask",
    "random_from_specials",
    "static_masks",
    "labels_after_corruption",
    "segments_all_zero",
    "nsp_labels_constant",
    "nsp_negatives_from_same_document",
}

Arrays = dict[str, np.ndarray]


def sentences(documents: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """First and second sentences of documents of the market language, as ids."""
    words = MARKET.sample(documents, rng)[0] + FIRST
    return words[:, : MARKET.lengths[0]], words[:, MARKET.lengths[0] :]


def pairs(rng: np.random.Generator, rows: int = 32) -> Arrays:
    """[CLS] A [SEP] B [SEP] and padding: the end of B is cut off at a random place."""
    a, b = sentences(rows, rng)
    label = rng.integers(0, 2, rows)
    b = np.where(label[:, None] == 1, sentences(rows, rng)[1], b)
    length = rng.integers(5, b.shape[1] + 1, (rows, 1))
    x = np.full((rows, 32), PAD)
    at = np.arange(32)
    x[:, 0] = CLS
    x[:, 1:15], x[:, 15], x[:, 16:30] = a, SEP, b
    x[:, 16:] = np.where(at[16:] < 16 + length, x[:, 16:], PAD)
    x[np.arange(rows), 16 + length[:, 0]] = SEP
    real = at <= 16 + length
    segments = (real & (at >= 16)).astype(int)
    return {"x": x, "attention_mask": real.astype(int), "token_type_ids": segments, "next_sentence_label": label}


def mask(
    rows: Arrays,
    rng: np.random.Generator,
    policy: MaskingPolicy = BERT,
    maskable: np.ndarray | None = None,
    replacements: np.ndarray | None = None,
) -> Arrays:
    """Corrupt rows: the batch that a healthy pipeline hands to the model, and x beside it."""
    x = rows["x"]
    maskable = candidates(x, SPECIALS) if maskable is None else maskable
    unit_of = units(maskable, policy, rng, starts_word=np.ones_like(maskable))
    selected = select(maskable, policy, rng, unit_of=unit_of)
    ordinary = TOKENIZER.ordinary_ids if replacements is None else replacements
    together = unit_of if policy.unit == "span" else None  # a span shares its fate
    corrupted = corrupt(x, selected, policy, rng, mask_id=MASK, ordinary_ids=ordinary, unit_of=together)
    return {**rows, "input_ids": corrupted, "labels": mlm_labels(x, selected)}


def healthy(seed: int, rows: int = 32, policy: MaskingPolicy = BERT) -> Arrays:
    rng = np.random.default_rng(seed)
    return mask(pairs(rng, rows), rng, policy)


def handed_over(batch: Arrays) -> Arrays:
    """A batch as the model sees it: without x."""
    return {name: array for name, array in batch.items() if name != "x"}


def faults(batches: Any, policy: MaskingPolicy = BERT, **options: Any) -> tuple[str, ...]:
    several = [handed_over(b) for b in batches] if isinstance(batches, list) else handed_over(batches)
    return diagnose_batch(several, TOKENIZER, policy, **options).faults


# --- healthy batches -------------------------------------------------------------------------------------------

POLICIES = {
    "bert": BERT,
    "binomial": MaskingPolicy(count="binomial"),
    "forty percent": MaskingPolicy(rate=0.4),
    "all [MASK]": MaskingPolicy(mask=1.0, random=0.0, keep=0.0),
    "all random": MaskingPolicy(mask=0.0, random=1.0, keep=0.0),
    "half kept": MaskingPolicy(mask=0.3, random=0.2, keep=0.5),
    "spans": MaskingPolicy(unit="span"),
    "words": MaskingPolicy(unit="word"),
    "everything": MaskingPolicy(rate=1.0),
    "nothing": MaskingPolicy(rate=0.0),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_healthy_batches_of_any_size_raise_nothing(policy: MaskingPolicy):
    for seed in range(8):
        for rows in (1, 2, 8, 32, 128):
            diagnosis = diagnose_batch(handed_over(healthy(seed, rows, policy)), TOKENIZER, policy)
            assert not diagnosis, f"seed {seed}, {rows} rows: {diagnosis}"


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_two_epochs_of_a_healthy_pipeline_raise_nothing(policy: MaskingPolicy):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        batches = [pairs(rng) for _ in range(10)]
        epochs = [mask(rows, rng, policy) for _ in range(2) for rows in batches]
        assert faults(epochs, policy) == ()


def test_a_batch_in_which_all_can_be_seen_is_checked_for_all_but_the_documents():
    rng = np.random.default_rng(0)
    rows = pairs(rng, rows=64)
    diagnosis = diagnose_batch([handed_over(mask(rows, rng)) for _ in range(2)], TOKENIZER)
    assert set(diagnosis.checked) == BATCH_FAULTS - {"nsp_negatives_from_same_document"}
    assert diagnosis.not_checked == {"nsp_negatives_from_same_document": "no corpus was given"}


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("count", ["fixed", "binomial"])
def test_the_batches_of_this_package_raise_nothing(unit: Any, count: Any, tmp_path: Path):
    text = prose(1, 400)
    tokenizer, policy = tiny_tokenizer(), MaskingPolicy(unit=unit, count=count)
    corpus = Corpus.from_documents("prose", {"train": [text[i : i + 5] for i in range(0, 400, 5)]}, tmp_path)
    table = tokenize_corpus(corpus, tokenizer, tmp_path)["train"]
    batches = Batches(table, tokenizer, policy, batch_size=16, max_length=64, seed=0)
    two_epochs = [*batches.epoch(0), *batches.epoch(1)]
    diagnosis = diagnose_batch(two_epochs, tokenizer, policy, corpus)
    assert not diagnosis, str(diagnosis)
    assert "nsp_negatives_from_same_document" in diagnosis.checked


def test_masks_that_are_drawn_once_by_this_package_are_static(tmp_path: Path):
    text = prose(1, 400)
    corpus = Corpus.from_documents("prose", {"train": [text[i : i + 5] for i in range(0, 400, 5)]}, tmp_path)
    table = tokenize_corpus(corpus, tiny_tokenizer(), tmp_path)["train"]
    batches = Batches(table, tiny_tokenizer(), BERT, 16, 64, seed=0, dynamic_masks=False)
    assert diagnose_batch([*batches.epoch(0), *batches.epoch(1)], tiny_tokenizer()).faults == ("static_masks",)


# --- each fault ------------------------------------------------------------------------------------------------


def true_labels_everywhere(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "labels": batch["x"]}


def true_labels_at_all_words(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "labels": np.where(candidates(batch["x"], SPECIALS), batch["x"], IGNORE)}


def zeros_outside_in_full_rows(rng: np.random.Generator) -> Arrays:
    rows = pairs(rng, rows=64)
    full = {name: array[:, :20] if array.ndim == 2 else array for name, array in rows.items()}
    batch = mask(full, rng)
    return {**batch, "labels": np.where(batch["labels"] == IGNORE, 0, batch["labels"])}


def zeros_outside(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "labels": np.where(batch["labels"] == IGNORE, 0, batch["labels"])}


def minus_one_outside(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "labels": np.where(batch["labels"] == IGNORE, -1, batch["labels"])}


def labels_at_padding(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "labels": np.where(batch["x"] == PAD, PAD, batch["labels"])}


def labels_of_another_selection(rng: np.random.Generator) -> Arrays:
    rows = pairs(rng)
    return {**mask(rows, rng), "labels": mask(rows, rng)["labels"]}


def anything_selected(rng: np.random.Generator) -> Arrays:
    rows = pairs(rng)
    return mask(rows, rng, maskable=np.ones_like(rows["x"], dtype=bool))


def separators_selected(rng: np.random.Generator) -> Arrays:
    rows = pairs(rng)
    return mask(rows, rng, maskable=rows["x"] != PAD)


def padding_selected(rng: np.random.Generator) -> Arrays:
    rows = pairs(rng)
    return mask(rows, rng, maskable=~np.isin(rows["x"], (CLS, SEP)))


def all_ones(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "attention_mask": np.ones_like(batch["x"])}


def without_mask(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    del batch["attention_mask"]
    return batch


def from_specials(rng: np.random.Generator) -> Arrays:
    return mask(pairs(rng), rng, replacements=SPECIALS)


def after_corruption(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "labels": np.where(batch["labels"] == IGNORE, IGNORE, batch["input_ids"])}


def zero_segments(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "token_type_ids": np.zeros_like(batch["x"])}


def without_segments(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    del batch["token_type_ids"]
    return batch


def always_random(rng: np.random.Generator) -> Arrays:
    batch = mask(pairs(rng), rng)
    return {**batch, "next_sentence_label": np.ones(len(batch["x"]), dtype=int)}


def always_next(rng: np.random.Generator) -> Arrays:
    return {**always_random(rng), "next_sentence_label": np.zeros(32, dtype=int)}


SINGLE: dict[Callable[[np.random.Generator], Arrays], str] = {
    true_labels_everywhere: "labels_outside_selection",
    true_labels_at_all_words: "labels_outside_selection",
    zeros_outside_in_full_rows: "labels_outside_selection",
    zeros_outside: "labels_outside_selection",
    minus_one_outside: "labels_outside_selection",
    labels_at_padding: "labels_outside_selection",
    labels_of_another_selection: "labels_outside_selection",
    anything_selected: "specials_selected",
    separators_selected: "specials_selected",
    padding_selected: "specials_selected",
    all_ones: "no_attention_mask",
    without_mask: "no_attention_mask",
    from_specials: "random_from_specials",
    after_corruption: "labels_after_corruption",
    zero_segments: "segments_all_zero",
    without_segments: "segments_all_zero",
    always_random: "nsp_labels_constant",
    always_next: "nsp_labels_constant",
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("plant", SINGLE, ids=lambda plant: plant.__name__)
def test_a_single_batch_names_its_fault_and_no_other(plant: Callable[[np.random.Generator], Arrays], seed: int):
    diagnosis = diagnose_batch(handed_over(plant(np.random.default_rng(seed))), TOKENIZER)
    assert diagnosis.faults == (SINGLE[plant],), str(diagnosis)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("plant", SINGLE, ids=lambda plant: plant.__name__)
def test_many_batches_name_the_same_fault_and_no_other(plant: Callable[[np.random.Generator], Arrays], seed: int):
    rng = np.random.default_rng(seed)
    assert faults([plant(rng) for _ in range(10)]) == (SINGLE[plant],)


@pytest.mark.parametrize("policy", [POLICIES["spans"], POLICIES["words"]], ids=["spans", "words"])
def test_labels_outside_are_found_too_where_a_unit_shares_its_fate(policy: MaskingPolicy):
    for seed in SEEDS:
        batch = healthy(seed, 32, policy)
        every = np.where(candidates(batch["x"], SPECIALS), batch["x"], IGNORE)
        assert faults({**batch, "labels": every}, policy) == ("labels_outside_selection",)


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_drawn_once_are_found_in_the_second_epoch(seed: int):
    batch = healthy(seed)
    assert faults([batch, batch]) == ("static_masks",)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_selection_made_once_is_found_though_it_is_filled_anew(seed: int):
    rng = np.random.default_rng(seed)
    rows = pairs(rng)
    selected = select(candidates(rows["x"], SPECIALS), BERT, rng)

    def filled() -> Arrays:
        ids = corrupt(rows["x"], selected, BERT, rng, mask_id=MASK, ordinary_ids=TOKENIZER.ordinary_ids)
        return {**rows, "input_ids": ids, "labels": mlm_labels(rows["x"], selected)}

    assert faults([filled(), filled()]) == ("static_masks",)


def test_few_long_sequences_that_come_twice_are_enough_and_few_short_ones_are_not():
    batch = healthy(0, rows=40)
    five = {name: array[:5] for name, array in batch.items()}
    assert faults([five, five]) == ("static_masks",)  # at best (1/18)^5 by chance
    spans = healthy(0, 40, POLICIES["spans"])
    some = {name: array[:5] for name, array in spans.items()}
    told = diagnose_batch([handed_over(some)] * 2, TOKENIZER, POLICIES["spans"])
    assert "static_masks" in told.not_checked
    assert faults([spans, spans], POLICIES["spans"]) == ("static_masks",)


def test_labels_everywhere_do_not_pass_for_a_static_selection():
    rng = np.random.default_rng(0)
    rows = pairs(rng)
    epochs = [{**mask(rows, rng), "labels": rows["x"]} for _ in range(2)]
    assert faults(epochs) == ("labels_outside_selection",)


def test_a_fault_is_shown_with_its_number():
    batch = {
        "input_ids": [[CLS, MASK, 7, SEP, MASK, 9, SEP, PAD]],
        "labels": [[-100, 6, -100, -100, 8, -100, -100, -100]],
        "attention_mask": [[1] * 8],
        "token_type_ids": [[0] * 8],
        "next_sentence_label": [0],
    }
    first, second = diagnose_batch(batch, TOKENIZER)
    assert (first.fault, first.value) == ("no_attention_mask", 1)
    assert first.evidence == "attention_mask is not 0 at 1 of 1 positions that hold [PAD]"
    assert (second.fault, second.value) == ("segments_all_zero", 1)
    assert second.advice == FAULTS["segments_all_zero"].advice


def test_evidence_counts_what_was_planted():
    batch = healthy(0)
    special = np.isin(batch["x"], (CLS, SEP)) & (np.arange(32) < 2)
    planted = {
        **batch,
        "input_ids": np.where(special, MASK, batch["input_ids"]),
        "labels": np.where(special, batch["x"], batch["labels"]),
    }
    (finding,) = diagnose_batch(handed_over(planted), TOKENIZER)
    assert finding.value == 32
    assert "[CLS] 32 times" in finding.evidence

    (finding,) = diagnose_batch(handed_over(true_labels_at_all_words(np.random.default_rng(0))), TOKENIZER)
    batch = true_labels_at_all_words(np.random.default_rng(0))
    labeled = batch["labels"] != IGNORE
    assert finding.value == (batch["labels"] == batch["input_ids"])[labeled].mean()


# --- what looks like a fault and is none -------------------------------------------------------------------------


def test_padding_on_the_left_and_words_named_pad_inside_are_told_apart():
    batch = healthy(0)
    shifted = {name: np.flip(array, axis=1) if array.ndim == 2 else array for name, array in batch.items()}
    assert faults(shifted) == ()
    assert faults({**shifted, "attention_mask": np.ones_like(batch["x"])}) == ("no_attention_mask",)
    inside = {**batch, "input_ids": batch["input_ids"].copy()}
    inside["input_ids"][:, 3] = PAD  # a text that speaks of [PAD]: it is read like any other token
    inside["labels"][:, 3] = IGNORE
    assert faults(inside) == ()


def test_rows_that_are_shown_again_are_counted_once():
    rng = np.random.default_rng(0)
    lucky = mask(pairs(rng, rows=4), rng)
    for at in ((0, 1), (1, 2), (2, 3), (3, 4)):  # four positions that were kept, and only one that was not
        lucky["input_ids"][at], lucky["labels"][at] = lucky["x"][at], lucky["x"][at]
    assert "labels_outside_selection" not in faults([lucky] * 50)
    few = pairs(rng, rows=4)
    few["next_sentence_label"][:] = 1  # a chance of one in eight
    for maskable in (candidates(few["x"], SPECIALS), few["x"] != PAD):  # with separators it is the same text too
        assert "nsp_labels_constant" not in faults([mask(few, rng, maskable=maskable) for _ in range(50)])


def test_a_span_that_is_kept_is_one_draw_and_not_ten():
    words = list(range(FIRST, FIRST + 10))
    kept = {"input_ids": [[CLS, *words, SEP]], "labels": [[IGNORE, *words, IGNORE]]}
    assert diagnose_batch(kept, TOKENIZER).faults == ("labels_outside_selection",)
    assert diagnose_batch(kept, TOKENIZER, POLICIES["spans"]).faults == ()


def test_a_draw_from_a_whole_large_vocabulary_is_let_pass_and_from_a_small_one_is_not():
    rng = np.random.default_rng(0)
    large = numbered_tokenizer(30_000)
    batches = [mask(pairs(rng), rng, replacements=np.arange(large.vocab_size)) for _ in range(20)]
    row, column = np.argwhere(batches[0]["labels"] != IGNORE)[0]
    batches[0]["input_ids"][row, column] = SEP  # sooner or later it is drawn
    assert diagnose_batch([handed_over(b) for b in batches], large).faults == ()
    small = [mask(pairs(rng), rng, replacements=np.arange(TOKENIZER.vocab_size)) for _ in range(40)]
    assert faults(small) == ("random_from_specials",)


def test_more_negatives_than_positives_is_no_constant_label():
    batch = healthy(0, rows=500)
    most, nearly_all = (np.arange(500) < share * 500 for share in (0.75, 0.95))
    assert faults({**batch, "next_sentence_label": most.astype(int)}) == ()
    assert faults({**batch, "next_sentence_label": nearly_all.astype(int)}) == ("nsp_labels_constant",)


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.9])
def test_short_sequences_that_repeat_by_chance_are_no_static_masks(rate: float):
    tiny = language_named("tiny")
    tokenizer = word_tokenizer(tiny.words)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        words = tiny.sample(400, rng)[0] + FIRST
        x = np.column_stack([np.full(400, CLS), words[:, :2], np.full(400, SEP), words[:, 2:], np.full(400, SEP)])
        selected = select(candidates(x, SPECIALS), MaskingPolicy(rate=rate), rng)
        ids = corrupt(x, selected, BERT, rng, mask_id=MASK, ordinary_ids=tokenizer.ordinary_ids)
        diagnosis = diagnose_batch({"input_ids": ids, "labels": mlm_labels(x, selected)}, tokenizer)
        assert not diagnosis, str(diagnosis)


# --- chance ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "p"), [(20, 0.12), (300, 0.1), (5, 0.0), (100, 0.5)])
def test_a_count_is_surprising_where_chance_gives_it_less_than_once_in_a_million(n: int, p: float):
    for count in range(n + 1):
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(count, n + 1))
        assert surprising(count, n, p) == (tail < FALSE_ALARM)


@pytest.mark.parametrize("p", [0.02, 0.12, 0.5])
def test_trials_that_are_alike_surprise_together_as_a_binomial_does(p: float):
    for n in (1, 5, 30):
        for count in range(n + 1):
            assert surprising_together(count, [p] * n) == surprising(count, n, p)


def test_trials_that_differ_are_summed_exactly():
    assert surprising_together(3, [1e-3, 2e-3, 0.4])  # 0.8 in a million
    assert not surprising_together(3, [1e-3, 2e-3, 0.6])  # 1.2 in a million
    assert not surprising_together(0, [])


@pytest.mark.parametrize("p", [0.0, 0.001, 0.01, 0.12, 0.5, 0.6, 0.99])
def test_as_many_successes_as_are_needed_are_surprising_and_one_less_are_not(p: float):
    n = needed(p)
    assert surprising(n, n, p)
    assert not surprising(n - 1, n - 1, p)


def test_what_is_certain_never_surprises():
    assert not surprising(10, 10, 1.0)
    with pytest.raises(ValueError, match="never surprising"):
        needed(1.0)


# --- what cannot be checked --------------------------------------------------------------------------------------


def reasons(batch: Any, policy: MaskingPolicy = BERT) -> dict[str, str]:
    return diagnose_batch(batch, TOKENIZER, policy).not_checked


def test_what_is_missing_is_said_instead_of_checked():
    batch = handed_over(healthy(0))
    without_labels = {name: array for name, array in batch.items() if name != "labels"}
    about_labels = [
        "labels_outside_selection",
        "specials_selected",
        "static_masks",
        "labels_after_corruption",
    ]
    told = reasons(without_labels)
    assert [told[fault] for fault in about_labels] == ["no position has a label"] * 4
    told = reasons({name: array for name, array in batch.items() if name != "next_sentence_label"})
    assert told["nsp_labels_constant"] == "the batch has no next_sentence_label"
    assert told["nsp_negatives_from_same_document"] == "the batch has no next_sentence_label"
    assert "need not be pairs" in told["segments_all_zero"]


def test_a_batch_that_is_too_small_says_so():
    told = reasons(handed_over(healthy(0, rows=1)))
    assert told["nsp_labels_constant"] == "28 different pairs are needed to tell, there are 1"
    assert told["static_masks"] == "more sequences that come twice are needed to tell, there are 0"
    assert told["random_from_specials"] == "3 random replacements are needed to tell, there are 0"
    assert told["labels_outside_selection"].startswith("7 labeled positions are needed to tell, there are ")


def test_what_a_policy_hides_is_said():
    keeps = MaskingPolicy(mask=0.0, random=0.0, keep=1.0)
    told = reasons(handed_over(healthy(0, policy=keeps)), keeps)
    assert told["labels_outside_selection"] == "the policy leaves every selected token as it is"
    assert told["labels_after_corruption"] == "no labeled position holds [MASK]"
    full = handed_over(healthy(0))
    full = {name: array[:, :20] if array.ndim == 2 else array for name, array in full.items()}
    assert reasons(full)["no_attention_mask"] == "the batch has no padding"
    single = {name: array[:, :16] if array.ndim == 2 else array for name, array in full.items()}
    assert reasons(single)["segments_all_zero"] == "no row holds two [SEP]"


def test_labels_read_too_late_say_nothing_about_the_selection():
    told = reasons(handed_over(after_corruption(np.random.default_rng(0))))
    assert "after the corruption" in told["labels_outside_selection"]


# --- anyone's batches ----------------------------------------------------------------------------------------


def test_tensors_arrays_and_lists_are_read_alike():
    for batch in (handed_over(healthy(0)), handed_over(anything_selected(np.random.default_rng(1)))):
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        lists = {name: array.tolist() for name, array in batch.items()}
        narrow = {name: array.astype(np.int32) for name, array in batch.items()}
        expected = diagnose_batch(batch, TOKENIZER)
        assert diagnose_batch(tensors, TOKENIZER) == diagnose_batch(lists, TOKENIZER) == expected
        assert diagnose_batch(narrow, TOKENIZER) == diagnose_batch([tensors], TOKENIZER) == expected


def test_masks_may_be_truth_values_or_floats_and_relations_may_stand_in_a_column():
    batch = handed_over(healthy(0))
    for kind in (bool, np.float32):
        other = {**batch, "attention_mask": batch["attention_mask"].astype(kind)}
        assert diagnose_batch(other, TOKENIZER) == diagnose_batch(batch, TOKENIZER)
    column = {**batch, "next_sentence_label": batch["next_sentence_label"][:, None]}
    assert diagnose_batch(column, TOKENIZER) == diagnose_batch(batch, TOKENIZER)


def test_batches_of_different_lengths_stand_side_by_side():
    short = handed_over(healthy(0))
    short = {name: array[:, :20] if array.ndim == 2 else array for name, array in short.items()}
    assert diagnose_batch([short, handed_over(healthy(1))], TOKENIZER).faults == ()
    without = [{k: v for k, v in b.items() if k != "attention_mask"} for b in (short, handed_over(healthy(1)))]
    (finding,) = diagnose_batch(without, TOKENIZER)
    assert finding.value == (healthy(1)["x"] == PAD).sum(), "what fills up the shorter batch is no padding of theirs"


def of_transformers(tokenizer: Tokenizer) -> Any:
    """The same tokenizer as an object of `transformers`."""
    transformers = pytest.importorskip("transformers")
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL_TOKENS}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, **names)


def test_the_collator_of_transformers_is_healthy_but_for_its_random_tokens():
    transformers = pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    for tokenizer, expected in ((numbered_tokenizer(30_000), ()), (TOKENIZER, ("random_from_specials",))):
        theirs = of_transformers(tokenizer)
        collate = transformers.DataCollatorForLanguageModeling(theirs, mlm_probability=0.15, seed=0)
        batches = []
        for _ in range(40):
            rows = pairs(rng)
            short = [
                {name: rows[name][i][real] for name in ("token_type_ids",)} | {"input_ids": rows["x"][i][real]}
                for i, real in enumerate(rows["attention_mask"] == 1)
            ]
            batches.append({**collate(short), "next_sentence_label": rows["next_sentence_label"]})
        assert diagnose_batch(batches, theirs).faults == expected  # it draws them from the whole vocabulary


def test_a_tokenizer_of_transformers_serves_as_well(tmp_path: Path):
    theirs = of_transformers(TOKENIZER)
    assert special_ids(theirs) == special_ids(TOKENIZER)
    batch, corpus = same_document_batch(np.random.default_rng(0), tmp_path)
    assert diagnose_batch(handed_over(batch), theirs, BERT, corpus) == diagnose_batch(
        handed_over(batch), TOKENIZER, BERT, corpus
    )


def test_a_tokenizer_without_special_tokens_is_refused():
    class Bare:
        pad_token_id, cls_token_id, sep_token_id, unk_token_id, mask_token_id = 0, 2, 3, 1, None

    with pytest.raises(UserError, match=r"names no \[MASK\]: give one of mlmkit or a BERT tokenizer"):
        diagnose_batch(handed_over(healthy(0)), Bare())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [[1, 2]]}, r"batch 0: labels must have the shape \(1, 4\), that of input_ids, got \(1, 2\)"),
        ({"input_ids": [1, 2, 3]}, r"batch 0: input_ids must have the shape \(B, S\), got \(3,\)"),
        ({"input_ids": np.zeros((1, 0), dtype=int)}, r"batch 0: input_ids must have the shape \(B, S\), got \(1, 0\)"),
        ({"labels": [[0.5] * 4]}, "batch 0: labels must hold whole numbers, got float64"),
        ({"input_ids": [[2, 5], [2]]}, "batch 0: the rows of input_ids have different lengths; pad them"),
        ({"next_sentence_label": [0, 1]}, r"0 or 1 for each of the 1 rows, got the shape \(2,\)"),
        ({"next_sentence_label": [2]}, r"next_sentence_label must be 0 or 1 .* the values \[2\]"),
        ({"attention_mask": [["a"] * 4]}, "attention_mask must hold whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        diagnose_batch({"input_ids": [[CLS, 5, 6, SEP]], **change}, TOKENIZER)


def test_what_is_no_batch_is_refused():
    with pytest.raises(UserError, match="there is no batch to look at"):
        diagnose_batch([], TOKENIZER)
    with pytest.raises(UserError, match="batch 0 has no input_ids, only labels"):
        diagnose_batch({"labels": [[1]]}, TOKENIZER)
    with pytest.raises(UserError, match="batch 0 has no input_ids, only nothing"):
        diagnose_batch({}, TOKENIZER)
    with pytest.raises(UserError, match="batch 1 must be a dictionary with input_ids and labels, got int"):
        diagnose_batch([{"input_ids": [[5]]}, 3], TOKENIZER)  # type: ignore[list-item]
    with pytest.raises(UserError, match="batch 1 and batch 0 differ: only one of them has 'labels'"):
        diagnose_batch([{"input_ids": [[5]], "labels": [[5]]}, {"input_ids": [[5]]}], TOKENIZER)


# --- where second sentences come from ----------------------------------------------------------------------------


def long_documents(rng: np.random.Generator, count: int = 60) -> list[list[str]]:
    """Documents of six sentences each."""
    return [[s for d in MARKET.documents(3, rng) for s in d] for _ in range(count)]


def pairs_of(documents: list[list[str]], choose: Callable[[int], str], rng: np.random.Generator) -> Arrays:
    """One pair of each document, half of them with a B that `choose` takes for the document's number."""
    a, b = [], []
    label = rng.integers(0, 2, len(documents))
    for number, document in enumerate(documents):
        at = int(rng.integers(0, 3))
        a.append(TOKENIZER.encode(document[at]))
        b.append(TOKENIZER.encode(choose(number) if label[number] else document[at + 1]))
    x = np.full((len(documents), 32), PAD)
    x[:, 0], x[:, 1:15], x[:, 15], x[:, 16:30], x[:, 30] = CLS, np.array(a), SEP, np.array(b), SEP
    at = np.arange(32)
    real, second = np.broadcast_to(at <= 30, x.shape), np.broadcast_to((at >= 16) & (at <= 30), x.shape)
    return {"x": x, "attention_mask": real * 1, "token_type_ids": second * 1, "next_sentence_label": label}


def same_document_batch(rng: np.random.Generator, cache: Path) -> tuple[Arrays, Corpus]:
    documents = long_documents(rng)
    rows = pairs_of(documents, lambda number: documents[number][5], rng)
    return mask(rows, rng), Corpus.from_documents("stalls", {"train": documents[:50], "test": documents[50:]}, cache)


@pytest.mark.parametrize("seed", SEEDS)
def test_negatives_from_the_same_document_are_found_through_the_masks(seed: int, tmp_path: Path):
    batch, corpus = same_document_batch(np.random.default_rng(seed), tmp_path)
    assert faults(batch) == ()
    (finding,) = diagnose_batch(handed_over(batch), TOKENIZER, BERT, corpus)
    assert finding.fault == "nsp_negatives_from_same_document"
    negatives = int(batch["next_sentence_label"].sum())
    assert finding.evidence == (
        f"in {negatives} of {negatives} pairs labeled random, both sentences come from the same document of stalls"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_negatives_from_other_documents_raise_nothing(seed: int, tmp_path: Path):
    rng = np.random.default_rng(seed)
    documents = long_documents(rng)
    batch = mask(pairs_of(documents, lambda number: documents[number - 30][5], rng), rng)
    halves = {"train": documents[:30], "test": documents[30:]}  # the documents of a pair have the same place in them
    corpus = Corpus.from_documents("stalls", halves, tmp_path)
    diagnosis = diagnose_batch(handed_over(batch), TOKENIZER, BERT, corpus)
    assert not diagnosis, str(diagnosis)
    assert "nsp_negatives_from_same_document" in diagnosis.checked


def test_sentences_that_stand_in_several_documents_prove_nothing(tmp_path: Path):
    rng = np.random.default_rng(0)
    documents = long_documents(rng)
    batch = mask(pairs_of(documents, lambda number: documents[number][5], rng), rng)
    twice = Corpus.from_documents("twice", {"train": documents, "test": documents}, tmp_path)
    elsewhere = Corpus.from_documents("elsewhere", {"train": long_documents(rng)}, tmp_path)
    for corpus in (twice, elsewhere):
        diagnosis = diagnose_batch(handed_over(batch), TOKENIZER, BERT, corpus)
        assert not diagnosis
        n = int(batch["next_sentence_label"].sum())
        reason = diagnosis.not_checked["nsp_negatives_from_same_document"]
        assert reason.endswith(f"in just one document of {corpus.name}, there are 0 of {n}")


def test_rows_without_the_form_of_a_pair_are_left_out(tmp_path: Path):
    batch, corpus = same_document_batch(np.random.default_rng(0), tmp_path)
    one_sentence = {name: array[:, :15] if array.ndim == 2 else array for name, array in batch.items()}
    told = diagnose_batch(handed_over(one_sentence), TOKENIZER, BERT, corpus).not_checked
    assert told["nsp_negatives_from_same_document"].endswith("there are 0 of 0")


# --- findings --------------------------------------------------------------------------------------------------


def test_every_fault_of_the_catalog_says_what_is_wrong_and_what_to_change():
    assert len(FAULTS) == 21
    for name, fault in FAULTS.items():
        assert name.islower()
        assert fault.title
        assert fault.advice.endswith(".")


def test_a_diagnosis_is_a_sequence_of_findings_and_false_without_one():
    finding = found("eval_mode", "training is off in 20 of 20 updates", 20)
    sick, well = check("eval_mode", finding), check("eval_mode", None)
    assert (list(sick), len(sick), bool(sick)) == ([finding], 1, True)
    assert (list(well), len(well), bool(well)) == ([], 0, False)


def test_diagnoses_join_in_the_order_of_the_catalog():
    late = check("stuck_at_unigram", found("stuck_at_unigram", "late", 0.0))
    early = check("eval_mode", found("eval_mode", "early", 20))
    again = check("eval_mode", found("eval_mode", "again", 3))
    unknown = Diagnosis(not_checked={"eval_mode": "nothing recorded", "dropout_off": "nothing recorded"})
    joined = merge(late, unknown, early, again)
    assert joined.faults == ("eval_mode", "stuck_at_unigram") == joined.checked
    assert [finding.evidence for finding in joined] == ["early", "late"]
    assert joined.not_checked == {"dropout_off": "nothing recorded"}
    assert joined.to_dict()["findings"][0]["value"] == 20.0


def test_a_diagnosis_prints_its_evidence_and_what_was_not_checked():
    finding = found("eval_mode", "training is off in 20 of 20 updates", 20)
    lines = str(merge(check("eval_mode", finding), check("dropout_off", "nothing recorded"))).splitlines()
    assert lines == [
        "1 fault found; 1 looked for",
        "eval_mode: the model is updated in evaluation mode",
        "  evidence  training is off in 20 of 20 updates",
        "  change    Call model.train() before the updates, and again after every evaluation.",
        "looked for: eval_mode",
        "not checked: dropout_off: nothing recorded",
    ]
    assert str(Diagnosis()) == "no fault found; 0 looked for"
    both = merge(check("eval_mode", finding), check("dropout_off", found("dropout_off", "p = 0", 0)))
    assert str(both).startswith("2 faults found; 2 looked for")
