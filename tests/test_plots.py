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
from matplotlib.text import Text

from mlmkit import plots
from mlmkit.evaluation import Baselines
from mlmkit.history import Evaluation, History
from mlmkit.inspection import (
    AttentionMaps,
    Entering,
    Neighbors,
    Probe,
    Projection,
    SentenceRelation,
    WordOrder,
    reliability,
)
from mlmkit.intervals import Share

SPECIAL = {"[CLS]": "special", "[SEP]": "special"}


MAPS = AttentionMaps(
    ("[CLS]", "old", "boat", "[SEP]"),
    (0, 0, 0, 0),
    np.random.default_rng(0).dirichlet(np.ones(4), (2, 3, 4)),
)


def share(value: float) -> Share:
    return Share(value, value - 0.02, value + 0.03, 400)


def probe(value: float) -> Probe:
    return Probe(share(value), share(value + 0.05))


RELATION = SentenceRelation(probe(0.8), probe(0.7), probe(0.51), probe(0.55), probe(0.49), share(0.79), share(0.83))
ORDER = WordOrder(
    (probe(0.52), probe(0.7), probe(0.78)),
    (probe(0.51), probe(0.53), probe(0.54)),
    (probe(0.61), probe(0.6), probe(0.62)),
    share(0.81),
)
NEIGHBORS = Neighbors(
    "[MASK]", ("boat", "old", "[SEP]"), (0.4, 0.2, -0.1), 2.5, np.linspace(1, 3, 30), 1.0, np.ones(30)
)
FRESH = replace(NEIGHBORS, tokens=("net", "gull", "tree"), cosines=(0.1, 0.05, 0.01), norm=0.5, norms=np.ones(30) / 2)
POINTS = Projection(("old", "boat", "net"), np.array([[1.0, 0.5], [-0.5, 0.2], [-0.5, -0.7]]), (0.6, 0.25))
PARTS = Entering(("[CLS]", "[MASK]"), *np.random.default_rng(1).normal(size=(4, 2, 6)))
CALIBRATED = reliability(np.linspace(0.1, 0.8, 400), np.arange(400) % 2 == 0, bins=5)


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
        lambda: plots.plot_attention(MAPS, 0, 0),
        lambda: plots.plot_heads(MAPS),
        lambda: plots.plot_habits(MAPS.habits()),
        lambda: plots.plot_neighbors(NEIGHBORS, FRESH),
        lambda: plots.plot_entering(PARTS),
        lambda: plots.plot_projection(POINTS),
        lambda: plots.plot_sentence_relation({"a model": RELATION}),
        lambda: plots.plot_word_order({"a model": ORDER}),
        lambda: plots.plot_calibration({"a model": CALIBRATED}),
    ],
)
def test_pictures_look_the_same_whatever_the_reader_has_set(draw: Callable[[], Figure]):
    usual = drawn(draw())
    assert (usual[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all(), "the ground is not white"
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


# Looking inside


def test_a_map_is_drawn_as_it_is_with_a_token_for_each_row_and_column():
    axes, bar = plots.plot_attention(MAPS, 1, 2).axes
    np.testing.assert_array_equal(axes.images[0].get_array(), MAPS.weights[1, 2])
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == list(MAPS.tokens)
    entropy = -(MAPS.weights[1, 2] * np.log(MAPS.weights[1, 2])).sum(1).mean()
    assert axes.get_title() == f"layer 1, head 2: entropy {entropy:.2f} of at most {math.log(4):.2f} nats"
    assert (axes.get_ylabel(), axes.get_xlabel(), bar.get_ylabel()) == ("reads", "is read", "share of attention")
    assert axes.images[0].get_clim() == (0, MAPS.weights[1, 2].max())


def test_all_heads_are_drawn_layer_by_layer():
    figure = plots.plot_heads(MAPS)
    assert len(figure.axes) == 6
    for number, axes in enumerate(figure.axes):
        layer, head = divmod(number, 3)
        np.testing.assert_array_equal(axes.images[0].get_array(), MAPS.weights[layer, head])
        assert axes.get_title().startswith(f"head {head}: ")
        assert axes.get_ylabel() == (f"layer {layer}" if head == 0 else "")
    assert "nats" in figure.get_suptitle()


def test_habits_are_a_table_of_heads_with_even_reading_below():
    habits = MAPS.habits()
    (axes,) = plots.plot_habits(habits).axes
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "even"]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == ["[CLS]", "[SEP]", "itself", "previous", "next", "entropy\n(nats)"]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    for row, name in itertools.product(range(6), columns[:-1]):
        assert written[columns.index(name), row] == f"{habits.shares[name].ravel()[row]:.2f}"
    assert [written[5, row] for row in range(7)] == [f"{e:.2f}" for e in [*habits.entropy.ravel(), math.log(4)]]
    assert written[3, 6] == f"{habits.even['previous']:.2f}"
    colors = axes.images[0].get_array()
    np.testing.assert_allclose(colors[:6, 5], habits.entropy.ravel() / math.log(4))
    np.testing.assert_allclose(colors[:6, 0], habits.shares["[CLS]"].ravel())


def test_many_heads_are_colored_without_numbers():
    maps = AttentionMaps(MAPS.tokens, MAPS.token_type_ids, np.full((4, 12, 4, 4), 0.25))
    (axes,) = plots.plot_habits(maps.habits()).axes
    assert not axes.texts
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.0", "1.0", "2.0", "3.0", "even"]


def test_neighbors_are_bars_as_long_as_their_cosine_the_nearest_on_top():
    before, after, lengths = plots.plot_neighbors(NEIGHBORS, FRESH).axes
    for axes, state, name in ((before, FRESH, "fresh weights"), (after, NEIGHBORS, "after training")):
        assert [bar.get_width() for bar in axes.patches] == list(state.cosines)
        assert [label.get_text() for label in axes.get_yticklabels()] == list(state.tokens)
        assert axes.get_ylim()[0] > axes.get_ylim()[1], "the nearest is not on top"
        assert axes.get_title() == f"nearest to [MASK], {name}"
        assert axes.get_xlim()[0] <= min(state.cosines)
    assert [line.get_xdata()[0] for line in lengths.lines] == [FRESH.norm, NEIGHBORS.norm]
    assert len({line.get_linestyle() for line in lengths.lines}) == 2
    assert sum(bar.get_height() for bar in lengths.patches) == 60
    assert len(plots.plot_neighbors(NEIGHBORS).axes) == 2


def test_the_parts_of_what_enters_are_bars_as_long_as_the_vectors():
    figure = plots.plot_entering(PARTS)
    (axes,) = figure.axes
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(3, 2)
    expected = [np.linalg.norm(part, axis=1) for part in (PARTS.token, PARTS.position, PARTS.segment)]
    np.testing.assert_allclose(heights, expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["token", "position", "segment"]
    assert len({bar.get_hatch() for bar in axes.patches}) == 3, "told apart by color alone"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(PARTS.tokens)


def test_a_projection_puts_each_word_at_its_place_with_its_name():
    (axes,) = plots.plot_projection(POINTS).axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), POINTS.coordinates)
    assert {text.get_text(): tuple(text.xy) for text in axes.texts} == {
        token: tuple(place) for token, place in zip(POINTS.tokens, POINTS.coordinates, strict=True)
    }
    assert "60%" in axes.get_xlabel()
    assert "25%" in axes.get_ylabel()


