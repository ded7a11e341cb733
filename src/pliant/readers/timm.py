"""Reads timm's residual CNNs."""

from __future__ import annotations

from timm.models.resnet import ResNet
from torch import nn

from pliant.core.anatomy import Anatomy
from pliant.readers.resnet import read_resnet

__all__ = ["read"]


def read(model: nn.Module) -> Anatomy | None:
    """Return the anatomy of ResNet and its variants (ResNeXt, SE, other stems); none for anything else."""
    if isinstance(model, ResNet):
        return read_resnet(model, "timm ResNet")
    return None
