"""Scales, ticks and the frame of a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pliant.report.scene import Box, Item, Line, Text, text_width

__all__ = ["TEXT", "Axis", "LegendEntry", "frame", "legend", "linear_axis", "log_axis", "stairs"]

TEXT = 12.0
_LINE_HEIGHT = 20.0

LegendEntry = tuple[Item, str]
"""A line or marker drawn around (0, 0), and what it stands for."""


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Attributes:
        ticks: values that get a tick, rising.
        labels: what is written at them.
        low: the value at the start.
        high: the value at the end.
        logarithmic: whether equal distances are equal ratios.
    """

    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float, start: float, end: float) -> float:
        """Return where between the pixels `start` and `end` a value lies."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return start + (value - low) / (high - low) * (end - start)


def linear_axis(
    values: Sequence[float],
    *,
    ticks: int = 5,
    least_span: float = 0.0,
    whole: bool = False,
    ceiling: float = math.inf,
    margin: float = 0.08,
) -> Axis:
    """Choose round ticks for an axis that shows all `values`.

    Args:
        values: what is shown; at least one.
        ticks: about how many ticks.
        least_span: show at least so much, so that noise does not look like a trend.
        whole: ticks at whole numbers only.
        ceiling: no ticks beyond what can be, such as 100 %.
        margin: room beyond the outermost values, as a fraction of the span.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    span = max(high - low, least_span, abs(high) * 1e-3) or 1.0
    middle = (low + high) / 2
    low, high = middle - span * (0.5 + margin), middle + span * (0.5 + margin)
    locator = MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10], integer=whole)
    shown = tuple(float(tick) for tick in locator.tick_values(low, high) if low <= tick <= min(high, ceiling))
    return Axis(shown, _labels(shown), low, high)


def log_axis(values: Sequence[float]) -> Axis:
    """Choose ticks for a logarithmic axis that shows all `values`, which are positive."""
    low, high = min(values) / 1.15, max(values) * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    shown = tuple(step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high)
    return Axis(shown, tuple(f"{tick:g}" for tick in shown), low, high, logarithmic=True)


def _labels(ticks: Sequence[float]) -> tuple[str, ...]:
    """Write all ticks with the same number of decimals, as few as say the truth."""
    step = min((b - a for a, b in pairwise(ticks)), default=1.0)
    decimals = next(
        (count for count in range(7) if all(abs(round(tick, count) - tick) < step * 1e-3 for tick in ticks)), 7
    )
    return tuple(f"{tick:.{decimals}f}" for tick in ticks)


def frame(area: Box, x: Axis, y: Axis, x_title: str, y_title: str) -> list[Item]:
    """Draw grid, ticks and titles around the plotting area; the y title lies above it, to be read straight."""
    items: list[Item] = []
    for tick, label in zip(y.ticks, y.labels, strict=True):
        height = y.place(tick, area.bottom, area.top)
        items.append(Line(points=((area.left, height), (area.right, height)), color="rule"))
        items.append(Text(x=area.left - 8, y=height + 4, text=label, anchor="end"))
    items.append(Line(points=((area.left, area.bottom), (area.right, area.bottom)), color="axis"))
    for tick, label in zip(x.ticks, x.labels, strict=True):
        place = x.place(tick, area.left, area.right)
        items.append(Line(points=((place, area.bottom), (place, area.bottom + 4)), color="axis"))
        items.append(Text(x=place, y=area.bottom + 18, text=label, anchor="middle"))
    items.append(Text(x=area.right, y=area.bottom + 38, text=x_title, anchor="end"))
    items.append(Text(x=0, y=area.top - 12, text=y_title))
    return items


def legend(entries: Sequence[LegendEntry], width: float, top: float) -> tuple[list[Item], float]:
    """Lay entries out in rows of `width`; return what to draw and the height of the rows."""
    items: list[Item] = []
    left, baseline = 0.0, top + TEXT
    for symbol, text in entries:
        needed = 26 + text_width(text, TEXT)
        if left and left + needed > width:
            left, baseline = 0.0, baseline + _LINE_HEIGHT
        items.append(_moved(symbol, left + 9, baseline - 4))
        items.append(Text(x=left + 24, y=baseline, text=text))
        left += needed + 14
    return items, baseline - top + 8 if entries else 0.0


def _moved(symbol: Item, x: float, y: float) -> Item:
    from dataclasses import replace

    if isinstance(symbol, Line):
        return replace(symbol, points=tuple((px + x, py + y) for px, py in symbol.points))
    return replace(symbol, x=symbol.x + x, y=symbol.y + y)


def stairs(points: Sequence[tuple[float, float]], right: float) -> tuple[tuple[float, float], ...]:
    """Return the corners of steps through `points`, from left to right and on to `right`: what holds until the next."""
    corners = [points[0]]
    for x, y in points[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return (*corners, (right, corners[-1][1]))
