"""Accuracy over an average cost: policies for budgets, and the same sub-network for all images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import dist
from typing import Any

from pliant.report.axes import LegendEntry, frame, legend, linear_axis, stairs
from pliant.report.content import Row
from pliant.report.labels import Label, place_labels
from pliant.report.policies import Policies
from pliant.report.scatter import Cost
from pliant.report.scene import Box, Item, Line, Marker, Scene

__all__ = ["accuracy_over_average"]

_TOP, _LEFT, _RIGHT, _BOTTOM = 34.0, 44.0, 12.0, 46.0
_LEAST_SPAN = 1.0
_BUDGETED = Line(points=((-9, 0), (9, 0)), color="accent", width=2)
_ANYTIME = Line(points=((-9, 0), (9, 0)), color="third", width=2, dash=(7, 3))
_ALONE = Marker(x=0, y=0, radius=4.5, fill="paper", color="alone")
_ALL = Marker(x=0, y=0, shape="diamond", radius=7.5, fill="paper", color="third")
_BUDGET = Marker(x=0, y=0, radius=4, fill="accent", color="accent")
# Nearer than this, a sub-network on its own is the point that is drawn already.
_SAME = 6.0

Point = tuple[float, float]


def accuracy_over_average(policies: Policies, cost: Cost, *, width: float, plot_height: float) -> Scene:
    """Draw what budgets buy; over computation also what one sub-network for all images gives."""
    budgeted = sorted(policies.rows, key=lambda row: row[cost.key])
    anytime = [row for row in policies.anytime if cost.key in row]
    own = [row for row in policies.own if cost.key in row]
    shown = [*budgeted, *anytime, *own]
    x = linear_axis([row[cost.key] * cost.factor for row in shown], ticks=6 if width > 450 else 4)
    y = linear_axis([row["acc1"] for row in shown], least_span=_LEAST_SPAN, ceiling=100)

    def place(row: Row, bottom: float = 0.0) -> Point:
        across = x.place(row[cost.key] * cost.factor, _LEFT, width - _RIGHT)
        return across, y.place(row["acc1"], bottom, bottom - plot_height)

    drawn = {row["subnet"]: place(row) for row in anytime}
    own = [row for row in own if row["subnet"] not in drawn or dist(drawn[row["subnet"]], place(row)) > _SAME]
    entries, legend_height = legend(_legend(policies, bool(anytime), bool(own)), width, 0)
    area = Box(_LEFT, legend_height + _TOP, width - _RIGHT, legend_height + _TOP + plot_height)
    place = partial(place, bottom=area.bottom)
    lines = [replace(_BUDGETED, points=tuple(map(place, budgeted)))] if len(budgeted) > 1 else []
    if anytime:
        lines.insert(0, replace(_ANYTIME, points=stairs([place(row) for row in anytime], area.right)))
    markers, labels = _points(policies, cost, anytime, own, budgeted, place)
    items: list[Item] = [*entries, *frame(area, x, y, cost.axis, "top-1 accuracy, %"), *lines, *markers]
    items += place_labels(labels, area, lines)
    return Scene(
        width=width,
        height=area.bottom + _BOTTOM,
        title=f"Accuracy over {cost.title}",
        description="Lines. " + "; ".join(marker.title for marker in markers) + ".",
        items=items,
    )


def _legend(policies: Policies, anytime: bool, own: bool) -> list[LegendEntry]:
    entries: list[LegendEntry] = [(_BUDGETED, "leaving when sure, for a budget")]
    if anytime:
        entries.append((_ANYTIME, f"all images up to the same {policies.noun}"))
    if own:
        entries.append((_ALONE, "a sub-network on its own"))
    return entries


def _points(
    policies: Policies, cost: Cost, anytime: Sequence[Row], own: Sequence[Row], budgeted: Sequence[Row], place: Any
) -> tuple[list[Marker], list[Label]]:
    """The markers, and the names of all sub-networks; a budget has none, its place says what it is."""
    markers, labels = [], []

    def mark(row: Row, look: Marker, name: str, title: str) -> None:
        across, height = place(row)
        markers.append(replace(look, x=across, y=height, title=f"{title}: {row['acc1']:.2f} %, {cost.say(row)}"))
        color = "ink" if look.color != "alone" else "alone"
        labels.append(Label(x=across, y=height, radius=look.radius, text=name, color=color))

    for row in own:
        name = policies.short(row["subnet"])
        mark(row, _ALONE, name, f"{name} on its own")
    for row in anytime:
        name = policies.short(row["subnet"])
        mark(row, _ALL, name, f"all up to {name}")
    gmacs = policies.costs["gmacs"]
    for row in budgeted:
        asked = gmacs.say({"gmacs": row["budget"]})
        mark(row, _BUDGET, "", f"budget of {asked}")
    # The first names get the best places: those of the sub-networks that the policies choose among.
    chosen = {policies.short(subnet) for subnet in policies.subnets}
    return markers, sorted(labels, key=lambda label: label.text not in chosen)
