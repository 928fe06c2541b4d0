"""What a watched loop gives away: faults of the loss, the model and the updates, from the evidence of a recorder.

The proof is a gradient, a flag or a count of what the loop really did; nobody's source code is read. A gradient is
exactly 0 where a loss does not look, so most thresholds need no statistics.
"""

from __future__ import annotations

from mlmkit.diagnosis.evidence import Evidence, Pass
from mlmkit.diagnosis.findings import Diagnosis, Finding, check, found, merge

SHARE = 0.05
"""Share of the updates of a run from which a wrong mode or a second step is a fault and not a single occasion."""
TRACE = 1e-6
"""Share of the gradient that may stray: below it lies rounding."""
FILLER = 0.9
"""A filler is one token that nearly all stray gradients ask for."""
NO_PASS = "no backward pass was seen through the model's logits"
NO_MLM = "no MLM logits with labels were seen: hand the batches through `watch`"
NO_NSP = "no NSP logits with labels were seen"


def diagnose_steps(evidence: Evidence) -> Diagnosis:
    """Look for the faults of a loop: where the loss pulls, how the model is built and set, how the updates are made."""
    passes = evidence.passes
    outcomes = {
        "loss_on_all_positions": loss_on_all_positions(passes),
        "averaged_before_weights": averaged_before_weights(passes),
        "no_attention_mask": no_attention_mask(passes),
        "segments_all_zero": segments_all_zero(passes),
        "weights_not_tied": weights_not_tied(evidence),
        "decoder_bias_missing": decoder_bias_missing(evidence),
        "gradients_not_zeroed": gradients_not_zeroed(passes),
        "eval_mode": eval_mode(evidence),
        "dropout_off": dropout_off(evidence),
        "two_updates_per_batch": two_updates_per_batch(evidence),
        "nsp_ignore_index_zero": nsp_ignore_index_zero(passes),
    }
    return merge(*(check(fault, outcome) for fault, outcome in outcomes.items()))


def loss_on_all_positions(passes: list[Pass]) -> Finding | str | None:
    """Find gradient at unlabeled positions that does not ask for a filler."""
    text = _stray(passes)
    if text is None or isinstance(text, str) or _filler(passes) is not None:
        return text if isinstance(text, str) else None
    reached, unlabeled, share = text
    own = sum(seen.toward_own for seen in passes)
    evidence = (
        f"{reached} of {unlabeled} unlabeled positions get {share:.1%} of the gradient at the MLM logits; at {own} of "
        "them it asks for the very token that stands there"
    )
    return found("loss_on_all_positions", evidence, share)


def averaged_before_weights(passes: list[Pass]) -> Finding | str | None:
    """Find gradient at unlabeled positions that asks for one and the same token everywhere: the filler."""
    text = _stray(passes)
    filler = _filler(passes)
    if text is None or isinstance(text, str) or filler is None:
        return text if isinstance(text, str) else None
    reached, unlabeled, share = text
    evidence = (
        f"{reached} of {unlabeled} unlabeled positions get {share:.1%} of the gradient at the MLM logits, and it asks "
        f"for token {filler}, whatever stands there: the filler of slots whose weight should be 0"
    )
    return found("averaged_before_weights", evidence, share)


def _stray(passes: list[Pass]) -> tuple[int, int, float] | str | None:
    """Unlabeled positions reached by the gradient, their number in all, and their share of the gradient."""
    known = [seen for seen in passes if seen.unlabeled is not None]
    if not known:
        return NO_MLM if passes else NO_PASS
    reached = sum(seen.reached for seen in known)
    share = sum(seen.reached_share for seen in known) / len(known)
    return (reached, sum(seen.unlabeled or 0 for seen in known), share) if share > TRACE else None


def _filler(passes: list[Pass]) -> int | None:
    """The token that nearly all stray gradients ask for, if it is not the one that stands there."""
    own, other = sum(seen.toward_own for seen in passes), sum(seen.toward_other for seen in passes)
    tokens = [seen.other_token for seen in passes if seen.other_token is not None]
    if other <= own or not tokens:
        return None
    common = max(set(tokens), key=tokens.count)
    agreeing = sum(s.toward_other * s.other_share for s in passes if s.other_token == common)
    return common if agreeing >= FILLER * other else None


