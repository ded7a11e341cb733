"""Every residual CNN of the two libraries is read; the paper's numbers of blocks come out."""

import pytest
import torch

import pliant
from pliant import readers

TORCHVISION = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnext50_32x4d": (3, 4, 6, 3),
    "resnext101_32x8d": (3, 4, 23, 3),
    "resnext101_64x4d": (3, 4, 23, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
    "wide_resnet101_2": (3, 4, 23, 3),
}
TIMM = {
    "resnet18d": (2, 2, 2, 2),
    "resnet26t": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet50s": (3, 4, 6, 3),
    "resnet101d": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnetaa50d": (3, 4, 6, 3),
    "resnetblur50": (3, 4, 6, 3),
    "resnetrs50": (3, 4, 6, 3),
    "resnext50_32x4d": (3, 4, 6, 3),
    "resnext101_64x4d": (3, 4, 23, 3),
    "seresnet50": (3, 4, 6, 3),
    "seresnext50_32x4d": (3, 4, 6, 3),
    "seresnextaa101d_32x8d": (3, 4, 23, 3),
    "ecaresnet50d": (3, 4, 6, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
}
NAMES = {f"torchvision:{name}": blocks for name, blocks in TORCHVISION.items()} | {
    f"timm:{name}": blocks for name, blocks in TIMM.items()
}


@pytest.mark.parametrize("name", NAMES)
def test_stages_blocks_and_norms_are_found(name):
    with torch.device("meta"):
        model = pliant.create_model(name, num_classes=12)
        anatomy = readers.read(model)
        adapted = pliant.adapt_(model, pliant.Depth())
    assert tuple(len(stage.blocks) for stage in anatomy.stages) == NAMES[name]
    assert [stage.path for stage in anatomy.stages] == ["layer1", "layer2", "layer3", "layer4"]
    assert anatomy.num_classes == 12
    assert len(adapted.subnets) == 16
    for stage in anatomy.stages:
        assert [block.keeps_shape for block in stage.blocks[1:]] == [True] * (len(stage.blocks) - 1)
        for block in stage.blocks:
            assert block.norms
            assert all(norm.startswith(f"{block.path}.") and "downsample" not in norm for norm in block.norms)


def test_the_norms_inside_a_block_are_those_of_its_own_branch():
    with torch.device("meta"):
        anatomy = readers.read(pliant.create_model("torchvision:resnet50"))
    assert anatomy.stages[0].blocks[0].norms == ("layer1.0.bn1", "layer1.0.bn2", "layer1.0.bn3")
    assert [stage.channels for stage in anatomy.stages] == [256, 512, 1024, 2048]


def test_a_network_made_with_other_norms_is_read():
    model = pliant.create_model("timm:resnet18", norm_layer="groupnorm1")
    pliant.adapt_(model, pliant.Depth())
    assert sum(".skip." in key for key in model.state_dict()) == 16
