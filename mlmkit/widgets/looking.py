"""Choose a layer, a head and a token, and see where it looks."""

from __future__ import annotations

from typing import Any

import ipywidgets

from mlmkit.errors import UserError
from mlmkit.inspection import AttentionMaps, attention_maps
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer
from mlmkit.widgets.html import attention_html, message
from mlmkit.widgets.live import WIDE, WRAPPED, LiveBox, Still
from mlmkit.widgets.pictures import picture_of_attention, words_of_attention
from mlmkit.widgets.sentences import as_read


def attention_widget(model: BertForPreTraining, tokenizer: Tokenizer, a: str, b: str | None = None) -> LiveBox:
    """Show where each token looks, head by head.

    Press a token: its row of softmax(Q Kᵀ / √D) is written under the tokens in percent, and marked in the grid, which
    shows all rows of the head. What is looked at is not what mattered for an answer (`mlmkit.inspection`).

    Args:
        model: any of ours.
        tokenizer: of the model.
        a: first sentence; another one can be typed.
        b: second sentence, or none.
    """
    view = _Attention(model, tokenizer, a, b)
    choice = ipywidgets.Box([view.layer, view.head], layout=WRAPPED)
    return LiveBox([view.a, view.b, choice, view.tokens, view.answer], view.still)


def _numbered(name: str, count: int) -> ipywidgets.Dropdown:
    """A choice among `count` things, numbered from 1."""
    names = [(f"{number + 1} of {count}", number) for number in range(count)]
    dropdown = ipywidgets.Dropdown(options=names, description=name)
    dropdown.add_class(f"mlmkit-{name}")
    return dropdown


class _Attention:
    """The parts of the widget, and what they do to each other."""

    def __init__(self, model: BertForPreTraining, tokenizer: Tokenizer, a: str, b: str | None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.maps: AttentionMaps | None = None
        self.problem = self.note = ""
        self.a, self.b = (
            ipywidgets.Text(value=text or "", description=name, continuous_update=False, layout=WIDE)
            for name, text in (("sentence A", a), ("sentence B", b))
        )
        self.layer = _numbered("layer", model.config.num_hidden_layers)
        self.head = _numbered("head", model.config.num_attention_heads)
        self.asked = 0
        self.tokens = ipywidgets.Box(layout=WRAPPED)
        self.answer = ipywidgets.HTML(layout=WIDE)
        for text in (self.a, self.b):
            text.observe(self.type, "value")
        for choice in (self.layer, self.head):
            choice.observe(self.show, "value")
        self.type()

    def type(self, change: Any = None) -> None:
        """Read the sentences: new tokens, and the attention of all heads at once."""
        self.maps, self.problem, self.tokens.children = None, "", ()
        a, b = self.a.value, self.b.value.strip() or None
        try:
            sentence = as_read(self.tokenizer, a, b, self.model.config.max_position_embeddings)
            self.maps = attention_maps(self.model, self.tokenizer, a, b)
            self.note = sentence.note
            self.asked = sentence.ordinary[0] if sentence.ordinary else 0
            self.tokens.children = [self._button(*named) for named in enumerate(sentence.tokens)]
        except UserError as error:
            self.problem = str(error)
        self.show()

    def _button(self, position: int, token: str) -> ipywidgets.Button:
        """A token that can be asked. (`ToggleButtons` takes equal labels for one and the same.)"""
        button = ipywidgets.Button(description=token, tooltip=f"position {position}")
        button.add_class("mlmkit-token")
        button.on_click(lambda _: self.ask(position))
        return button

    def ask(self, position: int) -> None:
        """Spell out where this position looks."""
        self.asked = position
        self.show()

    def show(self, change: Any = None) -> None:
        """Mark the chosen token, and write its row of the chosen head."""
        if self.maps is None:
            self.answer.value = message(self.problem)
            return
        for position, button in enumerate(self.tokens.children):
            (button.add_class if position == self.asked else button.remove_class)("mod-active")
        weights = self.maps.weights[self.layer.value, self.head.value].tolist()  # (S, S)
        self.answer.value = message(self.note) + attention_html(self.maps.tokens, weights, self.asked)

    def still(self) -> Still:
        """The state as a picture."""
        if self.maps is None:
            return Still(f"attention_widget: {self.problem}")
        chosen = self.maps, self.layer.value, self.head.value, self.asked
        return Still(words_of_attention(*chosen), picture_of_attention(*chosen))
