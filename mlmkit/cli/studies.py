"""`experiment`, `diagnose`, `course`, `syllabus`: many runs, what is wrong with one, and all notebooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mlmkit.cli.shared import AsJson, Root
from mlmkit.errors import UserError


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


def diagnose(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that `mlmkit pretrain` or `mlmkit.record` wrote.")
    ],
    corpus: Annotated[
        str | None, typer.Option(help="The documents, where they are not to be found under the run's own name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name the faults of a run, each with its evidence and what to change; exit code 1 if there is one."""
    from mlmkit.diagnosis import diagnose as look_into

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that `mlmkit pretrain --out` wrote")
    found = look_into(folder, corpus)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    if found:
        raise typer.Exit(1)


def course(
    notebooks: Annotated[list[Path] | None, typer.Argument(help="Notebooks to run; default: all, in order.")] = None,
    preset: Annotated[str | None, typer.Option(help="Preset handed to the notebooks that train.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the executed notebooks.")] = Path("build"),
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time, each with its share of the cores.")] = 1,
) -> None:
    """Run the notebooks with papermill and print what was learned."""
    from rich.console import Console

    from mlmkit.course import run_course

    console = Console()
    report = run_course(notebooks or None, out, preset=preset, console=console, jobs=jobs)
    report.render(console)
    if not report.ok:
        raise typer.Exit(1)


def syllabus(
    root: Root = Path(),
    out: Annotated[Path | None, typer.Option(help="Write the page there instead of printing the table.")] = None,
) -> None:
    """Show what is taught, where, what computes it, and which exercises test it."""
    from mlmkit.syllabus import read_syllabus, syllabus_page

    if out is None:
        typer.echo(read_syllabus(root).to_markdown())
    else:
        out.write_text(syllabus_page(read_syllabus(root)), encoding="utf-8")
        typer.echo(f"written: {out}")
