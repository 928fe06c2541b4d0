"""The program in which submissions run: `python -I runner.py zygote` or `python -I runner.py once`.

Nothing of mlmkit is imported: the files beside this one are loaded by their paths. A *zygote* imports
numpy and torch once and then forks for each request: a keeper, which raises the outer walls and ends the request when
the judge says so, and the keeper's child, the worker, which runs the submission. What the zygote is stays untouched.
`once` is one worker without fork, where fork is missing or not safe.

The worker and the judge speak in turns, one line of JSON each: the cells; whether they
ran; then one call or variable after the other. The worker is told nothing that a submission must not know.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
from types import ModuleType
from typing import Any

Parts = dict[str, ModuleType]


def _load() -> Parts:
    """Import the files that lie beside this one, without the package they belong to."""
    parts = {}
    for name in ("plain", "cells", "walls", "trial"):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
        spec = importlib.util.spec_from_file_location(f"_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        parts[name] = sys.modules[f"_{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(parts[name])
    return parts


# --- the worker ----------------------------------------------------------------------------------------------


class Line:
    """The worker's end of the conversation with the judge."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing, self.read = reading, writing, b""

    def receive(self) -> bytes:
        """Wait for one line; b"" when the judge has gone."""
        while b"\n" not in self.read:
            more = os.read(self.reading, 1 << 20)
            if not more:
                return b""
            self.read += more
        line, self.read = self.read.split(b"\n", 1)
        return line

    def send(self, message: bytes) -> None:
        """Write one line that ends with a newline already."""
        while message:
            message = message[os.write(self.writing, message) :]


def converse(line: Line, parts: Parts, folder: str, settings: dict[str, Any], outside: int, memory: int) -> None:
    """Run one submission: read the cells, tell how they ran, and answer one call after the other.

    Args:
        line: to the judge.
        parts: the files beside this one.
        folder: that may be written to.
        settings: of the sandbox.
        outside, memory: for a trial of the walls, which takes the place of a submission if asked for.
    """
    plain, cells = parts["plain"], parts["cells"]
    request = json.loads(line.receive())
    if "trial" in request:
        return line.send(plain.dumps(parts["trial"].tried(settings["hidden"], outside, memory)))
    cells.clean(folder, settings["mlmkit"])
    cells.seed()
    submission = cells.Submission(request["cells"], plain, stand_in=settings["mlmkit"] is None)
    errors = submission.run()
    cells.flush()
    line.send(submission.line({"loaded": True, "errors": errors[:200], "learner": submission.grading.name}))
    while turn := line.receive():
        answer = submission.answer(**json.loads(turn))
        cells.flush()
        line.send(answer)


# --- the keeper and the zygote -------------------------------------------------------------------------------


class Zygote:
    """Waits for requests on a socket of packets and forks a keeper for each."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.settings = json.loads(link.recv(1 << 16))
        self.parts = _load()
        self.walls = self.parts["walls"]
        import numpy

        packages: list[str] = [os.path.dirname(os.path.dirname(numpy.__file__))]
        with contextlib.suppress(ImportError):
            import torch

            torch.set_num_threads(1)
            _ = torch.ones(2, 2) @ torch.ones(2, 2) + 1  # looks at /proc/cpuinfo once, which workers have not
            packages.append(os.path.dirname(os.path.dirname(torch.__file__)))
        with contextlib.suppress(Exception):
            import matplotlib.pyplot  # noqa: F401
        self.plan = self.walls.plan(packages, self.settings["hidden"], self.settings["mlmkit"])
        self.mapped = self.walls.memory_mapped()
        self.number = os.getpid()
        self.walls.conceal()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Fork for every request until the judge closes the socket."""
        self.link.send(b'{"ready": true}')
        while True:
            message, files, _, _ = socket.recv_fds(self.link, 1 << 16, 3)
            if not message:
                return
            self._start(json.loads(message), files)
            for file in files:
                os.close(file)

    def _start(self, job: dict[str, Any], files: list[int]) -> None:
        here, there = socket.socketpair()
        keeper = os.fork()
        if keeper == 0:
            try:
                self.link.close()
                here.close()
                self._keep(job, files[0], files[1], files[2], there)
            finally:
                os._exit(1)
        there.close()
        with here, contextlib.suppress(OSError):
            if job["enclosed"] and here.recv(1):
                self.walls.map_ids(keeper)
                here.send(b"m")

    def _keep(self, job: dict[str, Any], talk: int, output: int, control: int, zygote: socket.socket) -> None:
        """Raise the outer walls, start the worker, and tell the judge how it ended."""

        def mapped() -> None:
            zygote.send(b"u")
            if not zygote.recv(1):
                raise OSError("the user ids could not be mapped")

        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            if job["enclosed"]:
                self.walls.enclose(self.plan, mapped)
        except OSError as error:
            os.write(control, json.dumps({"failed": str(error)}).encode())
            return
        zygote.close()
        worker = os.fork()
        if worker == 0:
            try:
                self._work(job, talk, output)
            finally:
                os._exit(1)
        os.close(talk)
        os.close(output)
        select.select([control, os.pidfd_open(worker)], [], [])
        for end in (os.kill, os.killpg):
            with contextlib.suppress(OSError):
                end(worker, signal.SIGKILL)
        _, status, usage = os.wait4(worker, 0)
        report = {"code": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
        os.write(control, json.dumps({**report, "memory": usage.ru_maxrss * 1024}).encode())

    def _work(self, job: dict[str, Any], talk: int, output: int) -> None:
        """Leave the worker nothing but its two channels, raise the inner walls, and run the submission."""
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        high = [os.dup2(file, 200 + position) for position, file in enumerate((null, output, output, talk))]
        for number, file in enumerate(high):
            os.dup2(file, number)
        os.closerange(4, 1 << 20)
        limits = self.settings["limits"]
        memory = self.mapped + limits["memory"] if self.mapped else 0
        processes = limits["processes"] if job["enclosed"] else None
        self.walls.limit(limits["cpu"], memory, limits["file"], processes)
        folder = "/tmp" if job["enclosed"] else job["folder"]
        os.chdir(folder)
        self.walls.lock(job["enclosed"], self.plan, folder)
        converse(Line(3, 3), self.parts, folder, self.settings, self.number, memory)
        os._exit(0)


def once() -> None:
    """Run one request whose channels are the standard streams: in, out, and error for what is printed."""
    line = Line(os.dup(0), os.dup(1))
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    settings = json.loads(line.receive())
    parts = _load()
    walls, limits, parent, what = parts["walls"], settings["limits"], os.getppid(), None
    mapped = walls.memory_mapped()
    memory = mapped + limits["memory"] if mapped else 0
    if sys.platform == "linux":
        what = walls.plan(sys.path[1:], settings["hidden"], settings["mlmkit"])
    walls.limit(limits["cpu"], memory, limits["file"], None)
    os.chdir(settings["folder"])
    walls.lock(False, what, settings["folder"])
    converse(line, parts, settings["folder"], settings, parent, memory)
    parts["cells"].flush()
    os._exit(0)


def main() -> None:
    """Be what the first argument says."""
    if sys.argv[1] == "once":
        return once()
    with socket.socket(fileno=os.dup(0)) as link:
        try:
            zygote = Zygote(link)
        except Exception as error:
            link.send(json.dumps({"failed": f"{type(error).__name__}: {error}"[:1000]}).encode())
            return
        zygote.serve()


if __name__ == "__main__":
    main()
