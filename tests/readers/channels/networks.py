"""Networks of three libraries that are small enough to be cut in many ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torchvision.models as tv
from timm.models.maxxvit import MaxxVit, MaxxVitCfg, MaxxVitTransformerCfg
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)
from torchvision.models.vision_transformer import VisionTransformer

from pliant.models.resnet import CifarResNet


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        make: makes it.
        size: of the images.
        whole: parts of the paths of layers of which a dimension stays: tokens, or what leads to scales of heads.
        shared: stages that share channels with an earlier one.
    """

    make: Callable[[], nn.Module]
    size: int = 32
    whole: tuple[str, ...] = ()
    shared: tuple[int, ...] = ()


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


def _transformers(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name}Config")(num_labels=5, **options)
        return getattr(transformers, f"{name}ForImageClassification")(config)

    return make


def _maxvit() -> nn.Module:
    attention = MaxxVitTransformerCfg(dim_head=8, window_size=(4, 4), rel_pos_type="bias_tf")
    config = MaxxVitCfg((16, 32), (2, 1), ("M", "M"), stem_width=8, transformer_cfg=attention)
    return MaxxVit(config, img_size=32, num_classes=5)


VIT: dict[str, Any] = dict(
    hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=3, image_size=32, patch_size=8
)
SWIN: dict[str, Any] = dict(patch_size=[4, 4], embed_dim=16, depths=[2, 2], num_heads=[2, 4], num_classes=5)
TIMM_SWIN: dict[str, Any] = dict(depths=(2, 2), num_heads=(2, 4), embed_dim=16, window_size=4, img_size=64)

CASES = {
    "torchvision resnet18": Case(lambda: ResNet(BasicBlock, [2, 2, 1, 1], num_classes=5)),
    "torchvision resnet50": Case(lambda: ResNet(Bottleneck, [2, 1, 1, 2], num_classes=5)),
    "torchvision resnext": Case(lambda: ResNet(Bottleneck, [2, 1, 1, 1], num_classes=5, groups=32, width_per_group=4)),
    "torchvision wide resnet": Case(lambda: ResNet(Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=96)),
    "torchvision mobilenetv2": Case(lambda: tv.mobilenet_v2(num_classes=5, width_mult=0.5)),
    "torchvision mobilenetv3": Case(lambda: tv.mobilenet_v3_small(num_classes=5)),
    "torchvision efficientnet": Case(lambda: tv.efficientnet_b0(num_classes=5)),
    "torchvision regnet": Case(lambda: tv.regnet_y_400mf(num_classes=5)),
    "torchvision convnext": Case(
        lambda: ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=5)
    ),
    "torchvision vit": Case(lambda: VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=5)),
    "torchvision swin": Case(lambda: SwinTransformer(**SWIN, window_size=[4, 4], block=SwinTransformerBlock), 48),
    "torchvision swin v2": Case(
        lambda: SwinTransformer(
            **SWIN, window_size=[4, 4], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
        ),
        48,
        whole=("cpb_mlp",),
    ),
    "torchvision maxvit": Case(
        lambda: tv.MaxVit((32, 32), 8, 4, [16, 32], [2, 1], 8, 0.0, num_classes=5), whole=("stem.0",)
    ),
    "timm resnet with a deep stem": Case(_timm("resnet18d")),
    "timm resnet with squeeze and excitation": Case(_timm("resnetrs50", layers=[1, 1, 1, 1])),
    "timm resnet with channel attention": Case(_timm("ecaresnet26t", layers=[1, 1, 1, 1]), whole=(".se.conv",)),
    "timm resnet with group norms": Case(_timm("resnet50_gn", layers=[1, 1, 1, 1])),
    "timm mobilenetv2": Case(_timm("mobilenetv2_035")),
    # Two of its stages have 24 channels each and a shortcut between them.
    "timm mobilenetv3": Case(_timm("mobilenetv3_small_050"), shared=(2,)),
    "timm efficientnet": Case(_timm("efficientnet_b0")),
    "timm vit": Case(_timm("vit_tiny_patch16_224", depth=3, img_size=32)),
    "timm deit": Case(_timm("deit_tiny_distilled_patch16_224", depth=3, img_size=32)),
    "timm beit": Case(_timm("beit_base_patch16_224", depth=2, img_size=32, embed_dim=32, num_heads=4)),
    "timm eva": Case(_timm("eva02_tiny_patch14_224", depth=2, img_size=28), 28),
    "timm maxvit": Case(_maxvit, whole=(".attn.",)),  # tables of positions are multiplied by heads, which stay
    "timm mixer": Case(lambda: MlpMixer(5, 64, patch_size=16, num_blocks=3, embed_dim=32), 64, whole=("mlp_tokens",)),
    "timm swin": Case(
        _timm(
            "swin_tiny_patch4_window7_224", depths=(2, 2), num_heads=(2, 4), embed_dim=16, window_size=4, img_size=64
        ),
        64,
    ),
    "timm swin v2": Case(
        _timm("swinv2_tiny_window8_256", **TIMM_SWIN),
        64,
        whole=("cpb_mlp",),
    ),
    "transformers vit": Case(_transformers("ViT", **VIT)),
    "transformers swin": Case(
        _transformers("Swin", image_size=32, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
    ),
    "transformers deit": Case(_transformers("DeiT", **VIT)),
    "transformers resnet": Case(_transformers("ResNet", embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2])),
    "pliant resnet14": Case(lambda: CifarResNet(14, num_classes=5, shortcut="projection")),
}
