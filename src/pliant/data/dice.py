"""Where randomness comes from: streams of numbers named by what they are for, the same on every device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Dice", "derive_seed", "global_seed", "new_generator"]


def derive_seed(*parts: int | str) -> int:
    """Return a seed of 63 bits that names like (seed, epoch, step) have for their own."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def new_generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def global_seed(*parts: int | str) -> Iterator[None]:
    """Seed torch's global CPU generator, which torchvision's transforms draw from, and put it back afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(derive_seed(*parts))
    try:
        yield
    finally:
        torch.set_rng_state(state)


class Dice:
    """Random numbers for the images of one batch that several processes share.

    Every process draws for the whole batch and keeps what belongs to its own images, so an image is
    varied in the same way however many processes there are.

    Args:
        size: images of the whole batch.
        rank: of this process.
        world_size: processes.
        parts: name of the batch, see `derive_seed`.
    """

    def __init__(self, size: int, rank: int, world_size: int, *parts: int | str) -> None:
        self.parts = parts
        self._size, self._rank, self._world_size = size, rank, world_size

    @cached_property
    def _generator(self) -> torch.Generator:
        return new_generator(*self.parts)

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1), `[own images, *shape]`, on the CPU."""
        return torch.rand(self._size, *shape, generator=self._generator)[self._rank :: self._world_size]

    def integers(self, end: int, *shape: int) -> Tensor:
        """Return integers in [0, end), `[own images, *shape]`, on the CPU."""
        # float32 has 24 bits and rounds up at the very end
        return (self.uniform(*shape) * end).long().clamp_(max=end - 1)

    def chance(self, probability: float) -> Tensor:
        """Return True with a probability, `[own images]`, on the CPU."""
        return self.uniform() < probability

    def shared(self) -> float:
        """Return one number in [0, 1) for the whole batch."""
        return torch.rand((), generator=self._generator).item()
