"""The course runner: what it runs, with which interpreter and parameters, and what it says of the outcome."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from rich.console import Console

from mlmkit.course import CourseReport, Learned, NotebookResult, find_notebooks, learned, run_course
from mlmkit.errors import UserError

PARAMETERS = 'preset = "laptop"\ndevice = "auto"\nseed: int = 0\nout_dir = "../build"'

GOOD = [
    "# Masking, by hand\n\nYou will be able to mask.",
    "!" + PARAMETERS,
    "import os, sys\nfrom pathlib import Path\nfrom mlmkit.course import learned",
    'learned("interpreter", sys.prefix)\nlearned("preset", preset)\nlearned("seed", seed)',
    'learned("out_dir leads to", Path(out_dir).resolve().name)\nlearned("runs in", Path.cwd().name)',
    'learned("[MASK] tokens", 24)\nlearned("share", 0.8000001)',
    "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
]
FAILING = ["# A failing one", 'x = "[CLS]"', 'y = 1\nassert y == 2, "y is one"', "z = 3"]
EXITING = ["# One that leaves", "1 + 1", "import sys\nsys.exit(0)", "2 + 2", "3 + 3"]
EXITING_LAST = ["# One that leaves at its end", "import sys\nsys.exit()"]
PLAIN = ["No heading and no parameters", "print('preset' in globals())"]


def write(path: Path, cells: Sequence[str]) -> Path:
    """A notebook of one Markdown cell, then code; a cell that begins with "!" is tagged `parameters`.

    The counts pretend an earlier run, as a committed notebook has them.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(cells[0])])
    for count, source in enumerate(cells[1:], start=1):
        cell = nbformat.v4.new_code_cell(source.removeprefix("!"), execution_count=count)
        if source.startswith("!"):
            cell.metadata["tags"] = ["parameters"]
        notebook.cells.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def recorder() -> Console:
    return Console(width=100, record=True, file=io.StringIO())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    write(folder / "notebooks" / "00_good.ipynb", GOOD)
    write(folder / "notebooks" / "01_failing.ipynb", FAILING)
    write(folder / "notebooks" / "02_exiting.ipynb", EXITING)
    write(folder / "notebooks" / "03_exiting_last.ipynb", EXITING_LAST)
    write(folder / "notebooks" / "04_plain.ipynb", PLAIN)
    (folder / "notebooks" / "05_broken.ipynb").write_text("{not JSON")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Iterator[CourseReport]:
    """One run of all of them, on a machine whose owner has registered a broken kernel called python3."""
    for place in ("user", "path"):
        spec = folder / place / "kernels" / "python3" / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["no-such-python"], "display_name": "mine", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JUPYTER_PATH", str(folder / "path"))
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "user"))
        patch.setenv("MPLBACKEND", "agg")
        yield run_course(out=Path("elsewhere"), preset="smoke", parameters={"seed": 7})
        assert os.environ["JUPYTER_PATH"] == str(folder / "path")
        assert os.environ["MPLBACKEND"] == "agg"


def by_name(report: CourseReport, name: str) -> NotebookResult:
    return next(result for result in report.results if result.notebook.stem == name)


def test_notebooks_run_in_order_and_a_failing_one_does_not_stop_the_rest(report: CourseReport):
    names = [result.notebook.stem for result in report.results]
    assert names == ["00_good", "01_failing", "02_exiting", "03_exiting_last", "04_plain", "05_broken"]
    assert [result.error is None for result in report.results] == [True, False, False, False, True, False]
    assert not report.ok


def test_what_was_learned_comes_back_from_the_executed_copy(report: CourseReport, folder: Path):
    result = by_name(report, "00_good")
    assert result.title == "Masking, by hand"
    assert result.executed == folder.resolve() / "elsewhere" / "notebooks" / "00_good.ipynb"
    found = {finding.claim: finding.value for finding in result.learned}
    assert found["interpreter"] == sys.prefix
    assert found["preset"] == "smoke"
    assert found["seed"] == "7"
    assert found["out_dir leads to"] == "elsewhere"
    assert found["runs in"] == "notebooks"
    assert found["share"] == "0.8"


