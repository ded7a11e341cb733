"""Run the backward pass of every kind of layer that widths cut, against contiguous weights; a process of its own.

Prints a line for each case that is wrong, and at the end how many were tried: where that line is missing, the process
has died.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import pliant
from pliant.core.anatomy import Anatomy, Block, ChannelGroup, Cut, Stage

WIDTHS = (0.25, 0.5, 0.75, 1.0)
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.1}


class One(nn.Module):
    """A network of one layer, all of whose channels are cut."""

    def __init__(self, layer: nn.Module, cuts: dict[int, list[Cut]], channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(layer)
        self._cuts, self._channels = cuts, channels

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)

    def anatomy(self) -> Anatomy:
        stage = Stage(
            path="block", channels=self._channels, blocks=(Block(path="block.0", norms=(), keeps_shape=False),)
        )
        groups = tuple(ChannelGroup(units=units, stage=0, cuts=tuple(cuts)) for units, cuts in self._cuts.items())
        return Anatomy(family="One", stages=(stage,), head="block.0", num_classes=self._channels, channels=groups)


def cut(name: str, dim: int | None = None) -> Cut:
    return Cut(path="block.0", name=name, dim=dim)


def convolution(dims: int, transposed: bool, channels: int, kernel: int, stride: int) -> One:
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    layer = kind(channels, 2 * channels, kernel, stride=stride, padding=kernel // 2)
    reads, makes = (0, 1) if transposed else (1, 0)
    read = [cut("weight", reads), cut("in_channels")]
    made = [cut("weight", makes), cut("bias", 0), cut("out_channels")]
    return One(layer, {channels: read, 2 * channels: made}, 2 * channels)


def depthwise(channels: int, kernel: int, stride: int) -> One:
    layer = nn.Conv2d(channels, channels, kernel, stride=stride, padding=kernel // 2, groups=channels)
    cuts = [cut("weight", 0), cut("bias", 0), cut("in_channels"), cut("out_channels"), cut("groups")]
    return One(layer, {channels: cuts}, channels)


def linear(channels: int) -> One:
    cuts = {channels: [cut("weight", 1), cut("in_features")]}
    cuts[2 * channels] = [cut("weight", 0), cut("bias", 0), cut("out_features")]
    return One(nn.Linear(channels, 2 * channels), cuts, 2 * channels)


def norm(kind: type[nn.Module], channels: int) -> One:
    names = ["weight", "bias", "running_mean", "running_var"] if kind is nn.BatchNorm2d else ["weight", "bias"]
    number = "num_features" if kind is nn.BatchNorm2d else "normalized_shape"
    return One(kind(channels), {channels: [*(cut(name, 0) for name in names), cut(number)]}, channels)


def networks() -> Iterator[tuple[str, One, list[tuple[int, ...]]]]:
    """Yield layers, each with the shapes of a batch, the channels left out (-1)."""
    for channels, kernel, stride in itertools.product((16, 64), (1, 3), (1, 2)):
        name = f"{channels} channels, kernel {kernel}, stride {stride}"
        shapes = [(8, -1, 16, 16), (3, -1, 15, 9)]
        if (kernel, stride, channels) == (1, 2, 16):
            shapes += [(64, -1, 16, 16), (2, -1, 112, 112)]
        yield f"Conv2d, {name}", convolution(2, False, channels, kernel, stride), shapes
        if channels == 16:
            yield f"Conv1d, {name}", convolution(1, False, channels, kernel, stride), [(8, -1, 64)]
            yield f"Conv3d, {name}", convolution(3, False, channels, kernel, stride), [(4, -1, 8, 8, 8)]
            yield f"ConvTranspose2d, {name}", convolution(2, True, channels, kernel, stride), [(8, -1, 8, 8)]
            yield f"depthwise Conv2d, {name}", depthwise(channels, kernel, stride), [(8, -1, 16, 16)]
    yield "Linear", linear(16), [(64, -1), (4, 50, -1)]
    yield "LayerNorm", norm(nn.LayerNorm, 16), [(64, -1), (4, 50, -1)]
    yield "BatchNorm2d", norm(nn.BatchNorm2d, 16), [(64, -1, 16, 16)]


def gradients(network: Any, x: Tensor, **which: str) -> list[Tensor]:
    """Output, gradient of the input and of the weight, in training mode."""
    x = x.detach().requires_grad_()
    network.zero_grad()
    output = network.train()(x, **which)
    slopes = torch.linspace(-1, 1, output.numel()).view(output.shape).to(x.dtype)
    output.backward(slopes.contiguous(memory_format=LAYOUTS.get(x.dim(), torch.contiguous_format)))
    weight = network.block[0]._parameters["weight"].grad
    return [output.detach(), x.grad, weight]  # type: ignore[list-item]


def check(name: str, network: One, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[str]:
    """Yield what is wrong at the widths of one layer, in both layouts."""
    model: Any = pliant.adapt_(copy.deepcopy(network), pliant.Width(choices=WIDTHS, norms="shared")).to(dtype)
    whole = next(iter(network._cuts))
    for width in WIDTHS:
        x = torch.randn([int(width * whole) if size < 0 else size for size in shape]).to(dtype)
        plain = pliant.extract(model, f"width={width}").double()
        with torch.backends.mkldnn.flags(enabled=False):
            expected = gradients(plain, x.double())
        for layout in ("contiguous", "channels last"):
            images, laid_out = x, model
            if layout == "channels last" and x.dim() == 3 and "Conv1d" in name:
                images = x.transpose(1, 2).contiguous().transpose(1, 2)
            elif layout == "channels last" and x.dim() in LAYOUTS:
                laid_out = copy.deepcopy(model).to(memory_format=LAYOUTS[x.dim()])
                images = x.contiguous(memory_format=LAYOUTS[x.dim()])
            got = gradients(laid_out, images, subnet=f"width={width}")
            got[2] = got[2][tuple(slice(size) for size in expected[2].shape)]
            error = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(got, expected, strict=True))
            if not error < TOLERANCE[dtype]:
                yield f"{name}, {layout}, {shape}, {dtype}, width {width}: wrong by {error:.2g} of the largest value"


def main() -> None:
    tried = 0
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, network, shapes in networks():
            dtypes = [torch.float32, *([torch.bfloat16] if "Conv2d, 16 channels, kernel 1" in name else [])]
            for shape, dtype in itertools.product(shapes, dtypes):
                torch.manual_seed(0)
                for problem in check(name, network, shape, dtype):
                    print(f"{threads} threads, {problem}", flush=True)
                tried += 1
    print(f"tried {tried}")


if __name__ == "__main__":
    main()
