"""Experiments: grids in order, honest error bars, runs that fail alone and go on, one set of questions for all."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs import TINY, command, environment, hurry, make_corpus, outcome, tiny, write_text
from scipy import stats

from mlmkit import cli
from mlmkit.batches import fingerprint
from mlmkit.config import DataConfig, RunConfig
from mlmkit.errors import UserError
from mlmkit.exact import ideal_losses
from mlmkit.experiments import (
    METRICS,
    Experiment,
    Result,
    experiment,
    judging,
    read_experiment,
    run_experiment,
    running,
    worker,
)
from mlmkit.experiments.judging import ask_one, common_questions, linear_accuracy, run_and_judge
from mlmkit.experiments.metrics import MEASURED, NSP_METRICS
from mlmkit.intervals import Interval, mean_interval, paired_interval
from mlmkit.language import language_named
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.preparation import prepare
from mlmkit.presets import PRESETS
from mlmkit.pretraining import Interrupted, pretrain

EXACT = replace(
    TINY,
    data=DataConfig(corpus="exact:market:400", max_length=31, short_seq_prob=0.0, held_out=0.1),
    masking=MaskingPolicy(count="binomial"),
)
"""The tiny network on a language of which everything is known."""

FAKE = """
    import json, os, pathlib, sys, time
    job = json.loads(sys.stdin.readline())
    config, folder = job["config"], pathlib.Path(job["folder"])
    folder.mkdir(exist_ok=True)
    with open(folder / "started", "a") as file:
        file.write("x")
    lr, seed = config["train"]["lr"], config["train"]["seed"]
    {body}
    found = {{name: 10 * lr + seed for name in {names}}}
    (folder / "measured.json").write_text(json.dumps(found))
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the processes do something quick instead of training: all metrics are 10 lr + seed."""

    def use(body: str = "") -> None:
        script = textwrap.dedent(FAKE).format(body=body, names=[name for name in METRICS])
        monkeypatch.setattr(running, "WORKER", ("-c", script))

    use()
    return use


RATES = {"train.lr": [0.1, 0.2]}


def run(out: Path, **changes: Any) -> Result:
    settings: dict[str, Any] = {"grid": RATES, "base": EXACT, "seeds": 3, "jobs": 2, "progress": False, **changes}
    return experiment(settings.pop("grid"), out=out, **settings)


# --- the grid ------------------------------------------------------------------------------------------------


def test_a_grid_is_expanded_in_order_the_first_field_slowest() -> None:
    plan = Experiment(TINY, {"train.lr": [0.1, 0.2], "masking.unit": ["token", "word", "span"]}, (0,))
    rows = plan.configurations()
    assert [row.label for row in rows] == [f"lr={lr} unit={u}" for lr in (0.1, 0.2) for u in ("token", "word", "span")]
    assert [(row.config.train.lr, row.config.masking.unit) for row in rows] == [
        (lr, unit) for lr in (0.1, 0.2) for unit in ("token", "word", "span")
    ]
    same = [replace(r.config, train=TINY.train, masking=TINY.masking) == TINY for r in rows]
    assert all(same), "only what the grid names may change"


def test_fields_joined_by_commas_vary_together() -> None:
    grid = {"masking.mask, masking.random,masking.keep": [[0.8, 0.1, 0.1], [1.0, 0.0, 0.0]], "train.nsp_weight": [1, 0]}
    rows = Experiment(TINY, grid, (0,)).configurations()
    assert [(r.config.masking.mask, r.config.masking.keep, r.config.train.nsp_weight) for r in rows] == [
        (0.8, 0.1, 1),
        (0.8, 0.1, 0),
        (1.0, 0.0, 1),
        (1.0, 0.0, 0),
    ]
    assert rows[0].label == "mask=0.8 random=0.1 keep=0.1 nsp_weight=1"


def test_values_may_be_none_true_and_text() -> None:
    grid = {"train.patience": [None, 2, "none"][:2], "data.dynamic_masks": [True, False]}
    rows = Experiment(TINY, grid, (0,)).configurations()
    assert [(r.config.train.patience, r.config.data.dynamic_masks) for r in rows] == [
        (None, True),
        (None, False),
        (2, True),
        (2, False),
    ]


def test_every_configuration_meets_every_seed_with_one_thread() -> None:
    jobs = list(Experiment(tiny("train.threads=4", "train.seed=9"), RATES, (3, 5)).jobs())
    assert [(j.row, j.seed) for j in jobs] == [(0, 3), (1, 3), (0, 5), (1, 5)]
    assert all((j.config.train.seed, j.config.train.threads) == (j.seed, 1) for j in jobs)
    assert [j.config.train.lr for j in jobs] == [0.1, 0.2] * 2
    assert len({j.name for j in jobs}) == 4


def test_a_plan_survives_json() -> None:
    plan = Experiment(EXACT, {"masking.mask,masking.keep": [[0.8, 0.1], [0.9, 0.0]]}, (0, 4), ("kl",), "t", "q?")
    assert Experiment.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {}}, "the grid is empty: name a field and its values"),
        ({"grid": {"train.lr": []}}, r"the grid needs a list of values for train.lr, got \[\]"),
        ({"grid": {"train.lr": 0.1}}, "the grid needs a list of values for train.lr, got 0.1"),
        ({"grid": {"train.lrr": [1]}}, "train has no field 'lrr'; did you mean 'lr'?"),
        ({"grid": {"lr": [1]}}, "a setting looks like train.lr=3e-3"),
        ({"grid": {"train.lr": ["fast"]}}, "train.lr expects a number, got 'fast'"),
        ({"grid": {"train.lr": [-1.0]}}, "train.lr must be positive"),
        ({"grid": {"train.lr": [0.1, 0.1]}}, "two configurations are the same: lr=0.1"),
        ({"grid": {"train.lr": [0.1], "train.lr,train.beta1": [[1, 0.5]]}}, "the grid names train.lr twice"),
        ({"grid": {"train.lr,train.beta1": [[0.1]]}}, r"each value of train.lr,train.beta1 must be a list of 2, got"),
        ({"grid": {"train.seed": [1, 2]}}, "the grid cannot vary train.seed or train.threads: `seeds` gives the seeds"),
        ({"seeds": ()}, r"seeds must be different whole numbers from 0 on, at least one, got \[\]"),
        ({"seeds": (1, 1)}, "seeds must be different"),
        ({"seeds": (-1,)}, "seeds must be different whole numbers from 0 on"),
        ({"seeds": ("a",)}, "seeds must be different whole numbers"),
        ({"metrics": ("mlm_los",)}, "there is no metric 'mlm_los'; did you mean 'mlm_loss'?"),
        ({"metrics": ("kl",), "base": TINY}, "the metric kl needs text and masking whose best answer is known"),
        (
            {"metrics": ("kl",), "base": EXACT.override(["masking.unit=word"])},
            "start from the preset exact, got data.corpus=exact:market:400 with masking.unit=word",
        ),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment(**({"base": EXACT, "grid": RATES, "seeds": (0,)} | changes))


def test_what_is_shown_by_default_depends_on_what_can_be_known() -> None:
    assert set(Experiment(EXACT, RATES, (0,)).metrics) <= {name for name, m in METRICS.items() if m.exact}
    assert not set(Experiment(TINY, RATES, (0,)).metrics) & {name for name, m in METRICS.items() if m.exact}


# --- files ---------------------------------------------------------------------------------------------------

FILE = """
    title = "Learning rates"
    question = "Is twice as much better?"
    preset = "smoke"
    seeds = [1, 2]
    metrics = ["mlm_loss", "seconds"]
    [set]
    train.max_steps = 24
    "data.corpus" = "texts"
    [grid]
    train.lr = [1e-3, 2e-3]
    "masking.mask,masking.keep" = [[0.8, 0.1], [0.9, 0.0]]
