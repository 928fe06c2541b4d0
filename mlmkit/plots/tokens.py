"""Tokens as boxes, and the candidates for one of them as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlmkit.plots.look import BLUE, GREEN, ORANGE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style()
def plot_fates(
    tokens: Sequence[Sequence[str]], fates: Sequence[Sequence[str]], title: str = "", width: float = 9.0
) -> Figure:
    """Draw sentences as rows of boxes, each box colored by what happened to the token.

    Args:
        tokens: what stands in each box, row by row.
        fates: "", "mask", "random" or "keep" for each box; "" is a token that was not selected, "special" a
            special token or padding.
        title: above the figure.
        width: in inches.
    """
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.patheffects import withStroke

    colors = {"": "#F2F2F2", "special": "#D0D0D0", "mask": BLUE, "random": ORANGE, "keep": GREEN}
    hatches = {"mask": "", "random": "///", "keep": "..."}
    longest = max(map(len, tokens))
    figure, (axes,) = new_figure(width=width, height=0.55 * len(tokens) + 0.9)
    for row, (line, marks) in enumerate(zip(tokens, fates, strict=True)):
        for column, (token, fate) in enumerate(zip(line, marks, strict=True)):
            box = Rectangle((column, -row), 0.94, 0.8, facecolor=colors[fate], hatch=hatches.get(fate, ""))
            box.set_edgecolor("white")
            axes.add_patch(box)
            size = min(9.0, 105 * width / longest / max(len(token), 1))  # points, so that it fits into its box
            dark = fate in ("mask", "random", "keep")
            weight = "bold" if dark else "normal"
            text = axes.text(column + 0.47, -row + 0.4, token, ha="center", va="center", fontsize=size, weight=weight)
            text.set_color("white" if dark else "black")
            text.set_path_effects([withStroke(linewidth=3, foreground=colors[fate])])  # readable on the hatch
    axes.set(xlim=(0, longest), ylim=(-len(tokens) + 0.9, 1), title=title)
    axes.axis("off")
    names = {
        "mask": "[MASK]",
        "random": "random token",
        "keep": "kept",
        "": "not selected",
        "special": "special",
    }
    used = [fate for fate in names if any(fate in marks for marks in fates)]
    handles = [Patch(facecolor=colors[f], hatch=hatches.get(f, ""), edgecolor="white", label=names[f]) for f in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@style()
def plot_distribution(tokens: Sequence[str], probabilities: Sequence[float], true: str | None = None) -> Figure:
    """Draw the probabilities of some candidates at a masked position as bars; the true token is marked.

    Args:
        tokens: candidates, best first.
        probabilities: one for each.
        true: the token that was hidden, if known.
    """
    figure, (axes,) = new_figure(width=6.0, height=0.34 * len(tokens) + 0.9)
    places = list(range(len(tokens)))[::-1]
    bars = axes.barh(places, probabilities, color=[GREEN if t == true else BLUE for t in tokens])
    for bar, token in zip(bars, tokens, strict=True):
        bar.set_hatch("..." if token == true else "")
        bar.set_edgecolor("white")
    labels = [
        f"{p:.3f}" + (f"   loss {-math.log(p) if p > 0 else math.inf:.2f} nats" if t == true else "")
        for t, p in zip(tokens, probabilities, strict=True)
    ]
    axes.bar_label(bars, labels, padding=3, fontsize=9)
    axes.set(xlabel="probability", yticks=places, xlim=(0, max(probabilities) * 1.35))
    axes.set_yticklabels(tokens)
    axes.grid(axis="y", visible=False)
    return figure
