"""One notebook, executed with papermill by this very interpreter."""

from __future__ import annotations

import ast
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlmkit.course.findings import Learned, code_cells, read_findings
from mlmkit.course.report import NotebookResult

KERNEL = "python3"


@contextmanager
def this_interpreter(threads: int | None = None) -> Iterator[None]:
    """Let the kernel `python3` be the interpreter that runs this, whatever kernels the user has registered.

    JUPYTER_PATH goes before every other place where kernels are looked for. MPLBACKEND is taken away
    meanwhile, so that pictures are drawn into the notebook. `threads` is what PyTorch takes in the kernels.
    """
    from ipykernel.kernelspec import write_kernel_spec

    saved = {name: os.environ.pop(name, None) for name in ("JUPYTER_PATH", "MPLBACKEND")}
    if threads is not None:
        saved["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        write_kernel_spec(Path(folder) / "kernels" / KERNEL, extra_arguments=["--log-level=CRITICAL"])
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, saved["JUPYTER_PATH"]]))
        try:
            yield
        finally:
            for name in saved:
                os.environ.pop(name, None)
            os.environ.update({name: value for name, value in saved.items() if value is not None})


def run_notebook(path: Path, executed: Path, parameters: Mapping[str, object]) -> NotebookResult:
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
        findings = tuple(read_findings(done))
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
            request_save_on_cell_execute=False,  # saving after each cell took a fifth of the time
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


def _declared(notebook: Any) -> set[str]:
    """The names that the cell tagged `parameters` assigns."""
    for cell in code_cells(notebook):
        if "parameters" in cell.metadata.get("tags", []):
            statements = ast.parse(cell.source).body
            plain = [t for s in statements if isinstance(s, ast.Assign) for t in s.targets]
            annotated = [s.target for s in statements if isinstance(s, ast.AnnAssign)]
            return {target.id for target in [*plain, *annotated] if isinstance(target, ast.Name)}
    return set()


def _stopped_early(notebook: Any) -> str | None:
    """Say so when cells were left unrun: to papermill, a notebook that `sys.exit(0)` ends is a success."""
    cells = code_cells(notebook)
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
