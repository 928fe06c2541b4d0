"""Pictures of fine-tuning: ways side by side, epochs, and which labels are taken for which."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlmkit.finetuning.comparison import Comparison
from mlmkit.finetuning.metrics import Counts
from mlmkit.finetuning.result import FinetuneResult
from mlmkit.intervals import LEVEL
from mlmkit.plots import BLUE, GREY, ORANGE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = {"accuracy": "test accuracy (%)", "macro_f1": "test macro-F1 (%)"}


@style()
def plot_comparison(comparison: Comparison, metric: str = "accuracy") -> Figure:
    """Draw each way to do the task: small dots for the seeds, above them the mean with its interval."""
    rows = comparison.rows(metric)
    figure, (axes,) = new_figure(width=7.5, height=0.62 * len(rows) + 1.3)
    for place, row in enumerate(rows):
        color = BLUE if place == 0 else ORANGE if place == 1 else GREY
        mean, width = 100 * row.mean.mean, 100 * (row.mean.half_width or 0.0)
        axes.plot(100 * row.values, np.full(len(row.values), place + 0.2), "o", color=color, markersize=4, alpha=0.4)
        axes.errorbar(mean, place, xerr=width, fmt="D" if place > 1 else "o", color=color, capsize=4, markersize=7)
        axes.annotate(
            f"{mean:.1f}", (mean, place), (0, 8), textcoords="offset points", ha="center", color=color, fontsize=9
        )
    axes.set_yticks(range(len(rows)), [textwrap.fill(row.label, 24) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.margins(x=0.08)
    task, seeds = comparison.pretrained.task, len(comparison.pretrained.outcomes)
    axes.set(xlabel=WORDS[metric], title=f"{task.name} ({seeds} seeds; bars: {LEVEL:.0%} intervals)")
    axes.grid(axis="y", visible=False)
    return figure


@style()
def plot_epochs(result: FinetuneResult) -> Figure:
    """Draw loss and validation accuracy of all seeds after each epoch; a ring marks the state that was kept."""
    figure, (left, right) = new_figure(columns=2)
    for number, outcome in enumerate(result.outcomes):
        at = [e.number for e in outcome.epochs]
        named = number == 0
        left.plot(
            at,
            [e.train_loss for e in outcome.epochs],
            color=GREY,
            linestyle="--",
            marker=".",
            label="training (with dropout)" if named else None,
        )
        left.plot(at, [e.loss for e in outcome.epochs], color=BLUE, marker=".", label="validation" if named else None)
        right.plot(
            at,
            [100 * e.accuracy for e in outcome.epochs],
            color=BLUE,
            marker=".",
            label="validation, each seed" if named else None,
        )
        kept = outcome.epochs[outcome.kept - 1]
        right.plot(
            kept.number,
            100 * kept.accuracy,
            "o",
            color=ORANGE,
            fillstyle="none",
            markersize=9,
            label="kept" if named else None,
        )
    left.set(xlabel="epoch", ylabel="loss (nats)", title=result.task.name)
    right.set(xlabel="epoch", ylabel="accuracy (%)", title="what is kept")
    for axes in (left, right):
        axes.locator_params(axis="x", integer=True)
        axes.legend()
    return figure


@style()
def plot_confusion(confusion: Counts, labels: Sequence[str]) -> Figure:
    """Draw a confusion matrix: the share of each true label (row) that got each answer (column), with the counts."""
    totals = np.maximum(confusion.sum(1, keepdims=True), 1)
    shares = confusion / totals
    size = 0.75 * len(labels) + 2.2
    figure, (axes,) = new_figure(width=size + 0.8, height=size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(*confusion.shape):
        color = "white" if shares[i, j] > 0.55 else "black"
        axes.text(j, i, f"{confusion[i, j]:,}", ha="center", va="center", color=color, fontsize=9)
    names = [textwrap.shorten(label, 16, placeholder="…") for label in labels]
    axes.set_xticks(
        range(len(labels)), names, rotation=30 if len(labels) > 2 else 0, ha="right" if len(labels) > 2 else "center"
    )
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="answered", ylabel="true")
    axes.grid(visible=False)
    return figure
