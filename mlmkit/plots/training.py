"""The losses of a run between their baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mlmkit.plots.look import BLUE, GREEN, GREY, ORANGE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlmkit.evaluation import Baselines


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
    left.set_ylim(top=max([base.uniform, *panels[0][2]]) * 1.08)
    if base.mlm_floor is not None:  # room for the legend and the label below the floor
        lowest = min([base.mlm_floor, *(t["mlm"] for t in history.training)])
        left.set_ylim(bottom=lowest - 0.25 * (base.uniform - base.mlm_floor))
    right.set_ylim(0, base.coin * 1.35)
    for axes in (left, right):
        axes.legend(loc="lower left")
    return figure


def _baseline(axes: Axes, value: float, label: str, line: str, color: str = ORANGE, below: bool = False) -> None:
    from matplotlib.patheffects import withStroke

    axes.axhline(value, color=color, linestyle=line, linewidth=1.2)
    axes.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="top" if below else "bottom",
        color=color,
        fontsize=9,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],  # readable also where a curve crosses it
    )
