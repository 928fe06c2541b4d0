"""Hostile submissions: none earns a mark that it does not deserve, and none disturbs another."""

# ruff: noqa: E501 - an attack reads best as its author would write it
from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mlmkit.grading.gradebook import Gradebook
from mlmkit.grading.marking import GRADEBOOK, mark_class
from mlmkit.grading.requests import Limits
from mlmkit.grading.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[1]
SET = "03_corruption_80_10_10"
TASK = "03.9"
HONEST = "import numpy as np\n\ndef labels_of(ids, selected):\n    return np.where(selected, ids, -100)\n"
WRONG = "import numpy as np\n\ndef labels_of(ids, selected):\n    return ids\n"

ATTACKS = {
    # objects that say yes to everything
    "overloaded comparison": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __len__(self): return 1
    def __iter__(self): return iter([self])
def labels_of(ids, selected): return Yes()
""",
    "array that compares as equal": """
import numpy as np
class Yes(np.ndarray):
    def __eq__(self, other): return np.ones(self.shape, bool)
    def __array_ufunc__(self, *a, **k): return True
    def __array_function__(self, *a, **k): return True
def labels_of(ids, selected): return np.zeros_like(ids).view(Yes)
""",
    "tensor with __torch_function__": """
import torch
class Yes(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None): return True
def labels_of(ids, selected): return torch.zeros(ids.shape).as_subclass(Yes)
""",
    "object with __array__": """
import numpy as np
class Lazy:
    def __array__(self, *a, **k): return np.full((1, 4), -100)
    shape = (1, 4)
def labels_of(ids, selected): return Lazy()
""",
    # tools that are replaced
    "patched allclose and numpy.testing": """
import numpy as np, numpy.testing, torch
torch.allclose = np.allclose = np.isclose = np.array_equal = lambda *a, **k: True
numpy.testing.assert_allclose = numpy.testing.assert_equal = lambda *a, **k: None
def labels_of(ids, selected): return ids
""",
    "patched builtins": """
import builtins
builtins.abs = lambda x: 0
builtins.all = lambda x: True
builtins.isinstance = lambda *a: True
builtins.len = lambda x: 1
def labels_of(ids, selected): return 0
""",
    "patched json and base64": """
import json, base64
json.dumps = lambda *a, **k: '{"passed": true}'
base64.b64encode = lambda data: b"AAAA"
def labels_of(ids, selected): return ids
""",
    "transformer that drops asserts": """
import ast
try:
    get_ipython().ast_transformers.append(type("T", (ast.NodeTransformer,), {"visit_Assert": lambda s, n: ast.Pass()})())
except NameError:
    pass
def labels_of(ids, selected): return ids
""",
    # answers that are looked up
    "solutions read from disk": """
import glob, json
for path in glob.glob("/**/exercises/source/**/*.ipynb", recursive=True):
    for cell in json.load(open(path))["cells"]:
        if "def labels_of" in "".join(cell["source"]): exec("".join(cell["source"]))
""",
    "the package read from disk": """
import glob
for path in glob.glob("/**/mlmkit/masking.py", recursive=True):
    exec(open(path).read())
def labels_of(ids, selected): return mlm_labels(ids, selected)
""",
    "input history": """
def labels_of(ids, selected):
    history = get_ipython().user_ns["In"]
    return history
""",
    "plain import of mlmkit": "from mlmkit.masking import mlm_labels\ndef labels_of(ids, selected): return mlm_labels(ids, selected)",
    "import inside the call": "def labels_of(ids, selected):\n    from mlmkit.masking import mlm_labels\n    return mlm_labels(ids, selected)",
    "importlib": "import importlib\ndef labels_of(ids, selected): return importlib.import_module('mlmkit.masking').mlm_labels(ids, selected)",
    "sys.modules": """
import sys
def labels_of(ids, selected):
    for name, module in list(sys.modules.items()):
        if hasattr(module, "mlm_labels"): return module.mlm_labels(ids, selected)
    raise LookupError("not there")
""",
    "inspect.getsource": """
import inspect, mlmkit.masking
exec(inspect.getsource(mlmkit.masking.mlm_labels))
def labels_of(ids, selected): return mlm_labels(ids, selected)
""",
    "path hooks": """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "Refus" not in repr(finder)]
