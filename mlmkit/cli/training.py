"""`corpus`, `pretrain`, `evaluate`, `fill-mask`: from text to a trained model and its answers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from mlmkit.cli.shared import AsJson, Folder, Settings, Sources, preset_named, run_config, say, whole_path, whole_source
from mlmkit.errors import UserError


def corpus(
    source: Annotated[
        str,
        typer.Argument(
            help="python-docs, a file or folder of .txt/.jsonl/.parquet, hf:NAME[:CONFIG], several as 'A + B', or "
            "exact[:LANGUAGE[:NUMBER]]."
        ),
    ] = "python-docs",
    show: Annotated[int, typer.Option(min=0, help="Print so many documents of the training part.")] = 3,
    held_out: Annotated[float, typer.Option(help="Share of the text in validation, and again in test.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the split.")] = 0,
) -> None:
    """Load a corpus, print what it holds and how much of the held-out part also occurs in training."""
    from mlmkit.corpus import load_corpus

    found = load_corpus(source, seed=seed, held_out=held_out)
    typer.echo(f"{found.name}  fingerprint {found.fingerprint}\n{found.report}")
    train = found["train"]
    for row in train.select(range(min(show, len(train)))):
        typer.echo(f"\n[{row['source']}]")
        for sentence in row["sentences"]:
            typer.echo(f"  {sentence}")


def pretrain(
    preset: Annotated[str | None, typer.Option(help="smoke, laptop, exact, gpu or base; default laptop.")] = None,
    corpus: Sources = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="BERT", help="Go on training this BERT, a folder or a name; its size and words are kept."),
    ] = None,
    new_words: Annotated[
        int | None, typer.Option(min=0, help="With --start: give so many words of the corpus their own token.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/PRESET.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the run in this folder.")] = None,
    settings: Settings = None,
) -> None:
    """Pre-train a model; leaves the model, metrics.json and curve.png in the folder."""
    from mlmkit import pretraining

    if resume is not None:
        if preset or corpus or start or new_words or out or settings:
            raise UserError("--resume goes on with a run as it was begun; leave all other options away")
        config, folder = run_config(resume), resume
    else:
        preset = preset or "laptop"
        config, folder = preset_named(preset), out or Path("runs") / preset
        if corpus:
            config = replace(config, data=replace(config.data, corpus=whole_source(corpus)))
        if start is not None:
            config = replace(config, start=replace(config.start, checkpoint=whole_path(start)))
        if new_words is not None:
            config = replace(config, start=replace(config.start, new_words=new_words))
        config = config.override(settings or [])
    run = pretraining.pretrain(config, folder, resume=resume is not None, report=lambda e: say(str(e)))
    last, base = run.history.best if config.train.patience else run.history.last, run.history.baselines
    gain = base.unigram_entropy - last.mlm_loss
    typer.echo(
        f"{run.history.status}: held-out MLM loss {last.mlm_loss:.3f} nats, "
        f"{abs(gain):.2f} {'below' if gain >= 0 else 'above'} the unigram entropy {base.unigram_entropy:.3f}; "
        f"NSP accuracy {last.nsp_accuracy:.1%}; {last.seconds:.0f} s\n"
        f"model, metrics.json and curve.png are in {folder}"
    )


def evaluate(
    folder: Folder,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    corpus: Annotated[str | None, typer.Option(help="Measure on another corpus than the run's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a trained model on held-out text, beside the baselines it must beat."""
    from mlmkit.checkpoint import load
    from mlmkit.evaluation import evaluate as measure
    from mlmkit.preparation import reopen

    if split not in ("validation", "test"):
        raise UserError(f"--split must be validation or test, got {split!r}")
    run_config(folder)  # a folder without a run is told before anything is read
    model, _ = load(folder)
    data = reopen(folder, corpus)
    metrics, base = measure(model, data.held_out(split)), data.baselines(split)
    if as_json:
        typer.echo(json.dumps({"split": split, **metrics.to_dict(), "baselines": asdict(base)}))
        return
    known = base.mlm_floor is not None
    floor = f", floor {base.mlm_floor:.3f}" if known else ""
    nsp_floor = f", floor {base.nsp_floor:.3f}" if known else ""
    optimum = f", at best {base.nsp_optimum:.1%}" if known else ""
    typer.echo(
        f"{split} part of {data.corpus.name} ({metrics.pairs} pairs, {metrics.selected} selected positions)\n"
        f"  MLM loss      {metrics.mlm_loss:7.3f} nats   ln V {base.uniform:.3f}, unigram entropy "
        f"{base.unigram_entropy:.3f}, bigram table {base.bigram_cross_entropy:.3f}{floor}\n"
        f"  MLM accuracy  {metrics.mlm_accuracy:7.1%}\n"
        f"  NSP loss      {metrics.nsp_loss:7.3f} nats   ln 2 {base.coin:.3f}{nsp_floor}\n"
        f"  NSP accuracy  {metrics.nsp_accuracy:7.1%}        a coin 50.0%{optimum}"
    )


def fill_mask(
    folder: Folder,
    text: Annotated[str, typer.Argument(help='A sentence with [MASK], for example "returns a new [MASK]".')],
    top: Annotated[int, typer.Option(min=1, help="Candidates to show for each mask.")] = 5,
) -> None:
    """Predict the masked words of a sentence."""
    from mlmkit.checkpoint import load
    from mlmkit.evaluation import fill_mask as fill

    model, tokenizer = load(folder)
    for number, candidates in enumerate(fill(model, tokenizer, text, top), start=1):
        typer.echo(f"[MASK] {number}")
        for candidate in candidates:
            typer.echo(f"  {candidate.probability:6.1%}  {candidate.token}")
