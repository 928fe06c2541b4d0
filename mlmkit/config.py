"""Every number that defines a run, in five frozen dataclasses.

>>> config = RunConfig().override(["train.lr=3e-3", "masking.unit=word"])
>>> config.train.lr, config.masking.unit
(0.003, 'word')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_type_hints

from mlmkit.errors import UserError
from mlmkit.masking import MaskingPolicy
from mlmkit.settings import check_type, nearest, parse


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is cut.

    Args:
        corpus: source as `load_corpus` takes it.
        vocab_size: WordPiece vocabulary to learn; a small corpus gives fewer.
        lowercase: fold case, as "uncased" BERT.
        max_length: longest pair S, [CLS] and [SEP] included.
        short_seq_prob: share of pairs with a random shorter target length.
        held_out: share of the text in validation, and again in test.
        seed: of the split.
        dynamic_masks: new pairs and masks in each epoch; False: every epoch shows the same pairs with the same
            masks in another order, as a corpus that was masked once and written to disk.
    """

    corpus: str = "python-docs"
    vocab_size: int = 4096
    lowercase: bool = True
    max_length: int = 128
    short_seq_prob: float = 0.1
    held_out: float = 0.05
    seed: int = 0
    dynamic_masks: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """Size of the network; the field names are those of Hugging Face's `config.json`.

    `vocab_size` is set from the tokenizer when a run begins (the size to learn is `data.vocab_size`).

    Args:
        hidden_act: activation of the feed-forward nets and of the MLM head; "gelu" is BERT's own.
        tie_word_embeddings: whether the decoder matrix of the MLM head is the matrix of the word embeddings.
        pad_token_id: id of [PAD] in the tokenizer; its embedding starts at zero and, as an input, gets no gradient.
    """

    vocab_size: int = 4096
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    tie_word_embeddings: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained.

    Args:
        max_steps: updates in total.
        batch_size: sentence pairs in a batch.
        lr: peak learning rate of AdamW, reached after `warmup_steps`, then falling linearly to 0 at `max_steps`.
        warmup_steps: updates over which the rate rises linearly from 0.
        weight_decay: decoupled decay of matrices; biases and layer norms are not decayed.
        beta1, beta2, eps: of AdamW.
        grad_clip: largest norm of the whole gradient; None for no clipping.
        nsp_weight: factor of the NSP loss in the sum that is minimized; 0 trains without NSP: its head then learns
            nothing, and what it answers means nothing.
        output_bias: start the decoder's bias at the log frequency of each token in the training text. The
            model then begins at the unigram entropy instead of spending its first hundreds of updates on it.
        eval_every: updates between evaluations on the validation part.
        eval_batches: batches of one evaluation; None for the whole validation part.
        checkpoint_every: updates between checkpoints; None: at each evaluation.
        keep_checkpoints: how many of the newest checkpoints stay on disk.
        patience: stop after so many evaluations without a lower held-out MLM loss and keep the best model;
            None: train to the end.
        seed: of weights, pairs, order, masks and dropout.
        precision: "fp32", "bf16" (autocast), or "auto": bf16 where the device computes in it.
        device: "cpu", "cuda", "cuda:1", … or "auto": the GPU if there is one.
        threads: CPU threads; None: PyTorch's choice.
    """

    max_steps: int = 1000
    batch_size: int = 64
    lr: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    grad_clip: float | None = 1.0
    nsp_weight: float = 1.0
    output_bias: bool = True
    eval_every: int = 500
    eval_batches: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    patience: int | None = None
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class StartConfig:
    """What a run starts from: random weights, or a trained BERT that goes on with other text.

    Args:
        checkpoint: folder or name of a BERT, as `import_hf` takes it. Its vocabulary and the size of its network are
            taken with it: `model`, `data.vocab_size` and `data.lowercase` then say nothing. None: random weights.
        new_words: give their own token to so many words of the training text that the checkpoint's vocabulary cuts
            into pieces.
    """

    checkpoint: str | None = None
    new_words: int = 0


@dataclass(frozen=True)
class RunConfig:
    """A whole run; written beside every checkpoint."""

    data: DataConfig = field(default_factory=DataConfig)
    masking: MaskingPolicy = field(default_factory=MaskingPolicy)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    start: StartConfig = field(default_factory=StartConfig)

    def override(self, settings: Iterable[str]) -> RunConfig:
        """Apply settings of the form `section.field=value`, as `mlmkit pretrain --set` takes them.

        Raises:
            UserError: the form is wrong, no such field exists, or the value does not fit its type.
        """
        data = asdict(self)
        for setting in settings:
            key, equals, text = setting.partition("=")
            section, dot, name = key.strip().partition(".")
            if not equals or not dot:
                raise UserError(f"a setting looks like train.lr=3e-3, got {setting!r}")
            if key.strip() == "model.vocab_size":
                raise UserError("model.vocab_size follows from the tokenizer; set data.vocab_size instead")
            if key.strip() == "model.pad_token_id":
                raise UserError("model.pad_token_id follows from the tokenizer; leave it out")
            kind = get_type_hints(_section(section))[_known(name, _section(section), section)]
            data[section][name] = parse(text.strip(), kind, key)
        return RunConfig.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Rebuild what `to_dict` gave, and check it.

        Raises:
            UserError: an unknown section or field, or a value that does not fit.
        """
        parts = {}
        for section, values in data.items():
            kind = _section(section)
            if not isinstance(values, Mapping):
                raise UserError(f"section {section!r} must hold fields with their values, got {values!r}")
            types_ = get_type_hints(kind)
            for name, value in values.items():
                check_type(value, types_[_known(name, kind, section)], f"{section}.{name}")
            parts[section] = kind(**values)
        config = cls(**parts)
        validate(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "masking": MaskingPolicy,
    "model": ModelConfig,
    "train": TrainConfig,
    "start": StartConfig,
}


