"""The losses: an average over what is selected, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import random_batch, small_config, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlmkit.losses import mlm_loss, nsp_loss, pretraining_loss
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
"""fp32 sums in another order."""


def gradients(model: BertForPreTraining, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters(), strict=True)]


# --- words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 10, 30_522])
def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(size: int) -> None:
    for level in (0.0, 5.0):
        loss = mlm_loss(torch.full((3, size), level), torch.tensor([0, 1, size - 1]))
        assert float(loss) == pytest.approx(math.log(size), rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 6), st.integers(2, 9))
def test_the_loss_is_the_mean_of_minus_log_probability_over_the_selected_positions(
    seed: int, B: int, S: int, V: int
) -> None:
    """Position by position, from the definition of softmax."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, S, V, generator=generator) * 3
    labels = torch.randint(V, (B, S), generator=generator)
    labels[torch.rand(B, S, generator=generator) < 0.5] = IGNORE
    terms = [
        math.log(sum(math.exp(z) for z in logits[b, s].tolist())) - float(logits[b, s, labels[b, s]])
        for b in range(B)
        for s in range(S)
        if labels[b, s] != IGNORE
    ]
    expected = sum(terms) / len(terms) if terms else 0.0
    assert float(mlm_loss(logits, labels)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_mean_is_over_positions_not_over_sequences() -> None:
    """Two sequences, one with one selected position and one with three: weights ¼, not ½ and ⅙."""
    logits = torch.zeros(2, 3, 4)
    logits[0, 0, 0] = 10.0
    labels = torch.tensor([[0, IGNORE, IGNORE], [1, 1, 1]])
    sure = math.log1p(3 * math.exp(-10))
    assert float(mlm_loss(logits, labels)) == pytest.approx((sure + 3 * math.log(4)) / 4, rel=1e-6)


def test_token_0_is_a_label_like_any_other() -> None:
    """Only −100 is ignored: with `ignore_index=0` a true [PAD] or first word would cost nothing."""
    assert float(mlm_loss(torch.zeros(1, 4), torch.tensor([0]))) == pytest.approx(math.log(4))


def test_what_the_model_says_at_unselected_positions_costs_nothing() -> None:
    logits = torch.randn(2, 5, 7, requires_grad=True)
    labels = torch.tensor([[IGNORE, 3, IGNORE, IGNORE, 1], [IGNORE] * 5])
    mlm_loss(logits, labels).backward()
    assert (logits.grad[labels == IGNORE] == 0).all()
    assert (logits.grad[labels != IGNORE] != 0).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_are_summed_in_fp32(kind: torch.dtype) -> None:
    """A thousand terms of ln 50 summed in bfloat16 would be off by several percent."""
    loss = mlm_loss(torch.zeros(1000, 50, dtype=kind), torch.zeros(1000, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(50), rel=1e-5)
    assert nsp_loss(torch.zeros(3, 2, dtype=kind), torch.tensor([0, 1, 1])).dtype == torch.float32


def test_the_gradient_of_both_losses_is_that_of_finite_differences() -> None:
    """In double precision, where a difference of 10⁻⁶ still has ten exact digits."""
    torch.manual_seed(0)
    words = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, IGNORE, 4], [IGNORE, IGNORE, 0]])
    assert torch.autograd.gradcheck(lambda logits: mlm_loss(logits, labels), [words])
    relations = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda logits: nsp_loss(logits, torch.tensor([0, 1, 1])), [relations])


# --- sentences -----------------------------------------------------------------------------------------------


def test_a_guess_at_the_sentence_relation_costs_ln_2() -> None:
    assert float(nsp_loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]))) == pytest.approx(math.log(2), rel=1e-6)


def test_the_sentence_loss_is_the_mean_of_minus_log_probability() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.5, 0.0]]), torch.tensor([0, 0, 1])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2)) + math.log1p(math.exp(0.5))) / 3
    assert float(nsp_loss(logits, labels)) == pytest.approx(expected, rel=1e-6)
    assert float(nsp_loss(logits.bfloat16(), labels)) == pytest.approx(expected, rel=1e-6)


