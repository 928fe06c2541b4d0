"""Reading labeled examples and turning them into batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from helpers import tokenizer_of

from mlmkit.errors import UserError
from mlmkit.finetuning import Example, Task, load_task
from mlmkit.finetuning.encoding import batches_of, collate_texts, encode, fit, labels_of
from mlmkit.finetuning.task import truth
from mlmkit.tokenizer import CLS, SEP, SPECIAL_TOKENS

DATA = Path(__file__).parents[2] / "shared" / "data"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def table(folder: Path, rows: int = 20, name: str = "train.tsv", labels: str = "01") -> Path:
    lines = [f"{labels[i % len(labels)]}\tsentence {name} {i}" for i in range(rows)]
    return write(folder / name, "\n".join(["label\ttext", *lines]) + "\n")


def whole(folder: Path, **options: Any) -> Task:
    """A task from three small files."""
    parts = {part: table(folder, 6, f"{part}.tsv") for part in ("validation", "test")}
    return load_task(table(folder), cache_dir=folder / "cache", **(parts | options))


def failure(folder: Path, train: Path | str, **options: Any) -> str:
    """What the one line of the error says."""
    with pytest.raises(UserError) as caught:
        load_task(train, cache_dir=folder / "cache", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Files


def test_a_quotation_mark_in_a_tsv_file_is_a_character_like_any_other(tmp_path):
    rows = ['1\t"open , and never closed', "0\tsaid '' so \"", '1\t"a" , "b"'] * 7
    path = write(tmp_path / "train.tsv", "\n".join(["label\ttext", *rows]) + "\n")
    task = load_task(path, cache_dir=tmp_path)
    read = {e.text[0] for part in (task.train, task.validation, task.test) for e in part}
    assert read == {'"open , and never closed', "said '' so \"", '"a" , "b"'}


def test_a_csv_file_has_quoted_cells_and_every_cell_is_text(tmp_path):
    lines = ['"first, ""quoted""",007', "NA,7", "null,007", "3.50,7"] * 6
    path = write(tmp_path / "train.csv", "\n".join(["text,label", *lines]) + "\n")
    task = load_task(path, cache_dir=tmp_path)
    read = {e.text[0] for part in (task.train, task.validation, task.test) for e in part}
    assert read == {'first, "quoted"', "NA", "null", "3.50"}
    assert set(task.labels) == {"007", "7"}, "007 is another label than 7"


def test_jsonl_and_parquet_give_the_same_examples_as_tsv(tmp_path):
    tsv = whole(tmp_path)
    rows = [{"text": e.text[0], "label": int(tsv.labels[e.labels[0]])} for e in tsv.train]
    jsonl = write(tmp_path / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    for path in (jsonl, tmp_path / "train.parquet"):
        assert (
            whole(tmp_path).train
            == load_task(
                path, cache_dir=tmp_path, test=tmp_path / "test.tsv", validation=tmp_path / "validation.tsv"
            ).train
        )


def test_labels_are_sorted_whole_numbers_by_size_and_words_by_the_alphabet(tmp_path):
    numbers = write(tmp_path / "n.tsv", "label\ttext\n" + "".join(f"{n}\ttext {n}\n" for n in [10, 9, -1, 2] * 6))
    words = write(tmp_path / "w.tsv", "label\ttext\n" + "".join(f"{n}\ttext {n}\n" for n in ["b", "10", "a", "9"] * 6))
    assert load_task(numbers, cache_dir=tmp_path).labels == ("-1", "2", "9", "10")
    assert load_task(words, cache_dir=tmp_path).labels == ("10", "9", "a", "b")


def test_a_pair_has_two_texts_in_the_order_of_the_columns(tmp_path):
    path = write(tmp_path / "p.tsv", "label\tb\ta\n" + "x\tsecond\tfirst\ny\tbelow\tabove\n" * 10)
    task = load_task(path, text="a", text_pair="b", cache_dir=tmp_path)
    assert task.kind == "pair"
    assert {e.text for e in task.train} == {("first", "second"), ("above", "below")}


def test_words_and_their_labels_are_lists_or_separated_by_blanks(tmp_path):
    rows = [{"words": ["Two", "cats", "sit"], "tags": ["D", "N", "V"]}, {"words": ["It", "sits"], "tags": ["N", "V"]}]
    jsonl = write(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows * 10))
    lines = [f"{' '.join(r['words'])}\t{' '.join(r['tags'])}" for r in rows * 10]
    tsv = write(tmp_path / "t.tsv", "\n".join(["words\ttags", *lines]) + "\n")
    tasks = [load_task(p, kind="tokens", text="words", label="tags", cache_dir=tmp_path) for p in (jsonl, tsv)]
    assert tasks[0].train == tasks[1].train
    assert tasks[0].labels == ("D", "N", "V")
    assert Example(("Two", "cats", "sit"), (0, 1, 2)) in tasks[0].train


