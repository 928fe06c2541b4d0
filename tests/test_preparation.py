"""What a run starts from: the vocabulary is learned from training text only, the held-out questions never change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import TINY, documents, make_corpus, tiny, write_text

from mlmkit import preparation
from mlmkit.batches import Batch, fingerprint
from mlmkit.config import RunConfig
from mlmkit.corpus import Corpus
from mlmkit.exact import ideal_losses
from mlmkit.masking import IGNORE
from mlmkit.preparation import EVALUATION_SEED, Data, build_model, prepare
from mlmkit.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache: Path) -> Corpus:
    return make_corpus(cache)


@pytest.fixture(scope="module")
def data(cache: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return prepare(TINY, tmp_path_factory.mktemp("run"), cache, corpus)


def with_config(data: Data, *settings: str) -> Data:
    return replace(data, config=data.config.override(settings))


def train_batches(data: Data, count: int) -> list[Batch]:
    forever = data.batches("train", data.config.train.seed).forever()
    return [next(forever)[2] for _ in range(count)]


def test_the_tokenizer_is_kept_in_the_run_and_opened_from_there(
    cache: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = prepare(TINY, tmp_path, cache, corpus)
    monkeypatch.setattr(preparation, "train_wordpiece", lambda *_: pytest.fail("learned again"))
    again = prepare(tiny("data.vocab_size=50"), tmp_path, cache, corpus)
    assert again.tokenizer.backend.to_str() == first.tokenizer.backend.to_str()
    assert first.tokenizer.vocab_size <= TINY.data.vocab_size


def test_the_vocabulary_knows_nothing_of_held_out_text(cache: Path, tmp_path: Path):
    rows = documents(12)
    odd = [["zyxwvut zyxwvut zyxwvut zyxwvut."] * 3] * 20  # frequent enough to be learned
    splits = {"train": rows[:8], "validation": rows[8:10] + odd, "test": rows[10:] + odd}
    data = prepare(TINY, tmp_path, cache, Corpus.from_documents("leak", splits, cache))
    assert not [token for token in data.tokenizer.backend.get_vocab() if "zy" in token]
    splits["train"] = [*rows[:8], *odd]
    data = prepare(TINY, tmp_path / "other", cache, Corpus.from_documents("no leak", splits, cache))
    assert data.tokenizer.id("zyxwvut")


def test_the_vocabulary_is_learned_from_a_stream(
    cache: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An iterator would be gathered in memory first; a text may be larger than that."""
    seen, original = [], preparation.train_wordpiece

    def watched(texts: Iterable[str], *settings: Any) -> Tokenizer:
        seen.append(texts)
        return original(texts, *settings)

    monkeypatch.setattr(preparation, "train_wordpiece", watched)
    prepare(TINY, tmp_path / "run", cache, corpus)
    assert not isinstance(seen[0], Iterator | list)
    expected = [sentence for document in corpus["train"] for sentence in document["sentences"]]
    assert list(seen[0]) == list(seen[0]) == expected


def test_the_corpus_of_the_configuration_is_loaded_and_split_as_it_says(cache: Path, tmp_path: Path):
    config = tiny(f"data.corpus={write_text(tmp_path / 'odd.txt')}", "data.lowercase=false")
    data = prepare(config, tmp_path / "run", cache)
    words = data.corpus.report.words
    assert words["validation"] / sum(words.values()) == pytest.approx(config.data.held_out, abs=0.03)
    assert data.tokenizer.pieces("The")[0][0] == "T", "case was folded"
    moved = prepare(config.override(["data.seed=1"]), tmp_path / "run2", cache)
    assert moved.corpus.fingerprint != data.corpus.fingerprint


