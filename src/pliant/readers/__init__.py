"""Readers find the parts of a model: each knows a library, none knows a wing."""

from __future__ import annotations

from torch import nn

from pliant.core.anatomy import Anatomy, SelfDescribing

__all__ = ["read"]

SUPPORTED = (
    "ResNet, ResNeXt and Wide-ResNet of torchvision and timm, the CIFAR ResNets of pliant, "
    "and any model with an anatomy() method"
)


def read(model: nn.Module) -> Anatomy:
    """Return the anatomy of a model.

    Raises:
        ValueError: no reader knows the model; says which are supported.
    """
    if isinstance(model, SelfDescribing):
        return model.anatomy()
    # The libraries are recognised by name, so that none is imported for a model that is not from it.
    libraries = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    anatomy = None
    if "torchvision" in libraries:
        from pliant.readers import torchvision

        anatomy = torchvision.read(model)
    elif "timm" in libraries:
        from pliant.readers import timm

        anatomy = timm.read(model)
    if anatomy is None:
        raise ValueError(
            f"{type(model).__module__}.{type(model).__name__} has no residual stages that pliant can read; "
            f"supported: {SUPPORTED}"
        )
    return anatomy
