"""Reads timm's classification networks: one function a family, and a table of them."""

from __future__ import annotations

from collections.abc import Callable

from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.eva import Eva
from timm.models.maxxvit import MaxxVit
from timm.models.metaformer import MetaFormer
from timm.models.mlp_mixer import MlpMixer
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pliant.core.anatomy import Anatomy, Stage
from pliant.readers.parts import (
    child_paths,
    find_norms,
    first_changes_shape,
    fold_single_ends,
    path_of,
    read_blocks,
    read_stage,
    split_flat,
)

__all__ = ["FAMILIES", "read"]


def read(model: nn.Module) -> Anatomy | None:
    """Return the anatomy of a network of `FAMILIES`; none for anything else."""
    for kind, stages_of in FAMILIES.items():
        if isinstance(model, kind):
            head = model.get_classifier()  # type: ignore[operator]
            return Anatomy(
                family=f"timm {kind.__name__}",
                stages=stages_of(model),
                head=path_of(model, head[0] if isinstance(head, tuple) else head),
                num_classes=model.num_classes,  # type: ignore[arg-type]
                columnar=stages_of is _column,
                answers_by=_answers_by(model, stages_of is _column),
            )
    return None


def _answers_by(model: nn.Module, columnar: bool) -> str:
    """For what the head answers: for each position, where nothing pools them."""
    pools = [module.pool_type for module in model.modules() if isinstance(module, SelectAdaptivePool2d)]
    if vars(model).get("global_pool") != "" and "" not in pools:
        return "input"
    return "token" if columnar else "position"


def _has_no_downsample(block: nn.Module) -> bool:
    return block.downsample is None or isinstance(block.downsample, nn.Identity)


def _resnet(model: nn.Module) -> tuple[Stage, ...]:
    paths = [f"layer{number}" for number in range(1, 5)]
    return tuple(_cnn_stage(model, path) for path in paths)


def _regnet(model: nn.Module) -> tuple[Stage, ...]:
    return tuple(_cnn_stage(model, path) for path in ("s1", "s2", "s3", "s4"))


def _resnetv2(model: nn.Module) -> tuple[Stage, ...]:
    return tuple(_cnn_stage(model, f"{path}.blocks") for path in child_paths(model, "stages"))


def _cnn_stage(model: nn.Module, path: str) -> Stage:
    return read_stage(model, path, read_blocks(model, path, _has_no_downsample, ("downsample",)))


def _efficientnet(model: nn.Module) -> tuple[Stage, ...]:
    def has_skip(block: nn.Module) -> bool:
        return bool(getattr(block, "has_skip", False))

    # Some have layers without a shortcut among the blocks of a stage: behind one, a new stage begins.
    paths = child_paths(model, "blocks")
    stages = [stage for path in paths for stage in split_flat(model, path, read_blocks(model, path, has_skip))]
    end = tuple(norm for path in ("norm_head", "bn2") if hasattr(model, path) for norm in find_norms(model, path))
    return fold_single_ends(stages, find_norms(model, "bn1"), end)


def _downsampled(container: str, channel_dim: Callable[[nn.Module], int]) -> Callable[[nn.Module], tuple[Stage, ...]]:
    """Stages that begin with a downsampling layer, whose norm follows the stage."""

    def stages(model: nn.Module) -> tuple[Stage, ...]:
        return tuple(
            read_stage(
                model,
                f"{path}.blocks",
                read_blocks(model, f"{path}.blocks"),
                norms=find_norms(model, f"{path}.downsample"),
                channel_dim=channel_dim(model.get_submodule(path)),
            )
            for path in child_paths(model, container)
        )

    return stages


def _maxxvit(model: nn.Module) -> tuple[Stage, ...]:
    paths = [f"{path}.blocks" for path in child_paths(model, "stages")]
    return tuple(read_stage(model, path, first_changes_shape(read_blocks(model, path))) for path in paths)


def _column(model: nn.Module) -> tuple[Stage, ...]:
    return (read_stage(model, "blocks", read_blocks(model, "blocks"), channel_dim=-1),)


FAMILIES: dict[type[nn.Module], Callable[[nn.Module], tuple[Stage, ...]]] = {
    ResNet: _resnet,
    ResNetV2: _resnetv2,
    RegNet: _regnet,
    EfficientNet: _efficientnet,  # MobileNetV2 is one of them
    MobileNetV3: _efficientnet,
    ConvNeXt: _downsampled("stages", lambda stage: 1),
    MetaFormer: _downsampled("stages", lambda stage: 1 if stage.use_nchw else -1),
    SwinTransformer: _downsampled("layers", lambda stage: -1),
    SwinTransformerV2: _downsampled("layers", lambda stage: -1),
    MaxxVit: _maxxvit,
    VisionTransformer: _column,
    Beit: _column,
    Eva: _column,
    MlpMixer: _column,
}
