"""What the widgets show, as HTML: plain functions from values to text.

Every token goes through `html.escape`. Colors are those of the pictures; each comes with a letter, a number or a
pattern. Text takes the color of the page around it, so that it can be read on light and dark ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mlmkit.evaluation import Candidate
from mlmkit.plots import BLUE, GREEN, ORANGE
from mlmkit.widgets.draws import FATES, Draw
from mlmkit.widgets.readings import Guess, Reading

STYLE = f"""<style>
.jp-OutputArea-child:has(.mlmkit-live) + .jp-OutputArea-child:has(.jp-RenderedImage) {{ display: none; }}
.mlmkit-live .widget-html-content {{ line-height: 1.5; }}
.mlmkit-live .mlmkit-token {{ width: auto; min-width: 1.5em; padding: 0 .5em; margin: 2px; font-family: monospace; }}
.mlmkit-live .mlmkit-token.mod-active {{ background: {BLUE}; color: white; font-weight: bold; }}
.mlmkit-live .mlmkit-token:focus-visible {{ outline: 3px solid {ORANGE}; outline-offset: 1px; }}
.mlmkit-live .widget-toggle-buttons {{ display: flex; align-items: center; }}
.mlmkit-flow {{ display: flex; flex-flow: row wrap; gap: 6px 4px; align-items: flex-start; }}
.mlmkit-card {{ border: 1px solid rgba(128,128,128,.45); border-radius: 4px; padding: 4px 10px 8px;
  margin: 0 8px 8px 0; }}
