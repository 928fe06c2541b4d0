"""BERT as in Devlin et al. 2019: embeddings → post-layer-norm encoder → masked-word head and sentence head.

Shapes: B batch, S sequence, H hidden, A heads, D = H / A head size, V vocabulary, M selected positions of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlmkit.config import ModelConfig


def _gelu_tanh(x: Tensor) -> Tensor:
    """x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))): an approximation of GELU, faster on old hardware."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
}
"""`ModelConfig.hidden_act` → function, under the names of `transformers`."""


@dataclass(frozen=True)
class Output:
    """What one forward pass gives.

    Attributes:
        mlm_logits: scores over the vocabulary, (M, V) at the selected positions, or (B, S, V) if none were named.
        nsp_logits: scores of "B follows A" and "B is from another document", (B, 2).
        hidden: last hidden states of the encoder (B, S, H); if positions were named, only those that are read out:
            [CLS], then the named ones in their order, then filling (B, R, H).
    """

    mlm_logits: Tensor
    nsp_logits: Tensor
    hidden: Tensor


class Embeddings(nn.Module):
    """Sum of token, position and segment embedding, then layer norm and dropout (Devlin et al. 2019, fig. 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.segment = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """(B, S) ids and segments → (B, S, H)."""
        positions = self.position.weight[: input_ids.shape[1]]  # (S, H)
        return self.dropout(self.norm(self.token(input_ids) + positions + self.segment(token_type_ids)))


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(Q Kᵀ / √D + bias) V in each head (Vaswani et al. 2017, eq. 1).

    On a GPU this is PyTorch's fused kernel. On a CPU the formula is written out: at BERT's short lengths the fused
    kernel's backward pass takes several times as long (`docs/log.md`).

    Args:
        q: queries (B, A, R, D), of all positions or of some.
        k, v: keys and values (B, A, S, D).
        bias: added to the scores (1 or B, 1, 1 or R, S): 0 where a key may be read and −∞ where not; None: all may.
        dropout: probability with which an attention weight is dropped.

    Returns:
        (B, A, R, D).
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    B, A, R, D = q.shape
    q, k, v = (t.reshape(B * A, -1, D) for t in (q, k, v))
    if bias is None:
        scores = torch.bmm(q, k.transpose(1, 2)) / D**0.5  # (BA, R, S)
    else:
        bias = bias.expand(B, A, -1, -1).flatten(0, 1)  # (BA, 1 or R, S)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=D**-0.5)  # (BA, R, S)
    weights = F.dropout(scores.softmax(-1), dropout) if dropout else scores.softmax(-1)
    return torch.bmm(weights, v).view(B, A, R, D)


class SelfAttention(nn.Module):
    """Multi-head attention of every position to every real position, and the output projection.

    Query, key and value are one matrix product, since they read the same input.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob
        self.attend = attention  # the formula itself; another one may be put in its place

    def forward(self, x: Tensor, bias: Tensor | None, read: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H); `bias` as in `attention`. With `read` (B, R, H) only these positions ask."""
        B, S, H = x.shape
        if read is None:
            q, k, v = self.qkv(x).view(B, S, 3, self.heads, H // self.heads).permute(2, 0, 3, 1, 4)  # 3 × (B, A, S, D)
        else:
            w, b = self.qkv.weight, self.qkv.bias
            q = F.linear(read, w[:H], b[:H]).view(B, -1, self.heads, H // self.heads).transpose(1, 2)  # (B, A, R, D)
            both = F.linear(x, w[H:], b[H:]).view(B, S, 2, self.heads, H // self.heads)
            k, v = both.permute(2, 0, 3, 1, 4)  # 2 × (B, A, S, D)
        mixed = self.attend(q, k, v, bias, self.dropout if self.training else 0.0)  # (B, A, S or R, D)
        return self.out(mixed.transpose(1, 2).reshape(B, -1, H))


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward net; after each: dropout, residual sum, layer norm (post-layer-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor, bias: Tensor | None, positions: Tensor | None = None) -> Tensor:
        """(B, S, H) → (B, S, H); `bias` as in `attention`. With `positions` (B, R) only what these become (B, R, H)."""
        read = None if positions is None else x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[2]))
        x = (x if read is None else read) + self.dropout(self.attention(x, bias, read))
        x = self.attention_norm(x)
        return self.output_norm(x + self.dropout(self.down(self.activation(self.up(x)))))


class Encoder(nn.Module):
    """Embeddings and a stack of layers: the part that is kept when BERT is fine-tuned."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Encode (B, S) ids to hidden states (B, S, H).

        Args:
            input_ids: x̄ (B, S).
            token_type_ids: segments (B, S); zeros if absent.
            attention_mask: 1 on real tokens, 0 on padding (B, S); all real if absent.
            positions: which positions are read out (B, R); the last layer then computes only what these become
                (B, R, H). Every position is still read by the others.
        """
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        x = self.embeddings(input_ids, token_type_ids)  # (B, S, H)
        bias = None if attention_mask is None else _padding_bias(attention_mask, x)  # (B, 1, 1, S)
        *before, last = self.layers
        for layer in before:
            x = layer(x, bias)
        return last(x, bias, positions)


def _padding_bias(attention_mask: Tensor, x: Tensor) -> Tensor:
    """0 at real tokens, −∞ at padding (B, 1, 1, S), in the precision in which the scores are computed."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    zeros = torch.zeros(attention_mask.shape, dtype=dtype, device=x.device)
    return zeros.masked_fill(attention_mask == 0, float("-inf"))[:, None, None, :]


