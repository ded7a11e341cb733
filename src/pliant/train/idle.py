"""Parameters that a step leaves without a gradient, such as the norms of widths that were not drawn.

`DistributedDataParallel` averages gradients once every parameter has one, and would wait for these in vain. So they
take part in the loss with a gradient of zero, and once all processes have their gradients, that is taken away again:
an optimizer must not move what a step did not use, as by weight decay or momentum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.nn.parallel import DistributedDataParallel

__all__ = ["with_idle_parameters"]

# The node of a checkpoint with use_reentrant=True, which hides what is inside.
OPAQUE = "CheckpointFunctionBackward"


def with_idle_parameters(loss: Tensor, model: nn.Module) -> Tensor:
    """Return a loss on which all parameters depend, where `DistributedDataParallel` runs this step.

    Args:
        loss: of one step, a scalar.
        model: of which some parameters may have no part in the loss.
    """
    if DistributedDataParallel._active_ddp_module is None or loss.grad_fn is None:
        return loss
    reached = _reached(loss)
    idle = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in reached]
    if OPAQUE in reached or not idle:
        return loss
    joined: Tensor = _Idle.apply(loss, *idle)  # type: ignore[assignment]
    return joined


def _reached(loss: Tensor) -> set[int | str]:
    """Return by `id` the parameters to which a gradient flows, and `OPAQUE` if some cannot be seen."""
    waiting: list[Any] = [loss.grad_fn]
    seen, found = set(waiting), set()
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        elif node.name() == OPAQUE:
            found.add(OPAQUE)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


class _Idle(torch.autograd.Function):
    """Hands a loss on, and gives idle parameters a gradient of zero until the backward pass is over."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *idle: Tensor) -> Tensor:
        ctx.idle = idle
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        unused = [parameter for parameter in ctx.idle if parameter.grad is None]
        # Callbacks run in the order of queueing: one queued at the end stands behind that of DistributedDataParallel.
        queue = Variable._execution_engine.queue_callback
        queue(lambda: queue(lambda: _forget(unused)))
        return gradients[0], *map(torch.zeros_like, ctx.idle)


def _forget(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
