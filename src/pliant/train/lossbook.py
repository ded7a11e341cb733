"""The losses of an epoch: kept on the device, looked at now and then, averaged at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["TOTAL", "LossBook", "NotFinite"]

TOTAL = "train_loss"
"""The name of the sum of all terms."""

LOOK_EVERY = 20
"""Steps between two looks; each look waits for the device."""


class NotFinite(ValueError):
    """A loss became NaN or infinite.

    Attributes:
        step: in which step of the training, from 1.
        term: which part of the loss.
        value: what it was.
    """

    def __init__(self, step: int, term: str, value: float) -> None:
        super().__init__(f"the loss term {term!r} became {value} in step {step}")
        self.step, self.term, self.value = step, term, value


class LossBook:
    """Collects the losses of every step without waiting for the device."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, dict[str, Tensor]]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self.latest: float | None = None

    def add(self, step: int, losses: dict[str, Tensor]) -> bool:
        """Note the detached scalar losses of a step, the total last; return whether it is time to look."""
        self._waiting.append((step, losses))
        return len(self._waiting) >= LOOK_EVERY

    def look(self) -> NotFinite | None:
        """Wait for the losses noted since the last look, and return the first that is not finite."""
        found: list[NotFinite] = []
        for name in dict.fromkeys(name for _, losses in self._waiting for name in losses):
            steps = [step for step, losses in self._waiting if name in losses]
            values = torch.stack([losses[name].float() for _, losses in self._waiting if name in losses]).tolist()
            self._sums[name] = self._sums.get(name, 0.0) + math.fsum(values)
            self._counts[name] = self._counts.get(name, 0) + len(values)
            self.latest = values[-1]
            found += [NotFinite(s, name, v) for s, v in zip(steps, values, strict=True) if not math.isfinite(v)]
        self._waiting.clear()
        # `min` keeps the order of the names within a step: a term comes before the total it spoils.
        return min(found, key=lambda bad: bad.step, default=None)

    def close(self) -> dict[str, float]:
        """Return the mean of every loss over the steps that had it, and begin anew."""
        assert not self._waiting
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means
