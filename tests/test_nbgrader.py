"""The exercises inside nbgrader: released, collected, marked by the judge, shown to the instructor, and exported."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest
from submissions import ROOT, SOURCE, hand_in, solved, source_of

from mlmkit.grading.gradebook import Gradebook
from mlmkit.grading.judge import Mark
from mlmkit.grading.marking import GRADEBOOK, mark_class
from mlmkit.grading.sandbox import Sandbox
from mlmkit.grading.sets import task_named, task_set
from mlmkit.grading.tasks import CodeTask

pytest.importorskip("nbgrader", reason="nbgrader is not installed")
pytestmark = pytest.mark.slow

SET = "03_corruption_80_10_10"
TASKS = task_set(SET).tasks
OF = task_set(SET).points
SEED = 0  # of the judge inside nbgrader, unless its settings name another one

FLAWED = {
    "03.1": "answer_03_1 = {'selected': 1, 'mask': 1, 'random': 1, 'kept': 1, 'untouched': 1, 'loss': 1}",
    "03.4": "def channel(n, mask, random, keep):\n    return np.ones(3)[n]",
    "03.9": "def labels_of(ids, selected):\n    return np.where(selected, -100, ids)",
    "03.13": "",
}

HOSTILE = """
import builtins, glob, os, sqlite3, sys
import numpy as np, numpy.testing
np.allclose = np.array_equal = np.isclose = lambda *a, **k: True
numpy.testing.assert_allclose = lambda *a, **k: None
try:
    import mlmkit.grading, mlmkit.grading.checking
    mlmkit.grading.check = mlmkit.grading.checking.check = lambda *a, **k: print("passed")
except Exception: pass
try: get_ipython().ast_transformers.append(None)
except Exception: pass
check = lambda *a, **k: None
for path in [{book!r}, *glob.glob("../*/*.db"), *glob.glob("/tmp/**/*.db", recursive=True)]:
    try:
        connection = sqlite3.connect(path)
        connection.executescript("create trigger t after update on grade begin update grade set manual_score = 9; end;")
        connection.executescript("update grade set auto_score = 99, manual_score = 99")
    except Exception: pass
    try: os.remove(path)
    except Exception: pass
try: open({folder!r} + "/was_here", "w").write("x")
except Exception: pass
class Yes:
    def __eq__(self, other): return True
    def __array__(self, *a, **k): return np.full((1, 4), -100)
def labels_of(ids, selected): return Yes()
answer_03_1 = Yes()
"""


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[None]:
    """nbgrader asks for `alembic` by its name alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
        yield


class Course:
    """A folder in which nbgrader is run, as an instructor would."""

    def __init__(self, folder: Path, config: Path | None) -> None:
        self.folder = folder
        shutil.copytree(source_of(SET).parent, folder / "source" / SET)
        if config is not None:
            shutil.copy(config, folder / config.name)

    def __call__(self, *arguments: str) -> str:
        places = {"JUPYTER_CONFIG_DIR": str(self.folder / ".jupyter"), "IPYTHONDIR": str(self.folder / ".ipython")}
        places |= {"PYTHONPATH": str(ROOT), "MLMKIT_PROGRESS": str(self.folder / "progress.sqlite")}
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=self.folder,
            env=os.environ | places,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    @property
    def book(self) -> Path:
        return self.folder / "gradebook.db"

    @property
    def released(self) -> nbformat.NotebookNode:
        return nbformat.read(self.folder / "release" / SET / f"{SET}.ipynb", as_version=4)

    def api(self) -> Any:
        """What nbgrader's formgrader asks for its pages."""
        from nbgrader.apps import NbGraderAPI
        from nbgrader.coursedir import CourseDirectory
        from traitlets.config import Config

        settings = Config()
        settings.CourseDirectory.root = str(self.folder)
        settings.CourseDirectory.course_id = "mlmkit"
        settings.Exchange.root = str(self.folder / "exchange")
        return NbGraderAPI(CourseDirectory(config=settings), config=settings)

    def scores(self, learner: str) -> dict[str, float]:
        """Task → points, as nbgrader's own gradebook has them."""
        from nbgrader.api import Gradebook as Book

        with Book(f"sqlite:///{self.book}") as book:
            found = book.find_submission_notebook(SET, SET, learner)
            return {grade.cell.name.removeprefix("check-").replace("-", "."): grade.score for grade in found.grades}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory, programs: None) -> Course:
    """Released, collected, marked, told, and exported with the settings of the course."""
    with Sandbox() as sandbox:
        if not sandbox.protections.complete:
            pytest.skip(f"not all walls can be built here: {sandbox.protections}")
    made = Course(tmp_path_factory.mktemp("course"), ROOT / "exercises" / "nbgrader_config.py")
    made("generate_assignment", SET)
    hostile = solved(SET, "eve", {"03.9": HOSTILE.format(book=str(made.book), folder=str(made.folder))})
    for cell in hostile.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "print('✓ passed')"
            cell.metadata.nbgrader.points = 99
    for learner, notebook in {"ada": None, "ben": solved(SET, "ben", FLAWED), "eve": hostile, "zoe": None}.items():
        hand_in(made.folder / "submitted", SET, learner, notebook)
    hand_in(made.folder / "submitted", SET, "idle", made.released)
    made("autograde", SET)
    made("generate_feedback", SET)
    made("export")
    return made


