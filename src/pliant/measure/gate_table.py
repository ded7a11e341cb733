"""`GateTable`: what a gate chooses and what that gives, as a file that other rooms and programs read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self

from pliant.measure.document import read_document, write_document
from pliant.measure.table import Table

__all__ = ["GateTable", "equal_accuracy"]

FORMAT_VERSION = 1
_ROUNDING = 1e-9
"""Points of accuracy by which a row on a line may seem to lie below it."""


@dataclass(frozen=True, kw_only=True)
class GateTable:
    """The network whose gate chooses, beside every width for all images.

    Attributes:
        gated: `subnet`, which is `gate`; `gmacs`, what an image costs on average, 10^9 multiply-accumulates, the gate's
            own included; `acc1` in percent; `shares`, which part of the images took each route; `offsets`, what was
            added to its scores; `equal_accuracy`, what it costs beside a width of equal accuracy, see the function;
            and where it was timed `latency_ms_mean`, `latency_ms` (median) and `latency_ms_p95` of one image.
        budgets: the same with offsets for a `budget`, which were found on validation images, in the order in which
            budgets were asked for.
        static: the same, without shares, of every sub-network if it answers all images, smallest first.
        classes: for each class `label`, `images`, and of these `shares` and `acc1`; in the order of the data.
        info: the circumstances; `routes` are the sub-networks that the gate chooses among; `shown_budget` is which of
            the budgets `classes` and `examples` are of, and absent where they are of the gate's own choices.
        examples: some images of each route, as `pliant.measure.examples` notes them.
    """

    gated: dict[str, Any]
    static: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    info: dict[str, Any]
    budgets: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def front(self) -> list[dict[str, Any]]:
        """The rows of `static` that are as accurate as any mix of two others of the same cost, cheapest first."""
        return _front(self.static)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The gated network's row, those with budgets, then all others."""
        return [self.gated, *self.budgets, *self.static]

    @property
    def shown(self) -> dict[str, Any]:
        """The row that `classes` and `examples` are of."""
        budget = self.info.get("shown_budget")
        return next((row for row in self.budgets if row["budget"] == budget), self.gated)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON; a file that was there stays whole until the new one is complete.

        Raises:
            ValueError: it cannot be written; names the path.
        """
        write_document(path, {"version": FORMAT_VERSION, **asdict(self)}, "gate's table")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or no gate's table; names the path.
        """
        document = read_document(path, FORMAT_VERSION, "gate's table")
        kinds = {"gated": dict, "static": list, "budgets": list, "classes": list, "info": dict}
        kinds |= {"examples": list}
        if any(name not in document or not isinstance(document[name], kind) for name, kind in kinds.items()):
            raise ValueError(f"{path}: no gate's table can be read here (expected {', '.join(kinds)})")
        return cls(**{name: document[name] for name in kinds})


def equal_accuracy(gated: Mapping[str, Any], static: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Compare a gated network with the width that is as accurate when it answers all images.

    Few widths are measured, and none is likely to be exactly as accurate. So it lies on the line between two of them:
    that is what a coin gives which sends each image to one or the other. A gate that costs as much as that has learned
    nothing. Widths that a coin between two others beats are left out.

    Args:
        gated: `gmacs`, `acc1`, and where it was timed `latency_ms_mean`.
        static: the same of every width.

    Returns:
        `between`, the two widths; `share`, how far from the first to the second; `gmacs` and `latency_ms_mean` there;
        and `gmacs_ratio` and `latency_ratio`, the gated network's over these. Where even the cheapest width is as
        accurate, `between` is that one twice. None where no width is as accurate.
    """
    front, accuracy = _front(static), gated["acc1"]
    if accuracy > front[-1]["acc1"]:
        return None
    low, high = next(
        (pair for pair in pairwise(front) if pair[0]["acc1"] < accuracy <= pair[1]["acc1"]), (front[0], front[0])
    )
    share = (accuracy - low["acc1"]) / (high["acc1"] - low["acc1"]) if high is not low else 0.0
    found: dict[str, Any] = {"between": [low["subnet"], high["subnet"]], "share": share}
    for cost, ratio in (("gmacs", "gmacs_ratio"), ("latency_ms_mean", "latency_ratio")):
        if cost in gated:
            found[cost] = low[cost] + share * (high[cost] - low[cost])
            found[ratio] = gated[cost] / found[cost]
    return found


def _front(static: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    front: list[dict[str, Any]] = []
    for row in Table([*static]).pareto("gmacs", "acc1"):
        while len(front) > 1 and _beaten(front[-1], front[-2], row):
            front.pop()
        front.append(row)
    return front


def _beaten(row: Mapping[str, Any], cheaper: Mapping[str, Any], dearer: Mapping[str, Any]) -> bool:
    """Whether a coin between two others is more accurate for the cost of a row."""
    share = (row["gmacs"] - cheaper["gmacs"]) / (dearer["gmacs"] - cheaper["gmacs"])
    return row["acc1"] < cheaper["acc1"] + share * (dearer["acc1"] - cheaper["acc1"]) - _ROUNDING
