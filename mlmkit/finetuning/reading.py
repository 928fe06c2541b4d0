"""Labeled examples from files or from the Hugging Face hub, read through `datasets`, with errors that name the cell."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from mlmkit.corpus import cache_root
from mlmkit.errors import UserError
from mlmkit.finetuning.task import Example, Kind, Task, split_off
from mlmkit.settings import nearest

HELD_OUT = 0.1
"""Share of the training part that stands in for a part that is not given."""
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Columns:
    """Where in a table the texts and the labels stand."""

    kind: Kind
    text: str
    label: str
    text_pair: str | None = None

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return [self.text, *([self.text_pair] if self.text_pair else []), self.label]


def load_task(
    train: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    text: str = "text",
    label: str = "label",
    text_pair: str | None = None,
    kind: Kind | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
) -> Task:
    """Read a task: sentences, pairs of sentences, or sentences with a label for every word.

    In .tsv files a quotation mark is a character like any other; in .csv files it encloses a cell. The labels may be
    text or whole numbers; their set is that of the training part, sorted. Words and their labels (`kind="tokens"`)
    are lists in .jsonl and .parquet files and are separated by blanks in .csv and .tsv files.

    A part that is not given is taken from the others, and `Task.notes` says so: without `test`, the validation part
    becomes the test part (what has chosen the model cannot judge it), and a seeded tenth of the training part becomes
    the new validation part.

    Args:
        train: .csv, .tsv, .jsonl, .json or .parquet, or a name on the hub, `NAME[:CONFIG]`, whose parts are used.
        validation, test: files for the other parts.
        text: column with the text, or with the words.
        label: column with the label, or with the labels of the words.
        text_pair: column with the second sentence, for pairs.
        kind: "sentence", "pair" or "tokens"; by default a sentence, or a pair if `text_pair` is given.
        seed: of what is held out.
        cache_dir: for what `datasets` keeps; default `cache_root()`.

    Raises:
        UserError: a file or a column does not exist, a text or label is missing, or a label is unknown.
    """
    columns = _columns(text, label, text_pair, kind)
    cache = (cache_dir or cache_root()) / "tasks"
    if Path(train).suffix in FORMATS:
        given = {"train": train, "validation": validation, "test": test}
        tables = {part: read_table(Path(path), columns, cache) for part, path in given.items() if path is not None}
    else:
        if validation is not None or test is not None:
            raise UserError(f"{train} is a name on the hub and brings its own parts; leave validation and test away")
        tables = read_hub_table(str(train).removeprefix("hf:"), columns, cache)
    names = _label_names(tables["train"], columns)
    number = {name: k for k, name in enumerate(names)}
    examples = {part: [_example(row, columns, number) for row in rows] for part, rows in tables.items()}
    notes = complete(examples, seed)
    parts = {part: tuple(rows) for part, rows in examples.items()}
    return Task(_short(str(train)), columns.kind, names, **parts, notes=notes)


def _short(source: str) -> str:
    """A name for a task: the folder and the file, or the name on the hub."""
    return "/".join(Path(source).parts[-2:])


def _columns(text: str, label: str, text_pair: str | None, kind: Kind | None) -> Columns:
    kind = kind or ("pair" if text_pair else "sentence")
    if kind not in get_args(Kind):
        raise UserError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if (kind == "pair") != (text_pair is not None):
        raise UserError(f"kind={kind!r} and text_pair={text_pair!r} do not go together: a pair has two text columns")
    return Columns(kind, text, label, text_pair)


def complete(examples: dict[str, list[Example]], seed: int) -> tuple[str, ...]:
    """Make the parts that are missing out of those that are there, in place; say what was done."""
    notes = []
    if "test" not in examples and "validation" in examples:
        examples["test"] = examples.pop("validation")
        notes.append("no test part was given: the validation part is the test part")
    for part in ("test", "validation"):
        if part not in examples:
            examples["train"], examples[part] = split_off(examples["train"], HELD_OUT, seed)
            notes.append(f"no {part} part was given: a tenth of the training part, drawn with seed {seed}, is held out")
    return tuple(notes)


# Tables: rows of named cells


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of a file, and how to say where one stands."""

    source: str
    rows: Sequence[Row]
    first: int = 1
    names: Mapping[str, Callable[[int], str]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Cells]:
        for number, row in enumerate(self.rows, start=self.first):
            yield Cells(f"{self.source}, row {number}", row, self.names)