"""


def write_file(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(textwrap.dedent(text))
    return path


def test_a_file_says_all_of_an_experiment(tmp_path: Path) -> None:
    plan = read_experiment(write_file(tmp_path, FILE))
    assert (plan.title, plan.question) == ("Learning rates", "Is twice as much better?")
    assert plan.base == PRESETS["smoke"].override(["train.max_steps=24", "data.corpus=texts"])
    assert plan.seeds == (1, 2)
    assert plan.metrics == ("mlm_loss", "seconds")
    assert [row.label for row in plan.configurations()] == [
        f"lr={lr} mask={mask} keep={keep}" for lr in (0.001, 0.002) for mask, keep in ((0.8, 0.1), (0.9, 0.0))
    ]


def test_a_short_file_takes_the_exact_language_and_five_seeds(tmp_path: Path) -> None:
    plan = read_experiment(write_file(tmp_path, '[grid]\n"train.lr" = [1e-3]'))
    assert plan.base == PRESETS["exact"]
    assert plan.seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid = [", "is not TOML"),
        ("seed = 5\n[grid]\ntrain.lr = [1.0]", "there is no key 'seed'; did you mean 'seeds'?"),
        ("title = 3\n[grid]\ntrain.lr = [1.0]", "title must be a text, got 3"),
        ('grid = "train.lr"', "grid must be a table, got 'train.lr'"),
        ('metrics = "kl"\n[grid]\ntrain.lr = [1.0]', "metrics must be a list, got 'kl'"),
        ('preset = "exactly"\n[grid]\ntrain.lr = [1.0]', "there is no preset 'exactly'; did you mean 'exact'?"),
        ('seeds = "five"\n[grid]\ntrain.lr = [1.0]', "seeds must be a number of seeds or a list of them, got 'five'"),
        ("seeds = 0\n[grid]\ntrain.lr = [1.0]", "seeds must be different whole numbers"),
        ("title = 'nothing to vary'", "the grid is empty"),
        ("[set]\ntrain.lrr = 1\n[grid]\ntrain.lr = [1.0]", "train has no field 'lrr'; did you mean 'lr'?"),
        ("[set]\ntrain.lr = 'x'\n[grid]\ntrain.lr = [1.0]", "train.lr expects a number, got 'x'"),
        ("[grid]\nmodle.hidden_size = [8]", "no section 'modle'; did you mean 'model'?"),
        ("metrics = ['gap']\n[grid]\ntrain.lr = [1.0]", "there is no metric 'gap'; did you mean"),
    ],
)
def test_a_bad_file_is_answered_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = write_file(tmp_path, text)
    assert cli.main(["experiment", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert str(path) in error
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_answered_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nothing.toml .*; name a TOML file with a"):
        read_experiment(tmp_path / "nothing.toml")


EXAMPLES = sorted((Path(__file__).parents[1] / "docs" / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_can_be_run(path: Path) -> None:
    plan = read_experiment(path)
    assert plan.title
    assert plan.question.endswith("?")
    assert len(plan.seeds) >= 5, "one seed is no proof"
    assert len(plan.configurations()) >= 2


def test_there_is_an_example_for_each_question() -> None:
    assert {path.stem for path in EXAMPLES} == {"no_nsp", "mask_rate", "all_mask", "static_masks", "too_long"}


# --- error bars ----------------------------------------------------------------------------------------------


def test_an_interval_by_hand() -> None:
    """1, 2, 3, 4, 5: mean 3, s² = 10/4, t₄ = 2.776 from the table."""
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found is not None
    assert found.mean == 3
    assert found.half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert found.seeds == 5


@pytest.mark.parametrize("seed", range(5))
def test_a_paired_interval_is_that_of_the_paired_t_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=8) * 10  # what the seed does to both
    a, b = shared + rng.normal(size=8), shared + rng.normal(size=8) + 1
    found, expected = paired_interval(b, a), stats.ttest_rel(b, a).confidence_interval(0.95)
    assert found is not None
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(tuple(expected))
    assert found.excludes_zero == (stats.ttest_rel(b, a).pvalue < 0.05)
    alone = [mean_interval(values) for values in (a, b)]
    assert all(one is not None and one.half_width > 2 * found.half_width for one in alone), "pairing gained nothing"


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    """2000 experiments with 4 seeds: 95 % within four standard errors of a share, 4 √(0.95·0.05/2000) = 0.02."""
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.normal(7, 3, 4)) for _ in range(2000)]
    held = np.mean([abs(one.mean - 7) <= one.half_width for one in found])
    assert abs(held - 0.95) < 0.02


def test_a_failed_run_is_left_out_of_the_mean_and_its_pair_of_the_difference() -> None:
    nan = math.nan
    assert mean_interval([1.0, nan, 3.0]) == mean_interval([1.0, 3.0])
    assert paired_interval([1.0, nan, 3.0, 8.0], [0.0, 5.0, nan, 4.0]) == mean_interval([1.0, 4.0])
    assert mean_interval([nan, nan]) is None


def test_one_seed_has_no_interval_and_proves_nothing() -> None:
    found = mean_interval([4.0])
    assert found == Interval(4.0, None, 1)
    assert not found.excludes_zero


# --- running -------------------------------------------------------------------------------------------------


def test_every_run_gets_its_configuration_and_its_result_its_place(fake: Callable[..., None], tmp_path: Path) -> None:
    result = run(tmp_path / "out", seeds=[4, 2])
    assert result.values("kl").tolist() == [[5, 3], [6, 4]]
    assert not result.failures
    assert Result.load(tmp_path / "out") == result


def test_no_more_processes_run_than_jobs(fake: Callable[..., None], tmp_path: Path) -> None:
    fake(
        f"""
    place = pathlib.Path({str(tmp_path)!r})
    (place / f"{{os.getpid()}}.here").touch(); time.sleep(0.15)
    (folder / "seen").write_text(str(len(list(place.glob("*.here")))))
    (place / f"{{os.getpid()}}.here").unlink()""".replace("\n    ", "\n")
    )
    for jobs in (1, 3):
        run(tmp_path / f"{jobs}", jobs=jobs)
        seen = [int(path.read_text()) for path in (tmp_path / f"{jobs}").rglob("seen")]
        assert len(seen) == 6
        assert max(seen) == jobs, "more at a time than asked for, or one by one"


def test_the_number_of_jobs_is_that_of_the_cores_and_at_least_1(fake: Callable[..., None], tmp_path: Path) -> None:
    assert running.cores() == len(os.sched_getaffinity(0))
    with pytest.raises(UserError, match="jobs must be at least 1, got 0"):
        run(tmp_path / "out", jobs=0)
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_says_why_and_does_not_stop_the_others(fake: Callable[..., None], tmp_path: Path) -> None:
    fake("if lr == 0.2 and seed == 1: print('warm up'); sys.exit('the loss is not finite at step 3')")
    result = run(tmp_path / "out")
    assert result.failures == {"lr=0.2, seed 1": "failed: the loss is not finite at step 3"}
    values = result.values("kl")
    assert np.isnan(values).sum() == 1
    assert np.isnan(values[1, 1])
    assert result.rows("kl")[1].difference == Interval(1.0, 0.0, 2)
    assert "1 without a result:\n  lr=0.2, seed 1: failed: the loss is not finite at step 3" in result.table()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), 9)", "its process was killed by signal 9"),
        ("sys.exit(3)", "its process ended with code 3"),
        ("raise MemoryError('too large')", "MemoryError: too large"),
    ],
)
def test_a_process_that_dies_is_a_failed_run(fake: Callable[..., None], tmp_path: Path, body: str, reason: str) -> None:
    fake(body)
    result = run(tmp_path / "out", seeds=1)
    assert set(result.failures.values()) == {f"failed: {reason}"}
    assert result.rows("kl")[0].mean is None
    assert "no result" in result.table()


def started(out: Path) -> dict[str, int]:
    """How often each run was started."""
    return {path.parent.name: len(path.read_text()) for path in out.rglob("started")}


def test_started_again_it_opens_what_is_finished_and_tries_again_what_failed(
    fake: Callable[..., None], tmp_path: Path
) -> None:
    fake("if seed == 1: sys.exit('full disk')")
    run(tmp_path / "out")
    fake()
    result = run(tmp_path / "out")
    assert not result.failures
    assert started(tmp_path / "out") == {f"{row:02d}-seed{s}": 1 + (s == 1) for row in (0, 1) for s in (0, 1, 2)}
    run(tmp_path / "out")
    assert sum(started(tmp_path / "out").values()) == 8, "a finished experiment is only opened"


def test_seeds_can_be_added_and_other_metrics_shown(fake: Callable[..., None], tmp_path: Path) -> None:
    run(tmp_path / "out", seeds=2)
    result = run(tmp_path / "out", seeds=4, metrics=["seconds"])
    assert set(started(tmp_path / "out").values()) == {1}
    assert result.values("seconds").shape == (2, 4)
    assert "kl" not in result.table()
    fewer = run(tmp_path / "out", seeds=1)
    assert fewer.values("seconds").shape == (2, 1)


@pytest.mark.parametrize(
    ("changes", "part"),
    [({"grid": {"train.lr": [0.1, 0.3]}}, "grid"), ({"base": TINY, "metrics": ["seconds"]}, "base")],
)
def test_the_folder_of_another_experiment_is_refused(
    fake: Callable[..., None], tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    run(tmp_path / "out", seeds=1)
    book = (tmp_path / "out" / "experiment.json").read_bytes()
    with pytest.raises(UserError, match=f"holds another experiment: its {part} is not the one asked for"):
        run(tmp_path / "out", seeds=1, **changes)
    assert (tmp_path / "out" / "experiment.json").read_bytes() == book


def test_other_folders_and_damaged_books_are_refused(fake: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear")
    for taken in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(UserError, match="is not empty and holds no experiment; choose another folder"):
            run(taken)
    with pytest.raises(UserError, match=r"cannot write to .*letter.txt/out \(Not a directory\)"):
        run(tmp_path / "letter.txt" / "out")
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged, it is no book of an experiment"):
        run(tmp_path)
    with pytest.raises(UserError, match="is damaged, it has no 'experiment'"):
        Result.load(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        Result.load(tmp_path / "nowhere")


def test_the_book_is_whole_at_every_moment(
    fake: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written under another name and renamed, after every run."""
    renamed, original = [], os.replace

    def watched(source: Path, target: Path) -> None:
        if Path(target).name == "experiment.json":
            renamed.append(len(json.loads(Path(source).read_text())["runs"]))
        original(source, target)

    monkeypatch.setattr(os, "replace", watched)
    run(tmp_path / "out", seeds=2, jobs=1)
    assert renamed == [0, 1, 2, 3, 4]


