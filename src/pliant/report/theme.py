"""Colours by name, for light and for dark.

Blue and orange are told apart with every common kind of colour blindness; shapes and dashes say the
same once more. What has an order, such as the exits, goes from a colour near the paper to one near the ink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["DARK", "LIGHT", "SERIES", "css_variables", "in_order", "on_step"]

_STEPS = 12


def _ramp(*anchors: str) -> dict[str, str]:
    """Colours `step0`, `step1`, ..., evenly spaced between anchors such as `#cdeadd`."""
    channels = [[int(anchor[place : place + 2], 16) for place in (1, 3, 5)] for anchor in anchors]
    colors = {}
    for step in range(_STEPS):
        place = step * (len(anchors) - 1) / (_STEPS - 1)
        before = min(int(place), len(anchors) - 2)
        mixed = [
            round(a + (b - a) * (place - before)) for a, b in zip(channels[before], channels[before + 1], strict=True)
        ]
        colors[f"step{step}"] = "#{:02x}{:02x}{:02x}".format(*mixed)
    return colors


LIGHT: Mapping[str, str] = {
    "paper": "#ffffff",
    "panel": "#f6f7f8",
    "ink": "#171b1f",
    "muted": "#5a6570",
    "rule": "#e1e5e8",
    "axis": "#a9b2ba",
    "accent": "#0a66b0",
    "tint": "#e4eff9",
    "front": "#8dbbe3",
    "alone": "#b8500a",
    "third": "#067a63",
    "fourth": "#94407f",
    **_ramp("#cdeadd", "#7cc0cf", "#3b83ba", "#3b529b", "#35226a"),
}

DARK: Mapping[str, str] = {
    "paper": "#14171a",
    "panel": "#1c2024",
    "ink": "#e9ecee",
    "muted": "#9aa6b0",
    "rule": "#2a3036",
    "axis": "#56616b",
    "accent": "#6cb6f5",
    "tint": "#1d3349",
    "front": "#3d6c98",
    "alone": "#f0a05a",
    "third": "#4cc9aa",
    "fourth": "#df9ac9",
    **_ramp("#1f4045", "#265a70", "#3f7db1", "#93b4e6", "#e2d6fb"),
}

# Lines that are told apart, in this order; each with a dash of its own.
SERIES: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("accent", ()),
    ("third", (7, 3)),
    ("fourth", (2, 2.5)),
    ("alone", (9, 3, 2, 3)),
)


def css_variables(theme: Mapping[str, str]) -> str:
    """The theme as CSS custom properties: `--ink: #171b1f; ...`."""
    return " ".join(f"--{name}: {color};" for name, color in theme.items())


def in_order(count: int) -> Sequence[str]:
    """Return the names of colours for so many things in an order; beyond twelve neighbours may be alike."""
    return [f"step{round(place * (_STEPS - 1) / max(count - 1, 1))}" for place in range(count)]


def on_step(name: str) -> str:
    """Return the name of the colour in which a text on one of `in_order` is readable."""
    return "ink" if int(name.removeprefix("step")) < _STEPS / 2 else "paper"
