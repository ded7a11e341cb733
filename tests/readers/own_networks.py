"""Networks as people write them, each of another kind; small. `FOUND` says what is to be found in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class Basic(nn.Module):
    """Activation behind the addition; a shortcut of separate layers; functional activations."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.projects = stride > 1 or inputs != outputs
        if self.projects:
            self.short_conv, self.short_bn = nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (self.short_bn(self.short_conv(x)) if self.projects else x))


class PreActivation(nn.Module):
    """Norms first; the shortcut branches off behind the first of them; in-place activations."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(x))
        short = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(self.relu(self.bn2(self.conv1(out)))) + short


class SqueezeExcited(nn.Module):
    """A gated branch, and a shortcut in a sequential."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(inputs, outputs, stride), nn.GroupNorm(2, outputs), nn.SiLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(outputs, outputs, 1), nn.Sigmoid())
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.GroupNorm(2, outputs))
            if stride > 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        return F.silu(out * self.gate(out) + self.downsample(x))


class Inverted(nn.Module):
    """As in mobile networks: some blocks have no shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, 2 * inputs, 1), nn.BatchNorm2d(2 * inputs), nn.ReLU6(), nn.Conv2d(2 * inputs, outputs, 1)
        )
        self.pool = nn.AvgPool2d(stride)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(self.pool(x))


class Cnn(nn.Module):
    """Stem, stages in sequentials, head."""

    def __init__(self, block: type[nn.Module], lengths: tuple[int, ...] = (2, 2, 3)) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        inputs, stages = 8, []
        for number, length in enumerate(lengths):
            outputs = 8 * 2**number
            blocks = [
                block(inputs if not index else outputs, outputs, 2 if number and not index else 1)
                for index in range(length)
            ]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class ScaledConvNeXt(nn.Module):
    """A layer scale, and a norm for channels at the end within an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        out = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        return x + (out * self.gamma).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Stages with a layer between them, the first of one block; blocks in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.downsample = nn.ModuleList([nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 16, 2, 2), nn.Conv2d(16, 24, 2, 2)])
        self.stages = nn.ModuleList(
            nn.Sequential(*(ScaledConvNeXt(width) for _ in range(length)))
            for length, width in ((1, 8), (2, 16), (3, 24))
        )
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample, self.stages, strict=True):
            x = stage(downsample(x))
        return self.head(self.norm(x.mean((2, 3))))


class RootMeanSquare(nn.Module):
    """A norm of one's own, with names of one's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x / x.square().mean(-1, keepdim=True).add(1e-6).sqrt() * self.gain


class RMSNorm(RootMeanSquare):
    pass


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1)))


class PreNorm(nn.Module):
    """As in a ViT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PostNorm(PreNorm):
    """As in BERT; takes a mask, and returns a second value."""

    def forward(self, x: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        mixed = self.attention(x) * scale
        x = self.norm1(x + mixed)
        return self.norm2(x + self.mlp(x)), mixed


class Column(nn.Module):
    """A transformer on the patches of an image."""

    def __init__(self, block: Callable[[int], nn.Module] = PreNorm, length: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.ModuleList(block(16) for _ in range(length))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def embed(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class ColumnByIndex(Column):
    """Counts on the number of its blocks, and adds something of its own to each."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for index in range(4):
            x = self.blocks[index](x)
        return self.head(self.norm(x).mean(1))


class ColumnOfPairs(Column):
    """Blocks return a pair and take a second argument."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x, _ = block(x, 0.5)
        return self.head(self.norm(x).mean(1))


class Residual(nn.Module):
    """The addition as a module of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class ColumnOfResiduals(Column):
    """Pairs of modules in lists that are never called."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    Residual(nn.Sequential(nn.LayerNorm(16), Attention(16))),
                    Residual(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16))),
                ]
            )
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for attention, mlp in self.blocks:  # type: ignore[misc]
            x = mlp(attention(x))
        return self.head(self.norm(x).mean(1))


