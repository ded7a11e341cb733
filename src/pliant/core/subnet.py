"""`SubNet` says what runs; `SubNetSpace` says which sub-networks a model has."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

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

    def __iter__(self) -> Iterator[SubNet]:
        return iter(self._ordered)

    def __len__(self) -> int:
        return len(self._ordered)

    def __contains__(self, subnet: object) -> bool:
        return subnet in self._all

    @cached_property
    def _ordered(self) -> tuple[SubNet, ...]:
        depths = itertools.product(*((True, False) if count else (False,) for count in self.skippable_blocks))
        exits = range(1, len(self.exit_stages) + 1) if self.exit_stages else (None,)
        product = itertools.product(list(depths), exits, self.widths or [()])
        return tuple(sorted({self._reached(SubNet(*values)) for values in product}, key=self._size))

    @cached_property
    def _all(self) -> frozenset[SubNet]:
        return frozenset(self._ordered)

    def _size(self, subnet: SubNet) -> tuple[int, float, int, str]:
        run = sum(count for count, skip in zip(self.skippable_blocks, subnet.depth, strict=True) if not skip)
        return subnet.exit or 0, sum(subnet.width), run, str(subnet)

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
        """With all axes, and without some of those that are at their largest."""
        yield str(subnet)
        texts, largest = subnet.texts, self.largest.texts
        if len(texts) == 1:
            yield from texts.values()
        free = [axis for axis, text in texts.items() if text == largest[axis]]
        for count in range(min(len(free), len(texts) - 1) + 1):
            for left_out in itertools.combinations(free, count):
                yield _joined({axis: text for axis, text in texts.items() if axis not in left_out})

    def parse(self, subnet: str | SubNet) -> SubNet:
        """Read a sub-network from its text.

        `width=0.5,depth=TTFF,exit=2`, in any order; an axis that is left out is at its largest, and where a model has
        one axis its name may be left out (`TTFF`). Also `largest` and `smallest`. What is skipped behind an exit makes
        no difference: `depth=TFTT,exit=2` is read as `depth=TFFF,exit=2`.

        Raises:
            ValueError: not a sub-network of this space; says what was given and what is allowed.
        """
        found = subnet if isinstance(subnet, SubNet) else None
        if isinstance(subnet, str):
            found = self.names.get(subnet) or self._from_axes(subnet)
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
