"""A small network that says itself which of its channels belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pliant
from pliant.core.anatomy import Anatomy, Block, ChannelGroup, Cut, Stage


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Tiny(nn.Module):
    """Two stages, so that widths can differ."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.channels = channels
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.layer1 = nn.Sequential(Residual(channels), Residual(channels))
        self.between = nn.Conv2d(channels, channels, 2, stride=2)
        self.layer2 = nn.Sequential(Residual(channels), Residual(channels), Residual(channels))
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.between(self.layer1(self.stem(x)))).mean((2, 3)))

    def anatomy(self) -> Anatomy:
        return Anatomy(
            family="Tiny",
            stages=tuple(
                Stage(
                    path=layer,
                    channels=self.channels,
                    blocks=tuple(
                        Block(path=path, norms=(f"{path}.bn1", f"{path}.bn2"), keeps_shape=True)
                        for path in self._blocks(layer)
                    ),
                )
                for layer in ("layer1", "layer2")
            ),
            head="fc",
            num_classes=5,
            channels=(
                *self._groups("layer1", 0, [_made_by("stem"), Cut(path="between", name="weight", dim=1)]),
                *self._groups("layer2", 1, [_made_by("between"), Cut(path="fc", name="weight", dim=1)]),
            ),
        )

    def _blocks(self, layer: str) -> list[str]:
        return [f"{layer}.{number}" for number in range(len(self.get_submodule(layer)))]  # type: ignore[arg-type]

    def _groups(self, layer: str, stage: int, outside: list[list[Cut] | Cut]) -> list[ChannelGroup]:
        stream = [cut for cuts in outside for cut in (cuts if isinstance(cuts, list) else [cuts])]
        groups = []
        for path in self._blocks(layer):
            inner = [
                Cut(path=f"{path}.conv1", name="weight", dim=0),
                Cut(path=f"{path}.conv1", name="out_channels"),
                *_norm(f"{path}.bn1"),
                Cut(path=f"{path}.conv2", name="weight", dim=1),
            ]
            groups.append(ChannelGroup(units=self.channels, stage=stage, cuts=tuple(inner)))
            stream.append(Cut(path=f"{path}.conv1", name="weight", dim=1))
            stream += [Cut(path=f"{path}.conv2", name="weight", dim=0), *_norm(f"{path}.bn2")]
        return [*groups, ChannelGroup(units=self.channels, stage=stage, cuts=tuple(stream))]


def _made_by(path: str) -> list[Cut]:
    return [
        Cut(path=path, name="weight", dim=0),
        Cut(path=path, name="bias", dim=0),
        Cut(path=path, name="out_channels"),
    ]


def _norm(path: str) -> list[Cut]:
    tensors = [Cut(path=path, name=name, dim=0) for name in ("weight", "bias", "running_mean", "running_var")]
    return [*tensors, Cut(path=path, name="num_features")]


@pytest.fixture
def tiny() -> type[Tiny]:
    return Tiny


@pytest.fixture
def make() -> Callable[..., Any]:
    """Adapt it, with norms that do something."""
    return adapted


def adapted(*configs: pliant.Width | pliant.Depth) -> Any:
    torch.manual_seed(0)
    model = Tiny()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean = torch.randn(8)
            norm.running_var = torch.rand(8) + 0.5
    model.eval()
    return pliant.adapt_(model, *(configs or (pliant.Width(choices=(0.25, 0.5, 1.0)),)))
