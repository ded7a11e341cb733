"""Variations of a whole batch at once, on the device it is on. B batch, C channels, H height, W width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pliant.data.augment import Augment
from pliant.data.dice import Dice, global_seed

__all__ = ["crop_and_flip", "erase", "mix"]

ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASE_ATTEMPTS = 10


def crop_and_flip(images_BCHW: Tensor, padding: int, flip: bool, dice: Dice) -> Tensor:
    """Put zeros around each image, cut a window of the original size out of it, and mirror every second window."""
    if not padding and not flip:
        return images_BCHW
    batch, channels, height, width = images_BCHW.shape
    device = images_BCHW.device
    top, left = dice.integers(2 * padding + 1, 2).to(device).split(1, dim=1)
    rows_BH = top + torch.arange(height, device=device)
    columns_BW = left + torch.arange(width, device=device)
    if flip:
        mirrored = dice.chance(0.5).to(device)
        columns_BW = torch.where(mirrored[:, None], columns_BW.flip(1), columns_BW)
    padded = F.pad(images_BCHW, [padding] * 4)
    # one gather for both: several times faster than indexing, and than mirroring on its own
    places = rows_BH[:, :, None] * padded.shape[-1] + columns_BW[:, None, :]
    places = places.view(batch, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view(batch, channels, height, width)


def erase(images_BCHW: Tensor, probability: float, dice: Dice) -> Tensor:
    """Set a rectangle of some images to zero, in place (Zhong et al., Random Erasing, algorithm 1)."""
    height, width = images_BCHW.shape[-2:]
    chosen = dice.chance(probability)
    area = _between(dice.uniform(ERASE_ATTEMPTS), *ERASED_AREA) * height * width
    aspect = _between(dice.uniform(ERASE_ATTEMPTS), *map(math.log, ERASED_ASPECT)).exp()
    corner = dice.uniform(2)
    high, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (high < height) & (wide < width)
    first = fits.int().argmax(dim=1, keepdim=True)  # of ten proposals; in the paper as many as it takes
    chosen &= fits.any(dim=1)
    high, wide = high.gather(1, first), wide.gather(1, first)
    top = (corner[:, :1] * (height - high + 1)).floor()
    left = (corner[:, 1:] * (width - wide + 1)).floor()
    row, column = torch.arange(height), torch.arange(width)
    in_rows_BH = (row >= top) & (row < top + high) & chosen[:, None]
    in_columns_BW = (column >= left) & (column < left + wide)
    device = images_BCHW.device
    rectangle_B1HW = in_rows_BH.to(device)[:, None, :, None] & in_columns_BW.to(device)[:, None, None, :]
    return images_BCHW.masked_fill_(rectangle_B1HW, 0.0)


def mix(images_BCHW: Tensor, labels_B: Tensor, augment: Augment, num_classes: int, dice: Dice) -> tuple[Tensor, Tensor]:
    """Mix images and labels of the batch with one another; labels become probabilities `[B, classes]`."""
    from torchvision.transforms import v2

    if augment.repeats > 1:
        # torchvision mixes neighbours, which would be the same image twice
        with global_seed(*dice.parts, "order"):
            order = torch.randperm(len(labels_B)).to(labels_B.device)
        images_BCHW, labels_B = images_BCHW[order], labels_B[order]
    if dice.shared() >= augment.mix_probability:
        return images_BCHW, F.one_hot(labels_B, num_classes).float()
    both = augment.mixup > 0 and augment.cutmix > 0
    cutting = dice.shared() < 0.5 if both else augment.cutmix > 0
    mixer = v2.CutMix if cutting else v2.MixUp
    with global_seed(*dice.parts, "mix"):
        return mixer(alpha=augment.cutmix if cutting else augment.mixup, num_classes=num_classes)(images_BCHW, labels_B)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + uniform * (high - low)
