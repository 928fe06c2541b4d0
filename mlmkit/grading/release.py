"""What learners open: the exercise notebooks without their solutions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlmkit.errors import UserError
from mlmkit.grading.sets import task_named
from mlmkit.grading.tasks import CapstoneTask, CodeTask, Task

SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.S | re.M)
DEFINED = re.compile(r"^def (\w+)\(", re.M)
SOURCE = Path("exercises") / "source"
RELEASE = Path("exercises") / "release"


def stub(task: Task, before: str = "") -> str:
    """The line that stands in the place of a solution.

    Args:
        task: whose solution it is.
        before: what stands above it in its cell: a capstone has a solution for each function.
    """
    if isinstance(task, CodeTask):
        return f'raise NotImplementedError("Task {task.id}: write {task.function}")'
    if isinstance(task, CapstoneTask):
        return f'raise NotImplementedError("Task {task.id}: write {DEFINED.findall(before)[-1]}")'
    return f"{task.answer_name} = None"


def without_solution(source: str, task: Task) -> str:
    """A cell with the stub in the place of its solution.

    Raises:
        UserError: the cell does not mark its solution.
    """
    text, count = SOLUTION.subn(lambda found: found[1] + stub(task, source[: found.start()]), source)
    if not count:
        raise UserError(f"the answer cell of task {task.id} has no ### BEGIN SOLUTION … ### END SOLUTION")
    return text


def task_of(grade_id: str) -> Task:
    """The task to which a cell belongs, by its id: "answer-03-9"."""
    _, notebook, number = grade_id.split("-")
    return task_named(f"{notebook}.{number}")


def release(root: Path) -> Iterator[Path]:
    """Write `exercises/release` from `exercises/source`, and yield each notebook.

    Args:
        root: the course.

    Raises:
        UserError: there are no sources, or one does not mark its solutions.
    """
    import nbformat

    sources = sorted((root / SOURCE).glob("*/*.ipynb"))
    if not sources:
        raise UserError(f"no exercises in {root / SOURCE}: change to a copy of the course")
    for path in sources:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            grading = cell.metadata.get("nbgrader", {})
            if grading.get("solution"):
                cell.source = without_solution(cell.source, task_of(grading["grade_id"]))
        target = root / RELEASE / path.relative_to(root / SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        yield target
