"""What a run folder holds, read and put together for the report."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from pliant.checkpoint import CheckpointError, is_saved, read_info
from pliant.core.subnet import SubNetSpace
from pliant.measure.table import Table
from pliant.train.recipe import Recipe

__all__ = ["Alone", "ReportError", "Row", "Run", "read_run", "read_table_file", "require_numbers"]

Row = Mapping[str, Any]


class ReportError(ValueError):
    """A report that cannot be made; one line that says what is missing and what makes it."""


def require_numbers(row: Any, keys: Iterable[Any], name: str, part: str) -> None:
    """Refuse a row of a `part` of a file that lacks a finite number: people and other programs write files too.

    Raises:
        ReportError: names the file and the first key without one.
    """
    for key in keys:
        value = row.get(key) if isinstance(row, Mapping) else None
        if not isinstance(value, int | float) or not isfinite(value):
            raise ReportError(f"{name}: a row of {part} has no number {key!r}")


@dataclass(frozen=True, kw_only=True)
class Alone:
    """A network that was trained on its own, for comparison.

    Attributes:
        subnet: the sub-network that it corresponds to; where that is not known, what it is called.
        row: its row of its own table.
        same_timing: whether its latency was measured under the same circumstances.
    """

    subnet: str
    row: Row
    same_timing: bool


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, as far as it is filled.

    Attributes:
        folder: where; of a checkpoint file of other people, that file.
        table: what was measured of every sub-network.
        card: what the saved network says of itself; empty where none is saved.
        recipe: how it was trained, if that is known.
        epochs: one mapping an epoch, with the numbers of metrics.csv; empty where there is none.
        trained: the sub-networks that the training plan names as students; none = not known.
        alone: networks trained on their own.
    """

    folder: Path
    table: Table
    card: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    epochs: Sequence[Mapping[str, float]] = ()
    trained: frozenset[str] | None = None
    alone: tuple[Alone, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table's rows, smallest sub-network first."""
        return self.table.rows

    @property
    def largest(self) -> Row:
        """The super-net's row: the one that skips least."""
        return min(self.rows, key=lambda row: (_skips(row["subnet"]), -row.get("gmacs", 0.0)))

    @property
    def smallest(self) -> Row:
        """The base-net's row: the one that skips most."""
        return max(self.rows, key=lambda row: (_skips(row["subnet"]), -row.get("gmacs", 0.0)))

    @property
    def shipped(self) -> bool:
        """Whether exported files were measured, which need no export."""
        return "files" in self.table.info

    def front(self, cost: str) -> list[str]:
        """The sub-networks that none beats in accuracy at as little cost, cheapest first."""
        if not any(cost in row and "acc1" in row for row in self.rows):
            return []
        return [row["subnet"] for row in self.table.pareto(cost, "acc1")]


def read_run(folder: str | os.PathLike[str], baselines: Sequence[str | os.PathLike[str]] = ()) -> Run:
    """Read a run folder and those of networks to compare with.

    Raises:
        ReportError: a folder or its table.json is missing, or a baseline cannot be compared.
        ValueError: a file is there but cannot be read.
    """
    folder = Path(folder)
    table = _table(folder)
    recipe = Recipe.load(folder / "recipe.yaml") if (folder / "recipe.yaml").exists() else None
    return Run(
        folder=folder,
        table=table,
        card=_card(folder),
        recipe=recipe,
        epochs=_epochs(folder / "metrics.csv"),
        trained=_trained(table, recipe),
        alone=tuple(sorted((_alone(Path(baseline), table) for baseline in baselines), key=_alone_order)),
    )


def read_table_file(path: Path, baselines: Sequence[str | os.PathLike[str]] = ()) -> Run:
    """Read a table that lies alone, such as that of a checkpoint file, and the networks to compare with.

    Raises:
        ValueError: as `read_run`.
    """
    table = _filled(path)
    measured = path.with_name(path.name.removesuffix(".json").removesuffix(".table"))
    alone = (_alone(Path(baseline), table) for baseline in baselines)
    return Run(folder=measured, table=table, alone=tuple(sorted(alone, key=_alone_order)))


def _skips(subnet: str) -> int:
    return subnet.count("T") if set(subnet) <= {"T", "F"} else 0


def _table(folder: Path) -> Table:
    if not folder.is_dir():
        raise ReportError(f"{folder}: no such folder, and no file; expected a run, or what pliant measure wrote")
    path = folder / "table.json"
    if not path.exists():
        raise ReportError(f"{folder} has no table.json; make it with: pliant measure {folder} --data DATA")
    return _filled(path)


def _filled(path: Path) -> Table:
    table = Table.load(path)
    if not table.rows:
        raise ReportError(f"{path} has no rows; make it anew with: pliant measure {path.parent} --data DATA")
    return table


def _card(folder: Path) -> Mapping[str, Any]:
    if not is_saved(folder):
        return {}
    try:
        return read_info(folder)
    except CheckpointError as error:
        raise ReportError(str(error)) from None


def _epochs(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_numbers(row) for row in csv.DictReader(file)]
    except (ValueError, csv.Error) as error:
        raise ReportError(f"{path} is damaged: {error}") from None


def _numbers(row: Mapping[str | None, Any]) -> dict[str, float]:
    """The values that are there; one that is no finite number leaves a gap in its curve."""
    if None in row or None in row.values():
        raise ValueError("a line has more or fewer values than the first line names")
    if not row.get("epoch"):
        raise ValueError("a line names no epoch")
    numbers = {name: float(value) for name, value in row.items() if name and value}
    return {name: number for name, number in numbers.items() if isfinite(number)}


def _trained(table: Table, recipe: Recipe | None) -> frozenset[str] | None:
    names = [row["subnet"] for row in table.rows]
    if recipe is None:
        return None
    if recipe.adapt is None or recipe.only:
        return frozenset(names)
    if len({len(name) for name in names}) != 1 or any(set(name) - {"T", "F"} for name in names):
        return None
    space = SubNetSpace(tuple(int("T" in letters) for letters in zip(*names, strict=True)))
    plan = recipe.phases[-1].plan.build(space)
    return frozenset(term.student for term in plan.terms if term.weight > 0)


def _alone(folder: Path, compared_with: Table) -> Alone:
    table = _table(folder)
    if len(table.rows) != 1:
        raise ReportError(
            f"{folder}: its table has {len(table.rows)} rows; expected one network that was trained on its own"
        )
    for key in ("data", "split"):
        mine, other = table.info.get(key), compared_with.info.get(key)
        if mine != other:
            raise ReportError(f"{folder}: measured on {key} {mine!r}, but the run on {other!r}: not comparable")
    return Alone(
        subnet=_card(folder).get("only") or table.rows[0]["subnet"],
        row=table.rows[0],
        same_timing=_timing(table) == _timing(compared_with),
    )


def _alone_order(alone: Alone) -> tuple[float, str]:
    return alone.row.get("gmacs", 0.0), alone.subnet


def _timing(table: Table) -> tuple[Any, ...]:
    return tuple(table.info.get(key) for key in ("device", "cpu", "threads", "batch_size", "dtype", "image_size"))
