"""Who owns a folder: a new run claims it, a resumed run proves that it is the same run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlmkit import checkpoint as ckpt
from mlmkit.config import RunConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.optimization import resolve
from mlmkit.preparation import adopt
from mlmkit.weights import read_json, write_json


def claim(folder: Path, config: RunConfig, resume: bool) -> RunConfig:
    """Write the resolved configuration into a new run folder, or check it against the one that is there.

    Args:
        folder: of the run.
        config: wanted; what it leaves to the machine is taken from the run that is there.
        resume: whether a run may be there.

    Returns:
        The configuration with which the run goes on.

    Raises:
        UserError: the folder is taken, or holds a run with another configuration.
    """
    path = folder / "run.json"
    if path.is_file():
        if not resume:
            raise UserError(f"{folder} already holds a run; go on with --resume {folder}, or choose another folder")
        saved = RunConfig.from_dict(read_json(path))
        wanted = replace(config, train=replace(config.train, **_resolved_fields(saved.train, config.train)))
        if config.start.checkpoint is not None:
            wanted = replace(wanted, model=saved.model)
        if saved != wanted:
            raise UserError(f"{folder} holds a run with another configuration: {_difference(saved, wanted)}")
        return saved
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; the run needs a folder: choose another name")
    scraps = set(folder.glob(".run.json.*"))  # of a process that was killed while it wrote the file
    if folder.is_dir() and set(folder.iterdir()) - scraps and not resume:
        raise UserError(f"{folder} is not empty and holds no run; choose another folder")
    config = replace(adopt(config), train=resolve(config.train))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, config.to_dict())
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another folder") from None
    return config


def give_back(folder: Path, before: set[str]) -> None:
    """Undo `claim` where nothing was trained, so that the same command, put right, can use the folder."""
    if "run.json" in before or ckpt.checkpoints(folder / "checkpoints"):
        return
    for name in ("metrics.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "run.json"):
        if name not in before:
            (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty: it holds what was there before
        folder.rmdir()


def _resolved_fields(saved: TrainConfig, wanted: TrainConfig) -> dict[str, Any]:
    """Fields the user left to the machine: the run keeps what it found when it began."""
    open_ = {"device": "auto", "precision": "auto", "threads": None}
    return {name: getattr(saved, name) for name, unset in open_.items() if getattr(wanted, name) == unset}


def _difference(a: RunConfig, b: RunConfig) -> str:
    x, y = a.to_dict(), b.to_dict()
    return ", ".join(
        f"{section}.{name} was {x[section][name]}, now {y[section][name]}"
        for section in x
        for name in x[section]
        if x[section][name] != y[section][name]
    )
