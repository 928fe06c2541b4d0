"""The process of one run: `python -m mlmkit.experiments.worker` reads its job from standard input.

The job is one line of JSON. The pipe stays open as long as the experiment wants the run: when it closes, because the
user stopped the experiment or because its process died, whatever the reason, the run writes a checkpoint and stops.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from mlmkit.config import RunConfig
from mlmkit.errors import UserError
from mlmkit.experiments.judging import run_and_judge
from mlmkit.experiments.metrics import MEASURED
from mlmkit.pretraining import Interrupted, TrainingDiverged
from mlmkit.weights import write_json


def main() -> int:
    """Run one job; its last line on standard error says why it failed."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_when_the_pipe_closes, daemon=True).start()
    folder = Path(job["folder"])
    try:
        found = run_and_judge(RunConfig.from_dict(job["config"]), RunConfig.from_dict(job["base"]), folder)
    except (UserError, TrainingDiverged, Interrupted) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    write_json(folder / MEASURED, found)
    return 0


def _stop_when_the_pipe_closes() -> None:
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(): its lock would be held when the interpreter shuts down
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
