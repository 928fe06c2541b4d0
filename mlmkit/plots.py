"""Pictures, in one style that can be read on light and dark pages and without color vision.

Every function returns the figure; none of them shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlmkit.evaluation import Baselines

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#737373"
"""Colors of Okabe and Ito, told apart by color-blind readers; each is also given its own line or hatch."""


@contextmanager
def style() -> Iterator[None]:
    """Use the course's look inside a `with` block, or as `@style()` in a function, whatever else the reader has set."""
    import matplotlib.style

    settings: dict[str, object] = {
        "figure.facecolor": "white",
        "figure.dpi": 110,
        "axes.facecolor": "white",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E3E3E3",
        "font.size": 10,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
    }
    with matplotlib.style.context(["default", settings]):
        yield


@style()
def new_figure(columns: int = 1, width: float = 9.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """Make a figure with some axes side by side, in the course's style."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained", squeeze=False)
    return figure, list(axes[0])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and release it."""
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)


class Curves(Protocol):
    """What `plot_history` reads of a run's record."""

    evaluations: list[Any]
    training: list[dict[str, float]]
    baselines: Baselines


@style()
def plot_history(history: Curves) -> Figure:
    """Draw the two losses of a run against the updates, each between its baselines.

    The held-out losses are the thick lines with dots, the training losses the thin ones. On the left the baselines
    are ln V, the unigram entropy of the held-out text and the loss of a bigram table, on the right ln 2. Where the
    text comes from an exact language, both floors are drawn: no model can get below them.
    """
    figure, (left, right) = new_figure(columns=2)
    steps = [e.step for e in history.evaluations]
    seen = [t["step"] for t in history.training]
    base = history.baselines
    panels = [
        (left, "mlm", [e.mlm_loss for e in history.evaluations], "masked language modeling"),
        (right, "nsp", [e.nsp_loss for e in history.evaluations], "next-sentence prediction"),
    ]
    for axes, name, held_out, title in panels:
        axes.plot(seen, [t[name] for t in history.training], color=GREY, linewidth=0.7, alpha=0.7, label="training")
        axes.plot(steps, held_out, color=BLUE, marker="o", markersize=4, label="held out")
        axes.set(title=title, xlabel="updates", ylabel="loss (nats)")
    _baseline(left, base.uniform, f"ln V = {base.uniform:.2f}", ":")
    _baseline(left, base.unigram_entropy, f"unigram entropy = {base.unigram_entropy:.2f}", "--")
    _baseline(left, base.bigram_cross_entropy, f"bigram table = {base.bigram_cross_entropy:.2f}", "-.")
    _baseline(right, base.coin, f"ln 2 = {base.coin:.2f}", "--")
    for axes, floor in ((left, base.mlm_floor), (right, base.nsp_floor)):
        if floor is not None:
            _baseline(axes, floor, f"floor = {floor:.3f}", "-", GREEN, below=True)
    left.set_ylim(top=base.uniform * 1.08)
    if base.mlm_floor is not None:  # room for the legend and the label below the floor
        left.set_ylim(bottom=base.mlm_floor - 0.25 * (base.uniform - base.mlm_floor))
    right.set_ylim(0, base.coin * 1.35)
    for axes in (left, right):
        axes.legend(loc="lower left")
    return figure


def _baseline(axes: Axes, value: float, label: str, line: str, color: str = ORANGE, below: bool = False) -> None:
    axes.axhline(value, color=color, linestyle=line, linewidth=1.2)
    axes.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="top" if below else "bottom",
        color=color,
        fontsize=9,
    )


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
