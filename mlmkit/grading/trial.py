"""Whether the walls stand: `tried` does what a submission might do, from inside, and believes nothing else.

Only the standard library is imported: the file is loaded by its path where mlmkit is not to be seen.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterable

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def _processes_limited() -> bool:
    try:
        if os.fork() == 0:
            os._exit(0)
    except OSError:
        return True
    return resource is not None and 0 <= resource.getrlimit(resource.RLIMIT_NPROC)[0] <= 1024


def _connected() -> bool:
    try:
        socket.create_connection(("127.0.0.1", 9), 0.2).close()
    except OSError as error:  # "refused" comes from the machine itself: it was reached
        return error.errno not in (errno.EPERM, errno.EACCES, errno.ENETUNREACH)
    return True


def _had(memory: int) -> bool:
    try:
        return bool(bytearray(memory))
    except MemoryError:
        return False


def _reached(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _unreadable(path: str) -> bool:
    """Whether no file can be read: the one named, or one of those that lie directly in the folder named."""
    with contextlib.suppress(OSError):
        for name in [path] if not os.path.isdir(path) else [os.path.join(path, name) for name in os.listdir(path)]:
            with contextlib.suppress(OSError), open(name, "rb") as file:
                file.read(1)
                return False
    return True


def tried(hidden: Iterable[str], outside: int, memory: int) -> dict[str, bool]:
    """Try what the walls are to prevent, from inside, and tell for each whether it was prevented.

    Args:
        hidden: folders that must not be read.
        outside: process id of one that must not be reached.
        memory: bytes that must not be had; 0 if there is no limit.
    """
    if sys.platform == "win32":
        return dict.fromkeys(("processes", "memory", "file_system", "network", "other_processes"), False)
    return {
        "processes": _processes_limited(),
        "memory": memory > 0 and not _had(memory),
        "file_system": all(_unreadable(path) for path in (*hidden, "/proc/version", "/etc/passwd")),
        "network": not _connected(),
        "other_processes": not _reached(outside),
    }