def test_the_line_that_the_reader_sees_is_the_finding(report: CourseReport):
    cells = nbformat.read(by_name(report, "00_good").executed, as_version=4).cells
    shown = [out.data["text/plain"] for cell in cells for out in cell.get("outputs", []) if "data" in out]
    assert "✓ [MASK] tokens: 24" in shown


def test_pictures_are_drawn_into_the_notebook_although_matplotlib_was_told_otherwise(report: CourseReport):
    last = nbformat.read(by_name(report, "00_good").executed, as_version=4).cells[-1]
    assert "image/png" in last.outputs[-1].data


def test_an_error_is_told_with_its_cell_its_line_and_its_message(report: CourseReport):
    error = by_name(report, "01_failing").error
    assert error == 'In [2], at `assert y == 2, "y is one"`\nAssertionError: y is one'


def test_a_notebook_that_exits_has_failed_although_papermill_is_content(report: CourseReport):
    error = "the notebook stopped early at In [2] (SystemExit): 2 code cells never ran"
    assert by_name(report, "02_exiting").error == error
    assert "at In [1] (SystemExit): 0 code cells" in (by_name(report, "03_exiting_last").error or "")


def test_a_notebook_without_parameters_gets_none(report: CourseReport):
    result = by_name(report, "04_plain")
    assert result.title == "04_plain"
    cells = nbformat.read(result.executed, as_version=4).cells
    assert [cell.outputs[0].text for cell in cells if cell.cell_type == "code"] == ["False\n"]


def test_a_file_that_is_no_notebook_is_a_failure_and_not_a_crash(report: CourseReport):
    result = by_name(report, "05_broken")
    assert result.error is not None
    assert "NotJSONError" in result.error
    assert not result.executed.exists()


def test_the_table_names_every_notebook_finding_and_error(report: CourseReport):
    console = recorder()
    report.render(console)
    text = console.export_text()
    for result in report.results:
        assert result.notebook.stem in text
    assert "✓ [MASK] tokens: 24" in text
    assert "AssertionError: y is one" in text
    assert "2 of 6 notebooks ran to their end" in text


def test_it_says_which_notebook_is_running(folder: Path):
    console = recorder()
    path = write(folder / "quick" / "06_quick.ipynb", ["# Quick", "pass"])
    report = run_course([path], out=folder / "build", console=console)
    assert report.ok
    begins, ends = console.export_text().splitlines()[:2]
    assert begins.strip() == "06_quick.ipynb begins"
    assert ends.strip().startswith("1/1  06_quick.ipynb … ")


NOTE = """
import os, time
from pathlib import Path
with Path("order.txt").open("a") as order:
    order.write(NAME + " begins on " + os.environ["OMP_NUM_THREADS"] + "\\n")
    order.flush()
    time.sleep(SECONDS)
    order.write(NAME + " ends\\n")
"""


