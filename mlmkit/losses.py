"""What is minimized: cross-entropy over the selected positions, plus cross-entropy of the sentence relation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining


@dataclass(frozen=True)
class Losses:
    """The two losses of one forward pass, in nats, and their (weighted) sum, on which `backward` is called once."""

    total: Tensor
    mlm: Tensor
    nsp: Tensor


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Average −log Pr(x_i | x̄) over the selected positions i ∈ A(x), in nats.

    The objective is a sum of logs over A(x) for every x (Xiao & Zhu ch. 1); dividing by the number of selected
    positions in the batch changes its scale, not its maximizer. Positions labeled −100 take no part. A batch
    without any selected position has loss 0 and gradient 0.

    Args:
        logits: scores over the vocabulary, (B, S, V), or (M, V) at the selected positions only.
        labels: true ids, (B, S) or (M,), −100 where no loss is taken.

    Returns:
        A scalar.

    >>> float(mlm_loss(torch.zeros(1, 2, 4), torch.tensor([[-100, 3]]))) == float(torch.tensor(4.0).log())
    True
    """
    logits = _at_least_fp32(logits).reshape(-1, logits.shape[-1])
    total = F.cross_entropy(logits, labels.reshape(-1), ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def nsp_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Average −log Pr(c | h_cls), in nats, where c says whether B follows A.

    Args:
        logits: scores of the two relations (B, 2).
        labels: 0 where B is the next sentence, 1 where it comes from another document (B,).
    """
    return F.cross_entropy(_at_least_fp32(logits), labels)


def _at_least_fp32(logits: Tensor) -> Tensor:
    """Leave half precision before the exponentials; double stays double, for `gradcheck`."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def pretraining_loss(model: BertForPreTraining, batch: Mapping[str, Tensor], nsp_weight: float = 1.0) -> Losses:
    """Compute both losses from one forward pass (Devlin et al. 2019, appendix A.2: their sum is minimized).

    The logits over the vocabulary are computed at the selected positions only: the other 85 % would be
    multiplied out and thrown away.

    Args:
        model: in training or evaluation mode, as the caller wants it.
        batch: `input_ids`, `token_type_ids`, `attention_mask`, `labels` (B, S), `next_sentence_label` (B,).
        nsp_weight: w in total = MLM + w · NSP; BERT has 1, training without NSP is 0.
    """
    labels = batch["labels"]
    selected = labels != IGNORE  # (B, S)
    output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"], selected)
    mlm = mlm_loss(output.mlm_logits, labels[selected])
    nsp = nsp_loss(output.nsp_logits, batch["next_sentence_label"])
    return Losses(total=mlm + nsp_weight * nsp, mlm=mlm, nsp=nsp)
