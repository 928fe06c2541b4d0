"""A submission: a notebook that a learner handed in, read as data. Nothing of it is executed here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmkit.errors import UserError
from mlmkit.grading.sets import MODULES

MAX_BYTES = 20_000_000
SKIPPED = re.compile(r"^(ask|check)-")
GRADE_ID = re.compile(r"^(?:ask|answer|check|text)-(\d\d)-\d+$")


@dataclass(frozen=True)
class Submission:
    """What one learner handed in for one exercise set.

    Attributes:
        path: of the notebook.
        learner: whose it is: the name of the folder (or of the file) it came in.
        set_name: of the exercise set, "03_corruption_80_10_10".
        cells: source of the code cells that are run, in order, free of notebook magic.
        digest: of the file, to see whether it changed.
        fault: why it cannot be read, if so.
    """

    path: Path
    learner: str
    set_name: str
    cells: tuple[str, ...] = ()
    digest: str = ""
    fault: str = ""


def find_submissions(paths: Iterable[Path | str]) -> list[Submission]:
    """Read notebooks, and folders of notebooks.

    The learner's name is the first of these that is not the name of an exercise set: the file, its folder, the folder
    above. So these all belong to ada: `ada/03_corruption_80_10_10/03_corruption_80_10_10.ipynb` (as nbgrader collects
    them), `ada/03_corruption_80_10_10.ipynb`, `03_corruption_80_10_10/ada.ipynb`.

    Raises:
        UserError: a path does not exist, or there is no exercise notebook among them.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} does not exist: give notebooks, or folders of notebooks")
        found = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        files += [file for file in found if ".ipynb_checkpoints" not in file.parts]
    submissions = [submission for file in dict.fromkeys(files) if (submission := read_submission(file)) is not None]
    if not submissions:
        raise UserError(f"no exercise notebook among {', '.join(map(str, paths))}")
    return submissions


def read_submission(path: Path, learner: str | None = None) -> Submission | None:
    """Read one notebook; None if it is no exercise notebook (neither by its names nor by its cells).

    Args:
        path: of the notebook.
        learner: whose it is; None: told from the path.
    """
    parts = [path.stem, *(folder.name for folder in path.absolute().parents)]
    learner = learner or next((part for part in parts if part not in MODULES), "")
    named = next((part for part in parts[:3] if part in MODULES), None)
    fault, digest, cells = "", "", []
    try:
        if path.is_symlink():
            raise ValueError("it is a link to another file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"the file has more than {MAX_BYTES:,} bytes")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        cells = [cell for cell in json.loads(data)["cells"] if isinstance(cell, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        fault = f"the notebook cannot be read: {type(error).__name__}: {str(error)[:200]}"
    named = named or _set_of(cells)
    if named is None:
        return None
    return Submission(path, learner, named, tuple(_code(cells)), digest, fault)


def _grade_id(cell: dict[str, Any]) -> str:
    metadata = cell.get("metadata")
    grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return str(grading.get("grade_id", "")) if isinstance(grading, dict) else ""


def _set_of(cells: list[dict[str, Any]]) -> str | None:
    """The set whose tasks a notebook holds, by the ids of its cells."""
    for cell in cells:
        if found := GRADE_ID.match(_grade_id(cell)):
            return next((name for name in MODULES if name.startswith(found[1] + "_")), None)
    return None


def _code(cells: list[dict[str, Any]]) -> list[str]:
    sources = []
    for cell in cells:
        if cell.get("cell_type") != "code":
            continue
        if SKIPPED.match(_grade_id(cell)):
            sources.append("")  # an empty one, so that the cells keep their numbers
            continue
        source = cell.get("source", "")
        text = "".join(map(str, source)) if isinstance(source, list) else str(source)
        sources.append(without_magic(text))
    return sources


def without_magic(source: str) -> str:
    """A code cell without what only a notebook understands: `%magic`, `!shell`, `help?`.

    >>> without_magic("%matplotlib inline\\nx = 3 % 2")
    'pass\\nx = 3 % 2'
    """
    if source.lstrip().startswith("%%"):
        return ""
    lines = []
    for line in source.splitlines():
        magic = re.match(r"^(\s*)([%!?]|[\w.]+\?{1,2}\s*$)", line)
        lines.append(f"{magic[1]}pass" if magic else line)
    return "\n".join(lines)
