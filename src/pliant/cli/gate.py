"""`pliant measure RUN --policy gate`: what the gate of a network chooses, beside every width for all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pliant.cli.networks import beside_table
from pliant.cli.show import headline, note, progress_bar, show

if TYPE_CHECKING:
    from torch import nn

    from pliant.data import ImageData

__all__ = ["show_gate"]


def show_gate(
    run: Path,
    network: nn.Module,
    images: ImageData,
    *,
    budgets: int | Sequence[float],
    name: str | None,
    threads: int | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure the gated network, also with budgets, and every width; write them down and print them."""
    from pliant.measure.gates import measure_gate

    with progress_bar() as on_progress:
        how = {"name": name, "threads": threads, "rounds": rounds}
        table = measure_gate(network, images, budgets=budgets, on_progress=on_progress, **how)
    path = beside_table(run, "gate.json")
    table.save(path)
    show(table.rows if as_json else map(_for_people, table.rows), as_json=as_json, title=headline(table.info))
    for row in (table.gated, *table.budgets):
        note(_verdict(row))
    found = f" Budgets were found on {table.info['found_on_images']} validation images." if table.budgets else ""
    next_ = f"Next: pliant report {run if run.is_dir() else path}"
    note(f"On {table.info['images']} test images.{found} Written to {path}. {next_}")


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line: numbers alone, under headings that say what they are."""
    line = {"subnet": _called(row), "gmacs": row["gmacs"], "acc1": row["acc1"]}
    line |= {"mean ms": row["latency_ms_mean"], "latency_ms_p95": row["latency_ms_p95"]}
    return line | {f"{route} %": 100 * share for route, share in row.get("shares", {}).items()}


def _called(row: Mapping[str, Any]) -> str:
    return f"{row['subnet']} {row['budget']:.4g}" if "budget" in row else row["subnet"]


def _verdict(row: Mapping[str, Any]) -> str:
    """Say what a gated network costs beside the width that is as accurate."""
    equal, gated = row["equal_accuracy"], "The gated network"
    gated += f" with {row['budget']:.4g} GMACs to spend" if "budget" in row else ""
    if equal is None:
        return f"{gated} is more accurate than every static width."
    first, second = equal["between"]
    where = f"between {first} and {second}" if equal["share"] < 1 else second
    said = f"of equal accuracy ({where})" if first != second else f"that is as accurate ({first})"
    return (
        f"{gated} costs {equal['gmacs_ratio']:.2f} of the static width {said} in MACs, "
        f"{equal['latency_ratio']:.2f} in latency."
    )
