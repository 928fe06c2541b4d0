"""`exact`: the languages of which everything is known."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mlmkit.cli.shared import AsJson

app = typer.Typer(help="A small language of which everything is known.")
LanguageName = Annotated[str, typer.Argument(metavar="LANGUAGE", help="market, harbor, forest or tiny.")]


@app.command("floor")
def exact_floor(
    language: LanguageName = "market",
    pairs: Annotated[int, typer.Option(min=2, help="Draw so many pairs; the error falls as 1/√pairs.")] = 4096,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    rate: Annotated[float, typer.Option(help="Share of the words that are selected.")] = 0.15,
    mask: Annotated[float, typer.Option(help="Share of the selected that become [MASK].")] = 0.8,
    random: Annotated[float, typer.Option(help="Share of the selected that become a random word.")] = 0.1,
    keep: Annotated[float, typer.Option(help="Share of the selected that stay.")] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Compute the lowest possible losses, and what predictors that see less can reach."""
    from mlmkit.exact import floor_report
    from mlmkit.language import language_named
    from mlmkit.masking import MaskingPolicy

    policy = MaskingPolicy(rate, mask, random, keep, count="binomial")
    report = floor_report(language_named(language), policy, pairs, seed)
    typer.echo(json.dumps(report.to_dict()) if as_json else str(report))


@app.command("show")
def exact_show(
    language: LanguageName = "market",
    documents: Annotated[int, typer.Option(min=0, help="Print so many documents.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Show a language: documents, classes, the words of each topic, and which class follows which."""
    import numpy as np

    from mlmkit.exact import describe
    from mlmkit.language import language_named

    typer.echo(describe(language_named(language), documents, np.random.default_rng(seed)))
