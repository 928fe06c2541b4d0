"""How far a learner is: per notebook, per concept, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlmkit.grading.remembering import Record, records, remembered_learner
from mlmkit.grading.sets import all_sets
from mlmkit.grading.tasks import Task, TaskSet

WIDTH = 12


@dataclass(frozen=True)
class Row:
    """A notebook or a concept: how many of its tasks are passed, and which are open."""

    name: str
    passed: int
    of: int
    open: tuple[str, ...]

    @property
    def bar(self) -> str:
        """A bar of fixed width.

        >>> Row("03", 1, 4, ("03.2",)).bar
        '███·········'
        """
        filled = max(WIDTH * self.passed // self.of, min(self.passed, 1)) if self.of else 0
        return "█" * filled + "·" * (WIDTH - filled)

    @property
    def still(self) -> str:
        """What is open, in words: a set that was not begun is not spelled out."""
        return "all" if not self.passed and self.of else ", ".join(self.open)


@dataclass(frozen=True)
class Progress:
    """What a learner has passed.

    Attributes:
        learner: the name.
        notebooks: a row for each exercise notebook, in order.
        concepts: a row for each concept, in order.
        points, of: earned in the notebooks, and to be earned.
        next: what to do next, in one sentence.
    """

    learner: str
    notebooks: tuple[Row, ...]
    concepts: tuple[Row, ...]
    points: int
    of: int
    next: str

    def __str__(self) -> str:
        lines = [f"{self.learner}: {self.points} of {self.of} points", ""]
        for row in self.notebooks:
            still = f"  open: {row.still}" if row.open else "  done"
            lines.append(f"{row.name:<28} {row.bar} {row.passed:>2}/{row.of:<2}{still}")
        lines += ["", "Concepts: " + "  ".join(f"{row.name} {row.passed}/{row.of}" for row in self.concepts)]
        return "\n".join([*lines, "", f"Next: {self.next}"])

    def _repr_markdown_(self) -> str:
        rows = [f"**{self.learner}**: {self.points} of {self.of} points. **Next**: {self.next}", ""]
        rows += ["| exercises | passed | | open |", "|:--|:--|--:|:--|"]
        rows += [f"| {row.name} | `{row.bar}` | {row.passed}/{row.of} | {row.still or '✓'} |" for row in self.notebooks]
        done = ", ".join(row.name for row in self.concepts if not row.open)
        still = ", ".join(f"{row.name} ({row.passed}/{row.of})" for row in self.concepts if row.open)
        return "\n".join([*rows, "", f"Concepts done: {done or 'none yet'}. Open: {still or 'none'}."])


def progress() -> Progress:
    """Read what was passed so far: the value prints, and shows as a table in a notebook."""
    return overview(remembered_learner(), records(), all_sets())


def overview(learner: str, known: Mapping[str, Record], sets: Iterable[TaskSet]) -> Progress:
    """Sum up what is remembered.

    Args:
        learner: the name.
        known: task → what is remembered.
        sets: all exercise sets.
    """
    sets = list(sets)
    passed = {task_id for task_id, record in known.items() if record.passed}
    tasks = [task for group in sets for task in group.tasks]
    concepts = sorted({concept for task in tasks for concept in task.concepts})
    return Progress(
        learner,
        tuple(_row(group.name, group.tasks, passed) for group in sets),
        tuple(_row(concept, [t for t in tasks if concept in t.concepts], passed) for concept in concepts),
        sum(task.points for task in tasks if task.id in passed),
        sum(task.points for task in tasks),
        _next(sets, passed, known),
    )


def _row(name: str, tasks: Iterable[Task], passed: set[str]) -> Row:
    tasks = list(tasks)
    still = tuple(task.id for task in tasks if task.id not in passed)
    return Row(name, len(tasks) - len(still), len(tasks), still)


def _next(sets: Iterable[TaskSet], passed: set[str], known: Mapping[str, Record]) -> str:
    """The first open task, in the order of the course."""
    for group in sets:
        for task in group.tasks:
            if task.id not in passed:
                tried = f", tried {known[task.id].tries} times" if task.id in known and known[task.id].tries else ""
                return f"task {task.id}, {task.title} (exercises/release/{group.name}{tried})"
    return "everything is passed: train a BERT of your own with mlmkit pretrain"
