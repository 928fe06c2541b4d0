"""The model is BERT: weight by weight, logit by logit and gradient by gradient that of `transformers`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ONE_IN_A_BILLION, random_batch, small_config, small_model, tiny_tokenizer
from scipy.stats import chi2, norm
from torch import Tensor, nn

from mlmkit.checkpoint import load, save
from mlmkit.config import ModelConfig
from mlmkit.losses import pretraining_loss
from mlmkit.model import ACTIVATIONS, BertForPreTraining, MLMHead, NSPHead, _padding_bias, attention
from mlmkit.weights import from_hf_state, to_hf_state

SIZES: dict[str, dict[str, int]] = {
    "1 layer, 1 head": {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 16},
    "2 layers, 2 heads": {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 20, "type_vocab_size": 3},
    "3 layers, 3 heads": {"num_hidden_layers": 3, "num_attention_heads": 3, "hidden_size": 24},
    "2 layers, 4 heads": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 7},
}
LENGTHS = {"padded": [12, 5, 9, 3], "unpadded": [11, 11, 11]}

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
"""Two programs that add the same fp32 numbers in another order: a few units of 1.2·10⁻⁷ per layer."""


def theirs_like(model: BertForPreTraining) -> Any:
    """A `transformers` model of the same size, with weights of its own."""
    from transformers import BertConfig
    from transformers import BertForPreTraining as TheirBert

    return TheirBert(BertConfig(**vars(model.config))).eval()


def inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}


# --- equal to transformers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("direction", ["from us to them", "from them to us"])
def test_after_a_weight_copy_our_logits_losses_and_gradients_are_those_of_transformers(
    direction: str, size: str, lengths: str
) -> None:
    ours = small_model(**SIZES[size])
    theirs = theirs_like(ours)
    if direction == "from us to them":
        missing = theirs.load_state_dict(to_hf_state(ours), strict=False)
        assert not missing.unexpected_keys
        theirs.tie_weights()
    else:
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.normal_(std=0.3)
        ours.load_state_dict(from_hf_state(theirs.state_dict(), ours.config))
    batch = random_batch(ours.config, LENGTHS[lengths])
    batch["input_ids"][0, 2] = 0  # a [PAD] within the text: it is read, but its embedding learns nothing from that

    output, expected = ours(**inputs(batch)), theirs(**batch)
    torch.testing.assert_close(output.mlm_logits, expected.prediction_logits, **TOLERANCE)
    torch.testing.assert_close(output.nsp_logits, expected.seq_relationship_logits, **TOLERANCE)
    losses = pretraining_loss(ours, batch)
    torch.testing.assert_close(losses.total, expected.loss, **TOLERANCE)

    losses.total.backward()
    expected.loss.backward()
    found = gradients_under_their_names(ours)
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(found.pop(name), parameter.grad, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")
    assert not found  # the tied matrix has one gradient, the sum of both its uses


def gradients_under_their_names(model: BertForPreTraining) -> dict[str, Tensor]:
    """Put each gradient where its weight is, and export."""
    carrier = BertForPreTraining(model.config)
    with torch.no_grad():
        for there, here in zip(carrier.parameters(), model.parameters(), strict=True):
            assert here.grad is not None
            there.copy_(here.grad)
    return to_hf_state(carrier)


def test_weights_survive_the_way_to_transformers_names_and_back() -> None:
    model = small_model()
    back = from_hf_state(to_hf_state(model), model.config)
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


def test_transformers_opens_our_folder_and_we_open_theirs(tmp_path: Path) -> None:
    from transformers import AutoModelForPreTraining

    tokenizer = tiny_tokenizer()
    ours = small_model(vocab_size=tokenizer.vocab_size)
    batch = random_batch(ours.config, [12, 7])
    save(ours, tokenizer, tmp_path / "ours")
    theirs, info = AutoModelForPreTraining.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(theirs).__name__ == "BertForPreTraining"
    expected = theirs(**inputs(batch)).prediction_logits
    torch.testing.assert_close(ours(**inputs(batch)).mlm_logits, expected, **TOLERANCE)

    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.1)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    back, _ = load(tmp_path / "theirs")
    assert back.config == ours.config
    torch.testing.assert_close(back(**inputs(batch)).mlm_logits, theirs(**inputs(batch)).prediction_logits, **TOLERANCE)


# --- attention and padding -----------------------------------------------------------------------------------


def random_heads(B: int = 2, A: int = 3, S: int = 6, D: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, A, S, D, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("padding", [0, 2])
def test_attention_is_softmax_of_scaled_scores_times_values(padding: int) -> None:
    """Head by head and query by query, with plain sums."""
    q, k, v = random_heads()
    S, real = 6, 6 - padding
    bias = torch.zeros(2, 1, 1, S)
    bias[..., real:] = -math.inf
    found = attention(q, k, v, bias if padding else None)
    for b in range(2):
        for a in range(3):
            for i in range(S):
                scores = torch.stack([q[b, a, i] @ k[b, a, j] / 4**0.5 for j in range(real)])
                weights = scores.exp() / scores.exp().sum()
                expected = sum(weights[j] * v[b, a, j] for j in range(real))
                torch.testing.assert_close(found[b, a, i], expected)


def test_attention_on_cpu_is_pytorchs_fused_attention() -> None:
    q, k, v = random_heads(S=9)
    bias = torch.zeros(2, 1, 1, 9)
    bias[1, ..., 5:] = -math.inf
    for mask in (None, bias):
        expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(attention(q, k, v, mask), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_bias_may_differ_from_query_to_query_as_a_causal_one_does(batch: int) -> None:
    """Bias (1 or B, 1, S, S); PyTorch's kernel takes the same."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 3, 2, 5, 4, generator=generator)
    future = torch.triu(torch.full((5, 5), float("-inf")), diagonal=1).expand(batch, 1, 5, 5)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=future)
    torch.testing.assert_close(attention(q, k, v, future), expected)
    torch.testing.assert_close(attention(q, k, v, future)[:, :, 0], v[:, :, 0])  # the first sees only itself


