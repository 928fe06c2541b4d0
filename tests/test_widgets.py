"""Widgets without a browser: what they compute and write, what a press or a slider changes, what stands still."""

from __future__ import annotations

import base64
import importlib
import itertools
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from helpers import small_model, tiny_tokenizer, tokenizer_of
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from memorized import SENTENCES, memorized
from scipy.stats import binom

import mlmkit.widgets
from mlmkit.errors import UserError
from mlmkit.evaluation import fill_mask
from mlmkit.inspection import AttentionMaps, attention_maps
from mlmkit.masking import MaskingPolicy
from mlmkit.plots import BLUE, GREEN, ORANGE
from mlmkit.tokenizer import SPECIAL_TOKENS
from mlmkit.widgets import (
    Sentence,
    as_read,
    attention_widget,
    draw_masks,
    fill_mask_widget,
    live,
    masking_widget,
    read_masked,
    rebalance,
)
from mlmkit.widgets.draws import FATES
from mlmkit.widgets.html import LARGEST_GRID, attention_html, draw_html, message, number, reading_html
from mlmkit.widgets.pictures import (
    picture_of_attention,
    picture_of_draw,
    picture_of_reading,
    words_of_attention,
    words_of_draw,
    words_of_reading,
)

BIRD = SENTENCES[0]
EVIL = ("<i>x</i>", "<script>", "&amp;", '"', "a$b", "$")
EVIL_TOKENIZER = tokenizer_of([*SPECIAL_TOKENS, *EVIL])
"""Each of these words is one token."""
LONG = " ".join(["the early bird catches worm"] * 40)  # 200 tokens


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


