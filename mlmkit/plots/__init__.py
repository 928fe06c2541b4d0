"""Pictures, in one style that can be read on light and dark pages and without color vision.

Every function returns the figure; none of them shows it.
"""

from __future__ import annotations

from mlmkit.plots.attention import plot_attention, plot_habits, plot_heads
from mlmkit.plots.embeddings import plot_entering, plot_neighbors, plot_projection
from mlmkit.plots.look import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, save_figure, style
from mlmkit.plots.probing import plot_calibration, plot_sentence_relation, plot_word_order
from mlmkit.plots.tokens import plot_distribution, plot_fates
from mlmkit.plots.training import plot_history

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "new_figure",
    "plot_attention",
    "plot_calibration",
    "plot_distribution",
    "plot_entering",
    "plot_fates",
    "plot_habits",
    "plot_heads",
    "plot_history",
    "plot_neighbors",
    "plot_projection",
    "plot_sentence_relation",
    "plot_word_order",
    "save_figure",
    "style",
]
