"""How long does a class take to mark: `mlmkit grade` against nbgrader's plain autograde?

The same right submissions of one exercise set, on the same machine, in one run, in alternating blocks. nbgrader gets
the source notebook as it is, and its own settings: it runs each submission and its checks in one kernel. `mlmkit grade`
runs each submission in a process of its own, behind walls. Both must come to full marks, or nothing is printed.

    python benchmarks/grading.py --submissions 4 --nbgrader 2 --repetitions 1    # a quick look
    python benchmarks/grading.py --write                                         # 100 submissions, for the docs
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from submissions import hand_in, source_of  # noqa: E402

from mlmkit.grading.gradebook import Gradebook  # noqa: E402
from mlmkit.grading.judge import Bench, grade  # noqa: E402
from mlmkit.grading.marking import GRADEBOOK  # noqa: E402
from mlmkit.grading.requests import Outcome, Request  # noqa: E402
from mlmkit.grading.sandbox import Sandbox  # noqa: E402
from mlmkit.grading.sets import task_set  # noqa: E402
from mlmkit.grading.submission import find_submissions  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks_grading.md"


def main() -> None:
    """Measure, print the tables, and write them into the documentation if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="set_name", default="03_corruption_80_10_10", help="exercise set")
    parser.add_argument("--submissions", type=int, default=100, help="of mlmkit grade")
    parser.add_argument("--nbgrader", type=int, default=10, help="submissions of nbgrader, at least 2, scaled")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    if not 2 <= options.nbgrader <= options.submissions:
        parser.error("--nbgrader must be at least 2, and at most --submissions")
    set_name = task_set(options.set_name).name
    with tempfile.TemporaryDirectory() as scratch:
        text = measured(Path(scratch), set_name, options.submissions, options.nbgrader, options.repetitions)
    print(text)
    if options.write:
        PAGE.write_text(f"# Marking a class: how long it takes\n\n{text}", encoding="utf-8")


