"""`Axes`: the configs of an adaptive model, sorted by the wing that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pliant.core.config import Config
from pliant.depth.config import Depth
from pliant.exits.config import Exits
from pliant.width.config import Width

__all__ = ["AXES", "Axes"]

AXES: dict[str, type[Config]] = {"depth": Depth, "exits": Exits, "width": Width}


@dataclass(frozen=True)
class Axes:
    """In which ways a model is adaptive; none = not in this one."""

    depth: Depth | None = None
    exits: Exits | None = None
    width: Width | None = None

    @classmethod
    def of(cls, configs: Sequence[Config]) -> Self:
        """Sort configs.

        Raises:
            ValueError: none at all, two for one axis, or something else than a config of a wing.
        """
        found: dict[str, Config] = {}
        for config in configs:
            axis = next((axis for axis, kind in AXES.items() if type(config) is kind), None)
            if axis is None or axis in found:
                given = ", ".join(map(repr, configs))
                raise ValueError(f"got {given}, expected at most one each of: {_allowed()}")
            found[axis] = config
        if not found:
            raise ValueError(f"got no config, expected one or more of: {_allowed()}")
        return cls(**found)  # type: ignore[arg-type]

    @classmethod
    def named(cls, text: str) -> tuple[Config, ...]:
        """Return the usual configs of axes: `depth`, `width+depth`.

        Raises:
            ValueError: an axis that there is not.
        """
        names = text.split("+")
        unknown = [name for name in names if name not in AXES]
        if unknown or len(set(names)) < len(names):
            raise ValueError(f"axes: got {text!r}, expected some of {', '.join(AXES)}, joined by a plus")
        return tuple(AXES[name]() for name in names)


def _allowed() -> str:
    return ", ".join(f"pliant.{kind.__name__}(...)" for kind in AXES.values())
