"""The settings of the width wing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pliant.core.config import Config

__all__ = ["Width"]


@dataclass(frozen=True, kw_only=True)
class Width(Config):
    """Let every layer run with its leading channels alone (slimmable networks; DS-Net's dynamic weight slicing).

    Attributes:
        choices: the shares of channels that can run, ascending; the last is 1, the whole network. None = a quarter, a
            half, three quarters and all, or the nearest that leave whole heads; or those that the network brings, such
            as DS-MBNet.
        per_stage: let every stage have a share of its own (`width=0.5/0.5/0.75/1.0`); else all have the same.
        norms: `statistics`: norms with running statistics have some for each width, and all widths share the leading
            part of one set of parameters (DS-Net). `private`: every width has norms of its own, parameters too
            (slimmable networks). `shared`: the leading part of everything (universally slimmable networks), whose
            statistics are then to be taken anew for each width.
        divisor: keep a multiple of so many channels, the nearest one and at least one; 1 = round down to any number.
            Groups of a convolution are kept or left whole all the same, and a choice must leave whole heads.
    """

    choices: tuple[float, ...] | None = None
    per_stage: bool = False
    norms: Literal["statistics", "private", "shared"] = "statistics"
    divisor: int = 1

    def validate(self) -> None:
        """Check the choices and the divisor."""
        if self.choices is not None:
            ascending = all(one < next_ for one, next_ in pairwise(self.choices))
            if not self.choices or not ascending or self.choices[0] <= 0 or self.choices[-1] != 1:
                raise ValueError(
                    f"Width.choices: got {list(self.choices)}, expected ascending shares above 0, the last one 1"
                )
        if self.divisor < 1:
            raise ValueError(f"Width.divisor: got {self.divisor}, expected at least 1")
