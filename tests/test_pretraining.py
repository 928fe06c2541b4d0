"""A whole run: what it leaves behind, that its seed decides everything, and that it stops when the loss breaks."""

from __future__ import annotations

import json
import math
import shutil
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import (
    TINY,
    Finished,
    files,
    finished_run,
    hurry,
    make_corpus,
    outcome,
    read_metrics,
    tiny,
    weights_hash,
    write_text,
)

import mlmkit
from mlmkit import checkpoint as ckpt
from mlmkit import pretraining, run_folder
from mlmkit.batches import Batch, fingerprint
from mlmkit.config import RunConfig
from mlmkit.corpus import Corpus
from mlmkit.errors import UserError
from mlmkit.evaluation import Metrics, evaluate
from mlmkit.history import History
from mlmkit.losses import Losses
from mlmkit.preparation import EVALUATION_SEED, prepare
from mlmkit.pretraining import TrainingDiverged, pretrain
from mlmkit.weights import read_tensors

TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache: Path) -> Corpus:
    return make_corpus(cache)


# What a run leaves behind


def test_the_folder_holds_the_run_and_no_scraps(finished: Finished):
    model = {"config.json", "model.safetensors"} | TOKENIZER_FILES
    assert files(finished.folder) == model | {"run.json", "metrics.json", "curve.png", "checkpoints"}
    assert files(finished.folder / "checkpoints") == {"step-0000020", "step-0000024"}


def test_run_json_is_the_resolved_configuration(finished: Finished):
    saved = RunConfig.from_dict(json.loads((finished.folder / "run.json").read_text()))
    assert saved == finished.config
    assert saved.train.device == "cpu", "not resolved"


def test_metrics_json_has_everything_needed_to_judge_the_run(finished: Finished):
    metrics = read_metrics(finished.folder)
    assert metrics["status"] == "finished"
    assert [e["step"] for e in metrics["evaluations"]] == [0, 8, 16, 24]
    for evaluation in metrics["evaluations"]:
        assert evaluation.keys() == {
            "step", "tokens", "seconds", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy",
        }  # fmt: skip
    assert metrics["config"] == finished.config.to_dict()
    assert metrics["corpus_fingerprint"] == metrics["corpus"]["fingerprint"]
    assert metrics["corpus"]["name"] == str(finished.text)
    assert metrics["corpus"]["report"]["documents"]["train"] > 20
    assert 0 < metrics["unigram_entropy"] < metrics["baselines"]["uniform"]
    assert {"python", "torch", "numpy", "tokenizers", "datasets"} <= metrics["versions"].keys()
    assert metrics["hardware"]["device"] == "cpu"
    assert metrics["hardware"]["threads"] == 1
    assert metrics["hardware"]["precision"] == "fp32"


def test_tokens_and_seconds_grow(finished: Finished):
    evaluations = finished.run.history.evaluations
    assert evaluations[0].tokens == 0
    for earlier, later in pairwise(evaluations):
        assert earlier.tokens < later.tokens <= later.step * TINY.train.batch_size * TINY.data.max_length
        assert earlier.seconds <= later.seconds


def test_training_losses_are_means_over_ten_updates(finished: Finished):
    windows = finished.run.history.training
    assert [window["step"] for window in windows] == [10, 20]
    assert [window["lr"] for window in windows] == [mlmkit.learning_rate(step, TINY.train) for step in (9, 19)]
    for window in windows:
        assert 3 < window["mlm"] < 6
        assert 0.4 < window["nsp"] < 1
        assert window["grad_norm"] > 0


def test_every_evaluation_is_reported_as_it_comes(finished: Finished):
    assert finished.reported == finished.run.history.evaluations


def test_the_model_begins_at_the_unigram_baseline_and_gets_below_it(finished: Finished, tmp_path: Path):
    longer = finished.again(tmp_path / "run", "train.max_steps=200", "train.eval_every=200").history
    first, last = longer.evaluations[0], longer.last
    base = longer.baselines
    # a few hundred selected positions of all the held-out text
    assert first.mlm_loss == pytest.approx(base.unigram_cross_entropy, abs=0.15)
    assert first.nsp_loss == pytest.approx(math.log(2), abs=0.05)
    assert last.mlm_loss < first.mlm_loss