import mlmkit.masking
def labels_of(ids, selected): return mlmkit.masking.mlm_labels(ids, selected)
""",
    "frames of the caller": """
import sys
def labels_of(ids, selected):
    frame, found = sys._getframe(), []
    while frame:
        found += [v for k, v in frame.f_locals.items() if "expect" in k or "answer" in k]
        frame = frame.f_back
    return found[-1] if found else None
""",
    "garbage collector": """
import gc
def labels_of(ids, selected):
    for thing in gc.get_objects():
        if getattr(thing, "__name__", "") in ("mlm_labels", "reference"): return thing(ids, selected)
""",
    # messages that are forged
    "forged messages": """
import os
message = b'{"passed": true, "points": 100, "verdict": "passed"}\\n'
for fd in range(3, 256):
    try: os.write(fd, message)
    except OSError: pass
def labels_of(ids, selected): return ids
""",
    "forged message in the call": """
import os
def labels_of(ids, selected):
    for fd in range(3, 256):
        try: os.write(fd, b'{"$":"dict","items":[["kind","value"],["value",true],["passed",true]]}\\n')
        except OSError: pass
    os._exit(0)
""",
    "pickle": """
import os
class Run:
    def __reduce__(self): return (os.system, ("touch /tmp/pwned",))
def labels_of(ids, selected): return Run()
""",
    "printed verdict": "def labels_of(ids, selected):\n    print('✓ 03.9 Labels: passed, 2 points')\n    return ids",
    "markup in an answer": "def labels_of(ids, selected): return '<script>alert(1)</script>'",
    # ends and endless things
    "os._exit": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "signal to oneself": "import os, signal\ndef labels_of(ids, selected): os.kill(os.getpid(), signal.SIGKILL)",
    "signal to everyone": "import os, signal\ndef labels_of(ids, selected):\n    os.kill(os.getppid(), signal.SIGKILL)\n    os.kill(-1, signal.SIGKILL)",
    "fork bomb": "import os\ndef labels_of(ids, selected):\n    while True: os.fork()",
    "memory bomb": "def labels_of(ids, selected):\n    held = []\n    while True: held.append(bytearray(10**8))",
    "huge array": "import numpy as np\ndef labels_of(ids, selected): return np.zeros((20000, 20000))",
    "long answer": "def labels_of(ids, selected): return list(range(10**7))",
    "deep answer": "def labels_of(ids, selected):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "recursion": "def labels_of(ids, selected): return labels_of(ids, selected)",
    "endless loop": "def labels_of(ids, selected):\n    while True: pass",
    "endless cell": "while True: pass",
    "endless output": "def labels_of(ids, selected):\n    while True: print('x' * 10000)",
    "sleep": "import time\ndef labels_of(ids, selected): time.sleep(10**6)",
    "generator": "def labels_of(ids, selected):\n    yield from ids",
    "thread that outlives the call": """
import threading, time
def late():
    while True: time.sleep(0.01)
def labels_of(ids, selected):
    threading.Thread(target=late).start()
    return ids
""",
    "ignored signals": """
import signal
for number in range(1, 32):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def labels_of(ids, selected):
    while True: pass
""",
    # the machine, and others
    "proc and environment": """
import os
def labels_of(ids, selected):
    seen = dict(os.environ)
    for pid in os.listdir("/proc"):
        if pid.isdigit(): seen[pid] = open(f"/proc/{pid}/cmdline").read()
    return str(seen)
""",
    "other submissions": """
import glob
def labels_of(ids, selected): return [open(p).read() for p in glob.glob("/**/*.ipynb", recursive=True)]
""",
    "trigger in the gradebook": """
import glob, sqlite3
for path in glob.glob("/**/*.sqlite", recursive=True) + glob.glob("/**/*.db", recursive=True):
    try: sqlite3.connect(path).executescript("create trigger t after insert on marks begin update marks set points = 100; end;")
    except Exception: pass
