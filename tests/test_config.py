"""The configuration: every rule says what broke it, and what is written comes back."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmkit.config import SECTIONS, DataConfig, ModelConfig, RunConfig, TrainConfig, validate
from mlmkit.errors import UserError
from mlmkit.masking import MaskingPolicy
from mlmkit.presets import PRESETS

RULES: list[tuple[str, Any, str]] = [
    ("data.max_length", 7, "data.max_length must be at least 8, got 7"),
    ("data.max_length", 513, "data.max_length 513 exceeds model.max_position_embeddings 512: lower the first"),
    ("model.max_position_embeddings", 100, "data.max_length 128 exceeds model.max_position_embeddings 100"),
    ("data.vocab_size", 5, "data.vocab_size must exceed the 5 special tokens, got 5"),
    ("data.short_seq_prob", 1.5, "data.short_seq_prob must be in [0, 1], got 1.5"),
    ("data.short_seq_prob", -0.1, "data.short_seq_prob must be in [0, 1], got -0.1"),
    ("data.held_out", 0.0, "data.held_out must be between 0 and 0.5, got 0.0"),
    ("data.held_out", 0.5, "data.held_out must be between 0 and 0.5, got 0.5"),
    ("model.hidden_size", 0, "every size of the model must be at least 1"),
    ("model.num_hidden_layers", 0, "every size of the model must be at least 1"),
    ("model.num_attention_heads", 0, "every size of the model must be at least 1"),
    ("model.intermediate_size", 0, "every size of the model must be at least 1"),
    ("model.num_attention_heads", 7, "model.hidden_size 768 must be divisible by model.num_attention_heads 7"),
    ("model.type_vocab_size", 1, "model.type_vocab_size must be at least 2: segments A and B"),
    ("model.pad_token_id", -1, "model.pad_token_id must be the id of [PAD]"),
    ("model.initializer_range", 0.0, "model.initializer_range must be positive, got 0.0"),
    ("model.layer_norm_eps", 0.0, "model.layer_norm_eps must be positive, got 0.0"),
    ("model.hidden_dropout_prob", 1.0, "model.hidden_dropout_prob must be in [0, 1), got 1.0"),
    ("model.attention_probs_dropout_prob", -0.5, "model.attention_probs_dropout_prob must be in [0, 1), got -0.5"),
    ("train.max_steps", 0, "train.max_steps must be at least 1, got 0"),
    ("train.batch_size", 0, "train.batch_size must be at least 1, got 0"),
    ("train.lr", 0.0, "train.lr must be positive, got 0.0"),
    ("train.lr", float("nan"), "train.lr expects a number, got nan"),
    ("train.lr", float("inf"), "train.lr expects a number, got inf"),
    ("train.warmup_steps", -1, "train.warmup_steps must be between 0 and train.max_steps 1000, got -1"),
    ("train.warmup_steps", 1001, "train.warmup_steps must be between 0 and train.max_steps 1000, got 1001"),
    ("train.weight_decay", -0.01, "train.weight_decay must not be negative, got -0.01"),
    ("train.beta1", 1.0, "train.beta1 and train.beta2 must be in [0, 1)"),
    ("train.beta2", -0.1, "train.beta1 and train.beta2 must be in [0, 1)"),
    ("train.eps", 0.0, "train.eps must be positive, got 0.0"),
    ("train.grad_clip", 0.0, "train.grad_clip must be positive, or none"),
    ("train.nsp_weight", -0.5, "train.nsp_weight must not be negative, got -0.5"),
    ("train.eval_every", 0, "train.eval_every must be at least 1, got 0"),
    ("train.eval_batches", 0, "train.eval_batches must be at least 1, or none"),
    ("train.checkpoint_every", 0, "train.checkpoint_every must be at least 1, or none"),
    ("train.keep_checkpoints", 0, "train.keep_checkpoints must be at least 1, got 0"),
    ("train.patience", 0, "train.patience must be at least 1, or none"),
    ("train.threads", 0, "train.threads must be at least 1, or none"),
    ("train.seed", -1, "seeds must not be negative"),
    ("data.seed", -1, "seeds must not be negative"),
    ("train.seed", 2**63, "seeds must not be negative"),
    ("train.precision", "fp16", "train.precision expects one of auto, fp32, bf16, got 'fp16'"),
    ("train.max_steps", 10.5, "train.max_steps expects a whole number, got 10.5"),
    ("train.max_steps", True, "train.max_steps expects a whole number, got True"),
    ("train.max_steps", None, "train.max_steps expects a whole number, got None"),
    ("train.lr", "fast", "train.lr expects a number, got 'fast'"),
    ("train.lr", True, "train.lr expects a number, got True"),
    ("train.grad_clip", "x", "train.grad_clip expects a number or none, got 'x'"),
    ("train.output_bias", 1, "train.output_bias expects true or false, got 1"),
    ("data.dynamic_masks", 0, "data.dynamic_masks expects true or false, got 0"),
    ("data.corpus", 3, "data.corpus expects text, got 3"),
    ("masking.unit", "letter", "masking.unit expects one of token, word, span, got 'letter'"),
]


def changed(key: str, value: Any) -> dict[str, Any]:
    """The default configuration with one value changed, as plain data."""
    data = RunConfig().to_dict()
    section, _, name = key.partition(".")
    data[section][name] = value
    return data


@pytest.mark.parametrize(("key", "value", "message"), RULES, ids=[f"{key}={value}" for key, value, _ in RULES])
def test_each_rule_refuses_what_breaks_it_and_says_so(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        RunConfig.from_dict(changed(key, value))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [rule for rule in RULES if not rule[0].startswith("masking")],  # a MaskingPolicy checks itself
)
def test_a_configuration_written_in_python_is_checked_by_the_same_rules(key: str, value: Any, message: str) -> None:
    section, _, name = key.partition(".")
    config = replace(RunConfig(), **{section: replace(getattr(RunConfig(), section), **{name: value})})
    with pytest.raises(UserError) as error:
        validate(config)
    assert str(error.value).startswith(message)


def test_the_values_at_the_edge_of_each_rule_are_allowed() -> None:
    allowed = [
        *("data.max_length=8", "data.vocab_size=6", "data.short_seq_prob=0", "data.held_out=0.49", "data.seed=0"),
        *("model.hidden_size=1", "model.num_attention_heads=1", "model.num_hidden_layers=1", "model.type_vocab_size=2"),
        *("model.intermediate_size=1", "model.max_position_embeddings=8", "model.hidden_dropout_prob=0"),
        *("train.max_steps=1", "train.warmup_steps=1", "train.batch_size=1", "train.weight_decay=0", "train.beta1=0"),
        *("train.eval_every=1", "train.eval_batches=1", "train.checkpoint_every=1", "train.patience=1"),
        *("train.keep_checkpoints=1", "train.threads=1", "train.beta2=0", "train.seed=0", "train.grad_clip=1e-9"),
    ]
    assert RunConfig().override(allowed).train.max_steps == 1
    assert RunConfig().override(["train.warmup_steps=0", "data.short_seq_prob=1"]).train.warmup_steps == 0


# --- settings from the command line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.lr=3e-3", 0.003),
        ("train.lr=1", 1.0),
        ("train.max_steps=2_000", 2000),
        ("train.output_bias=false", False),
        ("train.output_bias=True", True),
        ("train.grad_clip=none", None),
        ("train.grad_clip=off", None),
        ("train.grad_clip=0.5", 0.5),
        ("train.eval_batches=None", None),
        ("train.eval_batches=7", 7),
        ("train.precision=bf16", "bf16"),
        ("train.device=cuda:1", "cuda:1"),
        ("masking.unit=span", "span"),
        ("data.corpus=hf:name:config", "hf:name:config"),
        ("data.corpus=a=b.txt", "a=b.txt"),
        ("data.corpus=none", "none"),
        (" model.hidden_size = 384 ", 384),
    ],
)
def test_a_setting_is_read_as_the_type_of_its_field(setting: str, expected: object) -> None:
    section, _, name = setting.partition("=")[0].strip().partition(".")
    found = getattr(getattr(RunConfig().override([setting]), section), name)
    assert found == expected
    assert type(found) is type(expected)


def test_a_setting_changes_nothing_else_and_the_last_one_wins() -> None:
    config = RunConfig()
    assert config.override([]) == config
    assert config.override(["train.lr=1", "train.lr=0.5"]) == replace(config, train=replace(config.train, lr=0.5))
    assert config == RunConfig()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lr", "a setting looks like train.lr=3e-3, got 'train.lr'"),
        ("lr=3", "a setting looks like train.lr=3e-3, got 'lr=3'"),
        ("train.lr=fast", "train.lr expects a number, got 'fast'"),
        ("train.lr=", "train.lr expects a number, got ''"),
        ("train.max_steps=1e3", "train.max_steps expects a whole number, got '1e3'"),
        ("train.max_steps=none", "train.max_steps expects a whole number, got 'none'"),
        ("train.output_bias=1", "train.output_bias expects true or false, got '1'"),
        ("train.eval_batches=all", "train.eval_batches expects a whole number or none, got 'all'"),
        ("train.precision=fp16", "train.precision expects one of auto, fp32, bf16, got 'fp16'"),
        ("train.learning_rate=1", "train has no field 'learning_rate'"),
        ("train.max_step=1", "train has no field 'max_step'; did you mean 'max_steps'?"),
        ("model.hiden_size=1", "model has no field 'hiden_size'; did you mean 'hidden_size'?"),
        ("model.zzz=1", "model has no field 'zzz'"),
        ("trian.lr=1", "no section 'trian'; did you mean 'train'?; there are data, masking, model, train, start"),
        ("model.vocab_size=100", "model.vocab_size follows from the tokenizer; set data.vocab_size instead"),
        ("model.pad_token_id=3", "model.pad_token_id follows from the tokenizer; leave it out"),
        ("masking.rate=2", "masking.rate must be between 0 and 1, got 2.0"),
        ("masking.mask=0.9", "mask + random + keep must be 1"),
        ("data.max_length=1000", "data.max_length 1000 exceeds model.max_position_embeddings 512"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(setting: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        RunConfig().override([setting])
    assert str(error.value).startswith(message)


def test_settings_that_only_fit_together_may_be_given_in_any_order() -> None:
    settings_ = ["data.max_length=1024", "model.max_position_embeddings=1024"]
    for order in (settings_, settings_[::-1]):
        assert RunConfig().override(order).data.max_length == 1024
    shares = ["masking.mask=1", "masking.random=0", "masking.keep=0"]
    assert RunConfig().override(shares).masking == MaskingPolicy(mask=1, random=0, keep=0)


# --- to plain data and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_valid_and_comes_back_from_json(preset: str) -> None:
    config = PRESETS[preset]
    validate(config)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(
    st.builds(
        TrainConfig,
        lr=st.floats(1e-6, 1),
        grad_clip=st.none() | st.floats(0.1, 10),
        eval_batches=st.none() | st.integers(1, 100),
        output_bias=st.booleans(),
        precision=st.sampled_from(["auto", "fp32", "bf16"]),
    )
)
def test_what_is_written_is_read_again_without_a_change(train: TrainConfig) -> None:
    config = replace(RunConfig(), train=train)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_field_survives_the_way_through_plain_data_and_what_is_left_out_has_its_default() -> None:
    data = RunConfig().to_dict()
    assert {section: set(values) for section, values in data.items()} == {
        section: {f.name for f in fields(kind)} for section, kind in SECTIONS.items()
    }
    assert RunConfig.from_dict({}) == RunConfig()
    assert RunConfig.from_dict({"train": {"lr": 0.5}}) == replace(RunConfig(), train=TrainConfig(lr=0.5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"training": {}}, "no section 'training'; did you mean 'train'?"),
        ({"xyz": {}}, "no section 'xyz'; there are data, masking, model, train, start"),
        ({"data": {"corpora": "x"}}, "data has no field 'corpora'; did you mean 'corpus'?"),
        ({"train": None}, "section 'train' must hold fields with their values, got None"),
        ({"train": [1]}, "section 'train' must hold fields with their values, got [1]"),
    ],
)
def test_plain_data_of_another_form_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        RunConfig.from_dict(data)
    assert str(error.value).startswith(message)


def test_a_configuration_cannot_be_changed_in_place() -> None:
    for part in (RunConfig(), DataConfig(), ModelConfig(), TrainConfig(), MaskingPolicy()):
        with pytest.raises(AttributeError):
            setattr(part, fields(part)[0].name, None)


def test_field_names_of_the_model_are_those_of_transformers() -> None:
    from transformers import BertConfig

    theirs = BertConfig().to_dict()
    assert {f.name: f.default for f in fields(ModelConfig) if f.name != "vocab_size"}.items() <= theirs.items()


def test_base_is_bert_base() -> None:
    model, train, masking = PRESETS["base"].model, PRESETS["base"].train, PRESETS["base"].masking
    assert (model.num_hidden_layers, model.hidden_size, model.num_attention_heads) == (12, 768, 12)
    assert (train.max_steps, train.batch_size, train.lr, train.warmup_steps) == (1_000_000, 256, 1e-4, 10_000)
    assert (train.beta1, train.beta2, train.weight_decay) == (0.9, 0.999, 0.01)
    assert (masking.rate, masking.mask, masking.random, masking.keep) == (0.15, 0.8, 0.1, 0.1)
