"""Run the notebooks from end to end and gather what they found.

A notebook states its findings with `learned`; `run_course` executes notebooks in order with papermill and
reads the findings back from the executed copies, so the table at the end shows numbers of this very run.
"""

from __future__ import annotations

import ast
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmkit.errors import UserError
from mlmkit.presets import PRESETS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MARK = "mlmkit_learned"
"""Key in an output's metadata under which `learned` leaves its finding; nbval and JupyterLab pass over it."""

KERNEL = "python3"


@dataclass(frozen=True)
class Learned:
    """One finding of a notebook, in the words and digits in which the reader saw it."""

    claim: str
    value: str
    unit: str = ""

    def __str__(self) -> str:
        space = "" if self.unit in ("", "%") else " "
        return f"{self.claim}: {self.value}{space}{self.unit}"


def learned(claim: str, value: object, unit: str = "") -> None:
    """State a finding of this notebook: shows "✓ claim: value unit" and leaves it for the course report.

    Numbers are shown with four significant digits. Outside a notebook the line is printed.

    >>> learned("share of the tokens that are selected", 0.15000001)
    ✓ share of the tokens that are selected: 0.15
    >>> learned("parameters of the model", 11_170_560)
    ✓ parameters of the model: 11,170,560
    """
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    finding = Learned(claim, _shown(value), unit)
    if get_ipython() is None:
        print(f"✓ {finding}")
    else:
        display({"text/plain": f"✓ {finding}"}, raw=True, metadata={MARK: asdict(finding)})


def _shown(value: object) -> str:
    """A value as a reader wants to see it; one-element arrays and tensors count as numbers."""
    if hasattr(value, "item"):
        with suppress(RuntimeError, ValueError):  # of more than one element
            value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


@dataclass(frozen=True)
class NotebookResult:
    """What came of one notebook; `error` is None when every code cell ran to its end."""

    notebook: Path
    executed: Path
    title: str
    seconds: float
    learned: tuple[Learned, ...]
    error: str | None = None


@dataclass(frozen=True)
class CourseReport:
    """What came of all notebooks, in the order in which they ran."""

    results: tuple[NotebookResult, ...]

    @property
    def failed(self) -> tuple[NotebookResult, ...]:
        """The notebooks that did not run to their end."""
        return tuple(result for result in self.results if result.error is not None)

    @property
    def ok(self) -> bool:
        """Whether every notebook ran to its end."""
        return not self.failed

    def render(self, console: Console) -> None:
        """Print the table of notebooks and findings, then the errors of those that failed."""
        console.print(self._table())
        for result in self.failed:
            console.print(f"\n{result.notebook.name} failed:", style="bold red", markup=False)
            console.print(result.error, markup=False, highlight=False)
        passed = len(self.results) - len(self.failed)
        seconds = sum(result.seconds for result in self.results)
        console.print(f"\n{passed} of {len(self.results)} notebooks ran to their end in {seconds:.0f} s.")

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title="The course", title_justify="left", show_lines=True)
        table.add_column("notebook", ratio=2)
        table.add_column("seconds", justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        table.add_column("what was learned", ratio=3)
        for result in self.results:
            status = Text("passed", "green") if result.error is None else Text("failed", "bold red")
            findings = "\n".join(f"✓ {finding}" for finding in result.learned)  # Text: "[MASK]" is no markup
            name = Text.assemble((result.notebook.stem, "bold"), "\n", result.title)
            table.add_row(name, f"{result.seconds:.1f}", status, Text(findings or "–"))
        return table


def run_course(
    notebooks: Sequence[Path | str] | None = None,
    out: Path = Path("build"),
    preset: str | None = None,
    parameters: Mapping[str, object] | None = None,
    console: Console | None = None,
) -> CourseReport:
    """Execute notebooks in order into `out`/notebooks; one that fails does not stop the ones after it.

    Args:
        notebooks: files, folders, or beginnings of names ("03"); None is every notebook of the course.
        out: folder for the executed copies, and the `out_dir` of the notebooks.
        preset: name in `PRESETS` for the notebooks' `preset`; None leaves each at its own default.
        parameters: further values; a notebook gets those that its cell tagged `parameters` assigns.
        console: where to say which notebook is running; None says nothing.

    Raises UserError when there is no such notebook or preset, or when papermill is not installed.
    """
    _require_papermill()
    if preset is not None and preset not in PRESETS:
        raise UserError(f"no preset is called {preset!r}: choose one of {', '.join(PRESETS)}")
    out = Path(out).resolve()
    jobs = [(path, out / "notebooks" / path.name) for path in find_notebooks(notebooks)]
    _check_targets(jobs)
    given = {**({} if preset is None else {"preset": preset}), **(parameters or {})}
    results = []
    with _this_interpreter():
        for number, (path, executed) in enumerate(jobs, start=1):
            if console is not None:
                console.print(f"{number}/{len(jobs)} {path.name} … ", end="", markup=False, highlight=False)
            result = _run(path, executed, {"out_dir": os.path.relpath(out, path.parent), **given})
            if console is not None:
                console.print(f"{'failed after ' if result.error else ''}{result.seconds:.1f} s")
            results.append(result)
    return CourseReport(tuple(results))


def find_notebooks(chosen: Sequence[Path | str] | None = None) -> list[Path]:
    """The notebooks that `chosen` means, or all of the course: ./notebooks, else those of the repository."""
    if not chosen:
        return _course_notebooks()
    found: list[Path] = []
    for name in chosen:
        path = Path(name)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = sorted(path.glob("*.ipynb"))
        else:
            matches = [each for each in _course_notebooks() if each.name.startswith(str(name))]
        if not matches:
            raise UserError(f"no notebook at {name}: give a file, a folder, or how a name begins, like 03")
        found += [path.resolve() for path in matches]
    return found


def _course_notebooks() -> list[Path]:
    for folder in (Path("notebooks").resolve(), Path(__file__).resolve().parents[1] / "notebooks"):
        if found := sorted(folder.glob("*.ipynb")):
            return found
    raise UserError("no folder notebooks/ here: change to a copy of the course, or name the notebooks to run")


def _check_targets(jobs: Sequence[tuple[Path, Path]]) -> None:
    seen: dict[Path, Path] = {}
    for path, executed in jobs:
        if path == executed:
            raise UserError(f"--out would overwrite {path}: choose a folder other than {executed.parents[1]}")
        if executed in seen:
            raise UserError(f"{seen[executed]} and {path} would both become {executed}: run them apart")
        seen[executed] = path


def _require_papermill() -> None:
    try:
        import papermill  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'running the notebooks needs {error.name}, which is not installed: pip install "mlmkit[course]"'
        ) from error


