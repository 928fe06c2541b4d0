"""The command line: `mlmkit --help` lists the commands, each of which is a function of a module here.

A user's mistake is answered with one line and exit code 2. A run that fails while running (NaN loss, a notebook with
an error) ends with exit code 1, an interrupted one with 130.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from mlmkit.cli import languages, marking, studies, training, using
from mlmkit.errors import UserError

app = typer.Typer(
    name="mlmkit",
    help="Pre-train a BERT with masked language modeling and next-sentence prediction, and learn how it works.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(training.corpus)
app.command()(training.pretrain)
app.command()(training.evaluate)
app.command("fill-mask")(training.fill_mask)
app.command()(using.inspect)
app.command()(using.finetune)
app.command("import")(using.import_)
app.command()(using.export)
app.add_typer(languages.app, name="exact")
app.command()(studies.experiment)
app.command()(studies.diagnose)
app.command()(studies.course)
app.command()(studies.syllabus)
app.command()(marking.exercises)
app.command()(marking.progress)
app.command()(marking.grade)


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
