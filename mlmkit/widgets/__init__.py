"""Widgets for the notebooks: hide tokens and see what a model says, draw masks, see where attention looks.

They need ipywidgets, which the package itself does not: `pip install 'mlmkit[course]'`. What a widget shows is
computed by plain functions (`sentences`, `readings`, `draws`); a widget only lays it out. Where nobody can click, on a
printed page say, each shows a picture of the same state (`live`).

>>> from mlmkit.widgets import fill_mask_widget
>>> fill_mask_widget(model, tokenizer, "returns a new array with the same shape")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib.util

from mlmkit.errors import UserError

if importlib.util.find_spec("ipywidgets") is None:
    raise UserError("the widgets need ipywidgets, which is not installed: pip install 'mlmkit[course]'")

from mlmkit.widgets.drawing import masking_widget
from mlmkit.widgets.draws import Draw, Tally, draw_masks, rebalance
from mlmkit.widgets.looking import attention_widget
from mlmkit.widgets.predicting import fill_mask_widget
from mlmkit.widgets.readings import Guess, Reading, read_masked
from mlmkit.widgets.sentences import Sentence, as_read

__all__ = [
    "Draw",
    "Guess",
    "Reading",
    "Sentence",
    "Tally",
    "as_read",
    "attention_widget",
    "draw_masks",
    "fill_mask_widget",
    "masking_widget",
    "read_masked",
    "rebalance",
]