def test_groups_of_words_have_their_own_color_and_marker():
    figure = plots.plot_projection(replace(POINTS, groups=("adjective", "noun", "noun")))
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["adjective", "noun"]
    adjectives, nouns = axes.collections
    np.testing.assert_array_equal(adjectives.get_offsets(), POINTS.coordinates[:1])
    np.testing.assert_array_equal(nouns.get_offsets(), POINTS.coordinates[1:])
    assert to_hex(adjectives.get_facecolor()[0]) != to_hex(nouns.get_facecolor()[0])
    assert len(adjectives.get_paths()[0].vertices) != len(nouns.get_paths()[0].vertices), "told apart by color alone"


def test_names_do_not_cover_each_other_and_stay_inside():
    """Thirty words in a few clouds, as embeddings lie: a naive name on the right of each would cover dozens."""
    rng = np.random.default_rng(3)
    places = rng.choice([-1.0, 0.0, 1.0], (30, 2)) + 0.06 * rng.normal(size=(30, 2))
    figure = plots.plot_projection(Projection(tuple(f"word{i}" for i in range(30)), places, (0.5, 0.3)))
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # of the names without their lines
    covered = sum(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert covered <= 2  # greedy, so not always none
    frame = axes.get_window_extent().padded(3)  # a name may touch the rim
    assert all(frame.x0 < b.x0 and b.x1 < frame.x1 and frame.y0 < b.y0 and b.y1 < frame.y1 for b in boxes)


def intervals(axes: Axes) -> list[tuple[float, float]]:
    """Lower and upper ends of all error bars."""
    segments = [
        segment for bars in axes.containers if hasattr(bars, "has_yerr") for segment in bars[2][0].get_segments()
    ]
    return [(segment[0][1], segment[1][1]) for segment in segments]


def test_probes_of_the_relation_are_bars_with_intervals_between_a_coin_and_a_perfect_reader():
    figure = plots.plot_sentence_relation({"with NSP": RELATION, "without": replace(RELATION, cls=probe(0.6))})
    (axes,) = figure.axes
    rows = ("cls", "mean", "bag", "untrained_cls", "untrained_mean")
    with_nsp = [getattr(RELATION, row).accuracy for row in rows]
    values = [s.value for s in with_nsp]
    assert [bar.get_height() for bar in axes.patches] == [*values, 0.6, *values[1:]]
    for (low, high), expected in zip(intervals(axes), with_nsp, strict=False):
        assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    coin, ceiling = (line for line in axes.lines if list(line.get_xdata()) == [0, 1])
    assert (coin.get_ydata()[0], ceiling.get_ydata()[0]) == (0.5, 0.83)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a coin", "perfect reader = 0.830", "with NSP", "without"]


def test_without_a_known_language_no_perfect_reader_is_drawn():
    for draw, found in ((plots.plot_sentence_relation, RELATION), (plots.plot_word_order, ORDER)):
        figure = draw({"model": replace(found, ceiling=None)})
        assert not any("perfect" in text.get_text() for text in figure.legends[0].get_texts())


def test_probes_of_the_order_are_lines_over_the_layers():
    figure = plots.plot_word_order({"this": ORDER, "that": ORDER})
    assert [axes.get_title() for axes in figure.axes] == ["this", "that"]
    for axes in figure.axes:
        drawn_lines = [list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 3]
        for kind in (ORDER.trained, ORDER.untrained, ORDER.control):
            assert [p.accuracy.value for p in kind] in drawn_lines
        assert [label.get_text() for label in axes.get_xticklabels()] == ["embeddings", "layer 0", "layer 1"]
        ends = [(p.accuracy.low, p.accuracy.high) for kind in (ORDER.trained, ORDER.untrained) for p in kind]
        np.testing.assert_allclose(intervals(axes)[:6], ends)
    deep = replace(ORDER, **{kind: getattr(ORDER, kind) * 3 for kind in ("trained", "untrained", "control")})
    (axes,) = plots.plot_word_order({"deep": deep}).axes
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {90}, "names of many layers cover each other"


def test_calibration_is_drawn_against_the_diagonal():
    figure = plots.plot_calibration({"model": CALIBRATED})
    (axes,) = figure.axes
    diagonal, curve = (line for line in axes.lines if line.get_linestyle() != "None")  # the others are caps
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    np.testing.assert_allclose(list(curve.get_xdata()), [part.confidence for part in CALIBRATED.bins])
    np.testing.assert_allclose(list(curve.get_ydata()), [part.accuracy.value for part in CALIBRATED.bins])
    np.testing.assert_allclose(intervals(axes), [(p.accuracy.low, p.accuracy.high) for p in CALIBRATED.bins])
    label = figure.legends[0].get_texts()[1].get_text()
    assert label == f"model: ECE {CALIBRATED.ece:.3f} (by chance {CALIBRATED.chance:.3f})"
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_ylim()[1] > max(part.accuracy.high for part in CALIBRATED.bins)
