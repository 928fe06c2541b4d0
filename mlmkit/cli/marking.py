"""Commands for exercises: make what learners open, show how far one is, mark a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlmkit.cli.shared import Root


def exercises(root: Root = Path()) -> None:
    """Make exercises/release, what learners open, from exercises/source: stubs in the place of solutions."""
    from mlmkit.grading.release import release

    for path in release(root):
        typer.echo(f"written: {path}")


def progress() -> None:
    """Show which exercises are passed, per notebook and concept, and what comes next."""
    from mlmkit.grading import progress as so_far

    typer.echo(str(so_far()))


def grade(
    paths: Annotated[list[Path], typer.Argument(help="Notebooks, or folders of notebooks.")],
    out: Annotated[Path, typer.Option(help="Folder for marks and feedback.")],
    jobs: Annotated[int, typer.Option(min=1, help="Submissions at a time.")] = 1,
    csv: Annotated[bool, typer.Option("--csv", help="Also write grades.csv.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse where not all walls can be built.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the random inputs; default: fresh, then remembered.")] = None,
) -> None:
    """Mark submissions, each behind walls; one page of feedback for each learner. Resumes where it stopped."""
    from tqdm.auto import tqdm

    from mlmkit.grading.marking import GRADEBOOK, mark_class

    with tqdm(unit="submission", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = mark_class(paths, out, jobs=jobs, csv=csv, strict=strict, seed=seed, progress=show)
    earned, of = sum(mark.points for mark in found.marks), sum(mark.of for mark in found.marks)
    typer.echo(f"submissions marked: {found.marked}; known and unchanged: {found.known}; seed {found.seed}")
    typer.echo(f"learners: {len(found.pages)}; {earned:g} of {of} points: {out / GRADEBOOK}, {out / 'index.html'}")
    typer.echo(f"protections: {found.protections}")
