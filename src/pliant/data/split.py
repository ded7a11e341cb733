"""`Split`: some images of a data set, and the batches of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor

from pliant.data.augment import Augment
from pliant.data.batchwise import erase, mix
from pliant.data.dice import Dice, new_generator

__all__ = ["Interpolation", "Share", "Split", "Style"]


Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Style:
    """What all splits of a data set have in common.

    Attributes:
        image_size: height and width in pixels.
        class_names: of the whole data set.
        mean: of the three channels of pixels in [0, 1], over the training part.
        std: likewise.
        mirrors: whether a mirrored image still shows the same.
        resize: length of the shorter side of a large image when its middle is cut out; none = 256/224 of the
            image size, as in the evaluation of most published networks.
        interpolation: how images are scaled.
        whites: the value of white in files that do not state it, by Pillow's mode (`decode.find_whites`).
    """

    image_size: int
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirrors: bool = True
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    whites: Mapping[str, float] = field(default_factory=dict)

    def side(self, augment: Augment | None) -> int:
        """Height and width of the images in a batch."""
        return self.image_size if augment is None else augment.crop or self.image_size

    def flips(self, augment: Augment) -> bool:
        """Whether images are mirrored at random."""
        return self.mirrors if augment.flip is None else augment.flip


@dataclass(frozen=True)
class Share:
    """This process's part of one batch.

    Attributes:
        rows: which images, as positions in the split, `[own images]`.
        places: at which places of the epoch they stand, `[own images]`.
        dice: the randomness with which images are varied, one by one.
        mixing: the randomness with which they are mixed, the same in all views.
    """

    rows: Tensor
    places: Tensor
    dice: Dice
    mixing: Dice


class Split(ABC):
    """Images with labels, in batches. Use `load_data` to get one.

    Attributes:
        labels: class of each image, int64 `[images]`.
    """

    def __init__(self, labels: Tensor, style: Style) -> None:
        self.labels = labels
        self.style = style

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        view: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over one epoch.

        The same arguments give the same batches, on every device and with any number of loader processes.
        Several training processes share each batch of `batch_size * world_size` images: joined they see the
        images, varied the same way, that one process with batches of that size sees. (Mixup and cutmix mix
        images of the same process.)

        Args:
            batch_size: images of this process in a batch.
            device: where the batches are wanted.
            augment: how images are varied; none = not at all.
            shuffle: in a new order each epoch.
            seed: of everything random, together with `epoch`.
            epoch: number of the epoch.
            view: which of several views of the same images, in the same order: each varies them in its own way, and
                mixup and cutmix are the same in all; none = there is one.
            rank: number of this process.
            world_size: processes.
            drop_last: leave out the last batch if it is not full. Without it, processes may get unequal
                numbers of images of the last batch, and one may get none.
            channels_last: memory layout of the images.
            dtype: of the images.

        Yields:
            Images `[batch, 3, side, side]`, normalised, where side is the image size, or what `augment` crops to;
            and labels int64 `[batch]`, after mixup or cutmix probabilities float32 `[batch, classes]`.

        Raises:
            ValueError: a number out of range, or an image that cannot be read.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: got {rank} of {world_size} processes, expected 0 to {world_size - 1}")
        device = torch.empty(0, device=device).device  # with its number: "cuda" is "cuda:0"
        order = self._order(augment, shuffle, seed, epoch)
        shares = list(_deal(order, batch_size, rank, world_size, drop_last, (seed, epoch), view))
        scale, shift = self._normalisation(device)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        every = self._pixels(shares, device, augment, _named((seed, epoch), view))
        for share, pixels in zip(shares, every, strict=True):
            images = pixels.to(torch.float32).mul_(scale).add_(shift)
            labels = self.labels[share.rows].to(device, non_blocking=True)
            if augment is not None and augment.erase:
                images = erase(images, augment.erase, share.dice)
            if augment is not None and augment.mixes:
                images, labels = mix(images, labels, augment, len(self.style.class_names), share.mixing)
            yield images.to(dtype).contiguous(memory_format=memory_format), labels

    @abstractmethod
    def subset(self, rows: Tensor) -> Self:
        """Return a split of some of the images, by their positions int64 `[images]`."""

    @abstractmethod
    def _pixels(
        self, shares: Sequence[Share], device: torch.device, augment: Augment | None, name: tuple[int | str, ...]
    ) -> Iterator[Tensor]:
        """Return for each share its images as bytes `[own images, 3, side, side]` on the device."""

    def _order(self, augment: Augment | None, shuffle: bool, seed: int, epoch: int) -> Tensor:
        """Positions of the images of an epoch."""
        count = len(self)
        order = torch.randperm(count, generator=new_generator(seed, epoch, "order")) if shuffle else torch.arange(count)
        if augment is not None and augment.repeats > 1:
            # neighbours go to different processes, as in timm's RepeatAugSampler
            order = order.repeat_interleave(augment.repeats)[:count]
        return order

    def _normalisation(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Scale and shift that turn bytes into normalised pixels, `[3, 1, 1]` each."""
        mean, std = torch.tensor(self.style.mean), torch.tensor(self.style.std)
        scale, shift = 1 / (255 * std), -mean / std
        return scale.view(-1, 1, 1).to(device), shift.view(-1, 1, 1).to(device)


def _deal(
    order: Tensor,
    batch_size: int,
    rank: int,
    world_size: int,
    drop_last: bool,
    name: tuple[int | str, ...],
    view: int | None,
) -> Iterator[Share]:
    """Divide every batch of the epoch among the processes, in turn."""
    places = torch.arange(len(order))
    for step, batch in enumerate(places.split(batch_size * world_size)):
        if drop_last and len(batch) < batch_size * world_size:
            return
        own = batch[rank::world_size]
        if len(own):
            mixing = Dice(len(batch), rank, world_size, *name, step)
            dice = mixing if view is None else Dice(len(batch), rank, world_size, *_named(name, view), step)
            yield Share(order[own], own, dice, mixing)


def _named(name: tuple[int | str, ...], view: int | None) -> tuple[int | str, ...]:
    """Return the name of the randomness of one view, see `derive_seed`."""
    return name if view is None else (*name, f"view {view}")
