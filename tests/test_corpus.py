"""A corpus reads as prose, repeats nothing, and holds nothing out that training has seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmkit.corpus import (
    Corpus,
    cache_root,
    clusters,
    files,
    hashing,
    hub,
    load_corpus,
    ngram_overlap,
    python_docs,
    sample_corpus,
    store,
)
from mlmkit.corpus.dedup import kept_documents, merge_short, signatures, similar_pairs
from mlmkit.corpus.sentences import is_prose, plain, prose_sentences, split_sentences
from mlmkit.corpus.store import Document, RawDocument
from mlmkit.errors import UserError
from mlmkit.language import Language, language_named

SYLLABLES = "ba de fi go ku la me ni po ru sa te vi wo zu".split()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MLMKIT_CACHE", str(folder))
    return folder


def invented(rng: np.random.Generator, words: int) -> str:
    """A sentence of invented words: two of them have hardly anything in common."""
    return " ".join("".join(rng.choice(SYLLABLES, size=3)) for _ in range(words)).capitalize() + "."


def invented_text(documents: int, seed: int = 0, sentences: int = 4) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[invented(rng, 9) for _ in range(sentences)] for _ in range(documents)]


def write_text(path: Path, documents: Iterable[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join("\n".join(document) for document in documents), encoding="utf-8")
    return path


def all_sentences(corpus: Corpus) -> list[str]:
    return [sentence for split in corpus.splits.values() for row in split for sentence in row["sentences"]]


def where(corpus: Corpus) -> dict[str, str]:
    """The split in which each sentence lies."""
    return {s: name for name, split in corpus.splits.items() for row in split for s in row["sentences"]}


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["txt", "jsonl-text", "jsonl-sentences", "parquet"])
def test_every_file_format_gives_the_same_sentences(tmp_path: Path, kind: str) -> None:
    documents = invented_text(30)
    path = tmp_path / f"a.{kind.partition('-')[0]}"
    if kind == "txt":
        write_text(path, documents)
    elif kind == "jsonl-text":
        path.write_text("\n".join(json.dumps({"text": " ".join(d)}) for d in documents) + "\n\n")
    elif kind == "jsonl-sentences":
        path.write_text("\n".join(json.dumps({"sentences": d}) for d in documents))
    else:
        pq.write_table(pa.table({"id": range(31), "text": [*(" ".join(d) for d in documents), None]}), path)
    corpus = load_corpus(path)
    assert sorted(all_sentences(corpus)) == sorted(s for document in documents for s in document)
    assert {row["source"] for row in corpus["train"]} == {path.name}
    assert sum(corpus.report.documents.values()) == 30


def test_a_folder_is_read_in_the_order_of_names_and_other_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    write_text(folder / "b.txt", invented_text(9, seed=1))
    write_text(folder / "sub" / "a.txt", invented_text(9, seed=2))
    (folder / "sub" / "c.jsonl").write_text(json.dumps({"text": "Half \ud83d a pair is no text."}) + "\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    write_text(folder / ".hidden" / "x.txt", [["Nobody sees this."]])
    write_text(folder / "empty.txt", [])
    corpus = load_corpus(folder)
    sources = {row["source"] for split in corpus.splits.values() for row in split}
    assert sources == {"texts/b.txt", "texts/sub/a.txt", "texts/sub/c.jsonl"}
    assert "Half ? a pair is no text." in all_sentences(corpus)
    assert [f.name for f in files.find_files(folder)] == ["b.txt", "empty.txt", "a.txt", "c.jsonl"]


BAD_FILES = {
    "empty": ("a.txt", b"", r"a\.txt: found 0 document\(s\), need at least 3: give more text, with blank lines"),
    "one document": ("a.txt", b"It is alone. It stays alone.", r"found 1 document\(s\), need at least 3"),
    "binary": ("a.txt", b"ab\0cd\n", r"a\.txt: this is a binary file, not text"),
    "latin-1": (
        "a.txt",
        "Caf\xe9 au lait".encode("latin-1"),
        r"a\.txt: not UTF-8 text \(byte 0xe9\): save it as UTF-8",
    ),
    "ending": ("a.docx", b"x", r"a\.docx: cannot read files ending in \.docx: give \.txt, \.jsonl, \.parquet"),
    "no ending": ("a", b"x", r"cannot read files ending in nothing"),
    "not json": (
        "a.jsonl",
        b'{"text": "A."}\n{"text": \n',
        r"a\.jsonl, line 2: not JSON \(.*\): write one object a line",
    ),
    "json, latin-1": (
        "a.jsonl",
        b'{"text": "A."}\n"\xe9"',
        r"a\.jsonl: not UTF-8 text after line \d: save it as UTF-8",
    ),
    "json, no text": ("a.jsonl", b'{"body": "A."}', r'line 1: no field "text" or "sentences" \(found fields body\)'),
    "json, list": ("a.jsonl", b"[1]", r"\(found list\): write"),
    "json, number": ("a.jsonl", b'{"text": 3}', r"text is not a string or sentences not a list of strings"),
    "json, sentences": ("a.jsonl", b'{"sentences": [1]}', r"sentences not a list of strings"),
    "corrupt parquet": ("a.parquet", b"PAR1 nonsense", r"a\.parquet: not a readable Parquet file"),
}


def test_several_sources_are_read_one_after_the_other_and_split_as_one(tmp_path: Path) -> None:
    """What stands in both sources is found once: duplicates are dropped across them."""
    a = write_text(tmp_path / "a.txt", invented_text(40, seed=1))
    b = write_text(tmp_path / "b.txt", [*invented_text(30, seed=2), *invented_text(5, seed=1)])
    both = load_corpus(f"{a} + {b}")
    alone = load_corpus(a)
    assert both.report.dropped_exact == 5 * 4  # sentences
    assert sum(both.report.documents.values()) == sum(alone.report.documents.values()) + 30
    assert {row["source"] for split in both.splits.values() for row in split} == {"a.txt", "b.txt"}
    assert load_corpus(f"{a}  +  {b} ").fingerprint == both.fingerprint


def test_a_name_with_a_plus_is_one_source_and_a_language_joins_with_none(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a + b.txt", invented_text(40))
    assert sum(load_corpus(path).report.documents.values()) == 40
    with pytest.raises(UserError, match="exact:market cannot be joined with other sources"):
        load_corpus("python-docs + exact:market")
    with pytest.raises(UserError, match=r"nowhere\.txt: no such file or folder"):
        load_corpus(f"python-docs + {tmp_path / 'nowhere.txt'}")


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_in_one_line_with_its_remedy(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_corpus(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("column", [{"body": ["A."]}, {"text": [1]}])
def test_parquet_without_a_text_column_says_what_it_has(tmp_path: Path, column: dict[str, list[object]]) -> None:
    pq.write_table(pa.table(column), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column of strings named text \(found (body|text) \((string|int64)\)\)"):
        load_corpus(tmp_path / "a.parquet")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder: give python-docs, hf:NAME"):
        load_corpus(tmp_path / "nowhere")
    (tmp_path / "picture.png").touch()
    with pytest.raises(UserError, match=r"the folder holds no \.txt, \.jsonl, \.parquet file"):
        load_corpus(tmp_path)
    with pytest.raises(UserError, match=r"gone\.txt: cannot be read \(No such file"):
        list(files.read_files(tmp_path, [tmp_path / "gone.txt"]))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"held_out": 0.5}, r"held_out must lie between 0 and 0\.5, got 0\.5"),
        ({"held_out": 0}, "held_out must lie"),
        ({"max_documents": 0}, "max_documents must be at least 1, got 0"),
        ({"source": "hf:"}, "hf: needs the name of a dataset"),
    ],
)
def test_bad_arguments(argument: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_corpus(**argument)  # type: ignore[arg-type]


def test_a_text_without_blank_lines_is_cut_so_that_it_fits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_CHARACTERS", 200)
    path = write_text(tmp_path / "a.txt", [[s for document in invented_text(10) for s in document]])
    raw = list(files.read_files(path, [path]))
    assert len(raw) > 3
    assert max(len(s) for document in raw for part in document.paragraphs for s in part) <= 400


# --- sentences -----------------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("aB.!? \"'“”()é1,"), max_size=400))
@settings(max_examples=150, deadline=None)
def test_splitting_into_sentences_loses_no_character(text: str) -> None:
    words = " ".join(text.split())
    assert "".join("".join(split_sentences(words)).split()) == "".join(words.split())


def test_a_long_quotation_is_split_all_the_same() -> None:
    said = " ".join(f"The number {n} is larger than the number {n - 1}." for n in range(2, 30))
    assert len(split_sentences(f"“{said}” He paused.")) == 29


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        (
            "Use ``x.T`` or `y`, see :meth:`Axes.plot` and :ref:`the guide <guide>`.",
            "Use x.T or y, see Axes.plot and the guide.",
        ),
        ("A `~.Figure` is **not** an *artist* `link`_ [Knuth]_.", "A Figure is not an artist link."),
        ("Member `name' of the archive [1]_.", "Member name of the archive."),
        ("All :math:`n > 1` and \\*args of the `Line2D`\\s.", "All n > 1 and *args of the Line2Ds."),
        ("“Curly” quotes — and dashes…", '"Curly" quotes - and dashes...'),
    ],
)
def test_markup_becomes_plain_words(markup: str, words: str) -> None:
    assert plain(markup) == words


@pytest.mark.parametrize(
    "sentence",
    [
        "See https://example.org for the details of it.",
        "The value is :math:`\\sum_i x_i^2` in the limit.",
        "Replace %(name)s with the name of the module.",
        "a = b + c; d = e[0] for the x_1 in y_2",
        "All keyword arguments are passed through to the",
        "This is one of the words,",
        "Copyright by the authors of this module.",
        "Too short.",
        "; is not how a sentence begins in the text.",
        "Singular values sorted descending order.",
        "Это не английский текст на the of.",
    ],
)
def test_what_is_not_english_prose_is_dropped(sentence: str) -> None:
    assert prose_sentences(sentence) == []


def test_prose_stays() -> None:
    assert is_prose("The singular values, e.g. of a 3-D array, are sorted (in place).")
    assert is_prose("A Bézier curve is drawn between the points.")


DOCSTRING = """
    Return the mean of an array, computed along an
    axis of the user's choice.

    mean(a, axis=None) -> ndarray
    .. versionadded:: 1.7
    .. note:: The mean is a biased esti-
       mate of nothing at all.
    .. code-block:: python

        for the_code in a: print("of the code")

    .. [1] A reference to the literature of the field.

    Parameters
    ----------
    a : array_like, optional
        Array with the numbers whose mean is desired.
    axis
        Axis along which the means are computed.
    kind : {'a', 'b'}

    - a bullet about the first of the cases
    - a bullet about the second of
      the cases

    :param x: the value of the parameter
    :type x: int the type of the parameter
    name (str, optional): the name of the thing.
        It is continued in the next line.
    flush -- write the buffer to the disk

    Example::

        the code of the example is dropped

    The text after the example stays in the corpus.

    >>> mean([1, 2])  # the output of the doctest
    the output of the doctest

    ```
    fenced code of the module
    ```

    ====  =====
    the   table of contents
    ====  =====

    | line of the block
    column      of the table
    Returns:
        The mean of the elements.

    See Also
    --------
    median : the middle of the values
