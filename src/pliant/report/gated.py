"""What `pliant measure --policy gate` wrote, checked and put together for the report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pliant.measure.gate_table import GateTable
from pliant.report.content import ReportError, Row, require_numbers
from pliant.report.scatter import Cost, accuracy_of_gate, average_costs_of
from pliant.report.scene import Scene
from pliant.report.shares import Said, Stack, stacked_shares

__all__ = ["Gated", "gate_tradeoff", "read_gated", "routes_of_budgets", "routes_of_classes"]

_AT_EACH_END = 10
"""Of many classes, so many that go narrowest and so many that go widest are drawn."""
_LONGEST = 14


@dataclass(frozen=True)
class Gated:
    """What a gate chooses.

    Attributes:
        table: what was measured.
        run: the run folder or file that was measured.
    """

    table: GateTable
    run: Path

    @property
    def routes(self) -> list[str]:
        """The sub-networks that the gate chooses among, narrowest first."""
        return list(self.table.gated["shares"])

    @cached_property
    def shorts(self) -> dict[str, str]:
        """By sub-network, how it is called where only widths are."""
        return {row["subnet"]: row["subnet"].removeprefix("width=") for row in self.table.static}

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """The average costs of which there are measurements, in units and with decimals that read well."""
        return average_costs_of(self.table.rows)

    @cached_property
    def budgets(self) -> dict[str, Row]:
        """The rows with budgets, by how much there is to spend."""
        return {f"≤ {self.amount(row)}": row for row in self.table.budgets}

    def amount(self, row: Row) -> str:
        """Write what there is to spend, in the unit of the costs."""
        cost = self.costs["gmacs"]
        return f"{row['budget'] * cost.factor:.{cost.digits}f}"

    @property
    def shown_at(self) -> str:
        """At which budget classes and images are shown, to put behind a title; empty where the gate has none."""
        row = self.table.shown
        return f", ≤ {self.amount(row)}" if "budget" in row else ""

    @cached_property
    def classes(self) -> list[Row]:
        """The classes, those first whose images cost least on average."""
        gmacs = {row["subnet"]: row["gmacs"] for row in self.table.static}
        return sorted(
            self.table.classes, key=lambda row: sum(share * gmacs[route] for route, share in row["shares"].items())
        )

    @property
    def all_classes_shown(self) -> bool:
        """Whether there are few enough to draw all."""
        return len(self.classes) <= 2 * _AT_EACH_END

    @cached_property
    def taken(self) -> list[str]:
        """The narrowest and the widest route that any image took, as shown; one, if all took the same."""
        taken = [route for route, share in self.table.shown["shares"].items() if share > 0]
        return list(dict.fromkeys((taken[0], taken[-1])))


def read_gated(path: Path) -> Gated:
    """Read and check a file that `pliant measure --policy gate` wrote.

    Raises:
        ReportError: something is missing; names it.
        ValueError: it cannot be read.
    """
    table, name = GateTable.load(path), str(path)
    if not table.static:
        raise ReportError(f"{name}: no width was measured; make it anew with: pliant measure RUN --policy gate")
    subnets = [row.get("subnet") for row in table.static]
    for row in table.rows:
        require_numbers(row, ("gmacs", "acc1"), name, "gated, budgets and static")
    for row in table.budgets:
        require_numbers(row, ("budget",), name, "budgets")
    shares = table.gated.get("shares")
    if not isinstance(shares, dict) or not shares or not set(shares) <= set(subnets):
        raise ReportError(f"{name}: gated has no shares of sub-networks that were measured")
    for row in table.budgets:
        require_numbers(row.get("shares"), shares, name, "shares")
    for row in table.classes:
        require_numbers(row, ("acc1",), name, "classes")
        require_numbers(row.get("shares"), shares, name, "shares")
        if not isinstance(row.get("label"), str):
            raise ReportError(f"{name}: a row of classes does not name its class")
    for example in table.examples:
        require_numbers(example, ("index", "certainty"), name, "examples")
        missing = [key for key in ("subnet", "label", "predicted", "png") if not isinstance(example.get(key), str)]
        if missing:
            raise ReportError(f"{name}: an image of examples lacks {', '.join(missing)}")
    require_numbers(shares, shares, name, "shares")
    return Gated(
        table, path.parent if path.name == "gate.json" else path.with_name(path.name.removesuffix(".gate.json"))
    )


def gate_tradeoff(gated: Gated, cost: Cost, *, width: float, plot_height: float) -> Scene:
    """Draw accuracy over a cost of the gated network, also with budgets, and of every width for all images."""
    static = {gated.shorts[row["subnet"]]: row for row in gated.table.static}
    front = [gated.shorts[row["subnet"]] for row in gated.table.front]
    return accuracy_of_gate(gated.table.gated, gated.budgets, static, front, cost, width=width, plot_height=plot_height)


def routes_of_budgets(gated: Gated, *, width: float, plot_height: float) -> Scene:
    """Draw a bar for the gate as it is, and one a budget below it."""
    stacks = [Stack("gate", gated.table.gated["shares"], f"{gated.table.gated['acc1']:.1f}")]
    stacks += [Stack(name, row["shares"], f"{row['acc1']:.1f}") for name, row in gated.budgets.items()]
    said = Said(title="Which way the images go", names=gated.costs["gmacs"].unit, one="budget", remarks="top-1, %")
    return stacked_shares(stacks, _short(gated), said, width=width, plot_height=plot_height)


def routes_of_classes(gated: Gated, *, width: float, plot_height: float) -> Scene:
    """Draw a bar a class, the one whose images go narrowest on top."""
    rows = gated.classes if gated.all_classes_shown else [*gated.classes[:_AT_EACH_END], *gated.classes[-_AT_EACH_END:]]
    stacks = [Stack(_cut(row["label"]), row["shares"], f"{row['acc1']:.1f}") for row in rows]
    title = f"Which way each class goes{gated.shown_at}"
    said = Said(title=title, names="class", one="class", remarks="top-1, %")
    return stacked_shares(stacks, _short(gated), said, width=width, plot_height=plot_height)


def _short(gated: Gated) -> dict[str, str]:
    return {route: gated.shorts[route] for route in gated.routes}


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
