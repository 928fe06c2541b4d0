"""Every picture shows the numbers that went in: lines, bars, boxes, baselines and their labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mlmkit import plots
from mlmkit.evaluation import Baselines
from mlmkit.history import Evaluation, History

SPECIAL = {"[CLS]": "special", "[SEP]": "special"}


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def make_history() -> History:
    return History(
        config={},
        corpus={},
        baselines=Baselines(uniform=8.3, unigram_cross_entropy=6.2, unigram_entropy=6.1, bigram_cross_entropy=5.2),
        evaluations=[Evaluation(s, 10 * s, 0.1 * s, 7 - s / 100, 0.1, 0.69 - s / 1000, 0.5) for s in (0, 100, 200)],
        training=[{"step": s, "mlm": 7.5 - s / 100, "nsp": 0.7, "grad_norm": 1, "lr": 1} for s in (50, 100, 150)],
    )


def labeled(axes: Axes, label: str) -> Line2D:
    return next(line for line in axes.lines if line.get_label() == label)


def drawn(figure: Figure) -> np.ndarray:
    """The pixels (height, width, 3)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def test_history_draws_the_losses_that_were_measured():
    history = make_history()
    left, right = plots.plot_history(history).axes
    for axes, name in [(left, "mlm"), (right, "nsp")]:
        held_out, training = labeled(axes, "held out"), labeled(axes, "training")
        assert list(held_out.get_xdata()) == [0, 100, 200]
        assert list(held_out.get_ydata()) == [getattr(e, f"{name}_loss") for e in history.evaluations]
        assert list(training.get_xdata()) == [50, 100, 150]
        assert list(training.get_ydata()) == [t[name] for t in history.training]
        assert "nats" in axes.get_ylabel()
        assert axes.get_xlabel() == "updates"


def test_history_draws_each_baseline_at_its_value_and_names_it():
    left, right = plots.plot_history(make_history()).axes
    expected = {
        left: [(8.3, "ln V = 8.30"), (6.1, "unigram entropy = 6.10"), (5.2, "bigram table = 5.20")],
        right: [(math.log(2), "ln 2 = 0.69")],
    }
    check_baselines(expected)


def test_history_of_an_exact_language_shows_its_floors():
    history = make_history()
    history.baselines = replace(history.baselines, mlm_floor=1.8125, nsp_floor=0.4)
    left, right = plots.plot_history(history).axes
    check_baselines(
        {
            left: [
                (8.3, "ln V = 8.30"),
                (6.1, "unigram entropy = 6.10"),
                (5.2, "bigram table = 5.20"),
                (1.8125, "floor = 1.812"),
            ],
            right: [(math.log(2), "ln 2 = 0.69"), (0.4, "floor = 0.400")],
        }
    )


def check_baselines(expected: dict[Axes, list[tuple[float, str]]]) -> None:
    for axes, baselines in expected.items():
        across = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]  # shares of the axes' width
        assert [list(line.get_ydata()) for line in across] == [[value, value] for value, _ in baselines]
        assert [(t.xy[1], t.get_text()) for t in axes.texts] == baselines
        low, high = axes.get_ylim()
        assert all(low < value < high for value, _ in baselines), "a baseline lies outside the picture"
        assert len({line.get_linestyle() for line in across}) == len(across), "baselines are told apart by color alone"


def test_history_of_a_run_that_has_just_begun_can_be_drawn():
    history = make_history()
    history.evaluations, history.training = [], []
    assert len(drawn(plots.plot_history(history)))


def test_fates_draws_a_box_for_each_token_in_the_color_of_its_fate():
    tokens = [["[CLS]", "the", "[MASK]", "spoon"], ["[CLS]", "a", "kettle"]]
    fates = [["special", "", "mask", "random"], ["special", "keep", ""]]
    figure = plots.plot_fates(tokens, fates, title="what happened")
    (axes,) = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [text.get_text() for text in axes.texts] == [token for row in tokens for token in row]
    assert axes.get_title() == "what happened"
    flat = [fate for row in fates for fate in row]
    assert len(boxes) == len(flat)
    by_fate = {
        fate: {to_hex(b.get_facecolor()) for b, f in zip(boxes, flat, strict=True) if f == fate} for fate in flat
    }
    assert all(len(colors) == 1 for colors in by_fate.values())
    assert len(set(itertools.chain(*by_fate.values()))) == 5
    assert by_fate["mask"] == {plots.BLUE.lower()}
    hatches = {fate: box.get_hatch() for box, fate in zip(boxes, flat, strict=True)}
    assert hatches["random"] != hatches["keep"], "told apart by color alone"
    for box, text in zip(boxes, axes.texts, strict=True):
        x, y = text.get_position()
        assert box.get_x() < x < box.get_x() + box.get_width()
        assert box.get_y() < y < box.get_y() + box.get_height()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["[MASK]", "random token", "kept", "not selected", "special"]


