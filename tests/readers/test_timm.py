"""timm's families are read: stages, what is skipped by default, and where the second norms stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pliant
from pliant import readers

pytestmark = pytest.mark.filterwarnings("ignore:.* one block, and nothing to skip")

# Blocks of each stage, and how many of them the base-net skips. Columns count as one stage until they are grouped.
STAGES = {
    "resnet18d": ((2, 2, 2, 2), (1, 1, 1, 1)),
    "resnet26t": ((2, 2, 2, 2), (1, 1, 1, 1)),
    "resnet50": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnet101d": ((3, 4, 23, 3), (1, 2, 11, 1)),
    "resnet50_gn": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnetaa50d": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnetrs50": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnext101_64x4d": ((3, 4, 23, 3), (1, 2, 11, 1)),
    "seresnext50_32x4d": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "ecaresnet50d": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "ecaresnetlight": ((1, 1, 11, 3), (0, 0, 5, 1)),
    "skresnet18": ((2, 2, 2, 2), (1, 1, 1, 1)),
    "res2net50_26w_4s": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "wide_resnet50_2": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnetv2_50": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnetv2_101x1_bit": ((3, 4, 23, 3), (1, 2, 11, 1)),
    "regnety_004": ((1, 3, 6, 6), (0, 1, 3, 3)),
    "regnetz_005": ((1, 4, 9, 7), (0, 2, 4, 3)),
    "mobilenetv2_100": ((2, 3, 4, 3, 3), (1, 1, 2, 1, 1)),
    "mobilenetv3_large_100": ((2, 3, 4, 2, 3), (1, 1, 2, 1, 1)),
    "mobilenetv4_conv_small": ((6, 6), (3, 3)),
    "efficientnet_b0": ((2, 2, 3, 3, 4), (1, 1, 1, 1, 2)),
    "tf_efficientnetv2_m": ((3, 5, 5, 7, 14, 18, 5), (1, 2, 2, 3, 7, 9, 2)),
    "mnasnet_100": ((3, 3, 3, 2, 4), (1, 1, 1, 1, 2)),
    "fbnetv3_b": ((2, 4, 5, 5, 6, 6), (1, 2, 2, 2, 3, 3)),
    "convnext_tiny": ((3, 3, 9, 3), (1, 1, 4, 1)),
    "convnextv2_base": ((3, 3, 27, 3), (1, 1, 13, 1)),
    "vit_base_patch16_224": ((12,), (1, 1, 1, 1)),
    "vit_base_patch14_reg4_dinov2": ((12,), (1, 1, 1, 1)),
    "vit_7b_patch16_dinov3": ((40,), (3, 3, 3, 3)),
    "vit_base_patch16_siglip_224": ((12,), (1, 1, 1, 1)),
    "deit3_small_patch16_224": ((12,), (1, 1, 1, 1)),
    "deit_tiny_distilled_patch16_224": ((12,), (1, 1, 1, 1)),
    "beitv2_base_patch16_224": ((12,), (1, 1, 1, 1)),
    "eva02_base_patch14_224": ((12,), (1, 1, 1, 1)),
    "eva_giant_patch14_224": ((40,), (3, 3, 3, 3)),
    "mixer_b16_224": ((12,), (1, 1, 1, 1)),
    "gmixer_24_224": ((24,), (2, 2, 2, 2)),
    "swin_tiny_patch4_window7_224": ((2, 2, 6, 2), (1, 1, 3, 0)),
    "swinv2_tiny_window8_256": ((2, 2, 6, 2), (1, 1, 3, 0)),
    "caformer_s18": ((3, 3, 9, 3), (1, 1, 4, 1)),
    "poolformer_s12": ((2, 2, 6, 2), (1, 1, 3, 1)),
    "maxvit_tiny_tf_224": ((2, 2, 5, 2), (1, 1, 2, 1)),
    "coatnet_0_rw_224": ((2, 3, 7, 2), (1, 1, 3, 1)),
}


def create(name: str, **options: Any) -> Any:
    with torch.device("meta"):
        return pliant.create_model(f"timm:{name}", **options)


def norms_of_stages(name: str) -> list[tuple[str, ...]]:
    return [stage.norms for stage in readers.read(create(name)).stages]


@pytest.mark.parametrize("name", STAGES)
def test_stages_and_what_the_base_net_skips(name):
    lengths, skippable = STAGES[name]
    model = create(name, num_classes=12)
    anatomy = readers.read(model)
    assert tuple(len(stage.blocks) for stage in anatomy.stages) == lengths
    assert anatomy.num_classes == 12
    assert isinstance(model.get_submodule(anatomy.head), nn.Module)
    assert pliant.adapt_(model, pliant.Depth()).space.skippable_blocks == skippable
    for stage in anatomy.stages:
        assert all(block.keeps_shape for block in stage.blocks[1:])
        for block in stage.blocks:
            assert block.norms
            assert all(norm.startswith(f"{block.path}.") and "downsample" not in norm for norm in block.norms)


def test_norms_of_mobilenet_v2_stem_follow_the_first_stage_and_those_of_its_end_the_last():
    first, *middle, last = norms_of_stages("mobilenetv2_100")
    assert first == ("bn1", "blocks.0.0.bn1", "blocks.0.0.bn2")
    assert last == ("blocks.6.0.bn1", "blocks.6.0.bn2", "blocks.6.0.bn3", "bn2")
    assert not any(middle)


@pytest.mark.parametrize(
    ("name", "path", "norm"),
    [
        ("swin_tiny_patch4_window7_224", "layers", "norm"),
        ("swinv2_tiny_window8_256", "layers", "norm"),
        ("convnext_tiny", "stages", "0"),
        ("caformer_s18", "stages", "norm"),
    ],
)
def test_norms_of_downsampling_follow_the_stage_behind_it(name, path, norm):
    assert norms_of_stages(name) == [(), *((f"{path}.{number}.downsample.{norm}",) for number in (1, 2, 3))]


def test_the_last_norm_of_a_column_is_shared():
    model = pliant.adapt_(create("vit_tiny_patch16_224"), pliant.Depth())
    second = {key.partition(".skip.")[0] for key in model.state_dict() if ".skip." in key}
    mandatory = (0, 1, 3, 4, 6, 7, 9, 10)
    assert second == {f"blocks.{block}.{norm}" for block in mandatory for norm in ("norm1", "norm2")}


def test_layers_without_a_shortcut_between_the_blocks_of_a_stage_divide_it():
    paths = [[block.path for block in stage.blocks] for stage in readers.read(create("fbnetv3_b")).stages]
    assert paths[-1] == [f"blocks.5.{number}" for number in range(6)]
    assert "blocks.5.6.bn1" in norms_of_stages("fbnetv3_b")[-1]  # it has more channels, and ends the network


def test_a_network_made_with_other_norms_is_read():
    model = pliant.create_model("timm:resnet18", norm_layer="groupnorm1")
    pliant.adapt_(model, pliant.Depth())
    assert sum(".skip." in key for key in model.state_dict()) == 16


def test_a_network_without_a_classifier_is_read():
    assert readers.read(create("resnet18", num_classes=0)).num_classes == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg11", "VGG has no residual stages"),
        ("densenet121", "DenseNet has no residual stages"),
        ("resnet10t", r"no skippable stage: its stages have \[1, 1, 1, 1\] blocks"),
        ("lcnet_050", "no skippable stage"),  # no block of it has a shortcut
    ],
)
def test_what_cannot_be_adapted_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message) as error:
        pliant.adapt_(create(name), pliant.Depth())
    assert "\n" not in str(error.value)