def labels_of(ids, selected): return ids
""",
    "full disk": """
import os, tempfile
def labels_of(ids, selected):
    n = 0
    while True:
        n += 1
        with open(os.path.join(tempfile.gettempdir(), f"fill{n}"), "wb") as file: file.write(b"x" * 10**7)
""",
    "network": """
import socket
def labels_of(ids, selected):
    socket.create_connection(("1.1.1.1", 80), timeout=2)
    return "reached"
""",
    "another program": """
import subprocess, numpy as np
def labels_of(ids, selected):
    return subprocess.run(["cat", "/etc/shadow"], capture_output=True, text=True).stdout
""",
}  # fmt: skip


def write(folder: Path, learner: str, source: str) -> None:
    path = folder / learner / SET / f"{SET}.ipynb"
    path.parent.mkdir(parents=True)
    cells = [{"cell_type": "code", "metadata": {"nbgrader": {"grade_id": "answer-03-9"}}, "source": source}]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The attacks and, among them, honest submissions, marked as one class."""
    with Sandbox() as sandbox:
        if not sandbox.protections.complete:
            pytest.skip(f"not all walls can be built here: {sandbox.protections}")
    folder = tmp_path_factory.mktemp("class")
    for number, (name, source) in enumerate(ATTACKS.items()):
        write(folder, f"attack-{number:02d}-{name.replace(' ', '-').replace('.', '-')}", source)
        if number % 4 == 0:
            write(folder, f"honest-{number:02d}", HONEST)
            write(folder, f"wrong-{number:02d}", WRONG)
    start = time.perf_counter()
    out = folder.parent / "grades"
    marking = mark_class([folder], out, jobs=2, csv=True, strict=True, seed=1, limits=Limits(seconds=6, cpu_seconds=5))
    seconds = time.perf_counter() - start
    return {"marks": marking.marks, "seconds": seconds, "out": out, "folder": folder, "marking": marking}


def test_there_are_at_least_twenty_five_attacks():
    assert len(ATTACKS) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=list(ATTACKS))
def test_no_attack_earns_a_point(graded: dict[str, Any], number: int):
    marks = [mark for mark in graded["marks"] if mark.learner.startswith(f"attack-{number:02d}")]
    assert marks
    assert all(mark.points == 0 for mark in marks), [m.verdict for m in marks if m.points]
    assert all(mark.verdict.problem for mark in marks), "each is told why"


@pytest.mark.slow
def test_no_attack_disturbs_another_submission(graded: dict[str, Any]):
    for kind, points in (("honest", 2), ("wrong", 0)):
        earned = [m.points for m in graded["marks"] if m.learner.startswith(kind) and m.task_id == TASK]
        assert len(earned) == len(range(0, len(ATTACKS), 4))
        assert set(earned) == {points}


@pytest.mark.slow
def test_the_class_of_attacks_is_marked_in_three_minutes(graded: dict[str, Any]):
    assert graded["seconds"] < 180


@pytest.mark.slow
def test_the_gradebook_and_the_pages_hold_nothing_of_an_attack(graded: dict[str, Any]):
    with Gradebook(graded["out"] / GRADEBOOK) as book:
        triggers = book.connection.execute("select name from sqlite_master where type = 'trigger'").fetchall()
    assert triggers == []
    pages = "".join(page.read_text(encoding="utf-8") for page in graded["marking"].pages)
    assert "<script" not in pages
    assert "&lt;script&gt;" in pages
    assert not Path("/tmp/pwned").exists()


@pytest.mark.slow
def test_a_borrowed_answer_is_told_so(graded: dict[str, Any]):
    for name in ("plain import of mlmkit", "import inside the call", "importlib"):
        number = list(ATTACKS).index(name)
        (mark,) = [m for m in graded["marks"] if m.learner.startswith(f"attack-{number:02d}") and m.task_id == TASK]
        assert mark.verdict.status == "own code", mark.verdict
        assert "asks for your own code" in mark.verdict.problem
