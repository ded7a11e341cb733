"""Reads torchvision's classification networks: one function a family, and a table of them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models.convnext import ConvNeXt
from torchvision.models.efficientnet import EfficientNet
from torchvision.models.maxvit import MaxVit
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.mobilenetv3 import MobileNetV3
from torchvision.models.regnet import RegNet
from torchvision.models.resnet import ResNet
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from pliant.core.anatomy import Anatomy, Stage
from pliant.readers.parts import (
    child_paths,
    find_norms,
    first_changes_shape,
    fold_single_ends,
    read_blocks,
    read_stage,
    split_flat,
)

__all__ = ["FAMILIES", "read"]

HEADS = ("fc", "classifier", "heads", "head")


def read(model: nn.Module) -> Anatomy | None:
    """Return the anatomy of a network of `FAMILIES`; none for anything else."""
    for kind, stages_of in FAMILIES.items():
        if isinstance(model, kind):
            head, num_classes = _head(model)
            return Anatomy(
                family=f"torchvision {kind.__name__}",
                stages=stages_of(model),
                head=head,
                num_classes=num_classes,
                columnar=kind is VisionTransformer,
            )
    return None


def _head(model: nn.Module) -> tuple[str, int]:
    """Path and outputs of the classifier; people who want features put an identity in its place."""
    linear = [
        (path, module.out_features)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.partition(".")[0] in HEADS
    ]
    return linear[-1] if linear else ("", 0)


def _resnet(model: nn.Module) -> tuple[Stage, ...]:
    def keeps_shape(block: nn.Module) -> bool:
        return block.downsample is None

    paths = [f"layer{number}" for number in range(1, 5)]
    return tuple(read_stage(model, path, read_blocks(model, path, keeps_shape, ("downsample",))) for path in paths)


def _regnet(model: nn.Module) -> tuple[Stage, ...]:
    def keeps_shape(block: nn.Module) -> bool:
        return block.proj is None

    paths = child_paths(model, "trunk_output")
    return tuple(read_stage(model, path, read_blocks(model, path, keeps_shape, ("proj",))) for path in paths)


def _has_shortcut(block: nn.Module) -> bool:
    return bool(block.use_res_connect)


def _mobilenet(model: nn.Module) -> tuple[Stage, ...]:
    """`features`: stem, blocks of all stages in one list, final convolution."""
    stem, *blocks, end = read_blocks(model, "features", lambda block: getattr(block, "use_res_connect", False))
    return fold_single_ends(split_flat(model, "features", blocks), stem.norms, end.norms)


def _efficientnet(model: nn.Module) -> tuple[Stage, ...]:
    """`features`: stem, one sequence a stage, final convolution."""
    stem, *stages, end = child_paths(model, "features")
    read = [read_stage(model, path, read_blocks(model, path, _has_shortcut)) for path in stages]
    return fold_single_ends(read, find_norms(model, stem), find_norms(model, end))


def _alternating(channel_dim: int) -> Callable[[nn.Module], tuple[Stage, ...]]:
    """`features`: stem, then stages with a downsampling layer between them, whose norm follows the next stage."""

    def stages(model: nn.Module) -> tuple[Stage, ...]:
        _, *paths = child_paths(model, "features")
        return tuple(
            read_stage(
                model,
                path,
                read_blocks(model, path),
                norms=find_norms(model, paths[2 * number - 1]) if number else (),
                channel_dim=channel_dim,
            )
            for number, path in enumerate(paths[::2])
        )

    return stages


def _maxvit(model: nn.Module) -> tuple[Stage, ...]:
    paths = [f"{path}.layers" for path in child_paths(model, "blocks")]
    return tuple(read_stage(model, path, first_changes_shape(read_blocks(model, path))) for path in paths)


def _vit(model: nn.Module) -> tuple[Stage, ...]:
    return (read_stage(model, "encoder.layers", read_blocks(model, "encoder.layers"), channel_dim=-1),)


FAMILIES: dict[type[nn.Module], Callable[[nn.Module], tuple[Stage, ...]]] = {
    ResNet: _resnet,
    MobileNetV2: _mobilenet,
    MobileNetV3: _mobilenet,
    EfficientNet: _efficientnet,
    RegNet: _regnet,
    ConvNeXt: _alternating(channel_dim=1),
    VisionTransformer: _vit,
    SwinTransformer: _alternating(channel_dim=-1),
    MaxVit: _maxvit,
}