def test_fates_explains_only_what_is_there():
    figure = plots.plot_fates([["a", "[MASK]"]], [["", "mask"]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["[MASK]", "not selected"]


def test_fates_keeps_every_token_inside_its_box():
    tokens = [["[CLS]", "internationalisation", "of", "##ly", "a", "[MASK]"] * 3]
    figure = plots.plot_fates(tokens, [[""] * 18])
    figure.canvas.draw()
    (axes,) = figure.axes
    for box, text in zip(axes.patches, axes.texts, strict=True):
        # bold and wide letters may touch the rim of their box, not their neighbor's middle
        assert text.get_window_extent().width < 1.3 * box.get_window_extent().width, text.get_text()


def test_fates_with_lengths_that_differ_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        plots.plot_fates([["a", "b"]], [[""]])


def test_distribution_draws_a_bar_for_each_candidate_and_marks_the_true_one():
    tokens, probabilities = ["array", "list", "copy"], [0.5, 0.3, 0.05]
    (axes,) = plots.plot_distribution(tokens, probabilities, true="copy").axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == probabilities
    heights = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    assert heights == sorted(heights, reverse=True), "the best is not on top"
    names = {tick: label.get_text() for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert [names[round(height)] for height in heights] == tokens
    assert [text.get_text() for text in axes.texts] == ["0.500", "0.300", f"0.050   loss {-math.log(0.05):.2f} nats"]
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [c.lower() for c in (plots.BLUE, plots.BLUE, plots.GREEN)]
    assert bars[2].get_hatch() != bars[0].get_hatch(), "told apart by color alone"
    assert axes.get_xlim()[1] > 0.5


def test_distribution_without_a_true_token_shows_no_loss():
    (axes,) = plots.plot_distribution(["a", "b"], [0.9, 0.1]).axes
    assert [text.get_text() for text in axes.texts] == ["0.900", "0.100"]


def test_distribution_takes_a_true_token_of_probability_zero():
    (axes,) = plots.plot_distribution(["a", "b"], [1.0, 0.0], true="b").axes
    assert axes.texts[1].get_text() == "0.000   loss inf nats"


def test_new_figure_has_the_axes_asked_for():
    figure, axes = plots.new_figure(columns=3, width=6, height=2)
    assert len(axes) == len(figure.axes) == 3
    assert tuple(figure.get_size_inches()) == (6, 2)


def test_the_style_ends_with_its_block():
    before = mpl.rcParams["legend.frameon"]
    with plots.style():
        assert mpl.rcParams["legend.frameon"] is False
    assert mpl.rcParams["legend.frameon"] == before


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.plot_history(make_history()),
        lambda: plots.plot_fates([["a", "b"]], [["mask", ""]], title="a title"),
        lambda: plots.plot_distribution(["a", "b"], [0.8, 0.2], true="a"),
    ],
)
def test_pictures_look_the_same_whatever_the_reader_has_set(draw: Callable[[], Figure]):
    usual = drawn(draw())
    assert (usual == 255).all(axis=-1).mean() > 0.4, "the ground is not white"
    assert len(np.unique(usual.reshape(-1, 3), axis=0)) > 20, "nothing is drawn"
    with plt.style.context("dark_background"):
        assert np.array_equal(drawn(draw()), usual)


def test_save_figure_writes_a_png_and_releases_the_figure(tmp_path: Path):
    figure = plots.plot_history(make_history())
    plots.save_figure(figure, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    pixels = plt.imread(tmp_path / "curve.png")
    assert pixels.shape[:2] == (540, 1350)  # 9 × 3.6 inches at 150 dots
    assert not plt.fignum_exists(figure.number)


def test_no_function_shows_a_figure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("show was called"))
    monkeypatch.setattr(Figure, "show", lambda *_: pytest.fail("show was called"))
    plots.plot_history(make_history())
    plots.plot_fates([["a"]], [["mask"]])
    plots.plot_distribution(["a"], [1.0])
    assert mpl.get_backend().lower() == "agg"
