"""Colours by name, for light and for dark.

Blue and orange are told apart with every common kind of colour blindness; shapes and dashes say the
same once more.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DARK", "LIGHT", "SERIES", "css_variables"]

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