@pytest.fixture(scope="module")
def judged(course: Course, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Mark]]:
    """The same submissions, marked by `mlmkit grade`: learner → task → mark."""
    marks = mark_class([course.folder / "submitted"], tmp_path_factory.mktemp("grades"), seed=SEED).marks
    by_learner: dict[str, dict[str, Mark]] = {}
    for mark in marks:
        by_learner.setdefault(mark.learner, {})[mark.task_id] = mark
    return by_learner


def answers(notebook: nbformat.NotebookNode) -> dict[str, str]:
    return {
        cell.metadata.nbgrader.grade_id.removeprefix("answer-").replace("-", "."): cell.source
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }


def test_the_release_names_the_task_where_a_solution_stood(course: Course):
    found = answers(course.released)
    assert set(found) == {task.id for task in TASKS}
    assert 'raise NotImplementedError("Task 03.9: write labels_of")' in found["03.9"]
    assert found["03.1"].endswith("answer_03_1 = None")
    for task in TASKS:
        if isinstance(task, CodeTask):
            assert f"def {task.function}(" in found[task.id], "the signature stays"
    text = nbformat.writes(course.released)
    assert "SOLUTION" not in text
    assert not any(cell.get("outputs") for cell in course.released.cells)


def test_the_release_is_the_one_of_the_course(course: Course, tmp_path: Path):
    from mlmkit.grading.release import release

    shutil.copytree(course.folder / "source", tmp_path / SOURCE)
    (path,) = release(tmp_path)
    ours = nbformat.read(path, as_version=4)
    assert [cell.source for cell in ours.cells] == [cell.source for cell in course.released.cells]


@pytest.mark.parametrize("learner", ["ada", "ben", "eve", "idle", "zoe"])
def test_the_scores_in_nbgrader_are_those_of_the_judge(
    course: Course, judged: dict[str, dict[str, Mark]], learner: str
):
    assert course.scores(learner) == {task_id: mark.points for task_id, mark in judged[learner].items()}


def test_right_wrong_and_empty_submissions_earn_what_they_should(course: Course):
    assert sum(course.scores("ada").values()) == sum(course.scores("zoe").values()) == OF
    assert {task for task, points in course.scores("ben").items() if not points} == set(FLAWED)
    assert not any(course.scores("idle").values())


def test_a_submission_cannot_write_the_gradebook_nor_its_own_marks(course: Course):
    assert course.scores("eve")["03.9"] == 0
    assert course.scores("eve")["03.1"] == 0
    assert sum(course.scores("eve").values()) == OF - 4, "what was answered honestly counts"
    connection = sqlite3.connect(course.book)
    assert connection.execute("select name from sqlite_master where type = 'trigger'").fetchall() == []
    assert connection.execute("select count(*) from grade where manual_score is not null").fetchone() == (0,)
    assert connection.execute("select max(max_score) from grade_cells").fetchone() == (max(t.points for t in TASKS),)
    assert not (course.folder / "was_here").exists()


