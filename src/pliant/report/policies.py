"""What `pliant measure --policy` wrote, checked and put together for the report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pliant.measure.policy_table import PolicyTable
from pliant.measure.table import Table
from pliant.report.content import ReportError, Row, require_numbers
from pliant.report.scatter import Cost, average_costs_of

__all__ = ["Policies", "read_policies"]


@dataclass(frozen=True)
class Policies:
    """Policies for budgets, and what is known beside them.

    Attributes:
        table: the policies and what was measured of them.
        run: the run folder or file that was measured; none = not known.
        own: rows of sub-networks that were measured each on its own, on the same images; empty where they were not.
    """

    table: PolicyTable
    run: Path | None = None
    own: tuple[Row, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a budget."""
        return self.table.rows

    @property
    def anytime(self) -> list[dict[str, Any]]:
        """One row a sub-network that answers all images, in the order in which they are tried."""
        return self.table.anytime

    @cached_property
    def subnets(self) -> list[str]:
        """What the policies choose among, in the order in which it is tried."""
        return [row["subnet"] for row in self.anytime]

    @cached_property
    def shared(self) -> str:
        """What all these names begin with, such as `depth=FFF`; often nothing."""
        first, *others = [subnet.rpartition(",")[0] for subnet in self.subnets]
        return first if all(first == other for other in others) else ""

    def short(self, subnet: str) -> str:
        """Return the name without what all names begin with."""
        return subnet.removeprefix(f"{self.shared},") if self.shared else subnet

    @property
    def shown(self) -> int:
        """The place of the policy whose images are shown, or, without images, of the one in the middle."""
        return self.table.examples[0]["row"] if self.table.examples else len(self.rows) // 2

    @property
    def noun(self) -> str:
        """What to call one of `subnets`: an exit, or, where not all end at exits, a sub-network."""
        return "exit" if all("exit=" in subnet for subnet in self.subnets) else "sub-network"

    @cached_property
    def one_pass(self) -> bool:
        """Whether all are exits of one pass, so that whoever goes to the last one pays for nothing besides."""
        return self._paid_before_the_last == 0

    @cached_property
    def whole(self) -> Row:
        """`gmacs` and `acc1` of the last one if it answers all images at once, without the passes before its own."""
        return {**self.anytime[-1], "gmacs": self.anytime[-1]["gmacs"] - self._paid_before_the_last}

    @cached_property
    def _paid_before_the_last(self) -> float:
        # Exits of one depth share a pass; every other sub-network is a pass of its own.
        passes = [name.rpartition(",")[0] if "exit=" in name else name for name in self.subnets]
        before = [row["gmacs"] for row, own in zip(self.anytime, passes, strict=True) if own != passes[-1]]
        return before[-1] if before else 0.0

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """The average costs of which there are measurements, in units and with decimals that read well."""
        return average_costs_of(self.rows, [*self.anytime, *self.own])


def read_policies(source: Path | PolicyTable) -> Policies:
    """Check policies, and read the table that lies beside their file.

    Raises:
        ReportError: something is missing; names it.
        ValueError: a file is there but cannot be read.
    """
    if isinstance(source, PolicyTable):
        _check(source, "these policies")
        return Policies(source)
    table = PolicyTable.load(source)
    _check(table, str(source))
    if not source.name.endswith("policies.json"):
        return Policies(table)
    beside = source.with_name(source.name.removesuffix("policies.json") + "table.json")
    own = _comparable(Table.load(beside), table) if beside.exists() else ()
    measured = source.with_name(source.name.removesuffix(".policies.json"))
    return Policies(table, source.parent if source.name == "policies.json" else measured, own)


def _comparable(own: Table, table: PolicyTable) -> tuple[Row, ...]:
    """The rows of sub-networks on their own, if they are of the same network and images."""
    same = ("model", "data", "split", "images", "image_size")
    if any(own.info.get(key) != table.info.get(key) for key in same):
        return ()
    return tuple(row for row in own.rows if "gmacs" in row and "acc1" in row)


def _check(table: PolicyTable, name: str) -> None:
    """Refuse what people, or other programs, left incomplete: a report is made from files alone."""
    if len(table.anytime) < 2 or not table.rows:
        raise ReportError(
            f"{name}: {len(table.rows)} rows and {len(table.anytime)} sub-networks; expected one row or more, and 2 "
            "sub-networks or more; make it anew with: pliant measure RUN --policy confidence"
        )
    subnets = []
    for row in table.anytime:
        require_numbers(row, ("gmacs", "acc1"), name, "anytime")
        subnets.append(row.get("subnet"))
    if not all(isinstance(subnet, str) for subnet in subnets):
        raise ReportError(f"{name}: a row of anytime does not name its sub-network")
    for row in table.rows:
        require_numbers(row, ("budget", "gmacs", "acc1"), name, "rows")
        require_numbers(row.get("shares"), subnets, name, "shares")
    texts, numbers = ("subnet", "label", "predicted", "png"), ("row", "index", "certainty")
    for example in table.examples:
        require_numbers(example, numbers, name, "examples")
        missing = [key for key in texts if not isinstance(example.get(key), str)]
        if missing or example["row"] not in range(len(table.rows)):
            raise ReportError(f"{name}: an image of examples lacks {', '.join(missing) or 'a row that exists'}")
