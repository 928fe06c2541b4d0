"""Which fault is named when which is planted: `python tests/confusion.py` writes the table into docs/diagnosis.md."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path

from mlmkit.diagnosis import FAULTS, Diagnosis, diagnose, plant

SEEDS = (0, 1, 2)
PLANTED = ["none", *FAULTS]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "diagnosis.md"
BEGIN, END = "<!-- confusion table -->", "<!-- end of the confusion table -->"

_known: dict[tuple[str, int], Diagnosis] = {}


def diagnosis_of(fault: str, seed: int, folder: Path) -> Diagnosis:
    """Plant a fault and look at the record; done once for each fault and seed."""
    if (fault, seed) not in _known:
        _known[fault, seed] = diagnose(plant(fault, folder / f"{fault}-{seed}", seed))
    return _known[fault, seed]


def table(named: dict[str, Counter[str]], runs: int) -> str:
    """Markdown: planted faults down, in how many of the runs each was named across, and what else was named."""
    lines = ["| planted | named | also named |", "|---|---|---|"]
    for fault in PLANTED:
        others = ", ".join(f"`{other}` {n} of {runs}" for other, n in named[fault].items() if other != fault)
        hits = "–" if fault == "none" else f"{named[fault][fault]} of {runs}"
        lines.append(f"| {'nothing' if fault == 'none' else f'`{fault}`'} | {hits} | {others or '–'} |")
    return "\n".join(lines)


def written() -> str:
    """The table that stands on the page."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        named = {
            fault: Counter(name for seed in SEEDS for name in diagnosis_of(fault, seed, Path(folder)).faults)
            for fault in PLANTED
        }
    pattern = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
    fresh = f"{BEGIN}\n\n{table(named, len(SEEDS))}\n\n{END}"
    PAGE.write_text(pattern.sub(lambda _: fresh, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
