"""Which share of the images went where: stacked bars, one for each budget or for each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pliant.report.axes import TEXT, LegendEntry, legend
from pliant.report.policies import Policies
from pliant.report.scene import Bar, Box, Item, Line, Scene, Text, text_width
from pliant.report.theme import in_order, on_step

__all__ = ["Said", "Stack", "exit_shares", "stacked_shares"]

_TOP, _RIGHT, _BOTTOM = 34.0, 12.0, 46.0
_PITCH, _LEAST_PITCH = 34.0, 14.0
_BETWEEN = 1.5


@dataclass(frozen=True)
class Stack:
    """A bar: its name, and by sub-network which share of the images went there; `remark` stands at its end."""

    name: str
    shares: Mapping[str, float]
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What is written around the bars.

    Attributes:
        title: of the chart.
        names: above the names of the bars.
        one: what a bar is for, in the description.
        remarks: above the remarks.
    """

    title: str
    names: str
    one: str
    remarks: str = ""


def exit_shares(policies: Policies, *, width: float, plot_height: float) -> Scene:
    """Draw a bar a budget, the smallest on top; `plot_height` is what they take at most, where they stay readable."""
    cost = policies.costs["gmacs"]
    stacks = [
        Stack(f"{row['budget'] * cost.factor:.{cost.digits}f}", row["shares"])
        for row in sorted(policies.rows, key=lambda row: row["budget"])
    ]
    short = {subnet: policies.short(subnet) for subnet in policies.subnets}
    said = Said(title="Where the images leave", names=f"budget, {cost.unit}", one="budget")
    return stacked_shares(stacks, short, said, width=width, plot_height=plot_height)


def stacked_shares(
    stacks: Sequence[Stack], short: Mapping[str, str], said: Said, *, width: float, plot_height: float
) -> Scene:
    """Draw the bars in their order; `short` are the names of the sub-networks in theirs."""
    colors = dict(zip(short, in_order(len(short)), strict=True))
    symbols = [Bar(x=-7, y=-6, width=14, height=12, fill=color) for color in colors.values()]
    entries: list[LegendEntry] = list(zip(symbols, short.values(), strict=True))
    drawn, legend_height = legend(entries, width, 0)
    left = max(text_width(stack.name, TEXT) for stack in stacks) + 12
    remarks = [text_width(text, TEXT) + 10 for text in (said.remarks, *(stack.remark for stack in stacks)) if text]
    pitch = max(_LEAST_PITCH, min(_PITCH, plot_height / len(stacks)))
    right = width - max(remarks, default=_RIGHT)
    area = Box(left, legend_height + _TOP, right, legend_height + _TOP + pitch * len(stacks))
    items: list[Item] = [*drawn, Text(x=0, y=area.top - 12, text=said.names), *_axis(area)]
    items.append(Text(x=width, y=area.top - 12, text=said.remarks, anchor="end"))
    for place, stack in enumerate(stacks):
        top, height = area.top + place * pitch + 0.12 * pitch, 0.76 * pitch
        middle = top + height / 2 + 4
        items.append(Text(x=left - 8, y=middle, text=stack.name, anchor="end"))
        items += _bar(stack, short, colors, Box(area.left, top, area.right, top + height))
        items.append(Text(x=width, y=middle, text=stack.remark, anchor="end"))
    described = (f"{said.one} {stack.name}: {_say(stack, short)}" for stack in stacks)
    return Scene(
        width=width,
        height=area.bottom + _BOTTOM,
        title=said.title,
        description="Stacked bars. " + "; ".join(described) + ".",
        items=[item for item in items if not isinstance(item, Text) or item.text],
    )


def _axis(area: Box) -> list[Item]:
    items: list[Item] = []
    for percent in range(0, 101, 25):
        place = area.left + percent / 100 * (area.right - area.left)
        items.append(Line(points=((place, area.top), (place, area.bottom + 4)), color="rule"))
        items.append(Text(x=place, y=area.bottom + 18, text=str(percent), anchor="middle"))
    items.append(Text(x=area.right, y=area.bottom + 38, text="share of the images, %", anchor="end"))
    return items


def _bar(stack: Stack, short: Mapping[str, str], colors: Mapping[str, str], box: Box) -> list[Item]:
    """One bar; a share is written into its part where there is room."""
    items: list[Item] = []
    start, height = box.left, box.bottom - box.top
    for subnet, name in short.items():
        share = stack.shares[subnet]
        across = share * (box.right - box.left)
        # Nearly all is not all.
        text = f"{100 * share:.0f}" if share == 1 or share < 0.995 else f"{math.floor(1000 * share) / 10:.1f}"
        if across > 0:
            title = f"{name}: {100 * share:.1f} % of the images"
            # A line of the paper between two parts: neighbouring colours are alike.
            drawn = max(across - _BETWEEN, min(across, 1.0))
            items.append(Bar(x=start, y=box.top, width=drawn, height=height, fill=colors[subnet], title=title))
        if across > text_width(text, TEXT) + 8 and height > TEXT:
            place = start + (across - _BETWEEN) / 2
            color = on_step(colors[subnet])
            items.append(Text(x=place, y=box.top + height / 2 + 4, text=text, color=color, anchor="middle"))
        start += across
    return items


def _say(stack: Stack, short: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {100 * stack.shares[subnet]:.0f} %" for subnet, name in short.items())