def measured(scratch: Path, set_name: str, submissions: int, fewer: int, repetitions: int) -> str:
    """Run all blocks in turn, and tell of them."""
    learners = [f"learner-{number:03d}" for number in range(submissions)]
    for learner in learners:
        hand_in(scratch / "class", set_name, learner)
    release = released(scratch / "course", set_name)
    blocks: dict[str, Callable[[Path], float]] = {
        "one": lambda folder: ours(scratch / "class", folder, set_name, submissions, 1),
        "two": lambda folder: ours(scratch / "class", folder, set_name, submissions, 2),
        "first": lambda folder: nbgrader(release, folder, set_name, learners[:1]),
        "several": lambda folder: nbgrader(release, folder, set_name, learners[:fewer]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    for repetition in range(repetitions):
        order = list(blocks) if repetition % 2 == 0 else list(blocks)[::-1]
        for name in order:
            folder = scratch / f"{name}-{repetition}"
            seconds[name].append(blocks[name](folder))
            print(f"{name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
            shutil.rmtree(folder)
    return told(set_name, submissions, fewer, seconds, where_time_goes(scratch / "class", 5))


def told(set_name: str, submissions: int, fewer: int, seconds: dict[str, list[float]], parts: str) -> str:
    """The tables, as Markdown."""
    found = {name: median(times) for name, times in seconds.items()}
    each = (found["several"] - found["first"]) / (fewer - 1)
    plain = found["first"] + (submissions - 1) * each if fewer < submissions else found["several"]
    if fewer < submissions:
        how = f"from {fewer} submissions: {found['first']:.1f} s for the first, {each:.2f} s for each further one"
    else:
        how = spread(seconds["several"])
    rows = [
        ("nbgrader autograde", plain, how),
        ("mlmkit grade --jobs 1", found["one"], spread(seconds["one"])),
        ("mlmkit grade --jobs 2", found["two"], spread(seconds["two"])),
    ]
    tasks = task_set(set_name)
    lines = [
        f"{submissions} right submissions of {set_name} ({len(tasks.tasks)} tasks, {tasks.points} points); "
        f"medians of {len(seconds['one'])} runs in alternating blocks, each from the start of its program to its end. "
        f"{machine()}. Both gave full marks to all.",
        "",
        "| program | seconds | each | of nbgrader's time | measured |",
        "|:--|--:|--:|--:|:--|",
    ]
    lines += [
        f"| `{name}` | {total:.1f} | {total / submissions:.2f} | {total / plain:.2f} | {note} |"
        for name, total, note in rows
    ]
    return "\n".join([*lines, "", parts, ""])


def spread(times: list[float]) -> str:
    """The least and the most of some times."""
    return f"{min(times):.1f} to {max(times):.1f} s"


def environment(folder: Path) -> dict[str, str]:
    """One thread each; settings and progress of nobody else."""
    places = {"JUPYTER_CONFIG_DIR": folder / "jupyter", "IPYTHONDIR": folder / "ipython"}
    places |= {"MLMKIT_PROGRESS": folder / "progress.sqlite", "PYTHONPATH": ROOT}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # nbgrader calls alembic
    return os.environ | {name: str(place) for name, place in places.items()} | {"PATH": path, "OMP_NUM_THREADS": "1"}


def timed(arguments: list[str | Path], cwd: Path) -> float:
    """Seconds that a Python program takes.

    Raises:
        RuntimeError: it fails.
    """
    start = time.perf_counter()
    program = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(program, cwd=cwd, env=environment(cwd), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(program)}: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def ours(class_: Path, folder: Path, set_name: str, submissions: int, jobs: int) -> float:
    """Seconds of `mlmkit grade`, with its pages and its table."""
    folder.mkdir()
    seconds = timed(["mlmkit", "grade", class_, "--out", folder, "--jobs", str(jobs), "--csv", "--seed", "1"], folder)
    with Gradebook(folder / GRADEBOOK) as book:
        earned = sum(mark.points for mark in book.marks())
    expect(earned, submissions * task_set(set_name).points, "mlmkit grade")
    return seconds


def released(course: Path, set_name: str) -> Path:
    """A course of nbgrader with the source notebook as it is."""
    shutil.copytree(source_of(set_name).parent, course / "source" / set_name)
    timed(["nbgrader", "generate_assignment", set_name], course)
    return course


def nbgrader(course: Path, folder: Path, set_name: str, learners: list[str]) -> float:
    """Seconds of nbgrader's autograde."""
    shutil.copytree(course, folder)
    for learner in learners:
        hand_in(folder / "submitted", set_name, learner)
    seconds = timed(["nbgrader", "autograde", set_name], folder)
    timed(["nbgrader", "export"], folder)
    with (folder / "grades.csv").open(encoding="utf-8", newline="") as file:
        earned = sum(float(row["score"]) for row in csv.DictReader(file))
    expect(earned, len(learners) * task_set(set_name).points, "nbgrader")
    return seconds


def expect(earned: float, points: float, who: str) -> None:
    """Refuse a measurement of something that did not work.

    Raises:
        RuntimeError: the submissions, all of them right, did not get full marks.
    """
    if earned != points:
        raise RuntimeError(f"{who} gave {earned:g} of {points:g} points to right submissions")


def where_time_goes(class_: Path, count: int) -> str:
    """Mark some submissions in this process, and tell how long its parts take."""
    submissions = find_submissions(sorted(class_.iterdir())[:count])
    runs: list[tuple[float, float, int]] = []
    original = Sandbox.run

    def run(self: Sandbox, request: Request) -> Outcome:
        start = time.perf_counter()
        outcome = original(self, request)
        runs.append((time.perf_counter() - start, outcome.seconds, len(outcome.answers)))
        return outcome

    start = time.perf_counter()
    with Bench() as bench:
        opened = time.perf_counter() - start
        grade(submissions[0], bench, 1)  # the first one imports
        Sandbox.run = run  # type: ignore[method-assign]
        try:
            start = time.perf_counter()
            for submission in submissions:
                grade(submission, bench, 1)
            whole = (time.perf_counter() - start) / len(submissions)
        finally:
            Sandbox.run = original  # type: ignore[method-assign]
    each = len(submissions)
    asked, inside = (sum(one[i] for one in runs) / each for i in (0, 1))
    rows: list[tuple[str, Any]] = [
        ("imports of the program, once", f"{imports():.2f} s"),
        ("opening the sandbox (a process that imports numpy and torch), once for each job", f"{opened:.2f} s"),
        ("requests (runs of all cells) for each submission", f"{len(runs) / each:.1f}"),
        ("calls for each submission", f"{sum(one[2] for one in runs) / each:.0f}"),
        ("seconds for each submission", f"{whole:.2f} s"),
        ("… in requests", f"{asked:.2f} s, {1000 * asked * each / len(runs):.0f} ms each"),
        ("… of which until the last answer", f"{inside:.2f} s"),
        ("… on the judge's side: drawing inputs, the right results, comparing", f"{whole - asked:.2f} s"),
    ]
    return "\n".join(["| where the time of `mlmkit grade` goes | |", "|:--|--:|", *(f"| {a} | {b} |" for a, b in rows)])


def imports() -> float:
    """Seconds that the program takes before it does anything."""
    program = "import mlmkit.grading.marking, mlmkit.grading.sets as s; s.task_set('03')"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    return time.perf_counter() - start


def machine() -> str:
    """What was measured on, in words."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = found[0].split(":", 1)[1].strip() if found else model
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{os.cpu_count()} cores of {model}, {platform.system()}, {versions}, one thread each"


if __name__ == "__main__":
    main()
