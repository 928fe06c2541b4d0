"""The widgets in JupyterLab, driven by a real browser: what a reader presses, and what the page then says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import nbformat
import pytest
from browser import Visit, browser, find_chromium, jupyterlab, open_notebook, run_all, visit, write_notebook
from helpers import small_model, tokenizer_of
from memorized import SENTENCES, memorized

from mlmkit.checkpoint import save
from mlmkit.inspection import attention_maps
from mlmkit.masking import MaskingPolicy
from mlmkit.tokenizer import SPECIAL_TOKENS
from mlmkit.widgets import as_read, draw_masks, read_masked
from mlmkit.widgets.live import CAPTION, VIEW

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.slow

BIRD, DOG, FOX, _ = SENTENCES
LONG = " ".join(["the early bird catches worm"] * 40)  # 200 tokens
EVIL = ("<i>x</i>", "<script>", "&amp;", '"')
CELLS = (
    "import mlmkit\nfrom mlmkit.widgets import *\nmodel, tokenizer = mlmkit.load('model')",
    f"fill_mask_widget(model, tokenizer, {BIRD!r})",
    f"masking_widget(tokenizer, {LONG!r}, seed=3)",
    f"attention_widget(model, tokenizer, {BIRD!r}, {FOX!r})",
    f"fill_mask_widget(*mlmkit.load('evil'), {' '.join(EVIL)!r})",
    f"fill_mask_widget(model, tokenizer, {DOG!r})",
)
PREDICT, DRAW, LOOK, ODD, KEYS = range(1, len(CELLS))


@dataclass(frozen=True)
class Lab:
    """A notebook whose cells were run, open in a browser."""

    address: str
    folder: Path
    chromium: Browser
    visit: Visit

    @property
    def page(self) -> Page:
        return self.visit.page

    def widget(self, cell: int) -> Locator:
        return self.page.locator(".jp-Notebook-cell").nth(cell).locator(".mlmkit-live")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    find_chromium()
    folder, scratch = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("scratch")
    save(*memorized(), folder / "model")
    evil = tokenizer_of([*SPECIAL_TOKENS, *EVIL])
    save(small_model(vocab_size=evil.vocab_size), evil, folder / "evil")
    write_notebook(folder / "widgets.ipynb", CELLS)
    with jupyterlab(folder, scratch) as address, browser() as chromium:
        here = visit(chromium)
        open_notebook(here.page, address, "widgets.ipynb")
        run_all(here.page)
        yield Lab(address, folder, chromium, here)


def see(locator: Locator) -> Any:
    """What must become true of the page within a while: it waits for the kernel's answer."""
    from playwright.sync_api import expect

    return expect(locator)


def expected(text: str, *masked: int) -> dict[int, float]:
    """Position → probability of the true token, computed in this process with the same weights."""
    model, tokenizer = memorized()
    guesses = read_masked(model, tokenizer, as_read(tokenizer, text), masked).guesses
    return {guess.position: guess.true.probability for guess in guesses if guess.true}


def probabilities(widget: Locator, count: int) -> dict[int, float]:
    """Position → probability of the true token, as the page writes it."""
    numbers = widget.locator(".mlmkit-probability")
    see(numbers).to_have_count(count)
    return {int(one.get_attribute("data-position") or -1): float(one.inner_text()) for one in numbers.all()}


def near(wanted: dict[int, float]) -> Any:
    return pytest.approx(wanted, abs=6e-4)  # written with three digits after the point


def tokens(widget: Locator) -> list[str]:
    return widget.locator(".mlmkit-token").all_inner_texts()