def test_without_a_cache_folder_the_usual_one_is_taken(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLMKIT_CACHE", str(tmp_path / "usual"))
    prepare(TINY, tmp_path / "run", corpus=corpus)
    assert (tmp_path / "usual" / "tokens").is_dir()


def test_counts_are_those_of_the_text_without_special_tokens(cache: Path, tmp_path: Path):
    rows = documents(12)
    held_out = [*rows[8:10], ["The Ω forgets a spoon.", "No Ω sings."]]  # not a letter of the training text
    splits = {"train": rows[:8], "validation": held_out, "test": rows[10:]}
    data = prepare(TINY, tmp_path, cache, Corpus.from_documents("unknown", splits, cache))
    expected = Counter(i for document in held_out for sentence in document for i in data.tokenizer.encode(sentence))
    assert expected.pop(data.tokenizer.unk_id) >= 2
    counts = data.counts("validation")
    assert counts.shape == (data.tokenizer.vocab_size,)
    assert {i: n for i, n in enumerate(counts.tolist()) if n} == expected


def test_baselines_by_hand(data: Data):
    held_out, train = data.counts("validation"), data.counts("train")
    p = held_out / held_out.sum()
    q = (train + 1) / (train + 1).sum()
    found = data.baselines("validation")
    assert found.uniform == math.log(data.tokenizer.vocab_size)
    assert found.unigram_entropy == pytest.approx(-sum(x * math.log(x) for x in p if x))
    assert found.unigram_cross_entropy == pytest.approx(-sum(x * math.log(y) for x, y in zip(p, q, strict=True)))
    assert found.coin == math.log(2)
    assert found.unigram_entropy < found.unigram_cross_entropy < found.uniform
    assert found.bigram_cross_entropy < found.unigram_cross_entropy
    assert (found.mlm_floor, found.nsp_floor, found.nsp_optimum) == (None, None, None)


EXACT = tiny("data.corpus=exact:market:400", "data.max_length=31", "data.short_seq_prob=0", "masking.count=binomial")


def test_an_exact_language_brings_its_words_as_tokens_and_its_floors_as_baselines(cache: Path, tmp_path: Path):
    data = prepare(EXACT, tmp_path, cache)
    language = data.corpus.language
    assert language is not None
    assert [data.tokenizer.id(word) for word in language.words] == list(range(5, 57))
    found = data.baselines("validation")
    ideal = ideal_losses(language, data.held_out("validation", EXACT.train.eval_batches), EXACT.masking)
    assert found.mlm_floor == ideal.mlm_loss.mean
    assert (found.nsp_floor, found.nsp_optimum) == (ideal.nsp_loss.mean, ideal.nsp_accuracy.mean)
    assert found.mlm_floor < found.bigram_cross_entropy < found.unigram_entropy


@pytest.mark.parametrize(
    "setting", ["masking.count=fixed", "masking.unit=span", "data.max_length=30", "data.short_seq_prob=0.1"]
)
def test_no_floor_is_claimed_where_the_exact_answer_is_not_known(cache: Path, tmp_path: Path, setting: str):
    assert prepare(EXACT.override([setting]), tmp_path, cache).baselines("validation").mlm_floor is None


# The questions of an evaluation


def test_held_out_questions_are_the_same_at_every_call_and_in_every_run(data: Data):
    first = [fingerprint(batch) for batch in data.held_out("validation")]
    assert [fingerprint(batch) for batch in data.held_out("validation")] == first
    other_run = with_config(data, "train.seed=5", "train.lr=1", "train.max_steps=9", "model.hidden_size=8")
    assert [fingerprint(batch) for batch in other_run.held_out("validation")] == first
    assert [fingerprint(batch) for batch in data.held_out("validation", 2)] == first[:2]
    assert [fingerprint(batch) for batch in data.held_out("test")] != first


def test_training_shares_neither_pairs_nor_masks_with_evaluation(data: Data):
    """Were the same text trained on, it would still be asked about other pairs and other positions."""
    train = with_config(data, "train.seed=0").batches("train", 0)
    questions = data.batches("train", EVALUATION_SEED)  # as if evaluation were made from the training text
    trained = [batch for epoch in range(3) for batch in train.epoch(epoch)]
    assert not {fingerprint(b) for b in trained} & {fingerprint(b) for b in questions.epoch(0)}
    assert RunConfig().train.seed != EVALUATION_SEED


def test_training_batches_follow_the_seed_of_the_run_and_change_with_each_epoch(data: Data):
    first = [fingerprint(batch) for batch in train_batches(data, 6)]
    assert [fingerprint(batch) for batch in train_batches(data, 6)] == first
    assert not set(first) & {fingerprint(batch) for batch in train_batches(with_config(data, "train.seed=1"), 6)}
    batches = data.batches("train", 0)
    assert not {fingerprint(b) for b in batches.epoch(0)} & {fingerprint(b) for b in batches.epoch(1)}


def test_static_masks_are_for_training_and_leave_the_questions_as_they_were(data: Data):
    static = with_config(data, "data.dynamic_masks=false")
    assert not static.batches("train", 0).dynamic_masks
    questions = [fingerprint(batch) for batch in data.held_out("validation")]
    assert [fingerprint(batch) for batch in static.held_out("validation")] == questions


def test_batches_obey_the_configuration(data: Data):
    changed = with_config(data, "train.batch_size=5", "data.max_length=16", "masking.rate=0.5")
    sizes, selected, real = [], 0, 0
    for batch in changed.batches("train", 0).epoch(0):
        assert batch["input_ids"].shape[1] <= 16
        sizes.append(len(batch["input_ids"]))
        selected += int((batch["labels"] != IGNORE).sum())
        real += int(batch["attention_mask"].sum()) - 3 * len(batch["input_ids"])
    assert max(sizes) == 5
    assert 0.45 < selected / real < 0.55


# First weights


def test_the_model_is_as_wide_as_the_vocabulary(data: Data):
    assert build_model(TINY, data).config.vocab_size == data.tokenizer.vocab_size
    assert build_model(TINY, data).config == replace(TINY.model, vocab_size=data.tokenizer.vocab_size)


def test_the_output_bias_starts_at_the_log_frequencies(data: Data):
    bias = build_model(TINY, data).mlm.decoder.bias.detach()
    q = data.counts("train") + 1
    np.testing.assert_allclose(bias.numpy(), np.log(q / q.sum()), rtol=1e-6)
    assert float(bias.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert not build_model(tiny("train.output_bias=false"), data).mlm.decoder.bias.any()


def test_weights_follow_the_seed_alone(data: Data):
    torch.manual_seed(1)
    first = build_model(TINY, data).state_dict()
    torch.manual_seed(2)
    second = build_model(TINY, data).state_dict()
    other = build_model(tiny("train.seed=1"), data).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["nsp.pooler.weight"], other["nsp.pooler.weight"])
