"""`SubNets`: the sub-networks of a model as a sequence that holds none of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from pliant.core.subnet import SubNet, SubNetSpace

__all__ = ["MOST_LISTED", "SubNets"]

MOST_LISTED = 4096
"""What goes through all sub-networks of a model one by one, as `measure` does, refuses more than so many."""


class SubNets(Sequence["SubNet"]):
    """The sub-networks of a space, or a slice of them: a sequence that computes its elements when they are asked for.

    It is immutable. Length, membership, `index` and any element take microseconds, however many there are; a slice is
    such a sequence again. An iteration computes one after the other. What Python's `len` cannot count, more than
    `sys.maxsize`, raises an `OverflowError`; `num_subnets` of the space counts it.

    It is equal to a tuple of the same sub-networks, and to another such sequence of them; of more than `MOST_LISTED`
    only to one of a space with equal stages, exits and widths.
    """

    def __init__(self, space: SubNetSpace, places: range) -> None:
        """Take those at `places` in the order of `space`."""
        self._space = space
        self._places = places

    @overload
    def __getitem__(self, index: int) -> SubNet: ...

    @overload
    def __getitem__(self, index: slice) -> SubNets: ...

    def __getitem__(self, index: int | slice) -> SubNet | SubNets:
        if isinstance(index, slice):
            return SubNets(self._space, self._places[index])
        try:
            return self._space.at(self._places[index])
        except IndexError:
            allowed = f"-{self._count} to {self._count - 1}" if self else "none, as it is empty"
            raise IndexError(f"subnets: got index {index}, expected {allowed}") from None

    def __len__(self) -> int:
        if self._count > sys.maxsize:
            raise OverflowError(f"len: {self._count} sub-networks are more than Python counts; use space.num_subnets")
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    @property
    def _count(self) -> int:
        places = self._places
        return max(0, -((places.start - places.stop) // places.step))  # Python's `len` has a limit

    def __iter__(self) -> Iterator[SubNet]:
        return map(self._space.at, self._places)

    def __reversed__(self) -> Iterator[SubNet]:
        return map(self._space.at, reversed(self._places))

    def __contains__(self, subnet: object) -> bool:
        return subnet in self._space and self._space.place(subnet) in self._places  # type: ignore[arg-type]

    def index(self, value: SubNet, start: int = 0, stop: int | None = None) -> int:
        """Return where a sub-network is.

        Raises:
            ValueError: it is not there.
        """
        if value in self[start:stop]:
            return self._places.index(self._space.place(value))
        raise ValueError(f"subnets: got {value}, expected one of {self}")

    def count(self, value: SubNet) -> int:
        """Return 1 where a sub-network is there, else 0."""
        return int(value in self)

    def evenly_spaced(self, count: int) -> tuple[SubNet, ...]:
        """Return so many of them, from the first to the last in equal steps; all where there are fewer.

        Raises:
            ValueError: fewer than two.
        """
        if count < 2:
            raise ValueError(f"count: got {count}, expected at least 2, the smallest and the largest")
        last = self._count - 1
        if last < count:
            return tuple(self)
        return tuple(self[last * number // (count - 1)] for number in range(count))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SubNets):
            if self._space == other._space or self._count > MOST_LISTED:
                return (self._space, self._places) == (other._space, other._places)
            same_length = self._count == other._count
        elif isinstance(other, tuple):
            same_length = self._count == len(other)
        else:
            return NotImplemented
        return same_length and all(ours == theirs for ours, theirs in zip(self, other, strict=False))

    def __hash__(self) -> int:
        if self._count > MOST_LISTED:
            raise TypeError(f"hash: got {self._count} sub-networks, expected at most {MOST_LISTED}; hash the space")
        return hash(tuple(self))

    def __repr__(self) -> str:
        ends = list(self) if self._count <= 4 else [self[0], self[1], "...", self[-1]]
        return f"SubNets({self._count}: {', '.join(map(str, ends))})"
