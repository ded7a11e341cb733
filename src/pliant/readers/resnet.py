"""What the ResNets of torchvision and timm have in common: `layer1` ... `layer4` of residual blocks, and `fc`."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.core.anatomy import Anatomy, Block, Stage

__all__ = ["read_resnet"]


def read_resnet(model: nn.Module, family: str, norm_types: tuple[type[nn.Module], ...] = ()) -> Anatomy:
    """Return the anatomy of a model with ResNet's attribute names.

    Args:
        model: the network.
        family: what to call it in messages.
        norm_types: norms of the library that do not derive from torch's batch norm.
    """
    norms = (_BatchNorm, nn.GroupNorm, *norm_types)
    stages = []
    for path, container in model.named_children():
        if not path.startswith("layer"):
            continue
        blocks = tuple(_block(f"{path}.{name}", block, norms) for name, block in container.named_children())
        stages.append(Stage(path=path, channels=_out_channels(container), blocks=blocks))
    head = model.get_submodule("fc")
    return Anatomy(
        family=family,
        stages=tuple(stages),
        head="fc",
        num_classes=head.out_features if isinstance(head, nn.Linear) else 0,
    )


def _block(path: str, block: nn.Module, norm_types: tuple[type[nn.Module], ...]) -> Block:
    norms = tuple(
        f"{path}.{name}"
        for name, module in block.named_modules()
        if isinstance(module, norm_types) and name.partition(".")[0] != "downsample"
    )
    children = dict(block.named_children())
    return Block(path=path, norms=norms, keeps_shape="downsample" not in children)


def _out_channels(stage: nn.Module) -> int:
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1].out_channels
