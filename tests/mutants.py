"""Mutants of the solutions: programs that differ in one place, nearly all of which a good check must refuse.

`python -m tests.mutants 03` lists the survivors of exercise set 03.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import torch  # noqa: F401 - before an alarm can interrupt its import

from mlmkit.grading.sets import MODULES, task_set
from mlmkit.grading.tasks import CodeTask
from mlmkit.grading.verdict import Reply, call, judge_code

ROOT = Path(__file__).resolve().parents[1]

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATIONS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "zeros": "ones", "ones": "zeros", "floor": "ceil",
    "argmax": "argmin", "argmin": "argmax", "zeros_like": "ones_like", "ones_like": "zeros_like", "log": "log2",
    "minimum": "maximum", "maximum": "minimum", "sum": "max", "mean": "sum", "cumsum": "cumprod",
}  # fmt: skip
SECONDS = 5


@dataclass(frozen=True)
class Mutant:
    """A changed program, and what was changed."""

    what: str
    source: str


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What one node of the program may become."""
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            if type(op) in COMPARISONS:
                new = copy.deepcopy(node)
                new.ops[place] = COMPARISONS[type(op)]()
                yield "comparison", new
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATIONS:
        new = copy.deepcopy(node)
        new.op = OPERATIONS[type(node.op)]()
        yield "operation", new
    elif isinstance(node, ast.BoolOp):
        new = copy.deepcopy(node)
        new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", new
    elif isinstance(node, ast.UnaryOp):
        yield "sign dropped", node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                new = copy.deepcopy(node)
                setattr(new, bound, None)
                yield f"slice without {bound}", new
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        for value in (True, False):
            if isinstance(node, ast.While) and value:
                continue
            new = copy.deepcopy(node)
            new.test = ast.Constant(value)
            yield f"condition always {value}", new
    elif isinstance(node, ast.Call) and node.keywords:
        for place, keyword in enumerate(node.keywords):
            new = copy.deepcopy(node)
            del new.keywords[place]
            yield f"without {keyword.arg}=", new
    yield from _renamed(node)


def _constants(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "flipped", ast.Constant(not value)
    elif isinstance(value, int | float):
        yield "one more", ast.Constant(value + 1)
        yield "one less", ast.Constant(value - 1)


def _renamed(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NAMES:
        yield "function", ast.Name(NAMES[node.id], ast.Load())
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        new = copy.deepcopy(node)
        new.attr = NAMES[node.attr]
        yield "function", new


def _statements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """A statement that is left out, or a result that is not returned."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Continue | ast.Break) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    ):
        yield "statement left out", ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "nothing returned", ast.Return(None)


class _Replace(ast.NodeTransformer):
    def __init__(self, target: int, new: ast.AST) -> None:
        self.target, self.new, self.count = target, new, -1

    def visit(self, node: ast.AST) -> Any:
        self.count += 1
        if self.count == self.target:
            return ast.copy_location(self.new, node)
        return super().generic_visit(node)


def _in_order(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes in the order in which a transformer visits them."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from _in_order(child)


def mutants(source: str) -> list[Mutant]:
    """All programs that differ from `source` in one place."""
    tree = ast.parse(source)
    found: dict[str, Mutant] = {}
    original = ast.unparse(tree)
    for place, node in enumerate(_in_order(tree)):
        for what, new in [*_changes(node), *_statements(node)]:
            changed = _Replace(place, new).visit(copy.deepcopy(tree))
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text != original and text not in found:
                line = getattr(node, "lineno", 0)
                found[text] = Mutant(f"{what}, line {line}: {ast.unparse(node)[:60]} → {ast.unparse(new)[:60]}", text)
    return list(found.values())


class TooLong(BaseException):
    """A mutant that does not come to an end."""


def _ring(*_: object) -> None:
    raise TooLong


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TooLong` after some seconds."""
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def solution_cells(name: str) -> dict[str, str]:
    """Source of all code cells of an exercise set but asks and checks, by the id of the cell."""
    notebook = nbformat.read(ROOT / "exercises" / "source" / name / f"{name}.ipynb", as_version=4)
    return {
        cell.id: re.sub(r"^\s*### (BEGIN|END) SOLUTION.*\n?", "", cell.source, flags=re.M)
        for cell in notebook.cells
        if cell.cell_type == "code" and not cell.id.startswith(("ask", "check", "learner"))
    }


def survives(task: CodeTask, before: str, source: str, seed: int) -> bool:
    """Whether the check accepts a program."""
    inputs = task.inputs(seed)
    namespace: dict[str, Any] = {"__name__": "mutant"}
    replies: list[Reply] = []
    try:
        with at_most(SECONDS), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            exec(compile(before + "\n" + source, "mutant", "exec"), namespace)
            replies = [call(namespace[task.function], given) for given in inputs]
    except (TooLong, Exception):
        return False
    return judge_code(task, inputs, replies).passed


def survivors(name: str, seed: int = 0) -> dict[str, tuple[int, list[Mutant]]]:
    """For each coding task of a set: how many mutants were tried, and which the check accepts."""
    cells = solution_cells(name)
    result = {}
    for task in task_set(name).tasks:
        if isinstance(task, CodeTask):
            key = f"answer-{task.id.replace('.', '-')}"
            before = "\n".join(source for cell, source in cells.items() if cell.startswith("setup"))
            earlier = [source for cell, source in cells.items() if cell.startswith("answer") and cell < key]
            before = "\n".join([before, *earlier])
            assert survives(task, before, cells[key], seed), f"{task.id}: the solution itself does not pass"
            tried = mutants(cells[key])
            result[task.id] = len(tried), [m for m in tried if survives(task, before, m.source, seed)]
    return result


if __name__ == "__main__":
    import numpy as np

    np.seterr(all="ignore")
    total = lived = 0
    for wanted in sys.argv[1:] or MODULES:
        for task_id, (tried, alive) in survivors(task_set(wanted).name).items():
            total, lived = total + tried, lived + len(alive)
            print(f"{task_id}: {tried - len(alive)} of {tried} refused")
            for mutant in alive:
                print("   survives:", mutant.what)
    print(f"{(total - lived) / max(total, 1):.1%} of {total} refused")
