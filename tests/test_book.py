"""The notebooks as one book: same symbols, nothing used before it is explained, every hand version checked."""

from __future__ import annotations

import ast
import base64
import json
import re
import struct
from functools import cache
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from spellchecker import SpellChecker

import mlmkit
from mlmkit.syllabus import read_syllabus

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
BUILT = ROOT / "build" / "notebooks"
EVERY = pytest.mark.parametrize("name", NAMES)


@cache
def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def prose(name: str) -> str:
    return "\n\n".join(cell.source for cell in notebook(name).cells if cell.cell_type == "markdown")


def code(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook(name).cells if cell.cell_type == "code"]


@cache
def statements(name: str) -> list[ast.AST]:
    """Every node of every code cell; %magics become calls, as in IPython."""
    cells = [ast.parse(TransformerManager().transform_cell(cell.source)) for cell in code(name)]
    return [node for cell in cells for node in ast.walk(cell)]


def defined(name: str) -> set[str]:
    """What the notebook gives a name to; imports are not definitions."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    functions = {node.name for node in statements(name) if isinstance(node, kinds)}
    stored = {n.id for n in statements(name) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return functions | stored


def imported(name: str) -> set[str]:
    """What the notebook takes from mlmkit; the drawing tools and `learned`, which every notebook uses, do not count."""
    found = [node for node in statements(name) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in found if (node.module or "").split(".")[0] == "mlmkit"]
    drawing = [node for node in ours if node.module.startswith("mlmkit.plots")]
    return {alias.name for node in ours if node not in drawing for alias in node.names} - {"learned"}


def in_backticks(word: str, text: str) -> bool:
    return re.search(rf"`[^`\n]*\b{re.escape(word)}\b[^`\n]*`", text) is not None


def symbols(cell: str) -> set[str]:
    """The formulas of a cell of a table, one by one: "$B, S, H$" and "$\\theta$, $\\hat\\theta$" are several."""
    formulas = re.findall(r"\$([^$]+)\$", cell)
    return {
        re.sub(r"\s|\\[,;!]", "", part)
        for formula in formulas
        for part in re.split(r",(?![^()]*\))(?![^{}]*\})(?!\\)", formula)
    }


@EVERY
def test_a_hand_version_never_takes_the_name_of_the_package_s_own(name: str):
    assert defined(name) & set(mlmkit.__all__) == set()


@EVERY
def test_every_hand_version_is_compared_with_something(name: str):
    nodes = statements(name)
    checks = [node for node in nodes if isinstance(node, ast.Assert)]
    checks += [n for n in nodes if isinstance(n, ast.Call) and re.search(r"\bassert_\w+$", ast.unparse(n.func))]
    text = "\n".join(ast.unparse(check) for check in checks)
    by_hand = {word for word in defined(name) if word.endswith("_by_hand")}
    assert {word for word in by_hand if not re.search(rf"\b{word}\b", text)} == set()


@EVERY
def test_what_is_imported_was_explained_before(name: str):
    explained = read_syllabus(ROOT).explained
    known = {word for earlier in NAMES[: NAMES.index(name) + 1] for word in explained[earlier]}
    assert imported(name) - known == set()


@EVERY
def test_what_is_said_to_be_explained_is_named_in_the_prose(name: str):
    text = prose(name)
    assert [word for word in read_syllabus(ROOT).explained[name] if not in_backticks(word, text)] == []


@EVERY
def test_its_symbols_are_those_of_the_glossary(name: str):
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    known = {s for row in re.findall(r"^\| (\$.*?) \|", glossary, flags=re.M) for s in symbols(row)}
    tables = re.search(r"^## Symbols\n(.*?)(?=^#|\Z)", prose(name), flags=re.M | re.S)
    assert tables, "no section '## Symbols'"
    used = {s for row in re.findall(r"^\| (\$.*?) \|", tables[1], flags=re.M) for s in symbols(row)}
    assert used - known == set()


@EVERY
def test_every_picture_is_also_described_in_words(name: str):
    pictures = sum("image/png" in output.get("data", {}) for cell in code(name) for output in cell.outputs)
    assert len(re.findall(r"^\*Picture: ", prose(name), flags=re.M)) == pictures > 0


@EVERY
def test_no_picture_is_wider_than_the_page(name: str):
    for cell in code(name):
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                width, height = struct.unpack(">II", base64.b64decode(png)[16:24])
                assert 300 <= width <= 1400, f"{cell.id}: {width} pixels"
                assert height <= 1400, f"{cell.id}: {height} pixels"


@EVERY
def test_outputs_show_no_debris(name: str):
    for cell in code(name):
        for output in cell.outputs:
            text = json.dumps({k: v for k, v in output.get("data", {}).items() if k.startswith("text/")})
            text += output.get("text", "")
            debris = re.search(r"(?:/home|/tmp|/work|/usr|/root)/|site-packages|Warning\b|\d+%\|", text)
            assert debris is None, f"{cell.id}: {debris[0]!r}"


@EVERY
def test_it_ends_with_a_summary_and_says_what_to_read_and_where_to_go(name: str):
    text = prose(name)
    parts = [text.find(part) for part in ("## Summary: what you learned", "## Read more", "**Next**: ")]
    assert -1 not in parts
    assert parts == sorted(parts)
    assert re.search(r"^\*Try it: exercise \d\d\.\d+, ", text, flags=re.M)
    if name != NAMES[-1]:
        following = notebook(NAMES[NAMES.index(name) + 1]).cells[0].source.splitlines()[0]
        number, title = re.match(r"# (\d\d) · ([^:]+)", following).groups()
        assert re.search(rf"\*\*Next\*\*: {number},? {re.escape(title)}", text), f"next is {number} {title}"


@EVERY
def test_links_to_other_notebooks_and_pages_lead_somewhere(name: str):
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)", prose(name))
    assert [target for target in targets if not (ROOT / "notebooks" / target).exists()] == []


@EVERY
def test_the_exercises_are_numbered_in_order(name: str):
    numbers = re.findall(r"\bexercise (\d\d)\.(\d+)", prose(name))
    own = [int(k) for chapter, k in numbers if chapter == name[:2]]
    assert sorted(set(own)) == list(range(1, len(set(own)) + 1))


@EVERY
def test_the_time_it_is_said_to_take_is_true(name: str):
    """Against the last `make course`, generously: another machine, or a first time without a cache, takes longer."""
    built = BUILT / f"{name}.ipynb"
    if not built.exists():
        pytest.skip("the course has not been run here: make course")
    run = nbformat.read(built, as_version=4).metadata.get("papermill", {})
    if run.get("parameters", {}).get("preset", "laptop") != "laptop" or not run.get("duration"):
        pytest.skip("the last run of the course was not one of the preset `laptop`")
    first = notebook(name).cells[0].source
    number, unit = re.search(r"\*\*Time\*\*:.*?(\d+) (seconds?|minutes?) to run", first, flags=re.S).groups()
    said = int(number) * (60 if unit.startswith("minute") else 1)
    assert run["duration"] <= 3 * said + 20


WORDS = ROOT / "tests" / "known_words.txt"
PAGES = [
    *(f"notebooks/{name}.ipynb" for name in NAMES),
    "README.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


@cache
def dictionary() -> SpellChecker:
    """English with the words of the field, one a line in tests/known_words.txt."""
    checker = SpellChecker()
    checker.word_frequency.load_words(WORDS.read_text(encoding="utf-8").split())
    return checker


def plain_words(markdown: str) -> set[str]:
    """The words of a text, without code, formulas, links, names of files and pieces of words."""
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", " ", markdown, flags=re.M | re.S)
    text = re.sub(
        r"\$\$.*?\$\$|`[^`]*`|\$[^$\n]*(?:\n[^$\n]+)?\$|\]\([^)]*\)|https?://\S+|<[^>]+>", " ", text, flags=re.S
    )
    text = re.sub(r"##\w+|\[[A-Z]+\]|[\w./-]*\w/\w[\w./-]*|\b\w+(?:[._]\w+)+|\b\w*\d\w*\b", " ", text)
    words = re.findall(r"[A-Za-zÀ-ÿ]+(?:['’][a-z]+)?", text)
    return {re.sub(r"['’]s$|s['’]$", "", word.replace("’", "'")).lower() for word in words if len(word) > 2}


@pytest.mark.parametrize("page", PAGES)
def test_it_is_spelled_as_in_the_dictionary(page: str):
    path = ROOT / page
    text = prose(path.stem) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    assert sorted(dictionary().unknown(plain_words(text))) == []
