"""Consecutive masking: what a span is, what it costs, and that both heads of a trained model come near that cost."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise

import numpy as np
import pytest
import torch
from scipy.stats import geom
from torch import Tensor

from mlmkit.errors import UserError
from mlmkit.exact.inference import CLS_ID, FIRST_WORD, MASK_ID, SEP_ID, log_evidence, posterior
from mlmkit.language import Language, draw_language
from mlmkit.losses import mlm_loss
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.objectives.span import (
    SPANS,
    SpanBert,
    TrainedSpans,
    consecutive_share,
    find_spans,
    hide_one_span,
    losses_by_place,
    question_losses,
    span_lengths,
    span_loss,
    train_spans,
)
from mlmkit.objectives.training import (
    SHORT_RUN,
    Comparison,
    draw_documents,
    fresh_model,
    is_word,
    masked_batch,
    network,
)

WORDS = [group.split() for group in ("ox cow hen", "red big old", "eats sees finds", "here now soon")]


@cache
def language(length: int = 7, seed: int = 3) -> Language:
    """Four classes of three words, two topics, two sentences."""
    return draw_language(seed, WORDS, lengths=(length, length), topics=("farm", "town"))


@cache
def untrained() -> SpanBert:
    torch.manual_seed(0)
    size = replace(network(language(), hidden=32), initializer_range=0.3)
    return SpanBert(fresh_model(language(), size, 0)).eval()


def marks(text: str) -> Tensor:
    """A selection written down: x is selected, . is not."""
    return torch.tensor([[c == "x" for c in row] for row in text.split()])


def batch(count: int = 32, seed: int = 0, policy: MaskingPolicy = SPANS) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    return masked_batch(language(), draw_documents(language(), count, rng), policy, rng)


# --- what a span is ------------------------------------------------------------------------------------------


def test_edges_and_places_of_spans() -> None:
    selected = marks(".xx.x...xxx.")
    spans = find_spans(selected)
    assert spans.before[selected].tolist() == [0, 0, 3, 7, 7, 7]
    assert spans.after[selected].tolist() == [3, 3, 5, 11, 11, 11]
    assert spans.length[selected].tolist() == [2, 2, 1, 3, 3, 3]
    assert spans.place[selected].tolist() == [1, 2, 1, 1, 2, 3]


def test_the_edges_of_a_span_are_visible() -> None:
    _, labels = batch(512)
    selected = labels != IGNORE
    spans = find_spans(selected)
    rows = selected.nonzero()[:, 0]
    for edge in (spans.before, spans.after):
        assert not selected[rows, edge[selected]].any()


@pytest.mark.parametrize("seed", range(3))
def test_span_lengths_are_the_runs_of_the_selection(seed: int) -> None:
    selected = torch.from_numpy(np.random.default_rng(seed).random((50, 20)) < 0.5)
    selected[:, [0, -1]] = False
    runs = [len(list(group)) for row in selected.tolist() for value, group in groupby(row) if value]
    assert span_lengths(selected).tolist() == np.bincount(runs, minlength=21).tolist()


def test_single_masked_tokens_are_no_consecutive_masking() -> None:
    assert consecutive_share(marks(".x.x.x.x.")) == 0
    assert span_lengths(marks(".x.x.x.x."))[1] == 4
    assert consecutive_share(marks(".xx.xxx..")) == 1
    assert consecutive_share(marks(".x.xx.x..")) == 0.5
    assert consecutive_share(marks(".....")) == 0


def test_tokens_selected_alone_are_seldom_neighbors_and_groupsof_spans_mostly_are() -> None:
    """At rate r a token selected by itself has a selected neighbor with probability 1 − (1 − r)², here 0.28."""
    alone = MaskingPolicy(mask=1.0, random=0.0, keep=0.0, count="binomial")
    long = draw_language(0, WORDS, lengths=(200, 200))
    shares = []
    for policy in (alone, SPANS):
        rng = np.random.default_rng(0)
        _, labels = masked_batch(long, draw_documents(long, 100, rng), policy, rng)
        shares.append(consecutive_share(labels != IGNORE))
    assert shares[0] == pytest.approx(1 - 0.85**2, abs=0.03)  # 6000 tokens: standard error 0.006, and neighbors depend
    assert shares[1] > 0.9  # a span of one word: probability 0.2, so 0.2 / 4.5 of the words, less those side by side


def test_lengths_of_spans_are_geometric_up_to_the_longest() -> None:
    """At a small rate two chosen spans hardly ever touch, so runs are spans."""
    long = draw_language(0, WORDS, lengths=(400, 400))
    rng = np.random.default_rng(0)
    policy = replace(SPANS, rate=0.01)
    _, labels = masked_batch(long, draw_documents(long, 600, rng), policy, rng)
    counts = span_lengths(labels != IGNORE)[1:11].double()
    expected = torch.from_numpy(geom.pmf(np.arange(1, 11), policy.span_p))
    expected[-1] += geom.sf(10, policy.span_p)
    n = counts.sum()
    # five standard errors of a binomial share; 0.02 more for touching spans and those cut by the end of a sentence
    bound = 5 * (expected * (1 - expected) / n).sqrt() + 0.02
    assert ((counts / n - expected).abs() < bound).all(), counts / n - expected


@pytest.mark.parametrize("text", ["x....", "....x"])
def test_a_span_without_an_edge_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a span needs a visible token on each side"):
        find_spans(marks(text))


def test_one_span_is_hidden_with_a_word_on_each_side() -> None:
    x = draw_documents(language(), 4000, np.random.default_rng(0))
    corrupted, labels = hide_one_span(x, 3, np.random.default_rng(1))
    selected = labels != IGNORE
    assert torch.equal(labels[selected], x[selected])
    assert torch.equal(corrupted[~selected], x[~selected])
    assert (corrupted[selected] == MASK_ID).all()
    spans = find_spans(selected)
    assert (spans.length[selected] == 3).all()
    assert (selected.sum(1) == 3).all()
    rows = selected.nonzero()[:, 0]
    for edge in (spans.before, spans.after):
        assert is_word(x)[rows, edge[selected]].all(), "the edge is no word"
    starts = (selected & (spans.place == 1)).sum(0)
    places = starts[starts > 0]
    assert len(places) == 2 * (7 - 3 - 1)
    # each of six places: 667 ± 24
    assert (places - len(x) / 6).abs().max() < 5 * 24


@pytest.mark.parametrize("length", [6, 30])
def test_a_span_that_does_not_fit_is_refused(length: int) -> None:
    x = draw_documents(language(), 4, np.random.default_rng(0))
    with pytest.raises(UserError, match=f"needs a sentence of {length + 2} words"):
        hide_one_span(x, length, np.random.default_rng(0))


# --- what it costs, exactly ----------------------------------------------------------------------------------


@cache
def all_sentences() -> tuple[Language, Tensor, Tensor]:
    """Every sentence of five words out of four, and its probability."""
    groups, follows = [["ox", "cow"], ["eats", "sees"]], [[1], [0]]
    small = draw_language(1, groups, follows=follows, topics=("farm",), lengths=(5, 5), surprise=0.2)
    words = torch.cartesian_prod(*[torch.arange(FIRST_WORD, FIRST_WORD + 4)] * 5)
    column = torch.ones(len(words), 1, dtype=torch.int64)
    x = torch.cat([CLS_ID * column, words, SEP_ID * column], 1)
    return small, x, log_evidence(small, x, policy=None).exp()


def entropy(hidden: list[int], place: int) -> float:
    """Exact entropy of the word at a place when the words at these places are hidden: a sum over all sentences."""
    small, x, weight = all_sentences()
    corrupted = x.clone()
    corrupted[:, hidden] = MASK_ID
    asked = torch.zeros_like(x, dtype=torch.bool)
    asked[:, place] = True
    p = posterior(small, corrupted, asked, policy=None)
    return -float((weight * p.gather(1, x[:, place, None])[:, 0].log()).sum())


def test_the_sentences_are_all_there_are() -> None:
    assert float(all_sentences()[2].sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("place", [1, 2, 3, 4, 5])
def test_the_floor_of_a_word_grows_with_the_span_around_it(place: int) -> None:
    """Hiding more never helps: H(x_i | fewer words) ≥ H(x_i | more words)."""
    nested = [[j for j in range(1, 6) if abs(j - place) <= reach] for reach in range(5)]
    costs = [entropy(hidden, place) for hidden in nested]
    for less, more in pairwise(costs):
        assert more >= less - 1e-12
    assert costs[-1] > costs[0] + 0.05


def test_the_edges_of_a_span_are_easier_than_its_middle_exactly() -> None:
    costs = [entropy([2, 3, 4], place) for place in (2, 3, 4)]
    assert costs[1] > max(costs[0], costs[2]) + 0.01


# --- the span-boundary head ----------------------------------------------------------------------------------


def test_the_boundary_head_reads_the_two_edges_and_the_place_and_nothing_else() -> None:
    selected = marks(".xxx..x. .xx.....")
    hidden = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = untrained().sbo(hidden, selected)
        assert before.shape == (6, FIRST_WORD + 12)
        inside = hidden.clone()
        inside[selected] += 1
        assert torch.equal(untrained().sbo(inside, selected), before), "the hidden places themselves are read"
        for row, position, touched in [(0, 0, [0, 1, 2]), (0, 4, [0, 1, 2]), (0, 5, [3]), (0, 7, [3]), (1, 3, [4, 5])]:
            changed = hidden.clone()
            changed[row, position] += torch.linspace(-1, 1, 32)
            moved = (untrained().sbo(changed, selected) - before).abs().amax(1) > 1e-6
            assert moved.nonzero().flatten().tolist() == touched
        assert (before[0] - before[1]).abs().max() > 1e-3, "the place in the span is not read"


def test_the_boundary_head_is_the_formula() -> None:
    selected = marks(".xx..")
    hidden = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    head = untrained().sbo

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean()) / x.var(correction=0).sqrt()

    with torch.no_grad():
        for j in (1, 2):
            u = torch.cat([hidden[0, 0], hidden[0, 3], head.place.weight[j]])
            y = norm(torch.nn.functional.gelu(head.first.weight @ u + head.first.bias))
            y = norm(torch.nn.functional.gelu(head.second.weight @ y + head.second.bias))
            expected = head.decoder.weight @ y + head.decoder.bias
            torch.testing.assert_close(head(hidden, selected)[j - 1], expected, atol=1e-4, rtol=1e-4)


def test_the_decoder_is_tied_to_the_embeddings_and_counted_once() -> None:
    model = untrained()
    assert model.sbo.decoder.weight is model.bert.encoder.embeddings.token.weight
    own = sum(p.numel() for name, p in model.sbo.named_parameters() if not name.startswith("decoder"))
    assert sum(p.numel() for p in model.parameters()) == model.bert.num_parameters() + own


def test_the_loss_is_the_sum_of_both_and_reaches_both_heads() -> None:
    corrupted, labels = batch()
    selected = labels != IGNORE
    model = untrained()
    mlm, sbo = (mlm_loss(logits, labels[selected]) for logits in model(corrupted, selected))
    total = span_loss(model, corrupted, labels)
    torch.testing.assert_close(total, mlm + sbo)
    for part, layer in ((total, model.bert.mlm.dense.weight), (total, model.sbo.first.weight)):
        assert torch.autograd.grad(part, layer, retain_graph=True)[0].abs().max() > 0
    plain = model.bert(corrupted, torch.zeros_like(corrupted)).mlm_logits.shape
    assert plain == (*corrupted.shape, FIRST_WORD + 12)


def test_questions_are_answered_where_groupsare_hidden() -> None:
    corrupted, labels = batch()
    selected = labels != IGNORE
    mlm, sbo, floor = question_losses(untrained(), language(), corrupted, labels)
    for losses in (mlm, sbo, floor):
        assert (losses[~selected] == 0).all()
        assert (losses[selected] > 0).all()
    with torch.no_grad():
        for losses, logits in zip((mlm, sbo), untrained()(corrupted, selected), strict=True):
            torch.testing.assert_close(losses[selected].mean().float(), mlm_loss(logits, labels[selected]))


def test_the_floor_of_one_hidden_word_is_what_the_whole_document_adds_to_the_rest() -> None:
    """log Pr(x_i | rest) = log Pr(x) − log Pr(rest), both by the forward algorithm."""
    x = draw_documents(language(), 50, np.random.default_rng(0))
    corrupted, labels = hide_one_span(x, 1, np.random.default_rng(1))
    floor = question_losses(untrained(), language(), corrupted, labels)[2].sum(1)
    rest, whole = (log_evidence(language(), ids, policy=None, next_probability=1.0) for ids in (corrupted, x))
    assert (floor - (rest - whole)).abs().max() < 1e-9


def test_words_of_a_span_share_one_fate() -> None:
    policy = replace(SPANS, rate=1.0, mask=0.5, keep=0.5)
    corrupted, labels = batch(200, policy=policy)
    words = corrupted[:, 1:8]
    kept = words == labels[:, 1:8]
    assert ((words == MASK_ID) | kept).all()
    # neighbors are in the same span with probability 0.8, otherwise they agree half of the time: 0.9
    assert float((kept[:, 1:] == kept[:, :-1]).float().mean()) == pytest.approx(0.9, abs=0.05)  # 1200 pairs: 5 × 0.009


def test_only_masks_are_hidden_behind() -> None:
    with pytest.raises(UserError, match=r"set masking\.mask to 1, got 0\.8"):
        train_spans(language(), policy=MaskingPolicy(unit="span"))


# --- trained -------------------------------------------------------------------------------------------------

RUN = replace(SHORT_RUN, max_steps=400, batch_size=256, lr=8e-3, warmup_steps=30, eval_every=100, precision="fp32")


@cache
def taught() -> Language:
    """Three classes of three words and one topic: small enough to be learned in seconds."""
    return draw_language(3, WORDS[:3], lengths=(7, 7), topics=("farm",))


@cache
def trained() -> TrainedSpans:
    """Spans of three words on average, and twice as many of them as usual: more questions in each update."""
    policy = replace(SPANS, rate=0.3, span_p=0.35)
    return train_spans(taught(), policy=policy, config=RUN, size=network(taught(), hidden=32))


@cache
def by_place(length: int) -> list[tuple[Comparison, Comparison]]:
    return losses_by_place(trained().model, taught(), length, np.random.default_rng(7), 2000)


def test_a_short_run_lowers_both_losses_and_stays_above_the_floor() -> None:
    config = replace(RUN, max_steps=20, batch_size=64, warmup_steps=5, eval_every=5)
    run = train_spans(taught(), config=config, size=network(taught(), layers=1, hidden=32), held_out=200)
    assert run.curve[-1].loss < run.curve[0].loss
    assert not run.model.training
    for head in (run.mlm, run.sbo):
        assert head.gap > -3 * head.standard_error
    assert run.mlm.floor == run.sbo.floor
    assert run.mlm.loss != run.sbo.loss
    state = torch.get_rng_state()
    again = train_spans(taught(), config=config, size=network(taught(), layers=1, hidden=32), held_out=200)
    assert (again.curve, again.mlm, again.sbo) == (run.curve, run.mlm, run.sbo), "the seed does not decide everything"
    assert torch.equal(torch.get_rng_state(), state)
    rows = losses_by_place(run.model, taught(), 2, np.random.default_rng(0), 50)
    assert [(mlm.questions, sbo.questions) for mlm, sbo in rows] == [(50, 50)] * 2


@pytest.mark.slow
def test_both_heads_come_near_their_floor_and_never_below() -> None:
    """Measured: 0.007 nats above it from the place itself, 0.013 from the edges; the bound is three times that."""
    for head in (trained().mlm, trained().sbo):
        assert -3 * head.standard_error < head.gap < 0.04, head


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_loss_of_each_place_follows_the_exact_curve(length: int) -> None:
    """Measured: at most 0.034 nats above it from the place itself, 0.074 from the edges; the bound is twice that."""
    for place, heads in enumerate(by_place(length), start=1):
        for head in heads:
            assert -3 * head.standard_error < head.gap < 0.15, (place, head)


@pytest.mark.slow
def test_the_words_at_the_edges_of_a_span_are_easier_than_those_in_its_middle() -> None:
    """Exactly, by 0.2 nats in spans of three of this language, and so for both trained heads."""
    first, middle, last = by_place(3)
    for edge in (first, last):
        assert edge[0].floor < middle[0].floor - 0.1
        for trained_edge, trained_middle in zip(edge, middle, strict=True):
            assert trained_edge.loss < trained_middle.loss - 0.1


@pytest.mark.slow
def test_longer_spans_cost_more_per_word() -> None:
    for read in (lambda c: c[0].floor, lambda c: c[0].loss, lambda c: c[1].loss):
        costs = [np.mean([read(heads) for heads in by_place(length)]) for length in (1, 2, 3)]
        assert costs[0] + 0.05 < costs[1] < costs[2] - 0.05
