"""The order of the sub-networks of a space, computed instead of listed: the sub-network at a place, and its place.

A space of 32 stages has 2^32 depths. Their order (by exit, by width, by blocks that run, by text) is a mixed-radix
number. Within one exit, widths of equal sum form a group, ascending. A group has all depths of every width, ordered by
how many blocks run, then by the text of the width, then by the text of the depth, in which F (runs) comes before T.
How many depths run a given number of blocks is a count of subset sums, filled in stage by stage from the last one.
With these counts, a depth is found letter by letter: if the stage ran, so many depths would come first.

Building takes stages x skippable blocks additions; a place or a sub-network takes as many steps as there are stages.
Python's integers have no limit, and so the number of sub-networks has none.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["Ranking"]

Depth = tuple[bool, ...]
Widths = tuple[float, ...]


class Ranking:
    """The places of all sub-networks of a space.

    Args:
        skippable_blocks: for each stage, how many blocks its skippable sub-path has.
        exit_stages: for each exit, how many stages lead to it; one that leads to the end where a model has no exits.
        widths: groups of widths of equal sum, ascending; in each, ordered by text.

    Attributes:
        total: the number of sub-networks.
    """

    def __init__(
        self, skippable_blocks: Sequence[int], exit_stages: Sequence[int], widths: Sequence[Sequence[Widths]]
    ) -> None:
        self._depths = [_Depths(skippable_blocks, stages) for stages in exit_stages]
        self._widths = widths
        self._starts = [0, *itertools.accumulate(len(group) for group in widths)]  # of each group, in widths
        self._group_of = {width: number for number, group in enumerate(widths) for width in group}
        sizes = (depths.total * self._starts[-1] for depths in self._depths)
        self._exits = [0, *itertools.accumulate(sizes)]  # where each exit begins
        self.total = self._exits[-1]

    def at(self, place: int) -> tuple[Depth, int, Widths]:
        """Return depth, exit (counted from 1) and width of the sub-network at a place from 0 to `total - 1`."""
        exit_ = bisect_right(self._exits, place)
        depths, place = self._depths[exit_ - 1], place - self._exits[exit_ - 1]
        number = bisect_right(self._starts, place // depths.total) - 1
        group, place = self._widths[number], place - self._starts[number] * depths.total
        # Depths with equally many blocks lie together, those of one width after those of the other.
        run = depths.run_at(place // len(group))
        width, place = divmod(place - depths.before(run) * len(group), depths.count(run))
        return depths.at(run, place), exit_, group[width]

    def place(self, depth: Depth, exit_: int, width: Widths) -> int:
        """Return the place of a sub-network of the space; `at` turned round."""
        depths, number = self._depths[exit_ - 1], self._group_of[width]
        group = self._widths[number]
        run, place = depths.place(depth)
        place += depths.before(run) * len(group) + group.index(width) * depths.count(run)
        return self._exits[exit_ - 1] + self._starts[number] * depths.total + place


class _Depths:
    """The depths that differ up to one exit, by how many of their skippable blocks run."""

    def __init__(self, skippable_blocks: Sequence[int], stages: int) -> None:
        self._blocks = tuple(skippable_blocks[:stages])
        self._behind = (False,) * (len(skippable_blocks) - len(self._blocks))
        # For each stage, and behind the last: in how many ways so many blocks run from there on.
        self._ways = [[1]]
        for count in reversed(self._blocks):
            self._ways.insert(0, _with_stage(count, self._ways[0]))
        self._before = [0, *itertools.accumulate(self._ways[0])]
        self.total = self._before[-1]

    def count(self, run: int) -> int:
        """Return how many depths run so many blocks."""
        return self._ways[0][run]

    def before(self, run: int) -> int:
        """Return how many depths run fewer blocks."""
        return self._before[run]

    def run_at(self, place: int) -> int:
        """Return how many blocks run in the depth at a place among all depths."""
        return bisect_right(self._before, place) - 1

    def at(self, run: int, place: int) -> Depth:
        """Return the depth at a place among those that run so many blocks."""
        skips = []
        for count, ways in zip(self._blocks, self._ways[1:], strict=True):
            running_first = _of(ways, run - count)
            skips.append(bool(count) and place >= running_first)
            if skips[-1]:
                place -= running_first
            else:
                run -= count
        return (*skips, *self._behind)

    def place(self, depth: Depth) -> tuple[int, int]:
        """Return how many blocks run in a depth, and its place among those that run as many."""
        run = sum(count for count, skips in zip(self._blocks, depth, strict=False) if not skips)
        left, place = run, 0
        for count, skips, ways in zip(self._blocks, depth, self._ways[1:], strict=False):
            if skips:
                place += _of(ways, left - count)
            else:
                left -= count
        return run, place


def _with_stage(count: int, ways: Sequence[int]) -> list[int]:
    """Put a stage of `count` skippable blocks before others."""
    if not count:
        return list(ways)
    return [_of(ways, run) + _of(ways, run - count) for run in range(len(ways) + count)]


def _of(ways: Sequence[int], run: int) -> int:
    return ways[run] if 0 <= run < len(ways) else 0
