"""The verdict on an answer, and what a learner reads about it. All of it is computed on the judge's side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlmkit.grading.comparing import difference, shown
from mlmkit.grading.plain import PlainError, dumps, loads
from mlmkit.grading.questions import is_right
from mlmkit.grading.tasks import Call, CodeTask, ConceptTask, Inputs, Mistake

Status = Literal["passed", "partly", "wrong", "raised", "not written", "missing", "own code", "timed out", "stopped"]


@dataclass(frozen=True)
class Reply:
    """What one call of a submission gave: plain data, or the error that it raised, as text."""

    value: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What is told about one task.

    Args:
        status: "passed", or what kind of failure it is.
        problem: what is wrong, in one sentence with the numbers.
        inputs: the input that shows it, as text.
        expected: the right result for it.
        got: the learner's result for it.
        cause: the misconception that leads to exactly these results.
        why: why the right answer is right (of a question that was answered).
        share: of the points, where a part of them can be earned.
    """

    status: Status
    problem: str = ""
    inputs: str = ""
    expected: str = ""
    got: str = ""
    cause: str = ""
    why: str = ""
    share: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the points are given."""
        return self.status == "passed"

    @property
    def earned(self) -> float:
        """Share of the points that is given."""
        return 1.0 if self.passed else self.share

    def lines(self) -> list[str]:
        """The message to a learner, line by line."""
        rows = [("input", self.inputs), ("expected", self.expected), ("got", self.got), ("likely cause", self.cause)]
        return [text for text in (self.problem, self.why) if text] + [f"{name}: {text}" for name, text in rows if text]


def judge_code(task: CodeTask, inputs: Sequence[Inputs], replies: Sequence[Reply]) -> Verdict:
    """Compare the results of a learner's function with the right ones.

    Args:
        task: what was asked.
        inputs: of each call.
        replies: of each call, in the same order.
    """
    for given, reply in zip(inputs, replies, strict=True):
        if reply.error is not None:
            status: Status = "not written" if reply.error.startswith("NotImplementedError") else "raised"
            return Verdict(status, f"{task.function} raised {reply.error}", inputs=shown(given))
    if task.verify is not None:
        problem = _verified(task.verify, [Call(given, r.value) for given, r in zip(inputs, replies, strict=True)])
        return Verdict("passed") if problem is None else Verdict("wrong", problem)
    for given, reply in zip(inputs, replies, strict=True):
        expected = as_plain(task.reference(**live(given)))
        problem = difference(expected, reply.value, task.tolerance)
        if problem is not None:
            cause = _likely_cause(task, inputs, replies)
            return Verdict("wrong", problem, shown(given), shown(expected), shown(reply.value), cause)
    return Verdict("passed")


def _verified(verify: Callable[[Sequence[Call]], str | None], calls: Sequence[Call]) -> str | None:
    """What `verify` says; results that it cannot even compute with have another form than was asked for."""
    try:
        return verify(calls)
    except Exception as error:
        return f"the results are not of the form that was asked for ({type(error).__name__}): {shown(calls[0].got)}"


def _likely_cause(task: CodeTask, inputs: Sequence[Inputs], replies: Sequence[Reply]) -> str:
    """The explanation of the first known mistake that gives exactly these results."""
    for mistake in task.mistakes:
        if all(_agrees(mistake, task, given, reply) for given, reply in zip(inputs, replies, strict=True)):
            return mistake.says
    return ""


def _agrees(mistake: Mistake, task: CodeTask, given: Inputs, reply: Reply) -> bool:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # a division by 0 in a wrong solution is not the learner's
            value = as_plain(mistake.answer(**live(given)))
    except Exception:  # a wrong solution may fail in any way on an input that it was not made for
        return False
    return difference(value, reply.value, task.tolerance) is None


def judge_answer(task: ConceptTask, learner: str, answer: Any) -> Verdict:
    """Judge the answer to a learner's own question.

    Args:
        task: what was asked.
        learner: whose question it is.
        answer: as plain data; None: not answered yet.
    """
    question = task.question(learner)
    if answer is None or answer is ...:
        return Verdict("not written", f"no answer yet: set {task.answer_name} to {question.form}")
    plain = _bare(answer)
    if is_right(question, plain):
        return Verdict("passed", why=question.why)
    return Verdict("wrong", question.explain(plain), got=shown(plain))


def _bare(value: Any) -> Any:
    """Numbers in the place of arrays without axes, lists in the place of others."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bare(item) for item in value]
    return value


def as_plain(value: Any) -> Any:
    """A value as it arrives on the judge's side.

    Raises:
        PlainError: it is too large or too deep to be sent.
    """
    return loads(dumps(value))


def live(inputs: Inputs) -> dict[str, Any]:
    """Inputs as a learner's function receives them: fresh arrays, tensors and generators."""
    return dict(loads(dumps(dict(inputs)), live=True))


def call(function: Any, inputs: Inputs) -> Reply:
    """Call a function in this process, and bring its result into the form in which a judge gets it."""
    try:
        return Reply(as_plain(function(**live(inputs))))
    except PlainError as error:
        return Reply(error=f"the result cannot be read: {error}")
    except NotImplementedError as error:
        return Reply(error=f"NotImplementedError: {error}")
    except Exception as error:
        return Reply(error=f"{type(error).__name__}: {error}")
