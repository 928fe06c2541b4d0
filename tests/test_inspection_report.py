"""One call looks at a model from all sides and leaves pictures and numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import small_model
from matplotlib import pyplot as plt
from PIL import Image
from runs import Finished, documents, finished_run, tiny, write_text

from mlmkit.checkpoint import save
from mlmkit.errors import UserError
from mlmkit.inspection import Report, inspect_run, report
from mlmkit.language import tiny_language
from mlmkit.pretraining import pretrain
from mlmkit.tokenizer import word_tokenizer

TEXT = "The green kettle [MASK] the bishop."
OF_THE_MODEL = {"mask_neighbors", "embeddings"}
OF_THE_TEXT = {"attention_heads", "attention_sharpest", "entering"}
OF_THE_CORPUS = {"habits", "sentence_relation", "word_order", "calibration"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture
def own_cache(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLMKIT_CACHE", str(finished.cache))


def check(found: Report, out: Path, names: set[str]) -> None:
    """The pictures are there, are pictures, and their numbers lie beside them."""
    assert set(found.pictures) == set(found.numbers) == names
    assert {path.name for path in out.iterdir()} == {f"{name}.png" for name in names} | {report.NUMBERS}
    for name, path in found.pictures.items():
        assert path == out / f"{name}.png"
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 5, f"{name} is empty"
    assert json.loads((out / report.NUMBERS).read_text()) == json.loads(json.dumps(found.numbers))
    assert not plt.get_fignums(), "a figure was left open"


@pytest.mark.usefixtures("own_cache")
def test_a_run_is_looked_at_from_all_sides(finished: Finished, tmp_path: Path):
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    found = inspect_run(finished.folder, tmp_path / "new" / "pictures", text=TEXT, b="a kettle", pairs=200)
    check(found, tmp_path / "new" / "pictures", OF_THE_MODEL | OF_THE_TEXT | OF_THE_CORPUS)
    numbers = found.numbers
    assert numbers["attention_heads"]["tokens"].count("[SEP]") == 2
    assert np.shape(numbers["habits"]["entropy"]) == np.shape(numbers["attention_heads"]["entropy"]) == (1, 2)
    assert numbers["word_order"]["ceiling"] is numbers["sentence_relation"]["ceiling"] is None
    assert len(numbers["word_order"]["trained"]) == 2
    assert 0 <= numbers["calibration"]["ece"] <= 1
    assert len(numbers["mask_neighbors"]["cosines"]) == 10
    assert {path: path.read_bytes() for path in before} == before, "the run was changed"


@pytest.mark.usefixtures("own_cache")
def test_a_run_needs_no_text(finished: Finished, tmp_path: Path):
    check(inspect_run(finished.folder, tmp_path, pairs=100), tmp_path, OF_THE_MODEL | OF_THE_CORPUS)


def test_a_model_without_a_run_shows_what_needs_no_corpus(tmp_path: Path):
    language = tiny_language()
    tokenizer = word_tokenizer(language.words)
    save(small_model(vocab_size=tokenizer.vocab_size), tokenizer, tmp_path / "model")
    found = inspect_run(tmp_path / "model", tmp_path / "out", text="cat [MASK]")
    check(found, tmp_path / "out", OF_THE_MODEL | OF_THE_TEXT)
    assert found.numbers["entering"]["tokens"] == ("[CLS]", "cat", "[MASK]", "[SEP]")


def test_words_of_a_known_language_are_shown_by_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLMKIT_CACHE", str(tmp_path / "cache"))
    config = tiny(
        "data.corpus=exact:tiny:400", "data.max_length=8", "data.short_seq_prob=0", "masking.count=binomial"
    ).override(["train.max_steps=4", "train.warmup_steps=1", "train.eval_every=4"])
    pretrain(config, tmp_path / "run", progress=False)
    found = inspect_run(tmp_path / "run", tmp_path / "out", pairs=100)
    check(found, tmp_path / "out", OF_THE_MODEL | OF_THE_CORPUS)
    assert found.numbers["embeddings"]["chance"] == pytest.approx(1 / 3)
    assert found.numbers["embeddings"]["purity"]["count"] == 4
    assert found.numbers["word_order"]["ceiling"]["value"] == 1.0


def test_a_corpus_that_has_changed_is_refused(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its held-out part may hold what the model has read."""
    monkeypatch.setenv("MLMKIT_CACHE", str(tmp_path / "cache"))
    run = shutil.copytree(finished.folder, tmp_path / "run")
    text = write_text(tmp_path / "other.txt", seed=1)
    config = json.loads((run / "run.json").read_text())
    config["data"]["corpus"] = str(text)
    (run / "run.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="the corpus has changed since the run began"):
        inspect_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_call_leaves_nothing_behind(finished: Finished, tmp_path: Path):
    with pytest.raises(UserError, match="a second sentence needs a first one"):
        inspect_run(finished.folder, tmp_path / "out", b="a kettle")
    with pytest.raises(UserError, match="tokens in this model"):
        inspect_run(finished.folder, tmp_path / "out", text=" ".join(documents(3)[0] * 9))
    with pytest.raises(UserError, match="is not a folder"):
        inspect_run(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not plt.get_fignums()
