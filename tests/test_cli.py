"""The command line: each command does its work, and each mistake is answered in one line that says what to do."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from runs import (
    ROOT,
    TINY,
    Answer,
    Finished,
    as_settings,
    documents,
    environment,
    files,
    finished_run,
    hurry,
    outcome,
    read_metrics,
    shell,
    tiny,
    write_text,
)

import mlmkit
from mlmkit import cli, pretraining
from mlmkit.corpus import load_corpus
from mlmkit.evaluation import evaluate
from mlmkit.preparation import prepare
from mlmkit.presets import PRESETS

COMMANDS = [
    *("corpus", "pretrain", "evaluate", "fill-mask", "inspect", "finetune", "import", "export", "exact", "experiment"),
    *("diagnose", "course", "syllabus", "exercises", "progress", "grade"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(autouse=True)
def usual_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("MLMKIT_CACHE", str(finished_run(tmp_path_factory).cache))
    hurry(monkeypatch)


def tiny_options(*settings: str) -> list[str]:
    """Turn `--preset smoke` into the tiny run."""
    return ["--preset", "smoke", *as_settings(TINY, PRESETS["smoke"]), *(f"--set={setting}" for setting in settings)]


# Help, and how fast it comes


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(call: Callable[..., Answer], arguments: list[str]):
    answer = call(*arguments)
    assert answer.code == 0
    assert not answer.err
    for name in COMMANDS:
        assert re.search(rf"^ +{name} ", answer.out, re.MULTILINE), name


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(call: Callable[..., Answer], name: str):
    answer = call(name, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: mlmkit {name}")


def test_python_m_mlmkit_answers_in_less_than_three_seconds(finished: Finished, tmp_path: Path):
    before = os.times()
    answer = shell(["--help"], finished.cache, tmp_path)
    after = os.times()
    assert answer.code == 0
    assert "fill-mask" in answer.out
    # of computing: on a busy machine the clock on the wall says nothing
    assert after.children_user + after.children_system - before.children_user - before.children_system < 3


@pytest.mark.parametrize("statement", ["import mlmkit, mlmkit.cli", "import mlmkit.course, mlmkit.pretraining"])
def test_importing_leaves_the_heavy_libraries_alone(statement: str, tmp_path: Path):
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "mlmkit" in loaded
    assert not loaded & {"transformers", "datasets", "matplotlib", "pyarrow", "papermill", "pandas"}
    if "pretraining" not in statement:
        assert "torch" not in loaded


# corpus


def test_corpus_says_what_it_holds(call: Callable[..., Answer], finished: Finished):
    answer = call("corpus", finished.text, "--held-out", 0.15, "--show", 2)
    assert answer.code == 0
    corpus = load_corpus(finished.text, cache_dir=finished.cache, held_out=0.15)
    assert corpus.fingerprint in answer.out
    assert f"{corpus.report.words['train']:,}" in answer.out
    shown = [line.strip() for line in answer.out.split("\n\n", 1)[1].splitlines() if line.startswith("  ")]
    assert shown == [*corpus["train"][0]["sentences"], *corpus["train"][1]["sentences"]]
    assert corpus["train"][0]["source"] in answer.out


def test_corpus_can_show_nothing_or_everything(call: Callable[..., Answer], finished: Finished):
    few = call("corpus", finished.text, "--show", 0)
    assert few.code == 0
    assert "[" not in few.out
    assert call("corpus", finished.text, "--show", 1000).out.count("\n[") > 20


def test_corpus_split_follows_its_seed(call: Callable[..., Answer], finished: Finished):
    first = call("corpus", finished.text, "--seed", 1).out
    assert call("corpus", finished.text, "--seed", 1).out == first
    assert call("corpus", finished.text, "--seed", 2).out != first


# pretrain


def test_pretrain_reports_evaluations_and_says_where_the_model_is(
    call: Callable[..., Answer], finished: Finished, tmp_path: Path
):
    answer = call("pretrain", *tiny_options(), "--corpus", finished.text, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert not answer.err
    assert outcome(tmp_path / "run") == outcome(finished.folder), "the command is not the function"
    lines = answer.out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["step", str(step)] for step in (0, 8, 16, 24)]
    history = finished.run.history
    gain = history.baselines.unigram_entropy - history.last.mlm_loss
    side = f"{gain:.2f} below" if gain > 0 else f"{-gain:.2f} above"
    assert lines[4].startswith(f"finished: held-out MLM loss {history.last.mlm_loss:.3f} nats, {side} the unigram entr")
    assert lines[5] == f"model, metrics.json and curve.png are in {tmp_path / 'run'}"


def test_pretrain_resumed_after_its_end_says_the_same_and_trains_nothing(
    call: Callable[..., Answer], finished: Finished, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pretraining, "train_step", lambda *_: pytest.fail("trained"))
    answer = call("pretrain", "--resume", finished.folder)
    assert answer.code == 0
    assert answer.out.startswith("finished: held-out MLM loss")


def test_pretrain_tells_of_its_best_evaluation_where_it_keeps_the_best(
    call: Callable[..., Answer], finished: Finished, tmp_path: Path
):
    settings = tiny_options("train.patience=9", "train.lr=0.5", "train.warmup_steps=0")
    answer = call("pretrain", *settings, "--corpus", finished.text, "--out", tmp_path / "run")
    evaluations = read_metrics(tmp_path / "run")["evaluations"]
    best = min(e["mlm_loss"] for e in evaluations)
    assert best < evaluations[-1]["mlm_loss"]
    assert f"MLM loss {best:.3f} nats" in answer.out.splitlines()[-2]


def test_a_run_on_a_text_beside_the_reader_is_evaluated_from_elsewhere(
    call: Callable[..., Answer], finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(Path(finished.text).parent)
    command = ("pretrain", *tiny_options("train.max_steps=4"), "--corpus", Path(finished.text).name)
    assert call(*command, "--out", tmp_path / "run").code == 0
    monkeypatch.chdir(tmp_path)
    answer = call("evaluate", "run")
    assert answer.code == 0, answer.err


def test_pretrain_without_out_uses_runs_and_the_name_of_the_preset(
    call: Callable[..., Answer], finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert call("pretrain", *tiny_options("train.max_steps=4"), "--corpus", finished.text).code == 0
    assert (tmp_path / "runs" / "smoke" / "model.safetensors").is_file()


def test_pretrain_uses_the_laptop_preset_unless_told_otherwise(
    call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []

    def pretend(config: Any, folder: Path, **options: Any) -> None:
        seen.append((config, folder, options["resume"]))
        raise pretraining.Interrupted("enough")

    monkeypatch.setattr(pretraining, "pretrain", pretend)
    assert call("pretrain").code == 130
    assert seen == [(PRESETS["laptop"], Path("runs/laptop"), False)]


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_loss_that_breaks_ends_with_code_1_and_one_line(
    call: Callable[..., Answer], finished: Finished, tmp_path: Path, rate: str
):
    settings = tiny_options(f"train.lr={rate}", "train.grad_clip=none", "train.max_steps=60")
    answer = call("pretrain", *settings, "--corpus", finished.text, "--out", tmp_path / "run")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert re.match(r"mlmkit: the (loss is|weights are) not finite (at|after) step \d+", answer.err)
    assert "lower train.lr" in answer.err


def test_an_interrupted_run_ends_with_code_130_and_says_how_to_go_on(
    call: Callable[..., Answer], finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "train_step", stop)
        answer = call("pretrain", *tiny_options(), "--corpus", finished.text, "--out", tmp_path / "run")
    assert answer.code == 130
    assert answer.err == f"mlmkit: stopped; go on with: mlmkit pretrain --resume {tmp_path / 'run'}\n"
    answer = call("pretrain", "--resume", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert outcome(tmp_path / "run") == outcome(finished.folder)


def test_ctrl_c_elsewhere_ends_with_code_130_without_a_traceback(
    call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlmkit.corpus.load_corpus", stop)
    answer = call("corpus")
    assert answer.code == 130
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("stop", [KeyboardInterrupt, typer.Abort])
def test_ctrl_c_before_a_command_has_begun(call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, stop: type):
    def app(**_: Any) -> None:
        raise stop

    monkeypatch.setattr(cli, "app", app)
    assert call("corpus") == Answer(130, "", "")


def test_a_bug_keeps_its_traceback(call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch):
    def bug(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mlmkit.corpus.load_corpus", bug)
    with pytest.raises(ZeroDivisionError):
        call("corpus")


# evaluate


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_prints_what_evaluate_computes(call: Callable[..., Answer], finished: Finished, split: str):
    data = prepare(finished.config, finished.folder, finished.cache)
    expected, base = evaluate(finished.run.model, data.held_out(split)), data.baselines(split)
    answer = call("evaluate", finished.folder, "--split", split, "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert found["split"] == split
    assert {name: found[name] for name in expected.to_dict()} == expected.to_dict()
    assert found["baselines"] == {
        "uniform": base.uniform,
        "unigram_cross_entropy": base.unigram_cross_entropy,
        "unigram_entropy": base.unigram_entropy,
        "bigram_cross_entropy": base.bigram_cross_entropy,
        "coin": math.log(2),
        "mlm_floor": None,
        "nsp_floor": None,
        "nsp_optimum": None,
    }
    text = call("evaluate", finished.folder, "--split", split).out
    assert text.startswith(f"{split} part of {finished.text} ({expected.pairs} pairs, {expected.selected} selected")
    for number in (
        f"{expected.mlm_loss:.3f} nats   ln V {base.uniform:.3f}, unigram entropy {base.unigram_entropy:.3f}, "
        f"bigram table {base.bigram_cross_entropy:.3f}\n",
        f"{expected.mlm_accuracy:.1%}",
        f"{expected.nsp_loss:.3f} nats   ln 2 0.693",
        f"{expected.nsp_accuracy:.1%}        a coin 50.0%",
    ):
        assert number in text


def test_evaluate_on_an_exact_language_prints_the_floors(call: Callable[..., Answer], tmp_path: Path):
    settings = ["data.corpus=exact:market:300", "data.max_length=31", "data.short_seq_prob=0", "masking.count=binomial"]
    run = pretraining.pretrain(
        tiny(*settings, "train.max_steps=2", "train.warmup_steps=1"), tmp_path / "run", progress=False
    )
    answer = call("evaluate", run.folder, "--json")
    base = json.loads(answer.out)["baselines"]
    text = call("evaluate", run.folder).out
    assert f"bigram table {base['bigram_cross_entropy']:.3f}, floor {base['mlm_floor']:.3f}\n" in text
    assert f"ln 2 0.693, floor {base['nsp_floor']:.3f}\n" in text
    assert f"a coin 50.0%, at best {base['nsp_optimum']:.1%}\n" in text


def test_evaluate_takes_the_test_part_unless_told_otherwise(call: Callable[..., Answer], finished: Finished):
    assert json.loads(call("evaluate", finished.folder, "--json").out)["split"] == "test"


def test_evaluate_on_another_corpus(call: Callable[..., Answer], finished: Finished, tmp_path: Path):
    other = write_text(tmp_path / "other.txt", seed=5)
    answer = call("evaluate", finished.folder, "--corpus", other, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["mlm_loss"] != json.loads(call("evaluate", finished.folder, "--json").out)["mlm_loss"]


# fill-mask


def test_fill_mask_prints_the_candidates_of_every_mask(call: Callable[..., Answer], finished: Finished):
    text = "The [MASK] forgets no [MASK]."
    answer = call("fill-mask", finished.folder, text, "--top", 3)
    assert answer.code == 0
    expected = mlmkit.fill_mask(finished.run.model, finished.run.tokenizer, text, 3)
    lines = answer.out.splitlines()
    assert [line for line in lines if line.startswith("[MASK]")] == ["[MASK] 1", "[MASK] 2"]
    rows = [line.split() for line in lines if line.startswith("  ")]
    assert rows == [[f"{c.probability:.1%}", c.token] for candidates in expected for c in candidates]


def test_fill_mask_shows_five_candidates_unless_told_otherwise(call: Callable[..., Answer], finished: Finished):
    assert len(call("fill-mask", finished.folder, "A [MASK].").out.splitlines()) == 6


# course


@pytest.mark.parametrize("ok", [True, False])
def test_course_runs_the_notebooks_and_tells_by_its_code_whether_all_is_well(
    call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, ok: bool
):
    seen: list[Any] = []

    def pretend(notebooks: Any, out: Path, **options: Any) -> SimpleNamespace:
        seen.append((notebooks, out, options["preset"], options["jobs"]))
        return SimpleNamespace(ok=ok, render=lambda console: console.print("what was learned"))

    monkeypatch.setattr("mlmkit.course.run_course", pretend)
    answer = call("course", "a.ipynb", "b.ipynb", "--preset", "smoke", "--out", "elsewhere", "--jobs", "2")
    assert answer.code == (0 if ok else 1)
    assert answer.out == "what was learned\n"
    assert seen == [([Path("a.ipynb"), Path("b.ipynb")], Path("elsewhere"), "smoke", 2)]
    call("course")
    assert seen[1] == (None, Path("build"), None, 1)


# As real processes, or nearly


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["mlmkit", "corpus", "nowhere"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("mlmkit", run_name="__main__")
    assert left.value.code == 2
    assert "nowhere: no such file" in capsys.readouterr().err


def test_a_session_of_real_commands(finished: Finished, tmp_path: Path):
    arguments = ["pretrain", *tiny_options("train.max_steps=8"), "--corpus", finished.text, "--out", "run"]
    answer = shell(arguments, finished.cache, tmp_path)
    assert (answer.code, answer.err) == (0, "")
    assert "curve.png" in files(tmp_path / "run")
    answer = shell(["evaluate", "run", "--split", "validation", "--json"], finished.cache, tmp_path)
    assert (answer.code, answer.err) == (0, "")
    # eval_batches is 3: the run measured a part of what the command measures
    assert json.loads(answer.out)["mlm_loss"] == pytest.approx(
        read_metrics(tmp_path / "run")["evaluations"][-1]["mlm_loss"], abs=0.2
    )


# Thirty mistakes, and more


@dataclass(frozen=True)
class Place:
    """Where a mistake is made: a folder of its own, a good text, a copy of a finished run."""

    path: Path
    text: Path
    run: Path

    def pretrain(self, *settings: str, corpus: str | Path | None = None, out: str = "out") -> list[str]:
        options = tiny_options(*settings)
        return ["pretrain", *options, "--corpus", str(corpus or self.text), "--out", str(self.path / out)]

    def file(self, name: str, content: str | bytes = "") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def parquet(self, name: str, **columns: list[Any]) -> Path:
        pq.write_table(pa.table(columns), self.path / name)
        return self.path / name


@pytest.fixture
def place(finished: Finished, tmp_path: Path) -> Place:
    shutil.copytree(finished.folder, tmp_path / "run")
    return Place(tmp_path, finished.text, tmp_path / "run")


def damaged_parquet(place: Place) -> Path:
    path = place.parquet("bad.parquet", text=["one", "two"])
    path.write_bytes(path.read_bytes()[:-10])
    return path


def offline(*_: Any, **__: Any) -> None:
    raise ConnectionError("no network\nand a second line")


Mistake = tuple[Callable[[Place], list[str | Path]], list[str]]
LINES = [json.dumps({"text": " ".join(document)}) for document in documents(20)]

MISTAKES: dict[str, Mistake] = {
    # which preset, which corpus
    "unknown preset": (
        lambda p: ["pretrain", "--preset", "desktop"],
        [r"no preset 'desktop'", r"smoke, laptop, exact, gpu, base"],
    ),
    "unknown preset of the course": (
        lambda p: ["course", "--preset", "desktop"],
        [r"no preset .*'desktop'", r"smoke, laptop, exact, gpu, base"],
    ),
    "unknown corpus path": (
        lambda p: p.pretrain(corpus="nowhere"),
        [r"nowhere: no such file or folder", r"give python-docs"],
    ),
    "empty file": (
        lambda p: ["corpus", p.file("empty.txt")],
        [r"empty\.txt: found 0 document", r"need at least 3: give more text"],
    ),
    "blank file": (
        lambda p: ["corpus", p.file("blank.txt", " \n\n \n")],
        [r"blank\.txt: found 0 doc", r"give more text"],
    ),
    "binary file": (
        lambda p: ["corpus", p.file("b.txt", b"abc\x00\x01" * 99)],
        [r"b\.txt: .*binary file", r"give \.txt files"],
    ),
    "not UTF-8": (
        lambda p: ["corpus", p.file("latin.txt", "Der Löffel fällt.".encode("latin-1"))],
        [r"latin\.txt: not UTF-8 text \(byte 0xf6\)", r"save it as UTF-8"],
    ),
    "one document": (
        lambda p: p.pretrain(corpus=p.file("one.txt", "A spoon. A kettle.")),
        [r"one\.txt: found 1 document", r"need at least 3: give more text, with blank lines between"],
    ),
    "one sentence in each document": (
        lambda p: p.pretrain(corpus=p.file("short.txt", "\n\n".join(d[0] for d in documents(80)))),
        [r"two documents with two sentences each", r"blank line ends a document"],
    ),
    "unknown ending": (
        lambda p: ["corpus", p.file("a.docx", "text")],
        [r"a\.docx: cannot read files ending in \.docx", r"give \.txt"],
    ),
    "no ending": (
        lambda p: ["corpus", p.file("README", "text")],
        [r"README: cannot read files ending in nothing", r"give \.txt"],
    ),
    "folder without text": (
        lambda p: ["corpus", p.file("folder/picture.png").parent],
        [r"folder: the folder holds no \.txt, \.jsonl, \.parquet file", r"put some there"],
    ),
    "bad line of JSON": (
        lambda p: ["corpus", p.file("a.jsonl", "\n".join([*LINES[:6], "{'text': 1", *LINES[6:]]))],
        [r"a\.jsonl, line 7: not JSON", r"one object a line"],
    ),
    "JSON without text": (
        lambda p: ["corpus", p.file("a.jsonl", "\n".join([LINES[0], '{"body": "A spoon."}']))],
        [r"a\.jsonl, line 2: no field \"text\"", r"found fields body", r"write \{"],
    ),
    "text that is no string": (
        lambda p: ["corpus", p.file("a.jsonl", '{"text": 3}')],
        [r"a\.jsonl, line 1: text is not a string", r"write \{"],
    ),
    "damaged Parquet": (
        lambda p: ["corpus", damaged_parquet(p)],
        [r"bad\.parquet: not a readable Parquet file", r"write it again"],
    ),
    "Parquet without text": (
        lambda p: ["corpus", p.parquet("p.parquet", body=["a"], n=[1])],
        [r"p\.parquet: no column of strings named text", r"found body \(string\), n \(int64\)", r"rename the column"],
    ),
    "the hub without network": (
        lambda p: ["corpus", "hf:nobody/nothing"],
        [r"hf:nobody/nothing: could not be read", r"no network", r"check the name and the network, or use python-docs"],
    ),
    "the hub without a name": (lambda p: ["corpus", "hf:"], [r"needs the name of a dataset", r"write hf:NAME"]),
    "held-out share": (
        lambda p: ["corpus", p.text, "--held-out", "0.7"],
        [r"held_out must lie between 0 and 0\.5, got 0\.7"],
    ),
    # --set
    "set without =": (lambda p: p.pretrain("train.lr"), [r"a setting looks like train\.lr=3e-3, got 'train\.lr'"]),
    "set without a section": (lambda p: p.pretrain("lr=1"), [r"a setting looks like train\.lr=3e-3, got 'lr=1'"]),
    "unknown section": (
        lambda p: p.pretrain("trian.lr=1"),
        [r"no section 'trian'; did you mean 'train'\?", r"data, masking"],
    ),
    "unknown field": (
        lambda p: p.pretrain("train.batchsize=8"),
        [r"train has no field 'batchsize'; did you mean 'batch_size'\?"],
    ),
    "wrong type": (
        lambda p: p.pretrain("train.max_steps=many"),
        [r"train\.max_steps expects a whole number, got 'many'"],
    ),
    "a fraction of a step": (lambda p: p.pretrain("train.max_steps=1.5"), [r"train\.max_steps expects a whole number"]),
    "not a number": (lambda p: p.pretrain("train.lr=nan"), [r"train\.lr expects a number, got nan"]),
    "neither true nor false": (
        lambda p: p.pretrain("data.lowercase=yes"),
        [r"data\.lowercase expects true or false, got 'yes'"],
    ),
    "out of range": (lambda p: p.pretrain("masking.rate=1.5"), [r"masking\.rate must be between 0 and 1, got 1\.5"]),
    "80/10/20": (lambda p: p.pretrain("masking.random=0.2"), [r"mask.*random.*keep.*1", r"0\.8.*0\.2.*0\.1"]),
    "unknown unit": (lambda p: p.pretrain("masking.unit=letter"), [r"masking\.unit", r"token.*word.*span", r"letter"]),
    "unknown precision": (
        lambda p: p.pretrain("train.precision=fp8"),
        [r"train\.precision expects one of auto, fp32, bf16, got 'fp8'"],
    ),
    "heads do not divide": (
        lambda p: p.pretrain("model.num_attention_heads=3"),
        [r"model\.hidden_size 16 must be divisible by model\.num_attention_heads 3"],
    ),
    "longer than the positions": (
        lambda p: p.pretrain("data.max_length=64"),
        [r"data\.max_length 64 exceeds model\.max_position_embeddings 32", r"lower the first or raise the second"],
    ),
    "all warm-up": (
        lambda p: p.pretrain("train.warmup_steps=25"),
        [r"train\.warmup_steps must be between 0 and train\.max_steps 24, got 25"],
    ),
    "size of the vocabulary": (
        lambda p: p.pretrain("model.vocab_size=100"),
        [r"model\.vocab_size follows from the tokenizer; set data\.vocab_size instead"],
    ),
    "a vocabulary without words": (
        lambda p: p.pretrain("data.vocab_size=5"),
        [r"data\.vocab_size must exceed the 5 special"],
    ),
    "a seed too large": (
        lambda p: p.pretrain(f"train.seed={2**63}"),
        [r"less than 2\*\*63, got train\.seed=9"],
    ),
    "a seed below zero": (lambda p: p.pretrain("data.seed=-1"), [r"must not be negative .* got data\.seed=-1"]),
    "unknown device": (
        lambda p: p.pretrain("train.device=tpu"),
        [r"train\.device must be auto, cpu or cuda", r"got 'tpu'"],
    ),
    "a GPU that is not there": (
        lambda p: p.pretrain("train.device=cuda:99"),
        [r"train\.device=cuda:99 asks for a GPU, but PyTorch sees \d+; use cpu"],
    ),
    # folders
    "a run already": (
        lambda p: p.pretrain(out="run"),
        [r"run already holds a run", r"go on with --resume .*run, or choose"],
    ),
    "out is a file": (
        lambda p: p.pretrain(out=p.file("file").name),
        [r"file is a file; the run needs a folder", r"choose another"],
    ),
    "out is under a file": (
        lambda p: p.pretrain(out=f"{p.file('file').name}/out"),
        [r"cannot write to .*out", r"choose another"],
    ),
    "out is not empty": (
        lambda p: p.pretrain(out=p.file("full/thesis.tex").parent.name),
        [r"full is not empty and holds no run", r"choose another folder"],
    ),
    "resume of no run": (
        lambda p: ["pretrain", "--resume", p.file("full/thesis.tex").parent],
        [r"full.run\.json does not exist", r"is .*full a folder written by `mlmkit pretrain`"],
    ),
    "resume of no folder": (
        lambda p: ["pretrain", "--resume", p.path / "no"],
        [r"no is not a folder; give the folder that"],
    ),
    "resume and set": (
        lambda p: ["pretrain", "--resume", p.run, "--set", "train.lr=1"],
        [r"--resume goes on with a run as it was begun", r"leave all other options away"],
    ),
    "resume and preset": (
        lambda p: ["pretrain", "--resume", p.run, "--preset", "gpu"],
        [r"--resume", r"leave all other options away"],
    ),
    "damaged run.json": (
        lambda p: (p.file("run/run.json", '{"train": {"lr'), ["pretrain", "--resume", p.run])[1],
        [r"run\.json is damaged, it is not JSON", r"put a good copy in its place"],
    ),
    # evaluate, fill-mask
    "evaluate no run": (
        lambda p: ["evaluate", p.file("full/thesis.tex").parent],
        [r"full.run\.json does not exist; is .* a folder written by `mlmkit pretrain`"],
    ),
    "evaluate no folder": (lambda p: ["evaluate", p.path / "no"], [r"no is not a folder; give the folder that"]),
    "unknown part": (
        lambda p: ["evaluate", p.run, "--split", "train"],
        [r"--split must be validation or test, got 'train'"],
    ),
    "damaged weights": (
        lambda p: (os.truncate(p.run / "model.safetensors", 3000), ["evaluate", p.run])[1],
        [r"model\.safetensors is damaged", r"put a good copy in its place"],
    ),
    "damaged config.json": (
        lambda p: (p.file("run/config.json", "{"), ["fill-mask", p.run, "A [MASK]."])[1],
        [r"config\.json is damaged, it is not JSON", r"put a good copy"],
    ),
    "a run that has not finished": (
        lambda p: ((p.run / "model.safetensors").unlink(), ["evaluate", p.run])[1],
        [r"run holds a run that has not finished; go on with: mlmkit pretrain --resume .*run"],
    ),
    "no mask": (lambda p: ["fill-mask", p.run, "A spoon."], [r"no \[MASK\] in 'A spoon\.'", r"write it where a word"]),
    "too long": (
        lambda p: ["fill-mask", p.run, "[MASK] " + "spoon " * 40],
        [r"the text has \d+ tokens", r"this model reads at most 32"],
    ),
    "no candidates": (
        lambda p: ["fill-mask", p.run, "A [MASK].", "--top", "0"],
        [r"'--top'", r"greater than or equal to 1"],
    ),
    # the command itself
    "unknown command": (lambda p: ["trian"], [r"No such command 'trian'", r"see mlmkit --help"]),
    "unknown option": (lambda p: ["pretrain", "--stesp", "5"], [r"No such option:? '?--stesp", r"see mlmkit --help"]),
    "missing argument": (lambda p: ["evaluate"], [r"Missing argument 'DIR'", r"see mlmkit --help"]),
    "missing value": (lambda p: ["pretrain", "--out"], [r"'--out' requires an argument"]),
    "a word for a number": (lambda p: ["corpus", p.text, "--show", "all"], [r"'--show'", r"valid integer"]),
    "one argument too many": (lambda p: ["corpus", p.text, p.text], [r"unexpected extra argument"]),
}


def test_there_are_at_least_thirty_mistakes():
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_line_that_names_it_and_the_remedy(
    call: Callable[..., Answer], place: Place, mistake: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(place.path)
    monkeypatch.setattr("datasets.load_dataset", offline)
    make, patterns = MISTAKES[mistake]
    arguments = make(place)
    before = files(place.path)
    answer = call(*arguments)
    assert answer.code == 2, answer.err
    assert answer.err.startswith("mlmkit: ")
    assert answer.err.count("\n") == 1, f"not one line: {answer.err!r}"
    assert answer.err.endswith("\n")
    assert "Traceback" not in answer.err
    for pattern in patterns:
        assert re.search(pattern, answer.err), f"{pattern!r} is not in {answer.err!r}"
    assert files(place.path) == before, "something stays behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_asked_for_where_there_is_none(call: Callable[..., Answer], place: Place):
    answer = call(*place.pretrain("train.device=cuda"))
    assert answer.code == 2
    assert answer.err == "mlmkit: train.device=cuda asks for a GPU, but PyTorch sees 0; use cpu\n"


def test_evaluate_refuses_a_corpus_that_has_changed(call: Callable[..., Answer], finished: Finished, tmp_path: Path):
    """Its test part may hold text that was trained on."""
    text = Path(shutil.copy(finished.text, tmp_path / "odd.txt"))
    arguments = [*tiny_options("train.max_steps=4"), "--corpus", text, "--out", tmp_path / "run"]
    assert call("pretrain", *arguments).code == 0
    text.write_text(text.read_text().replace("kettle", "teapot"))
    answer = call("evaluate", tmp_path / "run")
    assert answer.code == 2
    assert re.search(
        r"the corpus has changed .*held-out parts may hold text of the training; restore it, or", answer.err
    )
    assert call("evaluate", tmp_path / "run", "--corpus", text).code == 0


def test_a_mistake_in_a_real_process_is_one_line_too(finished: Finished, place: Place):
    """Also where the thread that prepares batches finds it."""
    make, patterns = MISTAKES["one sentence in each document"]
    answer = shell(make(place), finished.cache, place.path)
    assert answer.code == 2
    assert answer.err.count("\n") == 1, answer.err
    assert re.search(patterns[0], answer.err)


def test_the_package_is_run_from_here():
    assert Path(mlmkit.__file__).parent == ROOT / "mlmkit"
