"""`pliant measure RUN --policy gate`: what the gate of a network chooses, beside every width for all images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pliant.cli.networks import beside_table
from pliant.cli.show import headline, note, progress_bar, show

if TYPE_CHECKING:
    from torch import nn

    from pliant.data import ImageData
    from pliant.measure.gate_table import GateTable

__all__ = ["show_gate"]


def show_gate(
    run: Path,
    network: nn.Module,
    images: ImageData,
    *,
    name: str | None,
    threads: int | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure the gated network and every width, write them down and print them."""
    from pliant.measure.gates import measure_gate

    with progress_bar() as on_progress:
        table = measure_gate(network, images, name=name, threads=threads, rounds=rounds, on_progress=on_progress)
    path = beside_table(run, "gate.json")
    table.save(path)
    show(table.rows if as_json else map(_for_people, table.rows), as_json=as_json, title=headline(table.info))
    note(_verdict(table))
    note(
        f"On {table.info['images']} test images. Written to {path}. Next: pliant report {run if run.is_dir() else path}"
    )


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line: numbers alone, under headings that say what they are."""
    line = {key: row[key] for key in ("subnet", "gmacs", "acc1")}
    line |= {"mean ms": row["latency_ms_mean"], "latency_ms_p95": row["latency_ms_p95"]}
    return line | {f"{route} %": 100 * share for route, share in row.get("shares", {}).items()}


def _verdict(table: GateTable) -> str:
    """Say what the gated network costs beside the width that is as accurate."""
    equal = table.equal_accuracy
    if equal is None:
        return "The gated network is more accurate than every static width."
    first, second = equal["between"]
    where = f"between {first} and {second}" if equal["share"] < 1 else second
    said = f"of equal accuracy ({where})" if first != second else f"that is as accurate ({first})"
    return (
        f"The gated network costs {equal['gmacs_ratio']:.2f} of the static width {said} in MACs, "
        f"{equal['latency_ratio']:.2f} in latency."
    )
