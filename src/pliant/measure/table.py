"""`Table`: what was measured of every sub-network, as rows that other rooms and other programs read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, Unpack

from pliant.core.files import read_text, write_text
from pliant.measure.environment import other_machine
from pliant.policy.budget import Budget, choose

__all__ = ["DETAILS", "Table", "TableError"]

FORMAT_VERSION = 1

# Columns in the order people read them: key, heading, decimals. Those without a heading are for programs alone; unknown
# keys follow as they are.
_COLUMNS = {
    "subnet": ("sub-network", 0),
    "precision": ("precision", 0),
    "gmacs": ("GMACs", 3),
    "params_m": ("params M", 3),
    "paper_gmacs": ("paper's GMACs", 3),
    "paper_params_m": ("paper's params M", 3),
    "acc1": ("top-1 %", 2),
    "acc5": ("top-5 %", 2),
    "latency_ms": ("latency ms", 2),
    "latency_ms_low": ("low ms", 2),
    "latency_ms_high": ("high ms", 2),
    "latency_ms_p75": ("", 2),
    "latency_ms_p75_high": ("", 2),
    "latency_ms_p90": ("", 2),
    "latency_ms_p90_high": ("", 2),
    "latency_ms_p95": ("p95 ms", 2),
    "latency_ms_p95_high": ("", 2),
    "latency_ms_p99": ("", 2),
    "latency_ms_p99_high": ("", 2),
    "energy_mj": ("energy mJ", 2),
    "peak_memory_mb": ("memory MB", 1),
    "operators": ("operators", 0),
    "file_mb": ("file MB", 2),
}
# What a person is not shown: it is there to choose by.
DETAILS = frozenset(key for key, (heading, _) in _COLUMNS.items() if not heading)


_TEXTS = ("subnet", "precision")
"""What is no number in a row."""


class TableError(ValueError):
    """A table that cannot be read or used; one line."""


@dataclass
class Table:
    """One row for each sub-network, smallest first, and where and how they were measured.

    Attributes:
        rows: mappings with `subnet` and what was measured of `gmacs`, `params_m`, `acc1` and `acc5`
            (percent), `latency_ms` (median) with the percentiles and bounds of
            `pliant.policy.percentiles.summarise_ms`, `energy_mj` (10^-3 joules an image),
            `peak_memory_mb` (10^6 bytes), `operators`, and of exported files `file_mb` (10^6 bytes) and
            `precision` (a text). What was not measured is absent, never zero; values that are not finite
            numbers are no measurements and are left out.
        info: the circumstances, such as model, data, device, threads, versions and date.

    Raises:
        TableError: a row names no sub-network.
    """

    rows: list[dict[str, Any]]
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = [_clean(row) for row in self.rows]

    def pick(self, **budget: Unpack[Budget]) -> dict[str, Any]:
        """Return the row of the best sub-network that meets every budget.

        Args:
            **budget: `latency_ms`, `latency_ms_p95`, `slo_ms` with `percentile`, `energy_mj`, `gmacs`, `params_m`,
                `peak_memory_mb` and `acc1`, as `pliant.policy.budget.Budget` describes them; which sub-network is
                the best says `pliant.policy.budget.choose`.

        Raises:
            BudgetError: (a ValueError) the budget makes no sense, or no sub-network meets it.
        """
        return dict(choose(self.rows, **budget))

    def pareto(self, cost: str | Sequence[str] = "gmacs", gain: str = "acc1") -> list[dict[str, Any]]:
        """Return the rows that no other row beats, cheapest first.

        A row is beaten by one that costs no more, in none of the costs, and gains no less. Rows without one of the
        quantities are left out; of rows equal in all the first stays.

        Args:
            cost: one key, or several.
            gain: key.

        Raises:
            TableError: no row has all these quantities.
        """
        costs = [cost] if isinstance(cost, str) else list(cost)
        complete = [row for row in self.rows if all(key in row for key in (*costs, gain))]
        if not complete:
            wanted = f"both {costs[0]} and {gain}" if len(costs) == 1 else f"all of {', '.join([*costs, gain])}"
            raise TableError(f"no row has {wanted}; this table has {', '.join(self.columns)}")
        front: list[dict[str, Any]] = []
        # In this order a row can only be beaten by one before it.
        for row in sorted(complete, key=lambda row: (*(row[key] for key in costs), -row[gain])):
            if not any(other[gain] >= row[gain] and all(other[key] <= row[key] for key in costs) for other in front):
                front.append(dict(row))
        return front

    def other_machine(self) -> str:
        """Say by which processor or accelerator this table is of another machine; empty: of this one, or unknown."""
        return other_machine(self.info)

    @property
    def columns(self) -> list[str]:
        """The keys that at least one row has, in the order people read them."""
        present = {key: None for row in self.rows for key in row}
        return [key for key in _COLUMNS if key in present] + [key for key in present if key not in _COLUMNS]

    def to_json(self) -> str:
        """Return the table as the JSON text that `save` writes: version, info and rows."""
        document = {"version": FORMAT_VERSION, "info": self.info, "rows": self.rows}
        return json.dumps(document, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` returned.

        Raises:
            TableError: not such a text, or one of a newer version.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise TableError(f"not a table: {error}") from None
        match document:
            case {"version": int(version)} if version > FORMAT_VERSION:
                raise TableError(f"table version {version} is newer than this pliant knows ({FORMAT_VERSION})")
            case {"version": int(), "info": dict(info), "rows": list(rows)}:
                return cls(rows, info)
        raise TableError("not a table: expected a JSON object with version, info and rows")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON; a file that was there stays whole until the new one is complete.

        Raises:
            TableError: it cannot be written, for instance because the disk is full; names the path.
        """
        write_text(path, self.to_json() + "\n", "table", TableError)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a table that `save` wrote.

        Raises:
            TableError: no such file, or no table; names the path.
        """
        text = read_text(path, "table", TableError)
        try:
            return cls.from_json(text)
        except TableError as error:
            raise TableError(f"{path}: {error}") from None

    def text(self) -> str:
        """Return the table for people, one line a sub-network; drawn by rich where it is installed."""
        headings, *lines = self._cells([key for key in self.columns if key not in DETAILS])
        try:
            return _drawn(headings, lines)
        except ImportError:
            return _aligned([headings, *lines])

    def markdown(self, columns: Iterable[str]) -> str:
        """Return the table for pages in Markdown, with those of the columns that at least one row has."""
        headings, *lines = self._cells([key for key in columns if key in self.columns])
        rule = ["---", *["---:"] * (len(headings) - 1)]
        return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *lines))

    def _cells(self, columns: list[str]) -> list[list[str]]:
        """The headings, then one line a row."""
        headings = [_COLUMNS.get(key, (key, 3))[0] for key in columns]
        return [headings, *([_shown(key, row.get(key)) for key in columns] for row in self.rows)]

    def __str__(self) -> str:
        return self.text()


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not isinstance(row.get("subnet"), str):
        raise TableError(f"not a row of a table: {row!r}; expected a mapping with a text under 'subnet'")
    return {key: value for key, value in row.items() if key in _TEXTS or _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.{_COLUMNS.get(key, (key, 3))[1]}f}"


def _drawn(headings: Iterable[str], lines: Iterable[list[str]]) -> str:
    from io import StringIO

    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    out = StringIO()
    Console(file=out, width=200, color_system=None).print(table)
    return "\n".join(line[1:].rstrip() for line in out.getvalue().splitlines() if line.strip())


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = []
    for first, *rest in lines:
        numbers = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        shown.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(shown)
