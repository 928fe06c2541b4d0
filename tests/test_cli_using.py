"""The commands for a trained model: go on with it, look inside, fine-tune it, give it away, take one in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import small_model, tiny_tokenizer
from runs import TINY, Answer, Finished, as_settings, documents, finished_run, write_text

from mlmkit import load, save
from mlmkit.finetuning import load_classifier
from mlmkit.presets import PRESETS
from mlmkit.weights import read_json

Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(autouse=True)
def usual_cache(monkeypatch: pytest.MonkeyPatch, finished: Finished) -> None:
    monkeypatch.setenv("MLMKIT_CACHE", str(finished.cache))


def write_task(path: Path, count: int, seed: int) -> Path:
    """Sentences of odd English, and whether one of the first six nouns is in them."""
    nouns = {"kettle", "bishop", "ladder", "pigeon", "turnip", "lantern"}
    sentences = [s for document in documents(count, seed) for s in document][:count]
    rows = [f"{sentence}\t{'yes' if nouns & set(sentence[:-1].lower().split()) else 'no'}" for sentence in sentences]
    path.write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
    return path


# pretrain --start


def test_pretrain_goes_on_from_a_trained_model_on_two_sources(call: Call, finished: Finished, tmp_path: Path):
    other = write_text(tmp_path / "other.txt", seed=3)
    answer = call(
        *("pretrain", "--preset", "smoke", *as_settings(TINY, PRESETS["smoke"])),
        *("--corpus", finished.text, "--corpus", other, "--start", finished.folder, "--new-words", 3),
        *("--out", tmp_path / "run"),
    )
    assert answer.code == 0, answer.err
    run = read_json(tmp_path / "run" / "run.json")
    assert run["data"]["corpus"] == f"{finished.text} + {other}"
    assert run["start"] == {"checkpoint": str(finished.folder), "new_words": 3}
    before, after = load(finished.folder), load(tmp_path / "run")
    assert after[1].vocab_size == before[1].vocab_size + 3
    assert not torch.equal(before[0].nsp.relation.weight, after[0].nsp.relation.weight)


def test_new_words_need_a_checkpoint(call: Call, tmp_path: Path):
    answer = call("pretrain", "--new-words", 3, "--out", tmp_path / "run")
    assert answer.code == 2
    assert "name one in start.checkpoint" in answer.err


# inspect


def test_inspect_draws_and_says_where_the_pictures_are(call: Call, finished: Finished, tmp_path: Path):
    answer = call("inspect", finished.folder, "--text", "the [MASK] admires a spoon", "--out", tmp_path / "inside")
    assert answer.code == 0, answer.err
    shown = [Path(line) for line in answer.out.splitlines()]
    assert shown
    assert all(path.parent == tmp_path / "inside" and path.suffix == ".png" for path in shown)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in shown)
    assert json.loads((tmp_path / "inside" / "inspection.json").read_text())


def test_inspect_needs_a_first_sentence_for_a_second(call: Call, finished: Finished, tmp_path: Path):
    answer = call("inspect", finished.folder, "--text-b", "a spoon", "--out", tmp_path / "inside")
    assert answer.code == 2
    assert "give --text too" in answer.err


# finetune


@pytest.mark.parametrize("compare", [False, True])
def test_finetune_trains_saves_and_reports(call: Call, finished: Finished, tmp_path: Path, compare: bool):
    train, test = write_task(tmp_path / "train.tsv", 120, 1), write_task(tmp_path / "test.tsv", 60, 2)
    answer = call(
        *("finetune", finished.folder, "--train", train, "--test", test, "--text", "sentence", "--seeds", 2),
        *("--set", "epochs=2", "--set", "precision=fp32", "--out", tmp_path / "yes"),
        *(["--compare"] if compare else []),
    )
    assert answer.code == 0, answer.err
    assert answer.out.count("seed 0") >= 1
    assert answer.out.count("seed 1") >= 1
    assert ("random initialization" in answer.out) == compare
    (prediction,) = load_classifier(tmp_path / "yes").predict(["The kettle admires a spoon."])
    assert prediction.label in ("yes", "no")


def test_finetune_refuses_a_kind_that_it_does_not_know(call: Call, finished: Finished, tmp_path: Path):
    answer = call("finetune", finished.folder, "--train", write_task(tmp_path / "a.tsv", 9, 1), "--kind", "words")
    assert answer.code == 2
    assert answer.err == "mlmkit: --kind must be sentence, pair or tokens, got 'words'\n"


# import and export


def test_import_writes_a_folder_that_every_command_opens(call: Call, tmp_path: Path):
    from transformers import BertConfig, BertForMaskedLM

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=tokenizer.vocab_size, **size)).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    answer = call("import", tmp_path / "theirs", "--out", tmp_path / "ours")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"2 layers x 16, {tokenizer.vocab_size} tokens, ")
    assert "drawn anew: " in answer.out  # a BertForMaskedLM has no head for sentences
    assert call("fill-mask", tmp_path / "ours", "ba [MASK] ki").code == 0


def test_export_writes_the_model_card_of_the_run(call: Call, finished: Finished, tmp_path: Path):
    answer = call("export", finished.folder, tmp_path / "out", "--license", "mit", "--name", "odd-bert")
    assert answer.code == 0, answer.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "mit"' in card
    assert "# odd-bert" in card
    assert finished.run.history.corpus["fingerprint"] in card
    model, _ = load(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), finished.run.model.parameters(), strict=True))


def test_export_of_a_model_without_a_record(call: Call, tmp_path: Path):
    tokenizer = tiny_tokenizer()
    save(small_model(vocab_size=tokenizer.vocab_size), tokenizer, tmp_path / "model")
    assert call("export", tmp_path / "model", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "README.md").is_file()
    assert call("export", tmp_path / "model", tmp_path / "out").code == 2
