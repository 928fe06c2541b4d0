"""`mlmkit grade`: a folder of notebooks becomes marks, a table, and a page of feedback for each learner."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest
from runs import Answer
from submissions import hand_in, solved

from mlmkit.grading import judge
from mlmkit.grading.judge import Mark
from mlmkit.grading.marking import Marking, mark_class
from mlmkit.grading.report import in_html, write_pages
from mlmkit.grading.requests import Protections
from mlmkit.grading.sets import task_named, task_set
from mlmkit.grading.verdict import Verdict

SET = "03_corruption_80_10_10"
OF = task_set(SET).points
FLAWED = {
    "03.1": "answer_03_1 = {'selected': 1, 'mask': 1, 'random': 1, 'kept': 1, 'untouched': 1, 'loss': 1}",
    "03.4": "def channel(n, mask, random, keep):\n    return np.ones(3)[n]",
    "03.9": "def labels_of(ids, selected):\n    return np.where(selected, -100, ids)",
    "03.10": "def select_positions(candidates, rate, rng):\n    return '<script>alert(1)</script>'",
    "03.13": "",
}
"""Wrong, raising, wrong in a known way, hostile to the page, and missing."""
LOST = sum(task_named(name).points for name in FLAWED)


def write_class(folder: Path) -> Path:
    hand_in(folder, SET, "ada")
    hand_in(folder, SET, "ben", solved(SET, "ben", FLAWED))
    hand_in(folder, SET, "=1+2")
    hand_in(folder, SET, "cleo", "{ this is no notebook")
    return folder


@pytest.fixture(scope="module")
def marking(tmp_path_factory: pytest.TempPathFactory) -> Marking:
    """A class of four, marked once for many tests."""
    folder = tmp_path_factory.mktemp("marking")
    return mark_class([write_class(folder / "class")], folder / "grades", csv=True, seed=5)


def points(marks: Sequence[Mark]) -> dict[str, float]:
    earned: dict[str, float] = {}
    for mark in marks:
        earned[mark.learner] = earned.get(mark.learner, 0) + mark.points
    return earned


def page_of(marking: Marking, learner: str) -> str:
    (page,) = [page for page in marking.pages if page.stem == learner]
    return page.read_text(encoding="utf-8")


def words_of(page: str) -> str:
    """What is read on a page, without its tags."""
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S)).split())


def article(page: str, task_id: str) -> str:
    """What is read about one task."""
    (found,) = [part for part in re.findall(r"<article.*?</article>", page, flags=re.S) if f'id="{task_id}"' in part]
    return words_of(found)


# From the command line


def test_a_class_is_marked_and_a_second_run_marks_only_what_changed(call: Callable[..., Answer], tmp_path: Path):
    folder, out = write_class(tmp_path / "class"), tmp_path / "grades"
    first = call("grade", folder, "--out", out, "--csv", "--seed", "5", "--jobs", "2")
    assert first.code == 0, first.err
    assert "submissions marked: 4; known and unchanged: 0; seed 5" in first.out
    assert f"learners: 4; {3 * OF - LOST} of {4 * OF} points" in first.out
    assert "A submission runs in a process of its own" in first.out
    assert {path.name for path in out.iterdir()} == {"grades.sqlite", "grades.csv", "index.html", "feedback"}
    assert len(list((out / "feedback").iterdir())) == 4

    hand_in(folder, SET, "cleo")
    second = call("grade", folder, "--out", out)
    assert "cleo" not in second.err
    assert "submissions marked: 1; known and unchanged: 3; seed 5" in second.out, (
        "an unreadable file became a right one"
    )
    assert f"learners: 4; {4 * OF - LOST} of {4 * OF} points" in second.out

    third = call("grade", folder, "--out", out)
    assert "submissions marked: 0; known and unchanged: 4" in third.out
    hand_in(folder, SET, "cleo", solved(SET, "cleo", FLAWED))
    fourth = call("grade", folder, "--out", out)
    assert "submissions marked: 1; known and unchanged: 3" in fourth.out
    assert f"{4 * OF - 2 * LOST} of {4 * OF} points" in fourth.out
    assert all("Traceback" not in run.err for run in (first, second, third, fourth))


def one_line(answer: Answer) -> str:
    assert answer.code == 2
    (line,) = [line for line in answer.err.splitlines() if "submission/s" not in line and line.strip()]
    return line


def test_two_files_for_the_same_submission_are_refused(call: Callable[..., Answer], tmp_path: Path):
    hand_in(tmp_path / "class", SET, "ada")
    other = hand_in(tmp_path / "late", SET, "ada")
    told = one_line(call("grade", tmp_path / "class", tmp_path / "late", "--out", tmp_path / "grades"))
    assert f"two submissions of 'ada' for {SET}" in told
    assert str(other) in told
    assert not (tmp_path / "grades").exists()


def test_the_same_file_named_twice_is_one_submission(marking: Marking, call: Callable[..., Answer], tmp_path: Path):
    path = hand_in(tmp_path / "class", SET, "cleo", "{ this is no notebook")
    told = call("grade", tmp_path / "class", path, "--out", tmp_path / "grades")
    assert "submissions marked: 1;" in told.out, told.err


@pytest.mark.parametrize("what", ["empty", "nowhere", "notes"])
def test_nothing_to_mark_is_told_in_one_line(call: Callable[..., Answer], tmp_path: Path, what: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), tmp_path / "notes" / "x.ipynb")
    told = one_line(call("grade", tmp_path / what, "--out", tmp_path / "grades"))
    assert ("does not exist" if what == "nowhere" else "no exercise notebook among") in told
    assert not (tmp_path / "grades").exists()


class Fence:
    """A sandbox on a system that knows no walls."""

    def __init__(self, *arguments: object) -> None:
        self.protections = Protections()

    def __enter__(self) -> Fence:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_strict_refuses_where_walls_are_missing(
    call: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(judge, "Sandbox", Fence)
    hand_in(tmp_path / "class", SET, "ada", "{ unreadable: nothing of it is run")
    told = one_line(call("grade", tmp_path / "class", "--out", tmp_path / "grades", "--strict"))
    assert "--strict: not all walls can be built on this machine" in told
    assert "can reach the network" in told
    assert not (tmp_path / "grades").exists()
    lenient = call("grade", tmp_path / "class", "--out", tmp_path / "grades")
    assert lenient.code == 0
    assert "but on this system it can" in lenient.out


# Marks


def test_a_right_submission_of_any_learner_has_all_points(marking: Marking):
    earned = points(marking.marks)
    assert earned["ada"] == earned["=1+2"] == OF, [
        m.verdict for m in marking.marks if m.learner == "ada" and not m.points
    ]
    assert earned["ben"] == OF - LOST


def test_a_broken_notebook_costs_only_its_own_marks(marking: Marking):
    broken = [mark for mark in marking.marks if mark.learner == "cleo"]
    assert len(broken) == len(task_set(SET).tasks)
    assert {(mark.points, mark.verdict.status) for mark in broken} == {(0, "stopped")}
    assert all("the notebook cannot be read" in mark.verdict.problem for mark in broken)


def test_the_same_seed_gives_the_same_marks_and_texts(marking: Marking, tmp_path: Path):
    again = mark_class([write_class(tmp_path / "again")], tmp_path / "grades", jobs=2, seed=5)
    assert [replace(mark, seconds=0) for mark in again.marks] == [replace(mark, seconds=0) for mark in marking.marks]

    def without_time(page: Path) -> str:
        return re.sub(r"Ran for [\d.]+ s", "", page.read_text(encoding="utf-8"))

    assert [*map(without_time, again.pages)] == [*map(without_time, marking.pages)]


def test_another_seed_draws_other_inputs_and_gives_the_same_points(marking: Marking, tmp_path: Path):
    path = hand_in(tmp_path / "class", SET, "ben", solved(SET, "ben", FLAWED))
    other = mark_class([path], tmp_path / "grades", seed=6)
    assert points(other.marks)["ben"] == points(marking.marks)["ben"]
    inputs = [task_named("03.9").inputs(seed)[-1] for seed in (5, 6)]
    assert str(inputs[0]) != str(inputs[1])


def test_the_table_has_a_row_for_each_learner_and_no_formula(marking: Marking):
    with (marking.pages[0].parents[1] / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["learner"] for row in rows] == ["'=1+2", "ada", "ben", "cleo"]
    ben = rows[2]
    assert (ben["points"], ben["of"]) == (str(OF - LOST), str(OF))
    assert {name: ben[f"{name} (of {task_named(name).points})"] for name in FLAWED} == dict.fromkeys(FLAWED, "0")


# Pages


def test_a_page_shows_points_input_expected_got_cause_and_hint(marking: Marking):
    page = page_of(marking, "ben")
    assert words_of(page).count(f"{OF - LOST} of {OF}") == 2, "of the learner, and of the set"
    labels = article(page, "03.9")
    for part in ("0 / 2", "wrong", "should be", "input", "ids", "expected", "got", "Likely cause", "Hint"):
        assert part.lower() in labels.lower(), part
    assert in_html(task_named("03.9").hints[0]) in page
    assert any(mistake.says in labels for mistake in task_named("03.9").mistakes)
    raised = article(page, "03.4")
    assert "channel raised IndexError" in raised
    assert "line 2: return np.ones(3)[n]" in raised, "the learner's own line"
    assert "the notebook does not define answer_03_13" in article(page, "03.13")
    assert in_html(task_named("03.3").question("ben").why) in page


def test_tags_of_a_submission_are_text_on_its_page(marking: Marking):
    page = page_of(marking, "ben")
    assert "<script>" not in page
    assert "<script>alert(1)</script>" in article(page, "03.10")


def test_the_overview_links_to_every_page(marking: Marking):
    out = marking.pages[0].parents[1]
    index = (out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]*)"', index)
    assert [out / unescape(link) for link in links] == list(marking.pages)
    assert f"ben {OF - LOST} {OF} {len(task_set(SET).tasks) - len(FLAWED)}" in words_of(index)
    assert "03.9 Labels 50 %" in words_of(index), "ada and the one with a formula for a name"


def mark_of(learner: str, **more: Any) -> Mark:
    verdict = Verdict("wrong", "<b>problem</b>", "<i>in</i>", "<u>right</u>", "<s>got</s>", "<p>cause", "<q>why")
    return Mark(learner, SET, "03.9", "<em>title", 0, 2, replace(verdict, **more), "<h1>hint", 0.1)


def test_no_field_of_a_mark_can_write_tags(tmp_path: Path):
    (page,) = write_pages([mark_of("<script>x</script>")], tmp_path, "none <b>", 3)
    text, index = (path.read_text(encoding="utf-8") for path in (page, tmp_path / "index.html"))
    for tag in "<script <b> <i> <u> <s> <p>cause <q> <em> <h1>hint".split():
        assert tag not in text, tag
    assert "<script" not in index
    assert "<em>" not in index
    for word in ("problem", "in", "right", "got", "cause", "why", "title", "hint"):
        assert word in words_of(text)


def test_names_that_are_paths_or_much_alike_have_pages_of_their_own(tmp_path: Path):
    names = ["../evil", "/etc/passwd", "..", "a b", "a_b", "a?b", "Ada", "ada", "Ünal Ömer", "", "x" * 255, "x" * 254]
    pages = write_pages([mark_of(name) for name in names], tmp_path / "out", "none", 3)
    assert {page.parent for page in pages} == {tmp_path / "out" / "feedback"}
    assert len({page.name.lower() for page in pages}) == len(names)
    for page, name in zip(pages, sorted(names), strict=True):
        assert f"<h1>{name}" in page.read_text(encoding="utf-8").replace("\n", ""), name
    again = write_pages([mark_of(name) for name in [*names, "a a"]], tmp_path / "out", "none", 3)
    assert set(pages) < set(again), "a page keeps its name when others join"


def test_a_page_asks_nothing_of_another_machine(marking: Marking):
    for path in (*marking.pages, marking.pages[0].parents[1] / "index.html"):
        assert not re.search(r"https?:|<script|<link|<img|@import|url\(", path.read_text(encoding="utf-8"))
