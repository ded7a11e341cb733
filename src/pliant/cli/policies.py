"""`pliant measure RUN --policy ...`: what policies give for budgets, beside the table of all sub-networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pliant.cli.networks import beside_table
from pliant.cli.show import headline, note, progress_bar, show

if TYPE_CHECKING:
    from torch import nn

    from pliant.data import ImageData

__all__ = ["show_policies"]


def show_policies(
    run: Path,
    network: nn.Module,
    images: ImageData,
    *,
    budgets: int | Sequence[float],
    confidence: str,
    calibrate: bool,
    subnets: Sequence[str],
    name: str | None,
    threads: int | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Find policies, measure them, write them down and print them."""
    from pliant.measure.policies import measure_policies

    with progress_bar() as on_progress:
        table = measure_policies(
            network,
            images,
            budgets=budgets,
            subnets=subnets or None,
            measure=confidence,
            calibrate=calibrate,
            name=name,
            threads=threads,
            rounds=rounds,
            on_progress=on_progress,
        )
    path = beside_table(run, "policies.json")
    table.save(path)
    show(table.rows if as_json else map(_for_people, table.rows), as_json=as_json, title=headline(table.info))
    note(
        f"GMACs, accuracy and shares on {table.info['images']} test images; thresholds from "
        f"{table.info['found_on_images']} validation images, {confidence}. Written to {path}. "
        f"Next: pliant report {run if run.is_dir() else path}"
    )


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line: numbers alone, under headings that say what they are."""
    shares = {f"{subnet} %": 100 * share for subnet, share in row["shares"].items()}
    line = {"subnet": f"up to {row['budget']:.4g} GMACs", "gmacs": row["gmacs"], "acc1": row["acc1"]}
    if "paper_gmacs" in row:
        line["paper_gmacs"] = row["paper_gmacs"]
    if "latency_ms_mean" in row:
        line |= {"mean ms": row["latency_ms_mean"], "latency_ms_p95": row["latency_ms_p95"]}
    return line | shares