"""


def test_a_docstring_keeps_its_prose_and_nothing_else() -> None:
    assert python_docs.prose(DOCSTRING) == [
        ["Return the mean of an array, computed along an axis of the user's choice."],
        ["The mean is a biased esti-mate of nothing at all."],
        ["Array with the numbers whose mean is desired."],
        ["Axis along which the means are computed."],
        ["a bullet about the first of the cases"],
        ["a bullet about the second of the cases"],
        ["the value of the parameter"],
        ["the name of the thing.", "It is continued in the next line."],
        ["write the buffer to the disk"],
        ["The text after the example stays in the corpus."],
        ["The mean of the elements."],
    ]


# --- python-docs ---------------------------------------------------------------------------------------------------

MODULE = '''
"""A module of the package, with a description."""
import os
open({marker!r}, "w").close()
raise SystemExit("this module must never run")

if True:
    class Shelf:
        """A shelf holds the books of a reader."""

        size = 3
        """The number of books on the shelf."""

        async def take(self):
            """Take a book from the shelf, the first of them."""

add_newdoc("shelf", """
    Documentation that is added by a call.
""")
_shelf_doc = """The text of a variable that is named for it."""
_shelf_code = """This string is not for the reader of it."""
name, count = "no", 3
'''


def fake_package(folder: Path, marker: Path) -> Path:
    package = folder / "fakeshelf"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE.format(marker=str(marker)))
    (package / "broken.py").write_text('"""The docstring of a file that is no Python."""\nprint "x"\n')
    (package / "nul.py").write_bytes(b'"""A"""\0')
    (package / "tests" / "test_a.py").write_text('"""The docstring of a test is left out."""')
    return package


def test_modules_are_parsed_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "it-ran"
    package = fake_package(tmp_path, marker)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(python_docs, "PACKAGES", ("fakeshelf", "not_installed_anywhere"))
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "nothing")})
    found = {raw.source: raw.paragraphs for raw in python_docs.python_docs()}
    assert python_docs.package_folder("fakeshelf") == package
    assert found["fakeshelf/__init__.py:Shelf"] == [["The number of books on the shelf."]]
    texts = [raw.paragraphs[0][0] for raw in python_docs.python_docs()]
    assert texts == [
        "A module of the package, with a description.",
        "A shelf holds the books of a reader.",
        "The number of books on the shelf.",
        "Take a book from the shelf, the first of them.",
        "Documentation that is added by a call.",
        "The text of a variable that is named for it.",
    ]
    assert "fakeshelf" not in sys.modules
    assert not marker.exists()


def test_python_docs_imports_no_library_it_reads() -> None:
    code = """
        import itertools, sys
        from mlmkit.corpus import python_docs
        list(itertools.islice(python_docs.python_docs(), 120))
        print(*{"antigravity", "this", "scipy", "matplotlib", "torch", "IPython", "pydoc_data"} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_help_topics_are_read_as_a_literal(tmp_path: Path) -> None:
    (tmp_path / "topics.py").write_text("raise SystemExit\ntopics = {'with': 'The statement of the hour is with.'}")
    assert list(python_docs.help_topics(tmp_path / "topics.py")) == [
        RawDocument("python/topics:with", "topics:with", [["The statement of the hour is with."]])
    ]
    assert list(python_docs.help_topics(tmp_path / "absent.py")) == []


def test_the_first_documents_of_python_docs_read_as_english(tmp_path: Path) -> None:
    corpus = load_corpus("python-docs", max_documents=300, progress=False)
    words = " ".join(all_sentences(corpus)).lower().split()
    assert 0.03 < words.count("the") / len(words) < 0.12
    assert all(is_prose(sentence) for sentence in all_sentences(corpus))


@pytest.mark.slow
def test_python_docs_holds_out_what_training_has_not_seen(tmp_path: Path) -> None:
    corpus = load_corpus("python-docs", cache_dir=tmp_path, progress=False)
    assert sum(corpus.report.words.values()) > 1_000_000
    for held_out in ("validation", "test"):
        assert 0.045 < corpus.report.words[held_out] / sum(corpus.report.words.values()) < 0.06
        assert corpus.report.overlap[held_out] == ngram_overlap(corpus["train"], corpus[held_out]) <= 0.03
    sentences = all_sentences(corpus)
    assert len({hashing.normalized(sentence) for sentence in sentences}) == len(sentences)
    code = f"""
        from mlmkit.corpus import load_corpus
        print(load_corpus("python-docs", cache_dir={str(tmp_path / "again")!r}, progress=False).fingerprint)
    """
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == corpus.fingerprint


# --- duplicates ----------------------------------------------------------------------------------------------------


def test_a_repeated_sentence_stays_once(tmp_path: Path) -> None:
    documents = invented_text(40, sentences=3)
    shouted = documents[7][0].upper().replace(" ", "  ")
    path = write_text(tmp_path / "a.txt", [*documents, [shouted, "A new one."], documents[9]])
    corpus = load_corpus(path)
    assert sorted(all_sentences(corpus)) == sorted([*(s for document in documents for s in document), "A new one."])
    assert (corpus.report.dropped_exact, corpus.report.dropped_near) == (1 + 3, 0)


def test_of_similar_paragraphs_the_first_stays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paragraphs = [[invented(rng, 30)] for _ in range(20)]
    edited = [[paragraphs[n][0].rsplit(" ", 1)[0] + " another word."] for n in (3, 8, 15)]
    corpus = load_corpus(write_text(tmp_path / "a.txt", [*paragraphs, *edited, ["Short ones are compared", "exactly"]]))
    assert sorted(all_sentences(corpus)) == sorted([*(p for (p,) in paragraphs), "Short ones are compared exactly"])
    assert (corpus.report.dropped_exact, corpus.report.dropped_near) == (0, 3)


@given(st.lists(st.integers(0, 9), max_size=60), st.sampled_from([4, 1 << 24]))
@settings(deadline=None)
def test_first_occurrences_in_one_part_or_many(values: list[int], chunk: int) -> None:
    array = np.array(values, dtype=np.uint64)
    before = hashing.CHUNK
    hashing.CHUNK = chunk
    try:
        first = hashing.first_occurrences(array)
    finally:
        hashing.CHUNK = before
    assert first.tolist() == [value not in values[:at] for at, value in enumerate(values)]


def test_minhash_estimates_the_jaccard_similarity() -> None:
    rng = np.random.default_rng(0)
    words = [invented(rng, 1)[:-1].lower() for _ in range(300)]
    sketches = signatures([" ".join(words[:200]), " ".join(words[100:]), " ".join(words[:200]), ""])
    # 98 of 298 word 3-grams are common: 64 columns estimate 0.33 with a standard error of 0.06
    assert abs((sketches[0] == sketches[1]).mean() - 98 / 298) < 0.2
    pairs = [
        (int(a), int(b)) for one, two in similar_pairs(sketches, 0.9, rows=4) for a, b in zip(one, two, strict=True)
    ]
    assert set(pairs) == {(0, 2)}


def test_signatures_are_the_same_on_every_machine() -> None:
    # computed once, and found equal with AVX-512, AVX2, AVX and without them
    sketch = signatures(["The same text gives the same numbers on every machine."])[0]
    assert sketch[:3].tolist() == [3267425192, 1859114631, 3225639456]
    assert hashing.text_hash("mask") == 7463349060561501561


def test_word_hashes_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "MAX_VOCABULARY", 3)
    fresh = hashing._WordHashes()
    assert [fresh[word] for word in "abcdeabcde"] == [hashing.text_hash(word) for word in "abcdeabcde"]
    assert len(fresh) <= 3


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(1, 9)), max_size=30))
def test_merging_short_documents_keeps_every_sentence_in_order(rows: list[tuple[str, int]]) -> None:
    rows.sort(key=lambda row: row[0])
    numbered = iter(range(10_000))
    documents = [(group, Document([f"{group}{next(numbered)}" for _ in range(n)], group)) for group, n in rows]
    merged = list(merge_short(documents))
    assert [s for d in merged for s in d.sentences] == [s for _, d in documents for s in d.sentences]
    for group in ("a", "b"):
        lengths = [len(document.sentences) for document in merged if document.source == group]
        assert all(length >= 4 for length in lengths) or len(lengths) == 1
    assert sum(d.source == "" for d in merged) == sum(group == "" for group, _ in rows)