def test_pressing_a_token_shows_the_bar_of_the_true_token_and_a_second_one_changes_it(lab: Lab):
    widget = lab.widget(PREDICT)
    alone = probabilities(widget, 1)
    assert alone == near(expected(BIRD, 4))
    widget.get_by_role("button", name="worm", exact=True).click()
    both = probabilities(widget, 2)
    assert both == near(expected(BIRD, 4, 6))
    assert alone[4] != both[4], "with less context the model is less, or otherwise, sure"
    assert tokens(widget) == "[CLS] the early bird [MASK] the [MASK] [SEP]".split()
    bars = widget.locator(".mlmkit-true .mlmkit-bar")
    see(bars).to_have_count(2)
    for bar, p in zip(bars.all(), both.values(), strict=True):
        track = bar.evaluate("bar => bar.getBoundingClientRect().width / bar.parentElement.clientWidth")
        assert track == pytest.approx(p, abs=0.01)  # a pixel of 130
    widget.locator(".mlmkit-token").nth(6).click()
    assert probabilities(widget, 1) == alone


def test_special_tokens_cannot_be_pressed(lab: Lab):
    first, last = (lab.widget(PREDICT).locator(".mlmkit-token").nth(i) for i in (0, -1))
    see(first).to_be_disabled()
    see(last).to_be_disabled()


def test_another_sentence_can_be_typed_and_a_hopeless_one_is_answered_in_words(lab: Lab):
    widget = lab.widget(PREDICT)
    box = widget.get_by_role("textbox")
    box.fill("the lazy dog sleeps on the zebra")
    box.press("Enter")
    see(widget.locator(".mlmkit-token").nth(7)).to_have_text("[UNK]")
    assert tokens(widget) == "[CLS] the lazy dog [MASK] on the [UNK] [SEP]".split()
    assert probabilities(widget, 1) == near(expected("the lazy dog sleeps on the zebra", 4))
    for text, answer in (("", "there is no text"), ("the " * 40, "42 tokens with [CLS] and [SEP] are too many")):
        box.fill(text)
        box.press("Enter")
        see(widget.locator(".mlmkit-message")).to_contain_text(answer)
        assert tokens(widget) == []


def test_tokens_can_be_pressed_from_the_keyboard(lab: Lab):
    widget = lab.widget(KEYS)
    widget.get_by_role("button", name="warm", exact=True).focus()
    lab.page.keyboard.press("Space")
    assert probabilities(widget, 2) == near(expected(DOG, 5, 7))


def test_tags_in_a_sentence_are_text(lab: Lab):
    widget = lab.widget(ODD)
    widget.locator(".mlmkit-token").nth(1).click()
    see(widget.locator(".mlmkit-card")).to_have_count(2)
    assert tokens(widget) == ["[CLS]", "[MASK]", "<script>", "[MASK]", '"', "[SEP]"]
    assert widget.locator("i, script").count() == 0
    see(widget.locator(".mlmkit-card").first).to_contain_text("<i>x</i> is hidden")
    see(widget.locator(".mlmkit-card").last).to_contain_text("&amp; is hidden")


def counts(widget: Locator) -> dict[str, int]:
    return {
        row.get_attribute("data-fate") or "": int(row.locator(".mlmkit-drawn").inner_text())
        for row in widget.locator("tr[data-fate]").all()
    }


