"""Takes blocks out of a network for a trial: does it still run, and is it the network that skips them?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pliant.core.anatomy import Block, Stage
from pliant.core.surgery import identity_for, remove_child, replace, shared_copy
from pliant.readers.tracing import fresh_arguments, tensors_in

__all__ = ["tried"]


def tried(model: nn.Module, stage: Stage, example: Any) -> Stage | None:
    """Return the stage with what is to happen when its blocks are taken out; none if they cannot be skipped.

    Blocks come out of their list, as a library would leave them out; but a network may count on their places, for
    instance where it goes through the list by index. Then identities take the places.
    """
    blocks = stage.blocks[1:]
    if not blocks:
        return stage
    skipped = _without(model, blocks, example, _skip)
    if skipped is None:
        return None
    removed = _without(model, blocks, example, lambda copy, block: remove_child(copy, block.path))
    if _equal(removed, skipped):
        return stage
    replaced = _without(model, blocks, example, _put_identity)
    if _equal(replaced, skipped):
        kept = tuple(dataclasses.replace(block, keeps_place=True) for block in stage.blocks)
        return dataclasses.replace(stage, blocks=kept)
    return None


def _skip(model: nn.Module, block: Block) -> None:
    """Let a block be skipped as the depth axis skips it: it keeps its class and its hooks, which may note it."""
    more_outputs = (None,) * (block.outputs - 1)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (x, *more_outputs) if more_outputs else x

    model.get_submodule(block.path).forward = forward


def _put_identity(model: nn.Module, block: Block) -> None:
    replace(model, block.path, identity_for(model.get_submodule(block.path)))


def _without(
    model: nn.Module, blocks: tuple[Block, ...], example: Any, take_out: Callable[[nn.Module, Block], None]
) -> list[Tensor] | None:
    """Run the network without blocks; none if it fails."""
    copy = shared_copy(model)
    for block in reversed(blocks):
        take_out(copy, block)
    args, kwargs = fresh_arguments(example)
    try:
        return tensors_in(copy(*args, **kwargs))
    except Exception:
        # Whatever it is, this network does not run without these blocks.
        return None


def _equal(one: list[Tensor] | None, other: list[Tensor] | None) -> bool:
    if one is None or other is None or [tensor.shape for tensor in one] != [tensor.shape for tensor in other]:
        return False
    return all(torch.allclose(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
