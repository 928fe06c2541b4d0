"""Mark many submissions: several at a time, each behind its own walls, resuming where an earlier run stopped."""

from __future__ import annotations

import importlib.util
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed as completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mlmkit.errors import UserError
from mlmkit.grading.gradebook import Gradebook
from mlmkit.grading.judge import Bench, Mark, grade
from mlmkit.grading.report import write_pages
from mlmkit.grading.requests import Limits, Protections
from mlmkit.grading.submission import Submission, find_submissions

GRADEBOOK = "grades.sqlite"
TABLE = "grades.csv"


@dataclass(frozen=True)
class Marking:
    """What a run of the judge did.

    Attributes:
        marked: submissions that were marked now.
        known: submissions that had been marked before, and had not changed.
        marks: of all learners in the gradebook.
        protections: the walls that stood.
        seed: of the random inputs.
        pages: of each learner.
    """

    marked: int
    known: int
    marks: tuple[Mark, ...]
    protections: Protections
    seed: int
    pages: tuple[Path, ...]


def mark_class(
    paths: Sequence[Path | str],
    out: Path,
    *,
    jobs: int = 1,
    csv: bool = False,
    strict: bool = False,
    seed: int | None = None,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Marking:
    """Mark submissions into a gradebook, and write a page of feedback for each learner.

    Args:
        paths: notebooks, or folders of notebooks (`find_submissions`).
        out: folder for grades.sqlite, the pages, and grades.csv.
        jobs: submissions at a time.
        csv: also write the table.
        strict: refuse to mark where not all walls can be built.
        seed: of the random inputs: with the same seed the marks are the same. None: that of the gradebook, or a
            fresh one.
        limits: of time, memory and files.
        progress: called with the number of submissions done and their total.

    Raises:
        UserError: there is nothing to mark, two files claim to be the same submission, or `strict` cannot be kept.
    """
    _require_templates()
    submissions = find_submissions(paths)
    _refuse_twins(submissions)
    with ExitStack() as stack:
        benches = _opened(stack, max(1, min(jobs, len(submissions))), limits)
        protections = benches[0].protections
        if strict and not protections.complete:
            raise UserError(f"--strict: not all walls can be built on this machine: {protections}")
        book = stack.enter_context(Gradebook(Path(out) / GRADEBOOK))
        number = book.seed(seed)
        todo = [submission for submission in submissions if not book.is_marked(submission)]
        done = len(submissions) - len(todo)
        for submission, new in _in_parallel(todo, benches, number):
            book.write(submission, new)
            done += 1
            if progress is not None:
                progress(done, len(submissions))
        marks = tuple(book.marks())
        if csv:
            book.write_csv(Path(out) / TABLE)
    pages = write_pages(marks, Path(out), str(protections), number)
    return Marking(len(todo), len(submissions) - len(todo), marks, protections, number, tuple(pages))


def _require_templates() -> None:
    """Say so before the marking, not after it, when the pages could not be written."""
    if importlib.util.find_spec("jinja2") is None:
        raise UserError("jinja2 is not installed, which writes the pages of feedback: pip install 'mlmkit[grade]'")


def _opened(stack: ExitStack, count: int, limits: Limits | None) -> list[Bench]:
    """Open several benches at the same time: each imports torch, which takes a second or two."""
    benches = [Bench(limits) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        for bench, opening in [(bench, pool.submit(bench.__enter__)) for bench in benches]:
            opening.result()
            stack.push(bench)
    return benches


def _in_parallel(
    todo: Sequence[Submission], benches: Sequence[Bench], seed: int
) -> Iterator[tuple[Submission, list[Mark]]]:
    free: queue.SimpleQueue[Bench] = queue.SimpleQueue()
    for bench in benches:
        free.put(bench)

    def one(submission: Submission) -> tuple[Submission, list[Mark]]:
        bench = free.get()
        try:
            return submission, grade(submission, bench, seed)
        finally:
            free.put(bench)

    with ThreadPoolExecutor(len(benches)) as pool:
        for future in completed([pool.submit(one, submission) for submission in todo]):
            yield future.result()


def _refuse_twins(submissions: Sequence[Submission]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for submission in submissions:
        key = (submission.learner, submission.set_name)
        if key in seen:
            raise UserError(
                f"two submissions of {submission.learner!r} for {submission.set_name}: "
                f"{seen[key]} and {submission.path}"
            )
        seen[key] = submission.path