def test_documents_without_a_sentence_left_disappear(tmp_path: Path) -> None:
    rows = [RawDocument("x", "", [["One."], ["Two."]]), RawDocument("y", "", [["Three."]])]
    store.write_rows(tmp_path / "raw.arrow", rows, raw=True)
    kept = kept_documents(store.open_rows(tmp_path / "raw.arrow"), np.array([False, True, False]))
    assert list(kept) == [Document(["Two."], "x")]


# --- clusters and the split ----------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 12), min_size=3, max_size=80).filter(lambda labels: len(set(labels)) >= 3),
    st.floats(0.01, 0.45),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_a_cluster_never_straddles_the_split(labels: list[int], held_out: float, seed: int) -> None:
    _, dense = np.unique(labels, return_inverse=True)
    words = np.random.default_rng(seed).integers(1, 500, size=len(labels))
    split = clusters.assign(clusters.Clusters(dense, words), held_out, seed, "x")
    for label in set(dense):
        assert len(set(split[dense == label])) == 1
    assert set(split) == {0, 1, 2}
    biggest = np.argmax(np.bincount(dense, weights=words))
    assert set(split[dense == biggest]) == {0}


def test_documents_that_share_a_passage_lie_on_the_same_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    documents = invented_text(120)
    families = []
    for number in range(0, 60, 3):
        passage = invented(rng, 10)[:-1].lower()
        for at in range(number, number + 3):
            documents[at].append(f"{invented(rng, 3)[:-1]} {passage} {invented(rng, 2).lower()}")
        families.append([documents[at][-1] for at in range(number, number + 3)])
    corpus = load_corpus(write_text(tmp_path / "a.txt", documents), held_out=0.2)
    side = where(corpus)
    assert all(len({side[sentence] for sentence in family}) == 1 for family in families)
    assert corpus.report.overlap == {"validation": 0.0, "test": 0.0}
    assert corpus.report.clusters == 120 - 2 * 20


