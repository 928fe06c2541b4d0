"""One look for all pictures: colors, a style, a figure with axes, a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
