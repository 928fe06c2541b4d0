"""What a learner has passed so far, remembered beside the exercises in a small SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FILE = "progress.sqlite"

TABLES = """
create table if not exists passed (task text primary key, passed integer, tries integer, at text);
create table if not exists hints (task text primary key, shown integer);
create table if not exists learner (name text);
"""


@dataclass(frozen=True)
class Record:
    """What is remembered about a task: whether it was ever passed, how often it was checked, hints seen."""

    passed: bool
    tries: int
    hints: int


def progress_file(start: Path | str = ".") -> Path:
    """Where progress is remembered: in the `exercises` folder above (or in) `start`, else in `start` itself.

    The environment variable `MLMKIT_PROGRESS` names another file.
    """
    if named := os.environ.get("MLMKIT_PROGRESS"):
        return Path(named)
    here = Path(start).resolve()
    for folder in (here, *here.parents):
        for candidate in (folder, folder / "exercises"):
            if candidate.name == "exercises" and (candidate / "syllabus.yml").exists():
                return candidate / FILE
    return here / FILE


@contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(progress_file(), timeout=10)
    try:
        connection.executescript(TABLES)
        with connection:
            yield connection
    finally:
        connection.close()


def remember(task_id: str, passed: bool) -> None:
    """Note a check. What was passed once stays passed."""
    with _opened() as connection:
        connection.execute(
            "insert into passed values (?, ?, 1, ?) on conflict (task) do update "
            "set passed = max(passed, excluded.passed), tries = tries + 1, at = excluded.at",
            (task_id, int(passed), datetime.now(UTC).isoformat(timespec="seconds")),
        )


def remember_hint(task_id: str, shown: int) -> None:
    """Note how many hints of a task were shown."""
    with _opened() as connection:
        connection.execute("insert or replace into hints values (?, ?)", (task_id, shown))


def hints_shown(task_id: str) -> int:
    """How many hints of a task were shown so far."""
    with _opened() as connection:
        row = connection.execute("select shown from hints where task = ?", (task_id,)).fetchone()
    return int(row[0]) if row else 0


def remember_learner(name: str) -> None:
    """Note who works here."""
    with _opened() as connection:
        connection.execute("delete from learner")
        connection.execute("insert into learner values (?)", (name.strip(),))


def remembered_learner() -> str:
    """Who works here: the name that was given last, or "me"."""
    with _opened() as connection:
        row = connection.execute("select name from learner").fetchone()
    return str(row[0]) if row else "me"


def records() -> dict[str, Record]:
    """All tasks that were ever checked or hinted at."""
    with _opened() as connection:
        passed = {
            task: (bool(ok), tries) for task, ok, tries in connection.execute("select task, passed, tries from passed")
        }
        hints = dict(connection.execute("select task, shown from hints").fetchall())
    return {task: Record(*passed.get(task, (False, 0)), hints.get(task, 0)) for task in {*passed, *hints}}