def test_several_at_a_time_those_that_take_longest_first_and_none_before_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """00 needs 03, which takes long; 01 fails; whatever the order, the results come in that of the names."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "04_broken.ipynb").write_text("{not JSON")
    told = {"00_needs": "9 minutes", "01_fails": "1 second", "02_short": "2 seconds", "03_long": "3 minutes"}
    for name, time in told.items():
        code = NOTE.replace("NAME", repr(name)).replace("SECONDS", "1.5" if name == "03_long" else "0.1")
        fails = ["assert False"] if name == "01_fails" else []
        path = write(tmp_path / "notebooks" / f"{name}.ipynb", [f"# {name}\n\n{time} to run", code, *fails])
        if name == "00_needs":
            notebook = nbformat.read(path, as_version=4)
            notebook.metadata["mlmkit"] = {"after": "03_long"}
            nbformat.write(notebook, path)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    console = recorder()
    report = run_course([tmp_path / "notebooks"], out=tmp_path / "build", jobs=2, console=console)
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert [result.notebook.stem for result in report.results] == [*sorted(told), "04_broken"]
    assert [result.notebook.stem for result in report.failed] == ["01_fails", "04_broken"]
    assert 0 < report.seconds < sum(result.seconds for result in report.results) + 60

    begun = [line.split()[0] for line in console.export_text().splitlines() if "begins" in line]
    assert begun[:2] == ["03_long.ipynb", "02_short.ipynb"]
    order = (tmp_path / "notebooks" / "order.txt").read_text().splitlines()
    share = max(1, (os.cpu_count() or 1) // 2)
    assert order.index("03_long ends") < order.index(f"00_needs begins on {share}")


def test_a_notebook_that_needs_itself_runs_all_the_same(tmp_path: Path):
    path = write(tmp_path / "notebooks" / "00_round.ipynb", ["# Round", "pass"])
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["mlmkit"] = {"after": "00_round"}
    nbformat.write(notebook, path)
    assert run_course([path], out=tmp_path / "build", jobs=2).ok


def test_a_dead_kernel_is_a_failure(folder: Path):
    path = write(folder / "dying" / "07_dying.ipynb", ["# Dying", "import os\nos._exit(1)"])
    (result,) = run_course([path], out=folder / "build").results
    assert "DeadKernelError" in (result.error or "")


@pytest.mark.parametrize(
    ("value", "unit", "line"),
    [
        (0.15000001, "", "✓ c: 0.15"),
        (1.69314718, "nats", "✓ c: 1.693 nats"),
        (12345.678, "tokens/s", "✓ c: 12,346 tokens/s"),
        (87.5, "%", "✓ c: 87.5%"),
        (11_170_560, "", "✓ c: 11,170,560"),
        (True, "", "✓ c: yes"),
        (np.float32(0.5), "", "✓ c: 0.5"),
        (torch.tensor(2.0), "", "✓ c: 2"),
        (torch.tensor([1, 2]), "", "✓ c: tensor([1, 2])"),
        ("mat", "", "✓ c: mat"),
        (float("nan"), "", "✓ c: nan"),
    ],
)
def test_values_are_shown_as_a_reader_wants_them(
    value: object, unit: str, line: str, capsys: pytest.CaptureFixture[str]
):
    learned("c", value, unit)
    assert capsys.readouterr().out == line + "\n"


def test_a_notebook_can_be_named_by_how_its_name_begins(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    assert [path.name for path in find_notebooks(["04", "notebooks/00_good.ipynb"])] == [
        "04_plain.ipynb",
        "00_good.ipynb",
    ]
    assert len(find_notebooks(["notebooks"])) == 6


def test_mistakes_of_the_user_are_told_before_anything_runs(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="no notebook at 99"):
        run_course(["99"])
    with pytest.raises(UserError, match="no preset is called 'laptpo': choose one of smoke, laptop"):
        run_course(preset="laptpo")
    with pytest.raises(UserError, match="would overwrite"):
        run_course(["04"], out=folder)
    with pytest.raises(UserError, match="would both become"):
        run_course(["04", "notebooks/04_plain.ipynb"])


def test_without_a_folder_of_notebooks_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlmkit.course.running.__file__", str(tmp_path / "lib" / "mlmkit" / "course" / "running.py"))
    with pytest.raises(UserError, match="change to a copy of the course"):
        run_course()


def test_without_papermill_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(UserError, match=r'pip install "mlmkit\[course\]"'):
        run_course()


def test_an_empty_report_is_a_success_and_percent_signs_stick_to_the_number():
    assert CourseReport(()).ok
    assert str(Learned("accuracy", "87.5", "%")) == "accuracy: 87.5%"
