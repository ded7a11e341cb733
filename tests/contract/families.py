"""The networks and the axes of the contracts: one line here, and a family or an axis has all the tests.

The names of families are those that people load. Options make them small; inputs are about the smallest that they
take. The script that writes docs/support.md reads this table too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import pliant
from pliant.core.config import Config
from pliant.create import ModelSource

__all__ = ["AXES", "FAMILIES", "REPRESENTATIVES", "Family", "refusal"]

NUM_CLASSES = 10
VOCABULARY = 100

Lengths = Sequence[int]


@dataclass(frozen=True)
class Family:
    """One network and how it is tested.

    Attributes:
        name: as `pliant.create_model` takes it.
        options: arguments that make the network small, or give it what a contract needs.
        image_size: in pixels; none = the network reads tokens.
        fewer: how its library is told to make one with fewer blocks: the name of an option (a list with a number
            a stage; one number where the network is a column), or a function of these numbers. None = it cannot.
        classifies: if not, it is a language model.
        slow: the contracts take more than a few seconds.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = 32
    fewer: str | Callable[[Lengths], nn.Module] | None = None
    classifies: bool = True
    slow: bool = False

    def source(self, **more: Any) -> ModelSource:
        classes = NUM_CLASSES if self.classifies else None
        return ModelSource(name=self.name, num_classes=classes, options=self.options | more)

    def inputs(self, batch: int = 2) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """What the network's forward takes: positional and named arguments."""
        generator = torch.Generator().manual_seed(0)
        if self.image_size is not None:
            return (torch.rand((batch, 3, self.image_size, self.image_size), generator=generator),), {}
        tokens = torch.randint(3, VOCABULARY, (batch, 6), generator=generator)
        return (tokens,), {"attention_mask": torch.ones_like(tokens)}

    def by_hand(self, lengths: Lengths, *, columnar: bool) -> nn.Module | None:
        """Let the library itself make the network with so many blocks a stage; none where it cannot."""
        if isinstance(self.fewer, str):
            return self.source(**{self.fewer: sum(lengths) if columnar else list(lengths)}).create()
        return self.fewer(lengths) if self.fewer else None


def _ds_vit(lengths: Lengths) -> nn.Module:
    from pliant.models import MODELS

    return MODELS["ds_vit_cifar10"](num_blocks=sum(lengths), num_early=lengths[0])


def _resnet(block: str = "Bottleneck", **options: Any) -> Callable[[Lengths], nn.Module]:
    def build(lengths: Lengths) -> nn.Module:
        from torchvision.models import resnet

        return resnet.ResNet(getattr(resnet, block), list(lengths), num_classes=NUM_CLASSES, **options)

    return build


def _mobilenet_v2(lengths: Lengths) -> nn.Module:
    from torchvision.models import MobileNetV2

    middle = zip((24, 32, 64, 96, 160), lengths, (2, 2, 2, 1, 2), strict=True)
    setting = [[1, 16, 1, 1], *([6, width, length, stride] for width, length, stride in middle), [6, 320, 1, 1]]
    return MobileNetV2(num_classes=NUM_CLASSES, inverted_residual_setting=setting)


def _mobilenet_v3_small(lengths: Lengths) -> nn.Module:
    from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf

    (first, *blocks), last_channel = _mobilenet_v3_conf("mobilenet_v3_small")
    kept, start = [first], 0
    for whole, length in zip((2, 3, 2, 3), lengths, strict=True):
        kept += blocks[start : start + length]
        start += whole
    return MobileNetV3(kept, last_channel, NUM_CLASSES)


def _efficientnet_b0(lengths: Lengths) -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, _efficientnet_conf

    setting, last_channel = _efficientnet_conf("efficientnet_b0", width_mult=1.0, depth_mult=1.0)
    for stage, length in zip(setting, (1, *lengths, 1), strict=True):
        stage.num_layers = length
    return EfficientNet(setting, dropout=0.2, num_classes=NUM_CLASSES, last_channel=last_channel)


def _regnet_y_400mf(lengths: Lengths) -> nn.Module:
    from torchvision.models.regnet import BlockParams, RegNet

    params = BlockParams.from_init_params(16, w_0=48, w_a=27.89, w_m=2.09, group_width=8, se_ratio=0.25)
    params.depths = list(lengths)
    return RegNet(params, NUM_CLASSES)


def _convnext(lengths: Lengths) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths = zip((96, 192, 384, 768), (192, 384, 768, None), lengths, strict=True)
    return ConvNeXt([CNBlockConfig(*width_next_length) for width_next_length in widths], num_classes=NUM_CLASSES)


def _vit(lengths: Lengths) -> nn.Module:
    from torchvision.models import VisionTransformer

    sizes: dict[str, Any] = dict(patch_size=16, num_heads=12, hidden_dim=768, mlp_dim=3072)
    return VisionTransformer(image_size=32, num_layers=sum(lengths), num_classes=NUM_CLASSES, **sizes)


