"""A fine-tuned network as a folder: opened by `transformers` and by us, used on new texts, and refused if broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import small_config, tiny_tokenizer
from safetensors.torch import load_file, save_file

from mlmkit.batches import Batch
from mlmkit.errors import UserError
from mlmkit.finetuning import Classifier, FinetuneConfig, attach_head, load_classifier
from mlmkit.finetuning.encoding import collate_texts, encode
from mlmkit.finetuning.task import Example, Kind
from mlmkit.model import BertForPreTraining

LABELS = ("angry", "calm", "merry")
TEXTS = {
    "sentence": [("Bade kilo.",), ("Muna po ri, stare tre vizen ba de (e.g.)",)],
    "pair": [("Bade kilo.", "Muna po ri."), ("Stare tre", "vizen ba de, 42.")],
    "tokens": [("Bade", "kilo", "."), ("Muna", "popori", "staretre", "vi", ",", "zenbadekilo")],
}
FAMILY = {"sentence": "SequenceClassification", "pair": "SequenceClassification", "tokens": "TokenClassification"}


def classifier(kind: Kind) -> Classifier:
    """A network with random weights, large enough that its answers differ."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = BertForPreTraining(small_config(vocab_size=tokenizer.vocab_size, initializer_range=0.3))
    network = attach_head(model, kind, len(LABELS), FinetuneConfig()).eval()
    with torch.no_grad():
        network.classifier.bias.copy_(torch.tensor([0.5, -0.5, 0.1]))
    return Classifier(network, tokenizer, LABELS, kind, 32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind; do not write into them."""
    place = tmp_path_factory.mktemp("saved")
    for kind in FAMILY:
        classifier(kind).save(place / kind)
    return {kind: place / kind for kind in FAMILY}


def batch(kind: Kind) -> Batch:
    tokenizer = tiny_tokenizer()
    encoded = encode([Example(text, ()) for text in TEXTS[kind]], kind, tokenizer, 32)
    return collate_texts(encoded, tokenizer.pad_id)


@pytest.mark.parametrize("kind", FAMILY)
def test_transformers_opens_the_folder_with_the_same_scores_and_labels(saved, kind):
    import transformers

    theirs, told = getattr(transformers, f"AutoModelFor{FAMILY[kind]}").from_pretrained(
        saved[kind], output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    assert theirs.config.id2label == dict(enumerate(LABELS))
    assert theirs.config.label2id == {name: k for k, name in enumerate(LABELS)}
    with torch.no_grad():
        ours, wanted = classifier(kind).network(**batch(kind)), theirs.eval()(**batch(kind)).logits
    real = batch(kind)["attention_mask"].bool()
    if kind == "tokens":  # what is said of padding is never read
        ours, wanted = ours[real], wanted[real]
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)  # fp32 sums in another order
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved[kind])
    if kind != "tokens":
        columns = list(zip(*TEXTS[kind], strict=True))
        assert tokenizer(*map(list, columns))["input_ids"] == [
            row[keep].tolist() for row, keep in zip(batch(kind)["input_ids"], real, strict=True)
        ]


@pytest.mark.parametrize("kind", ["sentence", "tokens"])
def test_a_classifier_saved_by_transformers_opens_with_the_same_scores(tmp_path, kind):
    import transformers

    shape = small_config(vocab_size=tiny_tokenizer().vocab_size)
    config = transformers.BertConfig(
        **{n: getattr(shape, n) for n in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=32,
        num_labels=3,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    theirs = getattr(transformers, f"BertFor{FAMILY[kind]}")(config).eval()
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    ours = load_classifier(tmp_path)
    assert ours.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    real = batch(kind)["attention_mask"].bool()
    with torch.no_grad():
        a, b = ours.network(**batch(kind)), theirs(**batch(kind)).logits
    a, b = (a[real], b[real]) if kind == "tokens" else (a, b)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", FAMILY)
def test_what_was_saved_opens_with_the_same_answers(saved, kind):
    ours, again = classifier(kind), load_classifier(saved[kind])
    assert (again.kind, again.labels, again.max_length) == (kind, LABELS, 32)
    if kind == "tokens":
        assert again.tag(TEXTS[kind]) == ours.tag(TEXTS[kind])
    else:
        texts = [text if kind == "pair" else text[0] for text in TEXTS[kind]]
        assert again.predict(texts) == ours.predict(texts)


def test_a_shorter_longest_input_is_remembered(tmp_path):
    ours = classifier("sentence")
    Classifier(ours.network, ours.tokenizer, LABELS, "sentence", 16).save(tmp_path)
    assert load_classifier(tmp_path).max_length == 16
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_classifier(tmp_path).max_length == 32, "then as long as the network reads"


def test_an_answer_is_the_most_probable_label_in_the_order_of_the_texts():
    ours = classifier("sentence")
    texts = [TEXTS["sentence"][i % 2][0] + " ba" * (i % 5) for i in range(70)]  # more than one batch, odd lengths
    answers = ours.predict(texts)
    assert [a.text for a in answers] == texts
    for text, answer in list(zip(texts, answers, strict=True))[::7]:
        ids, segments = ours.tokenizer.pair_ids(text)
        with torch.no_grad():
            wanted = ours.network(torch.tensor([ids]), torch.tensor([segments])).softmax(-1)[0]
        assert list(answer.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-5)  # padded, in fp32
        assert answer.label == LABELS[int(wanted.argmax())]
        assert answer.probability == max(answer.probabilities.values())
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_every_word_that_is_read_gets_an_answer():
    ours = classifier("tokens")
    (short, long) = ours.tag(["Bade kilo .", ["ba"] * 40])
    assert [p.text for p in short] == ["Bade", "kilo", "."]
    assert len(long) == 30, "32 tokens with [CLS] and [SEP]"
    first = ours.tag([["Bade", "kilo", "."]])[0]
    for a, b in zip(first, short, strict=True):  # blanks separate words; another padding, in fp32
        assert list(a.probabilities.values()) == pytest.approx(list(b.probabilities.values()), abs=1e-5)


def test_questions_of_the_wrong_kind_are_refused():
    sentence, pair, tokens = (classifier(kind) for kind in FAMILY)
    with pytest.raises(UserError, match="labels words, not texts; use its method tag"):
        tokens.predict(["a"])
    with pytest.raises(UserError, match="labels texts, not words; use its method predict"):
        sentence.tag(["a"])
    with pytest.raises(UserError, match="predict takes a list of texts"):
        sentence.predict("a text")
    with pytest.raises(UserError, match="tag takes a list of sentences"):
        tokens.tag("a text")
    with pytest.raises(UserError, match="sentence 2 has no word"):
        tokens.tag(["a", " "])
    with pytest.raises(UserError, match=r"labels pairs \(a, b\) of texts that are not empty, got 'a'"):
        pair.predict(["a"])
    for wrong in (("a", "b"), "", " "):
        with pytest.raises(UserError, match="labels texts that are not empty"):
            sentence.predict([wrong])


# Broken folders


def copy(saved: dict[str, Path], place: Path) -> Path:
    return Path(shutil.copytree(saved["sentence"], place / "copy"))


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["BertForPreTraining"]}, "holds BertForPreTraining, not a classifier"),
        ({"architectures": None}, "holds an unnamed architecture, not a classifier"),
        ({"id2label": {"0": "a", "2": "b"}}, "does not name the labels"),
        ({"id2label": None}, "does not name the labels"),
        ({"id2label": {"0": "a"}}, "does not name the labels"),
        ({"id2label": {"0": "a", "1": "b"}}, "do not fit config.json"),
        ({"num_hidden_layers": 3}, "the weights have no"),
    ],
)
def test_a_config_that_does_not_fit_is_named(saved, tmp_path, values, said):
    folder = copy(saved, tmp_path)
    change(folder, **values)
    with pytest.raises(UserError, match=said):
        load_classifier(folder)


def test_a_missing_head_or_folder_is_named(saved, tmp_path):
    folder = copy(saved, tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"have no 'classifier.weight': they are not those of a classifier"):
        load_classifier(folder)
    with pytest.raises(UserError, match="is not a folder"):
        load_classifier(tmp_path / "no")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        classifier("sentence").save(tmp_path / "file")
