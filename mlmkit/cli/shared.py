"""What several commands need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlmkit.errors import UserError

if TYPE_CHECKING:
    from mlmkit.config import RunConfig

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `mlmkit pretrain` wrote.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="For example train.lr=1e-3."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--corpus", help="Source, as for `mlmkit corpus`; several are joined. Default: the preset's."),
]
Root = Annotated[Path, typer.Option(help="The course: the folder that holds exercises/ and notebooks/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def whole_path(name: str) -> str:
    """Write a local path out in full, so that the run can be resumed from another folder."""
    return str(Path(name).resolve()) if Path(name).exists() and name != "python-docs" else name


def whole_source(sources: Sequence[str]) -> str:
    """Join the sources of a corpus, as `load_corpus` takes them, with local paths in full."""
    from mlmkit.corpus import parts_of

    return " + ".join(whole_path(part) for source in sources for part in parts_of(source))


def say(line: str) -> None:
    """Print a line above a progress bar."""
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def preset_named(name: str) -> RunConfig:
    """Look up a preset."""
    from mlmkit.presets import PRESETS

    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def run_config(folder: Path) -> RunConfig:
    """Read with which configuration the run in a folder was made."""
    from mlmkit.config import RunConfig
    from mlmkit.weights import read_json

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that `mlmkit pretrain --out` wrote")
    return RunConfig.from_dict(read_json(folder / "run.json"))
