"""The judge: runs a submission behind walls, and computes every verdict on its own side of them."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from types import TracebackType

from mlmkit.errors import UserError
from mlmkit.grading.plain import Other
from mlmkit.grading.requests import Answer, Limits, Outcome, Protections, Request, Turn
from mlmkit.grading.sandbox import Sandbox
from mlmkit.grading.sets import task_named, task_set
from mlmkit.grading.submission import Submission
from mlmkit.grading.tasks import CapstoneTask, CodeTask, ConceptTask, Inputs, Task
from mlmkit.grading.verdict import Reply, Status, Verdict, judge_answer, judge_code

NO_MLMKIT = "mlmkit is not there when work is marked"
TRAINING = Limits(seconds=300, cpu_seconds=600, memory=2**31)
TRAIN_CELL = """
from mlmkit.grading.capstone import plain as _plain, train as _train
{name} = _plain(_train({parts}, seed={seed}))
"""


@dataclass(frozen=True)
class Mark:
    """The result of one learner on one task.

    Attributes:
        learner, set_name, task_id, title: whose, and on what.
        points: earned.
        of: that could be earned.
        verdict: what is told.
        hint: the first hint of a coding task that was not solved.
        seconds: that the submission ran.
    """

    learner: str
    set_name: str
    task_id: str
    title: str
    points: float
    of: int
    verdict: Verdict
    hint: str
    seconds: float


class Bench:
    """Where submissions run: a sandbox without mlmkit, and one with it, in which the capstone trains.

    Args:
        limits: of each request to the first; None: the sandbox's own.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._stack = ExitStack()
        self._training: Sandbox | None = None

    def __enter__(self) -> Bench:
        self.functions = self._stack.enter_context(Sandbox(self._limits))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def protections(self) -> Protections:
        """The walls that stand."""
        return self.functions.protections

    @property
    def training(self) -> Sandbox:
        """The sandbox in which mlmkit can be imported; opened when it is first needed."""
        if self._training is None:
            self._training = self._stack.enter_context(Sandbox(TRAINING, with_mlmkit=True))
        return self._training


def grade(submission: Submission, bench: Bench, seed: int) -> list[Mark]:
    """Mark every task of a submission.

    Args:
        submission: what was handed in.
        bench: where it runs.
        seed: of the random inputs, together with the learner's name: the order of marking does not matter.
    """
    tasks = task_set(submission.set_name).tasks
    if submission.fault:
        return [_mark(submission, task, Verdict("stopped", submission.fault), 0.0) for task in tasks]
    own_seed = zlib.crc32(f"{seed}/{submission.learner}".encode())
    inputs = {task.id: task.inputs(own_seed) for task in tasks if isinstance(task, CodeTask)}
    replies = _ask_together(submission, tasks, inputs, bench)
    marks = []
    for task in tasks:
        start = time.perf_counter()
        if isinstance(task, CapstoneTask):
            verdict = _capstone(task, submission, bench, own_seed)
        else:
            verdict = _verdict(task, submission, inputs.get(task.id, []), replies[task.id])
        seconds = time.perf_counter() - start + (replies[task.id].seconds if task.id in replies else 0.0)
        marks.append(_mark(submission, task, verdict, seconds))
    return marks


@dataclass(frozen=True)
class Replies:
    """What a submission said to one task: how the asking ended, and its answers.

    Attributes:
        outcome: of the request.
        answers: those of it that belong to the task.
        seconds: share of the request's time.
    """

    outcome: Outcome
    answers: tuple[Answer, ...]
    seconds: float


def _turns(task: Task, inputs: Sequence[Inputs]) -> tuple[Turn, ...]:
    if isinstance(task, CodeTask):
        return tuple(Turn(task.answer_name, given) for given in inputs)
    return (Turn(task.answer_name),)


def _ask_together(
    submission: Submission, tasks: Sequence[Task], inputs: Mapping[str, Sequence[Inputs]], bench: Bench
) -> dict[str, Replies]:
    """Ask for everything in one run of the cells; if that is cut short, for each task in a run of its own."""
    asked = [task for task in tasks if not isinstance(task, CapstoneTask)]
    if not asked:
        return {}
    turns = {task.id: _turns(task, inputs.get(task.id, ())) for task in asked}
    outcome = bench.functions.run(Request(submission.cells, sum(turns.values(), ())))
    if outcome.status == "answered":
        answers, seconds = iter(outcome.answers), outcome.seconds / len(asked)
        return {task.id: Replies(outcome, tuple(islice(answers, len(turns[task.id]))), seconds) for task in asked}
    if not outcome.loaded:  # the cells themselves do not come to an end: no task can fare better
        return {task.id: Replies(outcome, (), outcome.seconds / len(asked)) for task in asked}
    return {task.id: _ask(submission, task, turns[task.id], bench) for task in asked}


def _ask(submission: Submission, task: Task, turns: tuple[Turn, ...], bench: Bench) -> Replies:
    seconds = task.seconds if isinstance(task, CodeTask) else 5.0
    outcome = bench.functions.run(Request(submission.cells, turns, seconds))
    return Replies(outcome, outcome.answers, outcome.seconds)


def _verdict(task: Task, submission: Submission, inputs: Sequence[Inputs], replies: Replies) -> Verdict:
    """Judge one task; one strange answer must not keep a class from its marks."""
    try:
        if isinstance(task, CodeTask):
            return _borrowed(_called(task, inputs, replies), replies)
        assert isinstance(task, ConceptTask)
        return _answered(task, submission, replies)
    except Exception as error:
        return Verdict("stopped", f"the answer cannot be judged: {type(error).__name__}")


