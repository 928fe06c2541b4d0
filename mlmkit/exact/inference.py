"""Exact inference on a `Language`: what the context tells about a word, by the forward–backward algorithm.

The observer sees x̄ and knows how it was made: a word was selected with probability `rate` and then went through the
channel (80/10/10 in BERT), but which words were selected is hidden, except at the position that is asked about.

Within a sentence the classes form a chain, which two passes solve (`mlmkit.exact.passes`). The other sentence of a
pair only says something about the topic: with probability ½ it has the same one (it is the next sentence), otherwise
one of its own.

Shapes: B pairs, S sequence, L words of the longer sentence, K topics, C classes, N words, V = 5 + N vocabulary,
M selected positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mlmkit.errors import UserError
from mlmkit.exact.passes import forward_backward, left_neighbor, log_matmul, prior, right_neighbor, tables
from mlmkit.language import Language
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.tokenizer import CLS, MASK, PAD, SEP, SPECIAL_TOKENS

FIRST_WORD = len(SPECIAL_TOKENS)
"""Id of a language's first word; the special tokens come before it."""
PAD_ID, CLS_ID, SEP_ID, MASK_ID = (SPECIAL_TOKENS.index(token) for token in (PAD, CLS, SEP, MASK))
CHUNK = 1024
"""Pairs that are worked on at a time: bounds the memory."""

Context = Literal["both", "left", "right", "neighbors", "none"]
_READS_OTHER = {"both": (True, True), "left": (False, True), "right": (True, False)}
"""Whether a word of A, and a word of B, may look at the other sentence; not so in the other contexts."""
BERT = MaskingPolicy(count="binomial")
"""Each position is selected by itself with probability 0.15; then 80/10/10."""


def posterior(
    language: Language,
    input_ids: Tensor,
    selected: Tensor | None = None,
    *,
    policy: MaskingPolicy | None = BERT,
    context: Context = "both",
    own: bool = True,
    next_probability: float = 0.5,
) -> Tensor:
    """Pr(x_i | x̄, i ∈ A(x)) at the selected positions: what a perfect masked language model would answer.

    Args:
        language: whose text it is.
        input_ids: x̄ as `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, padded (B, S).
        selected: positions to answer (B, S), boolean; all positions if absent.
        policy: how x̄ was made; None: nothing but [MASK] was put in, every other word is true.
        context: which other words may be looked at: all of them, those to the left (causal), those to the right,
            the two neighbors, or none.
        own: whether what stands at the position itself may be looked at.
        next_probability: probability that B is the next sentence, before reading.

    Returns:
        Probabilities (M, V) at the selected positions in reading order, or (B, S, V); all zero at the positions of
        [CLS], [SEP] and padding.

    Raises:
        UserError: a row is no pair of this language, it cannot occur under this policy, or the policy's law is not
            one that is solved here.

    >>> from mlmkit.language import tiny_language
    >>> x = torch.tensor([[2, 5, 4, 3]])  # [CLS] cat [MASK] [SEP]
    >>> posterior(tiny_language(), x, x == 4, policy=None)  # Pr(home | cat) = 3/4: 3/4 · 3/4 + 1/4 · 1/4 sleeps
    tensor([[0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.6250, 0.3750]],
           dtype=torch.float64)
    """
    _check(policy, next_probability)
    if context not in get_args(Context):
        raise UserError(f"context must be one of {', '.join(get_args(Context))}, got {context!r}")
    found = []
    for rows in torch.arange(len(input_ids)).split(CHUNK):
        text = read_pairs(language, input_ids[rows])
        logs = _word_logs(language, text, policy, context, own, next_probability)  # (B, 2, L, N)
        answer = torch.zeros(*input_ids[rows].shape, FIRST_WORD + len(language.words), dtype=torch.float64)
        row, sentence, place = text.real.nonzero(as_tuple=True)
        answer[row, text.column[row, sentence, place], FIRST_WORD:] = logs[row, sentence, place].softmax(-1)
        _refuse_impossible(language, answer)
        found.append(answer if selected is None else answer[selected[rows].cpu()])
    return torch.cat(found)


def log_evidence(
    language: Language,
    input_ids: Tensor,
    labels: Tensor | None = None,
    *,
    policy: MaskingPolicy | None = BERT,
    reveal: bool = False,
    next_probability: float = 0.5,
) -> Tensor:
    """log Pr(x̄) in nats (B,), up to the constant probability with which [MASK] was put where it is.

    What cannot occur has −∞.

    Args:
        language: whose text it is.
        input_ids: x̄ (B, S).
        labels: true ids at positions that are known to have been selected, −100 elsewhere (B, S).
        policy: as in `posterior`.
        reveal: compute log Pr(x̄, x_A), with the true words at these positions, instead of log Pr(x̄).
        next_probability: as in `posterior`.
    """
    same, different = _relations(language, input_ids, labels, policy, reveal, next_probability)
    return torch.logaddexp(same, different)


