"""Which part of the network learns how fast: frozen layers, and a rate that falls from the head to the embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mlmkit.errors import UserError
from mlmkit.finetuning.heads import Network
from mlmkit.finetuning.recipe import FinetuneConfig


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate.

    Attributes:
        name: "head", "layer 2", "layer 1", …, "embeddings".
        depth: 0 for the head, 1 for the highest layer, …
        lr: peak learning rate.
        frozen: whether they stay as they are.
        parameters: by their names in the network.
    """

    name: str
    depth: int
    lr: float
    frozen: bool
    parameters: dict[str, nn.Parameter]


def layer_groups(network: Network, config: FinetuneConfig) -> list[Group]:
    """Cut a network into layers, from the head down, each with its learning rate lr · d^depth.

    A layer near the input holds what is of use to every task, so it needs, and bears, less change than one near the
    head (Howard & Ruder 2018, §3.2, "discriminative fine-tuning"; Clark et al. 2020, appendix B).

    Raises:
        UserError: more layers are to be frozen than there are.
    """
    L, frozen = len(network.encoder.layers), config.freeze_layers
    if frozen is not None and frozen > L:
        raise UserError(f"freeze_layers={frozen}, but the network has {L} layers; freeze at most {L}")
    parts: list[tuple[str, str]] = [
        *((f"layer {i}", f"encoder.layers.{i - 1}.") for i in range(L, 0, -1)),
        ("embeddings", "encoder.embeddings."),
    ]
    named = dict(network.named_parameters())
    groups = [Group("head", 0, config.lr, False, {n: p for n, p in named.items() if not n.startswith("encoder.")})]
    for depth, (name, prefix) in enumerate(parts, start=1):
        layer = L + 1 - depth  # 0 for the embeddings
        inside = {n: p for n, p in named.items() if n.startswith(prefix)}
        rests = frozen is not None and layer <= frozen
        groups.append(Group(name, depth, config.lr * config.layer_decay**depth, rests, inside))
    return groups


def make_optimizer(groups: list[Group], config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW over the groups that learn; matrices are decayed, biases and layer norms are not.

    Frozen parameters get no gradient. Each group of the optimizer carries its peak rate as `peak`.
    """
    learning = []
    for group in groups:
        for parameter in group.parameters.values():
            parameter.requires_grad_(not group.frozen)
        if group.frozen:
            continue
        for matrices in (True, False):
            some = [p for p in group.parameters.values() if (p.dim() >= 2) == matrices]
            decay = config.weight_decay if matrices else 0.0
            learning.append({"params": some, "lr": group.lr, "peak": group.lr, "weight_decay": decay})
    return torch.optim.AdamW(learning, betas=(0.9, 0.999), eps=1e-6, fused=True)
