"""Where a corpus lies on disk: Arrow files, written once, read through memory maps."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlmkit.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

CACHE_VERSION = 5
"""Raise it whenever the code changes what a corpus contains; old caches are then no longer used."""

BATCH = 1000


class RawDocument(NamedTuple):
    """What a source yields: paragraphs of sentences; successive short ones of one group may be merged."""

    source: str
    group: str
    paragraphs: list[list[str]]


class Document(NamedTuple):
    """One row of a corpus."""

    sentences: list[str]
    source: str


def cache_root() -> Path:
    """The folder for everything that can be rebuilt: `$MLMKIT_CACHE`, or the user's cache folder."""
    if chosen := os.environ.get("MLMKIT_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mlmkit"))


def cache_key(identity: Any) -> str:
    """Sixteen hex digits that name a JSON-like identity."""
    return blake2b(json.dumps([CACHE_VERSION, identity], sort_keys=True).encode(), digest_size=8).hexdigest()


def write_rows(path: Path, rows: Iterable[RawDocument | Document], raw: bool = False) -> int:
    """Streams rows into an Arrow file and returns how many there were; holds one batch in memory."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    text = Value("string")
    if raw:
        features = Features({"source": text, "group": text, "paragraphs": List(List(text))})
    else:
        features = Features({"sentences": List(text), "source": text})
    with ArrowWriter(path=str(path), features=features, writer_batch_size=BATCH) as writer:
        for row in rows:
            writer.write(row._asdict())
        count, _ = writer.finalize()
    return int(count)


def open_rows(path: Path) -> Dataset:
    """An Arrow file as a memory-mapped dataset."""
    from datasets import Dataset

    return Dataset.from_file(str(path))


def batches(dataset: Dataset, order: np.ndarray | None = None, label: str = "") -> Iterator[dict[str, list[Any]]]:
    """The rows of a dataset as Python columns, a batch at a time, in another order if given.

    With a label, and on a terminal, a bar shows the progress.
    """
    from tqdm.auto import tqdm

    tables = dataset.with_format("arrow")
    starts = range(0, len(dataset) if order is None else len(order), BATCH)
    for start in tqdm(starts, desc=label, unit=" batches", disable=None if label else True):
        yield tables[slice(start, start + BATCH) if order is None else order[start : start + BATCH]].to_pydict()


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A temporary folder under `parent`, on the same disk as the cache; removed afterwards."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".building-", dir=parent))
    except OSError as error:
        raise UserError(
            f"{parent}: cannot write there ({error.strerror}): set MLMKIT_CACHE or cache_dir to a folder of yours"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Path) -> None:
    """Gives a finished folder its name in one step; what stood there, damaged or just written, is moved away.

    Several processes may publish the same corpus at the same time: a rename is atomic, and their contents are equal.
    """
    for attempt in range(5):
        try:
            folder.rename(target)
            return
        except OSError:
            old = folder.parent / f"{folder.name}-old-{attempt}"
            with contextlib.suppress(OSError):
                target.rename(old)
            shutil.rmtree(old, ignore_errors=True)


def file_sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Size in bytes of each Arrow file of a corpus."""
    return {name: (folder / f"{name}.arrow").stat().st_size for name in names}
