"""Names beside points, so that none covers another name or a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pliant.report.scene import Box, Item, Line, Text, text_width

__all__ = ["Label", "place_labels"]

_SIZE = 12.0
# To the upper right first, then around; a name far from its point gets a line that leads to it.
_ANGLES = (-45, 45, -135, 135, 0, 180, -90, 90, -20, 20, -160, 160, -70, 70, -110, 110)
_DISTANCES = (3.0, 9.0, 17.0, 27.0, 39.0, 53.0, 70.0, 90.0)
_LEADER_FROM = 9.0


@dataclass(frozen=True, kw_only=True)
class Label:
    """A point and its name; without a name it is only kept clear."""

    x: float
    y: float
    radius: float
    text: str
    color: str = "ink"
    bold: bool = False


def place_labels(labels: Sequence[Label], area: Box, lines: Sequence[Line] = ()) -> list[Item]:
    """Return the names, and leader lines where a name lies away from its point.

    Args:
        labels: the most important first; all their points are kept clear.
        area: names stay within it.
        lines: names avoid these where they can.

    A name that has no room anywhere near its point is left out.
    """
    points = [_around(label) for label in labels]
    taken: list[Box] = []
    leaders: list[tuple[tuple[float, float], tuple[float, float]]] = []
    items: list[Item] = []
    segments = [segment for line in lines for segment in _segments(line)]
    for label in labels:
        if not label.text:
            continue
        best = _best(label, area, points, taken, leaders, segments)
        if best is None:
            continue
        box, distance, angle = best
        taken.append(box)
        if distance >= _LEADER_FROM:
            start, end = _leader(label, box, angle)
            leaders.append((start, end))
            items.append(Line(points=(start, end), color="axis", width=0.8))
        items.append(
            Text(
                x=(box.left + box.right) / 2,
                y=box.bottom - 3.2,
                text=label.text,
                color=label.color,
                size=_SIZE,
                anchor="middle",
                mono=True,
                bold=label.bold,
                halo=True,
            )
        )
    return items


def _best(
    label: Label,
    area: Box,
    points: Sequence[Box],
    taken: Sequence[Box],
    leaders: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    segments: Sequence[tuple[tuple[float, float], tuple[float, float]]],
) -> tuple[Box, float, float] | None:
    best: tuple[float, Box, float, float] | None = None
    for distance in _DISTANCES:
        for rank, angle in enumerate(_ANGLES):
            box = _candidate(label, angle, distance)
            if not box.inside(area) or any(box.overlaps(other) for other in (*points, *taken)):
                continue
            if any(_crosses(box, *leader) for leader in leaders):
                continue
            if distance >= _LEADER_FROM:
                own, leader = _around(label), _leader(label, box, angle)
                if any(_crosses(other, *leader) for other in (*points, *taken) if not other.overlaps(own)):
                    continue
            cost = distance + 0.4 * rank + 12.0 * any(_crosses(box, *segment) for segment in segments)
            if best is None or cost < best[0]:
                best = (cost, box, distance, angle)
    return None if best is None else best[1:]


def _candidate(label: Label, angle: float, distance: float) -> Box:
    """The box of the name that touches a circle of `radius + distance` around the point, in this direction."""
    width, height = text_width(label.text, _SIZE, mono=True) + 2, _SIZE + 2
    dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x = label.x + dx * (label.radius + distance) + dx * width / 2
    y = label.y + dy * (label.radius + distance) + dy * height / 2
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _around(label: Label) -> Box:
    reach = label.radius + 1.5
    return Box(label.x - reach, label.y - reach, label.x + reach, label.y + reach)


def _leader(label: Label, box: Box, angle: float) -> tuple[tuple[float, float], tuple[float, float]]:
    dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    start = (label.x + dx * (label.radius + 1), label.y + dy * (label.radius + 1))
    end = (min(max(label.x, box.left), box.right), min(max(label.y, box.top + 2), box.bottom - 2))
    return start, end


def _segments(line: Line) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    return list(zip(line.points, line.points[1:], strict=False))


def _crosses(box: Box, start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Whether a segment goes through the box (Liang and Barsky's clipping)."""
    entering, leaving = 0.0, 1.0
    dx, dy = end[0] - start[0], end[1] - start[1]
    for step, room in (
        (-dx, start[0] - box.left),
        (dx, box.right - start[0]),
        (-dy, start[1] - box.top),
        (dy, box.bottom - start[1]),
    ):
        if step == 0:
            if room < 0:
                return False
            continue
        if step < 0:
            entering = max(entering, room / step)
        else:
            leaving = min(leaving, room / step)
    return entering < leaving
