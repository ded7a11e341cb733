"""The parts of an MSDNet: stem, diagonals, steps and classifiers.

Between them go lists of feature maps `[batch, channels, height, width]`, one for each scale, the finest first. Parts
keep their modules under the name of the scale, `scale0` the finest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["Classifier", "ConvNormReLU", "Diagonal", "Scale", "Stem", "Step"]


class ConvNormReLU(nn.Sequential):
    """Convolution, norm, ReLU."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 3, *, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)


class NewFeatures(nn.Sequential):
    """A 3x3 convolution, behind a 1x1 convolution that makes its input narrower, the bottleneck.

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: 2 on the way to a coarser scale.
        bottleneck: width of the bottleneck as a multiple of `channels`; none = there is no bottleneck.
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, bottleneck: int | None) -> None:
        super().__init__()
        if bottleneck is not None:
            width = min(in_channels, bottleneck * channels)
            self.squeeze = ConvNormReLU(in_channels, width, kernel=1)
            in_channels = width
        self.grow = ConvNormReLU(in_channels, channels, stride=stride)


class Scale(nn.Module):
    """One scale of one layer: its input, and beside it new features.

    Attributes:
        down: makes new features from the next finer scale; none where the layer does not have that scale.
        same: makes new features from this scale.
        reduce: makes fewer channels of them all; none where the layer is not a transition.
    """

    def __init__(self, down: NewFeatures | None, same: NewFeatures, reduce: ConvNormReLU | None) -> None:
        super().__init__()
        self.down = down
        self.same = same
        self.reduce = reduce

    def forward(self, x: Tensor, finer: Tensor | None) -> Tensor:
        """Map `[batch, channels, height, width]` and the next finer scale to more, or fewer, channels."""
        new = [self.same(x)]
        if self.down is not None:
            assert finer is not None
            new.insert(0, self.down(finer))
        x = torch.cat([x, *new], dim=1)
        return x if self.reduce is None else self.reduce(x)


class Diagonal(nn.ModuleDict):
    """One more layer of every scale that is named in it, the finest first, see `schedule.diagonal`.

    Args:
        scales: by name.
        finest_leaves: whether the finest scale is not read any more.
    """

    def __init__(self, scales: Mapping[str, Scale], *, finest_leaves: bool) -> None:
        super().__init__(scales)
        self.finest_leaves = finest_leaves

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """Map scales to as many or, where the finest leaves, one less. Those that it does not name stay."""
        scales = list(scales)
        for place, scale in enumerate(self.values(), start=len(scales) - len(self)):
            scales[place] = scale(scales[place], scales[place - 1] if place else None)
        return scales[1:] if self.finest_leaves else scales


class Stem(nn.ModuleDict):
    """The first layer: the finest scale from the image, each other from the one before.

    Args:
        in_channels: of the images.
        widths: channels of the scales.
        large_images: begin with a 7x7 convolution and a pooling, of stride 2 each, as is usual for ImageNet.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], *, large_images: bool) -> None:
        super().__init__()
        if large_images:
            finest = ConvNormReLU(in_channels, widths[0], kernel=7, stride=2, bias=True)
            finest.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
        else:
            finest = ConvNormReLU(in_channels, widths[0])
        self["scale0"] = finest
        for number, (finer, width) in enumerate(pairwise(widths), start=1):
            self[f"scale{number}"] = ConvNormReLU(finer, width, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images `[batch, in_channels, height, width]` to all scales."""
        scales = []
        for scale in self.values():
            x = scale(x)
            scales.append(x)
        return scales


class Classifier(nn.Module):
    """Reads the coarsest scale: two convolutions of stride 2, the average over positions, a linear layer.

    Args:
        in_channels: of the coarsest scale.
        channels: of the two convolutions.
        num_classes: outputs.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvNormReLU(in_channels, channels, stride=2), ConvNormReLU(channels, channels, stride=2)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)

    def features(self, scales: list[Tensor]) -> Tensor:
        """Map scales to what the linear layer reads, `[batch, channels]`."""
        return self.pool(self.convs(scales[-1])).flatten(1)

    def forward(self, scales: list[Tensor]) -> Tensor:
        """Map scales to logits `[batch, num_classes]`."""
        return self.linear(self.features(scales))


class Step(nn.Module):
    """What an exit depends on and the one before it does not.

    Attributes:
        diagonals: they take and return lists of scales.
        exit: the classifier behind them, which `forward` does not run. It is not there where a network goes on
            without it.
        channels: of the coarsest scale.
    """

    def __init__(self, diagonals: Sequence[Diagonal], exit: Classifier, channels: int) -> None:
        super().__init__()
        self.diagonals = nn.Sequential(*diagonals)
        self.exit = exit
        self.channels = channels

    @property
    def has_exit(self) -> bool:
        """Whether the classifier is there."""
        return self._modules.get("exit") is not None

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """Map scales to those that are still needed."""
        return self.diagonals(scales)
