"""What is asked of a submission, within which limits and behind which walls, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mlmkit.grading.workers import Status


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes:
        seconds: of wall time, for the cells and all calls together.
        cpu_seconds: of processor time, over all threads.
        memory: bytes beyond what Python and torch take.
        file_bytes: length of a file.
        processes: processes and threads, where system calls are not refused.
        output: bytes printed.
    """

    seconds: float = 20.0
    cpu_seconds: int = 30
    memory: int = 2**30
    file_bytes: int = 16 * 2**20
    processes: int = 32
    output: int = 2**20


@dataclass(frozen=True)
class Protections:
    """Which walls stand, found by trying to get past them.

    Attributes:
        own_process: the submission does not run in the judge's process.
        processes: it cannot start others without end.
        memory: it cannot take the machine's memory.
        file_system: it cannot read the course's sources nor what the machine tells of itself.
        network: it reaches no address.
        other_processes: it cannot send signals to others.
    """

    own_process: bool = True
    processes: bool = False
    memory: bool = False
    file_system: bool = False
    network: bool = False
    other_processes: bool = False

    @property
    def complete(self) -> bool:
        """Whether all of them stand."""
        return all(asdict(self).values())

    def __str__(self) -> str:
        words = {
            "own_process": "runs in a process of its own",
            "processes": "cannot start processes without end",
            "memory": "cannot take more memory than allowed",
            "file_system": "cannot read the course's files",
            "network": "cannot reach the network",
            "other_processes": "cannot touch other processes",
        }
        stand = [text for name, text in words.items() if getattr(self, name)]
        lacking = [text.replace("cannot", "can", 1) for name, text in words.items() if not getattr(self, name)]
        told = "A submission " + ", ".join(stand)
        return told + (f"; but on this system it {', '.join(lacking)}." if lacking else ".")


@dataclass(frozen=True)
class Turn:
    """One thing that is asked for: a call of a function, or a variable.

    Attributes:
        name: of the function or variable.
        arguments: of the call by keyword, values as `plain.encode` takes them; None asks for the variable itself.
    """

    name: str
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Request:
    """What is asked of a submission.

    Attributes:
        cells: source of the notebook's code cells, in order.
        turns: what is asked for, one after the other.
        seconds: wall time of each turn.
    """

    cells: tuple[str, ...]
    turns: tuple[Turn, ...]
    seconds: float = 5.0


@dataclass(frozen=True)
class Answer:
    """What came of one call, or of asking for the variable.

    Attributes:
        kind: "value"; "error": the call raised; "missing": no such name; "not callable": a name of something else.
        value: data as `plain.loads` gives it.
        error: last line of the traceback.
        where: "cell 2, line 3: return 1 / 0", the learner's innermost line; empty if there is none.
    """

    kind: Literal["value", "error", "missing", "not callable"]
    value: Any = None
    error: str = ""
    where: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a submission did with a request.

    Attributes:
        status: "answered" if it did all that was asked, be it with errors; otherwise why it was ended.
        loaded: whether the cells ran to their end.
        cell_errors: number of the cell, from 1, and last line of the traceback, of each that raised.
        answers: one for each turn; fewer if the status is not "answered".
        printed: the end of what it printed, without control characters.
        learner: the name given to `learner(…)`.
        seconds: of wall time.
    """

    status: Status
    loaded: bool = False
    cell_errors: tuple[tuple[int, str], ...] = ()
    answers: tuple[Answer, ...] = ()
    printed: str = ""
    learner: str | None = None
    seconds: float = 0.0


# --- the sandbox ---------------------------------------------------------------------------------------------
