"""`pliant pick`: the best sub-network for a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pliant.cli.show import note, show

if TYPE_CHECKING:
    from pliant.measure.table import Table
    from pliant.policy.budget import Budget

__all__ = ["load_table", "pick"]


def pick(
    run: Annotated[Path, typer.Argument(help="A run folder that was measured, or its table.json.")],
    latency_ms: Annotated[float | None, typer.Option(help="At most so many milliseconds (median).")] = None,
    latency_ms_p95: Annotated[float | None, typer.Option(help="Likewise, the 95th percentile as measured.")] = None,
    slo_ms: Annotated[
        float | None, typer.Option(help="At most so many milliseconds, with a margin that holds: see --percentile.")
    ] = None,
    percentile: Annotated[
        int | None, typer.Option(help="Of --slo-ms, whose upper confidence bound counts: 50, 75, 90, 95 or 99; 95.")
    ] = None,
    energy_mj: Annotated[float | None, typer.Option(help="At most so many millijoules an image.")] = None,
    gmacs: Annotated[float | None, typer.Option(help="At most so many 10^9 multiply-accumulates.")] = None,
    params_m: Annotated[float | None, typer.Option(help="At most so many 10^6 active parameters.")] = None,
    peak_memory_mb: Annotated[float | None, typer.Option(help="At most so many 10^6 bytes.")] = None,
    acc1: Annotated[float | None, typer.Option(help="At least this top-1 accuracy in percent.")] = None,
    other_machine: Annotated[
        bool, typer.Option("--other-machine", help="Also by times, energy and memory of another machine.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """Pick the best sub-network that meets every budget given."""
    table = load_table(run)
    of_machine: Budget = {
        "latency_ms": latency_ms,
        "latency_ms_p95": latency_ms_p95,
        "slo_ms": slo_ms,
        "energy_mj": energy_mj,
        "peak_memory_mb": peak_memory_mb,
    }
    of_network: Budget = {"gmacs": gmacs, "params_m": params_m, "acc1": acc1}
    if not other_machine and any(limit is not None for limit in of_machine.values()):
        _refuse_other_machine(table, run)
    budget: Budget = {**of_machine, "percentile": percentile, **of_network}
    show([table.pick(**budget)], as_json=json)


def _refuse_other_machine(table: Table, run: Path) -> None:
    """Refuse a table of another machine, and tell of another PyTorch, which may be faster or slower."""
    import torch

    where = table.other_machine()
    if where:
        raise ValueError(
            f"this table was measured {where}: measure here with `pliant measure {run}`, "
            "or pick by it all the same with --other-machine"
        )
    measured_with, here = table.info.get("versions", {}).get("torch"), str(torch.__version__)
    if measured_with and measured_with != here:
        note(f"Measured with PyTorch {measured_with}; here is {here}, which may be faster or slower.")


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