# Mistakes


def test_a_wrong_column_name_says_which_columns_there_are(tmp_path):
    assert "no column 'txt'; did you mean 'text'?; it has label, text" in failure(tmp_path, table(tmp_path), text="txt")
    rows = write(tmp_path / "r.jsonl", '{"sentence": "a", "label": 1}\n')
    assert "no column 'gold'; it has sentence, label" in failure(tmp_path, rows, text="sentence", label="gold")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("\ta text", "row 3 has no label in 'label'"),
        ("1\t", "row 3 has no text in 'text'"),
        ("1\t   ", "row 3 has no text in 'text'"),
        ("1", "row 3 has no text in 'text'"),
        ("1\ta\tb", "cannot be read: Error tokenizing data"),
    ],
)
def test_a_row_with_something_missing_is_named(tmp_path, line, said):
    path = write(tmp_path / "bad.tsv", f"label\ttext\n0\tgood\n{line}\n")
    assert said in failure(tmp_path, path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"text": "a", "label": 0.5}', "a label must be text or a whole number, got 0.5"),
        ('{"text": "a", "label": null}', "row 1 has no label"),
        ('{"text": 7, "label": 1}', "expected text in 'text', got 7"),
        ('{"text": null, "label": 1}', "row 1 has no text"),
        ('{"text": "a", "label": true}', "a label must be text or a whole number, got True"),
        ("{broken", "cannot be read"),
        ("", "is empty"),
    ],
)
def test_a_cell_of_the_wrong_type_is_named(tmp_path, row, said):
    assert said in failure(tmp_path, write(tmp_path / "bad.jsonl", row))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"words": ["a", "b"], "tags": ["X"]}, "row 1 has 2 words and 1 labels"),
        ({"words": [], "tags": []}, "row 1 has nothing in 'tags'"),
        ({"words": ["a"], "tags": [None]}, "row 1 has no label"),
        ({"words": 3, "tags": ["X"]}, "expected a list of words or labels in 'words', got 3"),
    ],
)
def test_words_without_their_labels_are_named(tmp_path, row, said):
    path = write(tmp_path / "t.jsonl", json.dumps(row) + "\n")
    assert said in failure(tmp_path, path, kind="tokens", text="words", label="tags")


def test_a_label_that_the_training_part_does_not_have_is_named(tmp_path):
    test = table(tmp_path, 4, "test.tsv", labels="02")
    said = failure(tmp_path, table(tmp_path), test=test)
    assert "row 3 has the label '2', which the training part does not have; it has 0, 1" in said


def test_one_label_only_is_no_task(tmp_path):
    assert "every training example has the label '1'" in failure(tmp_path, table(tmp_path, labels="1"))


def test_files_that_are_not_there_or_not_text_are_named(tmp_path):
    train = table(tmp_path)
    assert "no.tsv does not exist" in failure(tmp_path, tmp_path / "no.tsv")
    assert "is not one of .csv, .tsv, .jsonl" in failure(tmp_path, train, test=write(tmp_path / "a.txt", "x"))
    (tmp_path / "b.tsv").write_bytes(b"label\ttext\xff\xfe\n")
    assert "no text table in UTF-8" in failure(tmp_path, tmp_path / "b.tsv")
    assert "has a header and no example" in failure(tmp_path, train, test=write(tmp_path / "c.tsv", "label\ttext\n"))