def _swin(version: str, window: int) -> Callable[[Lengths], nn.Module]:
    def build(lengths: Lengths) -> nn.Module:
        from torchvision.models import swin_transformer as swin

        return swin.SwinTransformer(
            [4, 4],
            96,
            list(lengths),
            [3, 6, 12, 24],
            [window, window],
            num_classes=NUM_CLASSES,
            block=getattr(swin, f"SwinTransformerBlock{version}"),
            downsample_layer=getattr(swin, f"PatchMerging{version}"),
        )

    return build


def _mixer(lengths: Lengths) -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(NUM_CLASSES, img_size=64, patch_size=32, num_blocks=sum(lengths), embed_dim=512)


def _metaformer(*norms: str, **options: Any) -> Callable[[Lengths], nn.Module]:
    """Make a MetaFormer; `norms` and texts among the options name classes of timm's module."""

    def build(lengths: Lengths) -> nn.Module:
        from timm.models import metaformer

        classes = {key: [getattr(metaformer, name) for name in value] for key, value in mixers.items()}
        layers = [getattr(metaformer, name) for name in norms]
        return metaformer.MetaFormer(
            depths=lengths,  # type: ignore[arg-type]
            dims=(64, 128, 320, 512),
            norm_layers=layers,
            num_classes=NUM_CLASSES,
            **classes,
            **plain,
        )

    mixers = {key: value for key, value in options.items() if key == "token_mixers"}
    plain = {key: value for key, value in options.items() if key != "token_mixers"}
    return build


_POOLFORMER = _metaformer(
    *["GroupNorm1"] * 4,
    downsample_norm=None,
    mlp_act=nn.GELU,
    mlp_bias=True,
    layer_scale_init_values=1e-5,
    res_scale_init_values=None,
    use_mlp_head=False,
)
_CAFORMER = _metaformer(
    *["LayerNorm2dNoBias"] * 2,
    *["LayerNormNoBias"] * 2,
    token_mixers=["SepConv", "SepConv", "Attention", "Attention"],
)

# Small members of the families of transformers, whose names are model types.
_COLUMN = dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=6)
_DINO = _COLUMN | dict(image_size=32, patch_size=8)
_VISION = _DINO | dict(intermediate_size=64)
_SWIN = dict(embed_dim=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 2, 2], image_size=64, patch_size=2, window_size=4)
_CNN = dict(depths=[2, 2, 3, 2], hidden_sizes=[8, 16, 32, 64])
_BOTTLENECKS = dict(depths=[2, 2, 3, 2], hidden_sizes=[16, 32, 64, 128], embedding_size=8)
_CAUSAL = _COLUMN | dict(intermediate_size=64, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=0)
_TEXT = _CAUSAL | dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
_GROUPED = _CAUSAL | dict(num_key_value_heads=1)
_GPT2 = dict(n_embd=32, n_head=2, n_layer=6, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, attn_pdrop=0.0)
_NARROW = dict(embed_dim=96, num_heads=3)

