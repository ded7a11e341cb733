"""Readers find the parts of a model: each knows a library, none knows a wing."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from pliant.core.anatomy import Anatomy, stated_anatomy
from pliant.readers.channels import channel_groups

__all__ = ["channel_groups", "read", "settle_", "stated_task"]

SUPPORTED = (
    "ResNets, MobileNets, EfficientNets, RegNets, ConvNeXts, MaxViTs, ViTs and Swins of torchvision, timm and "
    "transformers, and the other families of docs/support.md; the networks of pliant; any with an anatomy() method; "
    "and your own: pass example=, one input of the model"
)


def read(model: nn.Module, example: Any = None) -> Anatomy:
    """Return the anatomy of a model.

    Args:
        model: any network.
        example: one input of it; a model that no reader knows is run on it.

    Raises:
        ValueError: no reader knows the model, and there is no example, or no residual block was found with it; says
            which are supported, or what was looked at.
    """
    stated = stated_anatomy(model)
    if stated is not None:
        return stated
    libraries = _libraries(model)
    anatomy = None
    if "torchvision" in libraries:
        from pliant.readers import torchvision

        anatomy = torchvision.read(model)
    elif "timm" in libraries:
        from pliant.readers import timm

        anatomy = timm.read(model)
    elif "transformers" in libraries:
        from pliant.readers import transformers

        anatomy = transformers.read(model)
    if anatomy is None and example is not None:
        from pliant.readers import traced

        anatomy = traced.read(model, example)
    if anatomy is not None and "transformers" in libraries:
        from pliant.readers import transformers

        anatomy = dataclasses.replace(anatomy, answers_by=transformers.answers_by(model) or anatomy.answers_by)
    if anatomy is None:
        raise ValueError(
            f"{type(model).__module__}.{type(model).__name__} has no residual stages that pliant can read; "
            f"supported: {SUPPORTED}"
        )
    head = model.get_submodule(anatomy.head)
    if anatomy.num_classes and isinstance(head, nn.Linear):  # it may have been replaced, and the library not been told
        anatomy = dataclasses.replace(anatomy, num_classes=head.out_features)
    return anatomy


def settle_(model: nn.Module, anatomy: Anatomy) -> None:
    """Put right what a library wrote down of blocks that were taken out of `model`, in place."""
    if "transformers" in _libraries(model):
        from pliant.readers import transformers

        transformers.settle_(model, anatomy)


def stated_task(model: nn.Module) -> str | None:
    """Return the task of `pliant.Objective` that a model's own configuration states; none = it states none.

    Raises:
        ValueError: it states one that is no classification.
    """
    if "transformers" not in _libraries(model):
        return None
    from pliant.readers import transformers

    return transformers.stated_task(model)


def _libraries(model: nn.Module) -> set[str]:
    """The libraries a model's class comes from, by name: none is imported for a model that is not from it."""
    return {base.__module__.partition(".")[0] for base in type(model).__mro__}