class Page(HTMLParser):
    """The tags of a piece of HTML, its text, and the text in each class."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.by_class: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.styles += [value or "" for name, value in attrs if name == "style"]
        self._open.append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        for name in self._open[-1].split() if self._open else []:
            self.by_class.setdefault(name, []).append(data)


def part(widget: ipywidgets.Widget, description: str) -> Any:
    """The control with this label."""
    todo = [widget]
    while todo:
        one = todo.pop()
        if getattr(one, "description", None) == description:
            return one
        todo += getattr(one, "children", ())
    raise AssertionError(f"there is no control {description!r}")


def buttons(widget: live.LiveBox) -> list[Any]:
    """The token buttons."""
    boxes = [child for child in widget.children if isinstance(child, ipywidgets.Box)]
    return [*boxes[-1].children]


def answer(widget: live.LiveBox) -> Page:
    return Page(widget.children[-1].value)


def shown(widget: live.LiveBox) -> dict[str, float]:
    """Hidden token → probability, as the reader sees them."""
    page = answer(widget)
    hidden = [line.split("hidden ")[1].split(":")[0] for line in widget.still().text.splitlines() if "hidden" in line]
    return dict(zip(hidden, map(float, page.by_class.get("mlmkit-probability", [])), strict=True))


# --- sentences -------------------------------------------------------------------------------------------------


def test_a_pair_is_laid_out_as_the_model_reads_it():
    _, tokenizer = memorized()
    sentence = as_read(tokenizer, "the early bird", "a fox")
    assert " ".join(sentence.tokens) == "[CLS] the early bird [SEP] a fox [SEP]"
    assert sentence.segments == (0, 0, 0, 0, 0, 1, 1, 1)
    assert sentence.ordinary == [1, 2, 3, 5, 6]
    assert sentence.note == ""
    assert as_read(tokenizer, "the early bird", "  ") == as_read(tokenizer, "the early bird")


def test_special_and_unknown_tokens_cannot_be_hidden():
    _, tokenizer = memorized()
    sentence = as_read(tokenizer, "the zebra [MASK] bird [SEP] xylophone")
    assert " ".join(sentence.tokens) == "[CLS] the [UNK] [MASK] bird [SEP] [UNK] [SEP]"
    assert sentence.ordinary == [1, 4]
    assert sentence.note == "not in this vocabulary: 2 of the words, read as [UNK] and never hidden"


@pytest.mark.parametrize("text", ["", "  \n", "[CLS]"])
def test_no_text_is_a_mistake(text: str):
    with pytest.raises(UserError, match="there is no text: type some words"):
        as_read(memorized()[1], text)


def test_a_text_may_be_as_long_as_the_model_reads_and_no_longer():
    tokenizer = memorized()[1]
    assert len(as_read(tokenizer, "the bird", limit=4).ids) == 4
    with pytest.raises(UserError, match=r"^5 tokens with \[CLS\] and \[SEP\] are too many: at most 4 can be read"):
        as_read(tokenizer, "the early bird", limit=4)


# --- readings --------------------------------------------------------------------------------------------------


def read(text: str, *masked: int, top: int = 5) -> Any:
    model, tokenizer = memorized()
    return read_masked(model, tokenizer, as_read(tokenizer, text), masked, top)


def test_a_reading_is_what_fill_mask_says_about_the_same_masked_text():
    reading = read(BIRD, 2, 6)
    assert " ".join(reading.seen) == "[CLS] the [MASK] bird catches the [MASK] [SEP]"
    filled = fill_mask(*memorized(), "the [MASK] bird catches the [MASK]", top=5)
    for guess, candidates in zip(reading.guesses, filled, strict=True):
        assert [c.id for c in guess.best] == [c.id for c in candidates]
        # one is a softmax in float32, the other in float64
        assert [c.probability for c in guess.best] == pytest.approx([c.probability for c in candidates], rel=1e-5)


def test_the_probability_of_the_true_token_is_the_softmax_at_its_position():
    model, tokenizer = memorized()
    sentence = as_read(tokenizer, BIRD)
    ids = torch.tensor([sentence.ids])
    ids[0, [2, 6]] = tokenizer.mask_id
    with torch.no_grad():
        p = model(ids).mlm_logits[0].softmax(-1)  # (S, V), without naming any position
    for guess in read(BIRD, 6, 2).guesses:
        true = sentence.ids[guess.position]
        assert guess.true.id == true
        assert guess.true.token == sentence.tokens[guess.position]
        assert guess.true.probability == pytest.approx(float(p[guess.position, true]), rel=1e-5)  # float32
        assert guess.loss == pytest.approx(-math.log(guess.true.probability), abs=1e-9)
        assert guess.rank == 1 + int((p[guess.position] > p[guess.position, true]).sum())


def test_the_second_sentence_is_read_as_the_second():
    model, tokenizer = memorized()
    sentence = as_read(tokenizer, "the early bird", "a fox")
    ids = torch.tensor([sentence.ids])
    ids[0, 6] = tokenizer.mask_id
    with torch.no_grad():
        p = model(ids, torch.tensor([sentence.segments])).mlm_logits[0, 6].softmax(-1)  # (V,)
    (guess,) = read_masked(model, tokenizer, sentence, [6]).guesses
    assert guess.true.probability == pytest.approx(float(p[sentence.ids[6]]), rel=1e-5)  # float32


def test_with_several_masks_the_loss_is_a_sum_of_logs():
    reading = read(BIRD, 2, 4, 6)
    product = math.prod(guess.true.probability for guess in reading.guesses)
    assert reading.loss == pytest.approx(-math.log(product))
    assert len(reading.losses) == 3
    assert read(BIRD).loss == 0


def test_the_higher_the_probability_the_lower_the_loss():
    guesses = [guess for text in SENTENCES for guess in read(text, *range(1, len(text.split()) + 1)).guesses]
    by_probability = sorted(guesses, key=lambda guess: guess.true.probability)
    losses = [guess.loss for guess in by_probability]
    assert losses == sorted(losses, reverse=True)


def test_what_was_learned_by_heart_is_found():
    guesses = [read(text, i).guesses[0] for text in SENTENCES for i in range(1, len(text.split()) + 1)]
    assert len([g for g in guesses if g.rank == 1]) > 0.8 * len(guesses)  # measured 0.97; luck would find 1 in 25


def test_hiding_a_second_token_changes_what_is_said_about_the_first():
    alone, together = read(BIRD, 2).guesses[0], read(BIRD, 2, 3).guesses[0]
    assert alone.position == together.position == 2
    assert alone.true.probability != pytest.approx(together.true.probability, rel=1e-3)


def test_a_mask_that_was_typed_has_no_true_token_and_no_loss():
    known, asked = read("the early [MASK] catches", 2).guesses
    assert (asked.position, asked.true, asked.rank, asked.loss) == (3, None, None, None)
    assert known.true.token == "early"
    assert read("the early [MASK] catches", 2).loss == known.loss


def test_all_candidates_sum_to_one_and_are_in_order():
    tokenizer = memorized()[1]
    best = read(BIRD, 3, top=1000).guesses[0].best
    assert len(best) == tokenizer.vocab_size
    assert sum(c.probability for c in best) == pytest.approx(1)
    assert [c.probability for c in best] == sorted((c.probability for c in best), reverse=True)


def test_a_model_is_read_without_dropout_and_left_as_it_was():
    tokenizer = memorized()[1]
    model = small_model(vocab_size=tokenizer.vocab_size, hidden_dropout_prob=0.5).train()
    once, again = (read_masked(model, tokenizer, as_read(tokenizer, BIRD), [2]) for _ in range(2))
    assert once == again
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_only_ordinary_tokens_can_be_asked_for():
    with pytest.raises(UserError, match=r"position 0 cannot be hidden; these can: \[1, 2\]"):
        read("early bird", 0)


def test_model_and_tokenizer_must_belong_together():
    tokenizer = memorized()[1]
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, the model reads 10: load both from one folder"):
        read_masked(small_model(vocab_size=10), tokenizer, as_read(tokenizer, BIRD), [2])


# --- draws -----------------------------------------------------------------------------------------------------


def long_sentence() -> Sentence:
    return as_read(memorized()[1], LONG)


def test_of_200_tokens_30_are_selected_24_3_and_3():
    tokenizer = memorized()[1]
    draw = draw_masks(tokenizer, long_sentence(), MaskingPolicy(), seed=0)
    selected, untouched = draw.tallies["selected"], draw.tallies["untouched"]
    assert (selected.drawn, selected.low, selected.high) == (30, 30, 30)
    assert selected.expected == pytest.approx(30)
    assert (untouched.drawn, untouched.expected) == (170, pytest.approx(170))
    assert sum(draw.tallies[fate].drawn for fate in FATES) == 30
    lucky = 3 / len(tokenizer.ordinary_ids)  # random tokens that are the true ones, seen as kept
    wanted = {"mask": 24, "random": 3 - lucky, "keep": 3 + lucky}
    assert {fate: draw.tallies[fate].expected for fate in FATES} == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_every_fate_is_what_it_is_called(unit: Any, seed: int):
    policy = MaskingPolicy(rate=0.6, mask=0.4, random=0.3, keep=0.3, unit=unit)
    draw = draw_masks(memorized()[1], long_sentence(), policy, seed)
    assert set(draw.fates) == {"", "special", *FATES}
    for true, seen, fate in zip(draw.sentence.tokens, draw.seen, draw.fates, strict=True):
        if fate == "mask":
            assert (seen, true in SPECIAL_TOKENS) == ("[MASK]", False)
        elif fate == "random":
            assert seen != true
            assert seen not in SPECIAL_TOKENS
        else:
            assert seen == true
        assert (fate == "special") == (true in SPECIAL_TOKENS)
    drawn = {what: tally.drawn for what, tally in draw.tallies.items()}
    assert drawn["selected"] == sum(drawn[fate] for fate in FATES)
    assert drawn["selected"] + drawn["untouched"] == 200


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_the_expected_counts_are_the_mean_of_many_draws(unit: Any):
    tokenizer, sentence = tokenizer_of([*SPECIAL_TOKENS, *"abcd"]), "a b c d " * 15
    policy = MaskingPolicy(rate=0.3, mask=0.5, random=0.4, keep=0.1, unit=unit)
    draws = [draw_masks(tokenizer, as_read(tokenizer, sentence), policy, 1, k, rehearsals=1) for k in range(400)]
    for what, tally in draws[0].tallies.items():
        counts = np.array([draw.tallies[what].drawn for draw in draws])
        error = counts.std() / len(counts) ** 0.5
        assert abs(counts.mean() - tally.expected) <= 4.5 * error + 1e-9, what  # 15 checks: one in 10,000 fails


def test_the_usual_range_of_masks_is_that_of_the_binomial_law():
    tally = draw_masks(memorized()[1], long_sentence(), MaskingPolicy(), 3, rehearsals=2000).tallies["mask"]
    low, high = binom.ppf([0.025, 0.975], 30, 0.8)  # 30 selected, each [MASK] with probability 0.8
    assert abs(tally.low - low) <= 1  # quantiles of 2,000 draws may miss by one
    assert abs(tally.high - high) <= 1


def test_a_draw_follows_from_seed_and_number_alone():
    tokenizer, sentence = memorized()[1], long_sentence()
    draws = [draw_masks(tokenizer, sentence, MaskingPolicy(), s, n) for s, n in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert draws[0] == draws[1]
    assert len({draw.fates for draw in draws}) == 3


def test_what_is_usual_does_not_change_from_draw_to_draw():
    tokenizer, sentence = memorized()[1], long_sentence()
    few = [
        draw_masks(tokenizer, sentence, MaskingPolicy(), seed, n, rehearsals=10) for seed in (0, 1) for n in range(6)
    ]
    ranges = [tuple((tally.low, tally.high) for tally in draw.tallies.values()) for draw in few]
    assert len(set(ranges[:6])) == 1
    assert ranges[0] != ranges[6], "with ten rehearsals luck would show"


def test_raising_the_rate_keeps_what_was_selected():
    tokenizer, sentence = memorized()[1], long_sentence()
    chosen = set[int]()
    for rate in (0.1, 0.15, 0.3, 1.0):
        draw = draw_masks(tokenizer, sentence, MaskingPolicy(rate=rate), seed=2)
        now = {i for i, fate in enumerate(draw.fates) if fate in FATES}
        assert chosen < now
        chosen = now
    assert len(chosen) == 200


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_are_selected_whole(unit: Any):
    tokenizer = tiny_tokenizer()
    sentence = as_read(tokenizer, "Tremulo stabade kizen napori vistatre lozen muba. " * 6)
    pieces = [i for i, token in enumerate(sentence.tokens) if token.startswith("##")]
    assert len(pieces) > 20
    draw = draw_masks(tokenizer, sentence, MaskingPolicy(rate=0.5, unit=unit), seed=0)
    selected = [fate in FATES for fate in draw.fates]
    assert all(selected[i] == selected[i - 1] for i in pieces)
    assert any(selected[i] for i in pieces)


def test_a_span_shares_its_fate():
    policy = MaskingPolicy(rate=1, mask=0.5, random=0, keep=0.5)
    changes = {}
    for unit in ("token", "span"):
        fates = draw_masks(memorized()[1], long_sentence(), replace(policy, unit=unit), seed=0).fates[1:-1]
        changes[unit] = sum(a != b for a, b in itertools.pairwise(fates))
    # tokens: 100 changes expected, deviation 7; spans are 4.5 words long on average, so about 22
    assert changes["token"] > 70
    assert changes["span"] < 45


@given(
    st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda ab: (min(ab), max(ab) - min(ab), 100 - max(ab))),
    st.integers(0, 2),
    st.integers(0, 100),
)
def test_the_three_shares_always_sum_to_100(shares: tuple[int, int, int], changed: int, value: int):
    after = rebalance(shares, changed, value)
    assert sum(after) == 100
    assert min(after) >= 0
    assert after[changed] == value
    a, b = (i for i in range(3) if i != changed)
    # the two others keep their ratio up to rounding to whole percents
    assert abs(after[a] * shares[b] - after[b] * shares[a]) <= max(shares[a] + shares[b], 0)


def test_two_empty_shares_take_equally():
    assert rebalance((100, 0, 0), 0, 40) == (40, 30, 30)


# --- what is written -------------------------------------------------------------------------------------------


def test_tokens_are_text_and_never_tags():
    text = " ".join(EVIL)
    model = small_model(vocab_size=EVIL_TOKENIZER.vocab_size)
    sentence = as_read(EVIL_TOKENIZER, text)
    reading = read_masked(model, EVIL_TOKENIZER, sentence, sentence.ordinary[:3], top=20)
    draw = draw_masks(EVIL_TOKENIZER, sentence, MaskingPolicy(rate=1, mask=0.3, random=0.3, keep=0.4), 0)
    weights = np.full((len(sentence.ids), len(sentence.ids)), 0.125).tolist()
    for source in (reading_html(reading), draw_html(draw), attention_html(sentence.tokens, weights, 1)):
        page = Page(source)
        assert not {"i", "script"} & set(page.tags)
        assert all(token in page.text for token in EVIL[:3])


def test_a_message_is_text_too():
    page = Page(message("<script> is unknown"))
    assert (page.tags, page.text) == (["div"], "<script> is unknown")
    assert message("") == ""


def test_bars_are_as_long_as_probabilities():
    reading = read(BIRD, 2, 5)
    page = Page(reading_html(reading))
    p = [c.probability for guess in reading.guesses for c in guess.best]
    widths = [float(style.split("width:")[1].rstrip("%")) / 100 for style in page.styles]
    assert widths == pytest.approx(p, abs=6e-5)  # written with two digits after the point, in percent
    assert [float(x) for x in page.by_class["mlmkit-probability"]] == pytest.approx(
        [guess.true.probability for guess in reading.guesses], abs=6e-4
    )
    assert [float(x) for x in page.by_class["mlmkit-loss"]] == pytest.approx(reading.losses, abs=6e-3)
    assert float(page.by_class["mlmkit-total"][0]) == pytest.approx(reading.loss, abs=6e-3)
    assert f"{reading.loss / 2:.2f} per hidden token" in page.text


def test_the_true_token_has_a_bar_even_where_it_is_improbable():
    model, tokenizer = memorized()
    reading = read_masked(model, tokenizer, as_read(tokenizer, "the early bird catches the fence"), [6], top=2)
    (guess,) = reading.guesses
    assert guess.rank is not None
    assert guess.rank > 2
    page = Page(reading_html(reading))
    assert page.text.count("✓") == 1
    assert "fence ✓" in page.text
    assert len(page.styles) == 3
    assert Page(reading_html(read(BIRD, 6, top=2))).text.count("✓") == 1


def test_small_probabilities_are_not_written_as_zero():
    assert [number(p) for p in (1.0, 0.93149, 0.001, 0.00099, 1.234e-7)] == [
        "1.000",
        "0.931",
        "0.001",
        "9.9e-04",
        "1.2e-07",
    ]


def test_the_table_of_counts_shows_the_tallies():
    draw = draw_masks(memorized()[1], long_sentence(), MaskingPolicy(), seed=5)
    page = Page(draw_html(draw))
    assert page.by_class["mlmkit-drawn"] == [
        str(draw.tallies[what].drawn) for what in (*FATES, "selected", "untouched")
    ]
    assert page.by_class["mlmkit-expected"] == ["24.0", "2.9", "3.1", "30.0", "170.0"]
    for tally in draw.tallies.values():
        assert f"{tally.low} to {tally.high}" in page.text
    assert page.text.count("M · ") == draw.tallies["mask"].drawn
    assert page.text.count("R · ") == draw.tallies["random"].drawn
    assert len(page.by_class["mlmkit-keep"]) == draw.tallies["keep"].drawn
    assert "the loss is taken on these" in page.text


def test_attention_is_written_in_percent_and_darker_where_it_is_higher():
    source = attention_html(["a", "b"], [[1.0, 0.0], [0.25, 0.75]], asked=1)
    page = Page(source)
    assert page.by_class["mlmkit-chip"] == ["a", "b"]
    assert "25%" in page.text
    assert "75%" in page.text
    assert "100%" not in page.text, "only the row that was asked for is spelled out"
    assert "<tr><th>a</th>" in source
    assert '<tr class="mlmkit-asked"><th>b</th>' in source
    alphas = [float(style.split(",")[-1].rstrip(")")) for style in page.styles]
    assert alphas[:2] == alphas[4:] == sorted(alphas[:2])
    assert alphas[2] > max(alphas[:2])
    assert alphas[3] == 0


def test_a_large_pattern_is_not_drawn_cell_by_cell():
    for size, grid in ((LARGEST_GRID, True), (LARGEST_GRID + 1, False)):
        page = Page(attention_html(["x"] * size, np.full((size, size), 1 / size).tolist(), asked=0))
        assert ("table" in page.tags) == grid
        assert ("drawn for up to 64 tokens" in page.text) != grid
        assert len(page.by_class["mlmkit-chip"]) == size, "the row that was asked for is always there"


# --- pictures --------------------------------------------------------------------------------------------------


def test_the_picture_of_a_reading_has_its_bars():
    reading = read(BIRD, 1, 2, 3, 4)
    figure = picture_of_reading(reading)
    assert len(figure.axes) == 3, "more do not fit; the words name all"
    for axes, guess in zip(figure.axes, reading.guesses, strict=False):
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([c.probability for c in guess.best])
        colors = [to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
        hatches = [bar.get_hatch() for bar in axes.patches]
        true = [c.id == guess.true.id for c in guess.best]
        assert colors == [GREEN if t else BLUE for t in true]
        assert [bool(hatch) for hatch in hatches] == true
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == [c.token + (" (true)" if t else "") for c, t in zip(guess.best, true, strict=True)]
    assert figure.get_suptitle() == "[CLS] [MASK] [MASK] [MASK] [MASK] the worm [SEP]"
    assert picture_of_reading(read(BIRD)) is None


def test_the_picture_adds_the_true_token_where_it_is_not_among_the_best():
    (axes,) = picture_of_reading(read("the early bird catches the fence", 6, top=2)).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 3
    assert labels[-1] == "fence (true)"


def test_the_words_of_a_reading_name_every_mask():
    first, *lines = words_of_reading(read("the [MASK] bird catches the worm", 6)).splitlines()
    assert first == "fill_mask_widget: [CLS] the [MASK] bird catches the [MASK] [SEP]"
    assert lines[0].startswith("position 2, true token not known; best: ")
    assert lines[1].startswith("position 6, hidden worm: Pr 0.")
    assert len(lines) == 2
    assert "loss of all together" in words_of_reading(read(BIRD, 1, 2))


def test_the_picture_of_a_draw_has_a_box_for_each_token_in_the_color_of_its_fate():
    draw = draw_masks(memorized()[1], long_sentence(), MaskingPolicy(rate=0.5), seed=0)
    (axes,) = picture_of_draw(draw).axes
    boxes = [to_hex(box.get_facecolor()).upper() for box in axes.patches if isinstance(box, Rectangle)]
    colors = {"mask": BLUE, "random": ORANGE, "keep": GREEN, "": "#F2F2F2", "special": "#D0D0D0"}
    assert boxes == [colors[fate] for fate in draw.fates]
    assert [text.get_text() for text in axes.texts] == list(draw.seen)
    assert axes.get_title().startswith("100 of 200 selected: ")
    assert axes.get_title().endswith("; expected 80.0, 9.6, 10.4")


def test_a_picture_of_a_very_long_text_says_what_it_leaves_out():
    tokenizer = memorized()[1]
    draw = draw_masks(tokenizer, as_read(tokenizer, LONG + " " + LONG), MaskingPolicy(), seed=0)
    (axes,) = picture_of_draw(draw).axes
    assert len(axes.texts) == 240
    assert "of 400 selected" in axes.get_title()
    assert axes.get_title().endswith("(the first 240 positions)")


def test_the_picture_of_a_head_shows_its_weights_and_frames_the_row():
    model, tokenizer = memorized()
    maps = attention_maps(model, tokenizer, BIRD)
    grid, bars, _ = picture_of_attention(maps, 1, 2, asked=3).axes
    assert grid.get_title() == "layer 2, head 3"
    np.testing.assert_allclose(grid.images[0].get_array(), maps.weights[1, 2])
    (frame,) = grid.patches
    assert frame.get_bbox().bounds == (-0.5, 2.5, len(maps.tokens), 1)
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], maps.weights[1, 2, 3])


def test_the_words_of_a_head_name_what_is_looked_at_most():
    maps = AttentionMaps(("a", "b", "c", "d"), (0,) * 4, np.tile([0.3, 0.1, 0.4, 0.2], (1, 1, 4, 1)))
    words = words_of_attention(maps, 0, 0, asked=1)
    assert words == "attention_widget: layer 1, head 1: b (position 1) looks at c (2) 40%, a (0) 30%, d (3) 20%"


def test_names_along_an_axis_do_not_overlap_however_long_the_sequence():
    S = 100
    tokens = tuple(f"t{i}" for i in range(S))
    maps = AttentionMaps(tokens, (0,) * S, np.full((1, 1, S, S), 1 / S))
    grid, bars, _ = picture_of_attention(maps, 0, 0, asked=5).axes
    for axis in (grid.xaxis, grid.yaxis, bars.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == list(tokens[::3])
        assert list(axis.get_ticklocs()) == [*range(0, S, 3)]


def test_dollar_signs_and_strange_scripts_are_drawn_as_they_stand():
    words = [*EVIL, "水", "ქა"]
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, *words])
    model = small_model(vocab_size=tokenizer.vocab_size)
    text = "$ a$b 水 ქა $ $"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for widget in (fill_mask_widget(model, tokenizer, text), attention_widget(model, tokenizer, text)):
            assert live._png(widget.still().figure)
        assert live._png(masking_widget(tokenizer, text).still().figure)


# --- the widgets -----------------------------------------------------------------------------------------------


def test_a_sentence_begins_with_its_middle_token_hidden():
    widget = fill_mask_widget(*memorized(), BIRD)
    assert [b.description for b in buttons(widget)] == "[CLS] the early bird [MASK] the worm [SEP]".split()
    assert [b.disabled for b in buttons(widget)] == [True, *[False] * 6, True]
    assert [b.value for b in buttons(widget)].index(True) == 4
    assert buttons(widget)[4].tooltip == "position 4: catches"
    assert shown(widget) == pytest.approx({"catches": read(BIRD, 4).guesses[0].true.probability}, abs=6e-4)


def test_pressing_tokens_hides_them_and_pressing_again_shows_them():
    widget = fill_mask_widget(*memorized(), BIRD)
    before = shown(widget)
    buttons(widget)[6].value = True
    both = shown(widget)
    wanted = {g.true.token: g.true.probability for g in read(BIRD, 4, 6).guesses}
    assert both == pytest.approx(wanted, abs=6e-4)
    assert before["catches"] != both["catches"]
    buttons(widget)[6].value = False
    assert shown(widget) == before
    buttons(widget)[4].value = False
    assert shown(widget) == {}
    assert "Press a token to hide it." in answer(widget).text
    assert widget.still().figure is None


def test_pressing_a_token_does_not_cut_the_text_again(monkeypatch: pytest.MonkeyPatch):
    model, tokenizer = memorized()
    widget = fill_mask_widget(model, tokenizer, BIRD)
    monkeypatch.setattr(tokenizer, "pair_ids", lambda *_: pytest.fail("the text was cut again"), raising=False)
    buttons(widget)[2].value = True
    assert [b.description for b in buttons(widget)].count("[MASK]") == 2


def test_another_sentence_has_other_tokens_and_forgets_what_was_pressed():
    widget = fill_mask_widget(*memorized(), BIRD)
    buttons(widget)[1].value = True
    part(widget, "sentence").value = "the lazy dog sleeps on the zebra"
    assert [b.description for b in buttons(widget)] == "[CLS] the lazy dog [MASK] on the [UNK] [SEP]".split()
    assert [*shown(widget)] == ["sleeps"]
    assert "not in this vocabulary: 1 of the words" in answer(widget).text
    part(widget, "sentence").value = "the lazy [MASK] sleeps"
    assert [b.value for b in buttons(widget)] == [False] * 6
    assert [b.disabled for b in buttons(widget)] == [True, False, False, True, False, True]
    assert "the true token is not known" in answer(widget).text
    part(widget, "sentence").value = "zebra"
    assert "Press a token" in answer(widget).text, "there is nothing to hide"


@pytest.mark.parametrize(("text", "says"), [("", "there is no text"), (LONG, "202 tokens"), ("the " * 31, "33 tokens")])
def test_what_cannot_be_read_is_said_in_the_widget(text: str, says: str):
    model, tokenizer = memorized()  # reads 32 tokens
    for widget, box in (
        (fill_mask_widget(model, tokenizer, BIRD), "sentence"),
        (attention_widget(model, tokenizer, BIRD), "sentence A"),
    ):
        part(widget, box).value = text
        assert says in answer(widget).text
        assert buttons(widget) == []
        assert says in widget.still().text
        assert widget.still().figure is None
        part(widget, box).value = "the " * 30
        assert len(buttons(widget)) == 32
        assert says not in answer(widget).text


def test_a_model_that_does_not_belong_to_the_tokenizer_is_named_in_the_widget():
    widget = fill_mask_widget(small_model(vocab_size=10), memorized()[1], BIRD)
    assert "load both from one folder" in answer(widget).text
    assert buttons(widget) == []
    assert "load both from one folder" in widget.still().text


def drawn(widget: live.LiveBox) -> list[int]:
    return [int(count) for count in answer(widget).by_class["mlmkit-drawn"]]


def test_the_sliders_of_the_masking_widget_set_the_policy():
    tokenizer = memorized()[1]
    widget = masking_widget(tokenizer, LONG, seed=3)
    assert widget.still().text == words_of_draw(draw_masks(tokenizer, long_sentence(), MaskingPolicy(), 3))
    part(widget, "select %").value = 40
    part(widget, "[MASK] %").value = 50
    assert (part(widget, "random %").value, part(widget, "keep %").value) == (25, 25)
    part(widget, "unit").value = "span"
    policy = MaskingPolicy(rate=0.4, mask=0.5, random=0.25, keep=0.25, unit="span")
    draw = draw_masks(tokenizer, long_sentence(), policy, 3)
    assert drawn(widget) == [draw.tallies[what].drawn for what in (*FATES, "selected", "untouched")]
    part(widget, "draw again").click()
    again = draw_masks(tokenizer, long_sentence(), policy, 3, number=1)
    assert widget.still().text == words_of_draw(again)
    assert again.fates != draw.fates


def test_the_shares_on_the_sliders_sum_to_100_after_every_move():
    widget = masking_widget(memorized()[1], BIRD)
    sliders = [part(widget, f"{name} %") for name in ("[MASK]", "random", "keep")]
    for place, value in [(0, 100), (0, 0), (1, 100), (2, 37), (0, 80)]:
        sliders[place].value = value
        assert sum(slider.value for slider in sliders) == 100
        assert sliders[place].value == value


def test_another_text_can_be_masked_and_an_empty_one_is_named():
    widget = masking_widget(memorized()[1], "")
    assert "there is no text" in answer(widget).text
    assert widget.still() == live.Still("masking_widget: there is no text: type some words")
    part(widget, "text").value = BIRD + " zebra"
    assert "of 6 tokens that may be selected" in answer(widget).text
    assert "not in this vocabulary: 1 of the words" in answer(widget).text
    part(widget, "text").value = LONG * 3
    assert "at most 512 can be read" in answer(widget).text
    assert "at most 512 can be read" in widget.still().text
    assert widget.still().figure is None, "not that of the text before"


def test_the_attention_widget_writes_the_row_of_the_chosen_token_and_head():
    model, tokenizer = memorized()
    other = SENTENCES[1]
    weights = attention_maps(model, tokenizer, BIRD, other).weights
    widget = attention_widget(model, tokenizer, BIRD, other)

    def check(layer: int, head: int, asked: int) -> None:
        percents = [chip.split("%")[0] for chip in answer(widget).text.split("looks at")[1].split("%")][:-1]
        wanted = [f"{w:.0%}".rstrip("%") for w in weights[layer, head, asked]]
        assert all(p.endswith(w) for p, w in zip(percents, wanted, strict=True))
        active = [i for i, b in enumerate(buttons(widget)) if "mod-active" in b._dom_classes]
        assert active == [asked]
        assert f"layer {layer + 1}, head {head + 1}" in widget.still().text

    check(0, 0, 1)
    part(widget, "head").value = 2
    part(widget, "layer").value = 1
    check(1, 2, 1)
    buttons(widget)[0].click()
    check(1, 2, 0)
    buttons(widget)[9].click()  # an equal token, in B
    check(1, 2, 9)
    part(widget, "sentence B").value = ""
    assert len(buttons(widget)) == 8
    weights = attention_maps(model, tokenizer, BIRD).weights
    check(1, 2, 1)
    part(widget, "sentence A").value = "zebra"
    assert "not in this vocabulary: 1" in answer(widget).text
    weights = attention_maps(model, tokenizer, "zebra").weights
    check(1, 2, 0)


# --- standing still --------------------------------------------------------------------------------------------


def displayed(widget: live.LiveBox, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    monkeypatch.setattr(live, "display", lambda data, **options: outputs.append(data))
    widget._ipython_display_()
    return outputs


def test_a_cell_shows_the_widget_and_a_picture_of_it(monkeypatch: pytest.MonkeyPatch):
    widget = fill_mask_widget(*memorized(), BIRD)
    view, picture = displayed(widget, monkeypatch)
    assert view[live.VIEW]["model_id"] == widget.model_id
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG")
    assert picture["text/plain"] == words_of_reading(read(BIRD, 4))
    assert plt.get_fignums() == [], "a figure that stays open is drawn a second time"
    assert len({id(b) for b in widget.children}) == 4


def test_the_words_of_a_cell_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch):
    model, tokenizer = memorized()
    makers = (
        lambda: fill_mask_widget(model, tokenizer, BIRD),
        lambda: masking_widget(tokenizer, BIRD),
        lambda: attention_widget(model, tokenizer, BIRD),
    )
    for make in makers:
        once, again = ([output["text/plain"] for output in displayed(make(), monkeypatch)] for _ in range(2))
        assert once == again
        assert len(once) == 2


def test_where_there_is_nothing_to_draw_words_are_shown(monkeypatch: pytest.MonkeyPatch):
    _, words = displayed(fill_mask_widget(*memorized(), ""), monkeypatch)
    assert words == {"text/plain": "fill_mask_widget: there is no text: type some words"}


def test_without_ipywidgets_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'mlmkit\[course\]'"):
        importlib.reload(mlmkit.widgets)