def test_ctrl_c_closes_the_pipes_and_waits_for_the_runs(
    fake: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is finished, two are running, one has not begun."""
    fake("if (lr, seed) != (0.1, 0): sys.stdin.read(); (folder / 'checkpoint').touch(); sys.exit(130)")

    def pressed(seconds: float) -> None:
        time.sleep(seconds)
        book = json.loads((tmp_path / "out" / "experiment.json").read_text())
        if book["runs"] and len(started(tmp_path / "out")) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(running, "time", SimpleNamespace(sleep=pressed, monotonic=time.monotonic))
    with pytest.raises(Interrupted, match="stopped with 1 of 4 runs finished; start the same again to go on"):
        run(tmp_path / "out", seeds=2)
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("checkpoint")) == ["00-seed1", "01-seed0"]
    statuses = {name: entry["status"] for name, entry in Result.load(tmp_path / "out").runs.items()}
    assert statuses == {"00-seed0": "finished", "00-seed1": "interrupted", "01-seed0": "interrupted"}
    monkeypatch.setattr(running, "time", time)
    fake()
    assert not run(tmp_path / "out", seeds=2).failures
    assert started(tmp_path / "out") == {"00-seed0": 1, "00-seed1": 2, "01-seed0": 2, "01-seed1": 1}


def test_a_run_that_does_not_stop_is_killed(
    fake: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("time.sleep(60)")
    monkeypatch.setattr(running, "PATIENCE", 0.1)

    def pressed(seconds: float) -> None:
        time.sleep(seconds)
        if started(tmp_path / "out"):
            raise KeyboardInterrupt

    monkeypatch.setattr(running, "time", SimpleNamespace(sleep=pressed, monotonic=time.monotonic))
    with pytest.raises(Interrupted):
        run(tmp_path / "out", seeds=1, jobs=1)
    assert Result.load(tmp_path / "out").runs["00-seed0"]["reason"] == "its process was killed by signal 9"


def test_a_process_that_cannot_read_its_job_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WORKER", ("-c", "import os, sys; os.close(0); sys.exit('no job')"))
    assert set(run(tmp_path / "out", seeds=1).failures.values()) == {"failed: no job"}


# --- the process of a run ------------------------------------------------------------------------------------


def do_job(monkeypatch: pytest.MonkeyPatch, config: RunConfig, folder: Path, judge: Callable[..., Any]) -> int:
    """`worker.main` in this process, without the thread that ends it."""
    line = json.dumps({"config": config.to_dict(), "base": TINY.to_dict(), "folder": str(folder)})
    with (folder.parent / "job").open("w+") as file:
        file.write(line + "\n")
        file.seek(0)
        monkeypatch.setattr(sys, "stdin", file)
        monkeypatch.setattr(worker, "run_and_judge", judge)
        monkeypatch.setattr(worker, "_stop_when_the_pipe_closes", lambda: None)
        return worker.main()


def test_a_job_leaves_its_metrics_in_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = tiny("train.lr=0.5", "train.patience=3")
    assert do_job(monkeypatch, config, tmp_path / "run", lambda c, b, f: {"lr": c.train.lr, "base": b.train.lr}) == 0
    assert json.loads((tmp_path / "run" / MEASURED).read_text()) == {"lr": 0.5, "base": TINY.train.lr}


@pytest.mark.parametrize(("error", "code"), [(UserError("no\nway"), 1), (Interrupted("stopped"), 130)])
def test_a_job_that_fails_says_so_in_one_line_and_leaves_no_metrics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def fail(*_: Any) -> None:
        raise error

    (tmp_path / "run").mkdir()
    assert do_job(monkeypatch, TINY, tmp_path / "run", fail) == code
    assert capsys.readouterr().err == " ".join(str(error).split()) + "\n"
    assert not (tmp_path / "run" / MEASURED).exists()


def test_when_the_pipe_closes_the_run_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGTERM, which `pretrain` turns into a checkpoint; not before the pipe closes."""
    reading, writing = os.pipe()
    caught = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: caught.set())
    try:
        with os.fdopen(reading) as pipe:
            monkeypatch.setattr(sys, "stdin", pipe)
            thread = threading.Thread(target=worker._stop_when_the_pipe_closes)
            thread.start()
            assert not caught.wait(0.1)
            os.close(writing)
            thread.join()
            assert caught.wait(5)
    finally:
        signal.signal(signal.SIGTERM, previous)


