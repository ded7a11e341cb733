"""`Governor`: which sub-network to run where the budget changes: with the battery, the temperature, the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Unpack

from pliant.policy.budget import Budget, Limits, best, excess, impossible, limits_of, nearest

__all__ = ["Governor"]

Row = Mapping[str, Any]


class _HasRows(Protocol):
    @property
    def rows(self) -> Sequence[Row]: ...


class Governor:
    """Follows a budget that changes, without changing the sub-network at every flicker of it.

    It goes down at once: where the sub-network of the moment exceeds the budget, the best that meets it is next. It
    goes up slowly: to a better sub-network that has met the budgets of the last `steps` steps with a margin. Where
    costs are asked for, better means more accurate; where only an accuracy is, cheaper
    (`pliant.policy.budget.choose`). It reads no clock and no sensor: the same budgets give the same sub-networks.

    Args:
        table: what was measured, a `pliant.Table`.
        margin: by which share of a limit a sub-network must stay below it to be moved up to; an accuracy has none.
        steps: for how many steps in a row, the one that moves up included.
        strict: a budget that no sub-network meets is an error; otherwise the sub-network that misses it by least runs,
            and `met` is false.

    Attributes:
        current: row of the sub-network that runs; none before the first step.
        met: whether it meets the budget of the last step.

    Raises:
        ValueError: a margin that is not from 0 to below 1, or fewer than one step.
    """

    def __init__(self, table: _HasRows, *, margin: float = 0.05, steps: int = 3, strict: bool = True) -> None:
        if not 0 <= margin < 1:
            raise ValueError(f"margin={margin}: allowed is a number from 0 to below 1")
        if steps < 1:
            raise ValueError(f"steps={steps}: allowed are whole numbers from 1 on")
        self.current: Row | None = None
        self.met = True
        self._rows = [dict(row) for row in table.rows]
        self._margin, self._steps, self._strict = margin, steps, strict
        self._roomy_for = [0] * len(self._rows)
        """For each row, how many steps in a row it has met the budget with the margin."""

    def step(self, **budget: Unpack[Budget]) -> dict[str, Any]:
        """Return the row of the sub-network to run under the budget of the moment.

        Args:
            **budget: as for `pliant.Table.pick`.

        Raises:
            BudgetError: (a ValueError) the budget makes no sense, or, where `strict`, no sub-network meets it; then
                the one of before stays `current`.
        """
        limits = limits_of(self._rows, budget)
        self._count_roomy(limits)
        possible = [row for row in self._rows if excess(row, limits) <= 0]
        self.met = bool(possible)
        if not possible:
            if self._strict:
                raise impossible(self._rows, limits)
            self.current = nearest(self._rows, limits)
        elif self.current is None or excess(self.current, limits) > 0:
            self.current = best(possible, limits)
        else:
            roomy = [row for row, steps in zip(self._rows, self._roomy_for, strict=True) if steps >= self._steps]
            self.current = best([self.current, *roomy], limits)
        return dict(self.current)

    def _count_roomy(self, limits: Limits) -> None:
        tightened = {key: limit if key == "acc1" else limit * (1 - self._margin) for key, limit in limits.items()}
        for place, row in enumerate(self._rows):
            fits = excess(row, tightened) <= 0
            self._roomy_for[place] = self._roomy_for[place] + 1 if fits else 0
