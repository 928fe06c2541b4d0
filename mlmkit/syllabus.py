"""What the course teaches, and where: concept → section of a notebook → functions → tasks.

The table is kept by hand in `exercises/syllabus.yml`; tests hold it against the notebooks and the package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmkit.errors import UserError

FILE = Path("exercises") / "syllabus.yml"


@dataclass(frozen=True)
class Section:
    """Heading of a notebook."""

    notebook: str
    heading: str

    def __str__(self) -> str:
        """Number of the notebook, and the heading.

        >>> print(Section("02_masking_math", "1 · A(x) and x̄"))
        02 §1 A(x) and x̄
        """
        return f"{self.notebook[:2]} " + re.sub(r"^(\d+) · ", r"§\1 ", self.heading)


@dataclass(frozen=True)
class Concept:
    """A row of the syllabus.

    Args:
        id: "C01" … "C31".
        title: what is taught, in one line.
        sections: where it is taught.
        functions: dotted names of what computes it, or of the experiment that shows it; none for an idea that is
            only told.
        tasks: graded exercises that test it, as "02.3".
    """

    id: str
    title: str
    sections: tuple[Section, ...]
    functions: tuple[str, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Syllabus:
    """The whole table.

    Args:
        concepts: in the order of their ids.
        explained: names of the package that a notebook explains, by notebook.
    """

    concepts: tuple[Concept, ...]
    explained: Mapping[str, tuple[str, ...]]

    def to_markdown(self, base: str = "") -> str:
        """The table of concepts, for a page from which the root of the course is reached by `base`, as "../"."""
        rows = ["| concept | where it is taught | what computes it | exercises |", "|---|---|---|---|"]
        for concept in self.concepts:
            where = "<br>".join(
                f"[{section}]({base}notebooks/{section.notebook}.ipynb)" for section in concept.sections
            )
            functions = ", ".join(f"`{name.removeprefix('mlmkit.')}`" for name in concept.functions) or "–"
            rows.append(
                f"| **{concept.id}** {concept.title} | {where} | {functions} | {', '.join(concept.tasks) or '–'} |"
            )
        return "\n".join(rows) + "\n"


def read_syllabus(root: Path | str = ".") -> Syllabus:
    """Read `exercises/syllabus.yml` below the root of the course.

    Raises:
        UserError: there is no such file, or a row lacks a part.
    """
    import yaml

    path = Path(root) / FILE
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {FILE.as_posix()} here: change to a copy of the course") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error
    try:
        concepts = tuple(_concept(name, row) for name, row in data["concepts"].items())
        explained = {notebook: tuple(names) for notebook, names in data["explained"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: a row needs title, sections, functions and tasks ({error})") from error
    return Syllabus(concepts, explained)


def _concept(name: str, row: Mapping[str, Any]) -> Concept:
    sections = tuple(Section(notebook, heading) for notebook, heading in row["sections"])
    return Concept(name, row["title"], sections, tuple(row["functions"]), tuple(row["tasks"]))


def syllabus_page(syllabus: Syllabus) -> str:
    """The page docs/syllabus.md."""
    return (
        "# What is taught, and where\n\n"
        "Made by `make syllabus` from `exercises/syllabus.yml`. The functions are those of the package `mlmkit`; the\n"
        "exercises grade themselves, and stand in [exercises/release](../exercises/release).\n\n"
        f"{syllabus.to_markdown('../')}"
    )
