"""The best sub-network for a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypedDict, Unpack

from pliant.policy.percentiles import PERCENTILES, bound_key, rounds_needed

__all__ = ["Budget", "BudgetError", "Limits", "best", "choose", "excess", "impossible", "limits_of", "nearest"]

Row = Mapping[str, Any]
Limits = Mapping[str, float]
"""By the key of a row: the largest value that is allowed; of `acc1` the smallest."""


class BudgetError(ValueError):
    """A budget that is no budget, that was not measured, or that no sub-network meets; one line."""


class Budget(TypedDict, total=False):
    """What a sub-network may cost, and how accurate it must be; everything that is given must hold.

    Attributes:
        latency_ms: upper limit of the median latency, ms.
        latency_ms_p95: upper limit of the 95th percentile of the latency, ms.
        slo_ms: upper limit of a percentile of the latency that shall hold when it is measured again, ms: the upper
            confidence bound of the percentile must lie within it.
        percentile: which one `slo_ms` is of: 50, 75, 90, 95 or 99; none = 95.
        energy_mj: upper limit of the energy of one image, 10^-3 joules.
        gmacs: upper limit of the multiply-accumulates of one image, 10^9.
        params_m: upper limit of the active parameters, 10^6.
        peak_memory_mb: upper limit of the memory of a forward pass, 10^6 bytes.
        acc1: lower limit of the top-1 accuracy, percent.
    """

    latency_ms: float | None
    latency_ms_p95: float | None
    slo_ms: float | None
    percentile: float | None
    energy_mj: float | None
    gmacs: float | None
    params_m: float | None
    peak_memory_mb: float | None
    acc1: float | None


@dataclass(frozen=True)
class _Quantity:
    unit: str
    best: str
    """What a person calls the sub-network that is best in this quantity."""


# Every quantity is a cost, except accuracy, which is a gain.
_QUANTITIES = {
    "latency_ms": _Quantity(" ms", "fastest"),
    "latency_ms_p95": _Quantity(" ms", "fastest"),
    "energy_mj": _Quantity(" mJ", "most frugal"),
    "gmacs": _Quantity(" GMACs", "smallest"),
    "params_m": _Quantity(" M parameters", "smallest"),
    "peak_memory_mb": _Quantity(" MB", "smallest"),
    "acc1": _Quantity(" %", "most accurate"),
}
# What `slo_ms` is a limit of, by percentile.
_BOUNDS = {bound_key(percentile): percentile for percentile in PERCENTILES}
_ALL = _QUANTITIES | {key: _Quantity(" ms", "fastest") for key in _BOUNDS}
# What "cheaper" means: the first of these that was measured.
_COSTS = ("latency_ms", "gmacs", "energy_mj", "params_m", "peak_memory_mb", "latency_ms_p95")
# What "better" means, likewise.
_GAINS = ("acc1", "gmacs", "params_m")


def choose(rows: Sequence[Row], **budget: Unpack[Budget]) -> Row:
    """Return the best of the rows that meet every budget.

    The best is the most accurate; where accuracy was not measured, the largest by `gmacs`; where only
    `acc1` is asked for, the cheapest (by latency if it was measured, else by `gmacs`). Of equals the
    cheaper one. A value that is absent or not finite counts as not measured.

    Args:
        rows: one mapping a sub-network, with `subnet` and the measured quantities.
        **budget: see `Budget`.

    Returns:
        The chosen row itself.

    Raises:
        BudgetError: no budget, one that is not a positive number, one that was not measured, or one
            that no sub-network meets; then the nearest possible is named.
    """
    limits = limits_of(rows, budget)
    possible = [row for row in rows if excess(row, limits) <= 0]
    if not possible:
        raise impossible(rows, limits)
    return best(possible, limits)


def limits_of(rows: Sequence[Row], budget: Budget) -> Limits:
    """Check a budget and return it by the keys of rows.

    Raises:
        BudgetError: no budget, one that is not a positive number, or one that was not measured.
    """
    given: dict[str, Any] = {key: limit for key, limit in budget.items() if limit is not None}
    unknown = [key for key in given if key not in Budget.__annotations__]
    if unknown:
        raise BudgetError(f"{unknown[0]} is no budget; allowed are {', '.join(Budget.__annotations__)}")
    percentile, slo_ms = given.pop("percentile", None), given.pop("slo_ms", None)
    limits = {key: _checked(key, limit) for key, limit in given.items()}
    if slo_ms is not None:
        limits[_bound_of(percentile)] = _checked("slo_ms", slo_ms)
    elif percentile is not None:
        raise BudgetError(f"percentile={percentile} is of slo_ms, which is not given")
    if not limits:
        raise BudgetError(f"no budget given; give at least one of {', '.join([*_QUANTITIES, 'slo_ms'])}")
    _require_measured(rows, limits)
    return {key: limits[key] for key in _ALL if key in limits}  # errors name them in one order


def best(rows: Sequence[Row], limits: Limits) -> Row:
    """Return the best of rows that meet the limits; of equals the first."""
    return min(rows, key=_cost if set(limits) == {"acc1"} else _loss_and_cost(rows))


def nearest(rows: Sequence[Row], limits: Limits) -> Row:
    """Return the row that misses the limits by least."""
    return min(rows, key=lambda row: excess(row, limits))


def excess(row: Row, limits: Limits) -> float:
    """By which share of a limit a row misses the limits, where it misses them most; not above 0: it meets them."""
    return max(_excess(row, key, limit) for key, limit in limits.items())


def impossible(rows: Sequence[Row], limits: Limits) -> BudgetError:
    """Return the error that names what was asked and the nearest possible."""
    for key, limit in limits.items():
        closest = nearest(rows, {key: limit})
        if _excess(closest, key, limit) > 0:
            quantity = _ALL[key]
            has = f"{closest['subnet']} at {_measured(closest, key):.4g}{quantity.unit}"
            return BudgetError(f"{_asked(key, limit)} cannot be met: the {quantity.best} sub-network is {has}")
    asked = " and ".join(_asked(key, limit) for key, limit in limits.items())
    closest = nearest(rows, limits)
    values = {key: _measured(closest, key) for key in limits}
    has = ", ".join(f"{key}={value:.4g}" for key, value in values.items() if value is not None)
    return BudgetError(f"{asked} cannot be met together: the nearest sub-network is {closest['subnet']} with {has}")


def _bound_of(percentile: float | None) -> str:
    if percentile is None:
        return bound_key(95)
    if percentile not in PERCENTILES:
        raise BudgetError(f"percentile={percentile}: allowed are {', '.join(map(str, PERCENTILES))}")
    return bound_key(int(percentile))


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


def _require_measured(rows: Sequence[Row], limits: Limits) -> None:
    if not rows:
        raise BudgetError("the table has no sub-network to choose from")
    for key in limits:
        if any(_measured(row, key) is not None for row in rows):
            continue
        if key in _BOUNDS:
            raise BudgetError(
                f"percentile {_BOUNDS[key]} has no upper bound in this table: that takes {rounds_needed(_BOUNDS[key])} "
                "rounds or more; measure again with so many"
            )
        measured = [known for known in _QUANTITIES if any(_measured(row, known) is not None for row in rows)]
        raise BudgetError(f"{key} was not measured; this table has {', '.join(measured) or 'no numbers'}")


def _asked(key: str, limit: float) -> str:
    if key in _BOUNDS:
        return f"slo_ms={limit:g} at percentile {_BOUNDS[key]}"
    return f"{key}={limit:g}"


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


def _excess(row: Row, key: str, limit: float) -> float:
    """By which share of the limit a row misses a budget (not above 0: meets it)."""
    value = _measured(row, key)
    if value is None:
        return math.inf
    return (limit - value) / limit if key == "acc1" else (value - limit) / limit
