"""What a model says about hidden tokens: at each the distribution, and the probability of the true token."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from mlmkit.errors import UserError
from mlmkit.evaluation import Candidate, evaluation_mode
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer
from mlmkit.widgets.sentences import Sentence


@dataclass(frozen=True)
class Guess:
    """The distribution at one masked position.

    Attributes:
        position: in the sequence; [CLS] is 0.
        best: the most probable tokens, best first.
        true: the hidden token with its probability; None where the text itself has a [MASK].
        rank: place of the true token among all, from 1; None without one.
        loss: −log Pr(true | x̄) in nats; None without a true token.
    """

    position: int
    best: tuple[Candidate, ...]
    true: Candidate | None = None
    rank: int | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Reading:
    """A sentence, what is hidden of it, and what the model says there.

    Attributes:
        sentence: the true tokens.
        seen: the tokens that the model saw, x̄ (S,).
        guesses: one for each [MASK], in order of position.
    """

    sentence: Sentence
    seen: tuple[str, ...]
    guesses: tuple[Guess, ...]

    @property
    def losses(self) -> list[float]:
        """−log Pr of each hidden token, in nats."""
        return [guess.loss for guess in self.guesses if guess.loss is not None]

    @property
    def loss(self) -> float:
        """−Σ_{i∈A(x)} log Pr(x_i | x̄), in nats: a sum of logs, since the tokens are predicted independently."""
        return math.fsum(self.losses)


def read_masked(
    model: BertForPreTraining, tokenizer: Tokenizer, sentence: Sentence, masked: Collection[int], top: int = 5
) -> Reading:
    """Hide tokens of a sentence and ask the model for them (Xiao & Zhu ch. 1).

    All are hidden at once and predicted independently, given the same x̄: Pr(x_i | x̄) for each i in A(x).

    Args:
        model: in any mode; it is read without dropout and left as it was.
        tokenizer: of the model.
        sentence: x.
        masked: A(x), positions in the sequence.
        top: how many candidates are kept at each position.

    Raises:
        UserError: a position cannot be hidden, or model and tokenizer do not belong together.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model reads {model.config.vocab_size}: "
            "load both from one folder"
        )
    for position in masked:
        if position not in sentence.ordinary:
            raise UserError(f"position {position} cannot be hidden; these can: {sentence.ordinary}")
    true = torch.tensor(sentence.ids)  # (S,)
    corrupted = true.clone()  # (S,)
    corrupted[list(masked)] = tokenizer.mask_id
    positions = (corrupted == tokenizer.mask_id).nonzero().flatten().tolist()
    log_p = _log_probabilities(model, corrupted, sentence.segments, positions)  # (M, V)
    guesses = [
        _guess(tokenizer, position, row, sentence.ids[position] if position in masked else None, top)
        for position, row in zip(positions, log_p, strict=True)
    ]
    return Reading(sentence, tuple(tokenizer.tokens(corrupted.tolist())), tuple(guesses))


def _log_probabilities(
    model: BertForPreTraining, corrupted: Tensor, segments: Collection[int], positions: list[int]
) -> Tensor:
    """Compute log Pr over the vocabulary at some positions of one sequence (M, V), on the CPU."""
    device = next(model.parameters()).device
    selected = torch.zeros(len(corrupted), dtype=torch.bool)
    selected[positions] = True
    inputs = (corrupted, torch.tensor(segments))
    with evaluation_mode(model):
        output = model(*(row[None].to(device) for row in inputs), selected=selected[None].to(device))
    return output.mlm_logits.double().log_softmax(-1).cpu()


def _guess(tokenizer: Tokenizer, position: int, log_p: Tensor, true_id: int | None, top: int) -> Guess:
    """Read one distribution (V,): its best tokens, and the place of the true one."""

    def candidate(index: int) -> Candidate:
        return Candidate(tokenizer.tokens([index])[0], index, math.exp(log_p[index]))

    best = tuple(map(candidate, log_p.topk(min(top, len(log_p))).indices.tolist()))
    if true_id is None:
        return Guess(position, best)
    rank = int((log_p > log_p[true_id]).sum()) + 1
    return Guess(position, best, candidate(true_id), rank, -float(log_p[true_id]))
