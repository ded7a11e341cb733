"""Accuracy over a cost: every sub-network, the best for each budget, and networks trained on their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pliant.report.axes import LegendEntry, frame, legend, linear_axis, stairs
from pliant.report.content import Run
from pliant.report.labels import Label, place_labels
from pliant.report.scene import Box, Line, Marker, Scene

__all__ = ["Cost", "accuracy_over", "costs_of"]

_TOP, _LEFT, _RIGHT, _BOTTOM = 34.0, 44.0, 12.0, 46.0
# A plot of a tenth of a point would show nothing but chance.
_LEAST_SPAN = 1.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost as people read it.

    Attributes:
        key: in the rows.
        title: of the chart, after "Accuracy over".
        axis: of the axis, with the unit.
        unit: after a number.
        factor: from the row's unit to this one.
        digits: decimals that make sense.
    """

    key: str
    title: str
    axis: str
    unit: str
    factor: float
    digits: int

    def say(self, row: Mapping[str, Any]) -> str:
        """Write a row's cost with its unit."""
        return f"{row[self.key] * self.factor:.{self.digits}f} {self.unit}"


@dataclass(frozen=True)
class _Point:
    name: str
    row: Mapping[str, Any]
    kind: str
    on_front: bool = False


def costs_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Cost]:
    """The costs of which there are measurements, in units and with decimals that read well."""
    costs: dict[str, Cost] = {}
    gmacs = [row["gmacs"] for row in rows if "gmacs" in row]
    if gmacs:
        small = max(gmacs) < 0.5
        costs["gmacs"] = Cost(
            key="gmacs",
            title="computation",
            axis=f"{'million' if small else 'billion'} multiply-accumulates (MACs) per image",
            unit=f"{'million' if small else 'billion'} MACs",
            factor=1000 if small else 1,
            digits=1 if small else 2,
        )
    latencies = [row["latency_ms"] for row in rows if "latency_ms" in row]
    if latencies:
        digits = sum(max(latencies) < limit for limit in (1, 10, 100))
        costs["latency_ms"] = Cost(
            key="latency_ms", title="latency", axis="median latency, ms", unit="ms", factor=1, digits=digits
        )
    return costs


def accuracy_over(run: Run, cost: Cost, *, width: float, plot_height: float) -> Scene | None:
    """Draw top-1 accuracy over a cost; none where there are not two networks to compare."""
    points = _points(run, cost)
    if len(points) < 2:
        return None
    entries, legend_height = legend(_legend(points), width, 0)
    area = Box(_LEFT, legend_height + _TOP, width - _RIGHT, legend_height + _TOP + plot_height)
    x = linear_axis([point.row[cost.key] * cost.factor for point in points], ticks=6 if width > 450 else 4)
    y = linear_axis([point.row["acc1"] for point in points], least_span=_LEAST_SPAN, ceiling=100)

    def place(point: _Point) -> tuple[float, float]:
        return (
            x.place(point.row[cost.key] * cost.factor, area.left, area.right),
            y.place(point.row["acc1"], area.bottom, area.top),
        )

    items = [*entries, *frame(area, x, y, cost.axis, "top-1 accuracy, %")]
    # The accuracy that a budget buys: it rises where the next better sub-network becomes affordable.
    front = sorted(place(point) for point in points if point.on_front)
    steps = [Line(points=stairs(front, area.right), color="front", width=2)] if front else []
    items += steps
    items += [_marker(point, cost, *place(point)) for point in points]
    items += place_labels(_labels(points, place), area, steps)
    return Scene(
        width=width,
        height=area.bottom + _BOTTOM,
        title=f"Accuracy over {cost.title}",
        description=_describe(points, cost),
        items=items,
    )


def _points(run: Run, cost: Cost) -> list[_Point]:
    front = run.front(cost.key)
    points = []
    for alone in run.alone:
        if cost.key in alone.row and "acc1" in alone.row and (alone.same_timing or cost.key != "latency_ms"):
            points.append(_Point(f"{alone.subnet} alone", alone.row, "alone"))
    for row in run.rows:
        if cost.key in row and "acc1" in row:
            known = run.trained is not None
            kind = ("trained" if row["subnet"] in (run.trained or ()) else "untrained") if known else "measured"
            # Of one network alone there is no best.
            points.append(_Point(row["subnet"], row, kind, len(run.rows) > 1 and row["subnet"] in front))
    return points


_LOOKS: dict[str, tuple[Literal["circle", "diamond"], float, str, str]] = {
    "trained": ("circle", 5.5, "accent", "accent"),
    "measured": ("circle", 5.0, "accent", "accent"),
    "untrained": ("circle", 4.5, "paper", "accent"),
    "alone": ("diamond", 5.5, "alone", "alone"),
}
_MEANINGS = {
    "trained": "trained",
    "untrained": "not trained itself",
    "alone": "trained alone",
}


def _marker(point: _Point, cost: Cost, x: float, y: float) -> Marker:
    shape, radius, fill, color = _LOOKS[point.kind]
    title = f"{point.name}: {point.row['acc1']:.2f} %, {cost.say(point.row)}"
    return Marker(x=x, y=y, shape=shape, radius=radius, fill=fill, color=color, title=title)


def _legend(points: Sequence[_Point]) -> list[LegendEntry]:
    entries: list[LegendEntry] = []
    for kind, meaning in _MEANINGS.items():
        if any(point.kind == kind for point in points):
            shape, radius, fill, color = _LOOKS[kind]
            entries.append((Marker(x=0, y=0, shape=shape, radius=radius, fill=fill, color=color), meaning))
    if any(point.on_front for point in points):
        line = Line(points=((-9, 3), (0, 3), (0, -4), (9, -4)), color="front", width=2)
        entries.append((line, "best within a budget"))
    return entries


def _labels(points: Sequence[_Point], place: Any) -> list[Label]:
    named: set[str] = set()
    labels = []
    for point in sorted(points, key=lambda point: (point.kind == "untrained", not point.on_front)):
        x, y = place(point)
        # Of several networks trained alone in the same way one is named.
        text = "" if point.name in named else point.name
        named.add(point.name)
        color = "alone" if point.kind == "alone" else "ink"
        labels.append(Label(x=x, y=y, radius=5.5, text=text, color=color, bold=point.kind == "trained"))
    return labels


def _describe(points: Sequence[_Point], cost: Cost) -> str:
    parts = [f"{point.name} {point.row['acc1']:.1f} % at {cost.say(point.row)}" for point in points]
    return "Scatter plot. " + "; ".join(parts) + "."
