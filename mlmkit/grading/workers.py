"""Processes that run submissions, and the talk of the judge with them: see `sandbox`, which is what to call.

A worker is asked in turns and has to answer in time. What it says is read as the message of a stranger: its length, its
form and the moment at which it comes are checked, and it is never more than data.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlmkit.grading import plain

Status = Literal["answered", "timed out", "out of memory", "died", "too much output", "unreadable answer"]

PRINTED = 2_000
"""Characters of what a submission printed that are kept: the last ones."""

OUT_OF_MEMORY = 71
"""Exit status of a worker whose submission wanted too much memory, as in cells.py."""

PATIENCE = 60.0
"""Seconds until a process that was started must have spoken."""

TRIAL = b'{"trial": true}\n'
"""Asks a worker to try the walls."""


class SandboxError(RuntimeError):
    """The sandbox itself does not work, whatever the submission."""


class EndedError(Exception):
    """The conversation is over before everything was answered."""

    def __init__(self, status: Status) -> None:
        self.status: Status = status


# --- a conversation with one process -------------------------------------------------------------------------


@dataclass
class Talk:
    """The judge's ends of the channels to one worker; `end` kills it and tells how it died."""

    line: socket.socket
    output: socket.socket
    end: Callable[[], dict[str, Any]]
    limit: int
    inbox: bytearray = field(default_factory=bytearray)
    printed: bytearray = field(default_factory=bytearray)
    printed_bytes: int = 0

    def ask(self, message: bytes, deadline: float) -> Any:
        """Send one line and wait for one; nothing may have been said before it was asked for."""
        pending = memoryview(message)
        while True:
            if b"\n" in self.inbox[-1:] and not pending:
                line, rest = bytes(self.inbox).split(b"\n", 1)
                self.inbox.clear()
                return self._read(line, rest)
            left = deadline - time.monotonic()
            if left <= 0:
                raise EndedError("timed out")
            early = bool(pending)
            writing, reading = self._wait(left, early)
            if writing:
                pending = pending[self._send(pending) :]
            if reading:
                self._receive(early)

    def _wait(self, seconds: float, writing: bool) -> tuple[bool, bool]:
        """Wait until the worker speaks or can be spoken to, and take what it prints."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.line, selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0))
            if self.output.fileno() >= 0:
                selector.register(self.output, selectors.EVENT_READ)
            found = {key.fileobj: events for key, events in selector.select(seconds)}
        if self.output in found and not self.drain():
            raise EndedError("too much output")
        events = found.get(self.line, 0)
        return bool(events & selectors.EVENT_WRITE), bool(events & selectors.EVENT_READ)

    def _send(self, message: memoryview) -> int:
        try:
            return self.line.send(message[: 1 << 16])
        except BlockingIOError:
            return 0
        except OSError:
            raise EndedError("died") from None

    def _receive(self, early: bool) -> None:
        try:
            more = self.line.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            raise EndedError("died")
        self.inbox += more
        if early or len(self.inbox) > plain.MAX_BYTES or b"\n" in self.inbox[:-1]:
            raise EndedError("unreadable answer")

    @staticmethod
    def _read(line: bytes, rest: bytes) -> Any:
        try:
            found = plain.loads(line)
        except (plain.PlainError, MemoryError):
            found = None
        if rest or not isinstance(found, dict):
            raise EndedError("unreadable answer")
        return found

    def drain(self) -> bool:
        """Take what has been printed so far; False if it is more than the limit."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self.output.fileno() >= 0 and self.printed_bytes <= self.limit:
                more = self.output.recv(1 << 16)
                if not more:
                    self.output.close()
                    break
                self.printed_bytes += len(more)
                self.printed = (self.printed + more)[-4 * PRINTED :]
        return self.printed_bytes <= self.limit

    def close(self) -> None:
        """Let go of the channels."""
        for end in (self.line, self.output):
            end.close()


# --- where workers come from ---------------------------------------------------------------------------------


