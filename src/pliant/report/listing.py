"""The table and the lists of facts on the page, as texts that the template only has to set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pliant.measure.table import DETAILS
from pliant.report.content import Run
from pliant.report.scatter import Cost
from pliant.report.words import split_name
from pliant.train.recipe import Recipe

__all__ = [
    "Column",
    "Facts",
    "Line",
    "cells",
    "columns",
    "cost_column",
    "fixed",
    "lines",
    "measured_how",
    "on_which_images",
    "trained_how",
    "where_and_when",
]

Row = Mapping[str, Any]
Facts = list[tuple[str, str]]

_LATENCIES = {
    "latency_ms_low": "median at least",
    "latency_ms_high": "at most",
    "latency_ms_p95": "95th percentile",
}


@dataclass(frozen=True)
class Column:
    """A column of numbers: `unit` stands below the heading."""

    key: str
    heading: str
    unit: str
    write: Callable[[Any], str]


@dataclass(frozen=True)
class Line:
    """A row of the table: name, remark, and for each column its text and whether it is best for its cost."""

    name: str
    remark: str
    kind: str
    cells: Sequence[tuple[str, bool]]


def columns(run: Run, costs: Mapping[str, Cost]) -> list[Column]:
    """Return a column for everything that was measured, in the order people read it."""
    milliseconds = fixed(costs["latency_ms"].digits if "latency_ms" in costs else 2)
    known = [
        Column("acc1", "top-1", "%", "{:.2f}".format),
        Column("loss_to_largest", f"against {run.largest['subnet']}", "points", _signed),
        *(cost_column(cost) for cost in costs.values()),
        *(Column(key, heading, "ms", milliseconds) for key, heading in _LATENCIES.items()),
        Column("energy_mj", "energy", "mJ", "{:.3g}".format),
        Column("params_m", "parameters", "million", "{:.2f}".format),
        Column("peak_memory_mb", "peak memory", "MB", fixed(1 if run.largest.get("peak_memory_mb", 0) < 100 else 0)),
        Column("acc5", "top-5", "%", "{:.2f}".format),
        Column("operators", "operators", "run", "{:,.0f}".format),
        Column("file_mb", "file", "MB", "{:.2f}".format),
        Column("precision", "precision", "", str),
    ]
    present = {key for row in (*run.rows, *(alone.row for alone in run.alone)) for key in row}
    present -= {"subnet", *DETAILS}
    if "acc1" in run.largest and len(run.rows) > 1:
        present.add("loss_to_largest")
    extra = [Column(key, key.replace("_", " "), "", "{:.3g}".format) for key in sorted(present)]
    return [column for column in known if column.key in present] + [
        column for column in extra if column.key not in {known_column.key for known_column in known}
    ]


def lines(run: Run, shown: Sequence[Column]) -> list[Line]:
    """Return the rows of the table, sub-networks first, then the networks that were trained alone."""
    best = {key: run.front(key) for key in ("gmacs", "latency_ms")} if len(run.rows) > 1 else {}
    result = []
    for row in run.rows:
        marked = {key for key, front in best.items() if row["subnet"] in front}
        result.append(
            _line(row, row["subnet"], _remark(run, row["subnet"]), _kind(run, row["subnet"]), marked, run, shown)
        )
    for alone in run.alone:
        row = alone.row if alone.same_timing else {k: v for k, v in alone.row.items() if "latency" not in k}
        result.append(_line(row, alone.subnet, "trained alone", "alone", set(), run, shown))
    return result


def measured_how(run: Run) -> Facts:
    """Say where and how the numbers of the table came about."""
    info = run.table.info
    facts: Facts = []
    if info.get("data"):
        images = f"{info['images']:,} " if info.get("images") else ""
        facts.append(("Accuracy", f"on {images}{info.get('split', '')} images of {info['data']}".replace("  ", " ")))
    if info.get("recalibrated_on"):
        facts.append(
            ("Norms", f"statistics of untrained sub-networks from {info['recalibrated_on']:,} training images")
        )
    if any("latency_ms" in row for row in run.rows):
        facts.append(("Latency", _latency_how(info, len(run.rows))))
    return facts + where_and_when(info)


def cells(values: Row, shown: Sequence[Column]) -> list[tuple[str, bool]]:
    """Write a row of plain cells; empty where it has no such value."""
    return [(column.write(values[column.key]) if column.key in values else "", False) for column in shown]


def on_which_images(info: Mapping[str, Any]) -> Facts:
    """Say on which images something that chooses by itself was measured; nothing where that is not known."""
    if not info.get("data"):
        return []
    images = f"{info['images']:,} " if info.get("images") else ""
    return [("Accuracy", f"on {images}{split_name(info)} of {info['data']}; so are MACs and shares")]


def where_and_when(info: Mapping[str, Any]) -> Facts:
    """Say what else belongs to every measurement: size of images, device, versions, date."""
    facts: Facts = []
    if info.get("runtime"):
        facts.append(("Runtime", str(info["runtime"])))
    if info.get("image_size"):
        facts.append(("Images", f"{info['image_size']} × {info['image_size']} pixels"))
    device = [str(info[key]) for key in ("device", "cpu") if info.get(key)]
    if device:
        facts.append(("Device", ", ".join(device)))
    if info.get("platform"):
        facts.append(("System", str(info["platform"])))
    if isinstance(info.get("versions"), Mapping):
        facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in info["versions"].items())))
    if info.get("date"):
        facts.append(("Date", str(info["date"]).replace("T", " ").replace("+00:00", " UTC")))
    return facts


def trained_how(run: Run) -> Facts:
    """Say how the network was trained, as far as the run folder tells."""
    facts: Facts = []
    recipe = run.recipe
    if recipe is not None:
        start = "the library's pretrained weights" if recipe.model.pretrained else "random weights"
        facts.append(("Network", f"{recipe.model.name}, from {start}"))
        facts.append(("Data", recipe.data.source))
        facts += [(name, _in_phases(recipe, say)) for name, say in _OF_A_PHASE.items()]
        facts.append(("Precision", "float32" if recipe.precision == 32 else "bfloat16, mixed"))
        facts.append(("Seed", str(recipe.seed)))
    speeds = [row["images_per_s"] for row in run.epochs if "images_per_s" in row]
    seconds = sum(row.get("seconds", 0.0) for row in run.epochs)
    # The curves and times in a run folder are those of its last phase.
    of = " of the last phase" if recipe is not None and recipe.then else ""
    if speeds:
        facts.append((f"Speed{of}", f"{median(speeds):,.0f} images/s"))
    if seconds:
        facts.append((f"Time{of}", _duration(seconds)))
    return facts


def _in_phases(recipe: Recipe, say: Callable[[Recipe], str]) -> str:
    """Say something of every phase of a training, once where all are alike."""
    return ", then ".join(dict.fromkeys(map(say, recipe.phases)))


def _length(recipe: Recipe) -> str:
    return f"{recipe.epochs} epochs, batches of {recipe.batch_size} images"


def _objective(recipe: Recipe) -> str:
    if recipe.only or recipe.adapt is None:
        return f"{recipe.only or 'the network'} alone, from the labels"
    return f"plan {recipe.plan.name}" + (", classifiers alone" if recipe.learns == "classifiers" else "")


def _optimizer(recipe: Recipe) -> str:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    rate = f"learning rate {optimizer.lr:g} ({schedule.name.replace('_', ' ')})"
    return f"{optimizer.name}, {rate}, weight decay {optimizer.weight_decay:g}"


_OF_A_PHASE = {"Length": _length, "Objective": _objective, "Optimizer": _optimizer}


def cost_column(cost: Cost) -> Column:
    """Return the column of a cost, in its unit."""

    def write(value: float) -> str:
        return f"{value * cost.factor:.{cost.digits}f}"

    if cost.key == "gmacs":
        return Column(cost.key, "MACs", cost.unit.split()[0], write)
    return Column(cost.key, "latency", cost.unit, write)


def _line(row: Row, name: str, remark: str, kind: str, marked: set[str], run: Run, shown: Sequence[Column]) -> Line:
    values = dict(row)
    if "acc1" in row and "acc1" in run.largest:
        values["loss_to_largest"] = row["acc1"] - run.largest["acc1"]
    cells = [
        (column.write(values[column.key]) if column.key in values else "", column.key in marked) for column in shown
    ]
    return Line(name, remark, kind, cells)


def _remark(run: Run, subnet: str) -> str:
    if run.trained is None:
        return ""
    return "trained" if subnet in run.trained and len(run.rows) > 1 else ""


def _kind(run: Run, subnet: str) -> str:
    return "trained" if run.trained is not None and subnet in run.trained else "own"


def fixed(digits: int) -> Callable[[Any], str]:
    """Return what writes numbers with so many decimals."""
    return f"{{:.{digits}f}}".format


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if round(value, 2) else "0.00"


def _latency_how(info: Mapping[str, Any], networks: int) -> str:
    parts = []
    if info.get("batch_size"):
        parts.append(f"batches of {info['batch_size']}")
    if info.get("threads"):
        parts.append(f"{info['threads']} thread{'s' if info['threads'] != 1 else ''}")
    if info.get("dtype"):
        parts.append(str(info["dtype"]))
    rounds = f"median of {info['rounds']} rounds" if info.get("rounds") else "median"
    turns = " in which the sub-networks take turns" if networks > 1 else ""
    return f"{rounds}{turns}; {', '.join(parts)}".removesuffix("; ")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