def test_a_task_needs_examples_in_every_part(tmp_path):
    with pytest.raises(UserError, match="the test part has no example"):
        replace(whole(tmp_path), test=())


def test_kind_and_columns_must_go_together(tmp_path):
    train = table(tmp_path)
    assert "kind='pair' and text_pair=None do not go together" in failure(tmp_path, train, kind="pair")
    assert "do not go together" in failure(tmp_path, train, kind="tokens", text_pair="b")
    assert "kind must be one of sentence, pair, tokens" in failure(tmp_path, train, kind="words")


def test_three_examples_are_too_few_to_hold_some_out(tmp_path):
    assert "3 examples are too few" in failure(tmp_path, table(tmp_path, 3))


# The hub


def hub(monkeypatch: pytest.MonkeyPatch, parts: dict[str, Dataset] | Dataset) -> list[tuple[Any, ...]]:
    """Let `datasets` answer with these parts; returns what it was asked."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(*names: Any, **_: Any) -> Any:
        asked.append(names)
        return DatasetDict(parts) if isinstance(parts, dict) else parts

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def rows(count: int, label: int | None = None) -> Dataset:
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    labels = [i % 2 if label is None else label for i in range(count)]
    return Dataset.from_dict({"sentence": [f"text {i}" for i in range(count)], "label": labels}, features=features)


def test_a_dataset_of_the_hub_brings_its_parts_and_the_names_of_its_labels(tmp_path, monkeypatch):
    asked = hub(monkeypatch, {"train": rows(20), "validation": rows(6), "test": rows(8)})
    task = load_task("hf:owner/name:config", text="sentence", cache_dir=tmp_path)
    assert asked == [("owner/name", "config")]
    assert task.labels == ("negative", "positive")
    assert [len(task.train), len(task.validation), len(task.test)] == [20, 6, 8]
    assert [e.labels[0] for e in task.train[:3]] == [0, 1, 0]


def test_a_hidden_test_part_is_replaced_by_the_validation_part(tmp_path, monkeypatch):
    hub(monkeypatch, {"train": rows(20), "validation_matched": rows(6), "test": rows(8, label=-1)})
    task = load_task("owner/name", text="sentence", cache_dir=tmp_path)
    assert len(task.test) == 6
    assert len(task.validation) == 2
    assert any("the validation part is the test part" in note for note in task.notes)


def test_words_of_the_hub_have_named_labels_too(tmp_path, monkeypatch):
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "PER"]))})
    part = Dataset.from_dict({"tokens": [["Ann", "sits"]] * 20, "tags": [[1, 0]] * 20}, features=features)
    hub(monkeypatch, {"train": part, "validation": part, "test": part})
    task = load_task("owner/name", kind="tokens", text="tokens", label="tags", cache_dir=tmp_path)
    assert task.labels == ("O", "PER")
    assert task.train[0] == Example(("Ann", "sits"), (1, 0))


def test_the_hub_out_of_reach_is_one_line(tmp_path, monkeypatch):
    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    said = failure(tmp_path, "owner/name")
    assert "owner/name is no file with a known ending and could not be read from the Hugging Face hub" in said
    assert "Couldn't reach the hub; check the name and the network" in said


def test_a_dataset_of_the_hub_needs_a_training_part_and_takes_no_files(tmp_path, monkeypatch):
    hub(monkeypatch, {"test": rows(4)})
    assert "has no part named train" in failure(tmp_path, "owner/name")
    assert "brings its own parts" in failure(tmp_path, "owner/name", test="test.tsv")


def test_reading_leaves_the_settings_of_datasets_as_they_were(tmp_path):
    datasets.enable_progress_bars()
    whole(tmp_path)
    assert not datasets.are_progress_bars_disabled()


# Parts


def test_without_a_validation_part_a_seeded_tenth_is_held_out_and_the_notes_say_so(tmp_path):
    train, test = table(tmp_path, 100), table(tmp_path, 6, "test.tsv")
    a, b, c = (load_task(train, test=test, seed=seed, cache_dir=tmp_path) for seed in (0, 0, 1))
    assert len(a.validation) == 10
    assert len(a.train) == 90
    assert not {e.text for e in a.validation} & {e.text for e in a.train}
    assert a.validation == b.validation
    assert a.validation != c.validation
    assert "no validation part was given: a tenth" in a.notes[0]
    assert "a tenth" in str(a)


def test_what_has_chosen_the_model_does_not_judge_it(tmp_path):
    given = table(tmp_path, 6, "validation.tsv")
    task = load_task(table(tmp_path, 100), validation=given, cache_dir=tmp_path)
    assert [e.text[0] for e in task.test] == [f"sentence validation.tsv {i}" for i in range(6)]
    assert len(task.validation) == 10
    assert len(task.notes) == 2


def test_texts_in_both_training_and_test_are_counted(tmp_path):
    task = whole(tmp_path)
    assert task.duplicates == 0
    seen = replace(task, test=(*task.test, task.train[3], task.train[3]))
    assert seen.duplicates == 2
    assert "2 of the 8 test texts are also in the training part" in str(seen)


def test_the_fingerprint_changes_with_every_text_label_and_part(tmp_path):
    task = whole(tmp_path)
    first, *others = task.train
    changed = [
        replace(task, train=(replace(first, text=("other",)), *others)),
        replace(task, train=(replace(first, labels=(1 - first.labels[0],)), *others)),
        replace(task, train=tuple(others), test=(*task.test, first)),
        replace(task, labels=("0", "2")),
    ]
    assert len({task.fingerprint, *(t.fingerprint for t in changed)}) == 5
    assert replace(task, name="other").fingerprint == task.fingerprint


def test_a_subset_draws_training_examples_only(tmp_path):
    task = whole(tmp_path)
    some = task.subset(7, seed=3)
    assert len(some.train) == 7
    assert set(some.train) < set(task.train)
    assert (some.validation, some.test) == (task.validation, task.test)
    assert some.train == task.subset(7, seed=3).train != task.subset(7, seed=4).train
    with pytest.raises(UserError, match="has 20 training examples; cannot take 21"):
        task.subset(21)


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder with real texts is not there")
def test_real_files_are_read_whole(tmp_path):
    columns = {"text": "sentence_A", "text_pair": "sentence_B", "label": "entailment_judgment"}
    folder = DATA / "sick"
    sick = load_task(
        folder / "train.tsv", validation=folder / "dev.tsv", test=folder / "test.tsv", cache_dir=tmp_path, **columns
    )
    assert [len(sick.train), len(sick.validation), len(sick.test)] == [4500, 500, 4927]
    assert sick.labels == ("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
    assert sick.duplicates == 49, "the publishers' own overlap"
    lines = (DATA / "sst2" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    sst = load_task(DATA / "sst2" / "train.tsv", test=DATA / "sst2" / "test.tsv", text="sentence", cache_dir=tmp_path)
    assert [f"{e.labels[0]}\t{e.text[0]}" for e in sst.test] == lines


# Ids and batches

TOKENIZER = tokenizer_of([*SPECIAL_TOKENS, *"a b c d e f g h".split(), "un", "##do", "##ne"])


def tokens(ids: list[int]) -> str:
    return " ".join(TOKENIZER.tokens(ids))


def test_a_sentence_and_a_pair_are_laid_out_as_in_pretraining():
    (one,) = encode([Example(("a b",), (0,))], "sentence", TOKENIZER, 16)
    assert (tokens(one.ids), one.segments) == (f"{CLS} a b {SEP}", [0, 0, 0, 0])
    (two,) = encode([Example(("a b", "c"), (0,))], "pair", TOKENIZER, 16)
    assert (tokens(two.ids), two.segments) == (f"{CLS} a b {SEP} c {SEP}", [0, 0, 0, 0, 1, 1])
    assert (two.ids, two.segments) == TOKENIZER.pair_ids("a b", "c")
    assert (two.places, two.shown, two.cut) == ([0], [0], False)


def test_a_long_pair_loses_the_end_of_its_longer_sentence():
    (pair,) = encode([Example(("a b c d e f g", "h a"), (0,))], "pair", TOKENIZER, 8)
    assert tokens(pair.ids) == f"{CLS} a b c {SEP} h a {SEP}"
    assert pair.cut
    (exact,) = encode([Example(("a b c", "h a"), (0,))], "pair", TOKENIZER, 8)
    assert not exact.cut
    assert fit([9, 9], 6) == [3, 3]
    assert fit([1, 9], 6) == [1, 5]


def test_a_word_is_labeled_at_its_first_piece_and_nowhere_else():
    example = Example(("a", "undone", "b"), (2, 1, 0))
    encoded = encode([example], "tokens", TOKENIZER, 16)
    assert tokens(encoded[0].ids) == f"{CLS} a un ##do ##ne b {SEP}"
    assert labels_of(encoded, [example], "tokens", 8).tolist() == [[-100, 2, 1, -100, -100, 0, -100, -100]]


def test_words_that_do_not_fit_or_have_no_piece_are_not_labeled():
    example = Example(("a", "undone", "\u200b", "b", "c"), (0, 1, 1, 0, 1))
    spaced = tokenizer_of([*SPECIAL_TOKENS, "a", "b", "c", "un", "##do", "##ne"])
    (whole_,) = encode([Example(("a", "b"), (0, 1))], "tokens", spaced, 4)
    assert (whole_.shown, whole_.cut) == ([0, 1], False)
    (cut,) = encode([example], "tokens", spaced, 6)
    assert len(cut.ids) == 6
    assert cut.cut
    assert cut.units == 5
    assert cut.shown == [0, 1]
    assert cut.places == [1, 2]


def test_every_example_is_in_one_batch_and_lengths_in_a_batch_are_alike():
    rng = np.random.default_rng(0)
    examples = [Example((" ".join("abcdefgh"[: n % 8 + 1]),), (0,)) for n in rng.integers(0, 100, 203)]
    encoded = encode(examples, "sentence", TOKENIZER, 32)
    for source in (None, np.random.default_rng(1)):
        batches = list(batches_of(encoded, 16, source))
        assert sorted(row for batch in batches for row in batch) == list(range(203))
        assert max(map(len, batches)) == 16
        spread = [max(len(encoded[i].ids) for i in b) - min(len(encoded[i].ids) for i in b) for b in batches]
        assert np.mean(spread) < 2, "lengths go from 3 to 10"
    first, second = (list(batches_of(encoded, 16, np.random.default_rng(s))) for s in (1, 2))
    assert first != second
    assert first == list(batches_of(encoded, 16, np.random.default_rng(1)))


def test_a_batch_is_padded_to_a_multiple_of_eight():
    encoded = encode([Example(("a b c", "d"), (0,)), Example(("a", "b c d e f g"), (1,))], "pair", TOKENIZER, 32)
    batch = collate_texts(encoded, TOKENIZER.pad_id)
    assert {name: tuple(t.shape) for name, t in batch.items()} == dict.fromkeys(batch, (2, 16))
    assert batch["attention_mask"].sum(1).tolist() == [7, 10]
    assert batch["input_ids"][0, 7:].tolist() == [TOKENIZER.pad_id] * 9
    assert batch["token_type_ids"][1].tolist() == [0] * 3 + [1] * 7 + [0] * 6


def test_all_labels_of_some_examples_stand_one_after_the_other():
    assert truth([Example(("a", "b"), (1, 0)), Example(("c",), (2,))]).tolist() == [1, 0, 2]
