"""The residual stream in what a block returns, and its average over the positions that count."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Mask", "averaged", "has_padding", "mask_arguments", "mask_in", "rows_of", "stream_of"]

Mask = tuple[str, Any]
"""The name and the value of an argument that says which positions of a text are padding."""

# What such an argument holds at a position that counts: transformers' masks are 0 at padding, PyTorch's at the rest.
_COUNTS = {"attention_mask": True, "key_padding_mask": False, "src_key_padding_mask": False}


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


def mask_arguments(network: nn.Module) -> dict[str, int]:
    """Return the place of each padding mask among the arguments of a network's forward; -1 = by keyword alone."""
    parameters = inspect.signature(network.forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return {name: list(parameters).index(name) if name in parameters else -1 for name in _COUNTS}
    return {name: place for place, name in enumerate(parameters) if name in _COUNTS}


def mask_in(arguments: Mapping[str, int], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mask | None:
    """Return the padding mask among the arguments of a forward pass; none if there is none.

    Args:
        arguments: what `mask_arguments` returned for the network.
        args: positional arguments.
        kwargs: keyword arguments.
    """
    for name, place in arguments.items():
        mask = args[place] if 0 <= place < len(args) else kwargs.get(name)
        if mask is not None:
            return name, mask
    return None


def has_padding(mask: Mask) -> bool:
    """Whether a mask calls any position padding."""
    name, value = mask
    return not isinstance(value, Tensor) or not bool((value != 0 if _COUNTS[name] else value == 0).all())


def averaged(stream: Tensor | list[Tensor], channel_dim: int, mask: Mask | None = None) -> Tensor:
    """Average a stream over its positions, `[batch, channels]`; of many scales, the last and coarsest.

    Features of a table, `[batch, channels]`, have one position; a mean over none would be one over all.

    Args:
        stream: `[batch, channels, ...]`, or `[batch, ..., channels]`.
        channel_dim: where the channels are, 1 or -1.
        mask: which positions are padding and do not count, of a stream of one dimension of positions; none = all count.

    Raises:
        ValueError: the mask is not one of these positions.
    """
    x = stream[-1] if isinstance(stream, list) else stream
    positions = [dim for dim in range(1, x.dim()) if dim != channel_dim % x.dim()]
    if not positions:
        return x
    counts = None if mask is None else _counting(mask, [x.shape[dim] for dim in positions])
    if counts is None:
        return x.mean(positions)
    along = counts.unsqueeze(channel_dim)
    # The mean over all, times a factor that is 1 without padding: then bit for bit what it is without a mask.
    factor = along.shape[positions[0]] / counts.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(along, x, 0).mean(positions)
    return (mean * factor).to(x.dtype)


def _counting(mask: Mask, positions: Sequence[int]) -> Tensor | None:
    """Return which positions count, bool `[batch, positions]`; none where all do, of features without such positions.

    Raises:
        ValueError: some do not count, and it is not known which of these they are.
    """
    name, value = mask
    if not isinstance(value, Tensor) or value.dim() != 2:
        shape = list(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"{name}: got {shape}, expected [batch, tokens] where exits or features average over tokens")
    counts = value != 0 if _COUNTS[name] else value == 0
    if [*value.shape[1:]] == [*positions]:
        return counts
    if not has_padding(mask):
        return None
    raise ValueError(
        f"{name}: got {list(value.shape)} with padding, expected {positions} positions as of the features that exits "
        "and features=True average over; pass inputs without padding"
    )
