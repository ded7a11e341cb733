"""Reads torchvision's residual CNNs."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import ResNet
from torchvision.ops import FrozenBatchNorm2d

from pliant.core.anatomy import Anatomy
from pliant.readers.resnet import read_resnet

__all__ = ["read"]


def read(model: nn.Module) -> Anatomy | None:
    """Return the anatomy of ResNet, ResNeXt and Wide-ResNet; none for anything else."""
    if isinstance(model, ResNet):
        return read_resnet(model, "torchvision ResNet", norm_types=(FrozenBatchNorm2d,))
    return None
