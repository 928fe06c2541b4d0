"""In and out of the Hugging Face world: every BERT that `transformers` writes computes the same here, and back."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers import prose, random_batch, small_config, small_model, tiny_tokenizer
from runs import Finished, files, finished_run
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlmkit.checkpoint import load
from mlmkit.errors import UserError
from mlmkit.evaluation import fill_mask
from mlmkit.exchange import Imported, card, export_hf, fetch, import_hf, model_card
from mlmkit.history import History
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import SPECIAL_TOKENS, Tokenizer, train_wordpiece, word_tokenizer
from mlmkit.weights import to_hf_state

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
"""Two programs that add the same fp32 numbers of size 1 in another order."""

SIZE: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}
State = dict[str, Tensor]
EVERY_PART = ("MLM head", "pooler", "NSP head")


def theirs(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A random model of `transformers`, all weights far from their start, so that a misplaced one shows."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(**{**SIZE, **changes})
    options = {"add_pooling_layer": False} if kind == "BertModel without pooler" else {}
    model = getattr(transformers, kind.removesuffix(" without pooler"))(config, **options)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            around = 1.0 if "LayerNorm.weight" in name else 0.0
            weight.copy_(around + 0.3 * torch.randn_like(weight))
    return model.eval()


def state_of(model: Any) -> State:
    """All tensors of a model, tied ones under both names."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def write_by_hand(folder: Path, config: dict[str, Any], weights: State, file: str = "model.safetensors") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer(100).save(folder)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / file) if file.endswith("safetensors") else torch.save(weights, folder / file)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_computes_as(model: BertForPreTraining, their_model: Any, parts: tuple[str, ...] = ()) -> None:
    """Hidden states, and the logits of the heads that theirs has, on padded pairs; `parts` are drawn anew in ours."""
    batch = random_batch(replace(model.config, vocab_size=100), [14, 6, 9])
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = their_model(**inputs, output_hidden_states=True)
        found = model(**inputs)
    torch.testing.assert_close(found.hidden[real], expected.hidden_states[-1][real], **TOLERANCE)
    compared = {"hidden"}
    mlm = getattr(expected, "prediction_logits", None)
    if mlm is None and type(their_model).__name__ == "BertForMaskedLM":
        mlm = expected.logits
    if mlm is not None:
        torch.testing.assert_close(found.mlm_logits[real], mlm[real], **TOLERANCE)
        compared.add("MLM head")
    nsp = getattr(expected, "seq_relationship_logits", None)
    if nsp is None and type(their_model).__name__ == "BertForNextSentencePrediction":
        nsp = expected.logits
    if nsp is not None:
        torch.testing.assert_close(found.nsp_logits, nsp, **TOLERANCE)
        compared |= {"NSP head", "pooler"}
    if (pooled := getattr(expected, "pooler_output", None)) is not None:
        torch.testing.assert_close(torch.tanh(model.nsp.pooler(found.hidden[:, 0])), pooled, **TOLERANCE)
        compared.add("pooler")
    assert not compared & set(parts)


# --- in: what transformers saves -------------------------------------------------------------------------------------

SAVED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "both heads": ("BertForPreTraining", {}, ()),
    "one layer, one head": ("BertForPreTraining", {"num_hidden_layers": 1, "num_attention_heads": 1}, ()),
    "wide, three segments": (
        "BertForPreTraining",
        {"hidden_size": 40, "num_attention_heads": 5, "intermediate_size": 8, "type_vocab_size": 3},
        (),
    ),
    "a padded vocabulary": ("BertForPreTraining", {"vocab_size": 128}, ()),
    "an own decoder matrix": ("BertForPreTraining", {"tie_word_embeddings": False}, ()),
    "an own decoder matrix, MLM only": ("BertForMaskedLM", {"tie_word_embeddings": False}, ("pooler", "NSP head")),
    "no [PAD] in config.json": ("BertForPreTraining", {"pad_token_id": None}, ()),
    "gelu_new": ("BertForPreTraining", {"hidden_act": "gelu_new"}, ()),
    "gelu_pytorch_tanh": ("BertForPreTraining", {"hidden_act": "gelu_pytorch_tanh"}, ()),
    "relu": ("BertForPreTraining", {"hidden_act": "relu"}, ()),
    "MLM only": ("BertForMaskedLM", {}, ("pooler", "NSP head")),
    "NSP only": ("BertForNextSentencePrediction", {}, ("MLM head",)),
    "encoder and pooler": ("BertModel", {}, ("MLM head", "NSP head")),
    "encoder alone": ("BertModel without pooler", {}, EVERY_PART),
    "encoder alone, own decoder matrix": ("BertModel without pooler", {"tie_word_embeddings": False}, EVERY_PART),
    "fine-tuned": ("BertForSequenceClassification", {"num_labels": 3}, ("MLM head", "NSP head")),
    "a layer norm of its own": ("BertForPreTraining", {"layer_norm_eps": 0.01}, ()),
}


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "several files"])
@pytest.mark.parametrize("variant", SAVED)
def test_what_transformers_saved_computes_the_same_here(tmp_path: Path, variant: str, shards: bool) -> None:
    kind, changes, fresh = SAVED[variant]
    model = theirs(kind, **changes)
    model.save_pretrained(tmp_path, **({"max_shard_size": "8KB"} if shards else {}))
    assert (tmp_path / "model.safetensors.index.json").is_file() == shards
    tiny_tokenizer(100).save(tmp_path)
    found = import_hf(tmp_path)
    assert found.fresh == fresh
    assert found.ignored == (("classifier.bias", "classifier.weight") if variant == "fine-tuned" else ())
    assert found.model.config.tie_word_embeddings == changes.get("tie_word_embeddings", True)
    assert found.folder == tmp_path
    assert not found.model.training
    assert_computes_as(found.model, model, fresh)
    if not fresh:
        model_alone, tokenizer = load(tmp_path)
        assert_computes_as(model_alone, model)
        assert tokenizer.backend.to_str() == found.tokenizer.backend.to_str()


