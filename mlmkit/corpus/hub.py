"""Documents from the Hugging Face hub, `hf:NAME[:CONFIG]`, streamed through `datasets`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mlmkit.corpus.files import text_paragraphs
from mlmkit.corpus.store import RawDocument
from mlmkit.errors import UserError

TEXT_COLUMNS = ("text", "content", "document", "article", "sentence")
LOOK_AHEAD = 20


def read_hub(name: str, config: str | None, cache_dir: Path) -> Iterator[RawDocument]:
    """Streams the training split of a dataset (or its first split), one document a row."""
    label = f"hf:{name}" + (f":{config}" if config else "")
    try:
        rows = iter(_stream(name, config, cache_dir))
        ahead = list(islice(rows, LOOK_AHEAD))
        column = _text_column(label, ahead)
        for row in chain(ahead, rows):
            if paragraphs := text_paragraphs(row[column] or ""):
                yield RawDocument(label, "", paragraphs)
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:160]
        raise UserError(
            f"{label}: could not be read from the Hugging Face hub ({type(error).__name__}: {reason}): "
            "check the name and the network, or use python-docs or a folder of .txt files"
        ) from None


def _stream(name: str, config: str | None, cache_dir: Path) -> Any:
    import datasets

    bars, log = datasets.are_progress_bars_disabled(), logging.getLogger("huggingface_hub")
    level = log.level
    datasets.disable_progress_bars()
    log.setLevel(logging.ERROR)  # it tells of each of its tries; one line says how they ended
    try:
        splits = datasets.load_dataset(name, config, streaming=True, cache_dir=str(cache_dir))
    finally:
        log.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
    if not isinstance(splits, dict):
        return splits
    return splits.get("train", next(iter(splits.values())))


def _text_column(label: str, rows: list[dict[str, Any]]) -> str:
    """The column with the text: one of the usual names, otherwise the longest strings in the first rows."""
    columns = list(rows[0]) if rows else []
    lengths = {
        column: sum(len(row[column] or "") for row in rows)
        for column in columns
        if all(isinstance(row[column], str | None) for row in rows)
    }
    for column in TEXT_COLUMNS:
        if column in lengths:
            return column
    if not lengths:
        raise UserError(
            f"{label}: no column of strings (found {', '.join(columns) or 'no rows'}): name another dataset"
        )
    return max(lengths, key=lambda column: lengths[column])
