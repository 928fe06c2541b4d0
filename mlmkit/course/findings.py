"""What a notebook found: stated with `learned`, read back from the executed copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

MARK = "mlmkit_learned"
"""Key in an output's metadata under which `learned` leaves its finding; nbval and JupyterLab pass over it."""


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


def code_cells(notebook: Any) -> list[Any]:
    """All cells with code in them."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def read_findings(notebook: Any) -> Iterator[Learned]:
    """What an executed notebook has stated, in order."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if finding := output.get("metadata", {}).get(MARK):
                yield Learned(**finding)
