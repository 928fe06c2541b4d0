"""The walls that a process puts round itself before it runs a submission.

Only the standard library is imported, and nothing of mlmkit: the file is loaded by its path where mlmkit is not to be
seen. On Linux there are two rings. The outer one, `enclose`, needs user namespaces: a root directory with Python in it
and little else, no network, no other process in sight. The inner one, `lock`, needs no privilege: resource limits, no
capabilities, a filter that refuses to start processes and to open sockets, and, where the outer ring is missing,
Landlock in its place. Whether they stand is for `trial` to find out.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

NOBODY = 65534
"""Second user id inside the walls when the judge is root: the limit of processes does not bind root."""

TMP_BYTES = 16 * 2**20
"""Size of /tmp inside, the only place that can be written to."""

HIDDEN_NAME = "mlmkit"
"""Folders of this name beside installed packages are covered."""

# unshare(2): mount, UTS, IPC, user, PID and network namespaces
NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = 2, -100, 0x8000, 442
PDEATHSIG, DUMPABLE, SECCOMP, CAPBSET_DROP, NO_NEW_PRIVS = 1, 4, 22, 24, 38
CAPABILITY_VERSION = 0x20080522
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ_FILE, READ = 4, 1 | 4 | 8  # READ: execute and read files, list folders
FILE_RIGHTS = 1 | 2 | 4


@dataclass(frozen=True)
class Plan:
    """What is to be seen inside the walls.

    Attributes:
        visible: files and folders that Python needs, read-only; none of them lies in another one.
        links: symbolic links at the root, such as /lib, and where they lead.
        covered: folders within the visible ones that appear empty.
    """

    visible: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    covered: tuple[str, ...]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(_within(path, other) for other in kept):
            kept.append(path)
    return tuple(kept)


def plan(needed: Iterable[str], hidden: Iterable[str], shown: str | None) -> Plan:
    """Find what Python needs and what of it must be covered.

    Args:
        needed: folders of installed packages, beside Python's own.
        hidden: folders that must not be seen even if they lie within a visible one.
        shown: the package mlmkit, if it may be seen; None covers every copy of it.
    """
    system = [path for path in ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32") if os.path.exists(path)]
    links = tuple((path, os.readlink(path)) for path in system if os.path.islink(path))
    folders = [path for path in system if not os.path.islink(path)]
    for path in (
        sys.prefix,
        sys.base_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
        *needed,
        *([shown] if shown else ()),
    ):
        folders += [os.path.abspath(path), os.path.realpath(path)]
    if os.path.exists("/etc/ld.so.cache"):
        folders.append("/etc/ld.so.cache")
    visible = _outermost(path for path in folders if path != "/" and os.path.exists(path))
    beside = [os.path.join(path, HIDDEN_NAME) for path in sys.path if path and not shown]
    for prefix in () if shown else (sys.prefix, sys.base_prefix, "/usr", "/usr/local"):
        beside += glob.glob(f"{prefix}/lib*/python3*/*-packages/{HIDDEN_NAME}")
    forms = {form for path in (*hidden, *beside) for form in (os.path.abspath(path), os.path.realpath(path))}
    covered = _outermost(
        path
        for path in forms
        if os.path.isdir(path)
        and any(_within(path, folder) for folder in visible)
        and not any(_within(folder, path) for folder in visible)
    )
    return Plan(visible, links, covered)


# --- calls of the system -------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform != "win32" else None


def _call(name: str, *arguments: object) -> int:
    """Call a function of the C library; OSError if it fails."""
    found = getattr(_libc, name)(*arguments)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return int(found)


def _control(option: int, value: int) -> None:
    _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def conceal() -> None:
    """Let nobody without privileges read the memory of this process or trace it; Linux only, no error elsewhere."""
    if sys.platform == "linux":
        _control(DUMPABLE, 0)


def memory_mapped() -> int:
    """Address space of this process in bytes; 0 where /proc is missing."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


# --- the outer ring: namespaces and a root of its own --------------------------------------------------------


