"""The judge's side of the wall: hand a submission its inputs, take what it gives back as data, and end it in time.

    with Sandbox() as sandbox:
        outcome = sandbox.run(Request(cells, (Turn("softmax", {"x": x}),)))

Whatever comes out of the submission's process is read as a message of a stranger: its length, its form and the moment
at which it comes are checked, and it is never more than data.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from mlmkit.grading import plain
from mlmkit.grading.requests import Answer, Limits, Outcome, Protections, Request, Turn
from mlmkit.grading.workers import (
    OUT_OF_MEMORY,
    PATIENCE,
    PRINTED,
    TRIAL,
    EndedError,
    SandboxError,
    Spawner,
    Status,
    Talk,
    Zygote,
)

Kind = Literal["enclosed", "locked", "spawned"]
"""How a submission is kept: in namespaces of its own; by limits, Landlock and refused system calls; as a plain process
started for each request (seconds each)."""


class Sandbox:
    """Runs submissions, each in a process of its own; a context manager, and each may be used by several threads.

    Args:
        limits: of every request.
        kind: how submissions are kept; None takes the strongest way that the system allows.
        with_mlmkit: let submissions import the package, for a task that trains with it.

    Attributes:
        kind: the way that was taken.
        protections: which walls stand.

    Raises:
        SandboxError: on entering, no process starts, or not in the way asked for.
    """

    def __init__(self, limits: Limits | None = None, kind: Kind | None = None, *, with_mlmkit: bool = False) -> None:
        self.limits = limits or Limits()
        self.with_mlmkit = with_mlmkit
        self._kinds: tuple[Kind, ...] = (kind,) if kind else get_args(Kind)
        self._lock = threading.Lock()
        self.protections = Protections()

    def __enter__(self) -> Sandbox:
        self._folder = tempfile.mkdtemp(prefix="submission-")
        reason = SandboxError("this system knows no way")
        for kind in self._kinds:
            try:
                self._open(kind)
                return self
            except SandboxError as error:
                reason = error
        shutil.rmtree(self._folder, ignore_errors=True)
        raise reason

    def __exit__(self, *exception: object) -> None:
        self._host.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self, kind: Kind) -> None:
        """Start the process, and try the walls."""
        self.kind = kind
        self._host = self._started()
        found: dict[str, Any] = {}
        try:
            status, _, _ = self._converse(lambda talk: found.update(talk.ask(TRIAL, time.monotonic() + PATIENCE)))
        except (SandboxError, OSError) as error:
            self._host.close()
            raise SandboxError(f"the sandbox's process does not work: {error}") from None
        if status != "answered":
            self._host.close()
            raise SandboxError(f"the sandbox's process does not work: {status}")
        names = [wall.name for wall in fields(Protections)]
        self.protections = Protections(**{name: found[name] is True for name in names if name in found})

    def _started(self) -> Zygote | Spawner:
        package = Path(__file__).resolve().parents[1]
        hidden = [str(path) for path in _course_folders(package.parent)]
        if not self.with_mlmkit:
            hidden.append(str(package))
        limits = {"cpu": self.limits.cpu_seconds, "memory": self.limits.memory, "file": self.limits.file_bytes}
        settings: dict[str, Any] = {"hidden": hidden, "limits": {**limits, "processes": self.limits.processes}}
        settings["mlmkit"] = str(package) if self.with_mlmkit else None
        if self.kind == "spawned":
            return Spawner(settings)
        if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
            raise SandboxError("only Linux can keep submissions in this way")
        return Zygote(settings, self._folder, self.kind == "enclosed")

    def run(self, request: Request) -> Outcome:
        """Run the cells in a process of their own, ask for what is asked for, and end the process.

        Args:
            request: what to run and what to ask for.

        Raises:
            SandboxError: a wall that stood when the sandbox was opened can no longer be built.
            PlainError: the inputs are no plain data.
        """
        messages = [json.dumps({"cells": request.cells}).encode() + b"\n", *map(_message, request.turns)]
        with self._lock:
            for last in (False, True):
                if not self._host.alive:
                    self._host.close()
                    self._host = self._started()
                with contextlib.suppress(BrokenPipeError, ConnectionError):
                    outcome, report = self._attempt(messages, request.seconds)
                    if last or report or not self._host.gone():
                        return outcome
        raise SandboxError("the sandbox's process dies before it runs anything")

    def _attempt(self, messages: list[bytes], turn_seconds: float) -> tuple[Outcome, dict[str, Any]]:
        start = time.monotonic()
        loaded: list[_Loaded] = []
        answers: list[Answer] = []

        def hear(talk: Talk) -> None:
            deadline = start + self.limits.seconds
            loaded.append(_Loaded.of(talk.ask(messages[0], deadline)))
            for message in messages[1:]:
                answers.append(_answer(talk.ask(message, min(deadline, time.monotonic() + turn_seconds))))

        status, printed, report = self._converse(hear)
        first = loaded[0] if loaded else _Loaded()
        seconds = time.monotonic() - start
        return Outcome(status, bool(loaded), first.errors, tuple(answers), printed, first.learner, seconds), report

    def _converse(self, hear: Callable[[Talk], object]) -> tuple[Status, str, dict[str, Any]]:
        """Speak with a new worker, end it, and say how it went, what it printed and how it died."""
        folder = "" if self._host.enclosed else tempfile.mkdtemp(dir=self._folder)
        talk = self._host.begin(folder, self.limits.output)
        status: Status = "answered"
        try:
            hear(talk)
        except EndedError as error:
            status = error.status
        finally:
            report = talk.end()
            talk.drain()
            talk.close()
            if folder:
                with contextlib.suppress(RecursionError):
                    shutil.rmtree(folder, ignore_errors=True)
        if "failed" in report:
            raise SandboxError(f"a wall cannot be built: {report['failed']}")
        printed = _shown(talk.printed.decode("utf-8", errors="replace"))[-PRINTED:]
        return self._reason(status, report), printed, report

    def _reason(self, status: Status, report: dict[str, Any]) -> Status:
        """Tell from how a worker died what it died of."""
        if status != "died":
            return status
        if report.get("code") == OUT_OF_MEMORY or report.get("memory", 0) > self.limits.memory:
            return "out of memory"
        return "timed out" if report.get("cpu", 0) >= self.limits.cpu_seconds else "died"


def _message(turn: Turn) -> bytes:
    arguments = None if turn.arguments is None else plain.encode(turn.arguments)
    return json.dumps({"name": turn.name, "arguments": arguments}).encode() + b"\n"


def _course_folders(root: Path) -> list[Path]:
    """Folders beside the package in a copy of the repository: the exercises with their answers, the tests."""
    return [folder for name in ("exercises", "notebooks", "tests", "build") if (folder := root / name).is_dir()]


@dataclass(frozen=True)
class _Loaded:
    """What a worker said after the cells."""

    errors: tuple[tuple[int, str], ...] = ()
    learner: str | None = None

    @staticmethod
    def of(message: dict[Any, Any]) -> _Loaded:
        errors, learner = message.get("errors"), message.get("learner")
        if message.get("loaded") is not True or not isinstance(errors, list) or not isinstance(learner, str | None):
            raise EndedError("unreadable answer")
        read = []
        for error in errors:
            match error:
                case (int(number), str(text)):
                    read.append((number, _shown(text[:700])))
                case _:
                    raise EndedError("unreadable answer")
        return _Loaded(tuple(read), learner and _shown(learner[:200]))


def _answer(message: dict[Any, Any]) -> Answer:
    if not isinstance(message.get("kind"), str):  # an array would not even be compared without an error
        raise EndedError("unreadable answer")
    match message:
        case {"kind": "value", "value": value}:
            return Answer("value", value)
        case {"kind": "error", "error": str(error), "where": str(where)}:
            return Answer("error", None, _shown(error[:700]), _shown(where[:400]))
        case {"kind": "missing"}:
            return Answer("missing")
        case {"kind": "not callable"}:
            return Answer("not callable")
    raise EndedError("unreadable answer")


def _shown(text: str) -> str:
    """Make text safe to print: no control characters, no invisible ones, no broken ones."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)
