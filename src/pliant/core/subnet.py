"""`SubNet` says what runs; `SubNetSpace` says which sub-networks a model has.

A space may have 2^32 sub-networks and more, so nothing here lists them: texts are read on demand, and which one is at
which place is computed (`ranking.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pliant.core.ranking import Ranking
from pliant.core.sequence import SubNets

__all__ = ["SubNet", "SubNetSpace"]

# So many are not all named in a message.
MANY_WIDTHS = 20


@dataclass(frozen=True)
class SubNet:
    """One sub-network, as a value.

    Attributes:
        depth: for each stage, from the input to the output, whether its skippable sub-path is skipped;
            empty where the model has no depth axis. Printed as in the ADN paper: `T` = skipped, so
            `TTFF` skips in the first two of four stages.
        exit: at which classifier the pass ends, counted from 1; none where the model has one classifier.
        width: for each stage, which share of its channels runs; empty where the model has no width axis. Printed as
            one number where they are equal: `width=0.5`, `width=0.5/0.5/0.75/1.0`.
    """

    depth: tuple[bool, ...] = ()
    exit: int | None = None
    width: tuple[float, ...] = ()

    def __str__(self) -> str:
        texts = self.texts
        if set(texts) == {"depth"}:
            return texts["depth"]
        return _joined(texts)

    @property
    def texts(self) -> dict[str, str]:
        """Each axis that the sub-network has, as text."""
        widths = [repr(width) for width in self.width]
        texts = {
            "width": "/".join(widths if len(set(widths)) > 1 else widths[:1]),
            "depth": "".join("FT"[skip] for skip in self.depth),
            "exit": str(self.exit or ""),
        }
        return {axis: text for axis, text in texts.items() if text}


def _joined(texts: dict[str, str]) -> str:
    return ",".join(f"{axis}={text}" for axis, text in texts.items())


@dataclass(frozen=True)
class SubNetSpace:
    """All sub-networks of one model, iterated from the smallest to the largest: by exit, width, blocks that run.

    Attributes:
        skippable_blocks: for each stage, how many blocks its skippable sub-path has; empty = no depth axis.
        exit_stages: for each exit, how many stages lead to it; empty = no exits axis.
        widths: the shares of channels, one for each stage, that can run together, the smallest first and the whole
            network last; empty = no width axis.
        routes: the sub-networks among which a gate chooses, by ascending width; empty = no gate.
    """

    skippable_blocks: tuple[int, ...] = ()
    exit_stages: tuple[int, ...] = ()
    widths: tuple[tuple[float, ...], ...] = ()
    routes: tuple[SubNet, ...] = ()

    @property
    def largest(self) -> SubNet:
        """The super-net: nothing is skipped, all channels run, and the last classifier answers."""
        return SubNet(
            depth=(False,) * len(self.skippable_blocks),
            exit=len(self.exit_stages) or None,
            width=self.widths[-1] if self.widths else (),
        )

    @property
    def smallest(self) -> SubNet:
        """The base-net: everything that can be skipped is, at the smallest width, and the first classifier answers."""
        depth = tuple(count > 0 for count in self.skippable_blocks)
        width = self.widths[0] if self.widths else ()
        return self._reached(SubNet(depth=depth, exit=1 if self.exit_stages else None, width=width))

    @property
    def with_own_norms(self) -> tuple[SubNet, ...]:
        """Those for which norms have a set each: every width, at the largest and the smallest depth, to the end."""
        skips = tuple(count > 0 for count in self.skippable_blocks)
        depths = dict.fromkeys((skips, self.largest.depth))
        widths = self.widths or (self.largest.width,)
        return tuple(
            dataclasses.replace(self.largest, width=width, depth=depth) for width in widths for depth in depths
        )

    @property
    def subnets(self) -> SubNets:
        """All sub-networks, smallest to largest, none of which exists before it is asked for."""
        return SubNets(self, range(self.num_subnets))

    @property
    def num_subnets(self) -> int:
        """How many sub-networks there are: exact, also where `len` raises an OverflowError (above `sys.maxsize`)."""
        return self._ranking.total

    def __iter__(self) -> Iterator[SubNet]:
        return iter(self.subnets)

    def __len__(self) -> int:
        return len(self.subnets)

    def __bool__(self) -> bool:
        return True  # `len` has a limit

    def __contains__(self, subnet: object) -> bool:
        return isinstance(subnet, SubNet) and self._fits(subnet) and self._reached(subnet) == subnet

    @cached_property
    def _ranking(self) -> Ranking:
        ordered = sorted(self._widths, key=lambda width: (sum(width), str(SubNet(width=width))))
        groups = [tuple(group) for _, group in itertools.groupby(ordered, key=sum)]
        return Ranking(self.skippable_blocks, self.exit_stages or (len(self.skippable_blocks),), groups)

    @cached_property
    def _widths(self) -> frozenset[tuple[float, ...]]:
        return frozenset(self.widths or [()])

    def at(self, place: int) -> SubNet:
        """Return the sub-network at a place in the order, from 0, the smallest, to `num_subnets - 1`, the largest."""
        depth, exit_, width = self._ranking.at(place)
        return SubNet(depth=depth, exit=exit_ if self.exit_stages else None, width=width)

    def place(self, subnet: SubNet) -> int:
        """Return the place of one of these sub-networks in the order, counted from 0."""
        return self._ranking.place(subnet.depth, subnet.exit or 1, subnet.width)

    def has_same_subnets(self, other: SubNetSpace) -> bool:
        """Whether another space has the same sub-networks under the same texts, whatever their sizes are."""
        return self._choices() == other._choices()

    def _choices(self) -> tuple[object, ...]:
        """Which stages can be skipped up to each exit, and the widths."""
        can_skip = [stage for stage, count in enumerate(self.skippable_blocks) if count]
        up_to_exits = [[stage for stage in can_skip if stage < stages] for stages in self.exit_stages]
        return len(self.skippable_blocks), can_skip, up_to_exits, self._widths, self.largest

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
        if not any(subnet.depth[stages:]):
            return subnet
        behind = len(subnet.depth) - stages
        return dataclasses.replace(subnet, depth=subnet.depth[:stages] + (False,) * behind)

    def parse(self, subnet: str | SubNet) -> SubNet:
        """Read a sub-network from its text.

        `width=0.5,depth=TTFF,exit=2`, in any order; an axis that is left out is at its largest, and where a model has
        one axis its name may be left out (`TTFF`). Also `largest` and `smallest`. What is skipped behind an exit makes
        no difference: `depth=TFTT,exit=2` is read as `depth=TFFF,exit=2`.

        Raises:
            ValueError: not a sub-network of this space; says what was given and what is allowed.
        """
        found = self._read(subnet) if isinstance(subnet, str) else subnet
        if not isinstance(found, SubNet) or not self._fits(found):
            raise ValueError(f"no sub-network {str(subnet)!r}: {self._allowed()}")
        return self._reached(found)

    def _fits(self, subnet: SubNet) -> bool:
        """Whether this is a sub-network, maybe with stages skipped behind its exit."""
        depth, exit_, width = subnet.depth, subnet.exit, subnet.width
        if not isinstance(depth, tuple) or len(depth) != len(self.skippable_blocks):
            return False
        if not isinstance(width, tuple) or width not in self._widths:
            return False
        exits = range(1, len(self.exit_stages) + 1) if self.exit_stages else [None]
        if not isinstance(exit_, int | None) or exit_ not in exits:
            return False
        reached = len(depth) if exit_ is None else self.exit_stages[exit_ - 1]
        return set(depth) <= {False, True} and all(
            count or not skips for count, skips in zip(self.skippable_blocks[:reached], depth, strict=False)
        )

    def _read(self, text: str) -> SubNet | None:
        """Read a text; what it says may be no sub-network of this space."""
        if text == "largest":
            return self.largest
        if text == "smallest":
            return self.smallest
        if not self.largest.texts and not text:
            return self.largest  # the only one, of a model without axes
        return self._from_axes(text)

    def _from_axes(self, text: str) -> SubNet | None:
        largest = self.largest
        axes = list(largest.texts)
        values: dict[str, str] = {}
        for part in text.split(","):
            axis, given, value = part.strip().rpartition("=")
            axis = axis if given else axes[0] if len(axes) == 1 else ""
            if axis not in axes or axis in values:
                return None
            values[axis] = value
        found = largest
        if "depth" in values:
            if set(values["depth"]) - {"T", "F"}:
                return None
            found = dataclasses.replace(found, depth=tuple(letter == "T" for letter in values["depth"]))
        if "exit" in values:
            if not values["exit"].isdecimal():
                return None
            found = dataclasses.replace(found, exit=int(values["exit"]))
        if "width" in values:
            try:
                width = tuple(map(float, values["width"].split("/")))
            except ValueError:
                return None
            found = dataclasses.replace(found, width=width if len(width) > 1 else width * len(largest.width))
        return found

    def _allowed(self) -> str:
        parts = []
        if self.widths:
            parts.append(_allowed_widths(self.widths))
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


def _allowed_widths(widths: tuple[tuple[float, ...], ...]) -> str:
    texts = [str(SubNet(width=width)) for width in widths]
    if len(texts) > MANY_WIDTHS:
        return f"{len(texts)} widths such as {texts[0]}, {texts[1]}, {texts[-2]} and {texts[-1]}"
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]
