"""The exercises: right answers pass however they are written, wrong ones fail with their own explanation."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from mutants import TooLong, at_most, mutants, solution_cells, survivors
from test_book import dictionary, plain_words

from mlmkit.grading.questions import is_right
from mlmkit.grading.release import release
from mlmkit.grading.sets import MODULES, all_sets, task_named
from mlmkit.grading.tasks import CodeTask, ConceptTask, Mistake
from mlmkit.grading.verdict import call, judge_answer, judge_code
from mlmkit.syllabus import read_syllabus

ROOT = Path(__file__).resolve().parents[1]
SETS = all_sets()
CODE = [task for group in SETS for task in group.tasks if isinstance(task, CodeTask)]
CONCEPT = [task for group in SETS for task in group.tasks if isinstance(task, ConceptTask)]
SURVIVORS = yaml.safe_load((ROOT / "tests" / "survivors.yml").read_text(encoding="utf-8"))
LEARNERS = [f"learner-{number}" for number in range(60)]

each_set = pytest.mark.parametrize("name", list(MODULES))
each_code = pytest.mark.parametrize("task", CODE, ids=lambda task: task.id)
each_concept = pytest.mark.parametrize("task", CONCEPT, ids=lambda task: task.id)


def notebook_of(name: str, kind: str = "source") -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "exercises" / kind / name / f"{name}.ipynb", as_version=4)


def variants(task: CodeTask) -> tuple[Callable[..., Any], ...]:
    module = importlib.import_module(f"variants.{MODULES[next(n for n in MODULES if n.startswith(task.id[:2]))]}")
    return module.VARIANTS[task.id]


def verdict_of(task: CodeTask, function: Callable[..., Any], seed: int):
    inputs = task.inputs(seed)
    return judge_code(task, inputs, [call(function, given) for given in inputs])


def test_there_are_enough_tasks():
    assert len(CODE) >= 30
    assert len(CONCEPT) >= 45


def test_ids_are_unique_and_in_order():
    for group in SETS:
        numbers = [int(task.id.split(".")[1]) for task in group.tasks]
        assert numbers == sorted(set(numbers)), group.name
        assert all(task.id.startswith(group.name[:2] + ".") for task in group.tasks), group.name


def test_every_concept_has_two_tasks_and_one_of_them_is_computed():
    ideas = {"C03"}  # the two questions of every pre-trained model: nothing to compute
    for concept in read_syllabus(ROOT).concepts:
        tasks = [task for group in SETS for task in group.tasks if concept.id in task.concepts]
        assert len(tasks) >= 2, concept.id
        if concept.id not in ideas:
            assert any(isinstance(task, CodeTask) or task.computed for task in tasks), concept.id


def test_the_syllabus_names_the_tasks_of_each_concept():
    for concept in read_syllabus(ROOT).concepts:
        tasks = [task.id for group in SETS for task in group.tasks if concept.id in task.concepts]
        assert sorted(concept.tasks) == sorted(tasks), concept.id


@each_set
def test_the_readme_counts_the_tasks_of_each_set(name: str):
    tasks = len(next(group for group in SETS if group.name == name).tasks)
    assert f"| [{tasks}](exercises/release/{name}/{name}.ipynb) |" in (ROOT / "README.md").read_text(encoding="utf-8")


@each_set
def test_the_source_is_an_nbgrader_assignment_with_the_right_points(name: str):
    pytest.importorskip("nbgrader")
    from nbgrader.nbgraderformat.v3 import MetadataValidatorV3

    notebook = notebook_of(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        MetadataValidatorV3().validate_cell(cell)
    points = {
        c.metadata.nbgrader.grade_id: c.metadata.nbgrader.get("points")
        for c in notebook.cells
        if "nbgrader" in c.metadata
    }
    for task in next(group for group in SETS if group.name == name).tasks:
        assert points[f"check-{task.id.replace('.', '-')}"] == task.points, task.id
        assert f"answer-{task.id.replace('.', '-')}" in points


@each_set
def test_each_task_is_stated_with_its_points(name: str):
    text = "\n".join(cell.source for cell in notebook_of(name).cells if cell.cell_type == "markdown")
    for task in next(group for group in SETS if group.name == name).tasks:
        points = f"{task.points} point" + ("s" if task.points > 1 else "")
        assert f"## Task {task.id} · {task.title} ({points})" in text, task.id


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n[:2] == "17")) for n in MODULES])
def test_the_solutions_of_a_set_pass_their_checks_in_the_notebook(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MLMKIT_PROGRESS", str(tmp_path / "progress.sqlite"))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook_of(name).cells:
        if cell.cell_type == "code":
            start = time.perf_counter()
            exec(compile(cell.source, cell.id, "exec"), namespace)
            if cell.id.startswith("check"):
                assert time.perf_counter() - start < 2, f"{cell.id} answers in two seconds"
    passed = re.findall(r"✓ (\d\d\.\d+)", capsys.readouterr().out)
    assert passed == [task.id for group in SETS if group.name == name for task in group.tasks]


INVENTED = ("05", "16")  # sets with words and names of made-up languages and countries


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(INVENTED)])
def test_what_learners_read_is_spelled_as_in_the_dictionary(name: str):
    read = [cell.source for cell in notebook_of(name).cells if cell.cell_type == "markdown"]
    for task in next(group for group in SETS if group.name == name).tasks:
        if isinstance(task, CodeTask):
            read += [*task.hints, *(mistake.says for mistake in task.mistakes)]
        elif isinstance(task, ConceptTask):
            read += [text for who in LEARNERS[:3] for text in (task.question(who).text, task.question(who).why)]
    assert sorted(dictionary().unknown(plain_words("\n".join(read)))) == []


@each_set
def test_every_stub_fails_by_not_implemented(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLMKIT_PROGRESS", str(tmp_path / "progress.sqlite"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook_of(name, "release").cells:
        if cell.cell_type != "code" or cell.id.startswith("extra"):
            continue
        if cell.id.startswith("check"):
            task_id = cell.id.removeprefix("check-").replace("-", ".")
            with pytest.raises(NotImplementedError, match=rf"^Task {re.escape(task_id)}: "):
                exec(cell.source, namespace)
        else:
            exec(cell.source, namespace)


def test_the_release_is_the_one_that_make_exercises_writes(tmp_path: Path):
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "source").symlink_to(ROOT / "exercises" / "source")
    made = {path.name: path.read_text(encoding="utf-8") for path in release(tmp_path)}
    assert set(made) == {f"{name}.ipynb" for name in MODULES}
    for name in MODULES:
        committed = ROOT / "exercises" / "release" / name / f"{name}.ipynb"
        assert committed.read_text(encoding="utf-8") == made[f"{name}.ipynb"], "run: make exercises"


@each_set
def test_the_release_holds_no_solution(name: str):
    text = json.dumps(notebook_of(name, "release"))
    assert "SOLUTION" not in text
    for key, source in solution_cells(name).items():
        if key.startswith("answer") and "def " in source:
            body = [
                line.strip() for line in source.splitlines() if line.strip().startswith("return ") and len(line) > 24
            ]
            assert not any(json.dumps(line)[1:-1] in text for line in body), key


@each_code
def test_solutions_written_in_other_ways_pass_too(task: CodeTask):
    functions = variants(task)
    assert len(functions) >= 3
    for seed in range(10):
        for function in (task.reference, *functions):
            verdict = verdict_of(task, function, seed)
            assert verdict.passed, (function.__name__, seed, verdict.lines())


@pytest.mark.slow
@each_code
def test_no_right_solution_is_refused_for_fifty_seeds(task: CodeTask):
    for seed in range(50):
        for function in variants(task):
            assert verdict_of(task, function, 1000 + seed).passed, (function.__name__, seed)


MISTAKES = [(task, mistake) for task in CODE for mistake in task.mistakes]


@pytest.mark.parametrize(("task", "mistake"), MISTAKES, ids=lambda x: x.name if isinstance(x, Mistake) else x.id)
def test_a_known_mistake_fails_with_its_own_explanation(task: CodeTask, mistake: Mistake):
    for seed in range(3):
        verdict = verdict_of(task, mistake.answer, seed)
        assert not verdict.passed
        assert mistake.says in "\n".join(verdict.lines())


@each_code
def test_a_coding_task_knows_mistakes_and_has_three_hints(task: CodeTask):
    assert len(task.mistakes) >= 2
    assert len(task.hints) == 3
    assert all(task.hints)


@each_code
def test_a_check_is_quick(task: CodeTask):
    start = time.perf_counter()
    assert verdict_of(task, task.reference, 0).passed
    assert time.perf_counter() - start < 2


@each_concept
def test_each_learner_has_a_question_with_one_right_answer(task: ConceptTask):
    for name in LEARNERS:
        question = task.question(name)
        verdict = judge_answer(task, name, json.loads(json.dumps(question.answer)))
        assert verdict.passed, (name, question)
        assert verdict.why, "the right answer is explained"
        assert "$" not in "".join([verdict.why, *question.misconceptions]), "an explanation is plain text"
        assert question.text == task.question(name).text, "the same learner has the same question"


@each_concept
def test_each_wrong_answer_to_a_question_is_refused_and_explained(task: ConceptTask):
    for name in LEARNERS[:20]:
        question = task.question(name)
        for wrong in wrong_answers(question):
            verdict = judge_answer(task, name, wrong)
            assert not verdict.passed, (name, wrong)
            assert verdict.problem, (name, wrong)


def wrong_answers(question: Any) -> list[Any]:
    """Answers of the right form that are wrong, and some of no form at all."""
    right = question.answer
    wrong: list[Any] = ["?", [], {}, -12345.6, math.nan, True]
    if question.kind == "number":
        wrong += [right * 1.1 + 1, -right - 1, right + 10]
    elif question.kind == "numbers":
        wrong += [{**right, key: value * 1.1 + 1} for key, value in right.items()]
    elif question.kind == "choice":
        letters = re.findall(r"^- \*\*([A-P])\*\*", question.text, flags=re.M)
        wrong += [letter for letter in letters if letter != right]
    elif question.kind == "order":
        wrong += [right[::-1], right[1:] + right[:1], right[:-1]]
    elif question.kind == "several":
        wrong += [right[:-1], right + "P"]
    return [answer for answer in wrong if not is_right(question, answer)]


@each_concept
def test_answers_cannot_be_passed_on(task: ConceptTask):
    questions = [task.question(name) for name in LEARNERS]
    assert len({question.text for question in questions}) >= 4
    assert len({json.dumps(question.answer, sort_keys=True, default=str) for question in questions}) >= 3


CAUGHT = [
    ("C01", "01.1", "not part of the input"),
    ("C02", "01.2", "does not always output text"),
    ("C04", "01.4", "conditioned on itself"),
    ("C04", "01.4", "conditioned on later words"),
    ("C05", "01.5", "not predicted like a word"),
    ("C08", "02.12", "outside A(x), x̄ must equal x"),
    ("C10", "02.10", "one token"),
    ("C10", "02.10", "every token"),
    ("C11", "02.14", "product of the probabilities"),
    ("C11", "02.14", "these are the words outside A(x)"),
    ("C12", "02.16", "a lower probability of the true word is a higher loss"),
    ("C13", "03.1", "tokens that do not show [MASK] are not all ignored"),
    ("C13", "03.1", "not only on the"),
    ("C16", "15.1", "single-token spans counted"),
    ("C18", "04.3", "x_i is revealed to itself"),
    ("C19", "15.10", "deletion leaves a place-holder"),
    ("C20", "15.12", "adversarial game"),
    ("C20", "15.6", "drawn right is replaced"),
    ("C21", "07.10", "is made of [MASK]"),
    ("C21", "07.10", "one vector for the whole sentence"),
    ("C22", "16.10", "labels not −100 outside"),
    ("C23", "06.1", "second [SEP] missing"),
    ("C23", "06.1", "first [SEP] in segment 1"),
    ("C24", "06.7", "from the same document"),
    ("C25", "10.13", "makes one update"),
    ("C27", "11.6", "training loss"),
    ("C31", "16.13", "one seed is no proof"),
]


@pytest.mark.parametrize(("concept", "task_id", "caught"), CAUGHT, ids=lambda text: text[:40])
def test_the_misconceptions_of_the_syllabus_are_caught_and_explained(concept: str, task_id: str, caught: str):
    task = task_named(task_id)
    assert concept in task.concepts
    if isinstance(task, CodeTask):
        assert caught in [mistake.name for mistake in task.mistakes]
    else:
        assert any(caught in says for who in LEARNERS for says in task.question(who).misconceptions)


@pytest.mark.slow
def test_nearly_all_mutants_of_the_solutions_are_refused():
    tried = lived = 0
    for name in MODULES:
        for task_id, (count, alive) in survivors(name).items():
            tried, lived = tried + count, lived + len(alive)
            explained = SURVIVORS.get(task_id, {})
            for mutant in alive:
                assert mutant.what in explained, f"{task_id}: {mutant.what} survives without an explanation"
    assert lived / tried <= 0.05, f"{lived} of {tried} mutants survive"


def test_a_mutant_differs_from_the_program_in_one_place():
    found = mutants("def f(a, b):\n    return a + 1 if a < b else max(a, b)")
    sources = [mutant.source.splitlines()[1].strip() for mutant in found]
    assert "return a - 1 if a < b else max(a, b)" in sources
    assert "return a + 1 if a <= b else max(a, b)" in sources
    assert "return a + 1 if a < b else min(a, b)" in sources
    assert len(sources) == len(set(sources))


def test_a_mutant_that_does_not_end_is_stopped():
    def endless() -> None:
        for _ in itertools.count():  # a loop in Python, which a signal can interrupt
            pass

    with pytest.raises(TooLong), at_most(0.05):
        endless()


def test_a_task_is_found_by_its_short_number():
    assert task_named("3.9") is task_named("03.9")


def test_the_mutants_of_a_set_can_be_listed_by_hand():
    told = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "03"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "03.9: " in told.stdout
