"""The notebooks as they are committed: each has its parts, and the outputs of one run from top to bottom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
PARAMETERS = {"preset", "device", "seed", "out_dir"}

if not PATHS:
    pytest.skip("the folder notebooks/ has no notebooks", allow_module_level=True)


@pytest.fixture(scope="module", params=PATHS, ids=[path.stem for path in PATHS])
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def syntax(cell: nbformat.NotebookNode) -> ast.Module:
    """The cell as Python; %magics and !commands become function calls, as in IPython."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def test_it_is_a_valid_notebook_for_the_kernel_that_every_jupyter_has(notebook: nbformat.NotebookNode):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_the_first_cell_says_what_it_is_what_one_will_be_able_to_do_and_how_long_it_takes(
    notebook: nbformat.NotebookNode,
):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source), "the first line must be the title"
    assert "you will be able to" in first.source.lower()
    assert re.search(r"\d+\s*(min|minute|second|s)s?\b", first.source), "say how long it takes"


def test_the_second_cell_holds_the_parameters(notebook: nbformat.NotebookNode):
    second = notebook.cells[1]
    assert second.cell_type == "code"
    assert "parameters" in second.metadata.get("tags", [])
    targets = [target for node in ast.walk(syntax(second)) if isinstance(node, ast.Assign) for target in node.targets]
    assert {target.id for target in targets if isinstance(target, ast.Name)} >= PARAMETERS
    tagged = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1


def test_it_was_run_once_from_top_to_bottom(notebook: nbformat.NotebookNode):
    cells = code(notebook)
    assert all(cell.source.strip() for cell in cells), "an empty code cell"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_no_output_is_an_error_or_was_written_to_stderr(notebook: nbformat.NotebookNode):
    for cell in code(notebook):
        assert "raises-exception" not in cell.metadata.get("tags", [])
        for output in cell.outputs:
            assert output.output_type != "error", f"{output.ename}: {output.evalue}"
            assert output.get("name") != "stderr", output.text


def test_it_checks_what_it_claims(notebook: nbformat.NotebookNode):
    statements = [node for cell in code(notebook) for node in ast.walk(syntax(cell))]
    checks = [node for node in statements if isinstance(node, ast.Assert)]
    called = {getattr(node.func, "attr", None) for node in statements if isinstance(node, ast.Call)}
    assert checks or called & {"assert_close", "assert_allclose", "assert_array_equal"}
