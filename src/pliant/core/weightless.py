"""Networks without memory for their weights: built, to compare structures, or copied, to look at shapes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

__all__ = ["Unwanted", "weightless", "without_values"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# Some networks make a few modules only to look at them, and throw them away.
THROWN_AWAY = 8


class Unwanted(Exception):
    """A network that is being built has parameters that `weightless` was told not to accept."""


@contextmanager
def weightless(accept: Callable[[str, torch.Size], bool] | None = None) -> Iterator[None]:
    """Put the parameters of networks built in this block, and in this thread, on the meta device.

    Buffers stay what they are, and random numbers go on behind the block as if nothing had been built.
    (`torch.device("meta")` puts buffers there too, which networks that compute with them, such as torchvision's
    RegNets, do not survive.)

    Args:
        accept: is told the name in its module and the shape of every parameter; when there are too many that
            it does not accept to be an accident, the building ends with `Unwanted`.
    """
    here = threading.get_ident()
    not_accepted = 0

    def forget_values(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        nonlocal not_accepted
        if threading.get_ident() != here:
            return None
        if accept is not None and not accept(name, parameter.shape):
            not_accepted += 1
            if not_accepted > THROWN_AWAY:
                raise Unwanted
        if parameter.is_meta:
            return None  # tied weights are registered twice, and stay one tensor
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    # torch's annotation leaves out that a hook may return a parameter, which it documents.
    hook = register_module_parameter_registration_hook(forget_values)  # pyright: ignore[reportArgumentType]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        hook.remove()


def without_values(model: ModuleT) -> ModuleT:
    """Return a copy on the meta device, where tensors have shapes and no memory, in eval mode."""
    tensors = [*model.parameters(), *model.buffers()]
    # Tensors that modules have without having registered them would stay where they are.
    tensors += [value for part in model.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors}).eval()