# --- judging -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def usual_cache(cache: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLMKIT_CACHE", str(cache))
        patch.setattr(judging, "PAIRS", 256)
        hurry(patch)
        yield cache


@pytest.fixture(scope="module")
def judged(usual_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("judged") / "run"
    return folder, run_and_judge(EXACT.override(["train.threads=1"]), EXACT, folder)


def test_all_metrics_are_measured_on_a_known_language(judged: tuple[Path, dict[str, float]]) -> None:
    _, found = judged
    assert found.keys() == METRICS.keys()
    for name, value in found.items():
        assert math.isfinite(value), name
        if name.endswith(("accuracy", "topic")):
            assert 0 <= value <= 1


def test_on_other_text_all_but_those_that_need_a_language(usual_cache: Path, tmp_path: Path) -> None:
    config = tiny(f"data.corpus={write_text(tmp_path / 'odd.txt')}")
    found = run_and_judge(config, config, tmp_path / "run")
    assert found.keys() == {name for name, metric in METRICS.items() if not metric.exact}
    with pytest.raises(UserError, match="the metric kl needs text whose best answer is known"):
        Result(Experiment(config, RATES, (0,)), {"a": book_entry(0, 0, found)}, tmp_path).values("kl")


def book_entry(row: int, seed: int, metrics: dict[str, float]) -> dict[str, Any]:
    return {"row": row, "seed": seed, "status": "finished", "metrics": metrics}


def test_the_gap_is_the_loss_on_the_common_questions_above_that_of_the_perfect_model(
    judged: tuple[Path, dict[str, float]], usual_cache: Path
) -> None:
    folder, found = judged
    data = prepare(EXACT, folder)
    common = common_questions(EXACT, data)
    perfect = ideal_losses(data.corpus.language, common, EXACT.masking)
    # the model's loss is computed in fp32
    assert found["mlm_gap"] == pytest.approx(found["common_mlm_loss"] - perfect.mlm_loss.mean, abs=1e-4)
    assert found["nsp_gap"] == pytest.approx(perfect.nsp_accuracy.mean - found["common_nsp_accuracy"], abs=1e-6)
    rng = np.random.default_rng([judging.EVALUATION_SEED, 1])
    holes = [ask_one(batch, data.tokenizer, rng, hide=True) for batch in common]
    perfect = ideal_losses(data.corpus.language, holes, judging.HOLES)
    assert found["hole_gap"] == pytest.approx(found["hole_loss"] - perfect.mlm_loss.mean, abs=1e-4)


@pytest.mark.parametrize(("patience", "kept"), [("none", -1), ("8", 1)])
def test_the_record_speaks_of_the_model_that_was_kept(
    judged: tuple[Path, dict[str, float]], patience: str, kept: int
) -> None:
    """With patience the best evaluation, here made to be the second; otherwise the last."""
    history = pretrain(EXACT.override(["train.threads=1"]), judged[0], resume=True, progress=False).history
    history.evaluations = [replace(e, mlm_loss=9.0 - (i == 1)) for i, e in enumerate(history.evaluations)]
    history.config["train"]["patience"] = None if patience == "none" else int(patience)
    found = judging.from_history(history)
    assert found["nsp_loss"] == history.evaluations[kept].nsp_loss
    assert found["mlm_loss"] == history.evaluations[kept].mlm_loss
    assert (found["seconds"], found["tokens"]) == (history.last.seconds, history.last.tokens)


@pytest.mark.parametrize(
    "changes",
    [
        ["masking.rate=0.4", "masking.mask=1", "masking.random=0", "masking.keep=0"],
        ["train.seed=3", "train.batch_size=5", "data.dynamic_masks=false"],
        ["data.corpus=exact:market:900"],
    ],
)
def test_all_runs_answer_the_same_questions(usual_cache: Path, tmp_path: Path, changes: list[str]) -> None:
    """However they were trained, and also where a part of the language was read that another run did not see."""
    asked = [
        [fingerprint(batch) for batch in common_questions(EXACT, prepare(config, tmp_path))]
        for config in (EXACT, EXACT.override(changes))
    ]
    assert asked[0] == asked[1]
    assert len(asked[0]) == 256 / EXACT.train.batch_size


def test_questions_on_other_text_come_from_the_test_part_under_the_masking_of_the_base(
    usual_cache: Path, tmp_path: Path
) -> None:
    corpus = make_corpus(usual_cache)
    base = tiny("masking.rate=0.5")
    data = prepare(TINY, tmp_path, usual_cache, corpus)
    trained_otherwise = replace(data, config=tiny("masking.rate=0.1", "train.batch_size=3", "train.seed=4"))
    found = common_questions(base, data)
    assert [fingerprint(b) for b in found] == [fingerprint(b) for b in common_questions(base, trained_otherwise)]
    selected = sum(int((b["labels"] != IGNORE).sum()) for b in found)
    words = sum(int(b["attention_mask"].sum()) - 3 * len(b["labels"]) for b in found)
    assert 0.4 < selected / words < 0.6
    expected = replace(data, config=base).held_out("test")
    assert fingerprint(found[0]) == fingerprint(next(iter(expected)))


@pytest.mark.parametrize("hide", [True, False])
def test_one_word_of_clean_text_is_asked_for(usual_cache: Path, tmp_path: Path, hide: bool) -> None:
    data = prepare(EXACT.override(["masking.rate=0.6"]), tmp_path)
    batch = next(data.held_out("test"))
    true = torch.where(batch["labels"] == IGNORE, batch["input_ids"], batch["labels"])
    found = ask_one(batch, data.tokenizer, np.random.default_rng(0), hide=hide)
    asked = found["labels"] != IGNORE
    assert (asked.sum(1) == 1).all()
    assert torch.equal(found["labels"][asked], true[asked])
    assert torch.equal(found["input_ids"][~asked], true[~asked])
    assert (found["input_ids"][asked] == data.tokenizer.mask_id).all() == hide
    assert torch.equal(found["input_ids"][asked], true[asked]) == (not hide)
    assert not torch.isin(found["labels"][asked], torch.from_numpy(data.tokenizer.special_ids)).any()
    places = {int(row.nonzero()[0, 0]) for _ in range(40) for row in
              ask_one(batch, data.tokenizer, np.random.default_rng(_), hide=hide)["labels"].ne(IGNORE)}  # fmt: skip
    L1, L2 = language_named("market").lengths
    assert places == {*range(1, L1 + 1), *range(L1 + 2, L1 + L2 + 2)}, "every word can be asked for"


def test_a_linear_classifier_finds_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    noise = torch.from_numpy(rng.normal(size=(3000, 16)))
    assert linear_accuracy(noise + 5 * torch.eye(3, 16)[labels], labels, 3) > 0.98
    # as many numbers as documents to learn from; 300 tested: a third, within four standard errors 4 √(2/9/300) = 0.11
    wide = torch.from_numpy(rng.normal(size=(600, 300)))
    assert abs(linear_accuracy(wide, labels[:600], 3) - 1 / 3) < 0.11


# --- what is shown -------------------------------------------------------------------------------------------


def made_up(values: list[list[float]], metric: str, tmp_path: Path, grid: dict[str, list[Any]] | None = None) -> Result:
    """A result of which the numbers are given."""
    grid = grid or {"train.lr": [0.1 * (i + 1) for i in range(len(values))]}
    plan = Experiment(EXACT, grid, tuple(range(len(values[0]))), (metric,), "A title", "A question?")
    runs = {
        f"{row}-{seed}": book_entry(row, seed, {metric: value})
        for row, line in enumerate(values)
        for seed, value in enumerate(line)
    }
    return Result(plan, runs, tmp_path)


def test_the_table_has_means_differences_and_a_verdict_only_where_the_interval_excludes_0(tmp_path: Path) -> None:
    table = made_up([[1.0, 2.0, 3.0], [1.5, 2.4, 3.6], [0.0, 4.0, 2.6]], "kl", tmp_path).table()
    assert table.splitlines()[:3] == ["A title", "A question?", "3 configurations × 3 seeds, 95% intervals"]
    assert table.splitlines()[4] == f"kl: {METRICS['kl'].meaning}"
    rows = [line.split() for line in table.splitlines()[6:]]
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert rows[0] == ["lr=0.1", "2.0000", "±", f"{half:.4f}"], "the first row differs from nothing"
    difference = stats.ttest_rel([1.5, 2.4, 3.6], [1, 2, 3]).confidence_interval()
    width = (difference.high - difference.low) / 2
    assert rows[1][4:] == ["+0.5000", "±", f"{width:.4f}", "higher:", "worse"]
    assert rows[2][4:6] == ["+0.2000", "±"]
    assert len(rows[2]) == 7, "no verdict: 0 is in the interval"


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [("kl", "lower: better"), ("hole_accuracy", "lower: worse"), ("word_topic", "lower: worse"), ("seconds", "lower")],
)
def test_a_verdict_knows_which_direction_is_better(tmp_path: Path, metric: str, verdict: str) -> None:
    result = made_up([[1.0, 2.0, 3.0], [0.5, 1.5, 2.4]], metric, tmp_path)
    assert [row.verdict for row in result.rows(metric)] == ["", verdict]


