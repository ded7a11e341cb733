"""The residual stream in what a block returns, and its average over positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["averaged", "rows_of", "stream_of"]


def stream_of(output: Any) -> Any:
    """Return the residual stream of what a block returned: a tensor, or a list of them for a network of many scales."""
    return output[0] if isinstance(output, tuple) else output


def rows_of(output: Any, rows: Tensor) -> Any:
    """Take some inputs out of a batch, in whatever a block returned."""
    if isinstance(output, Tensor):
        return output[rows]
    if isinstance(output, tuple | list):
        return type(output)(rows_of(part, rows) for part in output)
    return output


def averaged(stream: Tensor | list[Tensor], channel_dim: int) -> Tensor:
    """Average a stream over all positions, `[batch, channels]`; of many scales, the last and coarsest.

    Features of a table, `[batch, channels]`, have one position; a mean over none would be one over all.
    """
    x = stream[-1] if isinstance(stream, list) else stream
    positions = [dim for dim in range(1, x.dim()) if dim != channel_dim % x.dim()]
    return x.mean(positions) if positions else x
