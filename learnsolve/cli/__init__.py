"""The command ``learnsolve``: one file for each of its commands."""

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from learnsolve import __version__
from learnsolve.cli import (
    batch,
    complete,
    demo,
    doctor,
    dynamics,
    forecast,
    linearize,
    merge,
    methods,
    mri,
    sequence,
    solve,
    train,
    tune,
)
from learnsolve.cli.common import INTERRUPTED, Commands, say_error, wrong_usage

app = typer.Typer(
    cls=Commands,
    help="Solve linear systems, complete matrices, reconstruct scans: a learned part proposes, a classical "
    "iteration certifies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(solve.solve)
app.command()(methods.methods)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(complete.complete)
app.command()(tune.tune)
app.command()(linearize.linearize)
app.command()(merge.merge)
app.command()(forecast.forecast)
app.add_typer(batch.app, name="batch")
app.add_typer(train.app, name="train")
app.add_typer(mri.app, name="mri")
app.add_typer(sequence.app, name="sequence")
app.add_typer(dynamics.app, name="dynamics")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"learnsolve {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        say_error("interrupted")
        code = INTERRUPTED
    except TyperException as error:
        code = wrong_usage(error)
    sys.exit(code if isinstance(code, int) else 0)
