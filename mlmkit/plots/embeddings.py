"""Embeddings: the neighbors of one, the parts of what enters the encoder, many of them in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mlmkit.plots.look import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox, BboxBase

Floats = NDArray[np.float64]


class Nearest(Protocol):
    """What the picture reads of `mlmkit.inspection.Neighbors`."""

    @property
    def token(self) -> str: ...  # noqa: D102

    @property
    def tokens(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def cosines(self) -> Sequence[float]: ...  # noqa: D102

    @property
    def norm(self) -> float: ...  # noqa: D102

    @property
    def norms(self) -> Floats: ...  # noqa: D102


class Parts(Protocol):
    """What the picture reads of `mlmkit.inspection.Entering`: tokens (S,) and three embeddings of each (S, H)."""

    @property
    def tokens(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def token(self) -> Floats: ...  # noqa: D102

    @property
    def position(self) -> Floats: ...  # noqa: D102

    @property
    def segment(self) -> Floats: ...  # noqa: D102


class Flat(Protocol):
    """What the picture reads of `mlmkit.inspection.Projection`."""

    @property
    def tokens(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def coordinates(self) -> Floats: ...  # noqa: D102

    @property
    def explained(self) -> tuple[float, float]: ...  # noqa: D102

    @property
    def groups(self) -> Sequence[str] | None: ...  # noqa: D102


@style()
def plot_neighbors(neighbors: Nearest, before: Nearest | None = None) -> Figure:
    """Draw the nearest neighbors of an embedding, and its length among the lengths of all ordinary tokens.

    Args:
        neighbors: of the trained model.
        before: of the same network with fresh weights, to compare.
    """
    states = [("after training", neighbors, BLUE)]
    if before is not None:
        states.insert(0, ("fresh weights", before, GREY))
    rows = max(len(state.tokens) for _, state, _ in states)
    figure, panels = new_figure(columns=len(states) + 1, width=3.2 * len(states) + 3.6, height=0.26 * rows + 1.6)
    widest = max(max(map(abs, state.cosines)) for _, state, _ in states)
    for axes, (name, state, color) in zip(panels, states, strict=False):
        places = list(range(len(state.tokens)))
        axes.barh(places, state.cosines, color=color)
        axes.set_yticks(places, state.tokens)
        axes.invert_yaxis()
        axes.set(
            title=f"nearest to {state.token}, {name}", xlabel="cosine", xlim=(min(0, *state.cosines), widest * 1.1)
        )
        axes.title.set_fontsize(10)
        axes.grid(axis="y", visible=False)
    lengths = panels[-1]
    bins = np.histogram_bin_edges(np.concatenate([[state.norm, *state.norms] for _, state, _ in states]), 30).tolist()
    for name, state, color in states:
        lengths.hist(state.norms, bins=bins, color=color, alpha=0.6, label=f"ordinary tokens, {name}")
        line = "-" if state is neighbors else ":"
        lengths.axvline(state.norm, color=ORANGE, linestyle=line, label=f"{state.token}, {name}")
    lengths.set(title="length of the embeddings", xlabel="length", ylabel="tokens")
    lengths.title.set_fontsize(10)
    figure.legend(*lengths.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return figure


@style()
def plot_entering(parts: Parts) -> Figure:
    """Draw how long the three embeddings are that are added at each position, before the layer norm."""
    S = len(parts.tokens)
    figure, (axes,) = new_figure(width=min(max(0.42 * S + 1.5, 5.0), 14.0), height=3.4)
    bars = (
        ("token", parts.token, BLUE, ""),
        ("position", parts.position, ORANGE, "///"),
        ("segment", parts.segment, GREEN, "..."),
    )
    for i, (name, vectors, color, hatch) in enumerate(bars):
        lengths = np.linalg.norm(vectors, axis=1)  # (S,)
        axes.bar(np.arange(S) + 0.27 * (i - 1), lengths, 0.25, color=color, hatch=hatch, edgecolor="white", label=name)
    axes.set_xticks(range(S), parts.tokens, rotation=90 if S > 12 else 0, fontsize=9)
    axes.grid(axis="x", visible=False)
    axes.set(title="what is added up at each position", ylabel="length of the vector", xlim=(-0.6, S - 0.4))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@style()
def plot_projection(projection: Flat) -> Figure:
    """Draw words in the plane of their two principal components, with their names; groups by color and marker."""
    figure, (axes,) = new_figure(width=8.0, height=6.0)
    groups = list(projection.groups or [""] * len(projection.tokens))
    names = list(dict.fromkeys(groups))
    colors, markers = (BLUE, ORANGE, GREEN, PURPLE, GREY, "black"), "osD^vP*X<>"
    for i, name in enumerate(names):
        at = np.array([group == name for group in groups])
        x, y = projection.coordinates[at].T
        axes.scatter(x, y, s=26, color=colors[i % len(colors)], marker=markers[i % len(markers)], label=name, zorder=3)
    first, second = projection.explained
    axes.set(xlabel=f"first direction ({first:.0%} of the variance)", ylabel=f"second direction ({second:.0%})")
    axes.margins(0.09)
    if projection.groups is not None:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(names), 6))
    _name(axes, projection.coordinates, projection.tokens)
    return figure


_SIDES = [(6, 0, "left"), (-6, 0, "right"), (0, 8, "center"), (0, -8, "center")]
_SIDES += [(x, y, "left" if x > 0 else "right") for y in (8, -8, 15, -15, 22, -22) for x in (6, -6, 16, -16)]
"""Where a name may stand beside its point, in points, the best places first."""


def _name(axes: Axes, places: Floats, names: Sequence[str]) -> None:
    """Write a name beside each point, where it covers least of the points and of the names before it.

    Greedy: the first free place is taken. A name that stands away from its point is joined to it by a thin line.
    """
    figure = axes.get_figure()
    assert figure is not None
    figure.canvas.draw()  # the layout is settled, so places on the page are known
    taken = [_around(*axes.transData.transform(place)) for place in places]
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    for place, name in zip(places, names, strict=True):
        text = axes.annotate(name, place, (0, 0), textcoords="offset points", va="center", fontsize=8)
        boxes = []
        for x, y, side in _SIDES:
            text.set(position=(x, y), horizontalalignment=side)
            boxes.append(text.get_window_extent())
        hidden = [sum(_common(box, other) for other in taken) + _outside(box, axes.bbox) for box in boxes]
        best = int(np.argmin(hidden))
        x, y, side = _SIDES[best]
        text.remove()
        text = axes.annotate(
            name, place, (x, y), textcoords="offset points", va="center", ha=side, fontsize=8, arrowprops=line
        )
        text.set_in_layout(False)  # or the names would move the axes once more
        taken.append(boxes[best])


def _outside(box: Bbox, frame: BboxBase) -> float:
    """Area of a box outside of a frame."""
    return float(box.width * box.height) - _common(box, frame)


def _around(x: float, y: float) -> Bbox:
    """A small box around a point, in pixels."""
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - 4, y - 4, x + 4, y + 4)


def _common(a: Bbox, b: BboxBase) -> float:
    """Area that two boxes share."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)