def _environment(folder: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    where = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MPLBACKEND": "agg", "MPLCONFIGDIR": folder, "TMPDIR": folder}
    return {**kept, **threads, **where}


def _start(how: str, folder: str, **streams: Any) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-I", "-X", "utf8", str(Path(__file__).with_name("runner.py")), how]
    return subprocess.Popen(program, env=_environment(folder), cwd=folder, **streams)


class Zygote:
    """One process that forks for each request."""

    def __init__(self, settings: dict[str, Any], folder: str, enclosed: bool) -> None:
        self.enclosed = enclosed
        self.link, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with there:
            self.process = _start("zygote", folder, stdin=there, start_new_session=True, **silent)
        self.link.settimeout(PATIENCE)
        try:
            self.link.send(json.dumps(settings).encode())
            hello = json.loads(self.link.recv(1 << 16) or b'{"failed": "it died"}')
        except OSError as error:
            hello = {"failed": str(error)}
        if "failed" in hello:
            self.close()
            raise SandboxError(f"the sandbox's process does not start: {hello['failed']}")

    def begin(self, folder: str, limit: int) -> Talk:
        """Start a worker.

        Args:
            folder: that it may write to, if it has no /tmp of its own.
            limit: bytes that it may print.
        """
        pairs = [socket.socketpair() for _ in range(3)]
        job = json.dumps({"enclosed": self.enclosed, "folder": folder}).encode()
        try:
            socket.send_fds(self.link, [job], [there.fileno() for _, there in pairs])
        finally:
            for _, there in pairs:
                there.close()
        line, output, control = (here for here, _ in pairs)
        for end in (line, output):
            end.setblocking(False)
        return Talk(line, output, lambda: self._end(control), limit)

    @staticmethod
    def _end(control: socket.socket) -> dict[str, Any]:
        """Tell the keeper to end its worker; {} if there is no keeper any more."""
        control.settimeout(10)
        with control, contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(OSError):
                control.send(b"k")
            return dict(json.loads(control.recv(1 << 16)))
        return {}

    @property
    def alive(self) -> bool:
        """Whether it can be asked for workers."""
        return self.process.poll() is None

    def gone(self) -> bool:
        """Whether it died, after a request that no keeper reported on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        return not self.alive

    def close(self) -> None:
        """End the process; workers that run still are ended by their keepers."""
        self.link.close()
        self.process.kill()
        self.process.wait()


class Spawner:
    """Starts a process for each request, where fork is missing or not safe."""

    alive, enclosed = True, False

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def begin(self, folder: str, limit: int) -> Talk:
        """Start a worker, as `Zygote.begin` does."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = _start("once", folder, start_new_session=os.name == "posix", **pipes)
        (line, far), (output, far_output) = socket.socketpair(), socket.socketpair()
        for end in (line, output):
            end.setblocking(False)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(json.dumps({**self.settings, "folder": folder}).encode() + b"\n")
        process.stdin.flush()
        writing, reading, errors = process.stdin.fileno(), process.stdout.fileno(), process.stderr.fileno()
        _pump(lambda: far.recv(1 << 16), lambda data: _write(writing, data), lambda: None)
        _pump(lambda: os.read(reading, 1 << 16), far.sendall, lambda: _hang_up(far))
        _pump(lambda: os.read(errors, 1 << 16), far_output.sendall, lambda: _hang_up(far_output))

        def ended() -> dict[str, Any]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2 if process.poll() is None else 0)
            process.kill()
            if sys.platform != "win32":
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
            return {"code": process.wait()}

        return Talk(line, output, ended, limit)

    def gone(self) -> bool:
        """Whether it died, which it cannot."""
        return False

    def close(self) -> None:
        """Nothing is kept."""


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # closing alone would not tell the other end while a thread still reads
    end.close()


def _pump(read: Callable[[], bytes], write: Callable[[bytes], object], done: Callable[[], object]) -> None:
    """Carry bytes from a pipe to a socket or back in a thread: on Windows nothing can wait for pipes."""

    def carry() -> None:
        with contextlib.suppress(OSError):
            while data := read():
                write(data)
        done()

    threading.Thread(target=carry, daemon=True).start()
