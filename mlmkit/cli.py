"""The command line: `mlmkit corpus | pretrain | evaluate | fill-mask | exact | experiment | diagnose | course`.

A user's mistake is answered with one line and exit code 2. A run that fails while running (NaN loss, a notebook with
an error) ends with exit code 1, an interrupted one with 130.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from mlmkit.errors import UserError

app = typer.Typer(
    name="mlmkit",
    help="Pre-train a BERT with masked language modeling and next-sentence prediction, and learn how it works.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `mlmkit pretrain` wrote.")]


@app.command()
def corpus(
    source: Annotated[
        str,
        typer.Argument(
            help="python-docs, a file or folder of .txt/.jsonl/.parquet, hf:NAME[:CONFIG] or exact[:LANGUAGE[:NUMBER]]."
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


@app.command()
def pretrain(
    preset: Annotated[str | None, typer.Option(help="smoke, laptop, exact, gpu or base; default laptop.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Source, as for `mlmkit corpus`; default: the preset's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/PRESET.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the run in this folder.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="For example train.lr=1e-3."),
    ] = None,
) -> None:
    """Pre-train a model; leaves the model, metrics.json and curve.png in the folder."""
    from mlmkit import pretraining

    if resume is not None:
        if preset or corpus or out or settings:
            raise UserError(
                "--resume goes on with a run as it was begun; leave --preset, --corpus, --out and --set away"
            )
        config, folder = _run_config(resume), resume
    else:
        preset = preset or "laptop"
        config, folder = _preset(preset).override(settings or []), out or Path("runs") / preset
        if corpus is not None:
            config = replace(config, data=replace(config.data, corpus=_whole_path(corpus)))
    run = pretraining.pretrain(config, folder, resume=resume is not None, report=lambda e: _say(str(e)))
    last, base = run.history.best if config.train.patience else run.history.last, run.history.baselines
    gain = base.unigram_entropy - last.mlm_loss
    typer.echo(
        f"{run.history.status}: held-out MLM loss {last.mlm_loss:.3f} nats, "
        f"{abs(gain):.2f} {'below' if gain >= 0 else 'above'} the unigram entropy {base.unigram_entropy:.3f}; "
        f"NSP accuracy {last.nsp_accuracy:.1%}; {last.seconds:.0f} s\n"
        f"model, metrics.json and curve.png are in {folder}"
    )


@app.command()
def evaluate(
    folder: Folder,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    corpus: Annotated[str | None, typer.Option(help="Measure on another corpus than the run's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a trained model on held-out text, beside the baselines it must beat."""
    from mlmkit.checkpoint import load
    from mlmkit.evaluation import evaluate as measure
    from mlmkit.history import History
    from mlmkit.preparation import prepare

    if split not in ("validation", "test"):
        raise UserError(f"--split must be validation or test, got {split!r}")
    config = _run_config(folder)
    if corpus is not None:
        config = replace(config, data=replace(config.data, corpus=corpus))
    model, _ = load(folder)
    data = prepare(config, folder)
    trained_on = History.load(folder).corpus["fingerprint"]
    if corpus is None and data.corpus.fingerprint != trained_on:
        raise UserError(
            f"the corpus has changed since the run began (fingerprint {trained_on}, now {data.corpus.fingerprint}): "
            f"its {split} part may hold text of the training; restore it, or name a corpus with --corpus"
        )
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


@app.command("fill-mask")
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


@app.command()
def experiment(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML: title, question, preset, [set], [grid], seeds.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the experiment; default runs/FILE.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes at a time; default: as many as cores.")] = None,
) -> None:
    """Train a grid of configurations with several seeds and compare them; started again, it goes on."""
    from mlmkit.experiments import read_experiment, run_experiment
    from mlmkit.plots import save_figure

    folder = out or Path("runs") / file.stem
    result = run_experiment(read_experiment(file), folder, jobs=jobs)
    (folder / "table.txt").write_text(result.table() + "\n", encoding="utf-8")
    for metric in result.experiment.metrics:
        save_figure(result.plot(metric), folder / f"{metric}.png")
    typer.echo(f"{result.table()}\n\nthe table, a picture of each metric and all runs are in {folder}")
    if result.failures:
        raise typer.Exit(1)