def test_attention_rows_sum_to_1_over_the_real_tokens() -> None:
    """With the identity as values, the output is the weights."""
    q, k, _ = random_heads(D=6)
    bias = torch.zeros(2, 1, 1, 6)
    bias[..., 4:] = -math.inf
    weights = attention(q, k, torch.eye(6).expand(2, 3, 6, 6), bias)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 6))
    assert (weights[..., 4:] == 0).all()
    assert (weights[..., :4] > 0).all()


def test_dropped_attention_weights_are_made_up_for_by_the_others() -> None:
    """Each weight is dropped with probability p and else divided by 1 − p: its mean stays."""
    q, k, _ = random_heads(B=400, S=8, D=8)
    values = torch.eye(8).expand(400, 3, 8, 8)
    torch.manual_seed(0)
    dropped, whole = attention(q, k, values, None, dropout=0.25), attention(q, k, values, None)
    kept = dropped != 0
    n, share = kept.numel(), kept.float().mean().item()
    assert abs(share - 0.75) < 6 * (0.25 * 0.75 / n) ** 0.5  # six standard errors
    torch.testing.assert_close(dropped[kept], (whole / 0.75)[kept])


@pytest.mark.parametrize("extra", [1, 8, 17])
def test_padding_never_changes_an_output_or_the_loss(extra: int) -> None:
    """Longer rows are summed in another order, hence a tolerance of some fp32 units and not equality."""
    model = small_model()
    batch = random_batch(model.config, [12, 5, 9])
    wide = {n: nn.functional.pad(t, (0, extra), value=-100 if n == "labels" else 0) for n, t in batch.items()}
    wide["next_sentence_label"] = batch["next_sentence_label"]
    narrow_out, wide_out = model(**inputs(batch)), model(**inputs(wide))
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(wide_out.hidden[:, :12][real], narrow_out.hidden[real], **TOLERANCE)
    torch.testing.assert_close(wide_out.nsp_logits, narrow_out.nsp_logits, **TOLERANCE)
    torch.testing.assert_close(pretraining_loss(model, wide).total, pretraining_loss(model, batch).total, **TOLERANCE)


