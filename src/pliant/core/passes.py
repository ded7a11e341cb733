"""Whose pass made a node of an autograd graph: what a checkpointed block asks when it is computed again."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_right

import torch
from torch._C._autograd import _get_sequence_nr
from torch.autograd import Variable

from pliant.core.uncompiled import uncompiled

__all__ = ["Parts", "PassLog"]

Parts = tuple[tuple[bool, ...], tuple[float, ...]]
"""What runs in a pass: for each stage whether it skips, and which share of its channels it has."""

# How many changes of sub-network are remembered: a pass makes two, and may be differentiated much later.
REMEMBERED = 20_000


class PassLog:
    """Remembers, for each node of the graphs of autograd, which sub-network was running when it was made.

    Gradient checkpointing computes blocks again while a gradient flows back, when their pass is long over, and
    passes of several sub-networks may flow back at once. What asks for a block to be computed again is a node of
    the pass that the block belonged to. Autograd numbers nodes as it makes them, thread by thread; so it is enough
    to write down the next number when a pass begins and when it ends, and to look up the number of the node that is
    being differentiated. No hook is set, and a pass without gradients writes nothing.
    """

    def __init__(self, outside: Parts) -> None:
        self._outside = outside
        self._thread = 0
        self._from: list[int] = []  # ascending: the number of a node ...
        self._parts: list[Parts] = []  # ... from which on these parts run
        self._forgotten = False
        self._backward: tuple[int, weakref.ref[_EndOfBackward]] | None = None

    @uncompiled
    def note(self, parts: Parts) -> None:
        """Write down that nodes which are made from now on belong to this sub-network."""
        if self._in_backward():
            # A whole pass is computed again. Its nodes are those of the first time, and have their numbers.
            return
        self._backward = None
        if threading.get_ident() != self._thread:
            # Another thread has numbers of its own: of a model that wanders, its last thread's count.
            self._thread = threading.get_ident()
            self._forgotten = bool(self._from)
            self._from, self._parts = [], []
        if parts == (self._parts[-1] if self._parts else self._outside):
            return
        number = _get_sequence_nr()
        if self._from and self._from[-1] == number:  # the pass that was running has made no node
            self._from.pop()
            self._parts.pop()
        self._from.append(number)
        self._parts.append(parts)
        if len(self._from) > REMEMBERED:
            half = REMEMBERED // 2
            self._from, self._parts, self._forgotten = self._from[half:], self._parts[half:], True

    def current(self) -> Parts:
        """Return what ran in the pass that is computed again, outside of backward what runs in no pass.

        Raises:
            ValueError: it cannot be told which pass that is.
        """
        if not self._in_backward():
            return self._outside
        node = torch._C._current_autograd_node()
        if node is None:  # a callback at the end of backward
            return self._outside
        index = bisect_right(self._from, node._sequence_nr()) - 1
        if index < 0 and self._forgotten:
            raise ValueError(
                "a checkpointed block is to be computed again whose pass is forgotten: it ran in another thread, or "
                f"{REMEMBERED // 4} passes ago; run backward sooner, or the passes in between under torch.no_grad()"
            )
        return self._parts[index] if index >= 0 else self._outside

    def _in_backward(self) -> bool:
        """Whether this thread runs a backward pass; refuses one within a pass that is computed again.

        There, nodes are those of the repetition, with numbers that say nothing.
        """
        task: int = torch._C._current_graph_task_id()
        if task == -1:
            return False
        known, end = self._backward or (-1, None)
        if known == task:
            return True
        if end is not None and end() is not None:
            raise ValueError(
                "a checkpoint within a checkpoint with use_reentrant=True cannot be computed again: which sub-network "
                "it belongs to is not known there; set use_reentrant=False"
            )
        callback = _EndOfBackward()
        self._backward = task, weakref.ref(callback)
        Variable._execution_engine.queue_callback(callback)
        return True


class _EndOfBackward:
    """Lives as long as a backward pass, also where that raises: autograd holds it to call it at the end."""

    def __call__(self) -> None:
        """Do nothing."""
