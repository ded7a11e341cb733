"""A pass in which a gate chooses the width of what lies behind it, input by input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pliant.core.stream import rows_of

__all__ = ["GatePass"]


class GatePass:
    """What one forward pass does at the gate.

    A first pass takes the batch to the gate, which divides it: the largest part goes on in the same pass, and each of
    the others in a further one, which takes up what the gate's block returned. So every part runs dense kernels, and
    one input alone takes one pass.

    Args:
        go_on: called with the place of a route; from then on the pass runs that one. None = what the gate sees is
            noted, and nothing is divided.

    Attributes:
        features: what the gate chooses by, `[batch, features]`, of a first pass.
        scores: of the routes, `[batch, routes]`, of a first pass.
        places: which route each input takes, `[batch]`, of a first pass.
        inside: the inputs that are still in the pass, by their places in the batch.
        waiting: the inputs of every other route, by the place of the route, and what the block returned for them.
    """

    def __init__(self, go_on: Callable[[int], None] | None) -> None:
        self._go_on = go_on
        self.features: Tensor | None = None
        self.scores: Tensor | None = None
        self.places = torch.empty(0, dtype=torch.long)
        self.inside = torch.empty(0, dtype=torch.long)
        self.waiting: dict[int, tuple[Tensor, Any]] = {}
        self._resumed: tuple[int, Any] | None = None

    def resume(self, place: int) -> None:
        """Let the next pass be that of a route that waits."""
        self.inside, output = self.waiting.pop(place)
        self._resumed = place, output

    @property
    def takes_up(self) -> bool:
        """Whether what the block returns in this pass counts for nothing: it goes on with what is waiting."""
        return self._resumed is not None

    def taken_up(self) -> Any:
        """Return what the block returned for the inputs that go on now."""
        assert self._resumed is not None and self._go_on is not None
        place, output = self._resumed
        self._resumed = None
        self._go_on(place)
        return output

    def divide(self, features: Tensor, scores: Tensor, output: Any) -> Any:
        """Send every input its way; return what the block returned for those that go on in this pass."""
        self.features, self.scores = features, scores
        if self._go_on is None:
            return output
        self.places = scores.argmax(1)
        counts = self.places.bincount(minlength=scores.shape[1]).tolist()
        first = max(range(len(counts)), key=counts.__getitem__)
        for place, count in enumerate(counts):
            if count and place != first:
                rows = (self.places == place).nonzero().flatten()
                self.waiting[place] = rows, rows_of(output, rows)
        self._go_on(first)
        if not self.waiting:
            self.inside = torch.arange(len(scores), device=scores.device)
            return output
        self.inside = (self.places == first).nonzero().flatten()
        return rows_of(output, self.inside)