def validate(config: RunConfig) -> None:
    """Check the type of every field and every rule between fields; each message says what to change.

    Raises:
        UserError: at the first rule that is broken.
    """
    for section, kind in SECTIONS.items():
        for name, type_ in get_type_hints(kind).items():
            check_type(getattr(getattr(config, section), name), type_, f"{section}.{name}")
    data, model, train, start = config.data, config.model, config.train, config.start
    rules = [
        (data.max_length >= 8, f"data.max_length must be at least 8, got {data.max_length}"),
        (
            data.max_length <= model.max_position_embeddings or start.checkpoint is not None,
            f"data.max_length {data.max_length} exceeds model.max_position_embeddings "
            f"{model.max_position_embeddings}: lower the first or raise the second",
        ),
        (data.vocab_size > 5, f"data.vocab_size must exceed the 5 special tokens, got {data.vocab_size}"),
        (0 <= data.short_seq_prob <= 1, f"data.short_seq_prob must be in [0, 1], got {data.short_seq_prob}"),
        (0 < data.held_out < 0.5, f"data.held_out must be between 0 and 0.5, got {data.held_out}"),
        (
            min(model.hidden_size, model.num_hidden_layers, model.num_attention_heads, model.intermediate_size) >= 1,
            "every size of the model must be at least 1",
        ),
        (
            model.num_attention_heads < 1 or model.hidden_size % model.num_attention_heads == 0,
            f"model.hidden_size {model.hidden_size} must be divisible by model.num_attention_heads "
            f"{model.num_attention_heads}",
        ),
        (model.type_vocab_size >= 2, "model.type_vocab_size must be at least 2: segments A and B"),
        (
            0 <= model.pad_token_id < model.vocab_size,
            f"model.pad_token_id must be the id of [PAD], at least 0 and less than model.vocab_size "
            f"{model.vocab_size}, got {model.pad_token_id}",
        ),
        (model.initializer_range > 0, f"model.initializer_range must be positive, got {model.initializer_range}"),
        (model.layer_norm_eps > 0, f"model.layer_norm_eps must be positive, got {model.layer_norm_eps}"),
        (train.max_steps >= 1, f"train.max_steps must be at least 1, got {train.max_steps}"),
        (train.batch_size >= 1, f"train.batch_size must be at least 1, got {train.batch_size}"),
        (train.lr > 0, f"train.lr must be positive, got {train.lr}"),
        (
            0 <= train.warmup_steps <= train.max_steps,
            f"train.warmup_steps must be between 0 and train.max_steps {train.max_steps}, got {train.warmup_steps}",
        ),
        (train.weight_decay >= 0, f"train.weight_decay must not be negative, got {train.weight_decay}"),
        (0 <= train.beta1 < 1 and 0 <= train.beta2 < 1, "train.beta1 and train.beta2 must be in [0, 1)"),
        (train.eps > 0, f"train.eps must be positive, got {train.eps}"),
        (train.grad_clip is None or train.grad_clip > 0, "train.grad_clip must be positive, or none"),
        (train.nsp_weight >= 0, f"train.nsp_weight must not be negative, got {train.nsp_weight}"),
        (train.eval_every >= 1, f"train.eval_every must be at least 1, got {train.eval_every}"),
        (
            train.eval_batches is None or train.eval_batches >= 1,
            "train.eval_batches must be at least 1, or none",
        ),
        (
            train.checkpoint_every is None or train.checkpoint_every >= 1,
            "train.checkpoint_every must be at least 1, or none",
        ),
        (
            train.keep_checkpoints >= 1,
            f"train.keep_checkpoints must be at least 1, got {train.keep_checkpoints}",
        ),
        (train.patience is None or train.patience >= 1, "train.patience must be at least 1, or none"),
        (start.new_words >= 0, f"start.new_words must not be negative, got {start.new_words}"),
        (
            start.new_words == 0 or start.checkpoint is not None,
            "start.new_words extends the vocabulary of a checkpoint: name one in start.checkpoint, or raise "
            "data.vocab_size",
        ),
        (train.threads is None or train.threads >= 1, "train.threads must be at least 1, or none"),
        *(
            (0 <= seed < 2**63, f"seeds must not be negative and must be less than 2**63, got {name}={seed}")
            for name, seed in (("train.seed", train.seed), ("data.seed", data.seed))
        ),
        *(
            (0 <= p < 1, f"model.{name} must be in [0, 1), got {p}")
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
            for p in [getattr(model, name)]
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise UserError(message)


def _section(name: str) -> type:
    if name not in SECTIONS:
        raise UserError(f"no section {name!r}{nearest(name, SECTIONS)}; there are {', '.join(SECTIONS)}")
    return SECTIONS[name]


def _known(name: str, kind: type, section: str) -> str:
    names = [f.name for f in fields(kind)]
    if name not in names:
        raise UserError(f"{section} has no field {name!r}{nearest(name, names)}")
    return name