def test_one_seed_gives_a_table_without_intervals_and_without_verdict(tmp_path: Path) -> None:
    table = made_up([[1.0], [5.0]], "kl", tmp_path).table()
    assert "1 seed: no interval" in table
    assert "±" not in table
    assert table.splitlines()[-1].split() == ["lr=0.2", "5.0000", "+4.0000"]


def test_a_head_that_was_not_trained_is_reported_as_such(tmp_path: Path) -> None:
    for order in ([1.0, 0.0], [0.0, 1.0]):
        for metric in NSP_METRICS:
            result = made_up([[0.6, 0.6], [0.5, 0.5]], metric, tmp_path, {"train.nsp_weight": order})
            rows = result.rows(metric)
            assert [row.trained for row in rows] == [weight > 0 for weight in order]
            assert rows[1].difference is None
            assert not rows[1].verdict
            assert result.table().count("head not trained") == 1
    labels = [label.get_text() for label in result.plot(metric).axes[0].get_yticklabels()]
    assert ["head not trained" in label for label in labels] == [True, False]
    words = made_up([[0.6, 0.6], [0.5, 0.5]], "kl", tmp_path, {"train.nsp_weight": [1.0, 0.0]})
    assert words.rows("kl")[1].verdict == "lower: better", "the words' head was trained"


