"""An exercise notebook in JupyterLab, worked on in a real browser: what a learner types, and what the page answers."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from browser import Visit, browser, find_chromium, jupyterlab, open_notebook, visit
from submissions import ROOT, SOURCE

from mlmkit.grading.judge import Mark
from mlmkit.grading.release import release
from mlmkit.grading.report import write_pages
from mlmkit.grading.sets import MODULES, task_named, task_set
from mlmkit.grading.verdict import Verdict

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.slow

SET = "03_corruption_80_10_10"
LEARNER = "ada"
SHOTS = os.environ.get("MLMKIT_SHOTS")
"""A folder for pictures of the pages, for a look at them."""

LABELS = """def labels_of(ids, selected):
    return np.where({})"""
WRONG, RIGHT = LABELS.format("selected, -100, ids"), LABELS.format("selected, ids, -100")

CONTRAST = """element => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const numbers = color => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = color => numbers(color).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const pair = [light(getComputedStyle(element).color), light(dark ? '#121212' : '#ffffff')];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
"""How much lighter the text of an element is than the page, or darker; 4.5 is what is asked of text."""


@dataclass(frozen=True)
class Lab:
    """An exercise notebook open in a browser."""

    notebook: nbformat.NotebookNode
    address: str
    chromium: Browser
    visit: Visit

    @property
    def page(self) -> Page:
        return self.visit.page

    def cell(self, name: str) -> Locator:
        """A cell by its id in nbgrader, or by how its source begins."""
        for number, cell in enumerate(self.notebook.cells):
            if cell.metadata.get("nbgrader", {}).get("grade_id") == name or cell.source.startswith(name):
                return self.page.locator(".jp-Notebook-cell").nth(number)
        raise KeyError(name)

    def run(self, name: str, text: str | None = None) -> Locator:
        """Click into a cell, replace its text if there is a new one, press Shift + Enter, and wait for its end.

        Returns:
            What stands below it.
        """
        cell = self.cell(name)
        number = cell.locator(".jp-InputArea-prompt")
        before = number.inner_text()
        cell.locator(".cm-content").click()
        if text is not None:
            self.page.keyboard.press("Control+A")
            self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Shift+Enter")
        see(number).not_to_have_text(before)
        see(number).to_have_text(re.compile(r"\[\d+\]"))
        output = cell.locator(".jp-OutputArea")
        if SHOTS:
            cell.scroll_into_view_if_needed()
            self.page.screenshot(path=str(Path(SHOTS) / f"{name.split('(')[0].split()[0]}-{int(time.time())}.png"))
        return output


def see(locator: Locator) -> Any:
    """What must become true of the page within a while: it waits for the kernel's answer."""
    from playwright.sync_api import expect

    return expect(locator)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    find_chromium()
    course, scratch = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("scratch")
    shutil.copytree(ROOT / SOURCE / SET, course / SOURCE / SET)
    (course / "exercises" / "syllabus.yml").touch()
    (path,) = release(course)
    with jupyterlab(course, scratch) as address, browser() as chromium:
        here = visit(chromium)
        open_notebook(here.page, address, path.relative_to(course).as_posix())
        made = Lab(nbformat.read(path, as_version=4), address, chromium, here)
        made.run("from mlmkit", f"{made.notebook.cells[1].source.splitlines()[0]}, progress\n\nlearner({LEARNER!r})")
        made.run("setup-03")
        yield made


def test_a_question_is_rendered_with_the_learners_own_numbers(lab: Lab):
    output = lab.run("ask-03-1")
    question = task_named("03.1").question(LEARNER)
    (tokens,) = re.findall(r"\*\*([\d,]+) real tokens\*\*", question.text)
    see(output.locator("strong")).to_have_text(f"{tokens} real tokens")
    see(output.locator("code").first).to_have_text("selected")
    see(output).to_contain_text("answer_03_1 = …")
    assert "**" not in output.inner_text()


def test_an_unanswered_question_is_told_in_one_line(lab: Lab):
    lab.run("answer-03-1")
    output = lab.run("check-03-1")
    see(output).to_contain_text("Task 03.1: no answer yet: set answer_03_1 to a dictionary")
    assert len(output.inner_text().split("\n")) == 1, output.inner_text()