def joint_log_probability(
    language: Language,
    input_ids: Tensor,
    labels: Tensor,
    *,
    policy: MaskingPolicy | None = BERT,
    next_probability: float = 0.5,
) -> Tensor:
    """log Pr(x_J | x̄, J ⊆ A) of all labeled words x_J together, in nats (B,).

    If all that is selected becomes [MASK] and every [MASK] is labeled, this is log Pr(x_A | x̄). A masked language
    model predicts the words one by one; the sum of its logs is not this number (`dependency_gap`).

    Args:
        language: whose text it is.
        input_ids: x̄ (B, S).
        labels: true ids at the positions J, −100 elsewhere (B, S).
        policy: as in `posterior`.
        next_probability: as in `posterior`.

    Raises:
        UserError: as `posterior`.
    """
    known = log_evidence(language, input_ids, labels, policy=policy, reveal=True, next_probability=next_probability)
    seen = log_evidence(language, input_ids, labels, policy=policy, next_probability=next_probability)
    return _refuse_impossible(language, known - seen)


def next_log_odds(
    language: Language, input_ids: Tensor, *, policy: MaskingPolicy | None = BERT, next_probability: float = 0.5
) -> Tensor:
    """log Pr(B is next | x̄) − log Pr(B is from another document | x̄), in nats (B,).

    Raises:
        UserError: as `posterior`.
    """
    same, different = _relations(language, input_ids, None, policy, False, next_probability)
    return _refuse_impossible(language, same - different)


def _relations(
    language: Language,
    input_ids: Tensor,
    labels: Tensor | None,
    policy: MaskingPolicy | None,
    reveal: bool,
    next_probability: float,
) -> tuple[Tensor, Tensor]:
    """log Pr(x̄, B is next) and log Pr(x̄, B is from another document), each (B,); arguments as in `log_evidence`."""
    _check(policy, next_probability)
    found = []
    for rows in torch.arange(len(input_ids)).split(CHUNK):
        text = read_pairs(language, input_ids[rows])
        seen = _observe(language, text, None if labels is None else labels[rows], policy, reveal)
        t = tables(language)
        sentence = forward_backward(t, seen).sentence  # (B, 2, K)
        together = (t.topic + sentence.sum(1)).logsumexp(-1) + _log(next_probability)
        apart = (t.topic + sentence).logsumexp(-1).sum(-1) + _log(1 - next_probability)
        found.append(torch.stack([together, apart]))
    same, different = torch.cat(found, dim=1)
    return same, different


def _check(policy: MaskingPolicy | None, next_probability: float) -> None:
    check_policy(policy)
    if not 0 <= next_probability <= 1:
        raise UserError(f"next_probability must be between 0 and 1, got {next_probability}")


def _refuse_impossible(language: Language, answer: Tensor) -> Tensor:
    """Hand an answer on, unless it is 0 / 0: it was conditioned on what cannot occur."""
    if torch.isnan(answer).any():
        raise UserError(
            f"a pair is impossible in the language {language.name!r} under this policy: take pairs drawn from it, and "
            "the policy with which they were masked"
        )
    return answer


def is_solved(policy: MaskingPolicy | None) -> bool:
    """Tell whether the exact answer is known under this policy.

    It is where each token is selected by itself. Where no random words are put in, every word that is not hidden is
    true, and it does not matter how the others were chosen.
    """
    return policy is None or policy.random == 0 or (policy.unit == "token" and policy.count == "binomial")


def check_policy(policy: MaskingPolicy | None) -> None:
    """Refuse a policy for which the exact answer is not known.

    Raises:
        UserError: what to set instead.
    """
    if policy is not None and not is_solved(policy):
        raise UserError(
            'the exact answer needs tokens that are selected each by itself: set masking.count="binomial" and '
            f'masking.unit="token" (got {policy.count!r} and {policy.unit!r}), or masking.random=0'
        )


@dataclass(frozen=True)
class Text:
    """The words of some pairs, sentence by sentence.

    Attributes:
        words: word numbers; N stands for [MASK], N + 1 for nothing (B, 2, L).
        real: whether there is a word (B, 2, L).
        column: where it stands in the sequence (B, 2, L).
    """

    words: Tensor
    real: Tensor
    column: Tensor


