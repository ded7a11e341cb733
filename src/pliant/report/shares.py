"""Which share of the images left where, for each budget: stacked bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pliant.report.axes import TEXT, LegendEntry, legend
from pliant.report.content import Row
from pliant.report.policies import Policies
from pliant.report.scene import Bar, Box, Item, Line, Scene, Text, text_width
from pliant.report.theme import in_order, on_step

__all__ = ["exit_shares"]

_TOP, _RIGHT, _BOTTOM = 34.0, 12.0, 46.0
_PITCH, _LEAST_PITCH = 34.0, 14.0
_BETWEEN = 1.5


def exit_shares(policies: Policies, *, width: float, plot_height: float) -> Scene:
    """Draw a bar a budget, the smallest on top; `plot_height` is what they take at most, where they stay readable."""
    cost, subnets = policies.costs["gmacs"], policies.subnets
    rows = sorted(policies.rows, key=lambda row: row["budget"])
    colors = dict(zip(subnets, in_order(len(subnets)), strict=True))
    entries, legend_height = legend(_legend(policies, colors), width, 0)
    names = [f"{row['budget'] * cost.factor:.{cost.digits}f}" for row in rows]
    left = max(text_width(name, TEXT) for name in names) + 12
    pitch = max(_LEAST_PITCH, min(_PITCH, plot_height / len(rows)))
    area = Box(left, legend_height + _TOP, width - _RIGHT, legend_height + _TOP + pitch * len(rows))
    items: list[Item] = [*entries, Text(x=0, y=area.top - 12, text=f"budget, {cost.unit}"), *_axis(area)]
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        top, height = area.top + place * pitch + 0.12 * pitch, 0.76 * pitch
        items.append(Text(x=left - 8, y=top + height / 2 + 4, text=name, anchor="end"))
        items += _bar(policies, row, colors, Box(area.left, top, area.right, top + height))
    said = (f"budget {name}: {_say(policies, row)}" for name, row in zip(names, rows, strict=True))
    return Scene(
        width=width,
        height=area.bottom + _BOTTOM,
        title="Where the images leave",
        description="Stacked bars. " + "; ".join(said) + ".",
        items=items,
    )


def _legend(policies: Policies, colors: dict[str, str]) -> list[LegendEntry]:
    return [(Bar(x=-7, y=-6, width=14, height=12, fill=color), policies.short(name)) for name, color in colors.items()]


def _axis(area: Box) -> list[Item]:
    items: list[Item] = []
    for percent in range(0, 101, 25):
        place = area.left + percent / 100 * (area.right - area.left)
        items.append(Line(points=((place, area.top), (place, area.bottom + 4)), color="rule"))
        items.append(Text(x=place, y=area.bottom + 18, text=str(percent), anchor="middle"))
    items.append(Text(x=area.right, y=area.bottom + 38, text="share of the images, %", anchor="end"))
    return items


def _bar(policies: Policies, row: Row, colors: dict[str, str], box: Box) -> list[Item]:
    """One bar; a share is written into its part where there is room."""
    items: list[Item] = []
    start, height = box.left, box.bottom - box.top
    for subnet in policies.subnets:
        share = row["shares"][subnet]
        across = share * (box.right - box.left)
        # Nearly all is not all.
        text = f"{100 * share:.0f}" if share == 1 or share < 0.995 else f"{math.floor(1000 * share) / 10:.1f}"
        if across > 0:
            title = f"{policies.short(subnet)}: {100 * share:.1f} % of the images"
            # A line of the paper between two parts: neighbouring colours are alike.
            drawn = max(across - _BETWEEN, min(across, 1.0))
            items.append(Bar(x=start, y=box.top, width=drawn, height=height, fill=colors[subnet], title=title))
        if across > text_width(text, TEXT) + 8 and height > TEXT:
            place = start + (across - _BETWEEN) / 2
            color = on_step(colors[subnet])
            items.append(Text(x=place, y=box.top + height / 2 + 4, text=text, color=color, anchor="middle"))
        start += across
    return items


def _say(policies: Policies, row: Row) -> str:
    shares: Sequence[str] = [f"{policies.short(name)} {100 * row['shares'][name]:.0f} %" for name in policies.subnets]
    return ", ".join(shares)