def _called(task: CodeTask, inputs: Sequence[Inputs], replies: Replies) -> Verdict:
    if replies.outcome.status != "answered":
        return _stopped(replies.outcome)
    if len(replies.answers) != len(inputs):
        return Verdict("stopped", f"{len(replies.answers)} answers came to {len(inputs)} questions")
    if any(answer.kind in ("missing", "not callable") for answer in replies.answers):
        return _missing(task, replies.answers[0], replies.outcome)
    return judge_code(task, inputs, [_reply(answer) for answer in replies.answers])


def _stopped(outcome: Outcome) -> Verdict:
    status: Status = "timed out" if outcome.status == "timed out" else "stopped"
    where = "the answer" if outcome.loaded else "a cell of the notebook"
    return Verdict(status, f"{where} was stopped: {outcome.status}")


def _reply(answer: Answer) -> Reply:
    """The answer to one call; where it failed is told with the error."""
    if answer.kind == "value":
        return Reply(answer.value)
    return Reply(error=f"{answer.error} ({answer.where})" if answer.where else answer.error)


def _borrowed(verdict: Verdict, replies: Replies) -> Verdict:
    """Say so when what failed is an import of mlmkit, in the answer or in a cell that it needs."""
    errors = [answer.error for answer in replies.answers]
    if verdict.status in ("missing", "raised"):
        errors += [error for _, error in replies.outcome.cell_errors]
    if verdict.passed or not any(NO_MLMKIT in error for error in errors):
        return verdict
    return Verdict("own code", next(error for error in errors if NO_MLMKIT in error))


def _missing(task: Task, answer: Answer, outcome: Outcome) -> Verdict:
    """There is no answer: perhaps because a cell failed before."""
    problem = f"the notebook does not define {task.answer_name}"
    if answer.kind == "not callable":
        problem = f"{task.answer_name} is no function"
    for number, error in outcome.cell_errors[:1]:
        problem += f"; code cell {number} failed with {error}"
    return Verdict("missing", problem)


def _answered(task: ConceptTask, submission: Submission, replies: Replies) -> Verdict:
    outcome = replies.outcome
    if not replies.answers:
        return _stopped(outcome)
    answer = replies.answers[0]
    if answer.kind == "missing":
        told = _missing(task, answer, outcome).problem
        return Verdict("missing", f"{told}. Write the value itself: no experiment is run when work is marked")
    if answer.kind != "value":
        return Verdict("raised", f"{task.answer_name}: {_reply(answer).error}")
    if isinstance(answer.value, Other):
        return Verdict("wrong", f"the answer is of type {answer.value.type}")
    verdict, declared = judge_answer(task, submission.learner, answer.value), outcome.learner
    if verdict.status != "wrong" or not declared or not judge_answer(task, declared, answer.value).passed:
        return verdict
    problem = (
        f"this answers the question of {declared!r}; this is the submission of {submission.learner!r}. "
        f'Write learner("{submission.learner}") and answer your own question'
    )
    return Verdict("wrong", problem, got=verdict.got)


def _capstone(task: CapstoneTask, submission: Submission, bench: Bench, seed: int) -> Verdict:
    """Check each function by its own task, without mlmkit; then let them train, and measure the weights."""
    from mlmkit.grading.capstone import measure

    faults = _faults(task, submission, bench, seed)
    whole = 1 - len(faults) / len(task.parts)
    if not whole:
        return Verdict("wrong", "; ".join(faults))
    cell = TRAIN_CELL.format(name=task.answer_name, parts=", ".join(task.parts), seed=seed)
    cells = (*submission.cells, cell)
    outcome = bench.training.run(Request(cells, (Turn(task.answer_name),), TRAINING.seconds))
    if outcome.status != "answered":
        return _stopped(outcome)
    found = outcome.answers[0].value
    try:
        result = measure(found["weights"] if isinstance(found, dict) and "weights" in found else {}, seed)
    except UserError as error:
        errors = [told for number, told in outcome.cell_errors if number == len(cells)]
        return Verdict("stopped", "; ".join([*faults, *(errors or [str(error)])]))
    share = round(whole * result.share, 2)
    told = "; ".join([*faults, result.explain()])
    return Verdict("passed", why=told) if share > 0.99 else Verdict("partly", told, share=share)


def _faults(task: CapstoneTask, submission: Submission, bench: Bench, seed: int) -> list[str]:
    """What is wrong with each function of the capstone that does not pass its own check."""
    parts = [task_named(checked_by) for checked_by in task.parts.values()]
    inputs = {part.id: part.inputs(seed) for part in parts if isinstance(part, CodeTask)}
    replies = _ask_together(submission, parts, inputs, bench)
    faults = []
    for name, part in zip(task.parts, parts, strict=True):
        verdict = _verdict(part, submission, inputs[part.id], replies[part.id])
        if not verdict.passed:
            told = verdict.cause or verdict.problem
            faults.append(f"{name} does not pass the check of task {part.id}: {told}")
    return faults


def _mark(submission: Submission, task: Task, verdict: Verdict, seconds: float) -> Mark:
    points = round(task.points * verdict.earned, 2)
    hint = task.hints[0] if isinstance(task, CodeTask) and verdict.status in ("wrong", "raised") else ""
    whose = (submission.learner, submission.set_name, task.id, task.title)
    return Mark(*whose, points, task.points, verdict, hint, seconds)