def no_attention_mask(passes: list[Pass]) -> Finding | str | None:
    """Count the [PAD] positions that the mask given to the model does not hide."""
    padding, visible = (sum(getattr(seen, name) for seen in passes) for name in ("padding", "visible_padding"))
    if not padding:
        return "the model read no padding" if passes else NO_PASS
    text = f"{visible} of {padding} [PAD] positions were open to attention when the model was called"
    return found("no_attention_mask", text, visible) if visible else None


def segments_all_zero(passes: list[Pass]) -> Finding | str | None:
    """Count the pairs for which the model was given no segment but 0."""
    pairs, told = (sum(getattr(seen, name) for seen in passes) for name in ("pairs_read", "pairs_told_apart"))
    if not pairs:
        return "the model read no row with two sentences" if passes else NO_PASS
    text = f"the model was given segment 0 throughout {pairs} rows that hold two sentences"
    return None if told else found("segments_all_zero", text, pairs)


def weights_not_tied(evidence: Evidence) -> Finding | str | None:
    """Compare where the decoder matrix and the word embeddings lie in memory."""
    if evidence.structure.tied is None:
        return "no linear layer as wide as the vocabulary was found"
    text = "the decoder of the MLM logits and the word embeddings are 2 matrices, not 1"
    return None if evidence.structure.tied else found("weights_not_tied", text, 2)


def decoder_bias_missing(evidence: Evidence) -> Finding | str | None:
    """Look for the bias of the layer whose output is the MLM logits, and for the optimizer that trains it."""
    if evidence.structure.bias is None:
        return "the MLM logits are not the output of a linear layer"
    text = "the layer that gives the MLM logits has 0 biases that the optimizer trains"
    return None if evidence.structure.bias else found("decoder_bias_missing", text, 0)


def gradients_not_zeroed(passes: list[Pass]) -> Finding | str | None:
    """Look into the parameters at the moment when the first backward pass after an optimizer step begins."""
    left = [seen.left_over for seen in passes if seen.left_over is not None]
    if not left:
        return "no backward pass was seen after an optimizer step"
    dirty = [norm for norm in left if norm != 0]  # NaN is left over too
    if not dirty:
        return None
    text = (
        f"a gradient of norm {max(dirty):.3g} already lay in the parameters when {len(dirty)} of {len(left)} backward "
        "passes after an update began"
    )
    return found("gradients_not_zeroed", text, max(dirty))


def eval_mode(evidence: Evidence) -> Finding | str | None:
    """Count the backward passes of a model that was in evaluation mode."""
    n, count = evidence.backward, evidence.in_eval_mode
    text = f"model.training was False in {count} of {n} backward passes"
    return NO_PASS if not n else found("eval_mode", text, count / n) if count > SHARE * n else None


def dropout_off(evidence: Evidence) -> Finding | str | None:
    """Count the backward passes in training mode in which nothing could be dropped, though it should."""
    n, count = evidence.backward, evidence.without_dropout
    text = (
        f"the configuration asks for dropout {evidence.dropout:g}; in {count} of {n} backward passes no layer of the "
        "model dropped anything"
    )
    return NO_PASS if not n else found("dropout_off", text, count / n) if count > SHARE * n else None


def two_updates_per_batch(evidence: Evidence) -> Finding | str | None:
    """Count the batches on which the optimizer stepped more than once."""
    n, count = evidence.watched, evidence.stepped_twice
    if not n:
        return "the batches were not handed through `watch`"
    text = f"{count} of {n} batches were followed by more than one optimizer step: {evidence.updates} steps in all"
    return found("two_updates_per_batch", text, count / n) if count > SHARE * n else None


def nsp_ignore_index_zero(passes: list[Pass]) -> Finding | str | None:
    """Compare the gradient at the NSP logits of pairs with label 0 and with label 1."""
    known = [seen for seen in passes if seen.pairs is not None]
    if not known:
        return NO_NSP if passes else NO_PASS
    (n0, n1), (silent0, silent1) = (
        [sum(column) for column in zip(*rows, strict=True)]
        for rows in ([seen.pairs or (0, 0) for seen in known], [seen.silent_pairs for seen in known])
    )
    if not n0 or not n1:
        return f"pairs of both labels are needed, there are {n0} with label 0 and {n1} with label 1"
    text = (
        f"the gradient at the NSP logits is 0 for {silent0} of {n0} pairs with label 0, and for {silent1} of {n1} "
        "with label 1"
    )
    return found("nsp_ignore_index_zero", text, silent0 / n0) if silent0 == n0 and silent1 < n1 else None
