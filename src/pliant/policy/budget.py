"""The best sub-network for a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

__all__ = ["BudgetError", "choose"]

Row = Mapping[str, Any]


class BudgetError(ValueError):
    """A budget that is no budget, that was not measured, or that no sub-network meets; one line."""


@dataclass(frozen=True)
class _Quantity:
    unit: str
    best: str
    """What a person calls the sub-network that is best in this quantity."""


# Every quantity is a cost, except accuracy, which is a gain.
_QUANTITIES = {
    "latency_ms": _Quantity(" ms", "fastest"),
    "latency_ms_p95": _Quantity(" ms", "fastest"),
    "gmacs": _Quantity(" GMACs", "smallest"),
    "params_m": _Quantity(" M parameters", "smallest"),
    "peak_memory_mb": _Quantity(" MB", "smallest"),
    "acc1": _Quantity(" %", "most accurate"),
}
# What "cheaper" means: the first of these that was measured.
_COSTS = ("latency_ms", "gmacs", "params_m", "peak_memory_mb", "latency_ms_p95")
# What "better" means, likewise.
_GAINS = ("acc1", "gmacs", "params_m")


def choose(
    rows: Sequence[Row],
    *,
    latency_ms: float | None = None,
    latency_ms_p95: float | None = None,
    gmacs: float | None = None,
    params_m: float | None = None,
    peak_memory_mb: float | None = None,
    acc1: float | None = None,
) -> Row:
    """Return the best of the rows that meet every budget.

    The best is the most accurate; where accuracy was not measured, the largest by `gmacs`; where only
    `acc1` is asked for, the cheapest (by latency if it was measured, else by `gmacs`). Of equals the
    cheaper one. A value that is absent or not finite counts as not measured.

    Args:
        rows: one mapping a sub-network, with `subnet` and the measured quantities.
        latency_ms: upper limit of the median latency, ms.
        latency_ms_p95: upper limit of the 95th percentile of the latency, ms.
        gmacs: upper limit of the multiply-accumulates of one image, 10^9.
        params_m: upper limit of the active parameters, 10^6.
        peak_memory_mb: upper limit of the memory of a forward pass, 10^6 bytes.
        acc1: lower limit of the top-1 accuracy, percent.

    Returns:
        The chosen row itself.

    Raises:
        BudgetError: no budget, one that is not a positive number, one that was not measured, or one
            that no sub-network meets; then the nearest possible is named.
    """
    given = {
        "latency_ms": latency_ms,
        "latency_ms_p95": latency_ms_p95,
        "gmacs": gmacs,
        "params_m": params_m,
        "peak_memory_mb": peak_memory_mb,
        "acc1": acc1,
    }
    budget = {key: _checked(key, limit) for key, limit in given.items() if limit is not None}
    if not budget:
        raise BudgetError(f"no budget given; give at least one of {', '.join(_QUANTITIES)}")
    _require_measured(rows, budget)
    possible = [row for row in rows if all(_meets(row, key, limit) for key, limit in budget.items())]
    if not possible:
        raise BudgetError(_impossible(rows, budget))
    return min(possible, key=_cost if set(budget) == {"acc1"} else _loss_and_cost(possible))


def _checked(key: str, limit: Any) -> float:
    if not isinstance(limit, Real) or isinstance(limit, bool) or not math.isfinite(limit) or limit <= 0:
        raise BudgetError(f"{key}={limit} is no budget; allowed is a number above 0")
    if key == "acc1" and limit <= 1:
        raise BudgetError(f"acc1={limit:g} is no budget; allowed is a percentage above 1, such as 97.5")
    return float(limit)


def _measured(row: Row, key: str) -> float | None:
    value = row.get(key)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    return None


def _require_measured(rows: Sequence[Row], budget: Mapping[str, float]) -> None:
    if not rows:
        raise BudgetError("the table has no sub-network to choose from")
    measured = [key for key in _QUANTITIES if any(_measured(row, key) is not None for row in rows)]
    for key in budget:
        if key not in measured:
            raise BudgetError(f"{key} was not measured; this table has {', '.join(measured) or 'no numbers'}")


def _meets(row: Row, key: str, limit: float) -> bool:
    value = _measured(row, key)
    if value is None:
        return False
    return value >= limit if key == "acc1" else value <= limit


def _cost(row: Row) -> tuple[float, ...]:
    costs = [_measured(row, key) for key in _COSTS]
    return tuple(math.inf if cost is None else cost for cost in costs)


def _loss_and_cost(rows: Sequence[Row]) -> Callable[[Row], tuple[float, ...]]:
    """Return a sort key: smallest for the row with the highest gain that was measured, then the cheapest."""
    gain = next((key for key in _GAINS if any(_measured(row, key) is not None for row in rows)), None)

    def key_of(row: Row) -> tuple[float, ...]:
        value = None if gain is None else _measured(row, gain)
        return (math.inf if value is None else -value, *_cost(row))

    return key_of


def _impossible(rows: Sequence[Row], budget: Mapping[str, float]) -> str:
    """Name what was asked and the nearest possible, in one line."""
    for key, limit in budget.items():
        if not any(_meets(row, key, limit) for row in rows):
            quantity, nearest = _QUANTITIES[key], min(rows, key=lambda row: _excess(row, key, limit))
            has = f"{nearest['subnet']} at {_measured(nearest, key):.4g}{quantity.unit}"
            return f"{key}={limit:g} cannot be met: the {quantity.best} sub-network is {has}"
    asked = " and ".join(f"{key}={limit:g}" for key, limit in budget.items())
    nearest = min(rows, key=lambda row: max(_excess(row, key, limit) for key, limit in budget.items()))
    values = {key: _measured(nearest, key) for key in budget}
    has = ", ".join(f"{key}={value:.4g}" for key, value in values.items() if value is not None)
    return f"{asked} cannot be met together: the nearest sub-network is {nearest['subnet']} with {has}"


def _excess(row: Row, key: str, limit: float) -> float:
    """By which share of the limit a row misses a budget (negative: meets it)."""
    value = _measured(row, key)
    if value is None:
        return math.inf
    return (limit - value) / limit if key == "acc1" else (value - limit) / limit