def test_one_common_phrase_does_not_join_two_chapters(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    phrase = invented(rng, 8)[:-1]
    documents = [[*document, f"{phrase} {n}."] for n, document in enumerate(invented_text(8, sentences=30))]
    corpus = load_corpus(write_text(tmp_path / "a.txt", documents))
    assert corpus.report.clusters == 8
    assert 0 < corpus.report.overlap["test"] < 0.01


def test_too_few_clusters(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    passage = invented(rng, 12)[:-1]
    path = write_text(tmp_path / "a.txt", [[f"{passage} {invented(rng, 8)}"] for _ in range(5)])
    with pytest.raises(UserError, match=r"5 documents form 1 cluster\(s\) of similar documents, but train"):
        load_corpus(path)


def test_overlap_counts_the_held_out_ngrams_that_occur_in_training() -> None:
    train = [["a b c d e f g h i j"], ["k l m"]]
    held_out = [["a b c d e f g h", "X y z."], ["a b c d e f g h"], ["k l m"]]
    # the first document has 4 8-grams (1 known), the second 1 (known), the third none
    assert ngram_overlap(train, held_out) == 2 / 5
    assert ngram_overlap([], held_out) == 0
    assert ngram_overlap(train, []) == 0
    rows = [{"sentences": document} for document in held_out]
    assert ngram_overlap(train, rows, n=3) == ngram_overlap(train, datasets.Dataset.from_list(rows), n=3)


def test_a_sample_of_the_ngrams_is_enough_for_a_large_corpus() -> None:
    train, extra = invented_text(300, seed=4), invented_text(300, seed=5)
    held_out = [[*known, *new] for known, new in zip(train[:200], extra, strict=False)]
    exact = ngram_overlap(train, held_out)
    assert abs(ngram_overlap(train, held_out, one_in=4) - exact) < 0.05
    assert clusters.sampling(10_000) == 1
    assert clusters.sampling(10**12) > 1000


# --- cache ---------------------------------------------------------------------------------------------------------


def test_the_second_time_comes_from_the_cache_and_a_damaged_cache_is_rebuilt(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_text(tmp_path / "a.txt", invented_text(30))
    first = load_corpus(path)
    assert cache_root() == cache
    (folder,) = (cache / "corpus").iterdir()  # nothing but the finished corpus is left
    assert sorted(file.name for file in folder.iterdir()) == [
        "corpus.json", "test.arrow", "train.arrow", "validation.arrow"
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(files, "read_files", None)
        again = load_corpus(str(path))
    assert (again.fingerprint, again.report) == (first.fingerprint, first.report)
    for damage in ("train.arrow", "corpus.json", "test.arrow"):
        content = (folder / damage).read_bytes()
        os.truncate(folder / damage, len(content) // 2)
        assert load_corpus(path).fingerprint == first.fingerprint
        assert (folder / damage).read_bytes() == content
    (folder / "validation.arrow").write_bytes(bytes((folder / "validation.arrow").stat().st_size))
    assert load_corpus(path)["validation"][0] == first["validation"][0]
    assert list((cache / "corpus").iterdir()) == [folder]


def test_changed_files_and_other_arguments_are_other_corpora(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", invented_text(30))
    one = load_corpus(path)
    assert load_corpus(path, seed=1).fingerprint != one.fingerprint
    assert sum(load_corpus(path, max_documents=12).report.documents.values()) == 12
    write_text(path, invented_text(30, seed=9))
    assert load_corpus(path).fingerprint != one.fingerprint


def test_equal_text_has_an_equal_fingerprint_wherever_it_lies(tmp_path: Path) -> None:
    one = load_corpus(write_text(tmp_path / "a" / "x.txt", invented_text(30)), cache_dir=tmp_path / "1")
    two = load_corpus(write_text(tmp_path / "b" / "y.txt", invented_text(30)), cache_dir=tmp_path / "2")
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 16
    assert one["train"]["sentences"] != sorted(one["train"]["sentences"])  # documents are shuffled


def test_several_processes_may_publish_the_same_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    store.publish(tmp_path / "one", tmp_path / "target")
    store.publish(tmp_path / "two", tmp_path / "target")
    assert [file.name for file in (tmp_path / "target").iterdir()] == ["two"]

    path = write_text(tmp_path / "a.txt", invented_text(20))
    build = load_corpus.__globals__["_build"]

    def slower(*arguments: object) -> None:
        monkeypatch.setitem(load_corpus.__globals__, "_build", build)
        load_corpus(path)  # another process finishes first
        build(*arguments)

    monkeypatch.setitem(load_corpus.__globals__, "_build", slower)
    assert load_corpus(path).fingerprint == load_corpus(path).fingerprint


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "a.txt", invented_text(20))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write there \(.*\): set MLMKIT_CACHE or cache_dir"):
        load_corpus(path, cache_dir=tmp_path / "file")
    monkeypatch.setattr(store, "publish", lambda folder, target: None)
    with pytest.raises(OSError, match="cannot be read"):
        load_corpus(path)
    monkeypatch.delenv("MLMKIT_CACHE")
    assert cache_root().name == "mlmkit"


def test_from_documents_gives_the_same_interface() -> None:
    def generated(n: int) -> Iterator[list[str]]:
        for number in range(n):
            yield [f"Document {number}.", "The same sentence."]

    corpus = Corpus.from_documents("toy", {"train": generated(5), "validation": generated(2)})
    again = Corpus.from_documents("toy", {"train": generated(5), "validation": generated(2)})
    assert corpus["train"][4]["sentences"] == ["Document 4.", "The same sentence."]
    assert corpus["train"].column_names == ["sentences", "source"]
    assert corpus.report.documents == {"train": 5, "validation": 2}
    assert again.fingerprint == corpus.fingerprint
    with pytest.raises(UserError, match="no split 'test' in toy: use one of train, validation"):
        corpus["test"]


def test_the_report_is_a_table(tmp_path: Path) -> None:
    corpus = load_corpus(write_text(tmp_path / "a.txt", invented_text(30)))
    lines = str(corpus).splitlines()
    assert corpus.fingerprint in lines[0]
    assert lines[1].split() == ["split", "documents", "sentences", "words", "8-grams", "also", "in", "train"]
    train = corpus.report
    assert lines[2].split() == ["train", *(str(n["train"]) for n in (train.documents, train.sentences, train.words))]
    assert lines[3].endswith("0.00%")
    assert "0 repeated" in lines[5]


# --- Hugging Face hub ----------------------------------------------------------------------------------------------


def stream(columns: dict[str, list[object]]) -> datasets.IterableDataset:
    return datasets.Dataset.from_dict(columns).to_iterable_dataset()


@pytest.mark.parametrize(("column", "as_splits"), [("text", True), ("content", True), ("anything", False)])
def test_a_hub_dataset_is_streamed(monkeypatch: pytest.MonkeyPatch, column: str, as_splits: bool) -> None:
    texts = [" ".join(document) for document in invented_text(30)]
    rows = stream({"label": ["x"] * 31, "number": [1] * 31, column: [*texts, None]})
    asked: list[object] = []

    def load_dataset(*arguments: object, **options: object) -> object:
        asked.extend([*arguments, options["streaming"], Path(str(options["cache_dir"])).parent == cache_root()])
        return datasets.IterableDatasetDict({"test": rows, "train": rows}) if as_splits else rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load_corpus("hf:someone/texts:english", progress=False)
    assert asked == ["someone/texts", "english", True, True]
    assert sum(corpus.report.documents.values()) == 30
    assert corpus["train"][0]["source"] == "hf:someone/texts:english"


def test_a_hub_dataset_without_text_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: stream({"number": [1, 2], "flag": [True, False]}))
    with pytest.raises(UserError, match=r"hf:numbers: no column of strings \(found number, flag\)"):
        load_corpus("hf:numbers")
    with pytest.raises(UserError, match="found no rows"):
        hub._text_column("hf:nothing", [])


def test_a_stream_that_breaks_off_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> Iterator[dict[str, str]]:
        yield {"text": "A first document arrives."}
        raise ConnectionError("the cable\nwas cut")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(UserError, match=r"could not be read from the Hugging Face hub \(ConnectionError: the cable\):"):
        load_corpus("hf:someone/texts")


def test_offline_the_error_names_what_could_not_be_reached(tmp_path: Path) -> None:
    code = """
        from mlmkit.corpus import load_corpus
        try:
            load_corpus("hf:someone/texts", progress=False)
        except ValueError as error:
            print(type(error).__name__, error)
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError hf:someone/texts: could not be read from the Hugging Face hub")
    assert "or use python-docs or a folder of .txt files" in done.stdout
    assert done.stdout.count("\n") == 1


# --- exact languages -----------------------------------------------------------------------------------------------


def test_a_language_gives_a_corpus_of_any_size_that_knows_where_it_comes_from(cache: Path) -> None:
    corpus = load_corpus("exact:market:200", held_out=0.1)
    assert corpus.report.documents == {"train": 160, "validation": 20, "test": 20}
    assert corpus.language is not None
    assert corpus.language.to_dict() == language_named("market").to_dict()
    expected = list(language_named("market").documents(160, np.random.default_rng([0, 0])))
    assert list(corpus["train"]["sentences"]) == expected
    assert load_corpus("exact:market:200", held_out=0.1, seed=1).fingerprint != corpus.fingerprint
    assert sum(load_corpus("exact", max_documents=50).report.documents.values()) == 50


def test_a_language_corpus_comes_from_the_cache_the_second_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample_corpus(language_named("tiny"), 30)
    monkeypatch.setattr(Language, "documents", lambda *_: pytest.fail("drawn again"))
    again = sample_corpus(language_named("tiny"), 30)
    assert (again.fingerprint, again.report) == (first.fingerprint, first.report)
    assert again.language is not None
    assert again.language.to_dict() == language_named("tiny").to_dict()


def test_the_parts_of_a_language_corpus_are_drawn_independently() -> None:
    corpus = sample_corpus(language_named("market"), 300, held_out=0.3)
    held_out = {" ".join(row) for row in corpus["validation"]["sentences"]}
    assert not held_out & {" ".join(row) for row in corpus["train"]["sentences"]}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("exact:", r"a language is named as exact\[:LANGUAGE\[:DOCUMENTS\]\]"),
        ("exact:market:many", "for example exact:market:1000, got 'exact:market:many'"),
        ("exact:market:10:3", "a language is named as"),
        ("exact:sea", "there is no language 'sea'"),
        ("exact:market:2", r"2 document\(s\) cannot be split in three"),
    ],
)
def test_a_language_that_is_named_wrongly_is_refused(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_corpus(source)