def drawn(rate: float, number: int = 0, shares: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> dict[str, int]:
    tokenizer = memorized()[1]
    draw = draw_masks(tokenizer, as_read(tokenizer, LONG), MaskingPolicy(rate, *shares), 3, number)
    return {what: tally.drawn for what, tally in draw.tallies.items()}


def test_sliders_move_by_keyboard_and_the_counts_follow(lab: Lab):
    widget = lab.widget(DRAW)
    assert counts(widget) == drawn(0.15)
    assert counts(widget)["selected"] == 30
    handles = widget.locator(".noUi-handle")
    handles.nth(0).focus()
    for _ in range(5):
        lab.page.keyboard.press("ArrowRight")
    see(widget.locator("tr[data-fate=selected] .mlmkit-expected")).to_have_text("40.0")
    assert counts(widget) == drawn(0.20)
    widget.get_by_role("button", name="draw again").click()
    see(widget.locator("tr[data-fate=mask] .mlmkit-drawn")).not_to_have_text(str(drawn(0.20)["mask"]))
    assert counts(widget) == drawn(0.20, number=1)
    handles.nth(1).focus()
    lab.page.keyboard.press("Home")  # no [MASK] at all
    see(widget.locator("tr[data-fate=mask] .mlmkit-expected")).to_have_text("0.0")
    assert counts(widget) == drawn(0.20, 1, (0, 0.5, 0.5))
    assert [number.inner_text() for number in widget.locator(".widget-readout").all()] == ["20", "0", "50", "50"]


def test_another_head_and_another_token_change_the_picture(lab: Lab):
    widget = lab.widget(LOOK)
    weights = attention_maps(*memorized(), BIRD, FOX).weights

    def check(layer: int, head: int, asked: int) -> None:
        wanted = [f"{weight:.0%}" for weight in weights[layer, head, asked]]
        see(widget.locator(".mlmkit-chip small")).to_have_text(wanted)
        see(widget.locator(".mlmkit-asked")).to_have_count(1)

    check(0, 0, 1)
    before = widget.locator(".mlmkit-grid").inner_html()
    widget.get_by_label("head").select_option("3 of 3")
    check(0, 2, 1)
    assert widget.locator(".mlmkit-grid").inner_html() != before
    widget.get_by_label("layer").select_option("2 of 2")
    check(1, 2, 1)
    widget.get_by_role("button", name="fox", exact=True).click()
    check(1, 2, tokens(widget).index("fox"))
    see(widget.locator(".mlmkit-token.mod-active")).to_have_text("fox")


def pictures(page: Page) -> list[bool]:
    """Which of the pictures in the page can be seen."""
    return [picture.is_visible() for picture in page.locator(".jp-RenderedImage").all()]


def test_a_living_widget_hides_its_picture(lab: Lab):
    see(lab.page.locator(".mlmkit-live")).to_have_count(5)
    assert pictures(lab.page) == [False] * 5


def test_nothing_was_asked_of_another_machine_and_no_script_failed(lab: Lab):
    assert lab.visit.elsewhere == []
    assert lab.visit.errors == []


def test_without_a_kernel_the_picture_is_seen(lab: Lab):
    path = lab.folder / "widgets.ipynb"
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    outputs = [cell.outputs for cell in nbformat.read(path, as_version=4).cells[1:]]
    assert [[*output.data] for one in outputs for output in one] == [
        [VIEW, "text/plain"],
        ["image/png", "text/plain"],
    ] * 5
    lab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    later = visit(lab.chromium)
    open_notebook(later.page, lab.address, "widgets.ipynb")
    see(later.page.locator(".jp-RenderedImage")).to_have_count(5)
    assert later.page.locator(".mlmkit-live").count() == 0
    assert pictures(later.page) == [True] * 5


@pytest.mark.parametrize("state_saved", [False, True])
def test_a_converted_notebook_shows_the_picture_without_a_network(lab: Lab, state_saved: bool, tmp_path: Path):
    """With the state of the widgets, as papermill saves it, the page asks the network for a program to show them."""
    from nbconvert import HTMLExporter

    notebook = nbformat.read(lab.folder / "widgets.ipynb", as_version=4)
    if state_saved:
        models = [
            output.data[VIEW]["model_id"] for cell in notebook.cells for output in cell.outputs if VIEW in output.data
        ]
        state = {model: {"model_name": "VBoxModel", "model_module": "x", "state": {}} for model in models}
        saved = {"version_major": 2, "version_minor": 0, "state": state}
        notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": saved}
    path = tmp_path / "page.html"
    path.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    page = visit(lab.chromium).page
    page.route(
        "**/*", lambda route: route.continue_() if urlsplit(route.request.url).scheme == "file" else route.abort()
    )
    page.goto(path.as_uri())
    see(page.locator(".jp-RenderedImage")).to_have_count(5)
    assert pictures(page) == [True] * 5
    assert page.get_by_text(CAPTION).count() == (0 if state_saved else 5)
