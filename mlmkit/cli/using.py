"""`import`, `export`, `finetune`, `inspect`: what to do with a trained model, and with those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from mlmkit.cli.shared import Folder
from mlmkit.errors import UserError


def inspect(
    folder: Folder,
    text: Annotated[str | None, typer.Option(help="Draw the attention of this sentence; it may hold [MASK].")] = None,
    text_b: Annotated[str | None, typer.Option(help="Second sentence to it.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and inspection.json.")] = Path("pictures"),
) -> None:
    """Look inside a trained model: attention, embeddings, probes, calibration."""
    from mlmkit.inspection import inspect_run

    report = inspect_run(folder, out, text, text_b)
    for path in report.pictures.values():
        typer.echo(path)


def finetune(
    folder: Folder,
    train: Annotated[str, typer.Option(help=".csv, .tsv, .jsonl or .parquet, or the name of a data set on the hub.")],
    validation: Annotated[Path | None, typer.Option(help="Default: a tenth of train.")] = None,
    test: Annotated[Path | None, typer.Option(help="Default: validation, and a tenth of train in its place.")] = None,
    text: Annotated[str, typer.Option(help="Column with the text, or with the words.")] = "text",
    text_pair: Annotated[str | None, typer.Option(help="Column with the second sentence.")] = None,
    label: Annotated[str, typer.Option(help="Column with the label, or with the labels of the words.")] = "label",
    kind: Annotated[str | None, typer.Option(help="sentence, pair or tokens; default by the columns.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train so many times.")] = 5,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also from random weights, and with counted words.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for the best network; default DIR/finetuned.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="For example lr=1e-4, epochs=3.")
    ] = None,
) -> None:
    """Teach a trained encoder a task: label sentences, pairs of them, or words."""
    from mlmkit import finetuning

    if kind not in (None, "sentence", "pair", "tokens"):
        raise UserError(f"--kind must be sentence, pair or tokens, got {kind!r}")
    task = finetuning.load_task(
        train,
        validation=validation,
        test=test,
        text=text,
        text_pair=text_pair,
        label=label,
        kind=cast("Literal['sentence', 'pair', 'tokens'] | None", kind),
    )
    config = finetuning.FinetuneConfig().override(settings or [])
    learn = finetuning.compare if compare else finetuning.finetune
    out = out or folder / "finetuned"
    typer.echo(str(task))
    typer.echo(str(learn(folder, task, config, seeds=seeds, out_dir=out, report=typer.echo)))
    typer.echo(f"the network of the best seed and all scores are in {out}")


def import_(
    source: Annotated[str, typer.Argument(metavar="BERT", help="Folder or name of a BERT in Hugging Face's format.")],
    out: Annotated[Path, typer.Option(help="Folder to write; every command of mlmkit opens it.")],
) -> None:
    """Read a BERT made elsewhere and write it as a folder of mlmkit."""
    from mlmkit.checkpoint import save
    from mlmkit.exchange import import_hf

    found = import_hf(source)
    save(found.model, found.tokenizer, out)
    size = found.model.config
    typer.echo(
        f"{size.num_hidden_layers} layers x {size.hidden_size}, {found.tokenizer.vocab_size} tokens, "
        f"{found.model.num_parameters():,} parameters: {out}"
    )
    if found.fresh:
        typer.echo(f"not in the checkpoint, drawn anew: {', '.join(found.fresh)}")


def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder, ready to be uploaded.")],
    license: Annotated[str | None, typer.Option(help="Of the model, in the hub's words: cc-by-4.0, mit, …")] = None,
    language: Annotated[str, typer.Option(help="Of the text.")] = "en",
    name: Annotated[str | None, typer.Option(help="Title of the model card; default: the folder's name.")] = None,
) -> None:
    """Write a trained model with its model card, as `transformers` and the hub take it."""
    from mlmkit.checkpoint import load
    from mlmkit.exchange import export_hf
    from mlmkit.history import History

    model, tokenizer = load(folder)
    history = History.load(folder) if (folder / "metrics.json").is_file() else None
    export_hf(model, tokenizer, out, history=history, license=license, language=language, name=name)
    typer.echo(f"model, tokenizer and README.md are in {out}")
