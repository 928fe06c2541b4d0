"""A run that is stopped, killed or broken off anywhere ends as if nothing had happened: the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import (
    Finished,
    as_settings,
    command,
    environment,
    files,
    finished_run,
    hurry,
    outcome,
    read_metrics,
    tiny,
    weights_hash,
    write_text,
)

from mlmkit import checkpoint as ckpt
from mlmkit import history as records
from mlmkit import preparation, pretraining, weights
from mlmkit.config import RunConfig
from mlmkit.errors import UserError
from mlmkit.evaluation import Metrics, evaluate
from mlmkit.history import Evaluation, History
from mlmkit.presets import PRESETS
from mlmkit.pretraining import Interrupted, Run
from mlmkit.weights import read_tensors, to_hf_state


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


def newest(folder: Path) -> str:
    return ckpt.checkpoints(folder / "checkpoints")[-1].name


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


class Crash(BaseException):
    """Stands for a kill: nothing of ours catches it."""


# Stopped by the user


def send_at(step: int, *numbers: signal.Signals) -> Callable[[Evaluation], None]:
    """A `report` that sends signals to this process at one evaluation."""

    def report(evaluation: Evaluation) -> None:
        if evaluation.step == step:
            for number in numbers:
                os.kill(os.getpid(), number)

    return report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 8])
def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(
    finished: Finished, tmp_path: Path, number: signal.Signals, step: int
):
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=rf"stopped at step {step} of 24; go on with: mlmkit pretrain --resume "):
        finished.again(tmp_path / "run", report=send_at(step, number))
    assert signal.getsignal(number) == handler
    assert newest(tmp_path / "run") == f"step-{step:07d}"
    assert read_metrics(tmp_path / "run")["status"] == "interrupted"
    run = finished.again(tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished.folder)
    assert files(tmp_path / "run") == files(finished.folder)
    assert run.history.evaluations == History.load(tmp_path / "run").evaluations


def test_a_run_that_is_interrupted_again_and_again_goes_on_to_the_same_bits(finished: Finished, tmp_path: Path):
    for step in (0, 8, 16):
        with pytest.raises(Interrupted, match=f"step {step} of 24"):
            finished.again(tmp_path / "run", resume=True, report=send_at(step, signal.SIGINT))
    finished.again(tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished.folder)


def test_an_interruption_is_not_evaluated_twice(finished: Finished, tmp_path: Path):
    with pytest.raises(Interrupted):
        finished.again(tmp_path / "run", report=send_at(8, signal.SIGINT))
    seen: list[int] = []
    finished.again(tmp_path / "run", resume=True, report=lambda e: seen.append(e.step))
    assert seen == [16, 24]


def test_the_clock_goes_on_where_it_stopped(finished: Finished, tmp_path: Path):
    with pytest.raises(Interrupted):
        finished.again(tmp_path / "run", report=send_at(8, signal.SIGINT))
    path = tmp_path / "run" / "checkpoints" / newest(tmp_path / "run") / "state.json"
    state = json.loads(path.read_text())
    assert 0 < state["seconds"] < 60
    path.write_text(json.dumps(state | {"seconds": 5000.0}))
    assert 5000 < finished.again(tmp_path / "run", resume=True).history.last.seconds < 5060


def test_a_second_ctrl_c_does_not_wait(finished: Finished, tmp_path: Path):
    with pytest.raises(Interrupted, match="stopped; go on with: mlmkit pretrain --resume"):
        finished.again(tmp_path / "run", report=send_at(16, signal.SIGINT, signal.SIGINT))
    assert newest(tmp_path / "run") == "step-0000016"
    finished.again(tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished.folder)


def test_ctrl_c_while_the_corpus_is_read_says_how_to_go_on(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "train_wordpiece", interrupted)
        with pytest.raises(Interrupted, match="stopped; go on with: mlmkit pretrain --resume"):
            finished.again(tmp_path / "run")
    finished.again(tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished.folder)


# Broken off


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (weights, "save_file", 1),  # the first checkpoint: there is no other
        (weights, "save_file", 6),  # optimizer of the third
        (ckpt, "write_json", 5),  # state of a checkpoint
        (records, "write_json", 2),
        (os, "replace", 15),
        (shutil, "rmtree", 1),
        (pretraining, "save_figure", 1),
        (ckpt, "save", 1),
    ],
)
def test_a_crash_while_files_are_written_costs_nothing(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int
):
    original, calls = getattr(owner, name), [0]

    def crashing(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise Crash
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crashing)
        with pytest.raises(Crash):
            finished.again(tmp_path / "run")
    finished.again(tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished.folder)
    assert files(tmp_path / "run") == files(finished.folder)
    assert files(tmp_path / "run" / "checkpoints") == files(finished.folder / "checkpoints")


@pytest.mark.parametrize("failing", [2, 4])
def test_an_evaluation_that_fails_costs_no_update(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
):
    """Out of memory, say: the checkpoint is written before."""
    calls = [0]

    def out_of_memory(*args: Any) -> Metrics:
        calls[0] += 1
        if calls[0] == failing:
            raise MemoryError
        return evaluate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "evaluate", out_of_memory)
        with pytest.raises(MemoryError):
            finished.again(tmp_path / "run")
    assert newest(tmp_path / "run") == f"step-{8 * (failing - 1):07d}"
    finished.again(tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished.folder)


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(finished: Finished, tmp_path: Path):
    with pytest.raises(Interrupted):
        finished.again(tmp_path / "run", report=send_at(16, signal.SIGINT))
    last = tmp_path / "run" / "checkpoints" / "step-0000016"
    os.truncate(last / "optimizer.safetensors", 100)
    with pytest.raises(UserError, match=r"optimizer\.safetensors is damaged .* delete .*step-0000016 to go on from"):
        finished.again(tmp_path / "run", resume=True)
    shutil.rmtree(last)
    finished.again(tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished.folder)


# What a resumed run must agree with


def test_a_finished_run_is_opened_and_not_trained_again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(finished.folder, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    monkeypatch.setattr(pretraining, "prepare", lambda *_: pytest.fail("the corpus was loaded"))
    monkeypatch.setattr(pretraining, "train_step", lambda *_: pytest.fail("trained"))
    run = finished.again(tmp_path / "run", resume=True)
    assert run.history == finished.run.history
    for name, weight in finished.run.model.state_dict().items():
        assert torch.equal(weight, run.model.state_dict()[name])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_another_configuration_is_refused_and_the_difference_named(finished: Finished, tmp_path: Path):
    with pytest.raises(
        UserError,
        match=r"another configuration: masking\.rate was 0\.15, now 0\.2, train\.lr was 0\.003, now 0\.01$",
    ):
        finished.again(finished.folder, "train.lr=0.01", "masking.rate=0.2", resume=True)


def test_what_was_left_to_the_machine_stays_as_it_was_found(finished: Finished):
    left_open = ("train.device=auto", "train.precision=auto", "train.threads=none")
    assert finished.again(finished.folder, *left_open, resume=True).history == finished.run.history
    with pytest.raises(UserError, match=r"train\.precision was fp32, now bf16"):
        finished.again(finished.folder, "train.precision=bf16", resume=True)


def test_a_corpus_that_has_changed_is_refused(finished: Finished, tmp_path: Path):
    text = Path(shutil.copy(finished.text, tmp_path / "odd.txt"))
    setting = f"data.corpus={text}"
    with pytest.raises(Interrupted):
        finished.again(tmp_path / "run", setting, report=send_at(8, signal.SIGINT))
    old = read_metrics(tmp_path / "run")["corpus_fingerprint"]
    text.write_text(text.read_text().replace("kettle", "teapot"))
    with pytest.raises(
        UserError, match=rf"the corpus has changed .*{old}, now [0-9a-f]{{16}}\); restore it or start a new run"
    ):
        finished.again(tmp_path / "run", setting, resume=True)
    shutil.copy(finished.text, text)
    finished.again(tmp_path / "run", setting, resume=True)
    assert weights_hash(tmp_path / "run") == weights_hash(finished.folder)


# Early stopping


def scripted(losses: dict[int, float], patch: pytest.MonkeyPatch) -> None:
    """Let the evaluation at each step find this MLM loss."""
    original = pretraining._Trainer._evaluate

    def evaluated(self: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            found = lambda *args: replace(evaluate(*args), mlm_loss=losses[self.step])  # noqa: E731
            inner.setattr(pretraining, "evaluate", found)
            original(self)

    patch.setattr(pretraining._Trainer, "_evaluate", evaluated)


WORSENING = {0: 5.0, 8: 3.0, 16: 3.5, 24: 3.2, 32: 2.0}
PATIENT = ("train.patience=2", "train.max_steps=40", "train.keep_checkpoints=20")


@pytest.fixture(scope="module")
def stopped_early(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        scripted(WORSENING, patch)
        return finished.again(tmp_path_factory.mktemp("early") / "run", *PATIENT)


def test_a_run_that_gets_no_better_stops_and_keeps_its_best_weights(stopped_early: Run):
    history = stopped_early.history
    assert history.status == read_metrics(stopped_early.folder)["status"] == "stopped early"
    assert [e.step for e in history.evaluations] == [0, 8, 16, 24]
    assert (history.best.step, history.last.step) == (8, 24)
    final = read_tensors(stopped_early.folder / "model.safetensors")
    checkpoints = stopped_early.folder / "checkpoints"
    best = read_tensors(checkpoints / "step-0000008" / "model.safetensors")
    last = read_tensors(checkpoints / "step-0000024" / "model.safetensors")
    assert all(torch.equal(final[name], best[name]) for name in best)
    assert any(not torch.equal(final[name], last[name]) for name in last)
    for name, tensor in to_hf_state(stopped_early.model).items():
        assert torch.equal(tensor, final[name]), "the model returned is not the one on disk"


def test_a_run_that_stopped_early_is_opened_and_not_trained_again(finished: Finished, stopped_early: Run):
    assert finished.again(stopped_early.folder, *PATIENT, resume=True).history == stopped_early.history


@pytest.mark.parametrize("step", [8, 16])
def test_patience_and_the_best_weights_survive_an_interruption(
    finished: Finished, stopped_early: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    scripted(WORSENING, monkeypatch)
    with pytest.raises(Interrupted):
        finished.again(tmp_path / "run", *PATIENT, report=send_at(step, signal.SIGINT))
    finished.again(tmp_path / "run", *PATIENT, resume=True)
    assert outcome(tmp_path / "run") == outcome(stopped_early.folder)


@pytest.mark.parametrize("step", [8, 24])
def test_patience_and_the_best_weights_survive_a_crash_right_after_an_evaluation(
    finished: Finished, stopped_early: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    """The evaluation was recorded, but no checkpoint holds it yet."""
    scripted(WORSENING, monkeypatch)

    def crash(evaluation: Evaluation) -> None:
        if evaluation.step == step:
            raise Crash

    with pytest.raises(Crash):
        finished.again(tmp_path / "run", *PATIENT, report=crash)
    finished.again(tmp_path / "run", *PATIENT, resume=True)
    assert outcome(tmp_path / "run") == outcome(stopped_early.folder)


def test_patience_that_is_never_used_up_still_keeps_the_best(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scripted({0: 5.0, 8: 3.0, 16: 4.0, 24: 3.5}, monkeypatch)
    run = finished.again(tmp_path / "run", "train.patience=3", "train.keep_checkpoints=20")
    assert run.history.status == "finished"
    best = read_tensors(tmp_path / "run" / "checkpoints" / "step-0000008" / "model.safetensors")
    assert all(torch.equal(tensor, best[name]) for name, tensor in to_hf_state(run.model).items())


# Killed: kill -9 at twenty moments of a real process

MOMENTS = 20
IN_A_ROW = 4
"""Kills in one folder, before its run is let to its end."""
COLD = 3
"""Folders that begin with an empty cache, and whose first kill comes while it is filled."""

KILLED = tiny(
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=4",
    "model.intermediate_size=64",
    "train.max_steps=240",
    "train.warmup_steps=10",
    "train.checkpoint_every=6",
    "train.eval_every=20",
    "train.eval_batches=none",
)
"""With dropout, and every few milliseconds of training a checkpoint or an evaluation."""


@dataclass
class Chain:
    """A folder in which the same run is begun, killed and gone on with until it is done."""

    config: RunConfig
    folder: Path
    cache: Path
    log: list[str] = field(default_factory=list)
    kills: int = 0
    cold_kills: int = 0

    def arguments(self) -> list[str]:
        """As the first time, until the run has told the folder its configuration; then `--resume`."""
        if (self.folder / "run.json").exists():
            return ["pretrain", "--resume", str(self.folder)]
        return ["pretrain", "--preset", "smoke", "--out", str(self.folder), *as_settings(self.config, PRESETS["smoke"])]

    def step(self) -> int:
        found = ckpt.checkpoints(self.folder / "checkpoints")
        return int(found[-1].name[5:]) if found else 0

    def warm(self) -> bool:
        return any((self.cache / "tokens").glob("*-*/test/state.json"))

    def started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*self.arguments()),
            env=environment(self.cache),
            cwd=self.folder.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def killed(self, wait: Callable[[], None]) -> bool:
        """Start, wait, kill; False if the run was done before."""
        resumed, before = self.arguments()[1] == "--resume", self.step()
        process = self.started()
        begun = time.monotonic()
        wait()
        process.kill()
        seconds = time.monotonic() - begun
        out, err = process.communicate()
        if process.returncode == 0:
            return False
        assert process.returncode == -signal.SIGKILL, err
        assert "Traceback" not in err, err
        self.kills += 1
        self.cold_kills += not self.warm()
        self.log.append(
            f"{self.folder.name} {'resumed' if resumed else 'begun':8}{seconds:6.2f} s  "
            f"step {before:3} → {self.step():3}  {self.interrupted(out)}"
        )
        return True

    def interrupted(self, out: str) -> str:
        """What the process was doing, from what it left behind."""
        scraps = [path.name for path in self.folder.glob(".*")]
        scraps += [path.name for path in (self.folder / "checkpoints").glob(".*")]
        if scraps:
            return f"writing {', '.join(sorted(scraps))}"
        if not (self.folder / "run.json").exists():
            return "importing"
        if not self.warm():
            building = [path.name.split("-")[0] for path in self.cache.glob("*/.*-*")]
            return f"filling the cache {' '.join(sorted(set(building)))}".strip()
        if not out:
            return "starting, before the first evaluation"
        return "finishing" if (self.folder / "config.json").exists() else "training or evaluating"

    def finish(self) -> None:
        process = self.started()
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err


def until_the_cache_is_being_filled(cache: Path, delay: float) -> None:
    """Wait for the first sign of a corpus being built, then a moment more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any((cache / "corpus").glob(".building-*")):
        time.sleep(0.002)
    time.sleep(delay)


