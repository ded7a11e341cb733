"""Networks whose channels cannot be cut are refused by the layers that are in the way."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from pliant.core.anatomy import Anatomy, Block, Stage
from pliant.models import MODELS
from pliant.models.resnet import CifarResNet
from pliant.readers import read
from pliant.readers.channels import channel_groups


def refused(model: nn.Module, size: int = 32, anatomy: Anatomy | None = None) -> str:
    with pytest.raises(ValueError) as error:
        channel_groups(model, anatomy or read(model), size)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_padded_shortcuts() -> None:
    assert refused(CifarResNet(14)) == (
        "CIFAR ResNet: the channels of 'layer1.1.conv2' and 'layer2.1.conv2' cannot be cut together: constant_pad_nd "
        "in 'layer2.0.shortcut' changes their number by a fixed one"
    )


def test_an_msdnet() -> None:
    assert re.fullmatch(
        r"MSDNet: the channels of 'stem\.\S+' and 'steps\.\S+' cannot be cut together: cat in 'steps\.\S+' joins "
        "different channels",
        refused(MODELS["msdnet_cifar10_k4"]()),
    )


class Own(nn.Module):
    """Two blocks and a head; classes below say what a block does."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1, self.layer2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(channels, 5)

    def blocks(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))

    def anatomy(self) -> Anatomy:
        blocks = tuple(Block(path=path, norms=(), keeps_shape=True) for path in ("layer1", "layer2"))
        return Anatomy(family="own", stages=(Stage(path="", channels=8, blocks=blocks),), head="head", num_classes=5)


class Dense(Own):
    def blocks(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer1(x), self.layer2(x)], 1)


class Counted(Own):
    def blocks(self, x: Tensor) -> Tensor:
        return super().blocks(x).view(-1, 8, 32, 32)


class Summed(Own):
    def blocks(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(x).cumsum(1)).cumsum(1)


class Features(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


class Reading(Own):
    def blocks(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else super().blocks(x)


class Reshaping(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)).view(-1, 8))


class Telling(Own):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.blocks(self.stem(x))
        return self.head(x.mean((2, 3))), x.new_zeros(x.shape[1])


class Lazy(Own):
    def blocks(self, x: Tensor) -> Tensor:
        return x


NETWORKS = {
    Dense: "own: the channels of 'layer1' and 'layer2' cannot be cut together: cat in its own forward joins different "
    "channels",
    Summed: "own: the channels of 'layer2' cannot be cut: cumsum in its own forward is no operator along which "
    "channels can be followed",
    Features: "own: the channels of 'layer2' cannot be cut: they are the network's output",
    Reading: r"own: its channels cannot be followed: its own forward fails with RuntimeError: .*item.*",
    Counted: r"own: with fewer channels its own forward fails with RuntimeError: .*",
    Reshaping: r"own: with fewer channels .*",
    Telling: r"own: with fewer channels it answers in another shape: \[8\] and \[\d\]",
    Lazy: "own: its channels cannot be followed: stage '' does not run",
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_of_ones_own(kind: type[Own]) -> None:
    assert re.fullmatch(NETWORKS[kind], refused(kind(16 if kind is Dense else 8)))


def test_a_network_that_can_be_cut_says_nothing() -> None:
    assert [group.units for group in channel_groups(Own(), Own().anatomy(), 32)] == [8, 8, 8]


def test_the_wrong_anatomy() -> None:
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    anatomy = read(model)
    unused = Stage(path="unused", channels=8, blocks=(Block(path="unused", norms=(), keeps_shape=True),))
    model.add_module("unused", nn.Conv2d(3, 8, 1))
    anatomy = dataclasses.replace(anatomy, stages=(*anatomy.stages, unused))
    assert refused(model, anatomy=anatomy).endswith("its channels cannot be followed: stage 'unused' does not run")


def test_images_that_do_not_fit() -> None:
    said = refused(torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32), 40)
    assert said.startswith(
        "torchvision VisionTransformer: its channels cannot be followed: its own forward fails with "
    )


def test_no_library_is_loaded_for_a_network_that_is_not_from_it() -> None:
    code = (
        "import sys; from pliant.models.resnet import CifarResNet; from pliant.readers.channels import channel_groups; "
        "m = CifarResNet(8, shortcut='projection'); assert channel_groups(m, m.anatomy(), 32); "
        "print([name for name in ('torchvision', 'timm', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
