"""The settings of the width wing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pliant.core.config import Config

__all__ = ["Gate", "Width"]


@dataclass(frozen=True, kw_only=True)
class Gate(Config):
    """Let a gate choose the width, input by input (DS-Net).

    Attributes:
        behind: the gate stands behind so many stages. These have their smallest width in all sub-networks but the whole
            network, so that all inputs come to the gate in the same way; it chooses the width of those behind it.
        routes: the widths that it chooses among, ascending; none = all that there are behind it.
        attention: the gate also scales the channels that it looks at by what it sees, in every pass (the second head
            of DS-Net's double-headed gate). An extracted network then keeps that head.
    """

    behind: int = 1
    routes: tuple[float, ...] | None = None
    attention: bool = True

    def validate(self) -> None:
        """Check the place and the routes."""
        if self.behind < 1:
            raise ValueError(f"Gate.behind: got {self.behind}, expected at least 1")
        if self.routes is not None and (len(self.routes) < 2 or not _ascend(self.routes)):
            raise ValueError(f"Gate.routes: got {list(self.routes)}, expected two or more ascending widths")


@dataclass(frozen=True, kw_only=True)
class Width(Config):
    """Let every layer run with its leading channels alone (slimmable networks; DS-Net's dynamic weight slicing).

    Attributes:
        choices: the shares of channels that can run, ascending; the last is 1, the whole network. None = a quarter, a
            half, three quarters and all, or the nearest that leave whole heads; or those that the network brings, such
            as DS-MBNet.
        per_stage: let every stage have a share of its own (`width=0.5/0.5/0.75/1.0`); else all have the same.
        norms: `statistics`: norms with running statistics have some for each width, apart from those of the whole
            network, and all widths share the leading part of one set of parameters (DS-Net). `private`: every width
            has norms of its own, parameters too (slimmable networks). `shared`: the leading part of everything
            (universally slimmable networks), whose statistics are then to be taken anew for each width.
        gate: chooses the width input by input; none = it is chosen from outside alone.
        divisor: keep a multiple of so many channels, the nearest one and at least one; 1 = round down to any number.
            Groups of a convolution or a norm are kept or left whole all the same, and a choice must leave whole heads.
        kernels: kernels larger than 3 shrink too: at widths below 1 their centre runs, two smaller (5 to 3, 7 to 5),
            with less padding to match (DS-Net++). A convolution that reads the images keeps its own.
    """

    choices: tuple[float, ...] | None = None
    per_stage: bool = False
    norms: Literal["statistics", "private", "shared"] = "statistics"
    gate: Gate | None = None
    divisor: int = 1
    kernels: bool = False

    def validate(self) -> None:
        """Check the choices and the divisor."""
        if self.choices is not None:
            ends = self.choices[:1] > (0,) and self.choices[-1:] == (1,)
            if len(self.choices) < 2 or not ends or not _ascend(self.choices):
                raise ValueError(
                    f"Width.choices: got {list(self.choices)}, expected two or more ascending shares above 0, the last "
                    "one 1"
                )
        if self.divisor < 1:
            raise ValueError(f"Width.divisor: got {self.divisor}, expected at least 1")
        if self.gate and self.per_stage:
            raise ValueError("Width.per_stage: got true and a gate, which chooses one width for all behind it")


def _ascend(shares: tuple[float, ...]) -> bool:
    return all(one < next_ for one, next_ in pairwise(shares))