@contextmanager
def _this_interpreter() -> Iterator[None]:
    """Let the kernel `python3` be the interpreter that runs this, whatever kernels the user has registered.

    JUPYTER_PATH goes before every other place where kernels are looked for. MPLBACKEND is taken away
    meanwhile, so that pictures are drawn into the notebook.
    """
    from ipykernel.kernelspec import write_kernel_spec

    saved = {name: os.environ.pop(name, None) for name in ("JUPYTER_PATH", "MPLBACKEND")}
    with tempfile.TemporaryDirectory() as folder:
        write_kernel_spec(Path(folder) / "kernels" / KERNEL, extra_arguments=["--log-level=ERROR"])
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, saved["JUPYTER_PATH"]]))
        try:
            yield
        finally:
            del os.environ["JUPYTER_PATH"]
            os.environ.update({name: value for name, value in saved.items() if value is not None})


def _run(path: Path, executed: Path, parameters: Mapping[str, object]) -> NotebookResult:
    """Execute one notebook in its own folder; whatever goes wrong in it ends up in the result."""
    import nbformat

    executed.parent.mkdir(parents=True, exist_ok=True)
    executed.unlink(missing_ok=True)
    start = time.perf_counter()
    notebook = None
    try:
        notebook = nbformat.read(path, as_version=4)
        error = _execute(path, executed, {k: v for k, v in parameters.items() if k in _declared(notebook)})
    except Exception as problem:  # the kernel died, the file is no notebook, the disk is full …
        error = f"{type(problem).__name__}: {_few_lines(str(problem))}"
    seconds = time.perf_counter() - start
    findings: tuple[Learned, ...] = ()
    if executed.exists():
        done = nbformat.read(executed, as_version=4)
        findings = tuple(_findings(done))
        error = error or _stopped_early(done)
    title = path.stem if notebook is None else _title(notebook) or path.stem
    return NotebookResult(path, executed, title, seconds, findings, error)


def _execute(path: Path, executed: Path, parameters: Mapping[str, object]) -> str | None:
    """Run with papermill; the error of a failing cell in a few lines, or None."""
    import papermill

    try:
        papermill.execute_notebook(
            path,
            executed,
            parameters=dict(parameters),
            kernel_name=KERNEL,
            language="python",
            cwd=path.parent,
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        # The first frame is the cell's own: its arrow points at the line that the reader wrote.
        pointed = re.search(r"^-+> *\d+ (.*)$", traceback, flags=re.MULTILINE)
        where = f"In [{error.exec_count}]" + (f", at `{pointed[1].strip()}`" if pointed else "")
        return f"{where}\n{error.ename}: {_few_lines(error.evalue)}"
    return None


def _few_lines(text: str, most: int = 6) -> str:
    lines = text.strip().splitlines()
    return "\n".join([*lines[:most], "…"] if len(lines) > most else lines)


def _code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def _declared(notebook: Any) -> set[str]:
    """The names that the cell tagged `parameters` assigns."""
    for cell in _code_cells(notebook):
        if "parameters" in cell.metadata.get("tags", []):
            statements = ast.parse(cell.source).body
            plain = [t for s in statements if isinstance(s, ast.Assign) for t in s.targets]
            annotated = [s.target for s in statements if isinstance(s, ast.AnnAssign)]
            return {target.id for target in [*plain, *annotated] if isinstance(target, ast.Name)}
    return set()


def _findings(notebook: Any) -> Iterator[Learned]:
    for cell in _code_cells(notebook):
        for output in cell.outputs:
            if finding := output.get("metadata", {}).get(MARK):
                yield Learned(**finding)


def _stopped_early(notebook: Any) -> str | None:
    """Say so when cells were left unrun: to papermill, a notebook that `sys.exit(0)` ends is a success."""
    cells = _code_cells(notebook)
    unrun = sum(cell.execution_count is None for cell in cells)
    errors = [(cell, output) for cell in cells for output in cell.outputs if output.output_type == "error"]
    if not unrun and not errors:
        return None
    where = "".join(f" at In [{cell.execution_count}] ({output.ename})" for cell, output in errors[:1])
    return f"the notebook stopped early{where}: {unrun} code cells never ran"


def _title(notebook: Any) -> str | None:
    """The first heading."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#+\s+(.+)$", text, flags=re.MULTILINE)
    return heading[1].strip() if heading else None