def test_what_stands_at_padded_positions_is_never_read() -> None:
    """Other ids and segments there leave every output at a real position exactly as it was."""
    model = small_model()
    batch = random_batch(model.config, [12, 5, 9])
    real = batch["attention_mask"].bool()
    other = {**batch, "input_ids": batch["input_ids"].clone(), "token_type_ids": batch["token_type_ids"].clone()}
    other["input_ids"][~real], other["token_type_ids"][~real] = 17, 1
    first, second = model(**inputs(batch)), model(**inputs(other))
    assert torch.equal(first.hidden[real], second.hidden[real])
    assert torch.equal(first.nsp_logits, second.nsp_logits)
    assert not torch.equal(first.hidden[~real], second.hidden[~real])


def test_every_real_position_sees_every_other_to_its_left_and_to_its_right() -> None:
    model = small_model()
    batch = random_batch(model.config, [8])
    before = model(**inputs(batch)).hidden[0]
    for changed in range(8):
        other = {**batch, "input_ids": batch["input_ids"].clone()}
        other["input_ids"][0, changed] = 6 + (other["input_ids"][0, changed] == 6)
        after = model(**inputs(other)).hidden[0]
        assert (after != before).any(-1).all(), changed


def test_order_and_segment_of_the_tokens_matter() -> None:
    model = small_model()
    batch = random_batch(model.config, [8])
    before = model(**inputs(batch))
    reversed_ = model(batch["input_ids"].flip(1), batch["token_type_ids"])
    assert not torch.allclose(reversed_.hidden.flip(1), before.hidden, atol=0.01)
    one_segment = model(batch["input_ids"], torch.zeros_like(batch["input_ids"]))
    assert not torch.allclose(one_segment.hidden, before.hidden, atol=0.01)


def test_without_segments_and_mask_all_is_segment_a_and_real() -> None:
    model = small_model()
    ids = random_batch(model.config, [8])["input_ids"]
    full = model(ids, torch.zeros_like(ids), torch.ones_like(ids))
    short = model(ids)
    torch.testing.assert_close(short.hidden, full.hidden, **TOLERANCE)
    torch.testing.assert_close(short.mlm_logits, full.mlm_logits, **TOLERANCE)


def test_logits_at_the_selected_positions_are_rows_of_all_logits() -> None:
    model = small_model()
    batch = random_batch(model.config, [12, 5, 9])
    selected = batch["labels"] != -100
    selected[:, 0] = False  # [CLS] is read in any case
    every, some = model(**inputs(batch)), model(**inputs(batch), selected=selected)
    assert some.mlm_logits.shape == (int(selected.sum()), model.config.vocab_size)
    torch.testing.assert_close(some.mlm_logits, every.mlm_logits[selected], **TOLERANCE)
    torch.testing.assert_close(some.nsp_logits, every.nsp_logits, **TOLERANCE)
    torch.testing.assert_close(some.hidden[:, 0], every.hidden[:, 0], **TOLERANCE)
    count = int(selected[0].sum())
    torch.testing.assert_close(some.hidden[0, 1 : count + 1], every.hidden[0][selected[0]], **TOLERANCE)


@pytest.mark.parametrize("layers", [1, 2])
def test_reading_some_positions_gives_the_gradients_of_reading_all(layers: int) -> None:
    """The last layer is computed where it is read out, and every position is still read by the others."""
    model = small_model(num_hidden_layers=layers)
    batch = random_batch(model.config, [12, 5, 9])
    selected = batch["labels"] != -100
    selected[1] = False  # a row of which nothing but [CLS] is read

    def gradients(mlm_logits: Tensor, nsp_logits: Tensor) -> list[Tensor]:
        loss = (mlm_logits.square().sum() + nsp_logits.square().sum()) / 100
        return list(torch.autograd.grad(loss, list(model.parameters())))

    every, some = model(**inputs(batch)), model(**inputs(batch), selected=selected)
    expected = gradients(every.mlm_logits[selected], every.nsp_logits)
    torch.testing.assert_close(gradients(some.mlm_logits, some.nsp_logits), expected, rtol=1e-4, atol=1e-5)


