"""A scene as SVG for the page: its colours are the page's own, its texts are texts."""

from __future__ import annotations

from functools import partial
from html import escape

from pliant.report.scene import Bar, Item, Line, Marker, Scene

__all__ = ["to_svg"]

_escape = partial(escape, quote=False)


def to_svg(scene: Scene, name: str) -> str:
    """Return an `<svg>` element; `name` is unique on the page."""
    body = "\n".join(_draw(item) for item in scene.items)
    return (
        f'<svg viewBox="0 0 {scene.width:g} {scene.height:g}" role="img" '
        f'aria-labelledby="{name}-title {name}-description">\n'
        f'<title id="{name}-title">{_escape(scene.title)}</title>\n'
        f'<desc id="{name}-description">{_escape(scene.description)}</desc>\n{body}\n</svg>'
    )


def _draw(item: Item) -> str:
    if isinstance(item, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points)
        dash = f' stroke-dasharray="{" ".join(f"{length:g}" for length in item.dash)}"' if item.dash else ""
        return f'<polyline points="{points}" style="stroke:var(--{item.color})" stroke-width="{item.width:g}"{dash}/>'
    if isinstance(item, Marker):
        return _marker(item)
    if isinstance(item, Bar):
        place = f'x="{item.x:.1f}" y="{item.y:.1f}" width="{item.width:.1f}" height="{item.height:.1f}"'
        return _titled(f'<rect {place} style="fill:var(--{item.fill})"/>', item.title)
    names = " ".join(name for name, on in (("mono", item.mono), ("bold", item.bold), ("halo", item.halo)) if on)
    classes = f'class="{names}"' if names else ""
    return (
        f'<text x="{item.x:.1f}" y="{item.y:.1f}" text-anchor="{item.anchor}" font-size="{item.size:g}" '
        f'{classes} style="fill:var(--{item.color})">{_escape(item.text)}</text>'
    )


def _marker(item: Marker) -> str:
    style = f'style="fill:var(--{item.fill});stroke:var(--{item.color})" stroke-width="1.8"'
    x, y, r = item.x, item.y, item.radius
    if item.shape == "circle":
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {style}/>'
    else:
        corners = f"{x:.1f},{y - r:.1f} {x + r:.1f},{y:.1f} {x:.1f},{y + r:.1f} {x - r:.1f},{y:.1f}"
        shape = f'<polygon points="{corners}" {style}/>'
    return _titled(shape, item.title)


def _titled(shape: str, title: str) -> str:
    return f"<g><title>{_escape(title)}</title>{shape}</g>" if title else shape