.mlmkit-live table {{ border-collapse: collapse; margin: 4px 0; }}
.mlmkit-live td, .mlmkit-live th {{ padding: 1px 8px 1px 0; text-align: left; font-weight: normal; }}
.mlmkit-live th {{ opacity: .75; font-size: 90%; }}
.mlmkit-live td.mlmkit-number {{ text-align: right; font-variant-numeric: tabular-nums; }}
.mlmkit-track {{ width: 130px; height: 13px; background: rgba(128,128,128,.22); }}
.mlmkit-bar {{ height: 13px; background: {BLUE}; }}
.mlmkit-true .mlmkit-bar {{ background: repeating-linear-gradient(45deg, {GREEN} 0 5px, #00694D 5px 7px); }}
.mlmkit-true td {{ font-weight: bold; }}
.mlmkit-chip {{ display: inline-block; text-align: center; font-family: monospace; padding: 1px 5px 3px; min-width: 1em;
  border-radius: 3px; background: rgba(128,128,128,.16); }}
.mlmkit-chip small {{ display: block; font-size: 80%; line-height: 1.2; min-height: 1.2em; }}
.mlmkit-mask {{ background: {BLUE}; color: white; }}
.mlmkit-random {{ background: repeating-linear-gradient(45deg, {ORANGE} 0 7px, #B84F00 7px 9px); color: white; }}
.mlmkit-keep {{ background: #007A58; color: white; outline: 2px dotted currentColor; outline-offset: -2px; }}
.mlmkit-special {{ opacity: .55; }}
.mlmkit-message {{ border-left: 4px solid {ORANGE}; padding-left: 8px; }}
.mlmkit-grid {{ line-height: 1; }}
.mlmkit-grid td {{ width: 13px; height: 13px; padding: 0; border: 1px solid rgba(128,128,128,.18); }}
.mlmkit-grid th {{ font-family: monospace; text-align: right; padding: 0 6px 0 0; opacity: 1; }}
.mlmkit-grid tr.mlmkit-asked th {{ font-weight: bold; }}
.mlmkit-grid tr.mlmkit-asked td {{ border-top: 2px solid {ORANGE}; border-bottom: 2px solid {ORANGE}; }}
</style>"""

LARGEST_GRID = 64
"""Tokens up to which a whole pattern is drawn: S² cells, and a page of a quarter of a million is no longer quick."""
NAMES = {"mask": "[MASK]", "random": "random", "keep": "kept", "selected": "selected", "untouched": "untouched"}


def message(text: str) -> str:
    """Something the reader should know."""
    return f'<div class="mlmkit-message" role="status">{escape(text)}</div>' if text else ""


def number(p: float) -> str:
    """Write a probability with three digits: 0.931, 1.2e-05.

    >>> number(0.93123), number(0.0000123)
    ('0.931', '1.2e-05')
    """
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


# --- guesses ---------------------------------------------------------------------------------------------------


def reading_html(reading: Reading) -> str:
    """Each masked position with its bars, and the loss as a sum."""
    if not reading.guesses:
        return message("Press a token to hide it.")
    cards = "".join(_card(guess) for guess in reading.guesses)
    return f'<div class="mlmkit-flow">{cards}</div>{_sum(reading)}'


def _card(guess: Guess) -> str:
    """One position: the probability of the true token and its loss, and the best candidates as bars."""
    head = f"position {guess.position}: "
    rows = "".join(_bar(candidate, guess.true) for candidate in guess.best)
    if guess.true is None or guess.loss is None:
        head += "[MASK], the true token is not known"
    else:
        head += (
            f"<b><code>{escape(guess.true.token)}</code></b> is hidden<br>Pr(true | x̄) = "
            f'<b class="mlmkit-probability" data-position="{guess.position}">{number(guess.true.probability)}</b>, '
            f'loss −log Pr = <b class="mlmkit-loss">{guess.loss:.2f}</b> nats, rank {guess.rank}'
        )
        if guess.true.id not in [candidate.id for candidate in guess.best]:
            rows += _bar(guess.true, guess.true)
    return f'<div class="mlmkit-card">{head}<table>{rows}</table></div>'


def _bar(candidate: Candidate, true: Candidate | None) -> str:
    """A candidate as a row: token, bar (its full track is probability 1), number."""
    is_true = true is not None and candidate.id == true.id
    mark = ' class="mlmkit-true"' if is_true else ""
    bar = f'<div class="mlmkit-track"><div class="mlmkit-bar" style="width:{candidate.probability:.2%}"></div></div>'
    name = f"{escape(candidate.token)}{' ✓' if is_true else ''}"
    p = number(candidate.probability)
    return f'<tr{mark}><td><code>{name}</code></td><td>{bar}</td><td class="mlmkit-number">{p}</td></tr>'


def _sum(reading: Reading) -> str:
    """The loss of all hidden tokens together, in figures."""
    if not reading.losses:
        return ""
    terms = " + ".join(f"{loss:.2f}" for loss in reading.losses)
    many = f"{terms} = " if len(reading.losses) > 1 else ""
    total = f'<b class="mlmkit-total">{reading.loss:.2f}</b> nats'
    mean = f", {reading.loss / len(reading.losses):.2f} per hidden token" if many else ""
    return f"<div>loss −Σ log Pr(x<sub>i</sub> | x̄) = {many}{total}{mean}</div>"


# --- masks -----------------------------------------------------------------------------------------------------


def draw_html(draw: Draw) -> str:
    """The sentence as it was corrupted, and the counts."""
    chips = "".join(map(_fate_chip, draw.sentence.tokens, draw.seen, draw.fates))
    return f'<div class="mlmkit-flow">{chips}</div>{_counts(draw)}'


def _fate_chip(true: str, seen: str, fate: str) -> str:
    """One token: what the model sees, and below it a letter for its fate and the true token."""
    below = {"mask": f"M · {true}", "random": f"R · {true}", "keep": "K"}.get(fate, "")
    kind = f" mlmkit-{fate}" if fate else ""
    return f'<span class="mlmkit-chip{kind}">{escape(seen)}<small>{escape(below)}</small></span>'


def _counts(draw: Draw) -> str:
    """The table of counts: in this draw, expected, and usual."""
    rows = ""
    for what, letter in zip((*FATES, "selected", "untouched"), "MRK  ", strict=True):
        tally = draw.tallies[what]
        rows += (
            f'<tr data-fate="{what}"><td>{letter}</td><td>{NAMES[what]}</td>'
            f'<td class="mlmkit-number mlmkit-drawn">{tally.drawn}</td>'
            f'<td class="mlmkit-number mlmkit-expected">{tally.expected:.1f}</td>'
            f'<td class="mlmkit-number">{tally.low} to {tally.high}</td>'
            f"<td>{'the loss is taken on these' if what == 'selected' else ''}</td></tr>"
        )
    real = len(draw.sentence.ordinary)
    head = "<tr><th></th><th></th><th>in this draw</th><th>expected</th><th>in 95 of 100 draws</th><th></th></tr>"
    return f"<table>{head}{rows}</table><div>of {real} tokens that may be selected</div>"


# --- attention -------------------------------------------------------------------------------------------------


def attention_html(tokens: Sequence[str], weights: Sequence[Sequence[float]], asked: int) -> str:
    """Where one token looks, token by token, and the whole pattern of the head as a grid.

    Args:
        tokens: of the sequence (S,).
        weights: of one head (S, S); row i is how position i looks at all positions and sums to 1.
        asked: the position whose row is spelled out.
    """
    chips = "".join(map(_look_chip, tokens, weights[asked]))
    says = f"<code><b>{escape(tokens[asked])}</b></code> (position {asked}) looks at"
    spelled_out = f'<div>{says}</div><div class="mlmkit-flow">{chips}</div>'
    if len(tokens) > LARGEST_GRID:
        return spelled_out + message(f"The grid of all rows is drawn for up to {LARGEST_GRID} tokens.")
    rows = "".join(_grid_row(t, row, i == asked) for i, (t, row) in enumerate(zip(tokens, weights, strict=True)))
    return f'{spelled_out}<table class="mlmkit-grid">{rows}</table>'


def _look_chip(token: str, weight: float) -> str:
    """One token, shaded by how much it is looked at, with the weight in percent."""
    return f'<span class="mlmkit-chip" style="{_shade(weight)}">{escape(token)}<small>{weight:.0%}</small></span>'


def _grid_row(token: str, weights: Sequence[float], asked: bool) -> str:
    """One row of the pattern."""
    cells = "".join(f'<td style="{_shade(weight)}"></td>' for weight in weights)
    mark = ' class="mlmkit-asked"' if asked else ""
    return f"<tr{mark}><th>{escape(token)}</th>{cells}</tr>"


def _shade(weight: float) -> str:
    """Blue over the page's own background, never all of it: black and white text both stay readable on it."""
    return f"background:rgba(0,114,178,{0.9 * weight**0.5:.3f})"
