"""Marks in a SQLite file: one row for each learner and task, written as soon as a submission is marked."""

from __future__ import annotations

import csv
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import cast

from mlmkit.grading.judge import Mark
from mlmkit.grading.submission import Submission
from mlmkit.grading.tasks import task_order
from mlmkit.grading.verdict import Status, Verdict

TABLES = """
create table if not exists marks (
    learner text, set_name text, task text, title text, points real, out_of integer, status text, problem text,
    inputs text, expected text, got text, cause text, why text, hint text, seconds real, share real,
    primary key (learner, task));
create table if not exists submissions (
    learner text, set_name text, path text, digest text, primary key (learner, set_name));
create table if not exists settings (name text primary key, value text);
"""
COLUMNS = 16


class Gradebook:
    """The marks of a class.

    Args:
        path: of the SQLite file; made if it is not there. Submissions never come near it: only the judge, in a
            process that runs none of their code, writes it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path)
        self.connection.executescript(TABLES)

    def __enter__(self) -> Gradebook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def setting(self, name: str, default: str = "") -> str:
        """A remembered setting."""
        row = self.connection.execute("select value from settings where name = ?", (name,)).fetchone()
        return str(row[0]) if row else default

    def set(self, name: str, value: str) -> None:
        """Remember a setting."""
        with self.connection:
            self.connection.execute("insert or replace into settings values (?, ?)", (name, value))

    def seed(self, given: int | None) -> int:
        """The seed of this gradebook: the one that is given, else the one of the last run, else a fresh one.

        Another seed than last time forgets the marks: they would not be comparable.
        """
        remembered = self.setting("seed")
        seed = given if given is not None else int(remembered or secrets.randbelow(2**31))
        if remembered and int(remembered) != seed:
            with self.connection:
                self.connection.execute("delete from submissions")
        self.set("seed", str(seed))
        return seed

    def is_marked(self, submission: Submission) -> bool:
        """Whether this very file was marked before."""
        row = self.connection.execute(
            "select digest from submissions where learner = ? and set_name = ?",
            (submission.learner, submission.set_name),
        ).fetchone()
        return row is not None and bool(submission.digest) and row[0] == submission.digest

    def write(self, submission: Submission, marks: Sequence[Mark]) -> None:
        """Store the marks of a submission, in place of earlier ones: all of them or none."""
        rows = [(*_whose(mark), *_told(mark.verdict), mark.hint, mark.seconds, mark.verdict.share) for mark in marks]
        with self.connection:
            self.connection.executemany(f"insert or replace into marks values ({', '.join('?' * COLUMNS)})", rows)
            self.connection.execute(
                "insert or replace into submissions values (?, ?, ?, ?)",
                (submission.learner, submission.set_name, str(submission.path), submission.digest),
            )

    def marks(self) -> list[Mark]:
        """All marks, by learner and task."""
        rows = self.connection.execute("select * from marks order by learner, task").fetchall()
        return [
            Mark(learner, set_name, task, title, points, of, _verdict(told, share), hint, seconds)
            for learner, set_name, task, title, points, of, *told, hint, seconds, share in rows
        ]

    def write_csv(self, path: Path) -> None:
        """Write a table for spreadsheets and learning platforms: a row for each learner, a column for each task."""
        marks = self.marks()
        tasks = sorted({mark.task_id for mark in marks}, key=task_order)
        of = {mark.task_id: mark.of for mark in marks}
        earned: dict[str, dict[str, float]] = {}
        for mark in marks:
            earned.setdefault(mark.learner, {})[mark.task_id] = mark.points
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["learner", *(f"{task} (of {of[task]})" for task in tasks), "points", "of"])
            for learner, points in earned.items():
                cells = [f"{points[task]:g}" if task in points else "" for task in tasks]
                total = sum(points.values())
                writer.writerow([_harmless(learner), *cells, f"{total:g}", sum(of[task] for task in points)])


def _whose(mark: Mark) -> tuple[object, ...]:
    return mark.learner, mark.set_name, mark.task_id, mark.title, mark.points, mark.of


def _told(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.status,
        verdict.problem,
        verdict.inputs,
        verdict.expected,
        verdict.got,
        verdict.cause,
        verdict.why,
    )


def _verdict(told: list[str], share: float) -> Verdict:
    status, problem, inputs, expected, got, cause, why = told
    return Verdict(cast(Status, status), problem, inputs, expected, got, cause, why, share)


def _harmless(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
