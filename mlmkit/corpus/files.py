"""Documents from the reader's own files: .txt, .jsonl and .parquet, one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlmkit.corpus.sentences import split_sentences
from mlmkit.corpus.store import RawDocument
from mlmkit.errors import UserError

MAX_CHARACTERS = 1_000_000
"""A text without blank lines is cut after about this many characters, so that it need not fit in memory."""


def find_files(path: Path) -> list[Path]:
    """The readable files at a path, sorted by name; other files are an error only when named themselves."""
    known = ", ".join(READERS)
    if path.is_file():
        if path.suffix.lower() not in READERS:
            ending = path.suffix or "nothing"
            raise UserError(f"{path}: cannot read files ending in {ending}: give {known} or a folder of them")
        return [path]
    if not path.is_dir():
        raise UserError(
            f"{path}: no such file or folder: give python-docs, hf:NAME, a {known} file or a folder of them"
        )
    inside = sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix())
    found = [
        file
        for file in inside
        if file.is_file()
        and file.suffix.lower() in READERS
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not found:
        raise UserError(f"{path}: the folder holds no {known} file: put some there or name another folder")
    return found


def identity(files: list[Path]) -> list[list[Any]]:
    """What a cache of these files depends on: their paths, sizes and times of change."""
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def read_files(path: Path, files: list[Path]) -> Iterator[RawDocument]:
    """Documents of the files, one file after the other."""
    for file in files:
        source = file.name if file == path else f"{path.resolve().name}/{file.relative_to(path).as_posix()}"
        try:
            for paragraphs in READERS[file.suffix.lower()](file):
                if paragraphs:
                    yield RawDocument(source, "", paragraphs)
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror}): check the file and its permissions") from None


def text_paragraphs(text: str) -> list[list[str]]:
    """Paragraphs (between blank lines) of sentences; line breaks inside a paragraph are spaces.

    >>> text_paragraphs("One line\\ngoes on. It ends.\\n\\nAnother.")
    [['One line goes on.', 'It ends.'], ['Another.']]
    """
    paragraphs: list[list[str]] = []
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if words := " ".join(line.split()):
            lines.append(words)
        elif lines:
            paragraphs.append(split_sentences(" ".join(lines)))
            lines = []
    return paragraphs


def _decoded_lines(file: Path) -> Iterator[str]:
    """Lines of a UTF-8 file; very long ones come in pieces."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            while line := stream.readline(MAX_CHARACTERS):
                if "\0" in line:
                    raise UserError(f"{file}: this is a binary file, not text: give .txt files in UTF-8")
                yield line
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.object[error.start]:#04x}): save it as UTF-8") from None


def _read_text(file: Path) -> Iterator[list[list[str]]]:
    lines: list[str] = []
    size = 0
    for line in _decoded_lines(file):
        blank = not line.strip()
        if not blank:
            lines.append(line)
            size += len(line)
        if lines and (blank or size >= MAX_CHARACTERS):
            yield text_paragraphs("".join(lines))
            lines, size = [], 0
    yield text_paragraphs("".join(lines))


def _read_jsonl(file: Path) -> Iterator[list[list[str]]]:
    number = 0
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _json_paragraphs(file, number, line)
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text after line {number}: save it as UTF-8") from None


def _json_paragraphs(file: Path, number: int, line: str) -> list[list[str]]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}, line {number}: not JSON ({error.msg}): write one object a line") from None
    wanted = 'write {"text": "..."} or {"sentences": ["...", "..."]}'
    if not isinstance(row, dict) or not ("text" in row or "sentences" in row):
        found = f"fields {', '.join(map(str, row)) or 'none'}" if isinstance(row, dict) else type(row).__name__
        raise UserError(f'{file}, line {number}: no field "text" or "sentences" (found {found}): {wanted}')
    if isinstance(row.get("text"), str):
        return text_paragraphs(_valid(row["text"]))
    sentences = row.get("sentences")
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f"{file}, line {number}: text is not a string or sentences not a list of strings: {wanted}")
    cleaned = [words for sentence in sentences if (words := " ".join(_valid(sentence).split()))]
    return [cleaned] if cleaned else []


def _valid(text: str) -> str:
    """JSON can spell half a surrogate pair, which is no text: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _read_parquet(file: Path) -> Iterator[list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            kind = schema.field("text").type if "text" in schema.names else None
            if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
                raise UserError(f"{file}: no column of strings named text (found {columns}): rename the column to text")
            for batch in parquet.iter_batches(batch_size=256, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    yield text_paragraphs(text or "")
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: not a readable Parquet file ({reason}): write it again") from None


READERS: dict[str, Callable[[Path], Iterator[list[list[str]]]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
