"""Large images: read, cut and varied by worker processes while the network trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pliant.data.augment import Augment
from pliant.data.decode import read_image, to_bytes
from pliant.data.dice import global_seed, new_generator
from pliant.data.split import Share, Split, Style

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FileSplit", "default_workers"]

MARGIN = 224 / 256
"""Share of a scaled image that the centre crop keeps, as in the evaluation of most published networks."""


def default_workers() -> int:
    """Return a number of worker processes for this machine."""
    if hasattr(os, "sched_getaffinity"):  # a container may own fewer cores than the machine has
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


class FileSplit(Split):
    """Images in files.

    Args:
        files: the images.
        labels: of these images, int64 `[images]`.
        style: of the data set.
        workers: processes that read images; 0 = the training process does it.
    """

    def __init__(self, files: Sequence[Path], labels: Tensor, style: Style, workers: int) -> None:
        super().__init__(labels, style)
        self._files = files
        self._workers = workers

    def subset(self, rows: Tensor) -> FileSplit:
        """Return a split of some of the images."""
        return FileSplit([self._files[row] for row in rows.tolist()], self.labels[rows], self.style, self._workers)

    def _pixels(
        self, shares: Sequence[Share], device: torch.device, augment: Augment | None, name: tuple[int | str, ...]
    ) -> Iterator[Tensor]:
        loader = DataLoader(
            _Pictures(self._files, _Cutter(self.style, augment), name),
            batch_sampler=[
                list(zip(*(t.tolist() for t in (share.rows, share.places)), strict=True)) for share in shares
            ],
            num_workers=min(self._workers, len(shares)),
            pin_memory=device.type == "cuda",
            collate_fn=_stack,
            generator=new_generator(*name, "workers"),  # else it would draw from torch's own
        )
        for batch in loader:
            if isinstance(batch, str):
                raise ValueError(batch)
            yield batch.to(device, non_blocking=True)


class _Cutter:
    """Cuts the square that the network sees out of a picture."""

    def __init__(self, style: Style, augment: Augment | None) -> None:
        self.style, self.augment = style, augment
        self._transform: Callable[[Image], Image] | None = None

    def __call__(self, image: Image) -> Tensor:
        if self._transform is None:  # made in the worker: nothing of torchvision has to be sent there
            self._transform = self._build()
        return to_bytes(self._transform(image))

    def _build(self) -> Callable[[Image], Image]:
        from torchvision.transforms import InterpolationMode, v2

        size, augment = self.style.side(self.augment), self.augment
        mode = InterpolationMode(self.style.interpolation)
        if augment is None:
            resize = self.style.resize or round(size / MARGIN)
            return v2.Compose([v2.Resize(resize, mode), v2.CenterCrop(size)])
        steps: list[torch.nn.Module] = [v2.RandomResizedCrop(size, scale=augment.scale, interpolation=mode)]
        steps += [v2.RandomHorizontalFlip()] if self.style.flips(augment) else []
        if augment.auto == "trivial":
            steps.append(v2.TrivialAugmentWide(interpolation=mode))
        elif augment.auto == "rand":
            steps.append(v2.RandAugment(augment.rand_ops, augment.rand_magnitude, interpolation=mode))
        return v2.Compose(steps)


class _Pictures(Dataset[Tensor | str]):
    """Pictures by row and place in the epoch; the place seeds what is random, whichever worker reads it."""

    def __init__(self, files: Sequence[Path], cut: _Cutter, name: tuple[int | str, ...]) -> None:
        self.files, self.cut, self.name = files, cut, name

    def __getitem__(self, item: tuple[int, int]) -> Tensor | str:
        row, place = item
        try:
            image = read_image(self.files[row], self.cut.style.whites)
        except ValueError as error:
            return str(error)  # raised in a worker it would come out with a traceback in its text
        with global_seed(*self.name, "picture", place):
            return self.cut(image)


def _stack(pictures: list[Tensor | str]) -> Tensor | str:
    good = [picture for picture in pictures if isinstance(picture, Tensor)]
    if len(good) < len(pictures):
        return next(picture for picture in pictures if isinstance(picture, str))
    return torch.stack(good)
