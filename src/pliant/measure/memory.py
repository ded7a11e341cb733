"""Peak memory of a forward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from pliant.core.inputs import arguments_of

__all__ = ["peak_bytes", "peak_memory_mb"]


@torch.inference_mode()
def peak_memory_mb(network: nn.Module, inputs: Any, run: Callable[..., object] | None = None) -> float:
    """Measure the most memory that a forward pass holds: weights, inputs and what is computed, in 10^6 bytes.

    See `peak_bytes` for what is seen of the part that is computed.

    Args:
        network: whose weights and buffers count.
        inputs: what it takes, where it is: a tensor, a tuple of arguments or a dictionary of keyword arguments.
        run: what to run on the inputs; none = the network.
    """
    args, kwargs = arguments_of(inputs)
    forward = partial(run or network, *args, **kwargs)
    forward()  # what is made once (tuned kernels, cached tables) is no part of a pass
    own = _bytes(_storages(chain(network.parameters(), network.buffers(), tree_iter((args, kwargs)))))
    return (own + peak_bytes(forward, next(network.parameters()).device)) / 1e6


def peak_bytes(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Call `run` once and measure the most memory that what it makes holds at a time.

    On CUDA the allocator's own counters are read, which include the workspaces of kernels. On other
    devices every tensor is counted from the operator that makes it until it is freed; memory that a
    kernel takes and gives back inside one operator is not seen there.

    Args:
        run: a forward pass or a training step, say.
        device: where it computes.

    Returns:
        Bytes; what was there before does not count.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    memory = _TensorMemory()
    with memory:
        run()
    return memory.peak


class _TensorMemory(TorchDispatchMode):
    """Follows the memory of the tensors that operators make while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        # An operator that returns its input, or a view of it, makes nothing.
        for storage in _storages(tree_iter(output)) - _storages(tree_iter((args, kwargs))):
            self._held.add(storage)
        self.peak = max(self.peak, _bytes(self._held))
        return output


def _storages(values: Iterable[Any]) -> set[torch.UntypedStorage]:
    """The pieces of memory that tensors among the values lie in; two views of one piece are one."""
    return {value.untyped_storage() for value in values if isinstance(value, Tensor)}


def _bytes(storages: Iterable[torch.UntypedStorage]) -> int:
    return sum(storage.nbytes() for storage in storages)
