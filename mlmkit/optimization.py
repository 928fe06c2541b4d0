"""One update: learning rate, AdamW, and the step that joins both losses."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from mlmkit.config import TrainConfig
from mlmkit.errors import UserError
from mlmkit.losses import Losses, pretraining_loss
from mlmkit.model import BertForPreTraining


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of the update after `step` updates: linear rise to `lr`, then linear fall to 0 (Devlin et al. A.2).

    >>> learning_rate(0, TrainConfig(lr=1.0, warmup_steps=10, max_steps=110))
    0.1
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * (config.max_steps - step) / max(config.max_steps - config.warmup_steps, 1)


def make_optimizer(model: BertForPreTraining, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices, but neither biases nor layer norms."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def train_step(
    model: BertForPreTraining,
    batch: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    grad_clip: float | None = 1.0,
    nsp_weight: float = 1.0,
    precision: str = "fp32",
    loss: Callable[[BertForPreTraining, Mapping[str, Tensor], float], Losses] = pretraining_loss,
) -> tuple[Losses, Tensor]:
    """One forward pass, one backward pass on the sum of both losses, one update.

    Args:
        model: in training mode.
        batch: on the model's device.
        optimizer: its gradients are cleared here.
        lr: learning rate of this update.
        grad_clip: largest norm of the whole gradient, or None.
        nsp_weight: factor of the NSP loss in the sum.
        precision: "fp32", or "bf16" for autocast.
        loss: what is minimized, of the model, the batch and the weight of NSP.

    Returns:
        The losses before the update, detached, and the norm of the gradient before clipping.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    device = batch["input_ids"].device
    autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with autocast:
        losses = loss(model, batch, nsp_weight)
    losses.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip if grad_clip is not None else math.inf)
    optimizer.step()
    return Losses(losses.total.detach(), losses.mlm.detach(), losses.nsp.detach()), norm


def resolve(config: TrainConfig) -> TrainConfig:
    """Replace every "auto" by what this machine has, so that the record says what was really used.

    Raises:
        UserError: the device asked for is not there.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"train.device must be auto, cpu or cuda[:N], got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"train.device must be auto, cpu or cuda[:N], got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"train.device={name} asks for a GPU, but PyTorch sees {torch.cuda.device_count()}; use cpu")
    precision = config.precision
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
        precision = "bf16" if fast else "fp32"
    return replace(config, device=name, precision=precision, threads=config.threads or torch.get_num_threads())


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies in bf16; without such instructions bf16 is slower than fp32."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory instead of giving it back to the system after each step.

    Without it every large tensor of every step is a fresh mapping whose pages the kernel must clear, which costs
    about a quarter of a small model's time. Affects the whole process; glibc only.

    Returns:
        Whether the request was understood.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, 2**31 - 1))
