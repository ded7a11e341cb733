"""TrivialAugment and RandAugment on a whole batch at once.

torchvision has both, for one image at a time (or one choice for all images of a batch). Here each image of the
batch gets its own choice, and images with the same operation are worked on together. Operations, strengths and
rounding are torchvision's, and tests compare them image by image.
B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pliant.data.augment import Augment
from pliant.data.dice import Dice

__all__ = ["OPERATIONS", "RAND", "TRIVIAL", "auto_augment"]

BINS = 31
"""Strengths of an operation."""


@dataclass(frozen=True)
class _Strengths:
    """The strengths that an operation is used with.

    Attributes:
        values: from weak to strong, float32 `[BINS]`; none = it has no strength.
        per_width: they are shares of the image's width.
        signed: both directions are used.
    """

    values: Tensor | None = None
    per_width: bool = False
    signed: bool = False


def _space(
    *, shear: float, translate: float, per_width: bool, degrees: float, colour: float, bits: int
) -> Mapping[str, _Strengths]:
    def up_to(end: float, **options: bool) -> _Strengths:
        return _Strengths(torch.linspace(0, end, BINS), signed=True, **options)

    return {
        "Identity": _Strengths(),
        "ShearX": up_to(shear),
        "ShearY": up_to(shear),
        "TranslateX": up_to(translate, per_width=per_width),
        "TranslateY": up_to(translate, per_width=per_width),
        "Rotate": up_to(degrees),
        "Brightness": up_to(colour),
        "Color": up_to(colour),
        "Contrast": up_to(colour),
        "Sharpness": up_to(colour),
        "Posterize": _Strengths((8 - torch.arange(BINS) / ((BINS - 1) / bits)).round()),
        "Solarize": _Strengths(torch.linspace(1, 0, BINS)),
        "AutoContrast": _Strengths(),
        "Equalize": _Strengths(),
    }


TRIVIAL = _space(shear=0.99, translate=32.0, per_width=False, degrees=135.0, colour=0.99, bits=6)
"""The wide space of TrivialAugment (Müller and Hutter, 2021, table 1)."""
RAND = _space(shear=0.3, translate=150 / 331, per_width=True, degrees=30.0, colour=0.9, bits=4)
"""The space of RandAugment (Cubuk et al., 2020)."""


def auto_augment(images_BCHW: Tensor, augment: Augment, dice: Dice) -> Tensor:
    """Change geometry or colours of each image by operations chosen at random.

    Args:
        images_BCHW: bytes with three channels.
        augment: which of the two, and RandAugment's settings.
        dice: the randomness of the batch.
    """
    if augment.auto == "trivial":
        return _round(images_BCHW, TRIVIAL, dice.integers(BINS), dice)
    for _ in range(augment.rand_ops):
        magnitude = torch.full((len(images_BCHW),), augment.rand_magnitude)
        images_BCHW = _round(images_BCHW, RAND, magnitude, dice)
    return images_BCHW


def _round(images_BCHW: Tensor, space: Mapping[str, _Strengths], bins_B: Tensor, dice: Dice) -> Tensor:
    """Apply one operation to each image."""
    operation_B = dice.integers(len(space))
    sign_B = torch.where(dice.chance(0.5), -1.0, 1.0)
    changed = images_BCHW.clone()
    for number, (name, strengths) in enumerate(space.items()):
        rows = (operation_B == number).nonzero().flatten()  # chosen on the CPU: no waiting for a device
        if name == "Identity" or not len(rows):
            continue
        strength = torch.zeros(len(rows))
        if strengths.values is not None:
            strength = strengths.values[bins_B[rows]]
            strength = strength * images_BCHW.shape[-1] if strengths.per_width else strength
            strength = strength * sign_B[rows] if strengths.signed else strength
        rows = rows.to(images_BCHW.device)
        group = OPERATIONS[name](images_BCHW.index_select(0, rows), strength)
        changed.index_copy_(0, rows, group)
    return changed


def _shear_x(images: Tensor, strength: Tensor) -> Tensor:
    half = images.shape[-2] / 2  # the top row stays
    return _move(images, x=(1.0, strength, strength * half))


def _shear_y(images: Tensor, strength: Tensor) -> Tensor:
    half = images.shape[-1] / 2
    return _move(images, y=(strength, 1.0, strength * half))


def _translate_x(images: Tensor, strength: Tensor) -> Tensor:
    return _move(images, x=(1.0, 0.0, -strength.trunc()))


def _translate_y(images: Tensor, strength: Tensor) -> Tensor:
    return _move(images, y=(0.0, 1.0, -strength.trunc()))


def _rotate(images: Tensor, strength: Tensor) -> Tensor:
    angle = strength.double().deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    return _move(images, x=(cosine, -sine, 0.0), y=(sine, cosine, 0.0))


_Row = tuple[Tensor | float, Tensor | float, Tensor | float]


def _move(images_BCHW: Tensor, *, x: _Row = (1.0, 0.0, 0.0), y: _Row = (0.0, 1.0, 0.0)) -> Tensor:
    """Take each pixel from the nearest place of an affine map; what comes from outside is black.

    Args:
        images_BCHW: bytes.
        x: factors of x, y and 1 that give the x to take a pixel from; in pixels, from the centre.
        y: likewise the y.
    """
    batch, _, height, width = images_BCHW.shape
    theta = torch.stack([torch.as_tensor(factor).float().expand(batch) for factor in (*x, *y)], dim=1).view(batch, 2, 3)
    theta = theta / torch.tensor([0.5 * width, 0.5 * height])[:, None]
    row = torch.linspace((1 - height) / 2, (height - 1) / 2, height)
    column = torch.linspace((1 - width) / 2, (width - 1) / 2, width)
    y_HW, x_HW = torch.meshgrid(row, column, indexing="ij")
    places = torch.stack([x_HW, y_HW, torch.ones_like(x_HW)], dim=-1).view(1, height * width, 3)
    grid = (places @ theta.transpose(1, 2)).view(batch, height, width, 2)  # on the CPU: the same on every device
    grid = grid.to(images_BCHW.device, non_blocking=True)
    moved = F.grid_sample(images_BCHW.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.round_().to(torch.uint8)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, torch.zeros((), device=images.device), strength)


def _colour(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, _grey(images), strength)


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, _grey(images).mean(dim=(-3, -2, -1), keepdim=True), strength)


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    channels = images.shape[1]
    kernel = torch.full((3, 3), 1 / 13)
    kernel[1, 1] = 5 / 13
    exact = images.float()
    blurred = exact.clone()  # the border stays as it is
    blurred[..., 1:-1, 1:-1] = F.conv2d(
        exact, kernel.to(images.device).expand(channels, 1, 3, 3), groups=channels
    ).round_()
    return _blend(images, blurred, strength)


def _grey(images_BCHW: Tensor) -> Tensor:
    red, green, blue = images_BCHW.float().unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor_().unsqueeze(1)


def _blend(images_BCHW: Tensor, other: Tensor, strength_B: Tensor) -> Tensor:
    """Move away from another image (or, with a negative strength, towards it)."""
    factor = (1 + strength_B).to(images_BCHW.device, non_blocking=True).view(-1, 1, 1, 1)
    return (images_BCHW * factor + other * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    mask = 256 - 2 ** (8 - strength.long())
    return images & mask.to(torch.uint8).to(images.device, non_blocking=True).view(-1, 1, 1, 1)


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    threshold = (255 * strength).to(images.device, non_blocking=True).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 255 - images, images)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.autocontrast(images)  # works image by image on a batch


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.equalize(images)  # likewise


OPERATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _brightness,
    "Color": _colour,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
"""By torchvision's names: bytes `[B, 3, H, W]` and strengths float32 `[B]` (on the CPU) to bytes."""
