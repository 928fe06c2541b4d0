"""What came of the notebooks, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlmkit.course.findings import Learned

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


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
    """What came of all notebooks, in the order in which they were chosen, and how long it took in all."""

    results: tuple[NotebookResult, ...]
    seconds: float = 0.0

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
        console.print(f"\n{passed} of {len(self.results)} notebooks ran to their end in {self.seconds:.0f} s.")

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
