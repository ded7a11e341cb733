"""`SubNet` says what runs; `SubNetSpace` says which sub-networks a model has."""

from __future__ import annotations

import dataclasses
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
        exit: at which classifier the pass ends, counted from 1; none where the model has one classifier.
    """

    depth: tuple[bool, ...] = ()
    exit: int | None = None

    def __str__(self) -> str:
        letters = "".join("FT"[skip] for skip in self.depth)
        if self.exit is None:
            return letters
        return f"depth={letters},exit={self.exit}" if letters else f"exit={self.exit}"


@dataclass(frozen=True)
class SubNetSpace:
    """All sub-networks of one model, iterated from the smallest to the largest: by exit, then by blocks that run.

    Attributes:
        skippable_blocks: for each stage, how many blocks its skippable sub-path has; empty = no depth axis.
        exit_stages: for each exit, how many stages lead to it; empty = no exits axis.
    """

    skippable_blocks: tuple[int, ...] = ()
    exit_stages: tuple[int, ...] = ()

    @property
    def largest(self) -> SubNet:
        """The super-net: nothing is skipped, and the last classifier answers."""
        return SubNet(depth=(False,) * len(self.skippable_blocks), exit=len(self.exit_stages) or None)

    @property
    def smallest(self) -> SubNet:
        """The base-net: everything that can be skipped is, and the first classifier answers."""
        depth = tuple(count > 0 for count in self.skippable_blocks)
        return self._reached(SubNet(depth=depth, exit=1 if self.exit_stages else None))

    def __iter__(self) -> Iterator[SubNet]:
        return iter(self._ordered)

    def __len__(self) -> int:
        return len(self._ordered)

    def __contains__(self, subnet: object) -> bool:
        return subnet in self._all

    @cached_property
    def _ordered(self) -> tuple[SubNet, ...]:
        choices = [(True, False) if count else (False,) for count in self.skippable_blocks]
        depths = list(itertools.product(*choices))
        exits = range(1, len(self.exit_stages) + 1) if self.exit_stages else (None,)
        subnets = {self._reached(SubNet(depth=depth, exit=exit_)) for exit_ in exits for depth in depths}
        return tuple(sorted(subnets, key=lambda subnet: (subnet.exit or 0, self._blocks_run(subnet), str(subnet))))

    @cached_property
    def _all(self) -> frozenset[SubNet]:
        return frozenset(self._ordered)

    def _blocks_run(self, subnet: SubNet) -> int:
        return sum(count for count, skip in zip(self.skippable_blocks, subnet.depth, strict=True) if not skip)

    def answers(self, subnet: SubNet, on_the_way_to: SubNet) -> bool:
        """Whether a pass of one sub-network comes by the exit of another, as that one would itself."""
        if subnet.exit is None or on_the_way_to.exit is None:
            return subnet == on_the_way_to
        shortened = dataclasses.replace(on_the_way_to, exit=subnet.exit)
        return subnet.exit <= on_the_way_to.exit and self._reached(shortened) == subnet

    def _reached(self, subnet: SubNet) -> SubNet:
        """Forget what would be skipped behind the exit, so that equal networks are equal values."""
        if subnet.exit is None or not subnet.depth:
            return subnet
        stages = self.exit_stages[subnet.exit - 1]
        behind = len(subnet.depth) - stages
        return dataclasses.replace(subnet, depth=subnet.depth[:stages] + (False,) * behind)

    @cached_property
    def names(self) -> dict[str, SubNet]:
        """The usual texts of all sub-networks."""
        known = {name: subnet for subnet in self._ordered for name in self._texts(subnet)}
        return known | {"largest": self.largest, "smallest": self.smallest}

    def _texts(self, subnet: SubNet) -> Iterator[str]:
        yield str(subnet)
        if subnet.exit is None:
            yield f"depth={subnet}"
        elif subnet.depth:
            letters = str(SubNet(depth=subnet.depth))
            yield f"exit={subnet.exit},depth={letters}"
            if subnet.exit == len(self.exit_stages):
                yield f"depth={letters}"
            if not any(subnet.depth):
                yield f"exit={subnet.exit}"

    def parse(self, subnet: str | SubNet) -> SubNet:
        """Read a sub-network from its text.

        `depth=TTFF,exit=2`, in any order; an axis that is left out is at its largest, and where a model has one
        axis its name may be left out (`TTFF`). Also `largest` and `smallest`. What is skipped behind an exit makes
        no difference: `depth=TFTT,exit=2` is read as `depth=TFFF,exit=2`.

        Raises:
            ValueError: not a sub-network of this space; says what was given and what is allowed.
        """
        found = subnet if isinstance(subnet, SubNet) else self.names.get(subnet) or self._from_axes(subnet)
        if found in self._all:
            return found
        found = self._checked(found)
        if found is None:
            raise ValueError(f"no sub-network {str(subnet)!r}: {self._allowed()}")
        return found

    def _checked(self, subnet: SubNet | None) -> SubNet | None:
        """Return the same sub-network as this space writes it; none if it has no such."""
        if subnet is None or len(subnet.depth) != len(self.skippable_blocks):
            return None
        if (subnet.exit is None) != (not self.exit_stages):
            return None
        if subnet.exit is not None and not 1 <= subnet.exit <= len(self.exit_stages):
            return None
        reached = self._reached(subnet)
        return reached if reached in self._all else None

    def _from_axes(self, text: str) -> SubNet | None:
        axes = {"depth": len(self.skippable_blocks), "exit": len(self.exit_stages)}
        axes = {axis: count for axis, count in axes.items() if count}
        values: dict[str, str] = {}
        for part in text.split(","):
            axis, given, value = part.strip().rpartition("=")
            axis = axis if given else next(iter(axes)) if len(axes) == 1 else ""
            if axis not in axes or axis in values:
                return None
            values[axis] = value
        depth, exit_ = values.get("depth", "F" * axes.get("depth", 0)), values.get("exit", "")
        if set(depth) - {"T", "F"} or (exit_ and not exit_.isdecimal()):
            return None
        return SubNet(
            depth=tuple(letter == "T" for letter in depth),
            exit=int(exit_) if exit_ else len(self.exit_stages) or None,
        )

    def _allowed(self) -> str:
        parts = []
        stages = len(self.skippable_blocks)
        if stages:
            letters = "".join("FT"[count > 0] for count in self.skippable_blocks)
            text = f"{stages} letters, one a stage, T (skip) or F, such as {letters}"
            fixed = [str(index + 1) for index, count in enumerate(self.skippable_blocks) if not count]
            if fixed:
                text += f"; stage {', '.join(fixed)} has nothing to skip (F)"
            parts.append(text)
        if self.exit_stages:
            parts.append(f"exit=1 to exit={len(self.exit_stages)}")
        both = f", joined by a comma, such as {self.smallest}" if len(parts) > 1 else ""
        return f"allowed are {' and '.join(parts)}{both}; or 'largest', 'smallest'"