def test_a_wrong_answer_to_a_question_is_told_and_the_right_one_earns_its_points(lab: Lab):
    right = task_named("03.1").question(LEARNER).answer
    lab.run("answer-03-1", f"answer_03_1 = {right | {'loss': 1}}")
    output = lab.run("check-03-1")
    see(output).to_contain_text("✗ 03.1 How many of each: not yet")
    lab.run("answer-03-1", f"answer_03_1 = {right}")
    output = lab.run("check-03-1")
    see(output.locator(".mlmkit-passed")).to_contain_text("✓ 03.1 How many of each: passed, 2 points")
    see(output).to_contain_text(task_named("03.1").question(LEARNER).why[:20])


def test_a_function_that_is_not_written_is_told_in_one_line(lab: Lab):
    lab.run("answer-03-9")
    output = lab.run("check-03-9")
    see(output).to_have_text("Task 03.9: write labels_of")


def test_a_wrong_function_is_told_its_likely_cause_and_a_mended_one_passes(lab: Lab):
    lab.run("answer-03-9", WRONG)
    output = lab.run("check-03-9")
    for part in ("✗ 03.9 Labels: not yet", "should be -100", "input:", "expected:", "got:", "likely cause:"):
        see(output).to_contain_text(part)
    see(output).to_contain_text('stuck? hint("03.9")')
    for noise in ("Traceback", "CheckFailed", "checking.py", "\x1b"):
        assert noise not in output.inner_text()
    see(output.locator(".mlmkit-passed")).to_have_count(0)
    lab.run("answer-03-9", RIGHT)
    output = lab.run("check-03-9")
    see(output.locator(".mlmkit-passed")).to_have_text("✓ 03.9 Labels: passed, 2 points")
    assert "✗" not in output.inner_text()


def test_hints_are_rendered_one_more_each_time(lab: Lab):
    output = lab.run("setup-03", 'hint("03.9")')
    see(output.locator("strong")).to_have_text(["Hint 1 of 3"])
    see(output.locator("code").first).to_have_text("np.where")
    output = lab.run("setup-03", 'hint("03.9")')
    see(output.locator("strong")).to_have_text(["Hint 1 of 3", "Hint 2 of 3"])


def test_progress_is_a_table_of_what_was_passed_here(lab: Lab):
    output = lab.run("answer-03-14", "progress()")
    row = output.locator("tr", has_text=SET)
    see(row).to_contain_text(f"2/{len(task_set(SET).tasks)}")
    see(row).to_contain_text("03.10")
    assert "03.9" not in row.inner_text()
    see(output).to_contain_text(f"{LEARNER}: 4 of")
    see(output.locator("tr")).to_have_count(1 + len(MODULES))


def test_nothing_was_asked_of_another_machine_and_no_script_failed(lab: Lab):
    assert lab.visit.elsewhere == []
    assert lab.visit.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_feedback_can_be_read_in_light_and_dark(lab: Lab, scheme: str, tmp_path: Path):
    wrong = Verdict("wrong", "a problem", "[1 2]", "[3 4]", "[5 6] " * 60, "a `cause`")
    marks = [
        Mark("ben", SET, "03.9", "Labels", 0, 2, wrong, "a hint", 0.1),
        Mark("ben", SET, "03.13", "Changed", 1, 1, Verdict("passed", why="because"), "", 0.1),
    ]
    (feedback,) = write_pages(marks, tmp_path, "All walls stand.", 1)
    for number, path in enumerate((feedback, tmp_path / "index.html")):
        for width in (1000, 390):
            page = lab.chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
            page.goto(path.as_uri())
            if SHOTS:
                page.screenshot(path=str(Path(SHOTS) / f"page{number}-{scheme}-{width}.png"))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
            for element in page.locator("h1, p, strong, td, a, .sign, .points").all():
                assert element.evaluate(CONTRAST) >= 4.5, (path.name, scheme, element.inner_text())
            page.close()