def read_pairs(language: Language, input_ids: Tensor) -> Text:
    """Find the sentences in `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`.

    Raises:
        UserError: a row has another form, or an id that is no word of the language.
    """
    ids = input_ids.cpu()
    B, S = ids.shape
    N = len(language.words)
    ends = ids == SEP_ID  # (B, S)
    count, first = ends.sum(1), ends.int().argmax(1)  # (B,)
    at = torch.arange(S)[None]
    last = torch.where(ends, at, -1).amax(1)  # (B,)
    sentence = torch.where(at < first[:, None], 0, torch.where(at < last[:, None], 1, -1))  # (B, S)
    sentence[ends] = -1
    sentence[:, 0] = -1
    wrong = (ids[:, 0] != CLS_ID) | (count < 1) | (count > 2) | ((ids != PAD_ID) & (at > last[:, None])).any(1)
    wrong |= ((sentence >= 0) & (ids != MASK_ID) & ((ids < FIRST_WORD) | (ids >= FIRST_WORD + N))).any(1)
    if wrong.any():
        raise UserError(
            f"row {int(wrong.int().argmax())} is not [CLS] A [SEP] or [CLS] A [SEP] B [SEP] of words of the language "
            f"{language.name!r}"
        )
    place = torch.where(sentence == 0, at - 1, at - first[:, None] - 1)
    L = max(int((place[sentence >= 0]).max()) + 1 if (sentence >= 0).any() else 1, 1)
    words = torch.full((B, 2, L), N + 1)
    column = torch.zeros(B, 2, L, dtype=torch.int64)
    row, col = (sentence >= 0).nonzero(as_tuple=True)
    where = row, sentence[row, col], place[row, col]
    words[where] = torch.where(ids[row, col] == MASK_ID, N, ids[row, col] - FIRST_WORD)
    column[where] = col
    return Text(words, words <= N, column)


def _channel(N: int, policy: MaskingPolicy | None, selected: bool) -> Tensor:
    """Pr(y | x) for words x and what may be observed y: a word, [MASK], or nothing (N, N + 2).

    [MASK] says nothing about the word behind it, so its column may be 1 whatever its probability.
    """
    if policy is None or (selected and policy.keep + policy.random == 0):
        same, other = 1.0, 0.0
    elif selected:
        same, other = policy.keep, policy.random / N
    else:
        same, other = 1 - policy.rate * (1 - policy.keep), policy.rate * policy.random / N
    table = torch.ones(N, N + 2, dtype=torch.float64)
    table[:, :N] = same * torch.eye(N, dtype=torch.float64) + other
    return table


def _observe(
    language: Language, text: Text, labels: Tensor | None, policy: MaskingPolicy | None, reveal: bool
) -> Tensor:
    """log Pr(y_i | k, c_i) (B, 2, L, K, C); at labeled positions through the selected channel."""
    emission = tables(language).emission
    N = len(language.words)
    seen = (emission @ _channel(N, policy, selected=False)).log()  # (K, C, N + 2)
    logs = seen.permute(2, 0, 1)[text.words]  # (B, 2, L, K, C)
    if labels is None:
        return logs
    true = torch.where(text.real, labels.cpu().gather(1, text.column.flatten(1)).view_as(text.column), IGNORE)
    at = (true != IGNORE).nonzero(as_tuple=True)
    channel = _channel(N, policy, selected=True)
    if reveal:
        word, y = true[at] - FIRST_WORD, text.words[at]  # (M,)
        logs[at] = emission.permute(2, 0, 1)[word].log() + channel[word, y].log()[:, None, None]
    else:
        logs[at] = (emission @ channel).log().permute(2, 0, 1)[text.words[at]]
    return logs


def _word_logs(
    language: Language,
    text: Text,
    policy: MaskingPolicy | None,
    context: Context,
    own: bool,
    next_probability: float,
) -> Tensor:
    """log Pr(x_i, context) up to a constant (B, 2, L, N)."""
    t = tables(language)
    seen = _observe(language, text, None, policy, False)  # (B, 2, L, K, C)
    passes = forward_backward(t, seen)
    other = passes.sentence.flip(1)  # (B, 2, K) what the other sentence of the pair says
    elsewhere = (t.topic + other).logsumexp(-1, keepdim=True)
    about_topic = torch.logaddexp(other + _log(next_probability), elsewhere + _log(1 - next_probability))  # (B, 2, K)
    nothing = torch.zeros_like(seen)
    before, after = {
        "both": (passes.before, passes.after),
        "left": (passes.before, nothing),
        "right": (prior(t, seen), passes.after),
        "neighbors": (left_neighbor(t, seen), right_neighbor(t, seen)),
        "none": (prior(t, seen), nothing),
    }[context]
    reads = torch.tensor(_READS_OTHER.get(context, (False, False)))[:, None]  # (2, 1)
    state = (t.topic + torch.where(reads, about_topic, 0.0))[:, :, None, :, None] + before + after  # (B, 2, L, K, C)
    logs = log_matmul(state.flatten(-2), t.emission.flatten(0, 1))  # (B, 2, L, N)
    if own:
        logs = logs + _channel(len(language.words), policy, selected=True).T.log()[text.words]
    return logs


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf
