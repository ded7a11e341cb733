"""Networks that take something else than square images of three channels, and an example of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CASES", "GMACS", "Mixed", "Plain", "make"]

CHANNELS, BLOCKS, CLASSES = 8, 4, 3


class Block(nn.Module):
    """A residual block."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer = norm, layer

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.layer(self.norm(x)))


def linear() -> Block:
    return Block(nn.Linear(CHANNELS, CHANNELS), nn.LayerNorm(CHANNELS))


def convolution(dimensions: int) -> Block:
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1](CHANNELS, CHANNELS, 3, padding=1)
    return Block(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1](CHANNELS))


class Plain(nn.Module):
    """A first layer, blocks, and a linear layer on their average over all positions."""

    def __init__(self, first: nn.Module, block: Callable[[], nn.Module], positions: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.first = first
        self.blocks = nn.ModuleList(block() for _ in range(BLOCKS))
        self.head = nn.Linear(CHANNELS, CLASSES)
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(self.positions) if self.positions else x)


class Mixed(nn.Module):
    """Takes a table and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.tokens = nn.Linear(5, CHANNELS), nn.Embedding(9, CHANNELS)
        self.blocks = nn.ModuleList(linear() for _ in range(BLOCKS))
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor, ids: Tensor, scale: float = 1.0) -> Tensor:
        x = self.table(x) + scale * self.tokens(ids).mean(1)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Patches(nn.Module):
    """An image transformer whose first layer is an embedding: that of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.first = nn.Embedding(6, CHANNELS), nn.Conv2d(3, CHANNELS, 4, 4)
        self.blocks = nn.ModuleList(linear() for _ in range(BLOCKS))
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).flatten(2).mT + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def ids(*shape: int, most: int) -> Tensor:
    tokens = torch.randint(most, shape, generator=torch.Generator().manual_seed(0))
    tokens[0, 0] = most - 1
    return tokens


CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "table": (lambda: Plain(nn.Linear(20, CHANNELS), linear), drawn(4, 20)),
    "tokens": (lambda: Plain(nn.Embedding(30, CHANNELS), linear, (1,)), ids(2, 7, most=30)),
    "signal": (lambda: Plain(nn.Conv1d(2, CHANNELS, 3, padding=1), lambda: convolution(1), (2,)), drawn(1, 2, 40)),
    "video": (
        lambda: Plain(nn.Conv3d(3, CHANNELS, 3, padding=1), lambda: convolution(3), (2, 3, 4)),
        drawn(1, 3, 4, 6, 6),
    ),
    "non-square": (
        lambda: Plain(nn.Conv2d(3, CHANNELS, 3, padding=1), lambda: convolution(2), (2, 3)),
        drawn(1, 3, 6, 9),
    ),
    "channels": (
        lambda: Plain(nn.Conv2d(5, CHANNELS, 3, padding=1), lambda: convolution(2), (2, 3)),
        drawn(2, 5, 6, 6),
    ),
    "patches": (Patches, drawn(2, 3, 8, 12)),
    "tuple": (Mixed, (drawn(2, 5), ids(2, 4, most=9))),
    "dictionary": (Mixed, {"ids": ids(2, 4, most=9), "x": drawn(2, 5), "scale": 2.0}),
}

_COLUMN, _ANSWER = BLOCKS * CHANNELS * CHANNELS, CHANNELS * CLASSES
GMACS = {
    name: (each + _ANSWER) / 1e9
    for name, each in {
        "table": 20 * CHANNELS + _COLUMN,
        "tokens": 7 * _COLUMN,
        "signal": 40 * 3 * (2 * CHANNELS + _COLUMN),
        "video": 4 * 36 * 27 * (3 * CHANNELS + _COLUMN),
        "non-square": 54 * 9 * (3 * CHANNELS + _COLUMN),
        "channels": 36 * 9 * (5 * CHANNELS + _COLUMN),
        "patches": 6 * (16 * 3 * CHANNELS + _COLUMN),
        "tuple": 5 * CHANNELS + _COLUMN,
        "dictionary": 5 * CHANNELS + _COLUMN,
    }.items()
}
"""What the largest sub-network of each costs, counted by hand: 10^9 multiply-accumulates."""


def make(kind: str) -> nn.Module:
    """Return a new network of a kind, in eval mode, always with the same weights."""
    torch.manual_seed(0)
    return CASES[kind][0]().eval()
