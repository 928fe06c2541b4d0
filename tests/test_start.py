"""A run may start from a trained BERT: it takes its vocabulary, its size and its weights, and goes on."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import TINY, Finished, finished_run, make_corpus, tiny

from mlmkit import UserError, import_hf, load, pretrain, save
from mlmkit.config import RunConfig, StartConfig, validate
from mlmkit.corpus import Corpus
from mlmkit.diagnosis import diagnose
from mlmkit.evaluation import evaluate
from mlmkit.history import Evaluation, History
from mlmkit.model import BertForPreTraining
from mlmkit.preparation import adopt, prepare
from mlmkit.pretraining import Interrupted
from mlmkit.vocabulary import add_words, frequent_words
from mlmkit.weights import read_json


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def domain(finished: Finished) -> Corpus:
    """Text that the checkpoint has not seen."""
    return make_corpus(finished.cache, seed=5, name="another text")


def going_on(checkpoint: Path, *settings: str) -> RunConfig:
    """The tiny run, with a larger network than the checkpoint's in its configuration."""
    return tiny("model.hidden_size=32", f"start.checkpoint={checkpoint}", *settings)


def test_a_run_takes_size_vocabulary_and_weights_of_the_checkpoint(finished: Finished, domain: Corpus, tmp_path: Path):
    config = going_on(finished.folder, "train.max_steps=160", "train.eval_every=160")
    run = pretrain(config, tmp_path / "run", corpus=domain, cache_dir=finished.cache)
    model, tokenizer = load(finished.folder)
    assert run.model.config == model.config
    assert RunConfig.from_dict(read_json(tmp_path / "run" / "run.json")).model.hidden_size == TINY.model.hidden_size
    assert run.tokenizer.backend.to_str() == tokenizer.backend.to_str()
    data = prepare(adopt(config), tmp_path / "run", finished.cache, domain)
    before = evaluate(model, data.held_out("validation", config.train.eval_batches))
    assert run.history.evaluations[0].step == 0
    assert run.history.evaluations[0].mlm_loss == pytest.approx(before.mlm_loss, abs=1e-6)  # the same sums
    assert run.history.last.mlm_loss < before.mlm_loss - 0.03  # it had seen 24 batches, now 184


def test_new_words_are_those_of_the_training_text_and_end_up_in_the_model(
    finished: Finished, domain: Corpus, tmp_path: Path
):
    run = pretrain(
        going_on(finished.folder, "start.new_words=7"), tmp_path / "run", corpus=domain, cache_dir=finished.cache
    )
    old = import_hf(finished.folder).tokenizer
    train = [sentence for row in domain["train"] for sentence in row["sentences"]]
    words = frequent_words(old, train, 7)
    assert len(words) == 7
    assert run.tokenizer.backend.to_str() == add_words(old, words).backend.to_str()
    assert run.model.config.vocab_size == old.vocab_size + 7
    again, tokenizer = load(tmp_path / "run")
    assert tokenizer.tokens(range(old.vocab_size, tokenizer.vocab_size)) == words
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), run.model.parameters(), strict=True))


@pytest.mark.parametrize("new_words", [0, 7])
def test_an_interrupted_run_goes_on_to_the_same_bits_even_if_its_checkpoint_is_gone(
    finished: Finished, domain: Corpus, tmp_path: Path, new_words: int
):
    def stop(evaluation: Evaluation) -> None:
        if evaluation.step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    source = tmp_path / "source"
    shutil.copytree(finished.folder, source)
    config = going_on(source, f"start.new_words={new_words}")
    whole = pretrain(config, tmp_path / "whole", corpus=domain, cache_dir=finished.cache)
    with pytest.raises(Interrupted):
        pretrain(config, tmp_path / "cut", corpus=domain, cache_dir=finished.cache, report=stop)
    shutil.rmtree(source)
    cut = pretrain(config, tmp_path / "cut", resume=True, corpus=domain, cache_dir=finished.cache)
    assert all(torch.equal(a, b) for a, b in zip(cut.model.parameters(), whole.model.parameters(), strict=True))
    assert [e.mlm_loss for e in cut.history.evaluations] == [e.mlm_loss for e in whole.history.evaluations]


def test_spare_rows_of_the_checkpoint_are_kept(finished: Finished, domain: Corpus, tmp_path: Path):
    """BERT's vocabularies are often padded to a round number."""
    model, tokenizer = load(finished.folder)
    padded = BertForPreTraining(replace(model.config, vocab_size=tokenizer.vocab_size + 9))
    save(padded, tokenizer, tmp_path / "padded")
    run = pretrain(going_on(tmp_path / "padded"), tmp_path / "run", corpus=domain, cache_dir=finished.cache)
    assert run.model.config.vocab_size == tokenizer.vocab_size + 9
    again = pretrain(
        going_on(tmp_path / "padded"), tmp_path / "run", resume=True, corpus=domain, cache_dir=finished.cache
    )
    assert again.history.status == "finished"


def test_the_same_command_twice_asks_for_resume(finished: Finished, domain: Corpus, tmp_path: Path):
    config = going_on(finished.folder)
    pretrain(config, tmp_path / "run", corpus=domain, cache_dir=finished.cache)
    with pytest.raises(UserError, match="already holds a run"):
        pretrain(config, tmp_path / "run", corpus=domain, cache_dir=finished.cache)
    assert History.load(tmp_path / "run").status == "finished"


def test_a_healthy_run_from_a_checkpoint_has_no_findings(finished: Finished, domain: Corpus, tmp_path: Path):
    pretrain(going_on(finished.folder), tmp_path / "run", corpus=domain, cache_dir=finished.cache)
    assert not diagnose(tmp_path / "run", domain, cache_dir=finished.cache).findings


# Mistakes


def test_a_checkpoint_that_is_too_short_or_not_there(finished: Finished, tmp_path: Path):
    with pytest.raises(UserError, match=r"data.max_length 64 exceeds the 32 positions of .*: lower it"):
        pretrain(going_on(finished.folder, "data.max_length=64"), tmp_path / "run", cache_dir=finished.cache)
    with pytest.raises(UserError, match="nowhere"):
        pretrain(going_on(tmp_path / "nowhere"), tmp_path / "run", cache_dir=finished.cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (StartConfig(new_words=5), "start.new_words extends the vocabulary of a checkpoint"),
        (StartConfig("bert", -1), "start.new_words must not be negative, got -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(start: StartConfig, what: str):
    with pytest.raises(UserError, match=what):
        validate(RunConfig(start=start))
