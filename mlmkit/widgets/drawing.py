"""Draw masks over a sentence, with the shares on sliders and the counts beside what is expected."""

from __future__ import annotations

from functools import partial
from typing import Any

import ipywidgets

from mlmkit.errors import UserError
from mlmkit.masking import MaskingPolicy
from mlmkit.tokenizer import Tokenizer
from mlmkit.widgets.draws import FATES, Draw, draw_masks, rebalance
from mlmkit.widgets.html import draw_html, message
from mlmkit.widgets.live import WIDE, WRAPPED, LiveBox, Still
from mlmkit.widgets.pictures import picture_of_draw, words_of_draw
from mlmkit.widgets.sentences import as_read

LONGEST = 512
"""Most tokens that are drawn, [CLS] and [SEP] included: BERT's longest sequence."""


def masking_widget(tokenizer: Tokenizer, text: str, seed: int = 0) -> LiveBox:
    """Show which tokens a masking policy selects, what happens to each, and how the counts compare with the law.

    BERT's 15 % and 80/10/10 at first: of 200 tokens 30 are selected, 24 become [MASK], 3 another token, 3 stay,
    170 are untouched (C13 of the syllabus). The sliders of the three shares always sum to 100 %. With the same seed
    the first draw is always the same.

    Args:
        tokenizer: cuts the text.
        text: the first text; another one can be typed.
        seed: of the draws.
    """
    view = _Masking(tokenizer, text, seed)
    shares = ipywidgets.Box([*view.shares.values()], layout=WRAPPED)
    controls = ipywidgets.Box([view.rate, view.unit, view.again], layout=WRAPPED)
    return LiveBox([view.text, controls, shares, view.answer], view.still)


def _percent(name: str, value: int) -> ipywidgets.IntSlider:
    """A slider from 0 to 100 %, small enough that three fit into a row."""
    slider = ipywidgets.IntSlider(value=value, min=0, max=100, description=f"{name} %")
    slider.layout.width, slider.style.description_width = "222px", "72px"
    return slider


class _Masking:
    """The parts of the widget, and what they do to each other."""

    def __init__(self, tokenizer: Tokenizer, text: str, seed: int) -> None:
        self.tokenizer, self.seed, self.number = tokenizer, seed, 0
        self.draw: Draw | None = None
        self.problem = ""
        self.balancing = False
        self.text = ipywidgets.Textarea(
            value=text,
            description="text",
            continuous_update=False,
            layout=ipywidgets.Layout(width="auto", height="4em"),
        )
        self.rate = _percent("select", 15)
        self.shares = {
            fate: _percent(name, value)
            for fate, name, value in zip(FATES, ("[MASK]", "random", "keep"), (80, 10, 10), strict=True)
        }
        self.unit = ipywidgets.ToggleButtons(options=["token", "word", "span"], description="unit")
        self.unit.style.button_width, self.unit.style.description_width = "auto", "50px"
        self.unit.layout.width = "auto"
        self.again = ipywidgets.Button(description="draw again", tooltip="other masks by the same law")
        self.answer = ipywidgets.HTML(layout=WIDE)
        for control in (self.text, self.rate, self.unit):
            control.observe(self.show, "value")
        for place, slider in enumerate(self.shares.values()):
            slider.observe(partial(self.share, place), "value")
        self.again.on_click(self.next)
        self.show()

    def next(self, button: Any = None) -> None:
        """Draw other masks."""
        self.number += 1
        self.show()

    def share(self, place: int, change: Any) -> None:
        """Move the other two shares, so that the three sum to 100 %."""
        if self.balancing:
            return
        mask, random, keep = (slider.value for slider in self.shares.values())
        after = rebalance((mask, random, keep), place, change["new"])
        self.balancing = True
        for slider, value in zip(self.shares.values(), after, strict=True):
            slider.value = value
        self.balancing = False
        self.show()

    def show(self, change: Any = None) -> None:
        """Mask the text as the controls say."""
        self.draw = None
        mask, random, keep = (slider.value / 100 for slider in self.shares.values())
        policy = MaskingPolicy(self.rate.value / 100, mask, random, keep, self.unit.value)
        try:
            sentence = as_read(self.tokenizer, self.text.value, limit=LONGEST)
            self.draw = draw_masks(self.tokenizer, sentence, policy, self.seed, self.number)
            self.answer.value = message(sentence.note) + draw_html(self.draw)
        except UserError as error:
            self.problem = str(error)
            self.answer.value = message(self.problem)

    def still(self) -> Still:
        """The state as a picture."""
        if self.draw is None:
            return Still(f"masking_widget: {self.problem}")
        return Still(words_of_draw(self.draw), picture_of_draw(self.draw))
