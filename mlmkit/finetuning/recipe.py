"""Every number that defines how a network is fine-tuned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_type_hints

from mlmkit.config import TrainConfig
from mlmkit.errors import UserError
from mlmkit.optimization import learning_rate
from mlmkit.settings import check_type, nearest, parse


@dataclass(frozen=True)
class FinetuneConfig:
    """How a pre-trained network learns a task.

    The defaults suit a small encoder (two layers of 128 to four of 256) and thousands of examples. For BERT-base take
    what Devlin et al. (2019, appendix A.3) recommend: lr 2e-5 to 5e-5, batch_size 16 or 32, epochs 2 to 4.

    Args:
        epochs: how often the training part is read.
        batch_size: examples in an update.
        lr: peak learning rate of AdamW, for the head; see `layer_decay` for the layers below.
        warmup: share of all updates over which the rate rises linearly from 0; then it falls linearly to 0.
        weight_decay: decoupled decay of matrices; biases and layer norms are not decayed.
        dropout: in the encoder and before the head.
        layer_decay: factor d of the learning rate from each layer to the one below it; 1: the same rate everywhere.
        freeze_layers: the embeddings and so many of the lowest layers stay as they are; 0: the embeddings alone;
            None: everything learns.
        patience: stop after so many epochs without a better validation part; None: read all epochs. The best state
            of all epochs is kept in any case.
        max_length: longest input, [CLS] and [SEP] included; None: as long as the network reads.
        grad_clip: largest norm of the whole gradient; None for no clipping.
        seed: first seed: of the head's first weights, of order and of dropout.
        precision: "fp32", "bf16" (autocast), or "auto": bf16 where the device computes in it.
        device: "cpu", "cuda", "cuda:1", … or "auto": the GPU if there is one.

    Raises:
        UserError: a value does not fit its type or its range.

    >>> FinetuneConfig().override(["lr=1e-4", "patience=2"]).patience
    2
    """

    epochs: int = 4
    batch_size: int = 32
    lr: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.1
    layer_decay: float = 1.0
    freeze_layers: int | None = None
    patience: int | None = None
    max_length: int | None = None
    grad_clip: float | None = 1.0
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(FinetuneConfig).items():
            check_type(getattr(self, name), kind, name)
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "lr": (self.lr > 0, "positive"),
            "warmup": (0 <= self.warmup <= 1, "in [0, 1]"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
            "layer_decay": (0 < self.layer_decay <= 1, "in (0, 1]"),
            "freeze_layers": (self.freeze_layers is None or self.freeze_layers >= 0, "at least 0, or none"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1, or none"),
            "max_length": (self.max_length is None or self.max_length >= 8, "at least 8, or none"),
            "grad_clip": (self.grad_clip is None or self.grad_clip > 0, "positive, or none"),
            "seed": (0 <= self.seed < 2**62, "in [0, 2**62)"),
        }
        for name, (holds, must) in rules.items():
            if not holds:
                raise UserError(f"{name} must be {must}, got {getattr(self, name)}")

    def override(self, settings: Iterable[str]) -> FinetuneConfig:
        """Apply settings of the form `field=value`, as `mlmkit finetune --set` takes them.

        Raises:
            UserError: the form is wrong, no such field exists, or the value does not fit.
        """
        kinds, changes = get_type_hints(FinetuneConfig), dict[str, Any]()
        for setting in settings:
            name, equals, text = (part.strip() for part in setting.partition("="))
            if not equals:
                raise UserError(f"a setting looks like lr=1e-4, got {setting!r}")
            if name not in kinds:
                names = [f.name for f in fields(self)]
                raise UserError(f"no field {name!r}{nearest(name, names)}; there are {', '.join(names)}")
            changes[name] = parse(text, kinds[name], name)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def rate(step: int, updates: int, config: FinetuneConfig) -> float:
    """Factor of all learning rates at an update: linear rise to 1, then linear fall to 0.

    >>> [rate(step, 10, FinetuneConfig(warmup=0.2)) for step in (0, 1, 2, 6)]
    [0.5, 1.0, 1.0, 0.5]
    """
    return learning_rate(step, TrainConfig(lr=1.0, warmup_steps=round(config.warmup * updates), max_steps=updates))
