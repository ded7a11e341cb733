"""The CIFAR ResNets: shortcuts without and with parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pliant
from pliant.models.resnet import CifarResNet


def test_padding_is_the_default_and_has_no_parameters() -> None:
    torch.manual_seed(0)
    default = CifarResNet(14)
    torch.manual_seed(0)
    named = CifarResNet(14, shortcut="padding")
    assert not [key for key in default.state_dict() if "shortcut" in key]
    assert default.state_dict().keys() == named.state_dict().keys()
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(default.eval()(image), named.eval()(image))


def test_a_projection_is_a_convolution_and_a_norm_where_the_shape_changes() -> None:
    model = CifarResNet(14, shortcut="projection").eval()
    assert {key.partition(".shortcut")[0] for key in model.state_dict() if "shortcut" in key} == {
        "layer2.0",
        "layer3.0",
    }
    assert model.state_dict().keys() - CifarResNet(14).state_dict().keys() == {
        key for key in model.state_dict() if "shortcut" in key
    }
    convolution, norm = model.get_submodule("layer2.0.shortcut").children()
    assert isinstance(convolution, nn.Conv2d) and convolution.weight.shape == (32, 16, 1, 1)
    assert convolution.stride == (2, 2) and convolution.bias is None
    assert isinstance(norm, nn.BatchNorm2d) and norm.num_features == 32
    image = torch.randn(2, 3, 16, 16)
    before = model(image)
    with torch.no_grad():
        convolution.weight.zero_()
    assert before.shape == (2, 10)
    assert not torch.equal(model(image), before)


def test_the_norm_of_a_projection_is_no_norm_of_its_block() -> None:
    stages = CifarResNet(14, shortcut="projection").anatomy().stages
    assert [block.keeps_shape for block in stages[1].blocks] == [False, True]
    assert stages[1].blocks[0].norms == ("layer2.0.bn1", "layer2.0.bn2")
    assert stages == CifarResNet(14).anatomy().stages


def test_depth_works_with_projections() -> None:
    model = pliant.adapt_(CifarResNet(14, shortcut="projection"), pliant.Depth())
    assert str(pliant.extract(model, "TTT")(torch.randn(2, 3, 16, 16)).shape) == "torch.Size([2, 10])"


def test_an_unknown_shortcut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got shortcut='identity', expected one of padding, projection"):
        CifarResNet(14, shortcut="identity")


@pytest.mark.parametrize("shortcut", ["padding", "projection"])
def test_a_saved_network_is_known_by_its_structure(shortcut, tmp_path):
    model = pliant.create_model("pliant:resnet20", num_classes=7, shortcut=shortcut).eval()
    loaded = pliant.load(pliant.save(pliant.adapt_(model, pliant.Depth()), tmp_path))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(x, subnet="TTT"), model(x, subnet="TTT"))