FAMILIES = [
    Family("pliant:resnet20"),
    Family("pliant:ds_vit_cifar10", {"num_blocks": 6}, fewer=_ds_vit),
    # torchvision
    Family("torchvision:resnet18", fewer=_resnet("BasicBlock")),
    Family("torchvision:resnet50", fewer=_resnet(), slow=True),
    Family("torchvision:resnext50_32x4d", fewer=_resnet(groups=32, width_per_group=4)),
    Family("torchvision:wide_resnet50_2", fewer=_resnet(width_per_group=128), slow=True),
    Family("torchvision:mobilenet_v2", fewer=_mobilenet_v2),
    Family("torchvision:mobilenet_v3_small", fewer=_mobilenet_v3_small),
    Family("torchvision:mobilenet_v3_large", slow=True),
    Family("torchvision:efficientnet_b0", fewer=_efficientnet_b0),
    Family("torchvision:efficientnet_v2_s", slow=True),
    Family("torchvision:regnet_x_400mf", slow=True),
    Family("torchvision:regnet_y_400mf", fewer=_regnet_y_400mf),
    Family("torchvision:convnext_tiny", fewer=_convnext),
    Family("torchvision:vit_b_16", {"image_size": 32}, fewer=_vit, slow=True),
    Family("torchvision:swin_t", fewer=_swin("", 7)),
    Family("torchvision:swin_v2_t", fewer=_swin("V2", 8)),
    Family("torchvision:maxvit_t", image_size=224, slow=True),
    # timm
    Family("timm:resnet26d", fewer="layers"),
    Family("timm:resnet50d", fewer="layers", slow=True),
    Family("timm:resnetrs50", fewer="layers", slow=True),
    Family("timm:resnext50_32x4d", fewer="layers", slow=True),
    Family("timm:seresnet50", fewer="layers", slow=True),
    Family("timm:ecaresnet26t", fewer="layers"),
    Family("timm:resnetv2_50", fewer="layers"),
    Family("timm:mobilenetv2_050"),
    Family("timm:mobilenetv3_small_050"),
    Family("timm:efficientnet_b0", slow=True),
    Family("timm:tf_efficientnetv2_b0"),
    Family("timm:regnetx_002"),
    Family("timm:regnety_002", slow=True),
    Family("timm:convnext_atto", {"drop_path_rate": 0.1}, fewer="depths"),
    Family("timm:convnextv2_atto", fewer="depths"),
    Family("timm:vit_tiny_patch16_224", {"img_size": 32, "drop_path_rate": 0.1}, fewer="depth"),
    Family("timm:deit_tiny_distilled_patch16_224", {"img_size": 32}, fewer="depth"),
    Family("timm:vit_small_patch14_reg4_dinov2", {"img_size": 28, **_NARROW}, 28, fewer="depth"),
    Family("timm:vit_small_patch16_dinov3", {"img_size": 32, **_NARROW}, fewer="depth"),
    Family("timm:eva02_tiny_patch14_224", {"img_size": 28}, 28, fewer="depth"),
    Family("timm:beit_base_patch16_224", {"img_size": 32, **_NARROW}, fewer="depth"),
    Family("timm:mixer_s32_224", {"img_size": 64}, 64, fewer=_mixer),
    Family("timm:swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 24}, 56, fewer="depths"),
    Family("timm:swinv2_tiny_window8_256", {"img_size": 64, "window_size": 4, "embed_dim": 24}, 64, fewer="depths"),
    Family("timm:poolformer_s12", fewer=_POOLFORMER),
    Family("timm:caformer_s18", fewer=_CAFORMER, slow=True),
    Family("timm:maxvit_rmlp_pico_rw_256", {"img_size": 64}, 64),
    Family("timm:maxvit_tiny_tf_224", {"img_size": 64}, 64, slow=True),
    # transformers
    Family("transformers:vit", _VISION, fewer="num_hidden_layers"),
    Family("transformers:deit", _VISION, fewer="num_hidden_layers"),
    Family("transformers:dinov2", _DINO, fewer="num_hidden_layers"),
    Family("transformers:dinov2_with_registers", _DINO, fewer="num_hidden_layers"),
    Family("transformers:swin", _SWIN, 64, fewer="depths"),
    Family("transformers:swinv2", _SWIN, 64, fewer="depths"),
    Family("transformers:convnext", _CNN, 64, fewer="depths"),
    Family("transformers:convnextv2", _CNN, 64, fewer="depths"),
    Family("transformers:resnet", _BOTTLENECKS, fewer="depths"),
    Family("transformers:bert", _TEXT, None, fewer="num_hidden_layers"),
    Family("transformers:roberta", _TEXT, None, fewer="num_hidden_layers"),
    Family("transformers:gpt2", _GPT2, None, fewer="n_layer", classifies=False),
    Family("transformers:llama", _GROUPED, None, fewer="num_hidden_layers", classifies=False),
    Family("transformers:mistral", _GROUPED, None, fewer="num_hidden_layers", classifies=False),
    Family("transformers:qwen2", _GROUPED, None, fewer="num_hidden_layers", classifies=False),
    Family("transformers:qwen3", _GROUPED, None, fewer="num_hidden_layers", classifies=False),
]

AXES: dict[str, tuple[Config, ...]] = {
    "depth": (pliant.Depth(),),
    "exits": (pliant.Exits(),),
    "width": (pliant.Width(),),
    "depth+exits": (pliant.Depth(), pliant.Exits()),
    "depth+width": (pliant.Depth(), pliant.Width()),
    "exits+width": (pliant.Exits(), pliant.Width()),
}
"""The config of each axis, and those of pairs of axes."""

REPRESENTATIVES = ("torchvision:resnet18", "timm:vit_tiny_patch16_224", "transformers:swin")
"""A CNN, a transformer and a Swin: the families that every pair of axes is tested with in the default run."""

_REFUSED = {
    "exits+width": {family.name: r"pliant\.Width and pliant\.Exits" for family in FAMILIES},
    "exits": {family.name: "answers for every token" for family in FAMILIES if not family.classifies},
    "width": {
        "pliant:resnet20": r"'layer1\.2\.conv2' and 'layer2\.2\.conv2' cannot be cut together: constant_pad_nd",
        "timm:poolformer_s12": r"with fewer channels '.*layer_scale1' fails",
        "timm:caformer_s18": r"with fewer channels '.*res_scale1' fails",
        "timm:maxvit_rmlp_pico_rw_256": r"with fewer channels '.*attn_block\.attn' fails",
        "transformers:swinv2": r"with fewer channels '.*attention\.self' fails",
        "transformers:gpt2": r"with fewer channels '.*attn\.c_attn' fails",
    },
}


def refusal(axes: str, family: Family) -> str | None:
    """Return what the message names (a regular expression) where a family has no such axes; none = it has them."""
    found = [_REFUSED.get(part, {}).get(family.name) for part in (axes, *axes.split("+"))]
    return next((message for message in found if message), None)
