"""A pass that ends before the network does: which exits answer, what they answered, and who has left."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from pliant.core.stream import Mask, has_padding, rows_of

__all__ = ["Decide", "ExitPass", "Left"]

Decide = Callable[[int, Tensor], Tensor]
"""Given the number of an exit and the logits there, says which inputs leave: `[batch]` of bool."""


class Left(Exception):
    """Raised at the exit where a pass ends, so that nothing behind it runs, whatever the forward that it is part of.

    Not an error: `AdaptiveModule.forward` catches it. Its argument returns the logits `[batch, classes]`, and is called
    once the exception is gone, and with it whatever it ran through, such as a checkpoint.
    """


class ExitPass:
    """What one forward pass does at the exits.

    Attributes:
        last: the exit at which the pass ends, counted from 1.
        every: whether the exits before it answer too.
        learns: whether the pass is to be differentiated.
        logits: what the exits answered, by their number.
        decide: which inputs leave at an exit; none = all stay until the last.
        decides_at: the exits at which inputs may leave; none = all.
        mask: which positions of the inputs are padding; none = all count.
        exits: where decisions are made, the exit at which each input left, `[batch]`; 0 = not yet.
    """

    def __init__(
        self,
        last: int,
        *,
        every: bool,
        decide: Decide | None = None,
        decides_at: Collection[int] | None = None,
        mask: Mask | None = None,
    ) -> None:
        self.last = last
        self.every = every
        self.mask = mask
        self.learns = torch.is_grad_enabled()
        self.logits: dict[int, Tensor] = {}
        self._waiting: list[tuple[int, Callable[[], Tensor]]] = []
        self.decide = decide
        self.decides_at = range(1, last) if decides_at is None else decides_at
        self.exits: Tensor | None = None
        self._answers: Tensor | None = None
        self._inside: Tensor | None = None

    def asks(self, exit_number: int) -> bool:
        """Whether the exit has to answer."""
        return (exit_number < self.last and self.every) or self.settles(exit_number)

    def settles(self, exit_number: int) -> bool:
        """Whether inputs may leave here: then its answer cannot wait."""
        return exit_number == self.last or (
            exit_number < self.last and self.decide is not None and exit_number in self.decides_at
        )

    def later(self, exit_number: int, classify: Callable[[], Tensor]) -> None:
        """Let an exit answer when it is asked: outside of the block, which may be part of a checkpoint."""
        self._waiting.append((exit_number, classify))

    def ends_at(self, exit_number: int) -> bool:
        """Whether nothing behind an exit runs, for any input."""
        return exit_number == self.last and self.decide is None

    def answer_of(self, exit_number: int) -> Tensor | None:
        """Return the logits of an exit; none if the pass did not come by, or if it is the network's own end."""
        waiting, self._waiting = self._waiting, []
        for number, classify in waiting:
            self.logits[number] = classify()
        return self.logits.get(exit_number)

    def all_answers(self, last: Tensor) -> list[Tensor]:
        """Return the logits of all exits, the first one's first; `last` are those with which the pass ended."""
        before = [self.answer_of(number) for number in range(1, self.last)]
        assert all(logits is not None for logits in before)
        return [*before, last]  # type: ignore[list-item]

    def shrink(self, exit_number: int, logits: Tensor, output: Any) -> Any:
        """Let the inputs leave that are decided; return the block's output for the others.

        Raises:
            Left: nobody is left.
            ValueError: some are left, and the blocks behind get a mask of the whole batch, in which there is padding.
        """
        assert self.decide is not None
        leaves = self.decide(exit_number, logits) if exit_number < self.last else _everybody(logits)
        if not leaves.any():
            return output
        self._keep(exit_number, leaves, logits)
        stays = (~leaves).nonzero().flatten()
        if not len(stays):
            raise Left
        if self.mask is not None and has_padding(self.mask):
            raise ValueError(
                f"{self.mask[0]}: {len(stays)} of {len(leaves)} inputs go on behind exit {exit_number}, with the mask "
                "of all; run one input at a time, or texts of one length without a mask"
            )
        self.mask = None  # nothing is padding
        self.logits = {number: rows[stays] for number, rows in self.logits.items()}
        return rows_of(output, stays)

    def finish(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Let all that are inside leave at the network's own end.

        Returns:
            The logits of all inputs `[batch, classes]`, and the exit at which each left `[batch]`.
        """
        self._keep(self.last, _everybody(logits), logits)
        return self.answers()

    def answers(self) -> tuple[Tensor, Tensor]:
        """Return what `finish` does, where everybody left before the end."""
        assert self._answers is not None and self.exits is not None
        return self._answers, self.exits

    def _keep(self, exit_number: int, leaves: Tensor, logits: Tensor) -> None:
        if self._answers is None or self._inside is None or self.exits is None:
            self._answers = torch.empty_like(logits)
            self.exits = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
            self._inside = torch.arange(len(logits), device=logits.device)
        rows = self._inside[leaves]
        self._answers[rows] = logits[leaves]
        self.exits[rows] = exit_number
        self._inside = self._inside[~leaves]


def _everybody(logits: Tensor) -> Tensor:
    return torch.ones(len(logits), dtype=torch.bool, device=logits.device)
