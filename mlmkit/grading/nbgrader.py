"""The judge inside nbgrader: stubs that name their task, and marks that a submission's process cannot touch.

nbgrader runs a submission and its tests in one kernel, where the submission can rewrite the tests' tools. `Judge`
takes the place of nbgrader's `Execute`: nothing of the submission runs in nbgrader's process or near its database.
`exercises/nbgrader_config.py` puts both in place.
"""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path
from typing import Any

from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Integer

from mlmkit.errors import UserError
from mlmkit.grading.judge import Bench, Mark, grade
from mlmkit.grading.release import task_of, without_solution
from mlmkit.grading.sets import task_named
from mlmkit.grading.submission import read_submission
from mlmkit.grading.tasks import ConceptTask, Task


class Stubs(NbGraderPreprocessor):
    """Put a stub that names its task in the place of each solution (instead of nbgrader's `ClearSolutions`)."""

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
        """Clear one cell."""
        grading = cell.metadata.get("nbgrader", {})
        if grading.get("solution"):
            cell.source = without_solution(cell.source, task_of(grading["grade_id"]))
        return cell, resources


class Judge(NbGraderPreprocessor):
    """Mark a submission behind walls, and write the verdicts below the check cells (instead of `Execute`)."""

    strict = Bool(False, help="refuse to mark where not all walls can be built").tag(config=True)
    seed = Integer(0, help="seed of the random inputs").tag(config=True)

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Mark one notebook."""
        found = resources["nbgrader"]
        path = Path(resources["metadata"]["path"]) / f"{found['notebook']}.ipynb"
        submission = read_submission(path, learner=found["student"])
        if submission is None:
            raise UserError(f"{path} is no exercise notebook")
        bench = _bench()
        if self.strict and not bench.protections.complete:
            raise UserError(f"not all walls can be built on this machine: {bench.protections}")
        marks = {mark.task_id: mark for mark in grade(submission, bench, self.seed)}
        for cell in nb.cells:
            kind, _, number = str(cell.metadata.get("nbgrader", {}).get("grade_id", "")).partition("-")
            task_id = number.replace("-", ".")
            if cell.cell_type == "code" and kind == "ask" and task_id in marks:
                cell.outputs = _asked(task_named(task_id), submission.learner)
            if cell.cell_type == "code" and kind == "check":
                cell.outputs = [_output(marks[task_id])]
                cell.execution_count = 1
        return nb, resources


@cache
def _bench() -> Bench:
    """One bench for all submissions of a run of nbgrader."""
    bench = Bench().__enter__()
    atexit.register(bench.__exit__, None, None, None)
    return bench


def _asked(task: Task, learner: str) -> list[Any]:
    """The question that this learner was asked, for whoever reads the answer."""
    if not isinstance(task, ConceptTask):
        return []
    text = task.question(learner).text
    return [new_output("display_data", data={"text/markdown": text, "text/plain": text})]


def _output(mark: Mark) -> Any:
    """What stands below a check cell: nbgrader reads an error as no points, anything else as all of them."""
    lines = mark.verdict.lines()
    if mark.verdict.passed:
        return new_output("stream", name="stdout", text="\n".join([f"✓ {mark.task_id}: passed", *lines]) + "\n")
    text = "\n".join(
        [f"✗ {mark.task_id}: {mark.verdict.status}", *lines, *([f"hint: {mark.hint}"] if mark.hint else [])]
    )
    return new_output("error", ename="NotPassed", evalue=mark.verdict.problem, traceback=[text])