def test_the_curve_is_a_picture(finished: Finished):
    content = (finished.folder / "curve.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (1350, 540)
    assert 10_000 < len(content) < 500_000


def test_mlmkit_load_gives_the_model_and_the_tokenizer(finished: Finished):
    model, tokenizer = mlmkit.load(finished.folder)
    assert not model.training
    assert not finished.run.model.training
    for name, weight in finished.run.model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    assert tokenizer.backend.to_str() == finished.run.tokenizer.backend.to_str()


def test_the_last_evaluation_is_that_of_the_model_on_disk(finished: Finished, tmp_path: Path):
    data = prepare(finished.config, finished.folder, finished.cache)
    model, _ = mlmkit.load(finished.folder)
    metrics = evaluate(model, data.held_out("validation", finished.config.train.eval_batches))
    assert metrics.mlm_loss == finished.run.history.last.mlm_loss
    assert metrics.nsp_accuracy == finished.run.history.last.nsp_accuracy


def test_transformers_opens_the_folder_and_computes_the_same(finished: Finished):
    from transformers import AutoModelForPreTraining, AutoTokenizer

    theirs, info = AutoModelForPreTraining.from_pretrained(finished.folder, output_loading_info=True)
    assert not info["missing_keys"]
    tokenizer = AutoTokenizer.from_pretrained(finished.folder)
    pairs = [
        ("The green kettle forgets.", "Twice a [MASK] carries it."),
        ("No spoon.", "Every lantern sells a beetle."),
    ]
    batch = tokenizer([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
    for row, pair in zip(batch["input_ids"], pairs, strict=True):
        ids, _ = finished.run.tokenizer.pair_ids(*pair)
        assert row[: len(ids)].tolist() == ids
    with torch.no_grad():
        their_output = theirs.eval()(**batch)
        ours = finished.run.model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(ours.mlm_logits[real], their_output.prediction_logits[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.nsp_logits, their_output.seq_relationship_logits, atol=1e-5, rtol=1e-5)


# The seed decides


def test_the_same_seed_gives_the_same_run_bit_for_bit_and_disturbs_nobody(finished: Finished, tmp_path: Path):
    torch.manual_seed(99)
    state = torch.get_rng_state()
    finished.again(tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(finished.folder)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers were used"


def test_another_seed_gives_another_run(finished: Finished, tmp_path: Path):
    finished.again(tmp_path / "other", "train.seed=1")
    assert weights_hash(tmp_path / "other") != weights_hash(finished.folder)


def test_every_update_has_its_own_rate_its_own_dropout_and_the_settings_of_the_run(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = pretraining.train_step
    seen: list[dict[str, Any]] = []

    def recorded_step(model: Any, *args: Any, **options: Any) -> Any:
        assert model.training
        seen.append(options | {"dropout": torch.initial_seed()})
        return original(model, *args, **options)

    monkeypatch.setattr(pretraining, "train_step", recorded_step)
    finished.again(tmp_path / "run", "train.grad_clip=0.7", "train.nsp_weight=0.5")
    assert [options["lr"] for options in seen] == [mlmkit.learning_rate(step, TINY.train) for step in range(24)]
    assert {(o["grad_clip"], o["precision"], o["nsp_weight"]) for o in seen} == {(0.7, "fp32", 0.5)}
    dropout = {options["dropout"] for options in seen}
    assert len(dropout) == 24
    finished.again(tmp_path / "other", "train.seed=1")
    assert not dropout & {options["dropout"] for options in seen[24:]}


def test_a_thread_can_train_too(finished: Finished, tmp_path: Path):
    """Where signals cannot be caught."""
    thread = threading.Thread(target=finished.again, args=(tmp_path / "thread", "train.max_steps=4"))
    thread.start()
    thread.join()
    assert read_metrics(tmp_path / "thread")["status"] == "finished"


def test_evaluations_ask_the_same_questions_and_never_those_of_training(
    cache: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str]] = []
    trained: list[str] = []
    original_step = pretraining.train_step

    def recorded_evaluate(model: Any, batches: Iterable[Batch]) -> Metrics:
        held = list(batches)
        asked.append([fingerprint(batch) for batch in held])
        return evaluate(model, held)

    def recorded_step(model: Any, batch: Batch, *args: Any, **options: Any) -> Any:
        trained.append(fingerprint(batch))
        return original_step(model, batch, *args, **options)

    monkeypatch.setattr(pretraining, "evaluate", recorded_evaluate)
    monkeypatch.setattr(pretraining, "train_step", recorded_step)
    pretrain(TINY, tmp_path / "run", corpus=corpus, cache_dir=cache, progress=False)
    assert len(asked) == 4
    assert all(questions == asked[0] for questions in asked)
    assert len(set(trained)) == len(trained) == 24
    assert not set(trained) & set(asked[0])
    data = prepare(TINY, tmp_path / "run", cache, corpus)
    held_out = [fingerprint(batch) for batch in data.batches("validation", EVALUATION_SEED).epoch(0)]
    assert asked[0] == held_out[:3]


# Who may use a folder


def start(folder: Path, cache: Path, corpus: Corpus, *settings: str, **options: Any) -> pretraining.Run:
    return pretrain(tiny(*settings), folder, corpus=corpus, cache_dir=cache, progress=False, **options)


def test_a_folder_that_holds_a_run_is_not_taken_again(finished: Finished):
    with pytest.raises(UserError, match=r"already holds a run; go on with --resume"):
        finished.again(finished.folder)


def test_a_file_is_not_a_folder(cache: Path, corpus: Corpus, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is a file; the run needs a folder: choose another name"):
        start(tmp_path / "file", cache, corpus)


def test_a_folder_with_other_things_in_it_is_not_taken(cache: Path, corpus: Corpus, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"is not empty and holds no run; choose another folder"):
        start(tmp_path / "run", cache, corpus)
    assert files(tmp_path / "run") == {"thesis.tex"}


def test_a_folder_that_cannot_be_written_is_refused(
    cache: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_folder, "write_json", denied)
    with pytest.raises(UserError, match=r"cannot write to .*run \(Permission denied\); choose another folder"):
        start(tmp_path / "run", cache, corpus)


def test_a_kill_while_the_folder_was_claimed_does_not_block_it(cache: Path, corpus: Corpus, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.123").write_text('{"data"')
    start(tmp_path / "run", cache, corpus, "train.max_steps=4")
    assert not [name for name in files(tmp_path / "run") if name.startswith(".")]


def test_a_mistake_found_after_the_start_leaves_the_folder_free(tmp_path: Path):
    """The same command, put right, must not be told that there is a run already."""
    for content in ("Only one document.", "\n\n".join(f"A document of one sentence, number {n}." for n in range(60))):
        (tmp_path / "odd.txt").write_text(content)
        with pytest.raises(UserError):
            pretrain(tiny(f"data.corpus={tmp_path / 'odd.txt'}"), tmp_path / "run", cache_dir=tmp_path / "cache")
        assert not (tmp_path / "run").exists()
    write_text(tmp_path / "odd.txt")
    config = tiny(f"data.corpus={tmp_path / 'odd.txt'}", "train.max_steps=4")
    assert pretrain(config, tmp_path / "run", cache_dir=tmp_path / "cache").history.status == "finished"


def test_a_mistake_takes_nothing_away_that_was_there_before(finished: Finished, tmp_path: Path):
    (tmp_path / "run").mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(finished.folder / name, tmp_path / "run")
    with pytest.raises(UserError, match="no such file"):
        pretrain(tiny("data.corpus=nowhere.txt"), tmp_path / "run", resume=True, cache_dir=tmp_path)
    assert files(tmp_path / "run") == TOKENIZER_FILES


def test_resume_starts_where_there_is_no_run_and_uses_the_vocabulary_found_there(
    finished: Finished, cache: Path, corpus: Corpus, tmp_path: Path
):
    (tmp_path / "run").mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(finished.folder / name, tmp_path / "run")
    run = start(tmp_path / "run", cache, corpus, "train.max_steps=4", resume=True)
    assert run.tokenizer.backend.to_str() == finished.run.tokenizer.backend.to_str()


def test_a_broken_rule_is_found_before_anything_is_written(cache: Path, corpus: Corpus, tmp_path: Path):
    config = replace(TINY, train=replace(TINY.train, lr=-1.0))
    with pytest.raises(UserError, match=r"train\.lr must be positive"):
        pretrain(config, tmp_path / "run", corpus=corpus, cache_dir=cache)
    assert not (tmp_path / "run").exists()


# When the loss breaks


def losses_that_break(at: int, value: float) -> Callable[..., Any]:
    """`train_step`, whose MLM loss becomes `value` at one step; the weights are then poisoned, as they would be."""
    original, count = pretraining.train_step, [0]

    def step(model: Any, *args: Any, **options: Any) -> tuple[Losses, torch.Tensor]:
        losses, norm = original(model, *args, **options)
        count[0] += 1
        if count[0] == at + 1:
            with torch.no_grad():
                model.nsp.pooler.weight.fill_(math.nan)
            return Losses(losses.total * value, losses.mlm * value, losses.nsp), norm
        return losses, norm

    return step


@pytest.mark.parametrize(("value", "at"), [(math.nan, 10), (math.inf, 11)])  # 11: a checkpoint is due right after
def test_a_loss_that_breaks_stops_the_run_and_spoils_no_checkpoint(
    cache: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, at: int
):
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "train_step", losses_that_break(at, value))
        with pytest.raises(TrainingDiverged) as caught:
            start(tmp_path / "run", cache, corpus)
    message = str(caught.value)
    assert f"not finite at step {at} (MLM {value:.4g}, NSP 0." in message
    for advice in ("lower train.lr (now 0.003)", "train.warmup_steps", "train.grad_clip=1.0", "train.precision=fp32"):
        assert advice in message
    assert "\n" not in message

    data = prepare(TINY, tmp_path / "run", cache, corpus)
    batches = list(data.batches("train", 0).epoch(0)) + list(data.batches("train", 0).epoch(1))
    assert f"batch {fingerprint(batches[at])})" in message

    checkpoints = ckpt.checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in checkpoints] == ["step-0000004", "step-0000008"]
    for path in checkpoints:
        assert all(tensor.isfinite().all() for tensor in read_tensors(path / "model.safetensors").values())
    assert start(tmp_path / "run", cache, corpus, resume=True).history.status == "finished"


def test_a_rate_far_too_high_ends_in_that_error(cache: Path, corpus: Corpus, tmp_path: Path):
    settings = ("train.lr=1e30", "train.grad_clip=none", "train.warmup_steps=0")
    with pytest.raises(TrainingDiverged, match=r"lower train\.lr \(now 1e\+30\)"):
        start(tmp_path / "run", cache, corpus, *settings)
    assert not ckpt.checkpoints(tmp_path / "run" / "checkpoints")


def test_weights_that_broke_in_the_last_update_are_not_saved(
    cache: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The loss of the update was still finite."""
    monkeypatch.setattr(pretraining, "train_step", losses_that_break(at=7, value=1.0))
    with pytest.raises(
        TrainingDiverged, match=r"the weights are not finite after step 7: start a new run and lower train\.lr"
    ):
        start(tmp_path / "run", cache, corpus)
    assert [path.name for path in ckpt.checkpoints(tmp_path / "run" / "checkpoints")] == ["step-0000004"]


def test_losses_on_a_gpu_are_read_ten_updates_at_a_time_and_still_name_their_step(
    cache: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Reading one waits for the device; here the CPU plays the part."""

    class Elsewhere:
        """A device that is not "cpu" by name."""

        type = "elsewhere"

        def __init__(self, _: str) -> None: ...

    original = pretraining._Trainer.__post_init__

    def moved(self: Any) -> None:
        original(self)
        self.device = Elsewhere("")

    monkeypatch.setattr(pretraining._Trainer, "__post_init__", moved)
    monkeypatch.setattr(pretraining, "to_device", lambda batch, _: batch)
    settings = ("train.checkpoint_every=1000", "train.eval_every=1000")
    run = start(tmp_path / "good", cache, corpus, *settings)
    assert [window["step"] for window in run.history.training] == [10, 20]
    monkeypatch.setattr(pretraining, "train_step", losses_that_break(13, math.nan))
    with pytest.raises(TrainingDiverged, match="at step 13 "):
        start(tmp_path / "bad", cache, corpus, *settings)


def test_the_record_is_read_back_from_the_folder(finished: Finished):
    assert History.load(finished.folder) == finished.run.history
