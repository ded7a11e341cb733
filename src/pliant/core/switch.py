"""The one owner of "which sub-network is active"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from pliant.core.passes import PassLog
from pliant.core.subnet import SubNet, SubNetSpace

__all__ = ["Switch"]


class Switch:
    """Knows which sub-network runs; the adapted blocks and norms of one model all ask this one.

    Nothing else in the library stores that state. It holds for one forward pass and is put back
    after it, also when the pass raises. A block that runs outside of a pass belongs to the super-net,
    except where gradient checkpointing computes it again: then to the pass that it was part of.
    Two threads that use one model at the same time would share the state: give each of them
    `extract(model, subnet, share=True)`, a static module over the same weights.
    """

    def __init__(self, space: SubNetSpace) -> None:
        self.space = space
        self._largest = space.largest.depth
        self._running: tuple[bool, ...] | None = None
        self._features: list[Tensor] | None = None
        self._learns = False
        self._log = PassLog(self._largest)
        # Text to flags, filled once: a dictionary look-up is all that switching costs, and all that a
        # compiler has to guard on.
        self._known = {name: space.parse(name).depth for subnet in space for name in (str(subnet), f"depth={subnet}")}
        self._known |= {"largest": self._largest, "smallest": space.smallest.depth}
        self._all = frozenset(subnet.depth for subnet in space)

    def skips(self, stage: int) -> bool:
        """Whether `stage` skips its skippable sub-path in the pass that is running."""
        flags = self._running
        return (self._outside() if flags is None else flags)[stage]

    @property
    def at_largest(self) -> bool:
        """Whether the pass that is running is the super-net's."""
        flags = self._running
        return not any(self._outside() if flags is None else flags)

    def record(self, stage_output: Tensor, channel_dim: int) -> None:
        """Keep the output of a stage, averaged over all positions, if the pass asked for features.

        Raises:
            ValueError: the pass is to be differentiated, but not this part of it.
        """
        if self._features is not None:
            if self._learns and not torch.is_grad_enabled():
                raise ValueError(
                    f"features: the output of stage {len(self._features) + 1} has no gradient, as within a checkpoint "
                    "with use_reentrant=True or torch.no_grad(); set use_reentrant=False, or leave features out"
                )
            dims = stage_output.dim()
            positions = [dim for dim in range(1, dims) if dim != channel_dim % dims]
            # Features of a table, [batch, channels], have one position; a mean over none would be one over all.
            self._features.append(stage_output.mean(positions) if positions else stage_output)

    @contextmanager
    def running(self, subnet: str | SubNet | None, features: list[Tensor] | None) -> Iterator[None]:
        """Make `subnet` active; stage outputs, pooled to `[batch, channels]`, are put into `features`."""
        flags = self._flags(subnet)
        before = self._running, self._features, self._learns
        learns = torch.is_grad_enabled()
        self._running, self._features, self._learns = flags, features, learns
        # A compiler settles what is computed again in advance.
        logged = learns and not torch.compiler.is_compiling()
        if logged:
            self._log.note(flags)
        try:
            yield
        finally:
            self._running, self._features, self._learns = before
            if logged:
                self._log.note(before[0] or self._largest)

    def _outside(self) -> tuple[bool, ...]:
        """Flags while no pass is running."""
        if not torch.compiler.is_compiling():
            return self._log.current()
        # Not a constant of compiled code, which is used again where the answer is another.
        return self._ask_the_log() if torch.is_grad_enabled() else self._largest

    @_disable_dynamo
    def _ask_the_log(self) -> tuple[bool, ...]:
        return self._log.current()

    def _flags(self, subnet: str | SubNet | None) -> tuple[bool, ...]:
        if subnet is None:
            return self._largest
        if isinstance(subnet, str):
            if subnet in self._known:
                return self._known[subnet]
        elif subnet.depth in self._all:
            return subnet.depth
        return self.space.parse(subnet).depth