@dataclass(frozen=True)
class Cells:
    """One row: where it stands, its cells, and the names of labels that are stored as numbers."""

    where: str
    row: Row
    names: Mapping[str, Callable[[int], str]]

    def label(self, column: str, value: Any) -> str:
        """A label as text.

        Raises:
            UserError: it is missing, or neither text nor a whole number.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            raise UserError(f"{self.where} has no label in {column!r}; remove the row or label it")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UserError(f"{self.where}: a label must be text or a whole number, got {value!r} in {column!r}")
        return self.names[column](value) if column in self.names and isinstance(value, int) else str(value)

    def text(self, column: str) -> str:
        """A text that is not empty.

        Raises:
            UserError: it is empty or no text.
        """
        value = self.row[column]
        if value is None or (isinstance(value, str) and not value.strip()):
            raise UserError(f"{self.where} has no text in {column!r}; remove the row or give it a text")
        if not isinstance(value, str):
            raise UserError(f"{self.where}: expected text in {column!r}, got {value!r}; name a column with text")
        return value

    def items(self, column: str) -> list[Any]:
        """A list, or what stands between the blanks of a text.

        Raises:
            UserError: it is empty, or neither list nor text.
        """
        value = self.row[column]
        found = value.split() if isinstance(value, str) else value
        if found is not None and not isinstance(found, list):
            raise UserError(f"{self.where}: expected a list of words or labels in {column!r}, got {value!r}")
        if not found:
            raise UserError(f"{self.where} has nothing in {column!r}; remove the row or fill it")
        return found


def read_table(path: Path, columns: Columns, cache: Path) -> Table:
    """Read the columns of a local file.

    Raises:
        UserError: the file is missing, damaged, of another format, or has no such column.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path} is not one of {', '.join(FORMATS)}; convert it, or give it that ending")
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a file with labeled examples")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty; give a file with labeled examples")
    options = _text_table_options(path, columns) if FORMATS[path.suffix] == "csv" else {}
    with _quiet(f"{path} cannot be read: ", "; mend the file"):
        import datasets

        data = datasets.load_dataset(
            FORMATS[path.suffix], data_files=str(path), split="train", cache_dir=str(cache), **options
        )
    return _table(str(path), data, columns, first=2 if FORMATS[path.suffix] == "csv" else 1)


def read_hub_table(name: str, columns: Columns, cache: Path) -> dict[str, Table]:
    """Read the parts of a dataset on the hub; a part without labels (all −1, as in GLUE's test parts) is left out.

    Raises:
        UserError: it cannot be reached, has no training part, or has no such column.
    """
    dataset, _, config = name.partition(":")
    with _quiet(f"{name} is no file with a known ending and could not be read from the Hugging Face hub: "):
        import datasets

        found = datasets.load_dataset(dataset, config or None, cache_dir=str(cache))
    if not isinstance(found, dict) or "train" not in found:
        raise UserError(f"{name} has no part named train; load it yourself and give files")
    tables = {part: _table(f"{name} ({part})", found[part], columns) for part in found if part in ("train", "test")}
    if validation := next((part for part in found if part.startswith(("validation", "dev"))), None):
        tables["validation"] = _table(f"{name} ({validation})", found[validation], columns)
    return {part: table for part, table in tables.items() if not _unlabeled(table, columns)}


def _unlabeled(table: Table, columns: Columns) -> bool:
    return columns.kind != "tokens" and all(row[columns.label] == -1 for row in table.rows)


def _text_table_options(path: Path, columns: Columns) -> dict[str, Any]:
    """How a .csv or .tsv file is read: every cell is text, so that "NA" is a word and "007" a label."""
    from datasets import Features, Value

    tabs = path.suffix == ".tsv"
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file)
        try:
            header, first = next(rows), next(rows, None)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path} is no text table in UTF-8 ({error}); convert it") from None
    _check_columns(str(path), header, columns)
    if first is None:
        raise UserError(f"{path} has a header and no example; give a file that has some")
    options: dict[str, Any] = {"keep_default_na": False, "features": Features(dict.fromkeys(header, Value("string")))}
    return options | ({"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {})


def _table(source: str, data: Any, columns: Columns, first: int = 1) -> Table:
    _check_columns(source, data.column_names, columns)
    names = {}
    feature = data.features[columns.label]
    to_name = getattr(getattr(feature, "feature", feature), "int2str", None)  # of a label, or of each one in a list
    if to_name is not None:  # it is stored as a number that has a name
        names[columns.label] = to_name
    return Table(source, data.select_columns(columns.names).to_list(), first, names)


def _check_columns(source: str, there: Sequence[str], columns: Columns) -> None:
    for column in columns.names:
        if column not in there:
            raise UserError(f"{source} has no column {column!r}{nearest(column, there)}; it has {', '.join(there)}")


def _label_names(table: Table, columns: Columns) -> tuple[str, ...]:
    """The labels of the training part, sorted: whole numbers by their size, anything else by the alphabet."""
    found: set[str] = set()
    for cells in table:
        values = cells.items(columns.label) if columns.kind == "tokens" else [cells.row[columns.label]]
        found |= {cells.label(columns.label, value) for value in values}
    if all(name.lstrip("-").isdecimal() for name in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _example(cells: Cells, columns: Columns, number: Mapping[str, int]) -> Example:
    """Check one row and turn it into an example."""
    if columns.kind == "tokens":
        text = tuple(map(str, cells.items(columns.text)))
        given = [cells.label(columns.label, value) for value in cells.items(columns.label)]
        if len(given) != len(text):
            raise UserError(f"{cells.where} has {len(text)} words and {len(given)} labels; it needs one for each word")
    else:
        text = tuple(cells.text(column) for column in columns.names[:-1])
        given = [cells.label(columns.label, cells.row[columns.label])]
    for name in given:
        if name not in number:
            raise UserError(
                f"{cells.where} has the label {name!r}, which the training part does not have; "
                f"it has {', '.join(number)}"
            )
    return Example(text, tuple(number[name] for name in given))


@contextmanager
def _quiet(before: str, after: str = "; check the name and the network, or give a file") -> Iterator[None]:
    """Read without bars and logs; one line says why it failed."""
    import datasets

    bars, loggers = datasets.are_progress_bars_disabled(), [*map(logging.getLogger, ("datasets", "huggingface_hub"))]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:
        reason = (str(error.__cause__ or error).splitlines() or [""])[0][:200]
        raise UserError(f"{before}{reason}{after}") from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
