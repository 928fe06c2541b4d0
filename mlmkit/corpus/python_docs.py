"""`python-docs`: the English prose that Python and this course's libraries carry on the reader's disk.

The files are parsed, never imported: an import may print, open a shell or start a browser.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.metadata
import importlib.util
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlmkit.corpus.prose import paragraphs, prose_lines
from mlmkit.corpus.sentences import prose_sentences
from mlmkit.corpus.store import RawDocument

PACKAGES = ("IPython", "matplotlib", "numpy", "scipy", "torch")

SKIPPED_FOLDERS = frozenset(
    "site-packages dist-packages test tests idlelib lib2to3 tkinter distutils ensurepip turtledemo "
    "_vendor vendor vendored _vendored third_party extern externals _external _internal array_api_compat "
    "array_api_extra".split()
)
"""Copies of other packages, tests, and parts of the standard library that some distributions leave out."""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of installed packages; torch's "+cpu" is left out, since the docstrings are the same."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name).partition("+")[0]
    return found


def python_docs() -> Iterator[RawDocument]:
    """One raw document for each docstring and help topic, in the order of the sorted files."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    yield from help_topics(standard / "pydoc_data" / "topics.py")
    yield from package_docs("python", standard)
    for name in PACKAGES:
        folder = package_folder(name)
        if folder is not None:
            yield from package_docs(name, folder)


def package_folder(name: str) -> Path | None:
    """Where a top-level package lies; it is located, not imported."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def package_docs(name: str, folder: Path) -> Iterator[RawDocument]:
    """The docstrings of all modules under a folder."""
    files = [path for path in folder.rglob("*.py") if not _skipped(path.relative_to(folder))]
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        module = f"{name}/{path.relative_to(folder).as_posix()}"
        tree = parse(path)
        for qualified, text in docstrings(tree) if tree else ():
            source = f"{module}:{qualified}" if qualified else module
            yield RawDocument(source, module, prose(text))


def _skipped(relative: Path) -> bool:
    return any(part in SKIPPED_FOLDERS or part.startswith("config-") for part in relative.parts[:-1])


def help_topics(path: Path) -> Iterator[RawDocument]:
    """The texts behind `help("with")`: a dictionary literal in the standard library."""
    tree = parse(path) if path.exists() else None
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Dict):
            for name, text in ast.literal_eval(node).items():
                yield RawDocument(f"python/topics:{name}", f"topics:{name}", prose(text))


def parse(path: Path) -> ast.Module | None:
    """The syntax tree of a file; None where the syntax is not this Python's.

    A tree has no cycles, so the garbage collector rests meanwhile: it would take a third of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    finally:
        if collecting:
            gc.enable()


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(qualified name, text) of every docstring in a module, in source order.

    >>> list(docstrings(ast.parse('class A:\\n    "One."\\n    def f(self):\\n        "Two."')))
    [('A', 'One.'), ('A.f', 'Two.')]
    """
    yield from _visit(tree.body, "")


def _visit(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _visit(node.body, f"{owner}.{node.name}" if owner else node.name)
        elif isinstance(node, (ast.Expr, ast.Assign)):
            for text in _texts(node):
                yield owner, text
        else:
            for block in ("body", "orelse", "finalbody"):
                yield from _visit(getattr(node, block, []), owner)


def _texts(node: ast.Expr | ast.Assign) -> Iterator[str]:
    """Strings that are documentation: bare ones, in `add_newdoc(…)`, `_add_docstr(…)`, `some_doc = …`."""
    value = node.value
    if isinstance(value, ast.Constant):
        if isinstance(value.value, str) and (isinstance(node, ast.Expr) or _names_documentation(node.targets)):
            yield value.value
    elif isinstance(value, ast.Call) and _is_doc_call(value.func):
        for child in ast.walk(value):
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and "\n" in child.value:
                yield child.value


def _names_documentation(targets: list[ast.expr]) -> bool:
    return any(isinstance(target, ast.Name) and "doc" in target.id.lower() for target in targets)


def _is_doc_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return "newdoc" in name or "docstr" in name


def prose(text: str) -> list[list[str]]:
    """The paragraphs of a docstring, each a list of sentences; empty paragraphs are left out."""
    found = (prose_sentences(paragraph) for paragraph in paragraphs(prose_lines(text)))
    return [sentences for sentences in found if sentences]
