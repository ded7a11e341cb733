"""Kernels that shrink with the width: of those larger than 3 the centre runs (DS-Net++, DS-CNN)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from pliant.core.anatomy import Anatomy, ChannelGroup
from pliant.width.modules import Number, Part

__all__ = ["kernel_slices", "shrinking_kernels"]

USUAL = 3
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
# What torch writes down of a kernel in a convolution and computes with.
NUMBERS = ("kernel_size", "padding", "_reversed_padding_repeated_twice")


def shrinking_kernels(model: nn.Module, anatomy: Anatomy) -> Iterator[tuple[str, ChannelGroup]]:
    """Yield the paths of the convolutions whose kernels can shrink, each with the group of the channels that it gives.

    Others are left whole: those that read the images, whose channels stay; and those whose padding could not shrink
    along, such as timm's `Conv2dSame`, which pad in a way of their own.
    """
    cuts = [(cut, group) for group in anatomy.channels for cut in group.cuts]
    reading = {cut.path for cut, _ in cuts if cut.name == "groups" or (cut.name == "weight" and cut.dim == 1)}
    for cut, group in cuts:
        if cut.name == "weight" and cut.dim == 0 and cut.path in reading and _can_shrink(model.get_submodule(cut.path)):
            yield cut.path, group


def kernel_slices(module: nn.Module, stage: int, widths: Iterable[float]) -> tuple[list[Part], dict[str, Number]]:
    """Return how much of the kernel of a convolution runs, and the numbers that shrink with it.

    Args:
        module: a convolution from `shrinking_kernels`.
        stage: the stage whose width counts.
        widths: that it can have; the kernel is whole at 1 alone.
    """
    assert isinstance(module, Convolution)
    smaller, is_small = _smaller(module), {width: width < 1 for width in widths}
    parts = [
        Part(dim, 1, whole, stage, {width: less if small else whole for width, small in is_small.items()}, centred=True)
        for dim, (whole, less) in enumerate(zip(module.kernel_size, smaller.kernel_size, strict=True), start=2)
        if less < whole
    ]
    numbers = {
        name: Number(stage, {width: getattr(smaller if small else module, name) for width, small in is_small.items()})
        for name in NUMBERS
    }
    return parts, numbers


def _can_shrink(module: nn.Module) -> bool:
    if not isinstance(module, Convolution) or type(module).forward not in [kind.forward for kind in CONVOLUTIONS]:
        return False
    missing = [whole - less for whole, less in zip(module.kernel_size, map(_side, module.kernel_size), strict=True)]
    if isinstance(module.padding, str):
        return any(missing) and module.padding == "same"
    padding = zip(module.padding, missing, module.dilation, strict=True)
    return any(missing) and all(pixels >= less // 2 * step for pixels, less, step in padding)


def _smaller(module: Convolution) -> Convolution:
    """Return a convolution of one channel and no weights, with the kernel that runs at small widths."""
    kind = next(kind for kind in CONVOLUTIONS if isinstance(module, kind))
    kernel, padding = tuple(map(_side, module.kernel_size)), module.padding
    if not isinstance(padding, str):
        less = [(whole - side) // 2 for whole, side in zip(module.kernel_size, kernel, strict=True)]
        padding = tuple(pixels - ring * step for pixels, ring, step in zip(padding, less, module.dilation, strict=True))
    settings = {"padding": padding, "dilation": module.dilation, "padding_mode": module.padding_mode}
    return kind(1, 1, kernel, **settings, device="meta")  # type: ignore[arg-type]


def _side(side: int) -> int:
    """Return how much of one side of a kernel runs: of an even one, which has no centre, all."""
    return side - 2 if side > USUAL and side % 2 else side
