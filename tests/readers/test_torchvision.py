"""torchvision's families are read: stages, what is skipped by default, and where the second norms stand."""

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
    "resnet18": ((2, 2, 2, 2), (1, 1, 1, 1)),
    "resnet34": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnet50": ((3, 4, 6, 3), (1, 2, 3, 1)),  # the paper, Table 1
    "resnet101": ((3, 4, 23, 3), (1, 2, 11, 1)),  # the released code
    "resnet152": ((3, 8, 36, 3), (1, 4, 18, 1)),
    "resnext50_32x4d": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "resnext101_64x4d": ((3, 4, 23, 3), (1, 2, 11, 1)),
    "wide_resnet50_2": ((3, 4, 6, 3), (1, 2, 3, 1)),
    "mobilenet_v2": ((2, 3, 4, 3, 3), (1, 1, 2, 1, 1)),  # the released code: five flags
    "mobilenet_v3_small": ((2, 3, 2, 3), (1, 1, 1, 1)),
    "mobilenet_v3_large": ((2, 3, 4, 2, 3), (1, 1, 2, 1, 1)),
    "efficientnet_b0": ((2, 2, 3, 3, 4), (1, 1, 1, 1, 2)),
    "efficientnet_b7": ((4, 7, 7, 10, 10, 13, 4), (2, 3, 3, 5, 5, 6, 2)),
    "efficientnet_v2_s": ((2, 4, 4, 6, 9, 15), (1, 2, 2, 3, 4, 7)),
    "regnet_y_400mf": ((1, 3, 6, 6), (0, 1, 3, 3)),
    "regnet_x_400mf": ((1, 2, 7, 12), (0, 1, 3, 6)),
    "convnext_tiny": ((3, 3, 9, 3), (1, 1, 4, 1)),
    "convnext_base": ((3, 3, 27, 3), (1, 1, 13, 1)),
    "vit_b_16": ((12,), (1, 1, 1, 1)),
    "vit_l_32": ((24,), (2, 2, 2, 2)),
    "vit_h_14": ((32,), (2, 2, 2, 2)),
    "swin_t": ((2, 2, 6, 2), (1, 1, 3, 0)),  # the paper's Table 1 skips nothing in the last stage
    "swin_b": ((2, 2, 18, 2), (1, 1, 9, 0)),
    "swin_v2_t": ((2, 2, 6, 2), (1, 1, 3, 0)),
    "maxvit_t": ((2, 2, 5, 2), (1, 1, 2, 1)),
}


def create(name: str, num_classes: int | None = None) -> Any:
    # RegNet computes its widths with tensors, which have no values on the meta device.
    with torch.device("cpu" if "regnet" in name else "meta"):
        return pliant.create_model(f"torchvision:{name}", num_classes=num_classes)


def second_norms(name: str, config: pliant.Depth | None = None) -> set[str]:
    model = pliant.adapt_(create(name), config or pliant.Depth())
    return {key.partition(".skip.")[0] for key in model.state_dict() if ".skip." in key}


@pytest.mark.parametrize("name", STAGES)
def test_stages_and_what_the_base_net_skips(name):
    lengths, skippable = STAGES[name]
    model = create(name, num_classes=12)
    anatomy = readers.read(model)
    assert tuple(len(stage.blocks) for stage in anatomy.stages) == lengths
    assert anatomy.num_classes == 12
    assert model.get_submodule(anatomy.head).out_features == 12
    assert pliant.adapt_(model, pliant.Depth()).space.skippable_blocks == skippable
    for stage in anatomy.stages:
        assert all(block.keeps_shape for block in stage.blocks[1:])
        for block in stage.blocks:
            assert block.norms
            assert all(norm.startswith(f"{block.path}.") for norm in block.norms)


def test_norms_of_resnet_stem_and_shortcuts_are_shared():
    anatomy = readers.read(create("resnet50"))
    assert anatomy.stages[0].blocks[0].norms == ("layer1.0.bn1", "layer1.0.bn2", "layer1.0.bn3")
    assert [stage.channels for stage in anatomy.stages] == [256, 512, 1024, 2048]
    norms = second_norms("resnet50")
    assert len(norms) == 27
    assert "bn1" not in norms
    assert not any("downsample" in norm for norm in norms)


def test_norms_of_mobilenet_v2_stem_follow_the_first_stage_and_those_of_its_end_the_last():
    stages = readers.read(create("mobilenet_v2")).stages
    assert stages[0].norms == ("features.0.1", "features.1.conv.0.1", "features.1.conv.2")
    assert stages[-1].norms == ("features.17.conv.0.1", "features.17.conv.1.1", "features.17.conv.3", "features.18.1")
    assert all(stage.norms == () for stage in stages[1:-1])
    model = pliant.adapt_(create("mobilenet_v2"), pliant.Depth())
    second = sum(parameter.numel() for key, parameter in model.named_parameters() if ".skip." in key)
    assert second == 22_672


def test_mobilenet_v2_has_four_flags_where_the_first_stage_skips_nothing():
    model = pliant.adapt_(create("mobilenet_v2"), pliant.Depth(mandatory=(2, 2, 2, 2, 2)))
    assert str(model.space.smallest) == "FTTTT"
    assert len(model.subnets) == 16


def test_norms_of_swin_merging_follow_the_stage_behind_it():
    stages = readers.read(create("swin_t")).stages
    assert [stage.norms for stage in stages] == [(), ("features.2.norm",), ("features.4.norm",), ("features.6.norm",)]
    released = second_norms("swin_t", pliant.Depth(mandatory=(1, 1, 3, 1)))
    blocks = {("1", 0), ("3", 0), ("5", 0), ("5", 1), ("5", 2), ("7", 0)}
    merging = {f"features.{number}.norm" for number in (2, 4, 6)}
    assert released == {f"features.{s}.{b}.{norm}" for s, b in blocks for norm in ("norm1", "norm2")} | merging
    # The paper's variant skips nothing behind the last merging.
    assert released - second_norms("swin_t") == {"features.6.norm", "features.7.0.norm1", "features.7.0.norm2"}


def test_norms_of_vit_are_those_of_mandatory_blocks_and_not_the_last_one():
    prefix = "encoder.layers.encoder_layer_"
    assert second_norms("vit_b_16") == {
        f"{prefix}{block}.{norm}" for block in (0, 1, 3, 4, 6, 7, 9, 10) for norm in ("ln_1", "ln_2")
    }


def test_a_stage_of_one_block_skips_nothing_and_the_others_do():
    with pytest.warns(
        UserWarning, match=r"stage 1 \(trunk_output.block1.block1-0\) has one block, and nothing to skip"
    ):
        model = pliant.adapt_(create("regnet_y_400mf"), pliant.Depth())
    assert str(model.space.smallest) == "FTTT"
    with pytest.raises(ValueError, match="stage 1 has nothing to skip"):
        model.space.parse("TTTT")


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("swin_t", "head"), ("mobilenet_v2", "classifier")])
def test_a_network_whose_classifier_was_taken_away_is_read(name, head):
    model = create(name)
    setattr(model, head, nn.Identity())
    anatomy = readers.read(model)
    assert (anatomy.head, anatomy.num_classes) == ("", 0)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "densenet121"])
def test_what_has_no_residual_stages_is_refused_by_name(name):
    model = create(name)
    with pytest.raises(ValueError, match=f"{type(model).__name__} has no residual stages") as error:
        pliant.adapt_(model, pliant.Depth())
    assert "\n" not in str(error.value)
