"""One update: the rate rises and falls, matrices decay and biases do not, and a step is the formula of AdamW once."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mlmkit import optimization
from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.losses import pretraining_loss
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import keep_freed_memory, learning_rate, make_optimizer, resolve, train_step

SIZES = ModelConfig(
    vocab_size=40,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.5,
)


@pytest.fixture
def model() -> BertForPreTraining:
    torch.manual_seed(0)
    return BertForPreTraining(SIZES).train()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 40, (4, 10), generator=rng)
    labels = torch.where(torch.rand(ids.shape, generator=rng) < 0.3, ids, -100)
    return {
        "input_ids": ids,
        "token_type_ids": torch.zeros_like(ids),
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
    }


def gradients(model: BertForPreTraining, loss: Tensor) -> dict[str, Tensor]:
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
    return {n: torch.zeros_like(w) if g is None else g for n, w, g in zip(names, weights, found, strict=True)}


# The learning rate


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    config = TrainConfig(lr=2.0, warmup_steps=4, max_steps=12)
    rates = [learning_rate(step, config) for step in range(13)]
    assert rates == [0.5, 1.0, 1.5, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(("warmup", "steps"), [(0, 5), (1, 5), (5, 5), (1, 1), (0, 1), (400, 4000)])
def test_every_update_moves_and_the_peak_is_reached_and_never_passed(warmup: int, steps: int):
    config = TrainConfig(lr=0.1, warmup_steps=warmup, max_steps=steps)
    rates = [learning_rate(step, config) for step in range(steps)]
    assert max(rates) == 0.1
    assert min(rates) > 0
    peak = rates.index(0.1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert learning_rate(steps, config) == 0


# The optimizer


def test_matrices_decay_and_biases_and_norms_do_not(model: BertForPreTraining):
    decayed, plain = make_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    names = {weight: name for name, weight in model.named_parameters()}
    found = {names[weight] for weight in decayed["params"]}
    expected = {name for name in names.values() if name.endswith("weight") and "norm" not in name}
    assert found == expected
    for kind in ("token", "position", "segment"):
        assert f"encoder.embeddings.{kind}.weight" in found, "embeddings are matrices and decay"
    assert {names[weight] for weight in plain["params"]} == set(names.values()) - expected


def test_every_weight_is_optimised_once_the_tied_one_too(model: BertForPreTraining):
    weights = [weight for group in make_optimizer(model, TrainConfig()).param_groups for weight in group["params"]]
    assert len(weights) == len(set(weights)) == len(list(model.parameters()))


def test_the_constants_are_those_of_the_configuration(model: BertForPreTraining):
    config = TrainConfig(lr=0.5, beta1=0.8, beta2=0.9, eps=1e-3)
    for group in make_optimizer(model, config).param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.9), 1e-3)


# The step


def by_hand(
    weights: Mapping[str, Tensor],
    grads: list[Mapping[str, Tensor]],
    rates: list[float],
    config: TrainConfig,
) -> dict[str, Tensor]:
    """AdamW as in Loshchilov & Hutter 2019, algorithm 2, in fp64."""
    result = {}
    for name, start in weights.items():
        w, m, v = start.double(), 0.0, 0.0
        decay = config.weight_decay if start.dim() >= 2 else 0.0
        for t, (grad, lr) in enumerate(zip(grads, rates, strict=True), start=1):
            g = grad[name].double()
            m = config.beta1 * m + (1 - config.beta1) * g
            v = config.beta2 * v + (1 - config.beta2) * g**2
            m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
            w = w - lr * decay * w - lr * m_hat / (v_hat.sqrt() + config.eps)
        result[name] = w
    return result


def test_two_steps_are_the_formula_of_adamw_on_the_sum_of_both_losses(
    model: BertForPreTraining, batch: dict[str, Tensor]
):
    config = TrainConfig(weight_decay=0.1, grad_clip=None)
    optimizer = make_optimizer(model, config)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    seen, reported = [], []
    for lr in (0.01, 0.02):
        losses = pretraining_loss(model, batch)
        mlm, nsp = gradients(model, losses.mlm), gradients(model, losses.nsp)
        # of the total itself: a key's bias has no gradient but rounding, and two sums round differently
        seen.append(gradients(model, losses.total))
        for name, gradient in seen[-1].items():
            torch.testing.assert_close(gradient, mlm[name] + nsp[name], atol=1e-6, rtol=1e-5, msg=name)
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in seen[-1].values()))
        before, norm_found = train_step(model, batch, optimizer, lr=lr, grad_clip=None)
        assert float(norm_found) == pytest.approx(norm, rel=1e-5)
        assert torch.equal(before.total, losses.total.detach()), "the losses are not those before the update"
        assert not any(loss.requires_grad for loss in (before.total, before.mlm, before.nsp))
        reported.append(float(before.total))
    expected = by_hand(start, seen, [0.01, 0.02], config)
    for name, weight in model.named_parameters():
        # fp32 against fp64, steps of size 0.02
        torch.testing.assert_close(weight.detach().double(), expected[name], atol=2e-5, rtol=1e-5, msg=name)
    assert reported[1] < reported[0]


def test_a_step_is_one_update(model: BertForPreTraining, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch):
    optimizer = make_optimizer(model, TrainConfig())
    calls: list[str] = []
    step, backward = optimizer.step, Tensor.backward
    monkeypatch.setattr(optimizer, "step", lambda: (calls.append("step"), step())[1])
    monkeypatch.setattr(Tensor, "backward", lambda self: (calls.append("backward"), backward(self))[1])
    train_step(model, batch, optimizer, lr=0.01)
    assert calls == ["backward", "step"]
    assert {float(state["step"]) for state in optimizer.state.values()} == {1.0}


def test_gradients_of_earlier_steps_are_forgotten(model: BertForPreTraining, batch: dict[str, Tensor]):
    clean = gradients(model, pretraining_loss(model, batch).total)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 1e3)
    train_step(model, batch, make_optimizer(model, TrainConfig()), lr=1e-9, grad_clip=None)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, clean[name], msg=name)


@pytest.mark.parametrize(("clip", "clipped"), [(0.01, True), (1e6, False), (None, False)])
def test_the_gradient_is_clipped_as_a_whole(
    model: BertForPreTraining, batch: dict[str, Tensor], clip: float | None, clipped: bool
):
    raw = gradients(model, pretraining_loss(model, batch).total)
    whole = math.sqrt(sum(float((g**2).sum()) for g in raw.values()))
    _, norm = train_step(model, batch, make_optimizer(model, TrainConfig()), lr=1e-9, grad_clip=clip)
    assert float(norm) == pytest.approx(whole, rel=1e-5), "the norm reported is not that before clipping"
    factor = (clip or 0) / whole if clipped else 1.0
    for name, weight in model.named_parameters():
        # clip_grad_norm_ adds 1e-6 to the norm
        torch.testing.assert_close(weight.grad, raw[name] * factor, rtol=1e-4, atol=1e-7, msg=name)


def test_the_rate_of_the_step_reaches_both_groups(model: BertForPreTraining, batch: dict[str, Tensor]):
    optimizer = make_optimizer(model, TrainConfig())
    train_step(model, batch, optimizer, lr=0.123)
    assert [group["lr"] for group in optimizer.param_groups] == [0.123, 0.123]


def test_bf16_keeps_weights_moments_and_losses_in_fp32_and_comes_close(
    model: BertForPreTraining, batch: dict[str, Tensor]
):
    exact = float(pretraining_loss(model, batch).total.detach())
    optimizer = make_optimizer(model, TrainConfig())
    losses, norm = train_step(model, batch, optimizer, lr=0.01, precision="bf16")
    assert losses.total.dtype == norm.dtype == torch.float32
    assert float(losses.total) != exact
    assert float(losses.total) == pytest.approx(exact, rel=0.02)  # bf16 has 8 bits of fraction
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert {state["exp_avg"].dtype for state in optimizer.state.values()} == {torch.float32}


def test_without_nsp_its_head_learns_nothing(model: BertForPreTraining, batch: dict[str, Tensor]):
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.0))
    for _ in range(3):
        train_step(model, batch, optimizer, lr=0.01, nsp_weight=0.0)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, start[name])}
    assert moved == {name for name in start if not name.startswith("nsp.")}


# What "auto" means here


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int, bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)


@pytest.mark.parametrize(
    ("gpus", "bf16", "device", "precision"),
    [(0, False, "cpu", "fp32"), (0, True, "cpu", "bf16"), (1, True, "cuda", "bf16"), (2, False, "cuda", "fp32")],
)
def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch, gpus: int, bf16: bool, device: str, precision: str):
    pretend(monkeypatch, gpus, bf16)
    found = resolve(TrainConfig())
    assert (found.device, found.precision, found.threads) == (device, precision, torch.get_num_threads())


def test_what_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, gpus=2, bf16=True)
    asked = TrainConfig(device="cuda:1", precision="fp32", threads=3)
    assert resolve(asked) == asked
    assert resolve(TrainConfig(device="cpu")).device == "cpu"


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("gpu0", 1, r"train\.device must be auto, cpu or cuda\[:N\], got 'gpu0'"),
        ("", 1, r"train\.device must be auto"),
        ("mps", 1, r"train\.device must be auto, cpu or cuda\[:N\], got 'mps'"),
        ("cuda", 0, r"train\.device=cuda asks for a GPU, but PyTorch sees 0; use cpu"),
        ("cuda:1", 1, r"train\.device=cuda:1 asks for a GPU, but PyTorch sees 1"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, message: str):
    pretend(monkeypatch, gpus, bf16=False)
    with pytest.raises(UserError, match=message):
        resolve(TrainConfig(device=device))


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_kept_where_the_library_can():
    assert keep_freed_memory() in (True, False)


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(optimization, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_freed_memory()
    monkeypatch.setattr(optimization, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("asked"))
    assert not keep_freed_memory()