def map_ids(process: int) -> None:
    """Give the namespaces of a process their user and group ids; called by its parent, outside.

    Raises:
        OSError: the system does not allow it.
    """
    for kind, own in (("gid", os.getgid()), ("uid", os.getuid())):
        root = os.getuid() == 0
        if not root and kind == "gid":
            with open(f"/proc/{process}/setgroups", "w") as file:
                file.write("deny")
        lines = f"{own} {own} 1\n" + (f"{NOBODY} {NOBODY} 1\n" if root else "")
        with open(f"/proc/{process}/{kind}_map", "w") as file:
            file.write(lines)


def enclose(what: Plan, mapped: Callable[[], None]) -> None:
    """Move this process into namespaces of its own and under a new root; its children become their first processes.

    Args:
        what: is to be seen inside.
        mapped: lets the parent call `map_ids`, and returns when it has.

    Raises:
        OSError: the system does not allow it.
    """
    _call("unshare", NAMESPACES)
    _control(DUMPABLE, 1)  # otherwise the parent may not open the file of the ids
    mapped()
    _control(DUMPABLE, 0)
    os.umask(0o022)
    _call("sethostname", b"sandbox", 7)
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    new = "/proc"  # a folder that exists everywhere, and that nothing visible lies in
    _mount("tmpfs", new, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in ("/proc", "/tmp"):
        os.mkdir(new + path)
    _mount("tmpfs", new + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={TMP_BYTES},nr_inodes=2048,mode=1777")
    for path in (*what.visible, *DEVICES):  # some of them may lie in /tmp
        _prepare(path, new + path)
        _mount(path, new + path, None, MS_BIND | MS_REC)
    for link, target in what.links:
        os.symlink(target, new + link)
    for path in what.covered:
        _mount("tmpfs", new + path, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=555")
    _set_attributes(new, AT_RECURSIVE, MS_RDONLY | MS_NOSUID, 0)
    _set_attributes(new + "/tmp", 0, 0, MS_RDONLY)
    os.chdir(new)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir("/tmp")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    def text(value: str | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    _call("mount", text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data))


def _set_attributes(path: str, flags: int, wanted: int, unwanted: int) -> None:
    attributes = struct.pack("QQQQ", wanted, unwanted, 0, 0)
    _call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), flags, attributes, ctypes.c_size_t(32))


def _prepare(path: str, target: str) -> None:
    """Make the file or folder that another one is mounted on."""
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w"):
            pass


# --- the inner ring: limits, no privileges, fewer system calls -----------------------------------------------


def limit(cpu_seconds: int, memory: int, file_bytes: int, processes: int | None) -> None:
    """Set the resource limits of this process and of what it starts; none on Windows.

    Args:
        cpu_seconds: of all its threads.
        memory: address space in bytes, with what is mapped already; 0 sets no limit.
        file_bytes: length of any file it writes.
        processes: threads and processes; None sets no limit, since it would count all that the user runs.
    """
    if resource is None:
        return
    wanted = [("CPU", cpu_seconds), ("FSIZE", file_bytes), ("NOFILE", 64), ("CORE", 0)]
    wanted += [("AS", memory)] if memory else []
    wanted += [("NPROC", processes)] if processes is not None else []
    for name, value in wanted:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def lock(enclosed: bool, what: Plan | None, folder: str) -> None:
    """Give up every privilege for good, and refuse system calls that a submission has no use for; Linux only.

    Args:
        enclosed: whether this process is behind `enclose`; if not, Landlock takes the place of the new root.
        what: is to be seen; only read if not enclosed.
        folder: the only one that may be written to if not enclosed.

    Raises:
        OSError: something of what every Linux allows has failed.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # only where it is allowed, and there it matters
        for capability in range(64):
            _control(CAPBSET_DROP, capability)
    if enclosed and os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("capset", struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24))
    _control(NO_NEW_PRIVS, 1)
    _control(PDEATHSIG, signal.SIGKILL)
    _control(DUMPABLE, 0)
    if not enclosed and what is not None:
        with contextlib.suppress(OSError):
            _landlock(what, folder)
    with contextlib.suppress(OSError):
        _filter_calls()


# Numbers of x86_64 and aarch64; −1: has none. What starts processes or shares memory that no limit counts, sockets,
# other processes, mounts and namespaces, and what is known for holes in the kernel.
_REFUSED = (
    ("fork", 57, -1), ("vfork", 58, -1), ("execve", 59, 221), ("execveat", 322, 281), ("socket", 41, 198),
    ("ptrace", 101, 117), ("process_vm_readv", 310, 270), ("process_vm_writev", 311, 271), ("tkill", 200, 130),
    ("rt_sigqueueinfo", 129, 138), ("rt_tgsigqueueinfo", 297, 240), ("pidfd_open", 434, 434),
    ("pidfd_send_signal", 424, 424), ("pidfd_getfd", 438, 438), ("shmget", 29, 194), ("msgget", 68, 186),
    ("semget", 64, 190), ("mq_open", 240, 180), ("memfd_create", 319, 279), ("memfd_secret", 447, 447),
    ("mount", 165, 40), ("unshare", 272, 97), ("setns", 308, 268), ("open_tree", 428, 428), ("move_mount", 429, 429),
    ("fsopen", 430, 430), ("fsconfig", 431, 431), ("fsmount", 432, 432), ("mount_setattr", 442, 442),
    ("io_uring_setup", 425, 425), ("bpf", 321, 280), ("perf_event_open", 298, 241), ("userfaultfd", 323, 282),
    ("keyctl", 250, 219), ("add_key", 248, 217), ("request_key", 249, 218), ("kcmp", 312, 272),
)  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E, 56, (62, 234)), "aarch64": (1, 0xC00000B7, 220, (129, 131))}
_CLONE3, _CLONE_THREAD, _PRLIMIT = 435, 0x00010000, (302, 261)


def _filter_calls() -> None:
    """Let the refused calls fail as not permitted; threads may be started, and signals sent to oneself."""
    if platform.machine() not in _MACHINES or sys.maxsize < 2**32:
        return
    column, architecture, clone, own_signals = _MACHINES[platform.machine()]
    allow, refuse = (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | 1)
    argument, equal, flag = (0x20, 0, 0, 16), 0x15, 0x45
    program = [(0x20, 0, 0, 4), (equal, 1, 0, architecture), refuse, (0x20, 0, 0, 0), (0x35, 0, 1, 0x40000000), refuse]
    for _, *numbers in _REFUSED:
        if numbers[column] >= 0:
            program += [(equal, 0, 1, numbers[column]), refuse]
    program += [(equal, 0, 1, _CLONE3), (0x06, 0, 0, 0x00050000 | 38)]  # "no such call": the C library takes clone
    program += [(equal, 0, 4, clone), argument, (flag, 0, 1, _CLONE_THREAD), allow, refuse]
    for number in own_signals:
        program += [(equal, 0, 4, number), argument, (equal, 0, 1, os.getpid()), allow, refuse]
    program += [(equal, 0, 4, _PRLIMIT[column]), argument, (equal, 0, 1, 0), allow, refuse, allow]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    _call("prctl", SECCOMP, ctypes.c_ulong(2), header, ctypes.c_ulong(0), ctypes.c_ulong(0))


def _landlock(what: Plan, folder: str) -> None:
    """Allow the files of the plan to be read and one folder to be written to, and nothing else of the file system."""
    version = _call("syscall", LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    size = 24 if version >= 6 else 8  # from the sixth version on, signals and abstract sockets are kept in, too
    rules = _call("syscall", LANDLOCK_CREATE, struct.pack("QQQ", rights, 0, 3), ctypes.c_size_t(size), 0)

    def allow(path: str, right: int) -> None:
        with contextlib.suppress(OSError):
            entry = os.open(path, os.O_PATH | os.O_CLOEXEC)
            right &= rights if os.path.isdir(path) else FILE_RIGHTS
            _call("syscall", LANDLOCK_ADD, rules, 1, struct.pack("=Qi", right, entry), 0)
            os.close(entry)

    def show(path: str) -> None:
        if path in what.covered:
            return
        if not any(_within(hidden, path) for hidden in what.covered):
            return allow(path, READ)
        allow(path, READ & ~READ_FILE)  # names only
        for name in os.listdir(path):
            show(os.path.join(path, name))

    for path in what.visible:
        show(path)
    for device in DEVICES:
        allow(device, FILE_RIGHTS)
    allow(folder, rights)
    _call("syscall", LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)
