"""What a task is: a function to write (`CodeTask`) or a question to answer (`ConceptTask`).

A task carries everything that the judge needs and nothing that the learner reads beforehand: what the learner reads
(the statement, the signature, an example) stands in the notebook of the exercise set.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mlmkit.grading.comparing import Tolerance

Inputs = Mapping[str, Any]
"""Keyword arguments of one call, as plain data: numbers, strings, lists, numpy arrays; `Torch(array)` where the
learner's function receives a tensor, `Rng(seed)` where it receives a numpy generator."""


@dataclass(frozen=True)
class Mistake:
    """A wrong solution that learners are known to write.

    Args:
        name: the misconception, in a few words.
        answer: the function that makes it; gets the inputs as the learner's function does.
        says: what a learner who made it reads: what happened, and why it is wrong.
    """

    name: str
    answer: Callable[..., Any]
    says: str


@dataclass(frozen=True)
class Call:
    """One call of a learner's function: what went in and what came out, both as plain data."""

    inputs: Inputs
    got: Any


@dataclass(frozen=True, kw_only=True)
class CodeTask:
    """A function that the learner writes.

    Args:
        id: notebook and number, "03.9".
        title: in a few words.
        points: marks for a right solution.
        concepts: rows of the syllabus, "C13".
        function: the name that the learner's function must have.
        reference: gives the right result for the same keyword arguments (tensors and generators are live).
        draw: makes the keyword arguments of one call from fresh randomness.
        edges: keyword arguments that are always tried as well, and first.
        rounds: how many times `draw` is called.
        tolerance: how nearly floats must agree.
        verify: for functions that may answer in many ways (random ones, above all): gets all calls, says what is
            wrong with them, or None. Then `reference` is only run by the tests of the course.
        mistakes: known wrong solutions; a wrong answer that equals one of them on every call is explained by it.
        hints: three, from a nudge to nearly the solution.
        seconds: longest time that all calls together may take.
    """

    id: str
    title: str
    points: int
    concepts: tuple[str, ...]
    function: str
    reference: Callable[..., Any]
    draw: Callable[[np.random.Generator], Inputs]
    hints: tuple[str, str, str]
    edges: tuple[Inputs, ...] = ()
    rounds: int = 12
    tolerance: Tolerance = field(default_factory=Tolerance)
    verify: Callable[[Sequence[Call]], str | None] | None = None
    mistakes: tuple[Mistake, ...] = ()
    seconds: float = 5.0

    @property
    def answer_name(self) -> str:
        """The name under which the solution is looked for in a submission."""
        return self.function

    def inputs(self, seed: int | None) -> list[Inputs]:
        """The calls of one check: the edges, then fresh random ones (the same ones for the same seed)."""
        rng = np.random.default_rng(seed if seed is None else [seed, zlib.crc32(self.id.encode())])
        return [*self.edges, *(self.draw(rng) for _ in range(self.rounds))]


Kind = Literal["number", "numbers", "choice", "several", "order", "match"]


@dataclass(frozen=True)
class Question:
    """A question as one learner gets it: with his own numbers, and its options in his own order.

    Made by the functions of `mlmkit.grading.questions`.

    Args:
        kind: what the answer looks like.
        text: Markdown.
        form: how to write the answer, as "a number" or 'a letter, as "B"'.
        answer: the right one.
        explain: what is wrong with a wrong answer: the misconception behind it, or a plain sentence.
        why: why the right answer is right; shown when it was given.
        relative: how nearly numbers must agree, relative to the right one.
        misconceptions: the explanations that `explain` has for wrong answers of its own.
    """

    kind: Kind
    text: str
    form: str
    answer: Any
    explain: Callable[[Any], str]
    why: str
    relative: float = 0.005
    misconceptions: tuple[str, ...] = ()


def own_randomness(learner: str, task_id: str) -> np.random.Generator:
    """What a learner's question of a task is drawn from: always the same for the same name, in whatever case."""
    return np.random.default_rng([zlib.crc32(learner.strip().lower().encode()), zlib.crc32(task_id.encode())])


@dataclass(frozen=True, kw_only=True)
class ConceptTask:
    """A question that is drawn anew for each learner.

    Args:
        id: notebook and number, "03.1".
        title: in a few words.
        points: marks for the right answer.
        concepts: rows of the syllabus, "C13".
        draw: makes the question from the learner's own randomness.
        computed: whether the answer is computed (by hand or by an experiment) rather than judged.
    """

    id: str
    title: str
    points: int
    concepts: tuple[str, ...]
    draw: Callable[[np.random.Generator], Question]
    computed: bool = False

    @property
    def answer_name(self) -> str:
        """The name of the variable in which the answer is looked for in a submission."""
        return f"answer_{self.id.replace('.', '_')}"

    def question(self, learner: str) -> Question:
        """The question of one learner: always the same for the same name."""
        return self.draw(own_randomness(learner, self.id))


@dataclass(frozen=True, kw_only=True)
class CapstoneTask:
    """A model that the learner's functions train; marked by how near it comes to the floor.

    Args:
        id: notebook and number, "17.1".
        title: in a few words.
        points: for a model at the floor; nearer than chance earns a part.
        concepts: rows of the syllabus.
        parts: function → the task that checks it, in the order in which `capstone.train` takes them.
    """

    id: str
    title: str
    points: int
    concepts: tuple[str, ...]
    parts: Mapping[str, str]
    computed: bool = True

    @property
    def answer_name(self) -> str:
        """The name of the variable that holds the trained model."""
        return "trained"


Task = CodeTask | ConceptTask | CapstoneTask


def task_order(task_id: str) -> tuple[int, int]:
    """Sorts ids as the course has them.

    >>> sorted(["03.10", "03.9"], key=task_order)
    ['03.9', '03.10']
    """
    notebook, number = task_id.split(".")
    return int(notebook), int(number)


@dataclass(frozen=True)
class TaskSet:
    """The tasks of one exercise notebook.

    Args:
        name: of the folder and of the notebook, as "03_corruption_80_10_10".
        tasks: in order.
    """

    name: str
    tasks: tuple[Task, ...]

    @property
    def points(self) -> int:
        """All marks together."""
        return sum(task.points for task in self.tasks)