# --- heads, dropout, precision -------------------------------------------------------------------------------


def test_the_sentence_relation_is_read_from_cls_alone() -> None:
    head = NSPHead(small_config())
    hidden = torch.randn(2, 5, 24)
    other = hidden.clone()
    other[:, 1:] = 0
    assert torch.equal(head(hidden), head(other))
    assert head(hidden).shape == (2, 2)


def test_the_decoder_is_the_token_embedding_itself() -> None:
    model = small_model()
    assert isinstance(model.mlm, MLMHead)
    assert model.mlm.decoder.weight is model.encoder.embeddings.token.weight
    hidden = torch.randn(4, 24)
    before = model.mlm(hidden)
    with torch.no_grad():
        model.encoder.embeddings.token.weight[7] *= 2
    after = model.mlm(hidden)
    changed = (before != after).any(0)
    assert changed.nonzero().flatten().tolist() == [7]


def test_dropout_acts_in_training_and_is_off_in_evaluation() -> None:
    for kind in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        model = small_model(**{kind: 0.5})
        batch = inputs(random_batch(model.config, [8, 8]))
        without = small_model()(**batch).hidden
        torch.testing.assert_close(model(**batch).hidden, without, rtol=0, atol=0)
        model.train()
        torch.manual_seed(0)
        first, second = model(**batch).hidden, model(**batch).hidden
        torch.manual_seed(0)
        again = model(**batch).hidden
        assert not torch.allclose(first, second)
        assert torch.equal(first, again)


def test_in_autocast_the_outputs_are_close_to_those_in_fp32() -> None:
    """bfloat16 keeps eight bits: outputs of size 1 are off by some hundredths, padding or not."""
    model = small_model()
    batch = random_batch(model.config, [12, 5, 9])
    exact = model(**inputs(batch))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(**inputs(batch))
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(rough.hidden.float()[real], exact.hidden[real], rtol=0.1, atol=0.15)
    assert not torch.equal(rough.hidden.float(), exact.hidden)