class MLMHead(nn.Module):
    """Hidden state → scores over the vocabulary: dense, GELU, layer norm, then the transposed token embeddings.

    The decoder matrix *is* the token embedding matrix (tied); only the bias is the head's own. With
    `tie_word_embeddings=False` the head has a matrix of its own as well.
    """

    def __init__(self, config: ModelConfig, token_embedding: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.decoder.weight = token_embedding.weight
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, H) → (…, V)."""
        return self.decoder(self.norm(self.activation(self.dense(hidden))))


class NSPHead(nn.Module):
    """Hidden state of [CLS] → dense, tanh (the pooler) → scores of the two sentence relations."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.relation = nn.Linear(config.hidden_size, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, S, H) → (B, 2): reads position 0 only."""
        return self.relation(torch.tanh(self.pooler(hidden[:, 0])))


def initialize(network: nn.Module, std: float) -> None:
    """Draw all weights from a normal distribution with deviation `std`; biases of linear layers start at 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class BertForPreTraining(nn.Module):
    """BERT with both heads; one forward pass feeds both losses.

    Weights start from a normal distribution with standard deviation `initializer_range`, biases and the embedding
    of [PAD] from 0, layer norms from the identity (Devlin et al.'s released code). `torch.manual_seed` before the
    call makes it reproducible.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.mlm = MLMHead(config, self.encoder.embeddings.token)
        self.nsp = NSPHead(config)
        initialize(self, config.initializer_range)
        with torch.no_grad():  # after the tied decoder, which has drawn the same matrix again
            self.encoder.embeddings.token.weight[config.pad_token_id] = 0

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        selected: Tensor | None = None,
    ) -> Output:
        """Encode once and read out twice.

        Args:
            input_ids: x̄ (B, S).
            token_type_ids: segment of each position (B, S), 0 for A and 1 for B; zeros if absent.
            attention_mask: 1 on real tokens, 0 on padding (B, S); all real if absent.
            selected: positions at which words are predicted (B, S), boolean; all if absent.
        """
        if selected is None:
            hidden = self.encoder(input_ids, token_type_ids, attention_mask)  # (B, S, H)
            return Output(mlm_logits=self.mlm(hidden), nsp_logits=self.nsp(hidden), hidden=hidden)
        positions, named = _to_read(selected)  # (B, R)
        hidden = self.encoder(input_ids, token_type_ids, attention_mask, positions)  # (B, R, H)
        return Output(mlm_logits=self.mlm(hidden[named]), nsp_logits=self.nsp(hidden), hidden=hidden)

    def num_parameters(self) -> int:
        """Count the trainable numbers; tied weights count once."""
        return sum(p.numel() for p in self.parameters())


def _to_read(selected: Tensor) -> tuple[Tensor, Tensor]:
    """Number the positions that the heads read: [CLS], then the selected ones in their order, then filling.

    Returns:
        Columns (B, R), and which of them are selected (B, R).
    """
    wanted = selected.clone()
    wanted[:, 0] = True
    order = wanted.int().argsort(dim=1, descending=True, stable=True)  # (B, S)
    positions = order[:, : int(wanted.sum(1).max())]  # (B, R)
    return positions, selected.gather(1, positions)
