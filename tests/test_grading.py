"""The check: what it accepts, what it says, what it remembers, and what learners open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import Answer

from mlmkit import UserError
from mlmkit.grading import CheckFailed, ask, check, hint, learner, progress
from mlmkit.grading.chance import binomial_bounds
from mlmkit.grading.comparing import Tolerance, difference, shown
from mlmkit.grading.overview import overview
from mlmkit.grading.plain import MAX_DEPTH, Other, PlainError, Rng, Torch, decode, dumps, encode, loads
from mlmkit.grading.questions import choice, is_right, match, number, numbers, order, several
from mlmkit.grading.release import without_solution
from mlmkit.grading.remembering import Record, progress_file, records, remembered_learner
from mlmkit.grading.sets import MODULES, all_sets, task_named, task_set
from mlmkit.grading.submission import find_submissions, read_submission, without_magic
from mlmkit.grading.verdict import judge_answer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MLMKIT_PROGRESS", str(tmp_path / "progress.sqlite"))
    return tmp_path / "progress.sqlite"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# What may cross the wall


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -0.5, "a word", [1, [2]], (1, "b"), {"a": 1, 2: [None]}, {1, 2}, float("inf"), 2**70, -(2**62)],
    ids=str,
)
def test_plain_values_arrive_as_they_were_sent(value: Any):
    assert loads(dumps(value)) == value


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float16", "float32", "float64"])
def test_arrays_and_tensors_arrive_bit_for_bit(dtype: str):
    array = (rng().random((2, 3)) * 9).astype(dtype)
    for sent in (array, torch.from_numpy(array)):
        got = loads(dumps(sent))
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


def test_a_submission_gets_live_tensors_and_generators():
    given = loads(dumps({"x": Torch(np.ones(2, np.float32)), "rng": Rng(5), "ids": np.arange(3)}), live=True)
    assert isinstance(given["x"], torch.Tensor)
    assert given["rng"].random() == rng(5).random()
    assert isinstance(given["ids"], np.ndarray)


def test_the_judge_imports_no_torch_to_read_tensors():
    assert isinstance(loads(dumps(torch.ones(2))), np.ndarray)
    assert loads(dumps(Rng(5))) == Rng(5)


@pytest.mark.parametrize("value", [(x for x in "ab"), object(), np.array(["text"]), lambda: 0, 1j, b"bytes"])
def test_what_is_no_data_arrives_as_the_name_of_its_type(value: Any):
    assert isinstance(loads(dumps(value)), Other)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b'{"$": "pickle", "data": "gASV"}',
        b'{"no": "kind"}',
        b'{"$": "array", "dtype": "object", "shape": [1], "data": ""}',
        b'{"$": "array", "dtype": "int64", "shape": [1000000000], "data": ""}',
        b'{"$": "array", "dtype": "int64", "shape": [1], "data": "!!"}',
        b'{"$": "set", "items": [[1]]}',
        b"[" * (MAX_DEPTH + 5) + b"]" * (MAX_DEPTH + 5),
        b"[" * 100_000,
        b"1" + b"0" * 30,
        b" " * 9_000_000,
    ],
    ids=lambda message: message[:24].decode(),
)
def test_a_broken_message_is_refused(message: bytes):
    with pytest.raises(PlainError):
        loads(message)


def test_a_value_that_holds_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PlainError, match="deep"):
        encode(loop)


def test_half_characters_are_refused():
    with pytest.raises(PlainError, match="half a character"):
        loads(b'"a\\ud800b"')


def test_bfloat16_is_read_as_float32():
    assert decode(encode(torch.ones(2, dtype=torch.bfloat16))).dtype == np.float32


# When two values are the same


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (1, 1.0),
        (True, 1),
        (0.5, 0.5 + 1e-9),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
        ([1, 2], (1, 2)),
        ((1, 2), np.array([1, 2])),
        (np.arange(3), [0, 1, 2]),
        (np.arange(3), np.arange(3, dtype=np.int32)),
        (np.array([True, False]), np.array([1, 0])),
        (np.array([0.5, np.nan]), np.array([0.5, np.nan])),
        (np.float64(2), np.array(2.0)),
        ({"a": [1]}, {"a": (1,)}),
        ({1, 2}, [2, 1, 1]),
        (None, None),
        ("a", "a"),
    ],
    ids=str,
)
def test_what_is_free_stays_free(expected: Any, got: Any):
    assert difference(expected, got, Tolerance()) is None


@pytest.mark.parametrize(
    ("expected", "got", "says"),
    [
        (1, 2, "should be 1 and is 2"),
        (1, "1", "should be 1 and is '1'"),
        (None, 0, "should be None and is 0"),
        ("a", 1, "should be 'a' and is 1"),
        (0.5, 0.6, "should be 0.5 and is 0.6"),
        (0.5, float("nan"), "is nan"),
        (0.5, float("inf"), "is inf"),
        (float("nan"), 0.5, "should be nan"),
        ([1, 2], [1], "should have 2 items and has 1"),
        ([1, 2], 1, "should be a list and is 1"),
        ([1, 2], [1, 3], r"result\[1\] should be 2 and is 3"),
        (np.zeros((2, 3)), np.zeros((3, 2)), r"shape \(2, 3\) and has \(3, 2\)"),
        (np.zeros(2), "no", "should be an array"),
        (np.zeros(2), [[1], [1, 2]], "should be an array"),
        (np.arange(4), np.array([0, 1, 9, 9]), r"result\[2\] should be 2 and is 9 \(2 of 4 entries differ\)"),
        (np.zeros(2), Other("generator"), "is of type generator"),
        ({"a": 1}, {}, "should have the key 'a'"),
        ({}, {"b": 1}, "should not have the key 'b'"),
        ({"a": 1}, [1], "should be a dictionary"),
        ({"a": 1}, {"a": 2}, r"result\['a'\] should be 1"),
        ({1, 2}, {1}, "lacks 2"),
        ({1}, {1, 3}, "should not contain 3"),
        ({1}, 1, "should be a set"),
    ],
)
def test_the_first_difference_is_told(expected: Any, got: Any, says: str):
    import re

    assert re.search(says, difference(expected, got, Tolerance()) or "")


def test_values_are_shown_short():
    assert shown([0.123456789, None, "a"]) == "[0.123457, None, 'a']"
    assert shown((1, Rng(3), Other("module"))) == "(1, default_rng(3), <module>)"
    assert len(shown(np.arange(100_000).reshape(100, 1000))) <= 600
    assert shown(np.zeros((1, 2))) == "[[0. 0.]]"
    assert shown(np.zeros((2, 2))).startswith("\n[[")


def test_a_fair_count_keeps_the_bounds():
    low, high = binomial_bounds(1000, 0.15)
    counts = rng().binomial(1000, 0.15, 10_000)
    assert ((low <= counts) & (counts <= high)).all()
    assert [binomial_bounds(0, 0.3), binomial_bounds(7, 0), binomial_bounds(7, 1)] == [(0, 0), (0, 0), (7, 7)]


@pytest.mark.parametrize(("trials", "share"), [(1, 0.5), (30, 0.1), (2000, 0.97), (20_000, 0.8)])
def test_the_bounds_are_the_exact_ones(trials: int, share: float):
    from scipy.stats import binom

    assert binomial_bounds(trials, share) == (int(binom.ppf(1e-9, trials, share)), int(binom.isf(1e-9, trials, share)))


# Questions


def test_a_number_is_explained_by_its_misconception():
    question = number("?", 30, wrong={"only the masked ones": 24, "all of them": 30}, why="because", unit="tokens")
    assert is_right(question, 30.01)
    assert not is_right(question, True)
    assert question.explain(24) == "only the masked ones"
    assert question.explain(50) == "50 is too large"
    assert question.explain(5) == "5 is too small"
    assert "should be a number" in question.explain("thirty")
    assert question.form == "a number, in tokens"


def test_several_numbers_are_explained_by_the_one_that_is_off():
    question = numbers("?", {"a": 1, "b": 2}, wrong={"swapped": {"a": 2, "b": 1}, "b is a": {"b": 1}}, why="")
    assert is_right(question, {"a": 1, "b": 2})
    assert question.explain({"a": 2, "b": 1}) == "swapped"
    assert question.explain({"a": 1, "b": 1}) == "b is a"
    assert question.explain({"a": 1, "b": 7}) == "'b' is not 7"
    assert "keys 'a', 'b'" in question.explain({"a": 1})


def test_a_choice_explains_each_wrong_option():
    question = choice("?", rng(), right="yes", wrong={"no": "not no", "perhaps": "not perhaps"}, why="")
    options = {line[4]: line[8:] for line in question.text.splitlines() if line.startswith("- **")}
    assert options[question.answer] == "yes"
    for letter, option in options.items():
        if option != "yes":
            assert question.explain(letter.lower()) == f"not {option}"
    assert "one letter from A to C" in question.explain("D")
    assert is_right(question, f" {question.answer.lower()} ")
    assert not is_right(question, question.answer * 2)


def test_all_that_hold_must_be_named_and_no_other():
    question = several("?", rng(), right={"a": "a is missing", "b": "b is missing"}, wrong={"c": "c does not"}, why="")
    options = {line[8:]: line[4] for line in question.text.splitlines() if line.startswith("- **")}
    assert is_right(question, options["b"] + options["a"])
    assert is_right(question, [options["a"], options["b"]])
    assert question.explain(options["a"]).endswith("b is missing")
    assert question.explain("".join(options.values())).endswith("c does not")
    assert "letters" in question.explain(3)
    assert "A to C" in question.explain(options["a"] + options["b"] + "Q")


def test_an_order_is_explained_by_the_steps_that_are_swapped():
    question = order("?", rng(), steps=["one", "two", "three"], because={(0, 2): "one before three"}, why="")
    right = question.answer
    assert is_right(question, list(right))
    assert is_right(question, ", ".join(right).lower())
    assert question.explain(right[::-1]) == "one before three"
    assert "up to place 1" in question.explain(right[0] + right[2] + right[1])
    assert "each once" in question.explain("AAB")


def test_a_matching_is_explained_by_its_wrong_pair():
    question = match(
        "?",
        rng(),
        pairs={"x": "input", "θ": "parameter"},
        wrong={("θ", "input"): "θ is learned"},
        why="",
        extra=["output"],
    )
    letter = {line[8:]: line[4] for line in question.text.splitlines() if line.startswith("- **")}
    assert is_right(question, {"1": letter["input"].lower(), 2: letter["parameter"]})
    assert question.explain({1: letter["input"], 2: letter["input"]}) == "item 2: θ is learned"
    assert "item 2 does not belong" in question.explain({1: letter["input"], 2: letter["output"]})
    assert "keys 1 to 2" in question.explain({1: "A"})
    assert "needs a letter" in question.explain({1: "Z", 2: "A"})
    assert not is_right(question, "AB")


@pytest.mark.parametrize("given", [np.int64(30), np.array(30), torch.tensor(30)], ids=lambda x: type(x).__name__)
def test_a_number_may_come_from_any_library(given: Any):
    task = task_named("03.1")
    right = task.question("ada").answer
    same = {name: given * 0 + value for name, value in right.items()}
    assert judge_answer(task, "ada", loads(dumps(same))).passed


# In the notebook


def test_a_right_function_passes_and_is_remembered(capsys: pytest.CaptureFixture[str]):
    check("3.9", lambda ids, selected: np.where(selected, ids, -100))
    assert capsys.readouterr().out.startswith("✓ 03.9 Labels: passed, 2 points")
    assert records() == {"03.9": Record(True, 1, 0)}


def test_a_wrong_function_is_told_the_input_the_difference_and_the_cause():
    with pytest.raises(CheckFailed) as told:
        check("03.9", lambda ids, selected: np.where(selected, -100, ids))
    message = str(told.value)
    for part in (
        "03.9 Labels: not yet",
        "should be -100",
        "input:",
        "expected:",
        "got:",
        "likely cause:",
        'hint("03.9")',
    ):
        assert part in message
    assert told.value._render_traceback_() == message.splitlines()
    assert records()["03.9"] == Record(False, 1, 0)


def test_a_function_that_calls_mlmkit_is_not_ones_own():
    from mlmkit.masking import mlm_labels

    with pytest.raises(CheckFailed, match=r"calls mlmkit\.masking\.mlm_labels: the task asks for your own code"):
        check("03.9", lambda ids, selected: mlm_labels(ids, selected))


def test_a_function_that_raises_is_told_so():
    def labels_of(ids, selected):
        return ids[0, 99]

    with pytest.raises(CheckFailed, match="labels_of raised IndexError"):
        check("03.9", labels_of)


def test_a_stub_and_an_empty_answer_are_not_written_yet():
    def labels_of(ids, selected):
        raise NotImplementedError("Task 03.9: write labels_of")

    with pytest.raises(NotImplementedError, match=r"Task 03\.9"):
        check("03.9", labels_of)
    with pytest.raises(NotImplementedError, match=r"no answer yet: set answer_03_1 to a dictionary"):
        check("03.1", None)


def test_the_check_wants_the_function_itself():
    with pytest.raises(CheckFailed, match="wants the function labels_of itself, and got list"):
        check("03.9", [1])


@pytest.mark.parametrize("strange", [(x for x in "ab"), object()])
def test_an_answer_of_no_readable_form_is_refused(strange: Any):
    with pytest.raises(CheckFailed):
        check("03.1", strange)


def test_what_was_passed_once_stays_passed():
    check("03.9", lambda ids, selected: np.where(selected, ids, -100))
    with pytest.raises(CheckFailed):
        check("03.9", lambda ids, selected: ids)
    assert records()["03.9"] == Record(True, 2, 0)


def test_hints_come_one_at_a_time(capsys: pytest.CaptureFixture[str]):
    shows: list[str] = []
    import IPython.display

    original = IPython.display.display
    IPython.display.display = lambda value: shows.append(value.data)
    try:
        for _ in range(4):
            hint("3.9")
        ask("3.1")
    finally:
        IPython.display.display = original
    assert [text.count("**Hint") for text in shows[:4]] == [1, 2, 3, 3]
    assert "`answer_03_1 = …`" in shows[4]
    with pytest.raises(UserError, match="has no hints"):
        hint("03.1")
    with pytest.raises(UserError, match="asks for labels_of, and has no question"):
        ask("03.9")


def test_the_question_is_that_of_the_learner():
    learner(" Ada ")
    assert remembered_learner() == "Ada"
    right = task_named("03.1").question("ada").answer
    check("03.1", right)
    learner("somebody else")
    assert task_named("03.1").question("somebody else").answer != right
    with pytest.raises(CheckFailed):
        check("03.1", right)


def test_progress_is_kept_beside_the_exercises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLMKIT_PROGRESS")
    inside = tmp_path / "exercises" / "release" / "03"
    inside.mkdir(parents=True)
    assert progress_file(inside) == inside / "progress.sqlite"
    (tmp_path / "exercises" / "syllabus.yml").touch()
    assert progress_file(inside) == tmp_path / "exercises" / "progress.sqlite"
    assert progress_file(tmp_path) == tmp_path / "exercises" / "progress.sqlite"


def test_progress_names_what_is_open_and_what_comes_next():
    check("03.9", lambda ids, selected: np.where(selected, ids, -100))
    seen = progress()
    row = next(row for row in seen.notebooks if row.name.startswith("03"))
    assert row.passed == 1
    assert "03.9" not in row.open
    assert seen.points == 2
    assert seen.next.startswith("task 01.1")
    assert "C13" in str(seen)
    assert "| 03_corruption_80_10_10 |" in seen._repr_markdown_()


def test_progress_ends_with_everything_passed():
    known = {task.id: Record(True, 1, 0) for group in all_sets() for task in group.tasks}
    seen = overview("ada", known, all_sets())
    assert seen.points == seen.of
    assert seen.next.startswith("everything is passed")
    assert not any(row.open for row in (*seen.notebooks, *seen.concepts))
    assert "done" in str(seen)


def test_a_task_that_was_tried_is_told_with_its_tries():
    assert "tried 3 times" in overview("ada", {"01.1": Record(False, 3, 0)}, all_sets()).next


@pytest.mark.parametrize(("name", "says"), [("99.1", "no exercise set '99'"), ("03.99", "no task '03.99'")])
def test_a_task_that_is_not_there_is_told_in_one_line(name: str, says: str):
    with pytest.raises(UserError, match=says):
        task_named(name)


def test_a_set_is_found_by_name_and_by_number():
    assert task_set("03_corruption_80_10_10") == task_set("3") == task_set("03")
    assert task_set("03").points == sum(task.points for task in task_set("03").tasks)


# Submissions, read as data


def notebook(*cells: tuple[str, str], **more: Any) -> str:
    made = [
        {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": key}} if key else {}, "source": source}
        for key, source in cells
    ]
    return json.dumps({"cells": made, **more})


@pytest.mark.parametrize(
    "path",
    [
        "class/ada/03_corruption_80_10_10/03_corruption_80_10_10.ipynb",
        "class/ada/03_corruption_80_10_10.ipynb",
        "class/03_corruption_80_10_10/ada.ipynb",
        "class/ada.ipynb",
    ],
)
def test_the_learner_is_told_from_the_path(tmp_path: Path, path: str):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(notebook(("answer-03-9", "x = 1")))
    (found,) = find_submissions([tmp_path / "class"])
    assert (found.learner, found.set_name) == ("ada", "03_corruption_80_10_10")


def test_only_the_learners_own_cells_are_run(tmp_path: Path):
    file = tmp_path / "ada.ipynb"
    cells = [
        ("", "import numpy as np"),
        ("ask-03-1", "ask()"),
        ("answer-03-9", ["x = 1\n", "y = 2"]),
        ("check-03-9", "check()"),
    ]
    file.write_text(notebook(*cells))
    found = read_submission(file)
    assert found is not None
    assert found.cells == ("import numpy as np", "", "x = 1\ny = 2", "")
    assert len(found.digest) == 64


@pytest.mark.parametrize("text", ["", "[]", "{", '{"cells": 3}', '{"cells": [1]}', "\x00" * 10, "[" * 100_000])
def test_a_broken_notebook_is_a_fault_of_its_own(tmp_path: Path, text: str):
    file = tmp_path / "ada" / "03_corruption_80_10_10.ipynb"
    file.parent.mkdir()
    file.write_text(text)
    found = read_submission(file)
    assert found is not None
    assert found.cells == ()
    assert found.fault or text == '{"cells": [1]}'


def test_a_link_to_the_work_of_another_is_no_submission(tmp_path: Path):
    for learner_name in ("ada", "bob"):
        (tmp_path / learner_name).mkdir()
    work = tmp_path / "bob" / "03_corruption_80_10_10.ipynb"
    work.write_text(notebook(("answer-03-9", "x = 1")))
    (tmp_path / "ada" / work.name).symlink_to(work)
    ada, bob = find_submissions([tmp_path])
    assert (ada.learner, ada.cells) == ("ada", ())
    assert "it is a link" in ada.fault
    assert not bob.fault


def test_another_notebook_is_no_submission(tmp_path: Path):
    (tmp_path / "notes.ipynb").write_text(notebook(("", "1 + 1")))
    with pytest.raises(UserError, match="no exercise notebook"):
        find_submissions([tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        find_submissions([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        ("x = 7 % 3", "x = 7 % 3"),
        ("%timeit f()\ny = 1", "pass\ny = 1"),
        ("if x:\n    !ls", "if x:\n    pass"),
        ("np.where?", "pass"),
        ("%%bash\nls", ""),
    ],
)
def test_notebook_magic_is_left_out(cell: str, plain: str):
    assert without_magic(cell) == plain


# What learners open


def test_a_solution_becomes_a_stub_of_the_same_indentation():
    source = "def labels_of(ids):\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
    assert without_solution(source, task_named("03.9")) == (
        'def labels_of(ids):\n    raise NotImplementedError("Task 03.9: write labels_of")'
    )
    value = "### BEGIN SOLUTION\nanswer_03_1 = 3\n### END SOLUTION"
    assert without_solution(value, task_named("03.1")) == "answer_03_1 = None"


def test_a_solution_that_is_not_marked_is_never_released():
    with pytest.raises(UserError, match="BEGIN SOLUTION"):
        without_solution("x = 1", task_named("03.9"))


def test_the_commands_make_the_release_and_show_progress(
    call: Callable[..., Answer], tmp_path: Path, own_progress: Path
):
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "source").symlink_to(ROOT / "exercises" / "source")
    made = call("exercises", "--root", tmp_path)
    assert made.code == 0
    assert made.out.count("written: ") == len(MODULES)
    nowhere = call("exercises", "--root", tmp_path / "exercises")
    assert nowhere.code == 2
    assert "no exercises in" in nowhere.err
    shown_progress = call("progress")
    assert "Next: task 01.1" in shown_progress.out
    assert sqlite3.connect(own_progress).execute("select count(*) from passed").fetchone() == (0,)


def test_wrong_answers_are_told_apart_from_unanswered_questions():
    verdict: Mapping[str, str] = {name: judge_answer(task_named("03.1"), "ada", value).status for name, value in {
        "none": None, "dots": ..., "wrong": 3
    }.items()}  # fmt: skip
    assert verdict == {"none": "not written", "dots": "not written", "wrong": "wrong"}
