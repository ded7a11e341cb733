"""How many layers lie before each exit, and which scales each layer computes. Numbers, no modules.

Scales are counted from 0, the finest; the last one, the coarsest, is what classifiers read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["finest_scales", "finest_scales_needed", "step_lengths"]

MODES = ("even", "lin_grow")


def step_lengths(exits: int, base: int, step: int, mode: str) -> tuple[int, ...]:
    """Return how many layers each step has.

    Args:
        exits: number of classifiers.
        base: layers before the first one.
        step: how the steps behind it grow.
        mode: `even`: `step` layers each; `lin_grow`: `step * i + 1` layers before the classifier behind the i-th.

    Raises:
        ValueError: an unknown mode, or a number below 1.
    """
    if mode not in MODES:
        raise ValueError(f"MSDNet: got mode {mode!r}, expected one of {', '.join(MODES)}")
    for name, value in (("exits", exits), ("base", base), ("step", step)):
        if value < 1:
            raise ValueError(f"MSDNet: got {name}={value}, expected a whole number from 1 on")
    return (base, *(step if mode == "even" else step * i + 1 for i in range(1, exits)))


def finest_scales(layers: int, scales: int) -> list[int]:
    """Return the finest scale that each layer computes: one scale leaves after every `layers / scales` layers."""
    interval = math.ceil(layers / scales)
    return [layer // interval for layer in range(layers)]


def finest_scales_needed(finest: Sequence[int], scales: int) -> list[int]:
    """Return the finest scale of each layer that a classifier behind the last of them depends on.

    It reads the coarsest scale, which reads the last two of the layer before, and so on: towards the end fewer and
    fewer fine scales matter.
    """
    return [max(own, scales - (len(finest) - layer)) for layer, own in enumerate(finest)]