def moments(rng: np.random.Generator) -> Iterator[float]:
    """Shares of a run's duration: one in each twentieth, in random order, and again."""
    while True:
        yield from ((rng.permutation(MOMENTS) + rng.random(MOMENTS)) / MOMENTS).tolist()


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments_changes_no_bit(tmp_path: Path):
    config = KILLED.override([f"data.corpus={write_text(tmp_path / 'odd.txt', count=150)}"])
    reference = Chain(config, tmp_path / "reference", tmp_path / "warm")
    begun = time.monotonic()
    process = reference.started()
    assert process.stdout is not None
    process.stdout.readline()  # the evaluation before the first update
    startup = time.monotonic() - begun
    process.communicate()
    training = time.monotonic() - begun - startup
    expected = outcome(reference.folder)
    assert len(expected["evaluations"]) == 13
    log = [f"uninterrupted: {startup:.2f} s to the first evaluation, {training:.2f} s from there"]

    rng = np.random.default_rng(0)
    shares = moments(rng)
    chains: list[Chain] = []
    while sum(chain.kills for chain in chains) < MOMENTS:
        number = len(chains)
        assert number < 2 * MOMENTS, "\n".join(["the run is over before it is killed", *log])
        cold = number < COLD
        chains.append(Chain(config, tmp_path / f"run{number}", tmp_path / (f"cold{number}" if cold else "warm")))
        chain = chains[-1]
        while chain.kills < IN_A_ROW:
            if cold and not chain.kills:
                wait = partial(until_the_cache_is_being_filled, chain.cache, rng.uniform(0, 0.4))
            else:
                whole = startup + training * (1 - chain.step() / config.train.max_steps)
                wait = partial(time.sleep, next(shares) * whole)
            if not chain.killed(wait):
                break
        log += chain.log
        chain.finish()
        assert outcome(chain.folder) == expected, "\n".join(log)
        assert files(chain.folder) == files(reference.folder), "\n".join(log)
        assert files(chain.folder / "checkpoints") == files(reference.folder / "checkpoints"), "\n".join(log)
    print("\n".join(log))
    assert len(chains) >= 5, "\n".join(log)
    assert sum(chain.cold_kills for chain in chains) >= 2, "\n".join(log)