def test_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no metric 'k1'; did you mean 'kl'"):
        made_up([[1.0]], "kl", tmp_path).plot("k1")


def test_the_picture_shows_every_seed_and_the_interval(tmp_path: Path) -> None:
    values = [[1.0, 2.0, 3.0], [1.5, math.nan, 3.6], [math.nan] * 3]
    result = made_up(values, "kl", tmp_path)
    (axes,) = result.plot("kl").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [row.label for row in result.rows("kl")]
    dots = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 3 and line.get_marker() == "o"]
    np.testing.assert_array_equal(dots, values)
    bars = [collection.get_segments()[0] for collection in axes.collections]
    found = [(bar[0][0], bar[1][0], bar[0][1]) for bar in bars]
    expected = [
        (row.mean.mean - row.mean.half_width, row.mean.mean + row.mean.half_width, place)
        for place, row in enumerate(result.rows("kl"))
        if row.mean is not None
    ]
    np.testing.assert_allclose(found, expected)
    assert axes.get_xlabel() == "kl"
    assert axes.get_title() == "A title"
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is on top"


# --- the command ---------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_leaves_pictures(
    fake: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path, FILE)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["experiment", str(path), "--jobs", "2"]) == 0
    out = tmp_path / "runs" / "plan"
    table = Result.load(out).table()
    assert table in capsys.readouterr().out
    assert (out / "table.txt").read_text() == table + "\n"
    assert {p.name for p in out.glob("*.png")} == {"mlm_loss.png", "seconds.png"}
    fake("sys.exit('no')")
    assert cli.main(["experiment", str(path), "--out", str(tmp_path / "other")]) == 1
    assert "failed: no" in capsys.readouterr().out


