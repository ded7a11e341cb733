"""Keep `torch.compile` out of functions that are called while it has given up on the pass around them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch._compile import _disable_dynamo

__all__ = ["uncompiled"]

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Do as `torch.compiler.disable`, without importing the compiler, which takes longer than a first pass."""
    disabled = _disable_dynamo(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        chosen = disabled if "torch._dynamo" in sys.modules else function
        return chosen(*args, **kwargs)

    return call
