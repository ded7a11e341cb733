"""A drawing as data: lines, markers, bars and texts in pixels, y downwards, with colours by name.

A chart is laid out once as a `Scene`; `svg` puts it into the page, where the colours follow the
reader's light or dark setting, and `png` draws the same thing as an image of either kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Bar", "Box", "Item", "Line", "Marker", "Scene", "Text", "text_width"]

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Straight segments through `points`; `dash` as in SVG."""

    points: Sequence[Point]
    color: str
    width: float = 1.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A point of the data; `title` is shown when it is pointed at."""

    x: float
    y: float
    shape: Literal["circle", "diamond"] = "circle"
    radius: float = 5.0
    fill: str
    color: str
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A filled rectangle, (`x`, `y`) its upper left corner; `title` is shown when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A line of text; (`x`, `y`) is the `anchor` end of its baseline. A `halo` keeps lines off."""

    x: float
    y: float
    text: str
    color: str = "muted"
    size: float = 12.0
    anchor: Literal["start", "middle", "end"] = "start"
    mono: bool = False
    bold: bool = False
    halo: bool = False


Item = Line | Marker | Bar | Text


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A chart, drawn in the order of `items`; `description` says in words what can be seen."""

    width: float
    height: float
    title: str
    description: str
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        """Whether this one lies within `other`."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


def text_width(text: str, size: float, mono: bool = False) -> float:
    """About how wide a text is, in pixels: what the common fonts need, and a little more."""
    if mono:
        return 0.61 * size * len(text)
    narrow = sum(character in "iljtfrI.,:;|!' ()[]" for character in text)
    return size * (0.6 * (len(text) - narrow) + 0.36 * narrow)
