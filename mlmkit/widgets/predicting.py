"""Type a sentence, press tokens to hide them, and see what the model expects in their place."""

from __future__ import annotations

from functools import partial
from typing import Any

import ipywidgets

from mlmkit.errors import UserError
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import MASK, Tokenizer
from mlmkit.widgets.html import message, reading_html
from mlmkit.widgets.live import WIDE, WRAPPED, LiveBox, Still
from mlmkit.widgets.pictures import picture_of_reading, words_of_reading
from mlmkit.widgets.readings import Reading, read_masked
from mlmkit.widgets.sentences import Sentence, as_read


def fill_mask_widget(model: BertForPreTraining, tokenizer: Tokenizer, text: str, top: int = 5) -> LiveBox:
    """Show what a model expects at hidden positions, and how probable it finds the true token.

    Each token is a button: pressed, it is replaced by [MASK] (C12 of the syllabus: the higher Pr(true | x̄), the
    lower the loss −log Pr; with several masks the loss is a sum of logs). At first the middle token is hidden. A
    [MASK] that is typed has no true token.

    Args:
        model: any of ours.
        tokenizer: of the model.
        text: the first sentence; another one can be typed.
        top: candidates at each position.
    """
    view = _FillMask(model, tokenizer, text, top)
    return LiveBox([view.text, view.tokens, view.answer], view.still)


class _FillMask:
    """The parts of the widget, and what they do to each other."""

    def __init__(self, model: BertForPreTraining, tokenizer: Tokenizer, text: str, top: int) -> None:
        self.model, self.tokenizer, self.top = model, tokenizer, top
        self.sentence: Sentence | None = None
        self.reading: Reading | None = None
        self.masked: set[int] = set()
        self.problem = ""
        self.text = ipywidgets.Text(value=text, description="sentence", continuous_update=False, layout=WIDE)
        self.tokens = ipywidgets.Box(layout=WRAPPED)
        self.answer = ipywidgets.HTML(layout=WIDE)
        self.text.observe(self.type, "value")
        self.type()

    def type(self, change: Any = None) -> None:
        """Read a new sentence: new tokens, the middle one hidden."""
        self.sentence = None
        try:
            limit = self.model.config.max_position_embeddings
            self.sentence = as_read(self.tokenizer, self.text.value, limit=limit)
        except UserError as error:
            self.problem = str(error)
        ordinary = self.sentence.ordinary if self.sentence else []
        asked = self.sentence is not None and MASK in self.sentence.tokens
        self.masked = set() if asked or not ordinary else {ordinary[len(ordinary) // 2]}
        self.tokens.children = self._buttons()
        self.show()

    def _buttons(self) -> list[ipywidgets.ToggleButton]:
        """One button for each token; those that cannot be hidden cannot be pressed."""
        if self.sentence is None:
            return []
        buttons = []
        for position, may_be_hidden in enumerate(self.sentence.maskable):
            button = ipywidgets.ToggleButton(value=position in self.masked, disabled=not may_be_hidden)
            button.add_class("mlmkit-token")
            button.observe(partial(self.press, position), "value")
            buttons.append(button)
        return buttons

    def press(self, position: int, change: Any) -> None:
        """Hide a token, or show it again; the others stay as they are."""
        self.masked = self.masked | {position} if change["new"] else self.masked - {position}
        self.show()

    def show(self) -> None:
        """Ask the model, and bring buttons and bars up to date."""
        self.reading = None
        if self.sentence is not None:
            try:
                self.reading = read_masked(self.model, self.tokenizer, self.sentence, self.masked, self.top)
            except UserError as error:
                self.problem = str(error)
        if self.sentence is None or self.reading is None:
            self.tokens.children, self.answer.value = (), message(self.problem)
            return
        for position, (button, seen) in enumerate(zip(self.tokens.children, self.reading.seen, strict=True)):
            button.description = seen
            button.tooltip = f"position {position}: {self.sentence.tokens[position]}"
        self.answer.value = message(self.sentence.note) + reading_html(self.reading)

    def still(self) -> Still:
        """The state as a picture."""
        if self.reading is None:
            return Still(f"fill_mask_widget: {self.problem}")
        return Still(words_of_reading(self.reading), picture_of_reading(self.reading))