# --- both together -------------------------------------------------------------------------------------------


def test_logits_at_the_selected_positions_give_the_loss_and_gradients_of_all_logits() -> None:
    model = small_model()
    batch = random_batch(model.config, [12, 5, 9])
    output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    by_all = mlm_loss(output.mlm_logits, batch["labels"])
    by_selected = pretraining_loss(model, batch).mlm
    torch.testing.assert_close(by_selected, by_all, **TOLERANCE)
    for found, expected in zip(gradients(model, by_selected), gradients(model, by_all), strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE)


def test_the_total_is_the_sum_and_its_gradient_the_sum_of_the_gradients() -> None:
    """One backward pass on the sum does what two passes would do, also in the encoder that both heads share."""
    model = small_model()
    losses = pretraining_loss(model, random_batch(model.config, [12, 5, 9]))
    torch.testing.assert_close(losses.total, losses.mlm + losses.nsp, rtol=0, atol=0)
    of_total, of_mlm, of_nsp = (gradients(model, loss) for loss in (losses.total, losses.mlm, losses.nsp))
    for total, mlm, nsp in zip(of_total, of_mlm, of_nsp, strict=True):
        torch.testing.assert_close(total, mlm + nsp, **TOLERANCE)


def test_each_head_learns_from_its_own_loss_and_the_encoder_from_both() -> None:
    model = small_model()
    losses = pretraining_loss(model, random_batch(model.config, [12, 5, 9]))
    names = [name for name, _ in model.named_parameters()]
    touched = {
        kind: {name for name, g in zip(names, gradients(model, loss), strict=True) if g.abs().sum() > 0}
        for kind, loss in {"mlm": losses.mlm, "nsp": losses.nsp}.items()
    }
    assert {name for name in names if name.startswith("mlm.")} == touched["mlm"] - touched["nsp"]
    assert {name for name in names if name.startswith("nsp.")} == touched["nsp"] - touched["mlm"]
    assert touched["mlm"] | touched["nsp"] == set(names)


def test_a_batch_without_a_selected_position_has_loss_0_and_finite_gradients() -> None:
    """It happens with short sequences and low rates, and must not turn the weights into NaN."""
    model = small_model()
    batch = random_batch(model.config, [6, 4])
    batch["labels"].fill_(IGNORE)
    losses = pretraining_loss(model, batch)
    assert losses.mlm.item() == 0.0
    assert torch.equal(losses.total, losses.nsp)
    assert all((g == 0).all() for g in gradients(model, losses.mlm))
    assert all(torch.isfinite(g).all() for g in gradients(model, losses.total))
    assert float(mlm_loss(torch.zeros(2, 3, 4), torch.full((2, 3), IGNORE))) == 0.0


def test_a_model_without_knowledge_pays_ln_v_plus_ln_2() -> None:
    """All weights 0: every word and both relations are equally likely."""
    model = BertForPreTraining(small_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    losses = pretraining_loss(model, random_batch(model.config, [12, 5, 9]))
    assert losses.mlm.item() == pytest.approx(math.log(50), rel=1e-6)
    assert losses.nsp.item() == pytest.approx(math.log(2), rel=1e-6)
    assert losses.total.item() == pytest.approx(math.log(100), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_the_weight_of_nsp_scales_its_share_of_the_total_and_changes_neither_loss(weight: float) -> None:
    model = small_model()
    batch = random_batch(model.config, [12, 5, 9])
    plain, weighted = pretraining_loss(model, batch), pretraining_loss(model, batch, weight)
    assert torch.equal(weighted.mlm, plain.mlm)
    assert torch.equal(weighted.nsp, plain.nsp)
    torch.testing.assert_close(weighted.total, plain.mlm + weight * plain.nsp, **TOLERANCE)
    of_total, of_mlm, of_nsp = (gradients(model, loss) for loss in (weighted.total, plain.mlm, plain.nsp))
    for total, mlm, nsp in zip(of_total, of_mlm, of_nsp, strict=True):
        torch.testing.assert_close(total, mlm + weight * nsp, **TOLERANCE)
