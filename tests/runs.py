"""What several test files need: odd English, a tiny configuration, whole runs, and the command line as a process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlmkit import pretraining
from mlmkit.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from mlmkit.corpus import Corpus
from mlmkit.history import Evaluation, History
from mlmkit.pretraining import Run

ROOT = Path(__file__).resolve().parents[1]

WORDS = {
    "determiner": "the a every no some this that another".split(),
    "adjective": "green loud wooden patient salty hollow polite crooked silver nervous second northern".split(),
    "noun": (
        "kettle bishop ladder pigeon turnip lantern colonel harbour spoon lawyer curtain violin beetle saucer "
        "orchard postman thimble cellar parrot blanket engine candle".split()
    ),
    "verb": (
        "admires forgets paints carries borrows insults polishes repairs remembers swallows measures sells "
        "follows interrupts imitates buries".split()
    ),
    "adverb": "slowly twice indoors sometimes upstairs again quietly almost never yesterday".split(),
    "link": "while because although until unless before".split(),
}
SHAPES = [
    "determiner noun verb determiner noun",
    "determiner adjective noun verb determiner noun adverb",
    "adverb determiner noun verb determiner adjective noun",
    "determiner noun verb determiner noun link determiner noun verb adverb",
]


def documents(count: int, seed: int = 0) -> list[list[str]]:
    """Odd English: documents of three to eight sentences, each drawn from a small grammar."""
    rng = np.random.default_rng(seed)

    def sentence() -> str:
        words = [str(rng.choice(WORDS[kind])) for kind in str(rng.choice(SHAPES)).split()]
        return " ".join(words).capitalize() + "."

    return [[sentence() for _ in range(rng.integers(3, 9))] for _ in range(count)]


def write_text(path: Path, count: int = 60, seed: int = 0) -> Path:
    """A .txt file of odd English, with a blank line between the documents."""
    path.write_text("\n\n".join(" ".join(document) for document in documents(count, seed)) + "\n", encoding="utf-8")
    return path


def make_corpus(cache: Path, seed: int = 0, name: str = "odd English") -> Corpus:
    """Sixty documents, already split."""
    rows = documents(60, seed)
    return Corpus.from_documents(name, {"train": rows[:44], "validation": rows[44:52], "test": rows[52:]}, cache)


TINY = RunConfig(
    data=DataConfig(vocab_size=160, max_length=32, held_out=0.15),
    model=ModelConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    ),
    train=TrainConfig(
        max_steps=24,
        batch_size=8,
        lr=3e-3,
        warmup_steps=4,
        eval_every=8,
        eval_batches=3,
        checkpoint_every=4,
        precision="fp32",
        device="cpu",
        threads=1,
    ),
)
"""One layer of sixteen numbers, with dropout: a whole run takes a second."""


def tiny(*settings: str) -> RunConfig:
    return TINY.override(settings)


def as_settings(config: RunConfig, base: RunConfig) -> list[str]:
    """The `--set` options that turn `base` into `config`."""
    ours, theirs = config.to_dict(), base.to_dict()
    return [
        f"--set={section}.{name}={'none' if value is None else value}"
        for section, fields in ours.items()
        for name, value in fields.items()
        if value != theirs[section][name]
    ]


@dataclass(frozen=True)
class Finished:
    """A run that went from its first step to its last, what it was made from, and what it reported on the way."""

    run: Run
    config: RunConfig
    text: Path
    cache: Path
    reported: list[Evaluation]

    @property
    def folder(self) -> Path:
        return self.run.folder

    def again(self, folder: Path, *settings: str, **options: Any) -> Run:
        """The same run, or with other settings, in another folder."""
        options = {"cache_dir": self.cache, "progress": False} | options
        return pretraining.pretrain(self.config.override(settings), folder, **options)


_finished: list[Finished] = []


def finished_run(factory: pytest.TempPathFactory) -> Finished:
    """The whole run of `TINY` on a text file; made once, for all test files. Do not write into its folders."""
    if not _finished:
        place = factory.mktemp("finished")
        text, reported = write_text(place / "odd.txt"), list[Evaluation]()
        config = tiny(f"data.corpus={text}")
        run = pretraining.pretrain(
            config, place / "run", cache_dir=place / "cache", progress=False, report=reported.append
        )
        _finished.append(Finished(run, config, text, place / "cache", reported))
    return _finished[0]


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Train without drawing the curve and without waiting for the disk: two thirds of a tiny run's time."""
    patch.setattr(History, "plot", lambda self: None)
    patch.setattr(pretraining, "save_figure", lambda figure, path: path.write_bytes(b"a picture"))
    patch.setattr(os, "fsync", lambda file: None)


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def read_metrics(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return data


def outcome(folder: Path) -> dict[str, Any]:
    """Everything about a run that must not depend on interruptions: not the clock."""
    metrics = read_metrics(folder)
    return {
        "weights": weights_hash(folder),
        "status": metrics["status"],
        "evaluations": [{k: v for k, v in e.items() if k != "seconds"} for e in metrics["evaluations"]],
        "training": metrics["training"],
    }


def files(folder: Path) -> set[str]:
    """Names of what lies in a folder, hidden files too."""
    return {path.name for path in folder.iterdir()}


def environment(cache: Path) -> dict[str, str]:
    """For a process that has the package at hand, its own cache, one thread and no network."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "MLMKIT_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
    }


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mlmkit", *map(str, arguments)]


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def shell(arguments: Sequence[str | Path], cache: Path, cwd: Path, timeout: float = 120) -> Answer:
    """Run `python -m mlmkit …` as a process of its own."""
    done = subprocess.run(
        command(*arguments), env=environment(cache), cwd=cwd, capture_output=True, text=True, timeout=timeout
    )
    return Answer(done.returncode, done.stdout, done.stderr)
