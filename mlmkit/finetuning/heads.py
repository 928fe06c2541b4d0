"""The encoder kept, the head replaced: networks that label texts or words (Devlin et al. 2019, fig. 4)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mlmkit.config import ModelConfig
from mlmkit.finetuning.recipe import FinetuneConfig
from mlmkit.finetuning.task import Kind
from mlmkit.model import BertForPreTraining, Encoder, initialize


class SequenceClassifier(nn.Module):
    """[CLS] → pooler → dropout → scores: one label for a sentence or a pair.

    The pooler is that of the NSP head: what pre-training has learned to read from [CLS] is kept, only the last linear
    layer is new.
    """

    def __init__(self, config: ModelConfig, labels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, labels)
        initialize(self, config.initializer_range)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """(B, S) ids → (B, K); the last layer is computed at [CLS] only."""
        first = input_ids.new_zeros(len(input_ids), 1)
        hidden = self.encoder(input_ids, token_type_ids, attention_mask, first)  # (B, 1, H)
        return self.classifier(self.dropout(torch.tanh(self.pooler(hidden[:, 0]))))


class TokenClassifier(nn.Module):
    """Hidden state → dropout → scores, at every position; a word's label is read at its first token."""

    def __init__(self, config: ModelConfig, labels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, labels)
        initialize(self, config.initializer_range)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """(B, S) ids → (B, S, K)."""
        return self.classifier(self.dropout(self.encoder(input_ids, token_type_ids, attention_mask)))


Network = SequenceClassifier | TokenClassifier


def new_network(config: ModelConfig, kind: Kind, labels: int) -> Network:
    """A network for a kind of task, with random weights; `torch.manual_seed` beforehand makes it reproducible."""
    return TokenClassifier(config, labels) if kind == "tokens" else SequenceClassifier(config, labels)


def attach_head(
    pretrained: BertForPreTraining, kind: Kind, labels: int, config: FinetuneConfig, from_scratch: bool = False
) -> Network:
    """Copy a pre-trained encoder under a new head; the pre-trained network itself is not changed.

    Args:
        pretrained: where the encoder comes from, and for texts the pooler.
        kind: what is labeled.
        labels: number of labels K.
        config: says the dropout; seed the first weights with `torch.manual_seed` beforehand.
        from_scratch: take only the sizes; all weights are random, as if nothing had been pre-trained.
    """
    sizes = replace(pretrained.config, hidden_dropout_prob=config.dropout, attention_probs_dropout_prob=config.dropout)
    network = new_network(sizes, kind, labels)
    if from_scratch:
        with torch.no_grad():
            network.encoder.embeddings.token.weight[sizes.pad_token_id] = 0
        return network
    network.encoder.load_state_dict(pretrained.encoder.state_dict())
    if isinstance(network, SequenceClassifier):
        network.pooler.load_state_dict(pretrained.nsp.pooler.state_dict())
    return network
