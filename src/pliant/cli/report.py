"""`pliant report`: a page and plots of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="A run folder that was measured, or a file that measure wrote.")],
    baseline: Annotated[
        list[Path] | None,
        typer.Option(help="A run folder of a network that was trained individually; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page; default: report.html in the run folder, or beside the file.")
    ] = None,
) -> None:
    """Write a page and its charts: accuracy over MACs and latency, training curves, who leaves where, the tables."""
    from pliant.report.page import report as write

    print(write(run, baselines=baseline or (), out=out))
