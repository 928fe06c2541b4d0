"""`load_corpus`: from a source to three splits on disk, each text read as a stream."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmkit.corpus import dedup, files, hub, python_docs, store
from mlmkit.corpus.clusters import SPLITS, assign, cluster, ngram_overlap, sampling
from mlmkit.corpus.hashing import count_words
from mlmkit.corpus.report import CorpusReport
from mlmkit.corpus.store import Document, RawDocument
from mlmkit.errors import UserError
from mlmkit.language import Language, language_named

if TYPE_CHECKING:
    from datasets import Dataset

TOOLS = ("rensa", "sentencex")
"""Libraries whose version may change the sentences and the split, whatever the source."""


DOCUMENTS = 450_000
"""How many documents are drawn from a language if nobody says."""


@dataclass(frozen=True)
class Corpus:
    """Documents in three splits, memory-mapped: `corpus["train"]` has the columns `sentences` and `source`.

    `fingerprint` is a hash of all sentences in their order: equal fingerprints mean equal corpora. `language` is what
    the text was drawn from, where that is known: then its vocabulary is closed and the best possible loss computable.
    """

    name: str
    fingerprint: str
    splits: dict[str, Dataset]
    report: CorpusReport
    language: Language | None = None

    def __getitem__(self, split: str) -> Dataset:
        if split not in self.splits:
            raise UserError(f"no split {split!r} in {self.name}: use one of {', '.join(self.splits)}")
        return self.splits[split]

    def __str__(self) -> str:
        return f"{self.name} (fingerprint {self.fingerprint})\n{self.report}"

    @classmethod
    def from_documents(
        cls,
        name: str,
        documents: dict[str, Iterable[list[str]]],
        cache_dir: str | Path | None = None,
        language: Language | None = None,
    ) -> Corpus:
        """A corpus from documents (lists of sentences) already split; nothing is dropped or measured."""
        parent = _folder(cache_dir)
        with store.workspace(parent) as work:
            writer = _Writer(work)
            for split, rows in documents.items():
                writer.write(split, (Document(list(sentences), name) for sentences in rows))
            report = CorpusReport(writer.documents, writer.sentences, writer.words, 0, 0, 0, 0.0, {})
            fingerprint = writer.finish(report, language)
            target = parent / store.cache_key([name, fingerprint, language is not None])
            if _read(name, target) is None:
                store.publish(work, target)
        return _must_read(name, target)


def load_corpus(
    source: str | Path = "python-docs",
    *,
    cache_dir: str | Path | None = None,
    seed: int = 0,
    held_out: float = 0.05,
    max_documents: int | None = None,
    progress: bool = True,
) -> Corpus:
    """Reads, deduplicates and splits a corpus; from the second time on it is opened from the cache.

    `source` is `python-docs`, a .txt, .jsonl or .parquet file, a folder of them, `hf:NAME[:CONFIG]`, several of these
    as `python-docs + my/texts`, or `exact[:LANGUAGE[:DOCUMENTS]]`, documents drawn from a language of
    `mlmkit.language`.
    `held_out` is the share of the words in each of validation and test; `max_documents` stops reading after
    so many. Anything wrong with the source raises `UserError`.
    """
    if not 0 < held_out < 0.5:
        raise UserError(f"held_out must lie between 0 and 0.5, got {held_out}: 0.05 holds out 5 % twice")
    if max_documents is not None and max_documents < 1:
        raise UserError(f"max_documents must be at least 1, got {max_documents}: leave it out to read everything")
    name = str(source)
    parent = _folder(cache_dir)
    if name == "exact" or name.startswith("exact:"):
        language, count = _exact(name)
        count = min(count, max_documents or count)
        return sample_corpus(language, count, held_out=held_out, seed=seed, cache_dir=cache_dir)
    identity, documents = _open(name, parent)
    target = parent / store.cache_key([identity, python_docs.versions(TOOLS), seed, held_out, max_documents])
    corpus = _read(name, target)
    if corpus is None:
        with store.workspace(parent) as work:
            _build(name, islice(documents(), max_documents), work, held_out, seed, progress)
            if _read(name, target) is None:  # another process may have been quicker
                store.publish(work / "corpus", target)
        corpus = _must_read(name, target)
    return corpus


def sample_corpus(
    language: Language,
    documents: int = DOCUMENTS,
    *,
    held_out: float = 0.05,
    seed: int = 0,
    cache_dir: str | Path | None = None,
) -> Corpus:
    """Draws a corpus of any size from a language; from the second time on it is opened from the cache.

    Every document is drawn by itself, so nothing is dropped and the split is by number: the first documents are the
    training part. `held_out` is the share of validation, and of test.
    """
    count = max(1, round(documents * held_out))
    if documents < 1 or documents - 2 * count < 1:
        raise UserError(f"{documents} document(s) cannot be split in three: draw more of them")
    parent = _folder(cache_dir)
    name = f"exact:{language.name}:{documents}"
    target = parent / store.cache_key(["language", language.to_dict(), documents, held_out, seed])
    corpus = _read(name, target)
    if corpus is None:
        sizes = {"train": documents - 2 * count, "validation": count, "test": count}
        with store.workspace(parent) as work:
            writer = _Writer(work)
            for number, split in enumerate(SPLITS):
                rng = np.random.default_rng([seed, number])
                writer.write(split, (Document(d, language.name) for d in language.documents(sizes[split], rng)))
            report = CorpusReport(writer.documents, writer.sentences, writer.words, 0, 0, 0, 0.0, {})
            writer.finish(report, language)
            if _read(name, target) is None:
                store.publish(work, target)
        corpus = _must_read(name, target)
    return corpus


def _exact(source: str) -> tuple[Language, int]:
    """The language and the number of documents in `exact[:LANGUAGE[:DOCUMENTS]]`."""
    _, *parts = source.split(":")
    if len(parts) > 2 or not all(parts) or (len(parts) == 2 and not parts[1].isdigit()):
        raise UserError(
            f"a language is named as exact[:LANGUAGE[:DOCUMENTS]], for example exact:market:1000, got {source!r}"
        )
    return language_named(parts[0] if parts else "market"), int(parts[1]) if len(parts) == 2 else DOCUMENTS


def _folder(cache_dir: str | Path | None) -> Path:
    return (Path(cache_dir) if cache_dir is not None else store.cache_root()) / "corpus"


def parts_of(source: str) -> list[str]:
    """The sources in `A + B`; a file or folder whose own name holds a plus is one source."""
    return [source] if Path(source).expanduser().exists() else [part.strip() for part in source.split(" + ")]


def _open(name: str, parent: Path) -> tuple[Any, Callable[[], Iterator[RawDocument]]]:
    """What the cache of one source or of several depends on, and the function that reads them."""
    opened = [_open_one(part, parent) for part in parts_of(name)]
    if len(opened) == 1:
        return opened[0]
    return [identity for identity, _ in opened], lambda: chain.from_iterable(read() for _, read in opened)


def _open_one(name: str, parent: Path) -> tuple[Any, Callable[[], Iterator[RawDocument]]]:
    if name == "exact" or name.startswith("exact:"):
        raise UserError(f"{name} cannot be joined with other sources: its vocabulary is closed")
    if name == "python-docs":
        versions = python_docs.versions(python_docs.PACKAGES)
        return ["python-docs", platform.python_version(), versions], python_docs.python_docs
    if name.startswith("hf:"):
        dataset, _, config = name[3:].partition(":")
        if not dataset:
            raise UserError("hf: needs the name of a dataset: write hf:NAME or hf:NAME:CONFIG")
        return ["hub", name], lambda: hub.read_hub(dataset, config or None, parent.parent / "hub")
    path = Path(name).expanduser()
    found = files.find_files(path)
    return ["files", files.identity(found)], lambda: files.read_files(path, found)


def _build(name: str, documents: Iterable[RawDocument], work: Path, held_out: float, seed: int, progress: bool) -> None:
    """Reads, drops duplicates, clusters what is left, and writes the splits into `work/corpus`."""
    rows, kept = _deduplicated(name, documents, work, progress)
    one_in = sampling((work / "kept.arrow").stat().st_size)
    clusters = cluster(rows, one_in, work, progress)
    split = assign(clusters, held_out, seed, name)
    folder = work / "corpus"
    folder.mkdir()
    writer = _Writer(folder)
    rng = np.random.default_rng([seed, 1])
    for number, split_name in enumerate(SPLITS):
        writer.write(split_name, _in_order(rows, rng.permutation(np.flatnonzero(split == number))))
    train, *others = (store.open_rows(folder / f"{split_name}.arrow") for split_name in SPLITS)
    sizes = np.bincount(clusters.labels, weights=clusters.words)
    report = CorpusReport(
        documents=writer.documents,
        sentences=writer.sentences,
        words=writer.words,
        dropped_exact=kept.dropped_exact,
        dropped_near=kept.dropped_near,
        clusters=len(sizes),
        biggest_cluster=float(sizes.max() / max(sizes.sum(), 1)),
        overlap={
            held: ngram_overlap(train, rows, one_in=one_in) for held, rows in zip(SPLITS[1:], others, strict=True)
        },
        sampling=one_in,
    )
    writer.finish(report)


def _deduplicated(
    name: str, documents: Iterable[RawDocument], work: Path, progress: bool
) -> tuple[Dataset, dedup.Kept]:
    """Streams the documents to disk, then once more without their duplicates."""
    from tqdm.auto import tqdm

    shown = tqdm(documents, desc=f"reading {name}", unit=" documents", disable=None if progress else True)
    count = store.write_rows(work / "raw.arrow", dedup.record_sentences(shown, work / "hashes"), raw=True)
    if count < len(SPLITS):
        raise UserError(
            f"{name}: found {count} document(s), need at least {len(SPLITS)}: "
            "give more text, with blank lines between the documents"
        )
    raw = store.open_rows(work / "raw.arrow")
    kept = dedup.keep(raw, work / "hashes", work, progress)
    store.write_rows(work / "kept.arrow", dedup.kept_documents(raw, kept.mask))
    return store.open_rows(work / "kept.arrow"), kept


def _in_order(rows: Dataset, order: np.ndarray) -> Iterator[Document]:
    for batch in store.batches(rows, order):
        yield from map(Document._make, zip(batch["sentences"], batch["source"], strict=True))


class _Writer:
    """Writes splits and keeps the counts and the fingerprint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents: dict[str, int] = {}
        self.sentences: dict[str, int] = {}
        self.words: dict[str, int] = {}
        self._hash = blake2b(digest_size=8)

    def write(self, split: str, rows: Iterable[Document]) -> None:
        self.sentences[split] = self.words[split] = 0
        self._hash.update(f"\0{split}".encode())
        self.documents[split] = store.write_rows(self.folder / f"{split}.arrow", map(self._counted(split), rows))

    def _counted(self, split: str) -> Callable[[Document], Document]:
        def counted(row: Document) -> Document:
            self.sentences[split] += len(row.sentences)
            self.words[split] += sum(map(count_words, row.sentences))
            self._hash.update(("\x1e" + "\x1f".join(row.sentences)).encode("utf-8", "replace"))
            return row

        return counted

    def finish(self, report: CorpusReport, language: Language | None = None) -> str:
        """Writes the description last: a folder without it is not a corpus."""
        fingerprint = self._hash.hexdigest()
        sizes = store.file_sizes(self.folder, self.documents)
        tables = None if language is None else language.to_dict()
        content = {"fingerprint": fingerprint, "sizes": sizes, "report": report.to_dict(), "language": tables}
        (self.folder / "corpus.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        return fingerprint


def _read(name: str, folder: Path) -> Corpus | None:
    """The corpus in a cache folder; None where there is none or it is damaged."""
    try:
        content = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        report = CorpusReport(**content["report"])
        if store.file_sizes(folder, content["sizes"]) != content["sizes"]:
            return None
        splits = {split: store.open_rows(folder / f"{split}.arrow") for split in content["sizes"]}
        whole = all(len(rows) == report.documents[split] for split, rows in splits.items())
        language = Language.from_dict(content["language"]) if content["language"] else None
        return Corpus(name, content["fingerprint"], splits, report, language) if whole else None
    except Exception:  # whatever is wrong with the cache, it can be built again
        return None


def _must_read(name: str, folder: Path) -> Corpus:
    corpus = _read(name, folder)
    if corpus is None:
        raise OSError(f"the corpus just written to {folder} cannot be read")
    return corpus
