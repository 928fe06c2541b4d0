"""An encoder–decoder from the parts of BERT: the encoder reads a damaged sentence, the decoder writes the whole one.

    Pr(x | x̃) = Π_t Pr(x_t | x_0 … x_{t−1}, x̃)        with x_0 = [CLS] and the last word followed by [SEP]

A decoder layer has three sublayers (Vaswani et al. 2017, §3.1): attention to the words written so far, attention to
the encoder's hidden states, and the feed-forward net. Token embeddings are shared by both sides and by the output.

Shapes: B sentences, S positions of the damaged sentence, T of the whole one, H hidden, A heads, D = H / A, V
vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlmkit.config import ModelConfig
from mlmkit.exact.inference import CLS_ID, PAD_ID, SEP_ID
from mlmkit.model import Encoder, MLMHead, SelfAttention, attention, initialize
from mlmkit.objectives.simulated_lm import causal_bias


class CrossAttention(nn.Module):
    """Multi-head attention in which one sentence asks and another answers: queries from x, keys and values from m."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """Let x (B, S, H) read m (B, S, H); `bias` (B, 1, 1, S) is 0 at real positions of m, −∞ at padding."""
        B, S, H = x.shape
        q = self.query(x).view(B, S, self.heads, H // self.heads).transpose(1, 2)  # (B, A, S, D)
        k, v = self.key_value(memory).view(B, S, 2, self.heads, H // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attention(q, k, v, bias, self.dropout if self.training else 0.0)  # (B, A, S, D)
        return self.out(mixed.transpose(1, 2).reshape(B, S, H))


class DecoderLayer(nn.Module):
    """Causal attention, cross-attention, feed-forward; after each: dropout, residual sum, layer norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.cross = CrossAttention(config)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(3))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, memory: Tensor, later: Tensor, padding: Tensor) -> Tensor:
        """(B, S, H) → (B, S, H); biases: −∞ at later words (1, 1, S, S) and at the memory's padding (B, 1, 1, S)."""
        x = self.norms[0](x + self.dropout(self.attention(x, later)))
        x = self.norms[1](x + self.dropout(self.cross(x, memory, padding)))
        return self.norms[2](x + self.dropout(self.down(F.gelu(self.up(x)))))


class EncoderDecoder(nn.Module):
    """Encoder of BERT, decoder layers as many, and BERT's masked-word head as output (tied embeddings).

    The decoder embeds its words with the encoder's embeddings, in segment 1, so it needs no tables of its own.
    Weights start as in `BertForPreTraining`. `torch.manual_seed` before the call makes it reproducible.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.head = MLMHead(config, self.encoder.embeddings.token)
        initialize(self, config.initializer_range)
        with torch.no_grad():
            self.encoder.embeddings.token.weight[config.pad_token_id] = 0

    def forward(self, damaged: Tensor, written: Tensor) -> Tensor:
        """Score each next word: Pr(x_t | x_0 … x_{t−1}, x̃).

        Args:
            damaged: x̃ as `[CLS] … [SEP]`, padded (B, S).
            written: x_0 … x_{T−1}, the true words in training (teacher forcing) (B, T).

        Returns:
            Logits of x_1 … x_T (B, T, V).
        """
        length = written.shape[1]
        width = max(damaged.shape[1], length)  # attention is written for as many keys as queries: pad the shorter side
        damaged = F.pad(damaged, (0, width - damaged.shape[1]), value=PAD_ID)
        written = F.pad(written, (0, width - length), value=PAD_ID)
        real = damaged != PAD_ID  # (B, width)
        memory = self.encoder(damaged, attention_mask=real)  # (B, width, H)
        padding = torch.zeros_like(memory[..., 0]).masked_fill(~real, float("-inf"))[:, None, None]  # (B, 1, 1, width)
        later = causal_bias(width).to(memory)  # (1, 1, width, width)
        x = self.encoder.embeddings(written, torch.ones_like(written))  # (B, width, H)
        for layer in self.layers:
            x = layer(x, memory, later, padding)
        return self.head(x[:, :length])


@torch.no_grad()
def rebuild(model: EncoderDecoder, damaged: Tensor, longest: int) -> Tensor:
    """Write the sentence greedily: at each place the most probable next word, up to [SEP] or the longest length.

    The best word at each place need not give the best sentence; on a known language, `restoration_log_probability`
    tells the difference.

    Args:
        model: in evaluation mode.
        damaged: x̃ (B, S).
        longest: number of words after which a sentence is cut off.

    Returns:
        Words only, padded with [PAD] (B, `longest`).
    """
    B = len(damaged)
    text = torch.full((B, longest + 1), PAD_ID, dtype=damaged.dtype, device=damaged.device)
    text[:, 0] = CLS_ID
    ended = torch.zeros(B, dtype=torch.bool, device=damaged.device)
    for t in range(longest):
        word = model(damaged, text[:, : t + 1])[:, -1].argmax(-1)  # (B,)
        ended |= word == SEP_ID
        text[:, t + 1] = torch.where(ended, PAD_ID, word)
    return text[:, 1:]
