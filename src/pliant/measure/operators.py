"""The operators that ran: the proof that a skipped block did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["count_operators"]


def count_operators(run: Callable[[], object]) -> Counter[str]:
    """Call `run` without gradients and count the ATen operators that PyTorch dispatched.

    Args:
        run: called once, such as `lambda: model(x, subnet="TTTT")`.

    Returns:
        How often each operator ran, by name (`"aten.convolution"`); views are operators too.
    """
    counter = _OperatorCounter()
    with torch.no_grad(), counter:
        run()
    return counter.counts


class _OperatorCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))