def test_the_pages_of_feedback_show_the_verdict(course: Course, judged: dict[str, dict[str, Mark]]):
    pages = {
        learner: unescape(
            re.sub("<[^>]*>", "", (course.folder / "feedback" / learner / SET / f"{SET}.html").read_text("utf-8"))
        )
        for learner in ("ada", "ben")
    }
    question = task_named("03.7").question("ada").text
    assert question.split("**")[0].strip() in pages["ada"], "the question that she was asked stands above her answer"
    for task in TASKS:
        assert f"✓ {task.id}: passed" in pages["ada"]
        mark = judged["ben"][task.id]
        sign = "✓" if mark.points else "✗"
        assert f"{sign} {task.id}: {mark.verdict.status}" in pages["ben"]
        for line in mark.verdict.lines():
            assert line.splitlines()[0] in pages["ben"], (task.id, line)
    labels = judged["ben"]["03.9"]
    assert labels.verdict.cause in pages["ben"]
    assert f"hint: {task_named('03.9').hints[0]}" in pages["ben"]


def test_grades_are_exported_as_a_table(course: Course):
    with (course.folder / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"ada", "ben", "eve", "idle", "zoe"}
    lost = sum(task_named(name).points for name in FLAWED)
    assert float(rows["ada"]["score"]) == float(rows["ada"]["max_score"]) == OF
    assert float(rows["ben"]["score"]) == OF - lost


def test_the_formgrader_lists_the_submissions(course: Course):
    api = course.api()
    assignment = api.get_assignment(SET)
    assert (assignment["num_submissions"], assignment["max_score"]) == (5, OF)
    listed = {row["student"]: row for row in api.get_submissions(SET)}
    assert set(listed) == {"ada", "ben", "eve", "idle", "zoe"}
    assert all(row["autograded"] for row in listed.values())
    assert not any(row["needs_manual_grade"] for row in listed.values())
    assert listed["ada"]["score"] == OF
    notebooks = {row["student"]: row for row in api.get_notebook_submissions(SET, SET)}
    assert {learner: row["score"] for learner, row in notebooks.items()} == {
        learner: sum(course.scores(learner).values()) for learner in listed
    }
    assert notebooks["ben"]["failed_tests"]
    assert not notebooks["ada"]["failed_tests"]
    students = {row["id"]: row["score"] for row in api.get_students()}
    assert students["ada"] == OF


def test_marking_again_gives_the_same_scores(course: Course):
    before = course.scores("ben")
    course("autograde", SET, "--student", "ben", "--force")
    assert course.scores("ben") == before


def test_plain_nbgrader_releases_and_marks_the_same_sources(tmp_path: Path):
    plain = Course(tmp_path, None)
    plain("generate_assignment", SET)
    text = nbformat.writes(plain.released)
    assert "SOLUTION" not in text
    assert "raise NotImplementedError()" in text
    hand_in(tmp_path / "submitted", SET, "ada")
    hand_in(tmp_path / "submitted", SET, "ben", solved(SET, "ben", FLAWED))
    hand_in(tmp_path / "submitted", SET, "idle", plain.released)
    plain("autograde", SET)
    assert sum(plain.scores("ada").values()) == OF
    assert {task for task, points in plain.scores("ben").items() if not points} == set(FLAWED)
    assert not any(plain.scores("idle").values())


def test_the_two_gradebooks_do_not_meet(course: Course, tmp_path: Path):
    """Marks of `mlmkit grade` go to a file of another name, also beside that of nbgrader."""
    mark_class([course.folder / "submitted" / "idle"], tmp_path, seed=SEED)
    assert (tmp_path / GRADEBOOK).name != course.book.name
    with Gradebook(tmp_path / GRADEBOOK) as book:
        assert {mark.learner for mark in book.marks()} == {"idle"}
