"""The one owner of "which sub-network is active"."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from pliant.core.gating import GatePass
from pliant.core.leaving import Decide, ExitPass
from pliant.core.passes import Parts, PassLog
from pliant.core.stream import averaged, stream_of
from pliant.core.subnet import SubNet, SubNetSpace

__all__ = ["Switch"]


class Switch:
    """Knows which sub-network runs; the adapted blocks and norms of one model all ask this one.

    Nothing else in the library stores that state. It holds for one forward pass and is put back
    after it, also when the pass raises. A block that runs outside of a pass belongs to the super-net,
    except where gradient checkpointing computes it again: then to the pass that it was part of.
    Two threads that use one model at the same time would share the state: give each of them
    `extract(model, subnet, share=True)`, a static module over the same weights.

    A copy of the model has a switch of its own. A copy of a part keeps the model's: it may take the part's place.
    """

    def __init__(self, space: SubNetSpace, *, chained: bool = False) -> None:
        """Know the sub-networks of `space`; `chained` exits need the answers of those before them."""
        self.space = space
        self.root: weakref.ref[nn.Module] | None = None
        self.exit_pass: ExitPass | None = None
        self.gate_pass: GatePass | None = None
        self._chained = chained
        self._largest = _parts(space.largest)
        self._running: Parts | None = None
        self._features: list[Tensor] | None = None
        self._learns = False
        self._log = PassLog(self._largest)
        # Filled once: a dictionary look-up is all that switching costs, and tuples are all that a compiler has to
        # guard on.
        self._known = {name: (_parts(subnet), subnet.exit) for name, subnet in space.names.items()}
        self._all = frozenset(space)

    def __deepcopy__(self, memo: dict[int, Any]) -> Switch:
        root = None if self.root is None else self.root()
        if root is None or id(root) not in memo:
            return self
        switch = memo[id(self)] = Switch(self.space, chained=self._chained)
        switch.root = weakref.ref(memo[id(root)])
        return switch

    def __reduce__(self) -> tuple[Any, ...]:
        # What is running, and the numbers of autograd's nodes, are of this process.
        return _made, (self.space, self._chained)

    def skips(self, stage: int) -> bool:
        """Whether `stage` skips its skippable sub-path in the pass that is running."""
        parts = self._running
        return (self._outside() if parts is None else parts)[0][stage]

    @property
    def widths(self) -> tuple[float, ...]:
        """For each stage, which share of its channels runs in the pass that is running."""
        parts = self._running
        return (self._outside() if parts is None else parts)[1]

    @property
    def at_largest(self) -> bool:
        """Whether the pass that is running is the super-net's."""
        parts = self._running
        return (self._outside() if parts is None else parts) == self._largest

    def record(self, output: Any, channel_dim: int) -> None:
        """Keep what the last block of a stage returned, averaged over all positions, if the pass asked for features.

        Raises:
            ValueError: the pass is to be differentiated, but not this part of it.
        """
        if self._features is not None:
            if self._learns and not torch.is_grad_enabled():
                raise ValueError(
                    f"features: the output of stage {len(self._features) + 1} has no gradient, as within a checkpoint "
                    "with use_reentrant=True or torch.no_grad(); set use_reentrant=False, or leave features out"
                )
            self._features.append(averaged(stream_of(output), channel_dim))

    @contextmanager
    def gating(self, *, chooses: bool = True) -> Iterator[GatePass]:
        """Ask the gate in the passes of this block, each of which runs a route to begin with.

        Args:
            chooses: whether it chooses the route with which a pass goes on, or only notes what it sees.

        Raises:
            ValueError: there is no gate.
        """
        if not self.space.routes:
            raise ValueError("this network has no gate; adapt it with pliant.Width(gate=pliant.Gate())")
        routes = [_parts(route) for route in self.space.routes]

        def go_on(place: int) -> None:
            self._running = routes[place]
            if torch.is_grad_enabled():
                self._note_for_backward(routes[place])

        before, self.gate_pass = self.gate_pass, GatePass(go_on if chooses else None)
        try:
            yield self.gate_pass
        finally:
            self.gate_pass = before

    @contextmanager
    def running(
        self,
        subnet: str | SubNet | None,
        features: list[Tensor] | None = None,
        *,
        every_exit: bool = False,
        decide: Decide | None = None,
        decides_at: Collection[int] | None = None,
    ) -> Iterator[ExitPass | None]:
        """Make `subnet` active.

        Args:
            subnet: which; none = the super-net.
            features: stage outputs, pooled to `[batch, channels]`, are put into it.
            every_exit: all exits up to that of `subnet` answer.
            decide: which inputs leave at an exit.
            decides_at: the exits at which inputs may leave; none = all.

        Yields:
            What happens at the exits; none where the model has no such axis.
        """
        parts, exit_number = self._chosen(subnet)
        before = self._running, self._features, self._learns, self.exit_pass
        learns = torch.is_grad_enabled()
        self._running, self._features, self._learns = parts, features, learns
        if exit_number is not None:
            self.exit_pass = ExitPass(
                exit_number, every=every_exit or self._chained, decide=decide, decides_at=decides_at
            )
        if learns:
            self._note_for_backward(parts)
        try:
            yield self.exit_pass
        finally:
            self._running, self._features, self._learns, self.exit_pass = before
            if learns:
                self._note_for_backward(before[0] or self._largest)

    def _note_for_backward(self, parts: Parts) -> None:
        # A compiler settles what is computed again in advance.
        if not torch.compiler.is_compiling():
            self._log.note(parts)

    def _outside(self) -> Parts:
        """What runs while no pass is running."""
        if not torch.compiler.is_compiling():
            return self._log.current()
        # Not a constant of compiled code, which is used again where the answer is another.
        return self._ask_the_log() if torch.is_grad_enabled() else self._largest

    @_disable_dynamo
    def _ask_the_log(self) -> Parts:
        return self._log.current()

    def _chosen(self, subnet: str | SubNet | None) -> tuple[Parts, int | None]:
        if subnet is None:
            return self._known["largest"]
        if isinstance(subnet, str):
            if subnet in self._known:
                return self._known[subnet]
        elif isinstance(subnet, SubNet) and subnet in self._all:
            return _parts(subnet), subnet.exit
        parsed = self.space.parse(subnet)
        return _parts(parsed), parsed.exit


def _made(space: SubNetSpace, chained: bool) -> Switch:
    return Switch(space, chained=chained)


def _parts(subnet: SubNet) -> Parts:
    return subnet.depth, subnet.width
