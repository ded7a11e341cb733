"""What each operator of torch does to the labels of dimensions: the rules by which channels are followed.

An operator without a rule fixes all that goes into it and all that comes out: it may mix channels in any way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pliant.readers.channels import layers, views
from pliant.readers.channels.labels import Shape, fix, fresh, product
from pliant.readers.channels.operation import Operation, Rule

__all__ = ["dimensions_of_outputs"]

RULES: dict[str, Rule] = views.RULES | layers.RULES


def dimensions_of_outputs(call: Operation, operator: torch._ops.OpOverload) -> list[Shape]:
    """Follow the labels through one call; return the dimensions of every output.

    Args:
        call: it ran already.
        operator: what was called; torch says of many that they treat every entry alike.
    """
    rule = RULES.get(call.name, layers.pointwise if torch.Tag.pointwise in operator.tags else None)
    found = None if rule is None else rule(call)
    if found is None or not _fits(found, call.outputs):
        reason = call.reason("is no operator along which channels can be followed")
        for tensor in call.inputs:
            for dimension in call.known(tensor):
                fix(dimension, reason)
        found = [fresh(tensor.shape, reason) for tensor in call.outputs]
    missing = call.outputs[len(found) :]
    return found + [fresh(tensor.shape, call.reason("returns it beside its result")) for tensor in missing]


def _fits(shapes: list[Shape], outputs: list[Tensor]) -> bool:
    """Whether a rule spoke of what came out: an operator may have forms that its rule does not know."""
    return all(
        [product(dimension) for dimension in shape] == list(tensor.shape)
        for shape, tensor in zip(shapes, outputs, strict=False)
    )
