"""The check of a task inside a notebook: instant, friendly, in the learner's own process.

It draws fresh inputs, compares with the same code as the judge, and remembers what was passed. Marks are given by
`mlmkit grade`, which runs a submission behind walls; a learner who cheats here cheats nobody else.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlmkit.errors import UserError
from mlmkit.grading.plain import PlainError
from mlmkit.grading.remembering import hints_shown, remember, remember_hint, remember_learner, remembered_learner
from mlmkit.grading.sets import task_named
from mlmkit.grading.tasks import CapstoneTask, CodeTask, ConceptTask, Inputs, Task
from mlmkit.grading.verdict import Reply, Verdict, as_plain, call, judge_answer, judge_code

PACKAGE = Path(__file__).resolve().parents[1]
LABEL = re.compile(r"^(✗ .*|input:|expected:|got:|likely cause:)")
BOX = "border-left: 4px solid #2da44e; background: rgba(45, 164, 78, 0.12); padding: 0.4em 0.8em"
OWN_CODE = "{0} calls mlmkit.{1}: the task asks for your own code, and earns nothing without it"


class _Told(Exception):
    """An error of which a notebook shows only the message, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        lines = str(self).splitlines()
        return [LABEL.sub("\033[1m\\g<0>\033[0m", line) for line in lines] if _in_notebook() else lines


class CheckFailed(_Told, AssertionError):
    """A check that failed."""


class NotAnswered(_Told, NotImplementedError):
    """A check of what is not written yet."""


class Passed:
    """That a task was passed: a box in a notebook, plain text elsewhere.

    >>> Passed(["✓ 01.1 Size: passed, 2 points", "`n` is < 3."])
    ✓ 01.1 Size: passed, 2 points
    `n` is < 3.
    >>> "<div><code>n</code> is &lt; 3.</div>" in Passed(["✓", "`n` is < 3."])._repr_html_()
    True
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        from mlmkit.grading.report import in_html

        first, *more = map(in_html, self.lines)
        inner = "".join([f"<strong>{first}</strong>", *(f"<div>{line}</div>" for line in more)])
        return f'<div class="mlmkit-passed" style="{BOX}">{inner}</div>'


def learner(name: str) -> None:
    """Say who you are: the numbers in your questions are drawn from this name.

    Args:
        name: as your instructor knows you. It is remembered for the other exercise notebooks.
    """
    remember_learner(name)


def ask(task_id: str) -> None:
    """Show the question of a task, with your own numbers.

    Raises:
        UserError: there is no such task, or it is a function to write.
    """
    task = task_named(task_id)
    if not isinstance(task, ConceptTask):
        raise UserError(f"task {task.id} asks for {task.answer_name}, and has no question")
    question = task.question(remembered_learner())
    _display(f"{question.text}\n\n*Answer*: `{task.answer_name} = …`, {question.form}.")


def check(task_id: str, answer: Any) -> None:
    """Check an answer: print that it passed, or say what is wrong.

    Args:
        task_id: "03.9".
        answer: your function, or the value of your answer.

    Raises:
        NotAnswered: there is no answer yet; it is a NotImplementedError.
        CheckFailed: the answer is wrong; the message says which input, what was expected, what came, and what is the
            likely cause.
    """
    task = task_named(task_id)
    verdict = _verdict(task, answer)
    remember(task.id, verdict.passed)
    if verdict.status == "not written":
        told = verdict.problem.split(f"Task {task.id}: ")[-1]  # a stub says which task it stands for
        raise NotAnswered(f"Task {task.id}: {told}")
    if not verdict.passed:
        tip = f'stuck? hint("{task.id}")' if isinstance(task, CodeTask) else ""
        raise CheckFailed("\n".join([f"✗ {task.id} {task.title}: not yet", *verdict.lines(), tip]).strip())
    points = f"{task.points} point{'s' if task.points > 1 else ''}"
    _show(Passed([f"✓ {task.id} {task.title}: passed, {points}", *verdict.lines()]))


def _verdict(task: Task, answer: Any) -> Verdict:
    if isinstance(task, CapstoneTask):
        return _of_capstone(answer)
    if isinstance(task, ConceptTask):
        try:
            return judge_answer(task, remembered_learner(), None if answer is None else as_plain(answer))
        except PlainError as error:
            return Verdict("wrong", f"the answer cannot be read: {error}")
    if not callable(answer):
        return Verdict("missing", f"check wants the function {task.function} itself, and got {type(answer).__name__}")
    inputs = task.inputs(seed=None)
    replies, borrowed = _replies(answer, inputs)
    if borrowed:
        return Verdict("own code", OWN_CODE.format(task.function, borrowed))
    return judge_code(task, inputs, replies)


def _of_capstone(answer: Any) -> Verdict:
    """What a model that the learner trained is worth."""
    from mlmkit.grading.capstone import Trained, measure

    if answer is None:
        return Verdict("not written", "no model yet: trained = train(…)")
    if not isinstance(answer, Trained):
        return Verdict("wrong", f"check wants what train returns, and got {type(answer).__name__}")
    result = measure(answer.weights, answer.seed)
    if result.share > 0.99:
        return Verdict("passed", why=result.explain())
    return Verdict("partly", f"{result.share:.0%} of the points: {result.explain()}", share=result.share)


def _replies(function: Callable[..., Any], inputs: list[Inputs]) -> tuple[list[Reply], str]:
    """Call the function on all inputs; name the first function of mlmkit that it called, if any."""
    borrowed: list[str] = []

    def watch(frame: Any, event: str, argument: object) -> None:
        if event == "call" and not borrowed:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / "grading"):
                module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
                borrowed.append(f"{module}.{frame.f_code.co_name}")

    before = sys.getprofile()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        return [call(function, given) for given in inputs], "".join(borrowed)
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def hint(task_id: str) -> None:
    """Show the next hint of a coding task: each call shows one more, up to three.

    Raises:
        UserError: there is no such task, or it has no hints.
    """
    task = task_named(task_id)
    if not isinstance(task, CodeTask):
        raise UserError(f"task {task.id} has no hints: a wrong answer is explained by check")
    shown = min(hints_shown(task.id) + 1, len(task.hints))
    remember_hint(task.id, shown)
    numbered = enumerate(task.hints[:shown], 1)
    _display("\n\n".join(f"**Hint {number} of {len(task.hints)}**: {text}" for number, text in numbered))


def _display(markdown: str) -> None:
    """Show Markdown in a notebook."""
    from IPython.display import Markdown

    _show(Markdown(markdown))


def _show(value: object) -> None:
    from IPython.display import display

    display(value)


def _in_notebook() -> bool:
    from IPython import get_ipython

    return get_ipython() is not None
