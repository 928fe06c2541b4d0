"""A widget with a picture beside it, for every place where no browser answers.

A widget is a connection to a running kernel. In a notebook that was only executed, converted or printed there is
none, and a reader would see nothing. So a cell gets two outputs: the widget, and a picture of the same state. Where
the widget is alive, a line of its own style sheet hides the picture after it; where it is not, neither it nor its
style sheet exists, and the picture is seen.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ipywidgets
from IPython.display import display

from mlmkit.widgets.html import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEW = "application/vnd.jupyter.widget-view+json"
CAPTION = "(a widget: run this cell in JupyterLab to use it; below, a picture of it)"
WIDE = ipywidgets.Layout(width="auto")
WRAPPED = ipywidgets.Layout(display="flex", flex_flow="row wrap", align_items="center", width="auto")


@dataclass(frozen=True)
class Still:
    """A state of a widget, standing still.

    Attributes:
        text: in words, the same whenever the state is the same: nbval compares it.
        figure: as a picture; None where there is nothing to draw.
    """

    text: str
    figure: Figure | None = None


class LiveBox(ipywidgets.VBox):
    """A column of widgets that is shown with a picture of its state at that moment.

    Args:
        children: the widgets.
        still: makes the picture.
    """

    def __init__(self, children: Sequence[ipywidgets.Widget], still: Callable[[], Still]) -> None:
        super().__init__([ipywidgets.HTML(STYLE), *children], layout=WIDE)
        self.add_class("mlmkit-live")
        self.still = still

    def _ipython_display_(self, **_: Any) -> None:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        display({VIEW: view, "text/plain": CAPTION}, raw=True)
        still = self.still()
        if still.figure is None:
            display({"text/plain": still.text}, raw=True)
        else:
            display({"image/png": _png(still.figure), "text/plain": still.text}, raw=True)


def _png(figure: Figure) -> str:
    """Draw a figure, release it, and write the picture in letters (base64)."""
    from matplotlib import pyplot as plt

    file = io.BytesIO()
    with warnings.catch_warnings():  # a token in a script that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(file, format="png")
    plt.close(figure)
    return base64.b64encode(file.getvalue()).decode("ascii")
