"""The widgets standing still: each state as a figure and in words."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from mlmkit.inspection import AttentionMaps
from mlmkit.plots import BLUE, GREEN, ORANGE, new_figure, plot_fates, style
from mlmkit.widgets.draws import FATES, Draw
from mlmkit.widgets.html import NAMES, number
from mlmkit.widgets.readings import Guess, Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GUESSES = 3
"""Masked positions in a picture; the words name all."""
ROW, MOST_ROWS = 12, 20
"""Tokens in a row of a picture, and rows."""
MOST_NAMES = 48
"""Tokens that are written along an axis; of a longer sequence every second, or third."""


def _literally(figure: Figure) -> Figure:
    """Draw every text as it stands: two dollar signs in a sentence are no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure


# --- guesses ---------------------------------------------------------------------------------------------------


def words_of_reading(reading: Reading) -> str:
    """The sentence as the model saw it, and a line for each [MASK]."""
    lines = [f"fill_mask_widget: {' '.join(reading.seen)}", *map(_guess_in_words, reading.guesses)]
    if len(reading.losses) > 1:
        lines.append(f"loss of all together: {reading.loss:.2f} nats")
    return "\n".join(lines)


def _guess_in_words(guess: Guess) -> str:
    best = ", ".join(f"{candidate.token} {number(candidate.probability)}" for candidate in guess.best)
    return f"position {guess.position}, {_truth(guess)}; best: {best}"


def _truth(guess: Guess) -> str:
    """What is hidden, and how probable the model finds it."""
    if guess.true is None:
        return "true token not known"
    return f"hidden {guess.true.token}: Pr {number(guess.true.probability)}, loss {guess.loss:.2f} nats"


@style()
def picture_of_reading(reading: Reading) -> Figure | None:
    """Draw the candidates at the first few masked positions as bars; None if nothing is hidden."""
    guesses = reading.guesses[:MOST_GUESSES]
    if not guesses:
        return None
    figure, row = new_figure(columns=len(guesses), width=max(4.5, 3.6 * len(guesses)), height=3.0)
    for axes, guess in zip(row, guesses, strict=True):
        _bars(axes, guess)
    seen = textwrap.fill(" ".join(reading.seen), width=28 * len(guesses) + 20, max_lines=4)
    figure.suptitle(seen, fontsize=10, family="monospace")
    return _literally(figure)


def _bars(axes: Axes, guess: Guess) -> None:
    """Draw one distribution; the true token is marked, and added where it is not among the best."""
    shown = list(guess.best)
    if guess.true is not None and guess.true.id not in [candidate.id for candidate in shown]:
        shown.append(guess.true)
    is_true = [guess.true is not None and candidate.id == guess.true.id for candidate in shown]
    bars = axes.barh(
        range(len(shown)),
        [candidate.probability for candidate in shown],
        color=[GREEN if true else BLUE for true in is_true],
        hatch=["///" if true else "" for true in is_true],
        edgecolor="white",
    )
    axes.bar_label(bars, [number(candidate.probability) for candidate in shown], padding=3, fontsize=9)
    names = [f"{c.token} (true)" if true else c.token for c, true in zip(shown, is_true, strict=True)]
    axes.set_yticks(range(len(shown)), names, family="monospace")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, 1.18), xticks=[0, 0.5, 1], xlabel="probability")
    axes.set_title(f"position {guess.position}\n{_truth(guess)}", fontsize=9)


# --- masks -----------------------------------------------------------------------------------------------------


def words_of_draw(draw: Draw) -> str:
    """The counts beside what is expected."""
    tallies = draw.tallies
    counts = ", ".join(
        f"{NAMES[what]} {tallies[what].drawn} (expected {tallies[what].expected:.1f})" for what in (*FATES, "untouched")
    )
    selected, real = tallies["selected"], len(draw.sentence.ordinary)
    return f"masking_widget: {selected.drawn} of {real} selected (expected {selected.expected:.1f}): {counts}"


def picture_of_draw(draw: Draw) -> Figure:
    """Draw the corrupted sentence as rows of boxes, each in the color of its fate."""
    length = min(len(draw.seen), ROW * MOST_ROWS)
    starts = range(0, length, ROW)
    tokens = [draw.seen[start : min(start + ROW, length)] for start in starts]
    fates = [draw.fates[start : min(start + ROW, length)] for start in starts]
    counts = ", ".join(f"{draw.tallies[fate].drawn} {NAMES[fate]}" for fate in FATES)
    expected = ", ".join(f"{draw.tallies[fate].expected:.1f}" for fate in FATES)
    part = "" if length == len(draw.seen) else f" (the first {length} positions)"
    real = len(draw.sentence.ordinary)
    title = f"{draw.tallies['selected'].drawn} of {real} selected: {counts}; expected {expected}{part}"
    return _literally(plot_fates(tokens, fates, title=title))


# --- attention -------------------------------------------------------------------------------------------------


def words_of_attention(maps: AttentionMaps, layer: int, head: int, asked: int) -> str:
    """Where one token looks most."""
    weights = maps.weights[layer, head, asked]  # (S,)
    most = ", ".join(f"{maps.tokens[k]} ({k}) {weights[k]:.0%}" for k in (-weights).argsort(kind="stable")[:3])
    where = f"layer {layer + 1}, head {head + 1}"
    return f"attention_widget: {where}: {maps.tokens[asked]} (position {asked}) looks at {most}"


@style()
def picture_of_attention(maps: AttentionMaps, layer: int, head: int, asked: int) -> Figure:
    """Draw the pattern of a head, one row framed, and that row as bars."""
    from matplotlib.patches import Rectangle

    weights, S = maps.weights[layer, head], len(maps.tokens)  # (S, S)
    size = min(9.0, max(2.6, 0.26 * S + 1.2))
    figure, (grid, bars) = new_figure(columns=2, width=2 * size, height=size)
    image = grid.imshow(weights, cmap="Blues", vmin=0, vmax=max(weights.max(), 1e-9))
    figure.colorbar(image, ax=grid, shrink=0.8, label="weight (each row sums to 1)")
    grid.add_patch(Rectangle((-0.5, asked - 0.5), S, 1, fill=False, edgecolor=ORANGE, linewidth=2))
    named = range(0, S, math.ceil(S / MOST_NAMES))
    names = [maps.tokens[position] for position in named]
    grid.set_xticks(named, names, rotation=90, family="monospace", fontsize=8)
    grid.set_yticks(named, names, family="monospace", fontsize=8)
    grid.set(xlabel="looked at", ylabel="looks", title=f"layer {layer + 1}, head {head + 1}")
    grid.grid(visible=False)
    bars.barh(range(S), weights[asked], color=BLUE)
    bars.set_yticks(named, names, family="monospace", fontsize=8)
    bars.invert_yaxis()
    bars.grid(axis="y", visible=False)
    bars.set(xlabel="weight", title=f"{maps.tokens[asked]} (position {asked}) looks at")
    return _literally(figure)
