"""Batches of a data split in the shape Lightning reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from pliant.train.processes import Place
from pliant.train.recipe import Recipe

if TYPE_CHECKING:
    from pliant.data import Split

__all__ = ["TrainFeed", "ValidationFeed"]


class TrainFeed:
    """The augmented training batches of the epoch that is running, this process's share of them.

    Images and labels; where the recipe has two views, then the same images once more, varied in another way.

    Raises:
        ValueError: the batch does not divide over the processes, or there are fewer images than a batch.
    """

    def __init__(self, split: Split, recipe: Recipe, place: Place, epoch: Callable[[], int]) -> None:
        if recipe.batch_size % place.world_size:
            raise ValueError(f"Recipe.batch_size: {recipe.batch_size} does not divide by {place.world_size} processes")
        if recipe.batch_size > len(split):
            raise ValueError(f"Recipe.batch_size: {recipe.batch_size} is more than the {len(split)} training images")
        self.split, self.recipe, self.place, self.epoch = split, recipe, place, epoch
        self.batch_size = recipe.batch_size // place.world_size

    def __len__(self) -> int:
        return len(self.split) // self.recipe.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # A generator: the epoch is asked for when the first batch is, not when Lightning calls `iter`.
        if self.recipe.views == 1:
            yield from self._batches(None)
            return
        for (images, labels), (again, _) in zip(self._batches(1), self._batches(2), strict=True):
            yield images, labels, again

    def _batches(self, view: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        return self.split.batches(
            self.batch_size,
            device=self.place.device,
            augment=self.recipe.data.augment,
            shuffle=True,
            seed=self.recipe.seed,
            epoch=self.epoch(),
            view=view,
            rank=self.place.rank,
            world_size=self.place.world_size,
            drop_last=True,
            channels_last=self.recipe.channels_last,
        )


class ValidationFeed:
    """The validation batches as they are, this process's share of them."""

    def __init__(self, split: Split, recipe: Recipe, place: Place) -> None:
        self.split, self.recipe, self.place = split, recipe, place
        self.batch_size = max(1, 2 * recipe.batch_size // place.world_size)

    def __len__(self) -> int:
        return -(-len(self.split) // (self.batch_size * self.place.world_size))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.split.batches(
            self.batch_size,
            device=self.place.device,
            rank=self.place.rank,
            world_size=self.place.world_size,
            channels_last=self.recipe.channels_last,
        )