class Encoder(Column):
    """Torch's own layers, which have a faster path past their norms."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x))).mean(1))


class Windowed(nn.Module):
    """Channels come last in four dimensions; the module of a stage adds nothing to its blocks."""

    class Stage(nn.Module):
        def __init__(self, width: int, length: int, merges: bool) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(PreNorm(width) for _ in range(length))
            self.merge = nn.Linear(4 * width, 2 * width) if merges else None

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            if self.merge is None:
                return x
            parts = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
            return self.merge(torch.cat(parts, -1))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.stages = nn.Sequential(self.Stage(8, 2, True), self.Stage(16, 4, True), self.Stage(32, 2, False))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


class Tabular(nn.Module):
    """No image at all: `[batch, features]`."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Residual(nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 12), nn.ReLU())) for _ in range(6)]
        self.layers = nn.Sequential(nn.Linear(7, 12), *blocks, nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class WeightNormed(Cnn):
    """Weights that are computed from other parameters."""

    def __init__(self) -> None:
        super().__init__(PreActivation)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.utils.parametrizations.weight_norm(module)


class Flat(nn.Module):
    """All stages in one sequential, with blocks that have no shortcut between them."""

    def __init__(self) -> None:
        super().__init__()
        widths = [8, 8, 8, 12, 12, 12, 16, 16]
        strides = [1, 1, 1, 2, 1, 1, 2, 1]
        blocks = [Inverted(*sizes) for sizes in zip([8, *widths], widths, strides, strict=False)]
        self.features = nn.Sequential(conv(3, 8), *blocks)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.features(x).mean((2, 3)))}


IMAGE = (2, 3, 16, 16)


@dataclass(frozen=True)
class Own:
    """One network.

    Attributes:
        make: makes it.
        blocks: how many blocks each stage has, and whether the first one can be skipped as well.
        container: path of the first stage.
        channels: of the last stage, and in which dimension of its output.
        columnar: whether it is a column.
        norms: how many norms the first stages have, stage by stage.
        shape: of the example.
    """

    make: Callable[[], nn.Module]
    blocks: tuple[tuple[int, bool], ...]
    container: str
    channels: tuple[int, int]
    norms: tuple[int, ...]
    columnar: bool = False
    shape: tuple[int, ...] = IMAGE

    def example(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(1))


CNN: dict[str, Any] = dict(blocks=((2, True), (2, False), (3, False)), container="stages.0", channels=(32, 1))
COLUMN: dict[str, Any] = dict(blocks=((4, True),), container="blocks", channels=(16, -1), columnar=True)

OWN = {
    "basic": Own(lambda: Cnn(Basic), norms=(4, 4, 6), **CNN),
    "pre-activation": Own(lambda: Cnn(PreActivation), norms=(4, 4, 6), **CNN),
    "squeeze-excited": Own(lambda: Cnn(SqueezeExcited), norms=(2, 2, 3), **CNN),
    "weight-normed": Own(WeightNormed, norms=(4, 4, 6), **CNN),
    "one block": Own(
        lambda: Cnn(Basic, (1, 2, 2)), **CNN | {"blocks": ((1, True), (2, False), (2, False))}, norms=(2, 4, 4)
    ),
    "flat": Own(Flat, ((3, True), (3, False), (2, False)), "features", (16, 1), norms=(3, 3, 2)),
    "convnext": Own(ConvNeXt, ((1, True), (2, True), (3, True)), "stages.0", (24, 1), norms=(1, 2, 3)),
    "windowed": Own(Windowed, ((2, True), (4, True), (2, True)), "stages.0.blocks", (32, -1), norms=(4, 8, 4)),
    "pre-norm": Own(Column, norms=(8,), **COLUMN),
    "post-norm": Own(lambda: ColumnOfPairs(PostNorm), norms=(8,), **COLUMN),
    "by index": Own(ColumnByIndex, norms=(8,), **COLUMN),
    "pairs": Own(ColumnOfResiduals, norms=(8,), **COLUMN | {"blocks": ((8, True),)}),
    "torch pre-norm": Own(lambda: Encoder(True), norms=(8,), **COLUMN | {"container": "blocks.layers"}),
    "torch post-norm": Own(lambda: Encoder(False), norms=(8,), **COLUMN | {"container": "blocks.layers"}),
    "tabular": Own(Tabular, ((6, True),), "layers", (12, 1), (6,), columnar=True, shape=(4, 7)),
}
