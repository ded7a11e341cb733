"""`pliant pick`: the best sub-network for a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pliant.cli.show import show

if TYPE_CHECKING:
    from pliant.measure.table import Table

__all__ = ["load_table", "pick"]


def pick(
    run: Annotated[Path, typer.Argument(help="A run folder that was measured, or its table.json.")],
    latency_ms: Annotated[float | None, typer.Option(help="At most so many milliseconds (median).")] = None,
    gmacs: Annotated[float | None, typer.Option(help="At most so many 10^9 multiply-accumulates.")] = None,
    params_m: Annotated[float | None, typer.Option(help="At most so many 10^6 active parameters.")] = None,
    peak_memory_mb: Annotated[float | None, typer.Option(help="At most so many 10^6 bytes.")] = None,
    acc1: Annotated[float | None, typer.Option(help="At least this top-1 accuracy in percent.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """Pick the best sub-network that meets every budget given."""
    row = load_table(run).pick(
        latency_ms=latency_ms, gmacs=gmacs, params_m=params_m, peak_memory_mb=peak_memory_mb, acc1=acc1
    )
    show([row], as_json=json)


def load_table(run: Path) -> Table:
    """Read the table of a run folder or of a checkpoint file, or say how to get one."""
    from pliant.cli.networks import table_path
    from pliant.measure.table import Table
    from pliant.repository import is_repository

    measured = run.is_dir() or is_repository(run) or (run.is_file() and run.suffix != ".json")
    path = table_path(run) if measured else run
    if measured and not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: measure first with `pliant measure {run} --data ...`")
    return Table.load(path)
