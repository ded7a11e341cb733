"""Accuracy over a cost: every sub-network, the best for each budget, and networks trained on their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pliant.report.axes import LegendEntry, frame, legend, linear_axis, stairs
from pliant.report.content import Run
from pliant.report.labels import Label, place_labels
from pliant.report.scene import Box, Line, Marker, Scene

__all__ = ["Cost", "accuracy_of_gate", "accuracy_over", "average_costs_of", "costs_of"]

_TOP, _LEFT, _RIGHT, _BOTTOM = 34.0, 44.0, 12.0, 46.0
# A plot of a tenth of a point would show nothing but chance.
_LEAST_SPAN = 1.0

Place = tuple[float, float]


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


@dataclass(frozen=True)
class _Front:
    """How the points on the front are joined: its places and the right border to corners; and what that means."""

    corners: Callable[[Sequence[Place], float], Sequence[Place]]
    symbol: Line
    meaning: str


_STEPS = _Front(
    lambda places, right: stairs(sorted(places), right),
    Line(points=((-9, 3), (0, 3), (0, -4), (9, -4)), color="front", width=2),
    "best within a budget",
)
_STRAIGHT = _Front(
    lambda places, right: places, Line(points=((-9, 3), (9, -4)), color="front", width=2), "two widths, mixed by chance"
)


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


def average_costs_of(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]] = ()) -> dict[str, Cost]:
    """The costs of an image on average: computation, also of `others`, and, where all rows have it, mean latency."""
    gmacs = costs_of([*rows, *others])["gmacs"]
    axis = f"{gmacs.axis.removesuffix(' per image')}, on average"
    found = {"gmacs": replace(gmacs, title="average computation", axis=axis)}
    key = "latency_ms_mean"
    if all(key in row for row in rows):
        (latency,) = costs_of([{"latency_ms": row[key]} for row in rows]).values()
        found[key] = replace(latency, key=key, title="average latency", axis="mean latency of one image, ms")
    return found


def accuracy_over(run: Run, cost: Cost, *, width: float, plot_height: float) -> Scene | None:
    """Draw top-1 accuracy over a cost; none where there are not two networks to compare."""
    points = _points(run, cost)
    return _draw(points, cost, _STEPS, width, plot_height) if len(points) > 1 else None


def accuracy_of_gate(
    gated: Mapping[str, Any],
    budgets: Mapping[str, Mapping[str, Any]],
    static: Mapping[str, Mapping[str, Any]],
    front: Sequence[str],
    cost: Cost,
    *,
    width: float,
    plot_height: float,
) -> Scene:
    """Draw top-1 accuracy over an average cost of a gated network, and of every width for all images.

    Args:
        gated: its row.
        budgets: rows of the same with budgets, by the names that they get in the chart.
        static: rows of the widths, by the names that they get in the chart.
        front: the names that the line joins, as they are ordered in `static`.
        cost: which.
        width: in pixels.
        plot_height: of the plotting area.
    """
    points = [_Point("gate", gated, "gated"), *(_Point(name, row, "budget") for name, row in budgets.items())]
    points += [_Point(name, row, "static", name in front) for name, row in static.items()]
    return _draw(points, cost, _STRAIGHT, width, plot_height)


def _draw(points: Sequence[_Point], cost: Cost, front: _Front, width: float, plot_height: float) -> Scene:
    entries, legend_height = legend(_legend(points, front), width, 0)
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
    places = [place(point) for point in points if point.on_front]
    lines = [replace(front.symbol, points=front.corners(places, area.right))] if places else []
    items += lines
    items += [_marker(point, cost, *place(point)) for point in points]
    items += place_labels(_labels(points, place), area, lines)
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
    "static": ("circle", 5.0, "accent", "accent"),
    "gated": ("diamond", 7.0, "third", "third"),
    "budget": ("diamond", 5.5, "paper", "third"),
}
_MEANINGS = {
    "trained": "trained",
    "untrained": "not trained itself",
    "alone": "trained alone",
    "gated": "the gate chooses",
    "budget": "the gate, with a budget",
    "static": "one width for all images",
}


def _marker(point: _Point, cost: Cost, x: float, y: float) -> Marker:
    shape, radius, fill, color = _LOOKS[point.kind]
    title = f"{point.name}: {point.row['acc1']:.2f} %, {cost.say(point.row)}"
    return Marker(x=x, y=y, shape=shape, radius=radius, fill=fill, color=color, title=title)


def _legend(points: Sequence[_Point], front: _Front) -> list[LegendEntry]:
    entries: list[LegendEntry] = []
    for kind, meaning in _MEANINGS.items():
        if any(point.kind == kind for point in points):
            shape, radius, fill, color = _LOOKS[kind]
            entries.append((Marker(x=0, y=0, shape=shape, radius=radius, fill=fill, color=color), meaning))
    if any(point.on_front for point in points):
        entries.append((front.symbol, front.meaning))
    return entries


def _labels(points: Sequence[_Point], place: Any) -> list[Label]:
    named: set[str] = set()
    labels = []
    for point in sorted(
        points, key=lambda point: (point.kind == "untrained", point.kind != "gated", not point.on_front)
    ):
        x, y = place(point)
        # Of several networks trained alone in the same way one is named.
        text = "" if point.name in named else point.name
        named.add(point.name)
        color, radius = "alone" if point.kind == "alone" else "ink", max(5.5, _LOOKS[point.kind][1])
        bold = point.kind in ("trained", "gated")
        labels.append(Label(x=x, y=y, radius=radius, text=text, color=color, bold=bold))
    return labels


def _describe(points: Sequence[_Point], cost: Cost) -> str:
    parts = [f"{point.name} {point.row['acc1']:.1f} % at {cost.say(point.row)}" for point in points]
    return "Scatter plot. " + "; ".join(parts) + "."
