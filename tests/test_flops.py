"""The count of operations: equal to PyTorch's own for every product that is useful, and nothing for padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

import pytest
import torch
from helpers import random_batch, small_config, small_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mlmkit.config import ModelConfig
from mlmkit.errors import UserError
from mlmkit.flops import forward_flops, training_flops, utilization
from mlmkit.losses import pretraining_loss
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining
from mlmkit.presets import PRESETS

BASE = ModelConfig(vocab_size=30_522)


def batch_of(config: ModelConfig, lengths: Sequence[int], selected: Sequence[int]) -> dict[str, Tensor]:
    """A batch in which so many positions of each sequence are selected, never [CLS]."""
    batch = random_batch(config, lengths)
    batch["labels"] = torch.full_like(batch["labels"], IGNORE)
    for row, count in enumerate(selected):
        batch["labels"][row, 1 : 1 + count] = 7
    return batch


def counted(model: BertForPreTraining, batch: dict[str, Tensor], *, backward: bool = False) -> int:
    """Operations of the matrix products that PyTorch really does."""
    with FlopCounterMode(display=False) as counter:
        loss = pretraining_loss(model, batch).total
        if backward:
            loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3, "num_attention_heads": 4},
        {"vocab_size": 91, "intermediate_size": 17},
        {"tie_word_embeddings": False},
    ],
)
@pytest.mark.parametrize(("B", "S", "m"), [(1, 6, 1), (3, 11, 4), (2, 32, 31)])
def test_without_padding_the_formula_is_what_pytorch_counts(changes: dict[str, int], B: int, S: int, m: int) -> None:
    model = small_model(**changes)
    batch = batch_of(model.config, [S] * B, [m] * B)
    assert forward_flops(model.config, [S] * B, [m] * B).total == counted(model, batch)


@pytest.mark.parametrize("selected", [[4, 4], [0, 0]])
def test_an_update_takes_three_forward_passes(selected: list[int]) -> None:
    model = small_model().train()
    batch = batch_of(model.config, [12, 12], selected)
    expected = training_flops(model.config, [12, 12], selected)
    assert expected.total == counted(model, batch, backward=True)
    assert astuple(expected) == tuple(3 * part for part in astuple(forward_flops(model.config, [12, 12], selected)))


def test_without_selection_all_positions_are_read_out() -> None:
    model = small_model()
    ids = torch.full((2, 9), 7)
    with FlopCounterMode(display=False) as counter:
        model(ids)
    assert forward_flops(model.config, [9, 9]).total == counter.get_total_flops()


def test_every_part_is_what_pytorch_counts_in_its_module() -> None:
    model = small_model()
    B, S, m = 2, 10, 3
    batch = batch_of(model.config, [S] * B, [m] * B)
    with FlopCounterMode(display=False, depth=None) as counter:
        pretraining_loss(model, batch)
    of = {name: sum(count.values()) for name, count in counter.get_flop_counts().items()}
    ours = forward_flops(model.config, [S] * B, [m] * B)
    layers = [f"BertForPreTraining.encoder.layers.{i}" for i in range(model.config.num_hidden_layers)]
    assert ours.mlm_head == of["BertForPreTraining.mlm"]
    assert ours.nsp_head == of["BertForPreTraining.nsp"]
    assert ours.feed_forward == sum(of[f"{layer}.{part}"] for layer in layers for part in ("up", "down"))
    assert ours.attention_projections + ours.attention_scores == sum(of[f"{layer}.attention"] for layer in layers)


def test_padding_and_filling_are_done_but_do_not_count() -> None:
    model = small_model()
    lengths, selected = [5, 9, 16], [1, 2, 5]
    alone = sum(forward_flops(model.config, [n], [m]).total for n, m in zip(lengths, selected, strict=True))
    together = forward_flops(model.config, lengths, selected).total
    assert together == alone
    assert together < counted(model, batch_of(model.config, lengths, selected))


def test_scores_grow_with_the_square_of_the_length_and_everything_else_in_proportion() -> None:
    short, long = (forward_flops(BASE, [S] * 4) for S in (128, 512))
    assert long.attention_scores == 16 * short.attention_scores
    assert long.attention_projections == 4 * short.attention_projections
    assert long.feed_forward == 4 * short.feed_forward
    assert long.mlm_head == 4 * short.mlm_head
    assert long.nsp_head == short.nsp_head


def test_scores_overtake_the_other_products_of_a_layer_at_six_times_the_hidden_size() -> None:
    at = forward_flops(BASE, [6 * BASE.hidden_size])
    assert at.attention_scores == at.attention_projections + at.feed_forward


def test_reading_out_the_selected_positions_only_saves_a_fifth_of_a_bert_base() -> None:
    everywhere = forward_flops(BASE, [128])
    selected = forward_flops(BASE, [128], [0.15 * 128])
    assert selected.mlm_head == pytest.approx(0.15 * everywhere.mlm_head)
    assert 0.2 < 1 - selected.total / everywhere.total < 0.3


def test_a_sequence_without_selected_positions_is_still_read_out_for_the_sentence_relation() -> None:
    flops = forward_flops(small_config(), [8], [0])
    assert flops.mlm_head == 0
    assert flops.nsp_head > 0


@pytest.mark.parametrize("preset", ["gpu", "base"])
def test_read_out_everywhere_six_operations_for_each_weight_and_token_is_a_good_rule(preset: str) -> None:
    """The rule (after Kaplan et al. 2020) leaves the scores out and counts tables of which only rows are looked up."""
    data = PRESETS[preset].data
    config, S = replace(PRESETS[preset].model, vocab_size=data.vocab_size), data.max_length
    with torch.device("meta"):
        weights = BertForPreTraining(config).num_parameters()
    assert training_flops(config, [S]).total / (6 * weights * S) == pytest.approx(1, abs=0.15)
    assert training_flops(config, [S], [0.15 * S]).total < 0.9 * 6 * weights * S


def test_utilization_is_the_share_of_the_peak() -> None:
    assert utilization(5e9, 2.0, 10e9) == 0.25
    assert utilization(0.0, 2.0, 10e9) == 0.0


@pytest.mark.parametrize(("seconds", "peak"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, float("nan"))])
def test_a_time_or_a_peak_that_cannot_be_is_refused(seconds: float, peak: float) -> None:
    with pytest.raises(UserError, match="must be positive"):
        utilization(1.0, seconds, peak)


def test_each_length_needs_its_own_count_of_selected_positions() -> None:
    with pytest.raises(UserError, match="got 1 for 2"):
        forward_flops(small_config(), [8, 8], [3])
