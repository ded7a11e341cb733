from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, cast

from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, Block, Stage
from pliant.core.surgery import shared_copy
from pliant.models.msdnet.parts import Classifier, ConvNormReLU, Diagonal, NewFeatures, Scale, Stem, Step
from pliant.models.msdnet.schedule import diagonal, finest_scales, step_lengths

__all__ = ["MSDNet", "steps_of"]


class MSDNet(nn.Module):
    """A network with a classifier behind every step. As a plain network it answers with the last one.

    Every scale of a layer joins its input to new features from itself and from the next finer scale. After equal
    shares of the layers the finest scale leaves, and the others are reduced to fewer channels. Layers run along
    diagonals (`schedule.diagonal`), so that an exit is reached without anything that only later ones depend on.

    The channels of a scale are a base number, which begins with `channels` and grows by `growth` a layer, times the
    scale's entry in `widening`.

    Args:
        exits: number of classifiers.
        base: layers before the first classifier.
        step: how many layers lie between two classifiers, see `mode`.
        mode: `lin_grow`: `step * i + 1` layers between classifiers i and i + 1; `even`: `step` layers.
        channels: base number of channels behind the first layer.
        growth: base number of channels that a layer adds.
        widening: a factor for each scale, the finest first.
        bottleneck: a factor for each scale: a 1x1 convolution before every 3x3 makes at most that many times the
            channels that the latter makes. None = no bottlenecks.
        reduction: share of the base channels that is kept where a scale leaves.
        num_classes: outputs of every classifier.
        in_channels: channels of the images.
        large_images: a first layer of stride 4, and classifiers as wide as what they read, for images of about 224
            pixels; else a first layer of stride 1, and classifiers of 128 channels, for images of about 32.

    Attributes:
        stem: image to scales.
        steps: for each exit what it depends on and no earlier one does, with its classifier, `exit`.
        image_size: height and width in pixels of the images the network is for.

    Raises:
        ValueError: numbers that do not fit together.
    """

    exit_channels = 128

    def __init__(
        self,
        exits: int,
        *,
        base: int = 1,
        step: int = 1,
        mode: str = "lin_grow",
        channels: int = 16,
        growth: int = 6,
        widening: Sequence[int] = (1, 2, 4),
        bottleneck: Sequence[int] | None = (1, 2, 4),
        reduction: float = 0.5,
        num_classes: int = 10,
        in_channels: int = 3,
        large_images: bool = False,
    ) -> None:
        super().__init__()
        lengths = step_lengths(exits, base, step, mode)
        _check(channels, growth, widening, bottleneck, reduction)
        self.num_classes = num_classes
        self.image_size = 224 if large_images else 32
        self.stem = Stem(in_channels, [channels * factor for factor in widening], large_images=large_images)
        factors = bottleneck or (None,) * len(widening)
        finest = finest_scales(sum(lengths), len(widening))
        layers = list(_layers(finest, channels, growth, widening, factors, reduction))
        self.steps = nn.ModuleList()
        done = 0
        for length in lengths:
            numbers = range(done + 1, done + length + 1)
            diagonals = [_diagonal(diagonal(number, finest, len(widening)), layers) for number in numbers]
            done += length
            width = layers[done - 1].channels * widening[-1]
            classifier = Classifier(width, width if large_images else self.exit_channels, num_classes)
            self.steps.append(Step(diagonals, classifier, width))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[batch, in_channels, height, width]` to the last classifier's logits `[batch, num_classes]`."""
        scales = self.stem(x)
        for step in self.steps:
            scales = step(scales)
        return steps_of(self)[-1].exit(scales)

    def truncated(self, number: int) -> Self:
        """Return the network up to exit `number`, counted from 1.

        It is a network of this class, and its tensors are this one's. The steps behind that exit and the classifiers
        before it are left out.

        Raises:
            ValueError: there is no such exit.
        """
        exits = [place for place, step in enumerate(steps_of(self), start=1) if step.has_exit]
        if number not in exits:
            raise ValueError(f"this MSDNet has no exit {number}; it has {', '.join(map(str, exits))}")
        shorter = shared_copy(self)
        shorter.steps = shorter.steps[:number]
        for step in steps_of(shorter)[:-1]:
            if step.has_exit:
                del step.exit
        return shorter

    def anatomy(self) -> Anatomy:
        """Return every step as a stage of one block, and where the classifiers are."""
        stages = []
        last = len(self.steps) - 1
        for number, step in enumerate(steps_of(self)):
            path = f"steps.{number}"
            classifier = f"{path}.exit" if step.has_exit and number < last else ""
            block = Block(path=path, norms=(), keeps_shape=False, exit=classifier)
            stages.append(Stage(path=path, channels=step.channels, blocks=(block,)))
        head = f"steps.{last}.exit.linear"
        return Anatomy(family="MSDNet", stages=tuple(stages), head=head, num_classes=self.num_classes)


def steps_of(network: MSDNet) -> list[Step]:
    """Return the steps of a network, as what they are."""
    return cast(list[Step], list(network.steps))


def _check(
    channels: int, growth: int, widening: Sequence[int], bottleneck: Sequence[int] | None, reduction: float
) -> None:
    for name, value in (("channels", channels), ("growth", growth)):
        if value < 1:
            raise ValueError(f"MSDNet: got {name}={value}, expected a whole number from 1 on")
    if not widening or min(widening) < 1:
        raise ValueError(f"MSDNet: got widening={list(widening)}, expected a number from 1 on for each scale")
    if bottleneck is not None and (len(bottleneck) != len(widening) or min(bottleneck) < 1):
        raise ValueError(
            f"MSDNet: got bottleneck={list(bottleneck)}, expected {len(widening)} numbers from 1 on, one for each scale"
        )
    for scale, factor in enumerate(widening[1:], start=1):
        if growth * factor % 2:
            raise ValueError(
                f"MSDNet: got growth={growth} and widening={list(widening)}, but new channels come in halves from two "
                f"scales, and scale {scale} gets {growth * factor}"
            )
    if not 0 < reduction <= 1:
        raise ValueError(f"MSDNet: got reduction={reduction}, expected a share above 0 and up to 1")


@dataclass(frozen=True)
class _Layer:
    """One layer as in the papers: all its scales by number, and the base number of channels behind it."""

    scales: dict[int, Scale]
    channels: int


def _layers(
    finest_scales: Sequence[int],
    channels: int,
    growth: int,
    widening: Sequence[int],
    bottleneck: Sequence[int | None],
    reduction: float,
) -> Iterator[_Layer]:
    for before, finest in pairwise([0, *finest_scales]):
        wider = channels + growth
        is_transition = finest > before
        kept = math.floor(reduction * wider) if is_transition else wider
        scales = {}
        for scale in range(finest, len(widening)):
            down = None
            new = growth * widening[scale]
            if scale > before:
                new //= 2
                inputs, squeeze = channels * widening[scale - 1], bottleneck[scale - 1]
                down = NewFeatures(inputs, new, stride=2, bottleneck=squeeze)
            same = NewFeatures(channels * widening[scale], new, bottleneck=bottleneck[scale])
            factor = widening[scale]
            reduce = ConvNormReLU(wider * factor, kept * factor, kernel=1) if is_transition else None
            scales[scale] = Scale(down, same, reduce)
        channels = kept
        yield _Layer(scales, channels)


def _diagonal(pairs: Sequence[tuple[int, int]], layers: Sequence[_Layer]) -> Diagonal:
    """Put together the layers of all scales that run one after the other, see `schedule.diagonal`."""
    finest, its_layer = pairs[0]
    leaves = its_layer < len(layers) and finest not in layers[its_layer].scales
    named = {f"scale{scale}": layers[layer - 1].scales[scale] for scale, layer in pairs}
    return Diagonal(named, finest_leaves=leaves)
