"""The command line: what there is, and how errors reach a person."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pliant.cli.demo import demo
from pliant.cli.describe import describe
from pliant.cli.export import export
from pliant.cli.measure import measure
from pliant.cli.pick import pick
from pliant.cli.push import push
from pliant.cli.report import report
from pliant.cli.train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="pliant",
    help="One set of weights, many sub-networks: adapt, train, measure, pick, report, export and push.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (describe, train, measure, pick, export, report, push, demo):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        import pliant

        print(f"pliant {pliant.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; what a user did wrong becomes one line on stderr and exit status 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("PLIANT_DEBUG"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