# --- whole runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny runs, one after the other: the file of the experiment and its folder."""
    place = tmp_path_factory.mktemp("real")
    # long enough that a signal after the first checkpoint always comes before the end
    base = tiny(f"data.corpus={write_text(place / 'odd.txt')}", "train.max_steps=120", "train.eval_every=40")
    settings = {k: v for k, v in flat(base).items() if flat(PRESETS["smoke"])[k] != v}
    lines = [f'"{key}" = {json.dumps(value)}' for key, value in settings.items()]
    grid = '"masking.mask,masking.random,masking.keep" = [[0.8, 0.1, 0.1], [1, 0, 0]]'
    path = place / "plan.toml"
    path.write_text("\n".join(['preset = "smoke"', "seeds = 1", "[set]", *lines, "[grid]", grid]))
    assert read_experiment(path).base == base
    finish(path, place / "out", cache, jobs=1)
    return path, place / "out"


def flat(config: RunConfig) -> dict[str, Any]:
    return {f"{s}.{name}": value for s, fields in config.to_dict().items() for name, value in fields.items()}


def finish(path: Path, out: Path, cache: Path, jobs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLMKIT_CACHE", str(cache))
        run_experiment(read_experiment(path), out, jobs=jobs, progress=False)


def everything(out: Path) -> dict[str, Any]:
    """Weights, records and metrics of all runs, without the clock."""
    result = Result.load(out)
    assert not result.failures
    metrics = {n: {k: v for k, v in r["metrics"].items() if k != "seconds"} for n, r in result.runs.items()}
    return {name: (outcome(out / "runs" / name), metrics[name]) for name in sorted(metrics)}


@pytest.mark.slow
def test_runs_side_by_side_give_what_runs_one_by_one_give(real: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    path, out = real
    finish(path, tmp_path / "out", cache, jobs=2)
    assert everything(tmp_path / "out") == everything(out)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["child", "parent", "user"])
def test_a_killed_or_stopped_experiment_goes_on_as_if_nothing_had_happened(
    real: tuple[Path, Path], cache: Path, tmp_path: Path, who: str
) -> None:
    """The run is killed, the experiment is killed, or Ctrl-C is pressed, after the first checkpoint."""
    both, expected = real
    path, out = tmp_path / "plan.toml", tmp_path / "out"
    path.write_text(both.read_text().replace(", [1, 0, 0]]", "]"))  # the first of the two runs
    process = subprocess.Popen(
        command("experiment", path, "--out", out, "--jobs", "1"),
        env=environment(cache),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    run_folder = out / "runs" / "00-seed0"
    deadline = time.monotonic() + 300
    while not list(run_folder.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(children[0] if who == "child" else process.pid, signal.SIGINT if who == "user" else signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    if who == "user":
        assert process.returncode == 130
        assert (
            error.strip().splitlines()[-1] == "mlmkit: stopped with 0 of 1 runs finished; start the same again to go on"
        )
    if who == "child":
        assert process.returncode == 1
    deadline = time.monotonic() + 300
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{child}").exists() for child in children), "a run outlived its experiment"
    if who != "child":
        assert not (run_folder / "model.safetensors").exists(), "the run was finished before it could be stopped"
    finish(path, out, cache, jobs=1)
    assert everything(out)["00-seed0"] == everything(expected)["00-seed0"]
