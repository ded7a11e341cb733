"""Run a model in eval mode for a while, or run it and leave no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["evaluating", "seeded", "undisturbed"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode and every one of its modules back afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the random numbers of torch (CPU and CUDA), numpy and Python, and put them all back afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            random.seed(seed)
            np.random.seed(seed)
            # Not torch.manual_seed, which would also seed devices that are not in use yet, for good.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed_all(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let a network be run in eval mode without gradients, and leave no trace of it, also when a pass raises.

    Put back are the training flag of every module, which parameters require a gradient, buffers, and the random
    numbers of torch, numpy and Python.
    """
    # Without an entry for shared modules: each is put back once.
    buffers = [
        (module, name, tensor, _values(tensor))
        for module in model.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None
    ]
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with evaluating(model), torch.no_grad(), seeded(0):
            yield
    finally:
        for parameter, requires_grad in learning:
            parameter.requires_grad = requires_grad
        with torch.no_grad():
            for module, name, tensor, before in buffers:
                module._buffers[name] = tensor
                # Only what changed: writing marks a tensor as modified for a backward pass that is still to come.
                if before is not None and not torch.equal(tensor, before):
                    tensor.copy_(before)


def _values(tensor: Tensor) -> Tensor | None:
    return None if tensor.is_meta else tensor.detach().clone()
