"""Every concept has its section, what computes it, and a page that says so."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from runs import Answer

from mlmkit import UserError
from mlmkit.grading.sets import task_named
from mlmkit.syllabus import Concept, Section, Syllabus, read_syllabus, syllabus_page

ROOT = Path(__file__).resolve().parents[1]
SYLLABUS = read_syllabus(ROOT)
EVERY = pytest.mark.parametrize("concept", SYLLABUS.concepts, ids=lambda concept: concept.id)


def cells(notebook: str, kind: str) -> str:
    read = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    return "\n\n".join(cell.source for cell in read.cells if cell.cell_type == kind)


def code_under(section: Section) -> str:
    """The code from a heading up to the next one of the same rank."""
    read = nbformat.read(ROOT / "notebooks" / f"{section.notebook}.ipynb", as_version=4)
    found, inside = [], False
    for cell in read.cells:
        for heading in re.findall(r"^## (.+)$", cell.source, flags=re.M) if cell.cell_type == "markdown" else []:
            inside = heading.strip() == section.heading
        if inside and cell.cell_type == "code":
            found.append(cell.source)
    return "\n".join(found)


def test_the_course_teaches_the_thirty_one_concepts_in_order():
    assert [concept.id for concept in SYLLABUS.concepts] == [f"C{number:02d}" for number in range(1, 32)]


@EVERY
def test_each_concept_has_a_section_that_exists(concept: Concept):
    assert concept.sections
    for section in concept.sections:
        headings = re.findall(r"^## (.+)$", cells(section.notebook, "markdown"), flags=re.M)
        assert section.heading in [heading.strip() for heading in headings]


@EVERY
def test_each_concept_is_computed_by_something_that_its_sections_call(concept: Concept):
    called = "\n".join(code_under(section) for section in concept.sections)
    assert called, "a section without code"
    if concept.id != "C03":  # the two questions of every pre-trained model: an idea, nothing to compute
        assert concept.functions
    for dotted in concept.functions:
        module, _, name = dotted.rpartition(".")
        assert hasattr(importlib.import_module(module), name), dotted
        assert re.search(rf"\b{name}\b", called), f"no section of {concept.id} calls {name}"


@EVERY
def test_each_task_of_a_concept_is_graded(concept: Concept):
    assert len(concept.tasks) >= 2
    for task in concept.tasks:
        assert concept.id in task_named(task).concepts


@pytest.mark.parametrize("notebook", [name for name in SYLLABUS.explained if not name.startswith("00")])
def test_each_notebook_leads_to_its_exercises(notebook: str):
    assert f"(../exercises/release/{notebook}/{notebook}.ipynb)" in cells(notebook, "markdown")


def test_every_notebook_says_what_it_explains():
    assert sorted(SYLLABUS.explained) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_the_page_is_the_one_that_make_syllabus_writes():
    assert (ROOT / "docs" / "syllabus.md").read_text(encoding="utf-8") == syllabus_page(SYLLABUS), "run: make syllabus"


def test_a_row_shows_where_the_concept_is_taught_and_what_computes_it():
    concept = Concept("C12", "a distribution", (Section("02_math", "3 · Loss"),), ("mlmkit.evaluation.fill_mask",), ())
    row = Syllabus((concept,), {}).to_markdown("../").splitlines()[2]
    assert row == ("| **C12** a distribution | [02 §3 Loss](../notebooks/02_math.ipynb) | `evaluation.fill_mask` | – |")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no exercises/syllabus.yml here"),
        ("a: [", "is no YAML"),
        ("concepts: {}", "explained"),
        ("concepts: {C01: {title: t}}\nexplained: {}", "sections"),
        ("- 1", "a row needs"),
    ],
)
def test_a_broken_table_is_told_in_one_line(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "exercises").mkdir()
        (tmp_path / "exercises" / "syllabus.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_syllabus(tmp_path)


def test_the_command_prints_the_table_or_writes_the_page(call: Callable[..., Answer], tmp_path: Path):
    assert "| **C01** " in call("syllabus", "--root", ROOT).out
    page = tmp_path / "syllabus.md"
    assert call("syllabus", "--root", ROOT, "--out", page).code == 0
    assert page.read_text(encoding="utf-8") == syllabus_page(SYLLABUS)
