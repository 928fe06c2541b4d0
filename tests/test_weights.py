"""Weights under Hugging Face's names, and their files: nothing is lost, nothing is guessed, nothing is half written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import random_batch, small_config, small_model
from runs import files
from safetensors.torch import save_file

from mlmkit import weights
from mlmkit.config import ModelConfig
from mlmkit.errors import UserError
from mlmkit.model import BertForPreTraining, Encoder
from mlmkit.weights import (
    encoder_from_hf,
    encoder_to_hf,
    from_hf_state,
    hf_shapes,
    is_tied,
    listed,
    plain_names,
    read_pickle,
    read_weights,
    to_hf_state,
)

SIZES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "one layer": {"num_hidden_layers": 1},
    "three layers, other activation": {"num_hidden_layers": 3, "hidden_act": "relu", "type_vocab_size": 4},
}


@pytest.mark.parametrize("size", SIZES)
def test_from_hf_state_undoes_to_hf_state_bit_for_bit(size: str) -> None:
    model = small_model(**SIZES[size])
    again = from_hf_state(to_hf_state(model), model.config)
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("size", SIZES)
def test_the_names_are_those_of_transformers_and_no_other(size: str) -> None:
    from transformers import BertConfig
    from transformers import BertForPreTraining as TheirBert

    model = small_model(**SIZES[size])
    theirs = TheirBert(BertConfig(**vars(model.config))).state_dict()
    ours = to_hf_state(model)
    twice = set() if size == "untied" else {weights.DECODER, weights.SECOND_DECODER_BIAS}
    assert set(ours) == set(theirs) - twice
    assert {name: tuple(theirs[name].shape) for name in ours} == {n: tuple(t.shape) for n, t in ours.items()}


@pytest.mark.parametrize("size", SIZES)
def test_an_encoder_goes_out_under_its_names_in_every_bert_and_comes_back(size: str) -> None:
    from transformers import BertConfig, BertForTokenClassification

    model = small_model(**SIZES[size])
    config, stored = model.config, encoder_to_hf(model.encoder, model.config)
    assert all(name.startswith(("bert.embeddings.", "bert.encoder.")) for name in stored)
    fresh = Encoder(config)
    fresh.load_state_dict(encoder_from_hf(stored, config))
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.encoder.parameters(), strict=True))

    theirs = BertForTokenClassification(BertConfig(**vars(config))).eval()
    missing, unexpected = theirs.load_state_dict(stored, strict=False)
    assert set(missing) == {"classifier.weight", "classifier.bias"}
    assert not unexpected
    batch = {n: t for n, t in random_batch(config, [9, 5]).items() if not n.startswith(("labels", "next"))}
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        # the same fp32 numbers added in another order
        torch.testing.assert_close(
            fresh.eval()(**batch)[real], theirs.bert(**batch).last_hidden_state[real], rtol=1e-5, atol=1e-5
        )


def test_an_encoder_is_read_from_a_whole_model_and_its_heads_left_out() -> None:
    model = small_model()
    state = encoder_from_hf(to_hf_state(model), model.config)
    assert state.keys() == model.encoder.state_dict().keys()


def test_reading_draws_no_random_number_and_keeps_no_memory_of_the_source() -> None:
    model = small_model()
    stored = to_hf_state(model)
    before = torch.get_rng_state()
    read = from_hf_state(stored, model.config)
    assert torch.equal(torch.get_rng_state(), before)
    for tensor in stored.values():
        tensor.zero_()
    assert any(tensor.any() for tensor in read.values())


def test_what_is_read_is_fp32_whatever_was_stored() -> None:
    model = small_model()
    stored = {name: tensor.half() for name, tensor in to_hf_state(model).items()}
    for state in (from_hf_state(stored, model.config), encoder_from_hf(stored, model.config)):
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_a_missing_weight_is_named_and_many_are_counted() -> None:
    model = small_model()
    stored = to_hf_state(model)
    del stored["bert.pooler.dense.bias"]
    with pytest.raises(UserError, match=r"no 'bert\.pooler\.dense\.bias': .* not those of a BertForPreTraining"):
        from_hf_state(stored, model.config)
    with pytest.raises(UserError, match=r"no 'bert\.embeddings\.word_embeddings\.weight', .* and 34 more: .*encoder"):
        encoder_from_hf({}, model.config)
    assert listed("abc") == "'a', 'b', 'c'"


def test_a_shape_or_a_type_that_does_not_fit_is_named() -> None:
    model = small_model()
    name = "bert.encoder.layer.1.intermediate.dense.bias"
    for wrong, message in (
        (torch.zeros(41), r"intermediate\.dense\.bias' has the shape \(41,\), config\.json asks for \(40,\)"),
        (torch.zeros(40, dtype=torch.uint8), r"intermediate\.dense\.bias' holds torch\.uint8"),
    ):
        for read in (from_hf_state, encoder_from_hf):
            with pytest.raises(UserError, match=message):
                read(to_hf_state(model) | {name: wrong}, model.config)


def test_a_decoder_matrix_of_its_own_is_never_dropped_in_silence() -> None:
    stored = to_hf_state(small_model(tie_word_embeddings=False))
    assert not is_tied(stored)
    with pytest.raises(UserError, match=r"unlike the word embeddings: set tie_word_embeddings to false"):
        from_hf_state(stored, small_config())
    stored[weights.DECODER] = stored[weights.WORDS].clone()
    assert is_tied(stored)
    from_hf_state(stored, small_config())


def test_plain_names_are_left_as_they_are() -> None:
    stored = to_hf_state(small_model())
    again = plain_names(stored)
    assert again.keys() == stored.keys()
    assert all(again[name] is stored[name] for name in stored)
    assert set(plain_names({f"module.{n}": t for n, t in stored.items()})) == set(stored)
    assert set(plain_names({"classifier.weight": torch.zeros(1)})) == {"classifier.weight"}


def test_the_shapes_cost_no_memory_whatever_the_size() -> None:
    """BERT-base, 440 MB of numbers, of which none is drawn; 110,106,428 as in test_model."""
    shapes = hf_shapes(ModelConfig(vocab_size=30_522))
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 110_106_428


def test_the_middle_third_of_our_fused_matrix_is_their_key() -> None:
    model = small_model()
    fused = model.state_dict()["encoder.layers.1.attention.qkv.weight"]
    stored = to_hf_state(model)
    for part, rows in (("query", fused[:24]), ("key", fused[24:48]), ("value", fused[48:])):
        assert torch.equal(stored[f"bert.encoder.layer.1.attention.self.{part}.weight"], rows)


# --- files ----------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.mark.parametrize(
    "write", [weights.write_json, lambda path, data: weights.write_tensors(path, {"a": torch.zeros(1)})]
)
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, dict[str, int]], None]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(Crash):
            write(path, {"new": 1})
    assert path.read_text() == "old"
    write(path, {"new": 1})
    assert path.read_bytes() != b"old"
    assert files(tmp_path) == {"file"}, "a scrap stays"


def test_the_best_of_several_files_is_read(tmp_path: Path) -> None:
    """Safetensors before pickles, a single file before a sharded one."""
    torch.save({"from": torch.tensor(3.0)}, tmp_path / "pytorch_model.bin")
    assert read_weights(tmp_path)["from"] == 3
    save_file({"from": torch.tensor(2.0)}, tmp_path / "model-1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"from": "model-1.safetensors"}}))
    assert read_weights(tmp_path)["from"] == 2
    save_file({"from": torch.tensor(1.0)}, tmp_path / "model.safetensors")
    assert read_weights(tmp_path)["from"] == 1


def test_a_pickle_of_parameters_and_of_other_types_is_read(tmp_path: Path) -> None:
    kept = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(kept, tmp_path / "weights.bin")
    found = read_pickle(tmp_path / "weights.bin")
    assert {name: tensor.device.type for name, tensor in found.items()} == {"a": "cpu", "b": "cpu"}


def test_a_model_in_training_is_stored_without_its_gradients() -> None:
    model = BertForPreTraining(small_config()).train()
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in to_hf_state(model).values())
