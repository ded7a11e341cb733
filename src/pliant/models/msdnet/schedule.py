"""How many layers lie before each exit, which scales each computes, and in what order. Numbers, no modules.

Scales are counted from 0, the finest; the last one, the coarsest, is what classifiers read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["diagonal", "finest_scales", "step_lengths"]

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


def diagonal(number: int, finest: Sequence[int], scales: int) -> list[tuple[int, int]]:
    """Return which layer of which scale makes up a diagonal: pairs of scale and layer, the finest scale first.

    The coarsest scale of layer l reads the last two scales of layer l - 1, which read the last three of l - 2, and so
    on. So a classifier behind l layers depends on l layers of the coarsest scale, on l - 1 of the next finer one, and
    on nothing else: layers run along diagonals, and finer scales lag behind.

    Args:
        number: of the diagonal, which is that of the coarsest scale's layer, counted from 1.
        finest: the finest scale that each layer computes.
        scales: how many there are.
    """
    pairs = [(scale, number - (scales - 1 - scale)) for scale in range(scales)]
    return [(scale, layer) for scale, layer in pairs if layer >= 1 and scale >= finest[layer - 1]]