def test_dropout_and_all_sizes_are_kept(tmp_path: Path) -> None:
    changes = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.05, "initializer_range": 0.03}
    theirs("BertForPreTraining", **changes).save_pretrained(tmp_path)
    tiny_tokenizer(100).save(tmp_path)
    assert import_hf(tmp_path).model.config == small_config(**{**SIZE, **changes})


# --- in: what was written otherwise, or long ago ---------------------------------------------------------------------


def old_norms(weights: State) -> State:
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }


def without(*names: str) -> Callable[[State], State]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if name not in names}


DECODER = "cls.predictions.decoder"
DIALECTS: dict[str, Callable[[State], State]] = {
    "the decoder's bias under the first name": without(f"{DECODER}.bias", f"{DECODER}.weight"),
    "the decoder's bias under the second name": without("cls.predictions.bias", f"{DECODER}.weight"),
    "all under both names": lambda weights: weights,
    "gamma and beta": old_norms,
    "data parallel": lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
    "with the list of positions": lambda w: w | {"bert.embeddings.position_ids": torch.arange(32)[None]},
}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_of_the_names_is_read(tmp_path: Path, dialect: str, file: str) -> None:
    model = theirs("BertForPreTraining")
    write_by_hand(tmp_path, model.config.to_dict(), DIALECTS[dialect](state_of(model)), file)
    found = import_hf(tmp_path)
    assert (found.fresh, found.ignored) == ((), ())
    assert found.model.config.tie_word_embeddings
    assert found.model.mlm.decoder.weight is found.model.encoder.embeddings.token.weight
    assert_computes_as(found.model, model)


def test_where_two_biases_differ_the_one_that_transformers_computes_with_counts(tmp_path: Path) -> None:
    from transformers import BertForPreTraining as TheirBert

    weights = state_of(theirs("BertForPreTraining", tie_word_embeddings=False))
    weights["cls.predictions.bias"] = weights[f"{DECODER}.bias"] + 1
    write_by_hand(tmp_path, {"model_type": "bert", **SIZE, "tie_word_embeddings": False}, weights)
    assert_computes_as(import_hf(tmp_path).model, TheirBert.from_pretrained(tmp_path).eval())


def test_a_decoder_matrix_that_differs_from_the_word_embeddings_is_kept_whatever_config_json_says(
    tmp_path: Path,
) -> None:
    from transformers import BertForPreTraining as TheirBert

    weights = state_of(theirs("BertForPreTraining", tie_word_embeddings=False))
    write_by_hand(tmp_path, {"model_type": "bert", **SIZE, "tie_word_embeddings": True}, weights)
    for model in (import_hf(tmp_path).model, load(tmp_path)[0]):
        assert not model.config.tie_word_embeddings
        assert_computes_as(model, TheirBert.from_pretrained(tmp_path).eval())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(tmp_path: Path, dtype: torch.dtype) -> None:
    model = theirs("BertForPreTraining").to(dtype)
    write_by_hand(tmp_path, model.config.to_dict(), without(f"{DECODER}.weight", f"{DECODER}.bias")(state_of(model)))
    found = import_hf(tmp_path).model
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    assert_computes_as(found, model.float())


