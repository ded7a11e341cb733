"""DS-MBNet: a MobileNet whose channels are cut, with the widths that its authors chose.

Li et al., "Dynamic Slimmable Network", 2021, and "DS-Net++", 2022; the numbers are those of the published code. The
squeeze-and-excitation of the published network is that of its gate; here every block has its own. As in the published
code, dropout acts in the largest network alone while several are trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, Block, ChannelGroup, Cut, Stage

__all__ = ["DSMBNet"]

BLOCKS = (1, 2, 2, 6, 2)
STRIDES = (1, 2, 2, 2, 2)
STRIDES_OF_SMALL_IMAGES = (1, 1, 2, 2, 2)
# The widest of each stage, the stem's first.
WIDEST = (24, 88, 168, 264, 640, 1152)
# How narrow the stem and the first three stages are in every sub-network that is used.
NARROW = (16, 32, 48, 96)
# The last two stages of the 14 sub-networks.
LATE = tuple((224 + 32 * number, 736 + 32 * number) for number in range(14))
# How a sub-network prints its width: the share of the channels of stages 3 and 4.
EARLY = 0.36


class SqueezeExcitation(nn.Module):
    """Scales channels by what their averages say of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[batch, channels, height, width]` to the same shape."""
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Separable(nn.Module):
    """A depthwise and a 1x1 convolution, without a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.attention = SqueezeExcitation(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.activation = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[batch, in_channels, height, width]` to `[batch, channels, height / stride, width / stride]`."""
        x = self.attention(self.activation(self.bn1(self.depthwise(x))))
        return self.activation(self.bn2(self.pointwise(x)))


class DSMBNet(nn.Module):
    """Five stages of separable convolutions that bring 14 widths, and their widest network, which teaches.

    In the 14 sub-networks the stem and the first three stages are narrow, and the last two grow together.

    Args:
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        large_images: a stem of stride 2, for images of about 224 pixels; else for about 32.
        multiplier: of all channels, which are rounded to multiples of 4.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, large_images: bool = True, multiplier: float = 1.0
    ) -> None:
        super().__init__()
        if multiplier <= 0:
            raise ValueError(f"DSMBNet: got multiplier={multiplier}, expected more than 0")
        self.num_classes = num_classes
        self.image_size = 224 if large_images else 32
        self._widths = [_Widths(number, multiplier) for number in range(len(WIDEST))]
        stem, *channels = [widths.widest for widths in self._widths]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem, 3, 2 if large_images else 1, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.SiLU(inplace=True),
        )
        self.stages = nn.ModuleList()
        strides = STRIDES if large_images else STRIDES_OF_SMALL_IMAGES
        before = stem
        for count, width, stride in zip(BLOCKS, channels, strides, strict=True):
            first = Separable(before, width, stride)
            self.stages.append(nn.Sequential(first, *(Separable(width, width, 1) for _ in range(count - 1))))
            before = width
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[batch, in_channels, height, width]` to logits `[batch, num_classes]`."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.fc(self.dropout(x.mean((2, 3))))

    def anatomy(self) -> Anatomy:
        """Return stages, blocks, norms, and the widths that the network brings."""
        stages = tuple(
            Stage(
                path=f"stages.{number}",
                channels=self._widths[number + 1].widest,
                blocks=tuple(
                    Block(path=path, norms=(f"{path}.bn1", f"{path}.bn2"), keeps_shape=False) for path in _paths(number)
                ),
            )
            for number in range(len(BLOCKS))
        )
        return Anatomy(
            family="DS-MBNet",
            stages=stages,
            head="fc",
            num_classes=self.num_classes,
            channels=tuple(self._groups()),
            widths=(*((EARLY, share) for share in _late_shares()), (1.0, 1.0)),
            dropout=("dropout",),
        )

    def _groups(self) -> Iterator[ChannelGroup]:
        """Yield a group for everything that a convolution makes and the next one reads."""
        paths = [path for number in range(len(BLOCKS)) for path in _paths(number)]
        numbers = [0, *(number + 1 for number, count in enumerate(BLOCKS) for _ in range(count))]
        made = [[_weight("stem.0", 0), _number("stem.0", "out_channels"), *_norm("stem.1")]]
        made += [
            [_weight(f"{path}.pointwise", 0), _number(f"{path}.pointwise", "out_channels"), *_norm(f"{path}.bn2")]
            for path in paths
        ]
        read = [_read_by(path) for path in paths] + [[_weight("fc", 1), _number("fc", "in_features")]]
        for number, after, maker, reader in zip(numbers, [*numbers[1:], -1], made, read, strict=True):
            widths = self._widths[number]
            yield ChannelGroup(
                units=widths.widest,
                stage=3 if widths.is_late else 0,
                cuts=tuple([*maker, *reader]),
                kept=widths.kept,
                streams=(number - 1,) if number and after != number else (),
            )


class _Widths:
    """The channels of the stem or of a stage, at each width."""

    def __init__(self, number: int, multiplier: float) -> None:
        def scaled(channels: int) -> int:
            return channels if multiplier == 1 else max(4, round(channels * multiplier / 4) * 4)

        self.widest = scaled(WIDEST[number])
        self.is_late = number >= len(NARROW)
        if self.is_late:
            late = [scaled(pair[number - len(NARROW)]) for pair in LATE]
            self.kept = tuple(zip(_late_shares(), late, strict=True))
        else:
            self.kept = ((EARLY, scaled(NARROW[number])), (1.0, self.widest))


def _late_shares() -> Sequence[float]:
    return [round(fourth / LATE[-1][0], 2) for fourth, _ in LATE]


def _paths(stage: int) -> list[str]:
    return [f"stages.{stage}.{block}" for block in range(BLOCKS[stage])]


def _read_by(path: str) -> list[Cut]:
    return [
        _weight(f"{path}.depthwise", 0),
        *(_number(f"{path}.depthwise", name) for name in ("groups", "in_channels", "out_channels")),
        *_norm(f"{path}.bn1"),
        _weight(f"{path}.attention.reduce", 1),
        _number(f"{path}.attention.reduce", "in_channels"),
        _weight(f"{path}.attention.expand", 0),
        Cut(path=f"{path}.attention.expand", name="bias", dim=0),
        _number(f"{path}.attention.expand", "out_channels"),
        _weight(f"{path}.pointwise", 1),
        _number(f"{path}.pointwise", "in_channels"),
    ]


def _weight(path: str, dim: int) -> Cut:
    return Cut(path=path, name="weight", dim=dim)


def _number(path: str, name: str) -> Cut:
    return Cut(path=path, name=name)


def _norm(path: str) -> list[Cut]:
    tensors = [Cut(path=path, name=name, dim=0) for name in ("weight", "bias", "running_mean", "running_var")]
    return [*tensors, _number(path, "num_features")]
