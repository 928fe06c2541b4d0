"""Attention as heat maps: one head, all heads, and what they do on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mlmkit.plots.look import new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
COLORS = "Blues"
NAMED = 36
"""Heads up to which each is named and its numbers are written; more are only colored."""


class Maps(Protocol):
    """What the pictures read of `mlmkit.inspection.AttentionMaps`: tokens (S,), weights (L, A, S, S)."""

    @property
    def tokens(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def weights(self) -> Floats: ...  # noqa: D102


class Measured(Protocol):
    """What the picture reads of `mlmkit.inspection.Habits`: numbers of each head (L, A), and if it read all alike."""

    @property
    def entropy(self) -> Floats: ...  # noqa: D102

    @property
    def even_entropy(self) -> float: ...  # noqa: D102

    @property
    def shares(self) -> Mapping[str, Floats]: ...  # noqa: D102

    @property
    def even(self) -> Mapping[str, float]: ...  # noqa: D102


def _entropy(weights: Floats) -> float:
    """Mean entropy of the rows of a map (S, S), in nats."""
    return float(-(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(-1).mean())


@style()
def plot_attention(maps: Maps, layer: int, head: int) -> Figure:
    """Draw one head: row q shows how the token at q spreads its attention over all tokens.

    It shows what was mixed, not what mattered for an answer (Jain & Wallace 2019).

    Args:
        maps: of one sequence.
        layer, head: counted from 0.
    """
    weights = maps.weights[layer, head]  # (S, S)
    S = len(maps.tokens)
    side = min(max(0.2 * S, 2.2), 11.0)
    figure, (axes,) = new_figure(width=side + 1.9, height=side + 1.0)
    size = min(9.0, 72 * side / S / 1.3)  # points: a row must hold its name
    image = axes.imshow(weights, cmap=COLORS, vmin=0, vmax=max(weights.max(), 1e-9))
    axes.set_xticks(range(S), maps.tokens, rotation=90, fontsize=size)
    axes.set_yticks(range(S), maps.tokens, fontsize=size)
    axes.grid(visible=False)
    axes.set(title=f"layer {layer}, head {head}: entropy {_entropy(weights):.2f} of at most {np.log(S):.2f} nats")
    axes.set(xlabel="is read", ylabel="reads")
    figure.colorbar(image, ax=axes, label="share of attention", shrink=0.8)
    return figure


@style()
def plot_heads(maps: Maps) -> Figure:
    """Draw all heads of one sequence as small maps: layers from top to bottom, heads from left to right.

    Each map has its own scale, from white for 0 to dark for its largest weight. Rows read, columns are read.
    """
    from matplotlib import pyplot as plt

    L, A = maps.weights.shape[:2]
    figure, grid = plt.subplots(L, A, figsize=(1.35 * A + 0.6, 1.6 * L + 0.5), layout="constrained", squeeze=False)
    for layer, row in enumerate(grid):
        for head, axes in enumerate(row):
            weights = maps.weights[layer, head]
            axes.imshow(weights, cmap=COLORS, vmin=0, vmax=max(weights.max(), 1e-9), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.set_title(f"head {head}: {_entropy(weights):.2f}", fontsize=8)
            for spine in axes.spines.values():
                spine.set(visible=True, color="#BBBBBB")
        row[0].set_ylabel(f"layer {layer}", fontsize=9)
    figure.suptitle("attention of each head, with its mean entropy in nats", fontsize=10)
    return figure


@style()
def plot_habits(habits: Measured) -> Figure:
    """Draw what each head does on average as a table: where its attention goes, and its entropy.

    A cell is dark where all attention goes there; in the last column, where all positions are read alike. The last
    row says what a head would show that reads all alike.
    """
    L, A = habits.entropy.shape
    columns = [values.ravel() for values in habits.shares.values()] + [habits.entropy.ravel()]
    even = [*(habits.even[name] for name in habits.shares), habits.even_entropy]
    table = np.vstack([np.stack(columns, axis=1), even])  # (L·A + 1, 6)
    colors = table / [*([1.0] * len(habits.shares)), max(habits.even_entropy, 1e-9)]
    few = L * A <= NAMED
    figure, (axes,) = new_figure(width=6.4, height=min(0.27 * len(table), 9.0) + 1.0)
    axes.imshow(colors, cmap=COLORS, vmin=0, vmax=1, aspect="auto")
    if few:
        for row, column in np.ndindex(table.shape):
            ink = "white" if colors[row, column] > 0.6 else "black"
            axes.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", fontsize=8, color=ink)
    rows = [f"{layer}.{head}" for layer in range(L) for head in range(A)]
    step = 1 if few else A
    axes.set_yticks([*range(0, L * A, step), L * A], [*rows[::step], "even"], fontsize=8)
    axes.set_xticks(range(table.shape[1]), [*habits.shares, "entropy\n(nats)"], fontsize=9)
    axes.xaxis.tick_top()
    axes.grid(visible=False)
    axes.axhline(L * A - 0.5, color="black", linewidth=0.8)  # above the row of even reading
    axes.axvline(len(habits.shares) - 0.5, color="black", linewidth=0.8)  # shares on the left, nats on the right
    axes.set(ylabel="layer.head", xlabel="share of the attention that goes there")
    return figure