def test_pickles_in_several_files_are_read(tmp_path: Path) -> None:
    model = theirs("BertForPreTraining")
    weights = list(state_of(model).items())
    write_by_hand(tmp_path, model.config.to_dict(), {}, "pytorch_model-00001-of-00002.bin")
    torch.save(dict(weights[::2]), tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save(dict(weights[1::2]), tmp_path / "pytorch_model-00002-of-00002.bin")
    places = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, (name, _) in enumerate(weights)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert_computes_as(import_hf(tmp_path).model, model)


def test_safetensors_are_preferred_to_a_pickle(tmp_path: Path) -> None:
    model, other = theirs("BertForPreTraining"), theirs("BertForPreTraining", seed=1)
    model.save_pretrained(tmp_path)
    write = tmp_path / "pytorch_model.bin"
    torch.save(state_of(other), write)
    tiny_tokenizer(100).save(tmp_path)
    assert_computes_as(import_hf(tmp_path).model, model)


def test_a_config_json_of_the_first_days_is_understood(tmp_path: Path) -> None:
    """It names sizes only: neither the kind of model nor its activation."""
    model = theirs("BertForPreTraining")
    write_by_hand(tmp_path, SIZE, state_of(model), "pytorch_model.bin")
    assert_computes_as(import_hf(tmp_path).model, model)


# --- in: heads that are missing --------------------------------------------------------------------------------------


def test_a_missing_head_is_drawn_from_the_seed_and_nothing_else_is(tmp_path: Path) -> None:
    theirs("BertForMaskedLM").save_pretrained(tmp_path)
    tiny_tokenizer(100).save(tmp_path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (import_hf(tmp_path, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing == {"nsp.pooler.weight", "nsp.relation.weight"}
    # 576 numbers of the deviation 0.02: their own deviation is within six standard errors
    assert abs(first["nsp.pooler.weight"].std().item() / 0.02 - 1) < 6 / math.sqrt(2 * 576)


# --- in: tokenizers --------------------------------------------------------------------------------------------------

ODD = ("Café Ångström", "İstanbul STRASSE straße", "你好 世界 kilo", "🙂 zen", "un[MASK]ed [MASK]s", "[SEP] [cls]", "")


def base_like() -> list[str]:
    """A vocabulary with its special tokens where BERT-base has them: [PAD] 0, [UNK] 100 … [MASK] 103."""
    words = [t for t in tiny_tokenizer(200).tokens(range(200)) if t not in SPECIAL_TOKENS]
    letters = [c for c in "ÅCÉéåßI你世" if c not in words]
    return [
        *("[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused99]"),
        *words,
        *letters,
        *("##" + c for c in "éåßÉ"),
    ]


TOKENIZER_SETTINGS: dict[str, dict[str, bool | None] | None] = {
    "no tokenizer_config.json": None,
    "silent": {},
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "cased without accents": {"do_lower_case": False, "strip_accents": True},
    "uncased with accents": {"do_lower_case": True, "strip_accents": False},
    "accents unsaid": {"do_lower_case": False, "strip_accents": None},
    "Chinese in words": {"tokenize_chinese_chars": False},
}


@pytest.mark.parametrize("said", TOKENIZER_SETTINGS)
def test_a_vocabulary_without_tokenizer_json_is_read_as_transformers_reads_it(tmp_path: Path, said: str) -> None:
    from transformers import AutoTokenizer

    model = theirs("BertForPreTraining", vocab_size=320)
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in base_like()), encoding="utf-8")
    if (settings := TOKENIZER_SETTINGS[said]) is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = import_hf(tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert found.tokenizer.special_ids.tolist() == [0, 100, 101, 102, 103]
    assert 99 not in found.tokenizer.ordinary_ids
    assert 104 not in found.tokenizer.ordinary_ids
    for text in (*ODD, *prose(3, 60)):
        assert found.tokenizer.pair_ids(text)[0] == reference(text)["input_ids"], text
    assert_computes_as(found.model, model)
    export_hf(found.model, found.tokenizer, tmp_path / "out")
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [again(text)["input_ids"] for text in ODD] == [reference(text)["input_ids"] for text in ODD]


def test_pad_is_what_the_tokenizer_calls_so(tmp_path: Path) -> None:
    """Its embedding is never trained; config.json may name another id, or none."""
    theirs("BertForPreTraining").save_pretrained(tmp_path)
    tokens = tiny_tokenizer(100).tokens(range(100))
    (tmp_path / "vocab.txt").write_text("".join(f"{t}\n" for t in [*tokens[1:20], "[PAD]", *tokens[20:]]))
    edit_config(tmp_path, pad_token_id=7)
    found = import_hf(tmp_path)
    assert found.tokenizer.pad_id == found.model.config.pad_token_id == 19
    assert found.model.encoder.embeddings.token.padding_idx == 19
    export_hf(found.model, found.tokenizer, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 19
    assert load(tmp_path / "out")[0].config == found.model.config


# --- in: what is refused ---------------------------------------------------------------------------------------------


def reweigh(folder: Path, change: Callable[[State], State]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def sharded(folder: Path, drop: int = 0, **index: Any) -> None:
    """Rewrite the weights as files of one tensor each, without the first `drop` of them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{i}.safetensors" for i, name in enumerate(weights)}
    for name, place in list(places.items())[drop:]:
        save_file({name: weights[name]}, folder / place)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places | index}))


def as_pickle(content: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(content, folder / "pytorch_model.bin")

    return change


KEY = "bert.encoder.layer.0.attention.self.key.weight"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "roberta": (
        lambda f: edit_config(f, model_type="roberta"),
        r"model_type='roberta'; mlmkit reads model_type='bert'",
    ),
    "relative positions": (
        lambda f: edit_config(f, position_embedding_type="relative_key"),
        r"asks for 'relative_key' positions; mlmkit computes absolute ones",
    ),
    "a decoder": (lambda f: edit_config(f, is_decoder=True), r"is_decoder=true; mlmkit reads encoders"),
    "cross attention": (lambda f: edit_config(f, add_cross_attention=True), r"add_cross_attention=true"),
    "an activation": (
        lambda f: edit_config(f, hidden_act="silu"),
        r"hidden_act expects one of gelu, gelu_new, gelu_pytorch_tanh, relu, got 'silu'",
    ),
    "one segment": (lambda f: edit_config(f, type_vocab_size=1), r"type_vocab_size must be at least 2"),
    "a missing layer": (
        lambda f: edit_config(f, num_hidden_layers=3),
        r"the weights have no 'bert\.encoder\.layer\.2\.attention\.output\.dense\.weight', .* and 13 more",
    ),
    "half a head": (
        lambda f: reweigh(f, without("cls.predictions.transform.LayerNorm.weight")),
        r"the weights have no 'cls\.predictions\.transform\.LayerNorm\.weight': they are not those of a",
    ),
    "a head without its bias": (
        lambda f: reweigh(f, without("cls.predictions.bias")),
        r"the weights have no 'cls\.predictions\.bias'",
    ),
    "no decoder matrix though it is not tied": (
        lambda f: edit_config(f, tie_word_embeddings=False),
        r"the weights have no 'cls\.predictions\.decoder\.weight'",
    ),
    "a shape": (
        lambda f: reweigh(f, lambda w: w | {KEY: torch.zeros(3, 5)}),
        r"weight 'bert\.encoder\.layer\.0\.attention\.self\.key\.weight' has the shape \(3, 5\), "
        r"config\.json asks for \(24, 24\)",
    ),
    "a size": (
        lambda f: edit_config(f, vocab_size=140),
        r"word_embeddings\.weight' has the shape \(120, 24\).*\(140, 24\)",
    ),
    "quantized": (
        lambda f: reweigh(f, lambda w: w | {KEY: torch.zeros(24, 24, dtype=torch.int8)}),
        r"key\.weight' holds torch\.int8: give weights that are not quantized",
    ),
    "a small vocabulary": (
        lambda f: edit_config(f, vocab_size=90),
        r"the tokenizer has 100 tokens, the model in config\.json only 90; they do not belong together",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json does not exist"),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "vocab.txt")],
        r"tokenizer\.json does not exist",
    ),
    "a vocabulary without [MASK]": (
        lambda f: [(f / "tokenizer.json").unlink(), (f / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")],
        r"vocab\.txt: the tokenizer has no \[MASK\]",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"holds no weights: it needs model\.safetensors or"),
    "half the weights": (lambda f: os.truncate(f / "model.safetensors", 4000), r"model\.safetensors is damaged"),
    "several files missing": (
        lambda f: sharded(f, drop=4),
        r"4 of the 46 weight files that .*index\.json names are missing: 'model-0\.safetensors', .* and 1 more",
    ),
    "an index that promises too much": (
        lambda f: sharded(f, nothing="model-1.safetensors"),
        r"index\.json names 'nothing', which its files do not hold",
    ),
    "an index that points elsewhere": (
        lambda f: sharded(f, **{KEY: "../elsewhere.safetensors"}),
        r"index\.json is damaged, it does not say which file holds which weight",
    ),
    "an index without places": (
        lambda f: [sharded(f), (f / "model.safetensors.index.json").write_text("{}")],
        r"index\.json is damaged, it does not say",
    ),
    "a pickle of a list": (as_pickle([torch.zeros(1)]), r"pytorch_model\.bin does not hold tensors by name"),
    "a pickle of more than tensors": (as_pickle({"a": 1}), r"pytorch_model\.bin does not hold tensors by name"),
    "a pickled object": (as_pickle(SimpleNamespace(a=1)), r"holds more than tensors, and nothing of it was run"),
    "half a pickle": (
        lambda f: [as_pickle({"a": torch.zeros(999)})(f), os.truncate(f / "pytorch_model.bin", 3000)],
        r"pytorch_model\.bin is damaged",
    ),
    "an empty pickle": (
        lambda f: [as_pickle({})(f), os.truncate(f / "pytorch_model.bin", 0)],
        r"pytorch_model\.bin is damaged",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line_that_says_what_is_missing(tmp_path: Path, fault: str) -> None:
    spoil, message = REFUSED[fault]
    theirs("BertForPreTraining").save_pretrained(tmp_path)
    tiny_tokenizer(100).save(tmp_path)
    spoil(tmp_path)
    for opened in (import_hf, load):
        with pytest.raises(UserError, match=message) as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)


class Malice:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("form", ["torch.save", "old torch.save", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    theirs("BertForPreTraining").save_pretrained(tmp_path)
    tiny_tokenizer(100).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    trace, path = tmp_path / "it_ran", tmp_path / "pytorch_model.bin"
    content = {"bert.embeddings.word_embeddings.weight": Malice(trace)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch.save")
    with pytest.raises(
        UserError, match=r"pytorch_model\.bin .*nothing of it was run: get the checkpoint as safetensors"
    ):
        import_hf(tmp_path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Malice(trace)))
    assert trace.exists(), "the test itself must be able to fail"


# --- in: names instead of folders ------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A hub of one repository; keeps what was asked of it."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    place = SimpleNamespace(files=tmp_path / "repository", calls=[])

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        target = tmp_path / "cache" / name.replace("/", "--")
        target.mkdir(parents=True, exist_ok=True)
        got = list(filter_repo_objects(sorted(files(place.files)), allow_patterns=allow_patterns))
        place.calls.append((name, revision, got))
        for file in got:
            shutil.copy(place.files / file, target)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    theirs("BertForPreTraining").save_pretrained(place.files)
    tiny_tokenizer(100).save(place.files)
    for other in ("tf_model.h5", "flax_model.msgpack", "README.md", "pytorch_model.bin", "rust_model.ot"):
        (place.files / other).write_text("not wanted")
    return place


def test_of_a_repository_only_what_a_bert_needs_is_fetched(hub: SimpleNamespace) -> None:
    found = import_hf("someone/some-bert", revision="v2")
    wanted = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert hub.calls == [("someone/some-bert", "v2", wanted)]
    assert found.folder.name == "someone--some-bert"
    assert_computes_as(found.model, theirs("BertForPreTraining"))


def test_a_pickle_is_fetched_where_there_is_nothing_else(hub: SimpleNamespace) -> None:
    (hub.files / "model.safetensors").unlink()
    torch.save(state_of(theirs("BertForPreTraining")), hub.files / "pytorch_model.bin")
    assert_computes_as(import_hf("some-bert").model, theirs("BertForPreTraining"))
    assert ["pytorch_model.bin" in got for _, _, got in hub.calls] == [False, True]


def test_sharded_weights_are_fetched(hub: SimpleNamespace) -> None:
    sharded(hub.files)
    assert_computes_as(import_hf("someone/some-bert").model, theirs("BertForPreTraining"))


def test_without_a_network_one_line_says_that_a_folder_works_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # as the variable HF_HUB_OFFLINE=1
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = r"^nobody/no-bert could not be fetched \(.*cannot be reached.*\); a folder with the checkpoint works too$"
    with pytest.raises(UserError, match=message):
        import_hf("nobody/no-bert")


def test_why_a_name_could_not_be_fetched_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    answer = httpx.Response(404, request=httpx.Request("GET", "https://hub"))
    reasons = {
        r"a/b could not be fetched \(the Hugging Face hub has no such repository": errors.RepositoryNotFoundError(
            "404", response=answer
        ),
        r"a/b at v9 could not be fetched \(the repository has no revision 'v9'": errors.RevisionNotFoundError(
            "404", response=answer
        ),
        r"a/b at v9 could not be fetched \(OSError: no space left": OSError("no space left\non device"),
    }
    for message, error in reasons.items():

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(UserError, match=message) as caught:
            fetch("a/b", "v9" if "v9" in message else None)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b/c", "./runs/lost", "../lost", "/lost/bert", "~/lost", "a b"])
def test_a_path_that_does_not_exist_is_not_asked_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(UserError, match="is neither a folder nor a name on the Hugging Face hub such as"):
        fetch(name, revision="main")


def test_a_file_is_no_checkpoint_and_a_folder_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "bert.bin").touch()
    with pytest.raises(UserError, match=r"bert\.bin is neither a folder nor a name"):
        fetch(tmp_path / "bert.bin")
    with pytest.raises(UserError, match="is a folder on this disk and has no revision 'main': leave it away"):
        fetch(tmp_path, "main")
    assert fetch(str(tmp_path)) == tmp_path


# --- out -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, folder = finished.run, tmp_path_factory.mktemp("out") / "odd-bert"
    return export_hf(run.model, run.tokenizer, folder, history=run.history, license="cc-by-4.0", language="en")


def test_the_auto_classes_find_every_weight_they_have_a_place_for(exported: Path, finished: Finished) -> None:
    from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining

    unused = {
        AutoModelForPreTraining: (),
        AutoModelForMaskedLM: ("bert.pooler.", "cls.seq_relationship."),
        AutoModel: ("cls.",),
    }
    for auto, prefixes in unused.items():
        model, info = auto.from_pretrained(exported, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["mismatched_keys"]
        assert not info["error_msgs"]
        assert all(name.startswith(prefixes) for name in info["unexpected_keys"]), info
        assert_computes_as(finished.run.model, model.eval())


def test_the_fill_mask_pipeline_gives_our_candidates_and_probabilities(exported: Path, finished: Finished) -> None:
    from transformers import pipeline

    fill = pipeline("fill-mask", str(exported), device="cpu")
    for text in ("The [MASK] kettle forgets no bishop.", "Every [MASK] paints the ladder", "[MASK]!"):
        (ours,) = fill_mask(finished.run.model, finished.run.tokenizer, text, top=5)
        answers = fill(text, top_k=5)
        assert [a["token"] for a in answers] == [c.id for c in ours]
        # one softmax over the same logits, which differ by some 1e-6
        assert [a["score"] for a in answers] == pytest.approx([c.probability for c in ours], abs=1e-5)


def test_export_and_import_give_the_same_model_bit_for_bit(exported: Path, finished: Finished) -> None:
    found = import_hf(exported)
    assert (found.fresh, found.ignored) == ((), ())
    assert_same(found, finished.run.model, finished.run.tokenizer)
    assert load(exported)[0].config == finished.run.model.config


def assert_same(found: Imported, model: BertForPreTraining, tokenizer: Tokenizer) -> None:
    assert found.model.config == model.config
    state = found.model.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in model.state_dict().items())
    assert found.tokenizer.backend.to_str() == tokenizer.backend.to_str()


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": False},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu", "tie_word_embeddings": False, "vocab_size": 130},
        {"hidden_act": "gelu_pytorch_tanh", "type_vocab_size": 4},
    ],
    ids=str,
)
def test_in_and_out_and_into_transformers_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    from transformers import AutoModelForMaskedLM, AutoModelForPreTraining

    original = theirs("BertForPreTraining", **changes)
    original.save_pretrained(tmp_path / "in")
    tiny_tokenizer(100).save(tmp_path / "in")
    found = import_hf(tmp_path / "in")
    export_hf(found.model, found.tokenizer, tmp_path / "out")
    again, info = AutoModelForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    before, after = original.state_dict(), again.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name != "cls.predictions.bias")
    assert again.config.hidden_act == original.config.hidden_act
    assert_computes_as(found.model, AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval())
    assert_same(import_hf(tmp_path / "out"), found.model, found.tokenizer)


def test_an_untied_model_of_ours_stores_both_matrices_and_a_tied_one_only_one(tmp_path: Path) -> None:
    for tied, extra in ((True, set()), (False, {f"{DECODER}.weight", f"{DECODER}.bias"})):
        model = small_model(tie_word_embeddings=tied)
        stored = set(to_hf_state(model))
        assert {name for name in stored if name.startswith(DECODER)} == extra


@pytest.mark.parametrize("kind", ["file", "folder", "hidden file"])
def test_a_folder_that_is_not_empty_is_never_written_into(tmp_path: Path, finished: Finished, kind: str) -> None:
    target = tmp_path / "taken"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / (".mine" if kind == "hidden file" else "mine")).write_text("mine")
    message = "is a file; the export needs a folder" if kind == "file" else "is not empty; choose a new folder"
    with pytest.raises(UserError, match=message):
        export_hf(finished.run.model, finished.run.tokenizer, target)
    assert target.is_file() or len(files(target)) == 1


def test_a_wrong_word_leaves_no_folder_behind(tmp_path: Path, finished: Finished) -> None:
    run, target = finished.run, tmp_path / "out"
    with pytest.raises(UserError, match=r"a license is given by its short name, .* got 'do what you want'"):
        export_hf(run.model, run.tokenizer, target, license="Do what you want")
    with pytest.raises(UserError, match=r"a language is given by its ISO 639 code .*, got 'English'"):
        export_hf(run.model, run.tokenizer, target, language="English")
    with pytest.raises(UserError, match=r"the tokenizer has 200 tokens, the model only 160: give the tokenizer that"):
        export_hf(run.model, tiny_tokenizer(200), target)
    assert not target.exists()


def test_an_empty_folder_and_folders_above_it_are_made(tmp_path: Path) -> None:
    model, tokenizer = small_model(vocab_size=100), tiny_tokenizer(100)
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert export_hf(model, tokenizer, target) == target
        assert files(target) == {
            *("config.json", "model.safetensors", "README.md"),
            *("tokenizer.json", "tokenizer_config.json", "vocab.txt"),
        }
        assert json.loads((target / "tokenizer_config.json").read_text())["model_max_length"] == 32


# --- the model card --------------------------------------------------------------------------------------------------


def front_matter(text: str) -> dict[str, Any]:
    empty, block, _ = text.split("---\n", 2)
    assert empty == ""
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def test_the_card_says_what_was_measured(exported: Path, finished: Finished) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    history = finished.run.history
    last, base = history.last, history.baselines
    for expected in (
        f"{finished.run.model.num_parameters():,} parameters",
        "(uncased)",
        f"fingerprint `{history.corpus['fingerprint']}`",
        f"{history.corpus['report']['words']['train']:,}",
        f"**{last.mlm_loss:.3f}**",
        f"**{last.nsp_accuracy:.1%}**",
        f"{base.uniform:.3f}",
        f"{base.unigram_cross_entropy:.3f}",
        f"{base.bigram_cross_entropy:.3f}",
        "24 of 8 pairs",
        f"{last.tokens:,}, repetitions counted",
        "80% hidden, 10% replaced at random, 10% kept",
        f"torch {torch.__version__}",
        "threads: 1, fp32",
        "![Held-out losses between their baselines](curve.png)",
        'folder = "odd-bert"',
        "given under `cc-by-4.0`",
        "random weights",
    ):
        assert expected in text, expected
    assert (exported / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert str(finished.text.parent) not in text, "folders of this machine are nobody's business"


def test_the_front_matter_is_what_the_hub_reads(exported: Path, finished: Finished) -> None:
    from huggingface_hub import ModelCard

    data = front_matter((exported / "README.md").read_text(encoding="utf-8"))
    assert data["license"] == "cc-by-4.0"
    assert data["language"] == "en"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "fill-mask"
    results = ModelCard.load(exported / "README.md").data.eval_results
    measured = {(r.task_type, r.metric_name): r.metric_value for r in results}
    last = finished.run.history.last
    assert measured == {  # rounded to four digits
        ("fill-mask", "MLM loss (nats)"): pytest.approx(last.mlm_loss, abs=5e-5),
        ("fill-mask", "MLM accuracy"): pytest.approx(last.mlm_accuracy, abs=5e-5),
        ("text-classification", "NSP loss (nats)"): pytest.approx(last.nsp_loss, abs=5e-5),
        ("text-classification", "NSP accuracy"): pytest.approx(last.nsp_accuracy, abs=5e-5),
    }
    assert {r.dataset_name for r in results} == {"odd.txt, validation part"}


@pytest.mark.parametrize("name", ["a: b", 'the "best"', "- x", "né#1", "{a}", "yes"])
def test_no_name_breaks_the_front_matter(finished: Finished, name: str) -> None:
    text = model_card(finished.run.model, finished.run.tokenizer, name, finished.run.history)
    data = front_matter(text)
    assert data["model-index"][0]["name"] == name
    assert "license" not in data
    assert "No license was given" in text


def test_without_a_history_the_card_says_that_nothing_is_known() -> None:
    model = small_model(vocab_size=100, tie_word_embeddings=False, hidden_act="relu")
    text = model_card(model, tiny_tokenizer(100, lowercase=False), "plain", license="MIT", language=None)
    data = front_matter(text)
    assert data["license"] == "mit"
    assert not {"model-index", "language"} & set(data)
    assert "No record of the training came with this export" in text
    assert "parameters with heads for masked words and for the relation of two sentences, in" in text
    assert "pre-trained with" not in text
    assert "(cased)" in text
    assert "The decoder has a matrix of its own. The activation is relu." in text
    assert "curve.png" not in text
    assert "## Results" not in text


def changed(history: History, **changes: Any) -> History:
    """A copy with other settings, `section__field=value`, or other attributes."""
    config = {section: dict(fields) for section, fields in history.config.items()}
    rest = {}
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            config.setdefault(section, {})[field] = value
        else:
            rest[name] = value
    return replace(history, config=config, **rest)


def test_the_card_of_an_invented_language_names_its_floor_and_no_human_language(finished: Finished) -> None:
    history = finished.run.history
    base = replace(history.baselines, mlm_floor=2.25, nsp_floor=0.25, nsp_optimum=0.9)
    corpus = history.corpus | {"name": "exact:market:450000"}
    text = model_card(finished.run.model, word_tokenizer(["a"]), "x", changed(history, baselines=base, corpus=corpus))
    assert "| the best possible | 2.250 |" in text
    assert "| the best possible | 0.250 | 90.0% |" in text
    assert "`exact:market:450000`" in text
    assert "invented and small" in text
    assert "Similar documents" not in text
    assert "language" not in front_matter(text)


def test_the_card_of_a_run_that_stopped_early_reports_the_weights_it_left(finished: Finished) -> None:
    history = finished.run.history
    first, *others = history.evaluations
    evaluations = [first, replace(others[0], mlm_loss=1.234), *others[1:]]
    stopped = changed(history, evaluations=evaluations, train__patience=1, status="stopped early")
    text = model_card(finished.run.model, finished.run.tokenizer, "x", stopped)
    assert "**1.234**" in text
    assert f"{others[0].step} of 8 pairs" in text
    assert "stopped early" in text
    went_on = changed(history, evaluations=evaluations)
    assert "1.234" not in model_card(finished.run.model, finished.run.tokenizer, "x", went_on)


def test_the_card_of_a_run_without_nsp_gives_no_figures_for_it(finished: Finished) -> None:
    text = model_card(
        finished.run.model, finished.run.tokenizer, "x", changed(finished.run.history, train__nsp_weight=0.0)
    )
    assert "pre-trained with masked language modeling, " in text
    assert "The sentence head was not trained in this run: what it answers means nothing." in text
    assert "Where it was trained, the sentence head gives class 0" in text
    assert "next-sentence-prediction" not in front_matter(text)["tags"]
    assert len(front_matter(text)["model-index"][0]["results"]) == 1


@pytest.mark.parametrize(
    ("checkpoint", "shown"),
    [
        ("google-bert/bert-base-uncased", "`google-bert/bert-base-uncased`"),
        ("/home/someone/secret/bert", "`bert`"),
        ("../runs/laptop", "`laptop`"),
        (None, "random weights"),
    ],
)
def test_the_card_names_what_a_run_went_on_from(finished: Finished, checkpoint: str | None, shown: str) -> None:
    history = changed(finished.run.history, start__checkpoint=checkpoint)
    text = model_card(finished.run.model, finished.run.tokenizer, "x", history)
    assert f"| started from | {shown} |" in text
    assert ("went on from another checkpoint" in text) == (checkpoint is not None)
    assert ("pre-trained further with masked language modeling" in text) == (checkpoint is not None)
    silent = model_card(finished.run.model, finished.run.tokenizer, "x", changed(history, train__nsp_weight=0.0))
    assert ("means nothing" in silent) == (checkpoint is None), "the head may have been trained before"


def test_the_card_of_a_run_that_has_measured_nothing_yet(tmp_path: Path, finished: Finished) -> None:
    run = finished.run
    history = changed(run.history, evaluations=[], hardware={}, status="running")
    export_hf(run.model, run.tokenizer, tmp_path / "x", history=history)
    text = (tmp_path / "x" / "README.md").read_text()
    assert "| updates | not recorded |" in text
    assert "| hardware | not recorded |" in text
    assert "## Results" not in text
    assert "model-index" not in front_matter(text)
    assert "curve.png" not in files(tmp_path / "x")


def test_hardware_data_and_sources_as_the_card_names_them(finished: Finished) -> None:
    gpu = {"device": "NVIDIA H200", "cpu": "x", "cores": 16, "threads": 8, "precision": "bf16"}
    report = finished.run.history.corpus["report"] | {"overlap": {"validation": 0.023}}
    corpus = {"name": "python-docs + /home/me/my texts + hf:a/b:c", "fingerprint": "f", "report": report}
    text = model_card(
        finished.run.model, finished.run.tokenizer, "x", changed(finished.run.history, hardware=gpu, corpus=corpus)
    )
    assert "| hardware | NVIDIA H200, bf16 |" in text
    assert "`python-docs + my texts + hf:a/b:c`" in text
    assert "2.3% of the 8-grams of the validation part also occur in the training part" in text
    assert card.corpus_name(changed(finished.run.history, corpus=corpus)).startswith("python-docs + my texts")


def test_a_cased_model_with_a_vocabulary_in_the_order_of_bert_base_goes_out_and_comes_back(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    cased = train_wordpiece([*prose(0, 400), "café Ångström Σίσυφος 你好 straße" * 2], 300, lowercase=False)
    (tmp_path / "in").mkdir()
    tokens = [t for t in cased.tokens(range(cased.vocab_size)) if t not in SPECIAL_TOKENS]
    order = ["[PAD]", *(f"[unused{i}]" for i in range(3)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]
    (tmp_path / "in" / "vocab.txt").write_text("".join(f"{t}\n" for t in order), encoding="utf-8")
    (tmp_path / "in" / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    theirs("BertForPreTraining", vocab_size=len(order)).save_pretrained(tmp_path / "in")
    found = import_hf(tmp_path / "in")
    export_hf(found.model, found.tokenizer, tmp_path / "out")
    reference, again = AutoTokenizer.from_pretrained(tmp_path / "out"), import_hf(tmp_path / "out").tokenizer
    assert again.special_ids.tolist() == [0, 4, 5, 6, 7]
    for text in (*ODD, *prose(7, 60)):
        ids = found.tokenizer.pair_ids(text)[0]
        assert again.pair_ids(text)[0] == ids == reference(text)["input_ids"], text
    assert "(cased)" in (tmp_path / "out" / "README.md").read_text()
