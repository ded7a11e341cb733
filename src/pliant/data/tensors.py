"""Small images: all of them in one tensor of bytes that stays on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pliant.data.augment import Augment
from pliant.data.autoaugment import auto_augment
from pliant.data.batchwise import crop_and_flip
from pliant.data.split import Share, Split, Style

__all__ = ["PixelStore", "TensorSplit", "channel_statistics"]


class PixelStore:
    """Images as bytes `[images, 3, height, width]`, and a copy of them on the device that asked last.

    Splits share a store, so that training and validation images are moved together, once.
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self._copy = pixels

    def on(self, device: torch.device) -> Tensor:
        """Return the images on a device."""
        if device.type == "cpu":
            return self.pixels
        if self._copy.device != device:
            self._copy = self.pixels  # frees the copy on another device first
            self._copy = self.pixels.to(device)
        return self._copy


class TensorSplit(Split):
    """A part of the images of a store.

    Args:
        store: the images.
        labels: of this part, int64 `[images]`.
        style: of the data set. If its image size is not the store's, batches are scaled.
        rows: where the images of this part are in the store, int64 `[images]`; none = all, in their order.
    """

    def __init__(self, store: PixelStore, labels: Tensor, style: Style, rows: Tensor | None = None) -> None:
        super().__init__(labels, style)
        self._store = store
        self._rows = torch.arange(len(labels)) if rows is None else rows

    def subset(self, rows: Tensor) -> TensorSplit:
        """Return a split of some of the images, in the same store."""
        return TensorSplit(self._store, self.labels[rows], self.style, self._rows[rows])

    def _pixels(
        self, shares: Sequence[Share], device: torch.device, augment: Augment | None, name: tuple[int | str, ...]
    ) -> Iterator[Tensor]:
        pixels = self._store.on(device)
        for share in shares:
            batch = pixels.index_select(0, self._rows[share.rows].to(device, non_blocking=True))
            if augment is not None:
                batch = self._vary(batch, augment, share)
            yield self._scale(batch, self.style.side(augment))

    def _scale(self, batch: Tensor, size: int) -> Tensor:
        if batch.shape[-1] == size:
            return batch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        return functional.resize(batch, [size, size], InterpolationMode(self.style.interpolation), antialias=True)

    def _vary(self, batch: Tensor, augment: Augment, share: Share) -> Tensor:
        padding = batch.shape[-1] // 8 if augment.padding is None else augment.padding
        batch = crop_and_flip(batch, padding, self.style.flips(augment), share.dice)
        return batch if augment.auto == "none" else auto_augment(batch, augment, share.dice)


Channels = tuple[float, float, float]


def channel_statistics(pixels: Tensor) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of the three channels of bytes `[images, 3, h, w]`, in [0, 1]."""
    total = torch.zeros(3, dtype=torch.int64)
    squares = torch.zeros(3, dtype=torch.int64)
    for chunk in pixels.split(512):  # in integers: exact, so the same on every machine
        wide = chunk.int()
        total += wide.sum(dim=(0, 2, 3))
        squares += wide.square_().sum(dim=(0, 2, 3))
    count = pixels.numel() / 3
    mean = total.double() / count
    variance = squares.double() / count - mean.square()
    # images of one colour have no spread to divide by
    std = torch.where(variance > 1e-3, variance.clamp(min=0).sqrt(), 255.0)
    return _rounded(mean / 255), _rounded(std / 255)


def _rounded(values: Tensor) -> Channels:
    first, second, third = (round(value, 5) for value in values.tolist())
    return first, second, third
