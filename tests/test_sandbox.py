"""The sandbox: answers come out as data, and whatever a submission does, it does to itself alone."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlmkit.grading import plain
from mlmkit.grading.plain import Other, PlainError, Rng, Torch
from mlmkit.grading.requests import Limits, Outcome, Protections, Request, Turn
from mlmkit.grading.sandbox import Kind, Sandbox
from mlmkit.grading.walls import plan
from mlmkit.grading.workers import SandboxError

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Limits(seconds=8.0, cpu_seconds=10, memory=256 * 2**20, output=200_000)
HONEST = "import numpy as np\n\ndef double(x):\n    return 2 * x\n"


def ask(sandbox: Sandbox, *cells: str, name: str = "f", inputs: Any = ({},), seconds: float = 5.0) -> Outcome:
    turns = [Turn(name)] if inputs is None else [Turn(name, given) for given in inputs]
    return sandbox.run(Request(cells, tuple(turns), seconds))


def function(body: str) -> str:
    """A cell with a function f, without parameters."""
    return "def f():\n" + "".join(f"    {line}\n" for line in body.splitlines())


def values(outcome: Outcome) -> list[Any]:
    """The values of all answers; none may be missing."""
    assert outcome.status == "answered", outcome
    assert [answer.kind for answer in outcome.answers] == ["value"] * len(outcome.answers), outcome
    return [answer.value for answer in outcome.answers]


def value(sandbox: Sandbox, body: str) -> Any:
    return values(ask(sandbox, function(body)))[0]


def answers_honestly(sandbox: Sandbox) -> None:
    outcome = ask(sandbox, HONEST, name="double", inputs=({"x": np.arange(3.0)}, {"x": 4}))
    first, second = values(outcome)
    np.testing.assert_array_equal(first, [0.0, 2.0, 4.0])
    assert second == 8


@pytest.fixture(scope="module")
def opened() -> Iterator[Sandbox]:
    with Sandbox(LIMITS) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(opened: Sandbox) -> Iterator[Sandbox]:
    """After each test, whatever happened in it, the next honest request is answered right."""
    yield opened
    answers_honestly(opened)


@pytest.fixture
def walled(sandbox: Sandbox) -> Sandbox:
    if not sandbox.protections.complete:
        pytest.skip(str(sandbox.protections))
    return sandbox


@pytest.fixture
def enclosed(sandbox: Sandbox) -> Sandbox:
    if sandbox.kind != "enclosed":
        pytest.skip("this system allows no namespaces")
    return sandbox


# --- what an honest submission sees --------------------------------------------------------------------------


def test_values_go_in_and_come_out_as_they_are(sandbox: Sandbox) -> None:
    given = {"a": [1, 2.5, "three", None, True], "b": {"c": (1, 2), (3, 4): {5}}, "d": np.eye(2, dtype=np.float32)}
    (found,) = values(ask(sandbox, "def f(**given):\n    return given", inputs=(given,)))
    assert found["a"] == given["a"]
    assert found["b"] == given["b"]
    assert found["d"].dtype == np.float32
    np.testing.assert_array_equal(found["d"], np.eye(2))


def test_tensors_arrive_as_tensors_and_come_back_as_arrays(sandbox: Sandbox) -> None:
    cell = "import torch\ndef f(x):\n    assert isinstance(x, torch.Tensor)\n    return x.softmax(-1), x.sum()"
    ((soft, total),) = values(ask(sandbox, cell, inputs=({"x": Torch(np.zeros(4))},)))
    np.testing.assert_allclose(soft, 0.25)
    assert isinstance(soft, np.ndarray)
    assert total.shape == ()


def test_every_call_gets_fresh_inputs(sandbox: Sandbox) -> None:
    cell = "def f(x, rng):\n    x += 1\n    return x, rng.random()"
    given = {"x": Torch(np.zeros(2)), "rng": Rng(3)}
    first, second = values(ask(sandbox, cell, inputs=(given, given)))
    np.testing.assert_array_equal(first[0], [1, 1])
    np.testing.assert_array_equal(second[0], [1, 1])
    assert first[1] == second[1] == np.random.default_rng(3).random()


def test_what_is_drawn_without_a_seed_is_the_same_each_time(sandbox: Sandbox) -> None:
    cell = function("import random, numpy as np, torch\nreturn random.random(), np.random.rand(), torch.rand(1)")
    assert values(ask(sandbox, cell)) == values(ask(sandbox, cell))


def test_a_variable_can_be_asked_for(sandbox: Sandbox) -> None:
    assert values(ask(sandbox, "answer = [1, 2]", "answer.append(3)", name="answer", inputs=None)) == [[1, 2, 3]]


def test_names_that_are_missing_or_no_functions_are_told_apart(sandbox: Sandbox) -> None:
    assert [answer.kind for answer in ask(sandbox, "g = 1", inputs=({}, {})).answers] == ["missing", "missing"]
    assert ask(sandbox, "f = 1").answers[0].kind == "not callable"


def test_no_inputs_mean_no_answers(sandbox: Sandbox) -> None:
    outcome = ask(sandbox, "f = 1", inputs=())
    assert (outcome.status, outcome.loaded, outcome.answers) == ("answered", True, ())


def test_an_error_comes_with_the_learners_line(sandbox: Sandbox) -> None:
    outcome = ask(sandbox, "import numpy as np", "def f(x):\n    return np.linalg.inv(x)", inputs=({"x": [[0]]},))
    (answer,) = outcome.answers
    assert (answer.kind, answer.error) == ("error", "LinAlgError: Singular matrix")
    assert answer.where == "cell 2, line 2: return np.linalg.inv(x)"


def test_a_task_that_was_not_begun_says_so(sandbox: Sandbox) -> None:
    outcome = ask(sandbox, function("raise NotImplementedError('Task 3.2: write softmax')"))
    assert outcome.answers[0].error == "NotImplementedError: Task 3.2: write softmax"


def test_a_cell_that_raises_does_not_stop_the_next(sandbox: Sandbox) -> None:
    outcome = ask(sandbox, "1 / 0", "def f(:", "exit()", "input('name?')", "def f():\n    return 1")
    assert values(outcome) == [1]
    assert [number for number, _ in outcome.cell_errors] == [1, 2, 3, 4]
    first, second, third, fourth = (text for _, text in outcome.cell_errors)
    assert first == "ZeroDivisionError: division by zero"
    assert second == "SyntaxError: invalid syntax (cell 2, line 1)"
    assert third.startswith("SystemExit")
    assert "nobody to ask" in fourth


def test_cells_are_a_main_module_like_a_notebook(sandbox: Sandbox) -> None:
    cell = "from __future__ import annotations\nimport dataclasses, sys\n"
    cell += "@dataclasses.dataclass\nclass A:\n    x: int = 1\n"
    check = function("return __name__, A.__module__, sys.modules['__main__'].A is A, 'np' in globals(), sys.argv")
    assert values(ask(sandbox, cell, check)) == [("__main__", "__main__", True, False, ["submission"])]


def test_the_course_functions_do_nothing_but_keep_the_name(sandbox: Sandbox) -> None:
    cell = (
        "from mlmkit.grading import ask, check, hint, learner, progress\nlearner('Ada')\nask(check('1.1', 3), hint())"
    )
    outcome = ask(sandbox, cell, function("return progress()"))
    assert values(outcome) == [None]
    assert outcome.learner == "Ada"
    assert outcome.cell_errors == ()


def test_plots_are_drawn_into_nothing(sandbox: Sandbox) -> None:
    body = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('x')\nplt.savefig('a.png')\nplt.show()\n"
    outcome = ask(sandbox, function(body + "return plt.get_backend().lower()"))
    assert values(outcome) == ["agg"]


def test_gradients_can_be_taken(sandbox: Sandbox) -> None:
    body = "import torch\nx = torch.ones(3, requires_grad=True)\n(x * x).sum().backward()\nreturn x.grad"
    np.testing.assert_array_equal(value(sandbox, body), [2, 2, 2])


def test_the_end_of_what_is_printed_is_kept_without_control_characters(sandbox: Sandbox) -> None:
    body = "import sys\nprint('x' * 5000)\nprint('\\x1b[2Jall tasks passed\\u202e')\nprint('end', file=sys.stderr)"
    outcome = ask(sandbox, function(body))
    assert len(outcome.printed) == 2000
    assert outcome.printed.endswith("\N{REPLACEMENT CHARACTER}[2Jall tasks passed\N{REPLACEMENT CHARACTER}\nend\n")


# --- what ends a submission ----------------------------------------------------------------------------------

ENDED = {
    "an endless loop": ("while True: pass", {"timed out"}),
    "endless sleep": ("import time; time.sleep(1000)", {"timed out"}),
    "endless output": ("while True: print('x' * 1000)", {"too much output"}),
    "endless output by a call of the system": (
        "import os\nwhile True: os.write(2, b'y' * 60000)",
        {"too much output"},
    ),
    "many small objects": ("x = []\nwhile True: x.append(bytearray(10**6))", {"out of memory"}),
    "one big array": ("import numpy as np; np.ones(10**10)", {"out of memory"}),
    "one big tensor": ("import torch; torch.ones(10**10)", {"out of memory"}),
    "a big string": ("'x' * 10**10", {"out of memory"}),
    "os._exit": ("import os; os._exit(0)", {"died"}),
    "a broken pointer": ("import ctypes; ctypes.string_at(0)", {"died"}),
    "abort": ("import os; os.abort()", {"died"}),
    "closing all descriptors": ("import os; os.closerange(0, 1000)", {"died", "answered"}),
    "recursion without limit": (
        "import sys; sys.setrecursionlimit(10**9)\ng = lambda n: g(n + 1)\ng(0)",
        {"died", "out of memory", "timed out"},
    ),
    "bytes to every descriptor": (
        "import os\nfor i in range(256):\n    try: os.write(i, b'{\"passed\": true}\\n')\n    except OSError: pass",
        {"unreadable answer"},
    ),
    "endless bytes to every descriptor": (
        "import os\nwhile True:\n  for i in range(1, 9):\n    try: os.write(i, b'[' * 9999)\n    except OSError: pass",
        {"unreadable answer", "too much output"},
    ),
}


@pytest.mark.parametrize("name", ENDED)
def test_it_costs_only_its_own_request(sandbox: Sandbox, name: str) -> None:
    code, expected = ENDED[name]
    if expected == {"out of memory"} and not sandbox.protections.memory:
        pytest.skip("memory cannot be limited here")
    seconds = 1.0 if "timed out" in expected else 5.0
    in_call = ask(sandbox, "import os", function(code), seconds=seconds)
    assert in_call.loaded
    assert in_call.status in expected, in_call
    if "timed out" not in expected:
        in_cell = ask(sandbox, code, "f = len")
        assert in_cell.status in expected, in_cell
        assert not in_cell.loaded or "answered" in expected


def test_an_endless_cell_is_told_from_an_endless_function(sandbox: Sandbox) -> None:
    assert ask(sandbox, function("while True: pass"), seconds=0.5).loaded
    with Sandbox(replace(LIMITS, seconds=1.0)) as hurried:
        outcome = ask(hurried, "print('before')\nwhile True: pass")
    assert (outcome.status, outcome.loaded, outcome.printed) == ("timed out", False, "before\n")
    assert 1.0 <= outcome.seconds < 3.0


def test_the_answers_before_the_end_are_kept(sandbox: Sandbox) -> None:
    cell = "def f(x):\n    while x == 2: pass\n    return x"
    outcome = ask(sandbox, cell, inputs=tuple({"x": x} for x in range(4)), seconds=0.5)
    assert outcome.status == "timed out"
    assert [answer.value for answer in outcome.answers] == [0, 1]


def test_catching_every_error_does_not_help_against_the_clock(sandbox: Sandbox) -> None:
    code = (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\n"
    )
    code += "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    assert ask(sandbox, function(code), seconds=0.5).status == "timed out"


# --- what stays without effect -------------------------------------------------------------------------------

REFUSED = {
    "a fork bomb": "import os\nwhile True: os.fork()",
    "another program": "import subprocess; subprocess.run(['/bin/sh', '-c', 'echo'])",
    "becoming another program": "import os; os.execv('/bin/sh', ['sh'])",
    "killing the parent": "import os; os.kill(os.getppid() or 2, 9)",
    "killing everybody": "import os; os.kill(-1, 9)",
    "a socket": "import socket; socket.socket()",
    "becoming root": "import os; os.setuid(0) if os.getuid() else os.setgroups([1, 2])",
    "writing beside Python": "import os; open(os.path.join(os.path.dirname(os.__file__), 'x.py'), 'w')",
    "filling the disk": "import os\nfor i in range(99): open(f'/tmp/{i}', 'wb').write(bytes(10**6))",
    "one long file": "import os\nf = open('long', 'wb')\nwhile True: f.write(bytes(10**6)); f.flush()",
    "reading /proc": "open('/proc/1/environ', 'rb').read() or 1 / 0",
    "reading /etc/passwd": "open('/etc/passwd').read()",
    "looking into the home folder": "import os; os.listdir('/root'); os.listdir('/home'); 1 / 0",
    "reading the exercises": f"open({str(ROOT / 'exercises' / 'syllabus.yml')!r}).read()",
    "reading the course's sources": f"open({str(ROOT / 'mlmkit' / 'masking.py')!r}).read()",
    "reading the sandbox's sources": f"open({str(ROOT / 'mlmkit' / 'grading' / 'plain.py')!r}).read()",
    "import": "import mlmkit",
    "from import": "from mlmkit import masking",
    "importlib": "import importlib; importlib.import_module('mlmkit.masking')",
    "__import__": "__import__('mlmkit.grading.plain')",
    "import without the hook": "import sys\ndel sys.meta_path[0]\nimport mlmkit.masking",
    "import by path": f"import sys\ndel sys.meta_path[0]\nsys.path.insert(0, {str(ROOT)!r})\nimport mlmkit.masking",
    "runpy": f"import runpy; runpy.run_path({str(ROOT / 'mlmkit' / 'masking.py')!r})",
    "threads without end": "from threading import Event, Thread\nwhile True: Thread(target=Event().wait).start()",
    "recursion": "def g(): return g()\ng()",
}
ERRORS = {
    "recursion": "RecursionError",
    "threads without end": "RuntimeError: can't start",
    "looking into the home folder": "",
}
ONLY_ENCLOSED = {"filling the disk", "becoming root"}


@pytest.mark.parametrize("name", REFUSED)
def test_it_raises_an_error(walled: Sandbox, name: str) -> None:
    if name in ONLY_ENCLOSED and walled.kind != "enclosed":
        pytest.skip("without namespaces this is not kept out")
    outcome = ask(walled, function(REFUSED[name]))
    assert outcome.status == "answered", outcome
    (answer,) = outcome.answers
    assert answer.kind == "error"
    known = ("PermissionError", "FileNotFoundError", "ModuleNotFoundError", "OSError", "BlockingIOError")
    assert answer.error.startswith(ERRORS.get(name, known)), answer
    assert "ZeroDivision" not in answer.error


def test_the_course_is_refused_with_its_reason(sandbox: Sandbox) -> None:
    for statement in ("import mlmkit", "from mlmkit.masking import select", "__import__('mlmkit')"):
        (answer,) = ask(sandbox, function(statement)).answers
        reason = "mlmkit is not there when work is marked: the task asks for your own code"
        assert answer.error == f"ModuleNotFoundError: {reason}"


def test_killing_oneself_costs_nobody_else(sandbox: Sandbox) -> None:
    outcome = ask(sandbox, function("import os; os.kill(os.getpid(), 9); return 1"))
    assert outcome.status in ("died", "answered")  # the first process of a namespace cannot even do that


def test_a_thread_does_not_outlive_its_request(sandbox: Sandbox) -> None:
    body = "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\nreturn 1"
    start = time.monotonic()
    assert value(sandbox, body) == 1
    assert time.monotonic() - start < 2


def test_the_environment_holds_nothing_of_the_judge(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", "secret")
    with Sandbox(LIMITS) as other:
        found = value(other, "import os; return dict(os.environ)")
    assert set(found) <= {"PATH", "LANG", "MPLBACKEND", "MPLCONFIGDIR", "TMPDIR", "TEMP", "LC_CTYPE"} | {
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    }
    assert "secret" not in str(found)


def test_only_its_own_channels_are_open(walled: Sandbox) -> None:
    body = "import os\nfound = []\nfor i in range(2000):\n    try:\n        os.fstat(i)\n        found.append(i)\n"
    body += "    except OSError: pass\n"
    assert value(walled, body + "return found") == [0, 1, 2, 3]


def test_it_is_alone_and_sees_no_other_process(enclosed: Sandbox) -> None:
    assert value(enclosed, "import os; return os.getpid(), os.getppid(), os.listdir('/proc')") == (1, 0, [])


def test_it_is_nobody_and_cannot_get_privileges_back(enclosed: Sandbox) -> None:
    body = "import ctypes, os\nlibc = ctypes.CDLL(None)\nreturn os.getuid(), libc.unshare(0x10000000), "
    body += "libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None), libc.ptrace(0, 0, 0, 0), libc.chroot(b'/tmp')"
    user, *failed = value(enclosed, body)
    assert user != 0
    assert failed == [-1] * 4


def test_nothing_is_left_for_the_next_request(sandbox: Sandbox) -> None:
    body = "import os, tempfile\nfolder = tempfile.gettempdir()\nfound = os.listdir(folder), os.listdir('.')\n"
    body += "open(os.path.join(folder, 'left.txt'), 'w').write('for the next')\nreturn found"
    before = value(sandbox, body)  # nothing but, perhaps, a folder on the way to a Python that is installed there
    assert value(sandbox, body) == before
    assert "left.txt" not in before[0]


def test_no_address_is_reached(walled: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        outcome = ask(walled, function(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"))
        assert outcome.answers[0].kind == "error"
        with pytest.raises(TimeoutError):
            server.accept()


def test_what_is_changed_in_python_is_changed_for_itself_only(sandbox: Sandbox) -> None:
    body = (
        "import atexit, builtins, json, os, sys, numpy as np\n"
        "sys.settrace(lambda *a: 1 / 0)\n"
        "atexit.register(lambda: print('still here'))\n"
        "json.dumps = np.asarray = np.random.default_rng = lambda *a, **k: 'passed'\n"
        "os._exit = lambda status: None\n"
        "builtins.isinstance = lambda *a: True\n"
        "for module in list(sys.modules.values()): getattr(module, '__dict__', {}).pop('dumps', None)\n"
        "return 1"
    )
    assert ask(sandbox, function(body)).status in ("answered", "died", "unreadable answer")


def test_later_inputs_are_not_there_before_they_are_asked_for(sandbox: Sandbox) -> None:
    cell = (
        "import gc\ndef f(x):\n    return [s for o in gc.get_objects() for s in (o.values() if type(o) is dict else ())"
    )
    cell += " if type(s) is str and s.startswith('zebra') and s != x]"
    first, second = values(ask(sandbox, cell, inputs=({"x": "zebra 1"}, {"x": "zebra 2"})))
    assert "zebra 2" not in first
    assert second == []


# --- what comes back -----------------------------------------------------------------------------------------


def test_a_huge_answer_is_an_error(sandbox: Sandbox) -> None:
    (answer,) = ask(sandbox, function("import numpy as np; return np.zeros(2_000_000)")).answers
    assert answer.error.startswith("ValueError: the answer takes 21,333,")


@pytest.mark.parametrize("body", ["x = []\nfor _ in range(999): x = [x]\nreturn x", "x = []; x.append(x); return x"])
def test_a_deep_answer_is_an_error(sandbox: Sandbox, body: str) -> None:
    assert ask(sandbox, function(body)).answers[0].error == "PlainError: nested more than 40 deep"


def test_what_is_no_data_is_only_named(sandbox: Sandbox) -> None:
    assert value(sandbox, "yield 1") == Other("generator")
    assert value(sandbox, "return [print, object(), b'cos', 1j]") == [
        Other("builtin_function_or_method"),
        Other("object"),
        Other("bytes"),
        Other("complex"),
    ]


def test_an_object_that_pickles_into_a_command_runs_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "made"
    body = f"class A:\n    def __reduce__(self): return (open, ({str(target)!r}, 'w'))\n"
    body += "import pickle, numpy as np\nreturn [A(), pickle.dumps(A()), np.array([A()])]"
    found = value(sandbox, body)
    assert all(isinstance(item, Other) for item in found)
    assert not target.exists()


LIARS = {
    "a list by its class": "class A:\n    __class__ = list\n    def __iter__(self): return iter([1])\nreturn A()",
    "a text equal to all": "class A(str):\n    __eq__ = lambda self, other: True\nreturn A('no')",
    "a number equal to all": "class A(int):\n    __eq__ = lambda self, other: True\nreturn A(7)",
    "an array equal to all": (
        "import numpy as np\nclass A(np.ndarray):\n    __eq__ = lambda self, other: True\nreturn np.ones(2).view(A)"
    ),
}


@pytest.mark.parametrize("name", LIARS)
def test_an_object_that_lies_arrives_as_what_it_is(sandbox: Sandbox, name: str) -> None:
    found = value(sandbox, LIARS[name])
    assert type(found) in (list, str, int, np.ndarray, Other)
    assert not np.all(found == 99)


def test_a_mapping_without_end_costs_only_its_own_request(sandbox: Sandbox) -> None:
    body = "import collections.abc, itertools\nclass A(collections.abc.Mapping):\n    __len__ = __getitem__ = None\n"
    body += "    def __iter__(self): return itertools.count()\n    def items(self): return ((i, i) for i in self)\n"
    assert ask(sandbox, function(body + "return A()"), seconds=1.0).status in ("timed out", "out of memory")


def forged(*messages: dict[str, Any]) -> str:
    written = b"".join(plain.dumps(message) for message in messages)
    return f"import os\nos.write(3, {written!r})\nimport time; time.sleep(0.2)"


LOADED = {"loaded": True, "errors": [], "learner": "Eve"}


def test_a_forged_message_is_no_more_than_an_answer(walled: Sandbox) -> None:
    """Only what was asked for is read, once, and it says what was answered, never whether it is right."""
    verdict = {"kind": "value", "value": 1, "passed": True, "points": 99}
    in_time = ask(walled, function(forged(verdict)))
    assert in_time.answers in ((), (in_time.answers[0],))
    assert not hasattr(in_time, "points")
    assert ask(walled, forged(LOADED, verdict), function("return 2")).status == "unreadable answer"
    assert ask(walled, forged(verdict), function("return 2")).status == "unreadable answer"
    late = ask(walled, forged(LOADED), function("return 2"))
    assert (late.status, late.answers) == ("unreadable answer", ())


BROKEN = {
    "no data": b"passed",
    "deep": b"[" * 100_000,
    "a list": b"[1]",
    "an unknown kind": plain.dumps({"kind": "passed"}).strip(),
    "an array for a kind": plain.dumps({"kind": np.zeros(2), "value": 1}).strip(),
    "a million lists": b"[" + b"[]," * 1_000_001 + b"[]]",
    "a false error": plain.dumps({"kind": "error", "error": 1, "where": []}).strip(),
    "no text": b"\xff\xfe\x00",
    "a huge number": b'{"$":"dict","items":[["kind","value"],["value",' + b"9" * 4000 + b"]]}",
    "half a character": b'{"$":"dict","items":[["kind","value"],["value","\\ud800"]]}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_message_is_an_unreadable_answer(walled: Sandbox, name: str) -> None:
    code = f"import os, time\nos.write(3, {BROKEN[name] + chr(10).encode()!r})\ntime.sleep(0.5)"
    assert ask(walled, function(code)).status == "unreadable answer"


def test_keys_made_to_collide_are_refused_at_once() -> None:
    """Tuples of −1 and −2, which have the same hash value: a set of 40,000 of them would take minutes."""
    tuples = [{"$": "tuple", "items": [-1 - (i >> k & 1) for k in range(17)]} for i in range(40_000)]
    start = time.process_time()
    for message in ({"$": "set", "items": tuples}, {"$": "dict", "items": [[key, 0] for key in tuples]}):
        with pytest.raises(PlainError, match="equal hash values"):
            plain.decode(message)
    assert time.process_time() - start < 4


def test_truth_values_are_0_or_1_whatever_bytes_arrive() -> None:
    found = plain.loads(json.dumps({"$": "array", "dtype": "bool", "shape": [2], "data": "AgA="}).encode())
    assert found.tolist() == [True, False]
    assert found.astype(int).sum() == 1


# --- the sandbox itself --------------------------------------------------------------------------------------


def test_it_starts_again_when_its_process_was_killed(sandbox: Sandbox) -> None:
    if sandbox.kind == "spawned":
        pytest.skip("no process is kept")
    sandbox._host.process.kill()  # type: ignore[union-attr]
    answers_honestly(sandbox)


def test_several_work_side_by_side(sandbox: Sandbox) -> None:
    def work(kept: Sandbox) -> Callable[[], None]:
        return lambda: [failures.append(repr(e)) for e in [attempt(kept) for _ in range(3)] if e]  # type: ignore[func-returns-value]

    def attempt(kept: Sandbox) -> Exception | None:
        try:
            answers_honestly(kept)
        except Exception as error:
            return error
        return None

    failures: list[str] = []
    with Sandbox(LIMITS) as other:
        threads = [threading.Thread(target=work(kept)) for kept in (sandbox, other, sandbox, other)]
        for thread in threads:
            thread.start()
        ask(other, function("import os; os._exit(1)"))
        for thread in threads:
            thread.join()
    assert failures == []


def test_no_descriptor_is_lost(sandbox: Sandbox) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no /proc to count them in")
    answers_honestly(sandbox)
    before = len(os.listdir("/proc/self/fd"))
    for code in ("return 1", "import os; os._exit(1)", "while True: print('x' * 999)"):
        ask(sandbox, function(code))
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("kind", ["locked", "spawned"])
def test_without_namespaces_it_says_which_walls_stand_and_they_do(kind: Kind) -> None:
    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(Sandbox(LIMITS, kind))
        except SandboxError as error:
            pytest.skip(str(error))
        answers_honestly(sandbox)
        stand = sandbox.protections
        assert stand.own_process
        for name, wall in (
            ("a fork bomb", stand.processes),
            ("killing the parent", stand.other_processes),
            ("a socket", stand.network),
            ("reading the exercises", stand.file_system),
            ("import by path", stand.file_system),
            ("reading /proc", stand.file_system),
        ):
            if wall:
                assert ask(sandbox, function(REFUSED[name])).answers[0].kind == "error", name
        if stand.memory:
            assert ask(sandbox, ENDED["many small objects"][0]).status == "out of memory"
        assert ask(sandbox, function("while True: pass"), seconds=0.5).status == "timed out"
        answers_honestly(sandbox)


def test_a_hidden_folder_within_a_visible_one_is_covered(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    (packages / "mlmkit" / "grading").mkdir(parents=True)
    (packages / "numpy").mkdir()
    hidden = (str(packages / "mlmkit"), str(packages / "mlmkit" / "grading"), str(tmp_path), str(ROOT / "exercises"))
    found = plan([str(packages)], hidden, None)
    assert str(packages) in found.visible
    assert hidden[0] in found.covered  # and with it what lies in it
    assert not {hidden[1], hidden[2], hidden[3]} & set(found.covered)  # the others are not visible at all


def test_the_report_names_what_stands_and_what_does_not() -> None:
    assert "cannot reach the network" in str(Protections(network=True))
    assert "but on this system it can" in str(Protections())
    assert not Protections(network=True).complete
    assert Protections(True, True, True, True, True, True).complete


def test_several_variables_are_given_in_one_request():
    with Sandbox(LIMITS) as sandbox:
        outcome = sandbox.run(Request(("a, b = 1, [2]",), (Turn("a"), Turn("b"), Turn("c"))))
    assert [(answer.kind, answer.value) for answer in outcome.answers] == [
        ("value", 1),
        ("value", [2]),
        ("missing", None),
    ]


def test_mlmkit_is_there_only_where_it_is_asked_for():
    cells = ("import mlmkit\nversion = mlmkit.__version__",)
    with Sandbox(LIMITS, with_mlmkit=True) as sandbox:
        assert sandbox.run(Request(cells, (Turn("version"),))).answers[0].kind == "value"
        hidden = sandbox.run(
            Request(("import pathlib\nx = len(list(pathlib.Path('/').rglob('exercises/source/*')))",), (Turn("x"),))
        )
        if sandbox.protections.complete:
            assert hidden.answers[0].value == 0, "the exercises with their solutions are hidden there too"
    with Sandbox(LIMITS) as sandbox:
        assert sandbox.run(Request(cells, (Turn("version"),))).answers[0].kind == "missing"
