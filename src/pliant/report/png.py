"""A scene as a PNG file, in light or dark, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pliant.report.scene import Bar, Item, Line, Marker, Scene, Text

__all__ = ["write_png"]

_MARGIN = 18.0
_TITLE_HEIGHT = 34.0
_GAP = 28.0
_DOTS_PER_INCH = 200


def write_png(path: Path, scenes: Sequence[Scene], theme: Mapping[str, str]) -> None:
    """Draw scenes side by side, each under its title, with the colours of `theme`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = sum(scene.width for scene in scenes) + _GAP * (len(scenes) - 1) + 2 * _MARGIN
    height = max(scene.height for scene in scenes) + _TITLE_HEIGHT + 2 * _MARGIN
    # At 72 points an inch a pixel of the scene is a point, so that font sizes carry over. A figure of
    # its own, not pyplot's: a library must not touch the caller's figures.
    figure = Figure(figsize=(width / 72, height / 72), dpi=_DOTS_PER_INCH, facecolor=theme["paper"])
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    left = _MARGIN
    for scene in scenes:
        title = Text(x=0, y=14 - _TITLE_HEIGHT, text=scene.title, color="ink", size=16, bold=True)
        for order, item in enumerate((title, *scene.items)):
            _draw(axes, item, left, _MARGIN + _TITLE_HEIGHT, theme, order)
        left += scene.width + _GAP
    figure.savefig(path, format="png", facecolor=theme["paper"])


def _draw(axes: Any, item: Item, dx: float, dy: float, theme: Mapping[str, str], order: int) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    if isinstance(item, Line):
        x, y = zip(*item.points, strict=True)
        axes.plot(
            [value + dx for value in x],
            [value + dy for value in y],
            color=theme[item.color],
            linewidth=item.width,
            # matplotlib counts dashes in line widths, SVG in pixels.
            linestyle=(0, tuple(length / item.width for length in item.dash)) if item.dash else "-",
            solid_joinstyle="miter",
            zorder=order,
        )
    elif isinstance(item, Marker):
        axes.plot(
            item.x + dx,
            item.y + dy,
            marker="o" if item.shape == "circle" else "D",
            # A diamond is a square on its corner: its side is shorter than its height.
            markersize=2 * item.radius * (1 if item.shape == "circle" else 0.7071),
            markerfacecolor=theme[item.fill],
            markeredgecolor=theme[item.color],
            markeredgewidth=1.8,
            zorder=order,
        )
    elif isinstance(item, Bar):
        corner = (item.x + dx, item.y + dy)
        axes.add_patch(Rectangle(corner, item.width, item.height, color=theme[item.fill], linewidth=0, zorder=order))
    else:
        axes.text(
            item.x + dx,
            item.y + dy,
            item.text,
            color=theme[item.color],
            fontsize=item.size * 0.92,
            family="DejaVu Sans Mono" if item.mono else "DejaVu Sans",
            weight="bold" if item.bold else "normal",
            ha={"start": "left", "middle": "center", "end": "right"}[item.anchor],
            va="baseline",
            zorder=order,
            parse_math=False,
            path_effects=[withStroke(linewidth=3, foreground=theme["paper"])] if item.halo else None,
        )
