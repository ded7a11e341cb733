"""Networks that no library has. Each describes its own anatomy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from pliant.models.ds_mbnet import DSMBNet
from pliant.models.ds_resnet import ds_resnet50
from pliant.models.ds_vit import DSViT
from pliant.models.msdnet import PRESETS
from pliant.models.resnet import CifarResNet

__all__ = ["LIBRARY_CLASSES", "MODELS"]

# For images of 32 pixels: 96 channels, and a sequence that a CPU can train on.
SMALL_VIT = {"image_size": 32, "patch_size": 4, "head_dim": 16, "num_blocks": 9}

MODELS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{layers}": partial(CifarResNet, layers) for layers in (20, 32, 44, 56, 110)},
    **PRESETS,
    "ds_mbnet": DSMBNet,
    "ds_mbnet_cifar10": partial(DSMBNet, num_classes=10, large_images=False),
    "ds_mbnet_cifar100": partial(DSMBNet, num_classes=100, large_images=False),
    "ds_resnet50": ds_resnet50,
    "ds_vit_small": DSViT,
    "ds_vit_cifar10": partial(DSViT, num_classes=10, **SMALL_VIT),
    "ds_vit_cifar100": partial(DSViT, num_classes=100, **SMALL_VIT),
}

# Those that are a library's own class with other settings, by its module.
LIBRARY_CLASSES = {"torchvision.models.resnet": ("ds_resnet50",)}
"""The CIFAR ResNets of He et al., "Deep Residual Learning for Image Recognition", section 4.2; MSDNets; DS-MBNet."""
