"""Notebooks as learners hand them in: solved, solved but for some tasks, or hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from mlmkit.grading.release import SOLUTION, SOURCE, task_of
from mlmkit.grading.tasks import ConceptTask

ROOT = Path(__file__).resolve().parents[1]


def source_of(set_name: str) -> Path:
    """The notebook in which an exercise set is written."""
    return ROOT / SOURCE / set_name / f"{set_name}.ipynb"


def solved(set_name: str, learner: str, changed: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """A right and complete submission of any learner.

    Args:
        set_name: "03_corruption_80_10_10".
        learner: whose it is: the answers to questions are those to this learner's own.
        changed: task → source of its answer cell, where it is to be another one.
    """
    notebook = nbformat.read(source_of(set_name), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.source = re.sub(r"^learner\(.*\)$", lambda _: f"learner({learner!r})", cell.source, flags=re.M)
        if cell.metadata.get("nbgrader", {}).get("solution"):
            task = task_of(cell.metadata.nbgrader.grade_id)
            if isinstance(task, ConceptTask):
                right = f"{task.answer_name} = {_bare(task.question(learner).answer)!r}"
                cell.source = SOLUTION.sub(lambda _, right=right: right, cell.source)
            cell.source = (changed or {}).get(task.id, cell.source)
    return notebook


def _bare(value: Any) -> Any:
    """Numbers of Python in the place of those of numpy, which a cell would have to import to read them back."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {_bare(key): _bare(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_bare, value))
    return value


def hand_in(folder: Path, set_name: str, learner: str, notebook: nbformat.NotebookNode | str | None = None) -> Path:
    """Put a notebook where nbgrader collects it, `folder/LEARNER/SET/SET.ipynb`; without one, a right submission."""
    path = folder / learner / set_name / f"{set_name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(notebook, str):
        notebook = nbformat.writes(solved(set_name, learner) if notebook is None else notebook)
    path.write_text(notebook, encoding="utf-8")
    return path
