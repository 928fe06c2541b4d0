"""The cells of a notebook and the calls of a function in them: what a worker does with a submission.

Only the standard library is imported, and nothing of mlmkit: the file is loaded by its path where mlmkit is not to be
seen. What cells find under that name is a stand-in.
"""

from __future__ import annotations

import builtins
import contextlib
import linecache
import os
import random
import sys
import tempfile
import traceback
from types import ModuleType
from typing import Any

OUT_OF_MEMORY = 71
"""Exit status of a worker whose submission wanted more memory than it may have."""

NOT_THERE = "mlmkit is not there when work is marked: the task asks for your own code"


class _Refusal:
    """Import hook: the course's own package is not there."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "mlmkit" or name.startswith("mlmkit."):
            raise ModuleNotFoundError(NOT_THERE, name=name)


class _Grading(ModuleType):
    """Stands for `mlmkit.grading`, which cells import: all of it does nothing, but the learner's name is kept."""

    name: str | None = None

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return self._learner if attribute == "learner" else lambda *arguments, **keywords: None

    def _learner(self, name: object = None, *arguments: object, **keywords: object) -> None:
        self.name = str(name)[:200]


class Submission:
    """The cells of a notebook in a module of their own.

    Args:
        cells: their sources.
        plain: the module of that name.
        stand_in: whether what they import as mlmkit.grading does nothing.
    """

    def __init__(self, cells: list[str], plain: ModuleType, stand_in: bool = True) -> None:
        self.cells, self.plain, self.stand_in = cells, plain, stand_in
        self.module = ModuleType("__main__")
        self.grading = _Grading("mlmkit.grading")

    def run(self) -> list[tuple[int, str]]:
        """Run every cell, one that raises not stopping the next; the numbers (from 1) and errors of those."""
        errors = []
        sys.modules["__main__"] = self.module
        if self.stand_in:
            sys.modules["mlmkit.grading"] = self.grading
        self.module.__dict__.update({"__builtins__": builtins, "display": lambda *shown, **options: None})
        for number, source in enumerate(self.cells, 1):
            linecache.cache[f"<cell {number}>"] = (len(source), None, source.splitlines(True), f"<cell {number}>")
        for number, source in enumerate(self.cells, 1):
            try:
                exec(compile(source, f"<cell {number}>", "exec"), self.module.__dict__)
            except BaseException as error:
                errors.append((number, _told(error)))
        return errors

    def answer(self, name: str, arguments: Any) -> bytes:
        """Call the function with encoded arguments, or, without any, give the variable: one line for the judge."""
        if name not in self.module.__dict__:
            return self.line({"kind": "missing"})
        found = self.module.__dict__[name]
        if arguments is not None and not callable(found):
            return self.line({"kind": "not callable"})
        try:
            value = found if arguments is None else found(**self.plain.decode(arguments, live=True))
            return self.line({"kind": "value", "value": value})
        except BaseException as error:
            return self.line({"kind": "error", "error": _told(error), "where": self._where(error)})

    def line(self, message: dict[str, Any]) -> bytes:
        """Write a message as one line; ValueError if it is too long for one."""
        line: bytes = self.plain.dumps(message)
        if len(line) > self.plain.MAX_BYTES:
            raise ValueError(f"the answer takes {len(line):,} bytes; {self.plain.MAX_BYTES:,} are allowed")
        if line.count(b",") > self.plain.MAX_ITEMS:
            raise ValueError(f"the answer has more than {self.plain.MAX_ITEMS:,} items")
        return line

    def _where(self, error: BaseException) -> str:
        """Find the innermost line of the learner's that the error passed through."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename.startswith("<cell "):
                return f"{frame.filename[1:-1]}, line {frame.lineno}: {(frame.line or '')[:200]}"
        if isinstance(error, SyntaxError):
            return f"line {error.lineno}"
        return ""


def _told(error: BaseException) -> str:
    """Write the last line of a traceback, and leave at once if the reason is that memory is exhausted."""
    if isinstance(error, MemoryError):
        os._exit(OUT_OF_MEMORY)
    try:
        text = str(error)[:500]
    except BaseException:
        text = "(an error that cannot be shown)"
    if isinstance(error, RuntimeError) and "can't allocate memory" in text:  # torch's way of saying it
        os._exit(OUT_OF_MEMORY)
    if isinstance(error, SyntaxError):
        text = f"{error.msg} ({str(error.filename).strip('<>')}, line {error.lineno})"
    name = type(error).__name__[:80]
    return f"{name}: {text}" if text else name


def _no_input(*arguments: object) -> str:
    raise RuntimeError("input() has nobody to ask when work is marked: write the value into the cell")


def _stream(number: int, mode: str) -> Any:
    return open(number, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def clean(folder: str, package: str | None) -> None:
    """Take from the process what a submission has no business with.

    Args:
        folder: that may be written to.
        package: the folder of mlmkit, if it may be imported.
    """
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MPLBACKEND": "agg", "MPLCONFIGDIR": folder})
    os.environ.update({"TMPDIR": folder, "TEMP": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    sys.argv[:], sys.orig_argv[:] = ["submission"], ["submission"]
    tempfile.tempdir = folder
    builtins.input = _no_input
    if package is None:
        sys.meta_path.insert(0, _Refusal)
    else:
        sys.path.append(os.path.dirname(package))
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w"), _stream(2, "w")


def seed() -> None:
    """Let what a submission draws without a seed of its own be the same each time."""
    random.seed(0)
    for name in ("numpy", "torch"):
        if name in sys.modules:
            module = sys.modules[name]
            module.random.seed(0) if name == "numpy" else module.manual_seed(0)


def flush() -> None:
    """Send off what was printed, whatever a submission made of the streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
