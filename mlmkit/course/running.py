"""All notebooks of the course, in order or several at a time."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlmkit.course.execution import run_notebook, this_interpreter
from mlmkit.course.report import CourseReport, NotebookResult
from mlmkit.errors import UserError
from mlmkit.presets import PRESETS

if TYPE_CHECKING:
    from rich.console import Console


def run_course(
    notebooks: Sequence[Path | str] | None = None,
    out: Path = Path("build"),
    preset: str | None = None,
    parameters: Mapping[str, object] | None = None,
    console: Console | None = None,
    jobs: int = 1,
) -> CourseReport:
    """Execute notebooks into `out`/notebooks; one that fails does not stop the others.

    Args:
        notebooks: files, folders, or beginnings of names ("03"); None is every notebook of the course.
        out: folder for the executed copies, and the `out_dir` of the notebooks.
        preset: name in `PRESETS` for the notebooks' `preset`; None leaves each at its own default.
        parameters: further values; a notebook gets those that its cell tagged `parameters` assigns.
        console: where to say how far it is; None says nothing.
        jobs: how many run at a time, each with its share of the cores. One: in order. More: those that take longest
            first, and a notebook whose metadata says `"mlmkit": {"after": NAME}` not before that one has ended.

    Raises UserError when there is no such notebook or preset, or when papermill is not installed.
    """
    _require_papermill()
    if preset is not None and preset not in PRESETS:
        raise UserError(f"no preset is called {preset!r}: choose one of {', '.join(PRESETS)}")
    out = Path(out).resolve()
    chosen = [(path, out / "notebooks" / path.name) for path in find_notebooks(notebooks)]
    _check_targets(chosen)
    given = {**({} if preset is None else {"preset": preset}), **(parameters or {})}
    tasks = [(path, executed, {"out_dir": os.path.relpath(out, path.parent), **given}) for path, executed in chosen]
    say, start = _Progress(len(tasks), console), time.perf_counter()
    with this_interpreter(threads=max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None):
        results = _run_together(tasks, jobs, say) if jobs > 1 else _run_in_order(tasks, say)
    return CourseReport(tuple(results), time.perf_counter() - start)


@dataclass
class _Progress:
    """Says which notebook begins, and how long it took as soon as it has ended."""

    total: int
    console: Console | None
    ended: int = 0

    def begins(self, notebook: Path) -> None:
        self._print(f"      {notebook.name} begins")

    def ends(self, result: NotebookResult) -> None:
        self.ended += 1
        took = f"{'failed after ' if result.error else ''}{result.seconds:.1f} s"
        self._print(f"{self.ended:>2}/{self.total:<2} {result.notebook.name} … {took}")

    def _print(self, line: str) -> None:
        if self.console is not None:
            self.console.print(line, markup=False, highlight=False)


Task = tuple[Path, Path, dict[str, object]]
"""A notebook, its executed copy, its parameters."""


def _run_in_order(tasks: Sequence[Task], say: _Progress) -> list[NotebookResult]:
    results = []
    for task in tasks:
        say.begins(task[0])
        results.append(run_notebook(*task))
        say.ends(results[-1])
    return results


def _run_together(tasks: Sequence[Task], jobs: int, say: _Progress) -> list[NotebookResult]:
    """Run several at a time, each in a process of its own; the results are in the order of the tasks."""
    told = {path: _told(path) for path, _, _ in tasks}
    waiting = sorted(tasks, key=lambda task: -told[task[0]][0])
    results: dict[Path, NotebookResult] = {}
    running: dict[Future[NotebookResult], Path] = {}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        while waiting or running:
            left = {path.stem for path, _, _ in waiting} | {path.stem for path in running.values()}
            ready = [task for task in waiting if told[task[0]][1] not in left]
            for task in (ready if ready or running else waiting)[: jobs - len(running)]:
                waiting.remove(task)
                say.begins(task[0])
                running[pool.submit(run_notebook, *task)] = task[0]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                results[running.pop(future)] = future.result()
                say.ends(future.result())
    return [results[path] for path, _, _ in tasks]


def _told(path: Path) -> tuple[int, str | None]:
    """The seconds that a notebook says it takes to run, and the notebook that must have run before it."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception:  # no notebook: running it will say so
        return 0, None
    told = re.search(r"(\d+) (second|minute)s? to run", notebook.cells[0].source if notebook.cells else "")
    seconds = int(told[1]) * (60 if told[2] == "minute" else 1) if told else 0
    return seconds, notebook.metadata.get("mlmkit", {}).get("after")


def find_notebooks(chosen: Sequence[Path | str] | None = None) -> list[Path]:
    """The notebooks that `chosen` means, or all of the course: ./notebooks, else those of the repository."""
    if not chosen:
        return _course_notebooks()
    found: list[Path] = []
    for name in chosen:
        path = Path(name)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = sorted(path.glob("*.ipynb"))
        else:
            matches = [each for each in _course_notebooks() if each.name.startswith(str(name))]
        if not matches:
            raise UserError(f"no notebook at {name}: give a file, a folder, or how a name begins, like 03")
        found += [path.resolve() for path in matches]
    return found


def _course_notebooks() -> list[Path]:
    for folder in (Path("notebooks").resolve(), Path(__file__).resolve().parents[2] / "notebooks"):
        if found := sorted(folder.glob("*.ipynb")):
            return found
    raise UserError("no folder notebooks/ here: change to a copy of the course, or name the notebooks to run")


def _check_targets(chosen: Sequence[tuple[Path, Path]]) -> None:
    seen: dict[Path, Path] = {}
    for path, executed in chosen:
        if path == executed:
            raise UserError(f"--out would overwrite {path}: choose a folder other than {executed.parents[1]}")
        if executed in seen:
            raise UserError(f"{seen[executed]} and {path} would both become {executed}: run them apart")
        seen[executed] = path


def _require_papermill() -> None:
    try:
        import papermill  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'running the notebooks needs {error.name}, which is not installed: pip install "mlmkit[course]"'
        ) from error
