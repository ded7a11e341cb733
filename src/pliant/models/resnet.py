"""The CIFAR ResNets of He et al., "Deep Residual Learning for Image Recognition", section 4.2."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, Block, Stage

__all__ = ["BasicBlock", "CifarResNet"]


class PaddedShortcut(nn.Module):
    """Parameter-free shortcut (option A): take every second position, fill new channels with zeros."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `[batch, channels, height, width]` to the shape of the block's output."""
        before = self.new_channels // 2
        after = self.new_channels - before
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, after))


def projected_shortcut(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Make the shortcut of option B: a 1x1 convolution and a norm."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


# How the first block of a stage brings its input to the shape of its output: in_channels, channels, stride -> module.
SHORTCUTS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "padding": lambda in_channels, channels, stride: PaddedShortcut(channels - in_channels, stride),
    "projection": projected_shortcut,
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: str = "padding") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = SHORTCUTS[shortcut](in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[batch, in_channels, height, width]` to `[batch, channels, height / stride, width / stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels for images of about 32 pixels.

    Args:
        layers: 6n + 2 layers, n blocks a stage: 20, 32, 44, 56, 110.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        shortcut: how the first blocks of stages bring their input to a new shape: `padding` (option A, the paper's
            for these networks, without parameters) or `projection` (option B, a 1x1 convolution and a norm).
    """

    widths = (16, 32, 64)

    def __init__(self, layers: int, num_classes: int = 10, in_channels: int = 3, *, shortcut: str = "padding") -> None:
        super().__init__()
        if layers < 8 or (layers - 2) % 6:
            raise ValueError(f"CifarResNet: got {layers} layers, expected 6n + 2, such as 20, 32, 44, 56, 110")
        if shortcut not in SHORTCUTS:
            raise ValueError(f"CifarResNet: got shortcut={shortcut!r}, expected one of {', '.join(SHORTCUTS)}")
        blocks = (layers - 2) // 6
        self.shortcut = shortcut
        self.conv1 = nn.Conv2d(in_channels, self.widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(self.widths[0])
        self.layer1 = self._stage(self.widths[0], self.widths[0], blocks, 1, shortcut)
        self.layer2 = self._stage(self.widths[0], self.widths[1], blocks, 2, shortcut)
        self.layer3 = self._stage(self.widths[1], self.widths[2], blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.widths[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[batch, in_channels, height, width]` to logits `[batch, num_classes]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))

    def anatomy(self) -> Anatomy:
        """Return stages, blocks and norms.

        Raises:
            ValueError: something else stands where a block was, such as a wrapper.
        """
        stages = []
        for number, channels in enumerate(self.widths, start=1):
            path = f"layer{number}"
            blocks = []
            for name, block in self.get_submodule(path).named_children():
                if not isinstance(block, BasicBlock):
                    raise ValueError(
                        f"adapt_: '{path}.{name}' is a {type(block).__name__}, expected a BasicBlock; adapt the model "
                        "before its blocks are wrapped"
                    )
                norms = (f"{path}.{name}.bn1", f"{path}.{name}.bn2")
                keeps_shape = isinstance(block.shortcut, nn.Identity)
                blocks.append(Block(path=f"{path}.{name}", norms=norms, keeps_shape=keeps_shape))
            stages.append(Stage(path=path, channels=channels, blocks=tuple(blocks)))
        return Anatomy(family="CIFAR ResNet", stages=tuple(stages), head="fc", num_classes=self.fc.out_features)
