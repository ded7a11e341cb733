"""`Table`: what was measured of every sub-network, as rows that other rooms and other programs read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pliant.core.files import read_text, write_text
from pliant.policy.budget import choose

__all__ = ["Table", "TableError"]

FORMAT_VERSION = 1

# Columns in the order people read them: key, heading, decimals. Unknown keys follow as they are.
_COLUMNS = {
    "subnet": ("sub-network", 0),
    "gmacs": ("GMACs", 3),
    "params_m": ("params M", 3),
    "cumulative_gmacs": ("cumulative GMACs", 3),
    "cumulative_params_m": ("cumulative params M", 3),
    "acc1": ("top-1 %", 2),
    "acc5": ("top-5 %", 2),
    "latency_ms": ("latency ms", 2),
    "latency_ms_p95": ("p95 ms", 2),
    "peak_memory_mb": ("memory MB", 1),
    "operators": ("operators", 0),
}


class TableError(ValueError):
    """A table that cannot be read or used; one line."""


@dataclass
class Table:
    """One row for each sub-network, smallest first, and where and how they were measured.

    Attributes:
        rows: mappings with `subnet` and what was measured of `gmacs`, `params_m`, `acc1` and `acc5`
            (percent), `latency_ms` (median), `latency_ms_p95`, `peak_memory_mb` (10^6 bytes) and
            `operators`. What was not measured is absent, never zero; values that are not finite
            numbers are no measurements and are left out.
        info: the circumstances, such as model, data, device, threads, versions and date.

    Raises:
        TableError: a row names no sub-network.
    """

    rows: list[dict[str, Any]]
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = [_clean(row) for row in self.rows]

    def pick(
        self,
        *,
        latency_ms: float | None = None,
        latency_ms_p95: float | None = None,
        gmacs: float | None = None,
        params_m: float | None = None,
        peak_memory_mb: float | None = None,
        acc1: float | None = None,
    ) -> dict[str, Any]:
        """Return the row of the best sub-network for a budget; see `pliant.policy.budget.choose`.

        Raises:
            BudgetError: (a ValueError) the budget makes no sense, or no sub-network meets it.
        """
        row = choose(
            self.rows,
            latency_ms=latency_ms,
            latency_ms_p95=latency_ms_p95,
            gmacs=gmacs,
            params_m=params_m,
            peak_memory_mb=peak_memory_mb,
            acc1=acc1,
        )
        return dict(row)

    def pareto(self, cost: str = "gmacs", gain: str = "acc1") -> list[dict[str, Any]]:
        """Return the rows that no other row beats in both quantities, cheapest first.

        Rows without one of the two are left out; of rows equal in both the first stays.

        Raises:
            TableError: no row has both quantities.
        """
        both = [row for row in self.rows if cost in row and gain in row]
        if not both:
            raise TableError(f"no row has both {cost} and {gain}; this table has {', '.join(self.columns)}")
        front: list[dict[str, Any]] = []
        for row in sorted(both, key=lambda row: (row[cost], -row[gain])):
            if not front or row[gain] > front[-1][gain]:
                front.append(dict(row))
        return front

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
        headings, *lines = self._cells(self.columns)
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
    return {key: value for key, value in row.items() if key == "subnet" or _is_number(value)}


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