exact_app = typer.Typer(help="A small language of which everything is known.")
app.add_typer(exact_app, name="exact")
LanguageName = Annotated[str, typer.Argument(metavar="LANGUAGE", help="market, harbor, forest or tiny.")]


@exact_app.command("floor")
def exact_floor(
    language: LanguageName = "market",
    pairs: Annotated[int, typer.Option(min=2, help="Draw so many pairs; the error falls as 1/√pairs.")] = 4096,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    rate: Annotated[float, typer.Option(help="Share of the words that are selected.")] = 0.15,
    mask: Annotated[float, typer.Option(help="Share of the selected that become [MASK].")] = 0.8,
    random: Annotated[float, typer.Option(help="Share of the selected that become a random word.")] = 0.1,
    keep: Annotated[float, typer.Option(help="Share of the selected that stay.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute the lowest possible losses, and what predictors that see less can reach."""
    from mlmkit.exact import floor_report
    from mlmkit.language import language_named
    from mlmkit.masking import MaskingPolicy

    policy = MaskingPolicy(rate, mask, random, keep, count="binomial")
    report = floor_report(language_named(language), policy, pairs, seed)
    typer.echo(json.dumps(report.to_dict()) if as_json else str(report))


@exact_app.command("show")
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


@app.command()
def diagnose(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that `mlmkit pretrain` or `mlmkit.record` wrote.")
    ],
    corpus: Annotated[
        str | None, typer.Option(help="The documents, where they are not to be found under the run's own name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name the faults of a run, each with its evidence and what to change; exit code 1 if there is one."""
    from mlmkit.diagnosis import diagnose as look_into

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that `mlmkit pretrain --out` wrote")
    found = look_into(folder, corpus)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    if found:
        raise typer.Exit(1)


@app.command()
def course(
    notebooks: Annotated[list[Path] | None, typer.Argument(help="Notebooks to run; default: all, in order.")] = None,
    preset: Annotated[str | None, typer.Option(help="Preset handed to the notebooks that train.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the executed notebooks.")] = Path("build"),
) -> None:
    """Run the notebooks with papermill and print what was learned."""
    from rich.console import Console

    from mlmkit.course import run_course

    console = Console()
    report = run_course(notebooks or None, out, preset=preset, console=console)
    report.render(console)
    if not report.ok:
        raise typer.Exit(1)


def _whole_path(source: str) -> str:
    """Write a local path out in full, so that the run can be resumed from another folder."""
    return str(Path(source).resolve()) if Path(source).exists() and source != "python-docs" else source


def _say(line: str) -> None:
    """Print a line above a progress bar."""
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def _preset(name: str):  # type: ignore[no-untyped-def]  # RunConfig; annotating it would import torch at start-up
    from mlmkit.config import PRESETS

    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _run_config(folder: Path):  # type: ignore[no-untyped-def]  # as above
    from mlmkit.checkpoint import read_json
    from mlmkit.config import RunConfig

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that `mlmkit pretrain --out` wrote")
    return RunConfig.from_dict(read_json(folder / "run.json"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failed run, 2 for a user's mistake, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        return app(args=arguments, prog_name="mlmkit", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        code, message = _explain(error)
        if message is None:
            raise
        typer.echo(f"mlmkit: {' '.join(message.split())}", err=True)
        return code


def _explain(error: Exception) -> tuple[int, str | None]:
    """Exit code and one line for an expected failure; None for a bug, which deserves its traceback."""
    if isinstance(error, UserError):
        return 2, str(error)
    if hasattr(error, "format_message"):  # a mistyped command line
        return 2, f"{error.format_message()} (see mlmkit --help)"
    from mlmkit.pretraining import Interrupted, TrainingDiverged

    if isinstance(error, Interrupted):
        return 130, str(error)
    if isinstance(error, TrainingDiverged):
        return 1, str(error)
    return 1, None
