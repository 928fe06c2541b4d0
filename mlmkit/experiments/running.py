"""Run an experiment: at most so many processes at a time, each with one run; started again, it goes on.

The folder holds `experiment.json`, the book of what is planned and what is done, and in `runs/` a folder and a log for
each run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mlmkit.config import RunConfig
from mlmkit.errors import UserError
from mlmkit.experiments.metrics import MEASURED
from mlmkit.experiments.plan import Experiment, Job, read_seeds
from mlmkit.experiments.result import BOOK, Result
from mlmkit.pretraining import Interrupted
from mlmkit.weights import read_json, write_json

WORKER = ("-m", "mlmkit.experiments.worker")
"""How Python is called for one run."""
PATIENCE = 60.0
"""Seconds that a stopped run has to write its checkpoint before it is killed."""


def experiment(
    grid: Mapping[str, Sequence[Any]],
    *,
    base: RunConfig,
    out: str | Path,
    seeds: int | Sequence[int] = 5,
    metrics: Sequence[str] = (),
    title: str = "",
    question: str = "",
    jobs: int | None = None,
    progress: bool = True,
) -> Result:
    """Train every configuration of a grid with every seed, and compare them.

    Args:
        grid: `section.field` → values, as `--set` takes them; fields that vary together are joined by commas, and
            each of their values is a list.
        base: what all runs share.
        out: folder of the experiment; one that was stopped is gone on with.
        seeds: how many (0, 1, …), or which.
        metrics: names of `METRICS` to show.
        title, question: what it is about.
        jobs: processes at a time; default: as many as cores.
        progress: show a bar on a terminal.

    Raises:
        UserError: the grid or the folder does not allow it.
        Interrupted: Ctrl-C came; what was running wrote a checkpoint.
    """
    plain = {key: [list(v) if isinstance(v, tuple) else v for v in values] for key, values in grid.items()}
    plan = Experiment(base, plain, read_seeds(seeds), tuple(metrics), title, question)
    return run_experiment(plan, out, jobs=jobs, progress=progress)


def run_experiment(plan: Experiment, out: str | Path, *, jobs: int | None = None, progress: bool = True) -> Result:
    """Do what is left to do of an experiment; arguments and errors as of `experiment`."""
    jobs = cores() if jobs is None else jobs
    if jobs < 1:
        raise UserError(f"jobs must be at least 1, got {jobs}")
    folder = Path(out)
    book = _open_book(folder, plan)
    planned = list(plan.jobs())
    waiting = deque(job for job in planned if book["runs"].get(job.name, {}).get("status") != "finished")
    done = len(planned) - len(waiting)
    bar = tqdm(total=len(planned), initial=done, unit="run", disable=None if progress else True)
    running: list[_Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.popleft(), plan.base, folder))
            time.sleep(0.05)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                _write_down(book, folder, child, "failed")
                bar.update()
    except KeyboardInterrupt:
        _stop(running)
        for child in running:
            _write_down(book, folder, child, "interrupted")
        done = sum(book["runs"].get(job.name, {}).get("status") == "finished" for job in planned)
        raise Interrupted(
            f"stopped with {done} of {len(planned)} runs finished; start the same again to go on"
        ) from None
    finally:
        _stop(running)
        bar.close()
    return Result.load(folder)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open_book(folder: Path, plan: Experiment) -> dict[str, Any]:
    """Open the book of an experiment, or begin one; seeds may be added and another metric be shown.

    Raises:
        UserError: the folder holds another experiment, or something else.
    """
    path = folder / BOOK
    book: dict[str, Any] = {"experiment": plan.to_dict(), "runs": {}}
    if path.is_file():
        book["runs"] = _runs_of(path, plan)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty and holds no experiment; choose another folder")
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        write_json(path, book)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another folder") from None
    return book


def _runs_of(path: Path, plan: Experiment) -> dict[str, Any]:
    """What is already done of this very experiment."""
    found, wanted = read_json(path), plan.to_dict()
    if not {"experiment", "runs"} <= found.keys():
        raise UserError(f"{path} is damaged, it is no book of an experiment; choose another folder")
    for part in ("base", "grid"):
        if found["experiment"].get(part) != wanted[part]:
            raise UserError(
                f"{path.parent} holds another experiment: its {part} is not the one asked for; choose another folder"
            )
    runs: dict[str, Any] = found["runs"]
    return runs


@dataclass(frozen=True)
class _Child:
    job: Job
    process: subprocess.Popen[bytes]


def _start(job: Job, base: RunConfig, folder: Path) -> _Child:
    """Start the process of a run in a session of its own: Ctrl-C reaches the experiment, which then stops its runs."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    line = {"config": job.config.to_dict(), "base": base.to_dict(), "folder": str(_folder_of(job, folder).resolve())}
    with open(_log_of(job, folder), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *WORKER],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it is dead already; its log says why
        process.stdin.write(json.dumps(line).encode() + b"\n")
        process.stdin.flush()
    return _Child(job, process)


def _stop(children: Sequence[_Child]) -> None:
    """Close the pipes, upon which the runs write checkpoints and end."""
    for child in children:
        assert child.process.stdin is not None
        with suppress(BrokenPipeError):
            child.process.stdin.close()
    deadline = time.monotonic() + PATIENCE
    for child in children:
        try:
            child.process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _write_down(book: dict[str, Any], folder: Path, child: _Child, otherwise: str) -> None:
    """Enter how a run ended; `otherwise` is its status if it left no metrics."""
    measured = _folder_of(child.job, folder) / MEASURED
    if child.process.stdin is not None:
        with suppress(BrokenPipeError):
            child.process.stdin.close()
    entry: dict[str, Any]
    if measured.is_file():  # written last, in one step
        entry = {"status": "finished", "metrics": read_json(measured)}
    else:
        entry = {"status": otherwise, "reason": _reason(child, folder)}
    book["runs"][child.job.name] = {"row": child.job.row, "seed": child.job.seed, **entry}
    write_json(folder / BOOK, book)


def _reason(child: _Child, folder: Path) -> str:
    """The last line of a run's log, or the signal that killed it."""
    code = child.process.returncode
    if code < 0:
        return f"its process was killed by signal {-code}"
    lines = _log_of(child.job, folder).read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"its process ended with code {code}")


def _folder_of(job: Job, folder: Path) -> Path:
    return folder / "runs" / job.name


def _log_of(job: Job, folder: Path) -> Path:
    return folder / "runs" / f"{job.name}.log"
