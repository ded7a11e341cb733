"""`Draws`: the sub-networks that a plan leaves open, for every step anew; a space may have more than can be listed."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence

import torch

from pliant.core.sequence import MOST_LISTED
from pliant.core.subnet import SubNet, SubNetSpace

__all__ = ["Draws"]

_BITS = 30


class Draws:
    """Draws from all sub-networks of a space but some, each equally often, none twice in a step.

    Only places in the order of the space are drawn. Those of up to `MOST_LISTED` sub-networks are shuffled; of more,
    each place is a random number, with 30 bits more than it takes to count them, so that none is preferred by more
    than 1 in 10^9.

    Args:
        space: the sub-networks.
        without: those that are never drawn.
    """

    def __init__(self, space: SubNetSpace, without: Iterable[SubNet]) -> None:
        self._space = space
        self._without = sorted({space.place(subnet) for subnet in without})
        self._open = space.num_subnets - len(self._without)

    def draw(self, count: int, device: torch.device) -> list[SubNet]:
        """Return so many, the same in all processes, by the random numbers of the first; `device` is theirs."""
        shuffled = self._open <= MOST_LISTED
        if shuffled:
            numbers = torch.randperm(self._open)[:count]
        else:
            digits = self._open.bit_length() // _BITS + 2
            numbers = torch.randint(2**_BITS, (count, digits))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            numbers = numbers.to(device)
            torch.distributed.broadcast(numbers, src=0)
        if shuffled:
            places = [_not_among(self._without, number) for number in numbers.tolist()]
        else:
            places = self._distinct([_whole(digits) for digits in numbers.tolist()])
        return [self._space.at(place) for place in places]

    def _distinct(self, numbers: Sequence[int]) -> list[int]:
        taken, places = list(self._without), []
        for drawn, number in enumerate(numbers):
            places.append(_not_among(taken, number % (self._open - drawn)))
            insort(taken, places[-1])
        return places


def _whole(digits: Iterable[int]) -> int:
    number = 0
    for digit in digits:
        number = (number << _BITS) + digit
    return number


def _not_among(taken: Iterable[int], number: int) -> int:
    """Return the place with this number among those that are not taken; `taken` ascends."""
    for place in taken:
        number += place <= number
    return number