def test_the_padding_bias_has_the_precision_of_the_scores() -> None:
    """The fused kernel refuses scores and bias of different types; layer norms give fp32 also in autocast."""
    mask, x = torch.tensor([[1, 1, 0]]), torch.zeros(1, 3, 4)
    assert _padding_bias(mask, x).tolist() == [[[[0.0, 0.0, -math.inf]]]]
    assert _padding_bias(mask, x.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert _padding_bias(mask, x).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_losses_and_gradients_are_those_of_the_cpu() -> None:
    """The GPU takes another way through attention, and sums in another order."""
    found = {}
    for device in ("cpu", "cuda"):
        model = small_model().to(device)
        batch = {n: t.to(device) for n, t in random_batch(model.config, [12, 5, 9]).items()}
        losses = pretraining_loss(model, batch)
        losses.total.backward()
        found[device] = [losses.mlm.detach(), losses.nsp.detach(), *(p.grad for p in model.parameters())]
    for cpu, gpu in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(gpu.cpu(), cpu, rtol=1e-4, atol=1e-4)


# --- variants of other checkpoints ---------------------------------------------------------------------------


def test_each_activation_is_the_function_of_its_name() -> None:
    x = torch.linspace(-6, 6, 49, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0)
    tanh = x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    expected = {"gelu": x * normal.cdf(x), "gelu_new": tanh, "gelu_pytorch_tanh": tanh, "relu": x.clamp(min=0)}
    assert expected.keys() == ACTIVATIONS.keys()
    for name, values in expected.items():
        torch.testing.assert_close(ACTIVATIONS[name](x), values)
    assert not torch.allclose(expected["gelu"], tanh, atol=1e-5), "the two kinds of GELU must be told apart"


@pytest.mark.parametrize("name", ["gelu_new", "relu"])
def test_the_activation_is_used_in_the_layers_and_in_the_head(name: str) -> None:
    """With the same weights, the hidden states differ, and so does the head on the same hidden states."""
    plain, other = small_model(), small_model(hidden_act=name)
    batch = inputs(random_batch(plain.config, [8]))
    hidden = plain(**batch).hidden
    assert not torch.equal(other(**batch).hidden, hidden)
    assert not torch.equal(other.mlm(hidden), plain.mlm(hidden))
    assert torch.equal(other.nsp(hidden), plain.nsp(hidden))  # its tanh is BERT's own in all variants


def test_an_untied_decoder_has_a_matrix_of_its_own_that_learns_apart() -> None:
    model = small_model(tie_word_embeddings=False)
    decoder, words = model.mlm.decoder.weight, model.encoder.embeddings.token.weight
    assert decoder is not words
    assert model.num_parameters() == count(model.config) + words.numel()
    assert theirs_like(model).num_parameters() == model.num_parameters() + 50  # they keep the untied bias twice
    pretraining_loss(model, random_batch(model.config, [12, 5, 9])).total.backward()
    assert decoder.grad is not None
    assert words.grad is not None
    assert not torch.equal(decoder.grad, words.grad)


# --- size and start ------------------------------------------------------------------------------------------


def count(c: ModelConfig) -> int:
    """Weights of a BERT with both heads, written out."""
    H, inner = c.hidden_size, c.intermediate_size
    embeddings = (c.vocab_size + c.max_position_embeddings + c.type_vocab_size) * H + 2 * H
    layer = 4 * (H * H + H) + (H * inner + inner) + (inner * H + H) + 2 * 2 * H
    mlm = (H * H + H) + 2 * H + c.vocab_size  # the decoder's matrix is the token embedding
    nsp = (H * H + H) + (2 * H + 2)
    return embeddings + c.num_hidden_layers * layer + mlm + nsp


@pytest.mark.parametrize("size", SIZES)
def test_the_number_of_parameters_follows_from_the_sizes(size: str) -> None:
    model = BertForPreTraining(small_config(**SIZES[size]))
    assert model.num_parameters() == count(model.config) == theirs_like(model).num_parameters()


def test_bert_base_has_110_million_parameters() -> None:
    with torch.device("meta"):  # sizes only, no numbers
        model = BertForPreTraining(ModelConfig(vocab_size=30_522))
    assert model.num_parameters() == 110_106_428


def test_weights_start_normal_with_the_given_deviation_biases_at_0_and_norms_as_the_identity() -> None:
    """Mean and variance of the n weights of each matrix within what chance allows once in a billion."""
    torch.manual_seed(0)
    sigma = 0.05
    model = BertForPreTraining(small_config(initializer_range=sigma, hidden_size=48, vocab_size=300))
    token = model.encoder.embeddings.token.weight
    norms = {f"{name}." for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if parameter is token:
            assert (values[0] == 0).all()  # [PAD]
            values = values[1:]
        if parameter.dim() == 2:
            n = values.numel()
            assert abs(float(values.mean())) < norm.isf(ONE_IN_A_BILLION / 2) * sigma / n**0.5, name
            low, high = chi2.interval(1 - ONE_IN_A_BILLION, n)
            assert low < float((values.double() ** 2).sum()) / sigma**2 < high, name
        else:
            is_scale = name.endswith("weight")
            assert is_scale == (is_scale and any(name.startswith(prefix) for prefix in norms)), name
            assert (values == float(is_scale)).all(), name


def test_the_seed_alone_decides_the_first_weights() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(BertForPreTraining(small_config()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["mlm.dense.weight"], states[2]["mlm.dense.weight"])


def test_one_batch_can_be_overfitted() -> None:
    """Whatever cannot be learned by heart in 150 updates is not connected to its label."""
    torch.manual_seed(0)
    model = BertForPreTraining(small_config(hidden_size=32, num_attention_heads=4))
    batch = random_batch(model.config, [12, 5, 9, 12, 7, 10])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    first = pretraining_loss(model, batch)
    for _ in range(150):
        losses = pretraining_loss(model, batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert first.mlm.item() > 3
    assert losses.mlm.item() < 0.02
    assert losses.nsp.item() < 0.02
