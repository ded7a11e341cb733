"""The one owner of "which sub-network is active"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from pliant.core.subnet import SubNet, SubNetSpace

__all__ = ["Switch"]


class Switch:
    """Knows which sub-network runs; the adapted blocks and norms of one model all ask this one.

    Nothing else in the library stores that state. It holds for one forward pass and is put back
    after it, also when the pass raises. Two threads that use one model at the same time would share
    it: give each of them `extract(model, subnet, share=True)`, a static module over the same weights.
    """

    def __init__(self, space: SubNetSpace) -> None:
        self.space = space
        self._skips: tuple[bool, ...] = space.largest.depth
        self._features: list[Tensor] | None = None
        # Text to flags, filled once: a dictionary look-up is all that switching costs, and all that a
        # compiler has to guard on.
        self._known = {str(subnet): subnet.depth for subnet in space}

    def skips(self, stage: int) -> bool:
        """Whether `stage` skips its skippable sub-path in the pass that is running."""
        return self._skips[stage]

    @property
    def at_largest(self) -> bool:
        """Whether the pass that is running is the super-net's."""
        return not any(self._skips)

    def record(self, stage_output: Tensor, channel_dim: int) -> None:
        """Keep the output of a stage, averaged over all positions, if the pass asked for features."""
        if self._features is not None:
            dims = stage_output.dim()
            positions = [dim for dim in range(1, dims) if dim != channel_dim % dims]
            self._features.append(stage_output.mean(positions))

    @contextmanager
    def running(self, subnet: str | SubNet | None, features: list[Tensor] | None) -> Iterator[None]:
        """Make `subnet` active; stage outputs, pooled to `[batch, channels]`, are put into `features`."""
        before = self._skips, self._features
        self._skips, self._features = self._flags(subnet), features
        try:
            yield
        finally:
            self._skips, self._features = before

    def _flags(self, subnet: str | SubNet | None) -> tuple[bool, ...]:
        if subnet is None:
            return self.space.largest.depth
        if isinstance(subnet, str) and subnet in self._known:
            return self._known[subnet]
        return self.space.parse(subnet).depth
