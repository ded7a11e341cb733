"""Percentiles of times, and between which values they lie for certain enough: order statistics.

Of independent times, how many lie below the true percentile follows a binomial distribution, whatever the times are
distributed like. So that many of them, sorted, bound it (Hahn and Meeker, Statistical Intervals, section 5.2).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

__all__ = ["CONFIDENCE", "PERCENTILES", "bound_key", "percentile_key", "rounds_needed", "summarise_ms"]

PERCENTILES = (50, 75, 90, 95, 99)
"""Those that a row keeps in place of all times."""
CONFIDENCE = 0.975
"""With which an upper bound lies above its percentile; with the lower one of the median an interval of 95 %."""


def percentile_key(percentile: int) -> str:
    """Return the key that a row keeps a percentile of the latency under; the median is the latency."""
    return "latency_ms" if percentile == 50 else f"latency_ms_p{percentile}"


def bound_key(percentile: int) -> str:
    """Return the key that a row keeps the upper bound of a percentile under."""
    return f"{percentile_key(percentile)}_high"


def rounds_needed(percentile: int) -> int:
    """Return how many times it takes at least for the largest to be an upper bound."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(percentile / 100))


def summarise_ms(times: Sequence[float]) -> dict[str, float]:
    """Return what a row keeps of times in milliseconds.

    That is `latency_ms`, the median, and `latency_ms_low` and `latency_ms_high`, its interval of 95 %; then
    `latency_ms_p75`, `_p90`, `_p95` and `_p99` (interpolated), each with its upper bound, such as
    `latency_ms_p95_high`. A bound for which there are too few times is absent.
    """
    ordered = sorted(times)
    # One time is all its percentiles; `quantiles` wants two.
    quantiles = statistics.quantiles(ordered if len(ordered) > 1 else ordered * 2, n=100, method="inclusive")
    summary: dict[str, float] = {}
    for percentile in PERCENTILES:
        summary[percentile_key(percentile)] = quantiles[percentile - 1]
        place = _place_above(len(ordered), percentile / 100)
        if place is None:
            continue
        if percentile == 50:
            summary["latency_ms_low"] = ordered[len(ordered) - 1 - place]
        summary[bound_key(percentile)] = ordered[place]
    return summary


def _place_above(count: int, share: float) -> int | None:
    """Return which of so many sorted times, from 0, is the first above a quantile; none where not even the last is."""
    confidence = 0.0
    for below in range(count):
        confidence += math.exp(
            math.lgamma(count + 1)
            - math.lgamma(below + 1)
            - math.lgamma(count - below + 1)
            + below * math.log(share)
            + (count - below) * math.log1p(-share)
        )
        if confidence >= CONFIDENCE:
            return below
    return None
