"""How a model is built: whether its decoder is tied to the word embeddings, and which layers drop something."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mlmkit.diagnosis.evidence import Structure

DROPOUT_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
"""Names of the dropout probabilities in Hugging Face's configuration and in ours."""


@dataclass
class Finder:
    """Sees, during one forward pass, which layer read the ids and which gave the MLM logits.

    The word embeddings are the `nn.Embedding` that was called with the ids. The decoder is the `nn.Linear` whose
    output is the logits; where something was added to them afterwards, the last one as wide as the vocabulary.
    """

    model: nn.Module
    embeddings: list[tuple[nn.Embedding, Tensor]] = field(default_factory=list)
    linears: list[tuple[nn.Linear, int]] = field(default_factory=list)
    handles: list[RemovableHandle] = field(default_factory=list)

    def attach(self) -> None:
        """Put hooks on all embeddings and linear layers."""
        for module in self.model.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                self.handles.append(module.register_forward_hook(self._called))

    def _called(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if isinstance(module, nn.Embedding) and inputs:
            self.embeddings.append((module, inputs[0]))
        elif isinstance(module, nn.Linear):
            self.linears.append((module, output.data_ptr()))

    def forget(self) -> None:
        """Drop what was seen: it was no training pass."""
        self.embeddings, self.linears = [], []

    def finish(self, input_ids: Tensor, logits: Tensor, optimizer: torch.optim.Optimizer) -> Structure:
        """Remove the hooks and say what was found."""
        self.detach()
        words = [m for m, ids in self.embeddings if ids.shape == input_ids.shape and bool((ids == input_ids).all())]
        wide = [(m, place) for m, place in self.linears if m.out_features == logits.shape[-1]]
        exact = [m for m, place in wide if place == logits.data_ptr()]
        decoder = exact[-1] if exact else wide[-1][0] if wide else None
        self.forget()
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return Structure(
            tied=decoder.weight.data_ptr() == words[0].weight.data_ptr() if decoder is not None and words else None,
            bias=exact[-1].bias is not None and id(exact[-1].bias) in trained if exact else None,
        )

    def detach(self) -> None:
        """Take the hooks off the model."""
        for handle in self.handles:
            handle.remove()
        self.handles = []


def dropping_modules(model: nn.Module) -> list[nn.Module]:
    """All modules that drop something in training mode: dropout layers, and layers with a probability `dropout`."""
    return [m for m in model.modules() if _probability(m) > 0]


def configured_dropout(model: nn.Module) -> float:
    """The largest dropout probability in `model.config`; without a configuration, in the modules."""
    config = getattr(unwrapped(model), "config", None)
    asked = [float(getattr(config, name)) for name in DROPOUT_FIELDS if getattr(config, name, None) is not None]
    return max(asked or [_probability(m) for m in model.modules()])


def _probability(module: nn.Module) -> float:
    p = module.p if isinstance(module, nn.Dropout) else getattr(module, "dropout", 0.0)
    return p if isinstance(p, float) else 0.0


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a wrapper such as `DistributedDataParallel`."""
    inner = getattr(model, "module", None)
    return inner if isinstance(inner, nn.Module) else model
