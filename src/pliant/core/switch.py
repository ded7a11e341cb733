"""The one owner of "which sub-network is active"."""

from __future__ import annotations

import threading
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
from pliant.core.stream import Mask, averaged, stream_of
from pliant.core.subnet import SubNet, SubNetSpace

__all__ = ["Switch"]

# So many sub-networks that were asked for are known by text and by value; the oldest is forgotten for a new one.
MOST_KNOWN = 1024


class Switch:
    """Knows which sub-network runs; the adapted blocks and norms of one model all ask this one.

    Nothing else in the library stores that state. It holds for one forward pass and is put back
    after it, also when the pass raises. A block that runs outside of a pass belongs to the super-net,
    except where gradient checkpointing computes it again: then to the pass that it was part of.
    Two threads that use one model at the same time would share the state, so the second one is refused: give each of
    them `extract(model, subnet, share=True)`, a static module over the same weights.

    A copy of the model has a switch of its own. A copy of a part keeps the model's: it may take the part's place.
    """

    def __init__(self, space: SubNetSpace, *, chained: bool = False) -> None:
        """Know the sub-networks of `space`; `chained` exits need the answers of those before them."""
        self.space = space
        self.root: weakref.ref[nn.Module] | None = None
        self.copied_from: weakref.ref[Switch] | None = None
        self.seen: Any = None  # what `core.belonging.look` saw when the parts of the model were last compared
        self.was_reset: nn.Module | None = None  # a batch norm that the super-net does not run; see `core.statistics`
        self.exit_pass: ExitPass | None = None
        self.gate_pass: GatePass | None = None
        self._chained = chained
        self._largest = _parts(space.largest)
        self._running: Parts | None = None
        self._features: list[Tensor] | None = None
        self._mask: Mask | None = None
        self._learns = False
        self._lock = threading.RLock()  # held by the thread whose pass is running
        self._log = PassLog(self._largest)
        # What was asked for before: a dictionary look-up is all that switching back to it costs.
        self._known: dict[str | SubNet, _Choice] = {}
        self._largest_choice = _choice(space.largest)
        # What a compiler guards on in place of the space, of which its code is a consequence.
        self._space_text = repr((space.skippable_blocks, space.exit_stages, space.widths))

    def __deepcopy__(self, memo: dict[int, Any]) -> Switch:
        root = None if self.root is None else self.root()
        if root is None or id(root) not in memo:
            return self
        switch = memo[id(self)] = Switch(self.space, chained=self._chained)
        switch.root, switch.copied_from = weakref.ref(memo[id(root)]), weakref.ref(self)
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
        """Keep what the last block of a stage returned, averaged over positions, if the pass asked for features.

        Raises:
            ValueError: the pass is to be differentiated, but not this part of it.
        """
        if self._features is not None:
            if self._learns and not torch.is_grad_enabled():
                raise ValueError(
                    f"features: the output of stage {len(self._features) + 1} has no gradient, as within a checkpoint "
                    "with use_reentrant=True or torch.no_grad(); set use_reentrant=False, or leave features out"
                )
            self._features.append(averaged(stream_of(output), channel_dim, self._mask))

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
                self._log.note(routes[place])

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
        mask: Mask | None = None,
    ) -> Iterator[ExitPass | None]:
        """Make `subnet` active.

        Args:
            subnet: which; none = the super-net.
            features: stage outputs, pooled to `[batch, channels]`, are put into it.
            every_exit: all exits up to that of `subnet` answer.
            decide: which inputs leave at an exit.
            decides_at: the exits at which inputs may leave; none = all.
            mask: which positions of the inputs are padding, and count in no average; none = all count.

        Yields:
            What happens at the exits; none where the model has no such axis.

        Raises:
            ValueError: there is no such sub-network, or another thread runs the model at this moment.
        """
        parts, exit_number = self._chosen(subnet)
        # Asked here and nowhere below: where a compiler gives up on a pass, it still compiles the functions called.
        compiling = torch.compiler.is_compiling()
        locked = not compiling and self._lock.acquire(blocking=False)
        if not (locked or compiling):
            raise ValueError(
                "subnet: two threads run this model at the same time, and share the choice of the sub-network; give "
                "each of them pliant.extract(model, subnet, share=True), which copies no weight"
            )
        before = self._running, self._features, self._learns, self.exit_pass, self._mask
        learns = torch.is_grad_enabled()
        noted = learns and not compiling  # a compiler settles what is computed again in advance
        try:
            self._running, self._features, self._learns, self._mask = parts, features, learns, mask
            if exit_number is not None:
                every = every_exit or self._chained
                self.exit_pass = ExitPass(exit_number, every=every, decide=decide, decides_at=decides_at, mask=mask)
            if noted:
                self._log.note(parts)
            yield self.exit_pass
        finally:
            self._running, self._features, self._learns, self.exit_pass, self._mask = before
            if locked:
                self._lock.release()
            if noted:
                self._log.note(before[0] or self._largest)

    def _outside(self) -> Parts:
        """What runs while no pass is running."""
        if not torch.compiler.is_compiling():
            return self._log.current()
        # Not a constant of compiled code, which is used again where the answer is another.
        return self._ask_the_log() if torch.is_grad_enabled() else self._largest

    @_disable_dynamo
    def _ask_the_log(self) -> Parts:
        return self._log.current()

    def _chosen(self, subnet: str | SubNet | None) -> _Choice:
        if subnet is None:
            return self._largest_choice
        if torch.compiler.is_compiling():
            return self._chosen_for_compiler(subnet)
        try:
            known = self._known.get(subnet)
        except TypeError:  # it has no hash, and is no sub-network
            known = None
        if known is not None:
            return known
        chosen = _choice(self.space.parse(subnet))
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[subnet] = chosen
        return chosen

    def _chosen_for_compiler(self, subnet: str | SubNet) -> _Choice:
        """Do as `_chosen`, without the dictionary: where it grows, a guard on it would fail, and code be made again."""
        found = None
        if isinstance(subnet, str):
            found = self._constant(self._space_text, subnet)
        elif isinstance(subnet, SubNet):
            # By its fields, on which a compiler guards by value, and not by identity.
            found = self._constant(self._space_text, "", subnet.depth, subnet.exit, subnet.width)
        return _choice(self.space.parse(subnet)) if found is None else found

    def _constant(self, space_text: str, text: str, *fields: Any) -> _Choice | None:
        """Read a sub-network; none if there is no such one. A compiler runs this once and keeps the result."""
        try:
            return _choice(self.space.parse(SubNet(*fields) if fields else text))
        except ValueError:
            return None

    # What torch.compiler.assume_constant_result does, which would import the compiler.
    _constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


_Choice = tuple[Parts, int | None]
"""What runs of a sub-network, and its exit."""


def _made(space: SubNetSpace, chained: bool) -> Switch:
    return Switch(space, chained=chained)


def _parts(subnet: SubNet) -> Parts:
    return subnet.depth, subnet.width


def _choice(subnet: SubNet) -> _Choice:
    return _parts(subnet), subnet.exit
