"""`SubNet` says what runs; `SubNetSpace` says which sub-networks a model has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

__all__ = ["SubNet", "SubNetSpace"]


@dataclass(frozen=True)
class SubNet:
    """One sub-network, as a value.

    Attributes:
        depth: for each stage, from the input to the output, whether its skippable sub-path is skipped;
            empty where the model has no depth axis. Printed as in the ADN paper: `T` = skipped, so
            `TTFF` skips in the first two of four stages.
    """

    depth: tuple[bool, ...] = ()

    def __str__(self) -> str:
        return "".join("FT"[skip] for skip in self.depth)


@dataclass(frozen=True)
class SubNetSpace:
    """All sub-networks of one model, iterated from the smallest to the largest.

    Attributes:
        skippable_blocks: for each stage, how many blocks its skippable sub-path has.
    """

    skippable_blocks: tuple[int, ...]

    @property
    def largest(self) -> SubNet:
        """The super-net: nothing is skipped."""
        return SubNet(depth=(False,) * len(self.skippable_blocks))

    @property
    def smallest(self) -> SubNet:
        """The base-net: everything that can be skipped is."""
        return SubNet(depth=tuple(count > 0 for count in self.skippable_blocks))

    def __iter__(self) -> Iterator[SubNet]:
        return iter(self._ordered)

    def __len__(self) -> int:
        return len(self._ordered)

    def __contains__(self, subnet: object) -> bool:
        return subnet in self._names.values()

    @cached_property
    def _ordered(self) -> tuple[SubNet, ...]:
        choices = [(True, False) if count else (False,) for count in self.skippable_blocks]
        subnets = [SubNet(depth=depth) for depth in itertools.product(*choices)]
        return tuple(sorted(subnets, key=lambda subnet: (self._blocks_run(subnet), str(subnet))))

    def _blocks_run(self, subnet: SubNet) -> int:
        return sum(count for count, skip in zip(self.skippable_blocks, subnet.depth, strict=True) if not skip)

    @cached_property
    def _names(self) -> dict[str, SubNet]:
        return {name: subnet for subnet in self._ordered for name in (str(subnet), f"depth={subnet}")}

    def parse(self, subnet: str | SubNet) -> SubNet:
        """Read a sub-network from its text (`"TTFF"`, `"depth=TTFF"`, `"largest"`, `"smallest"`).

        Raises:
            ValueError: not a sub-network of this space; says what was given and what is allowed.
        """
        if isinstance(subnet, SubNet):
            if subnet in self:
                return subnet
        elif subnet == "largest":
            return self.largest
        elif subnet == "smallest":
            return self.smallest
        elif subnet in self._names:
            return self._names[subnet]
        raise ValueError(f"no sub-network {str(subnet)!r}: {self._allowed()}")

    def _allowed(self) -> str:
        stages = len(self.skippable_blocks)
        text = f"allowed are {stages} letters, one a stage, T (skip) or F, such as {self.smallest}"
        fixed = [str(index + 1) for index, count in enumerate(self.skippable_blocks) if not count]
        if fixed:
            text += f"; stage {', '.join(fixed)} has nothing to skip (F)"
        return text + "; or 'largest', 'smallest'"
