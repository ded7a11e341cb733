import copy

import pytest
import torch

import pliant
from pliant.recalibrate import training_images, why_not


@pytest.fixture
def model():
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()).eval()


def test_recalibrated_norms_have_the_statistics_of_the_sub_network(model):
    images = [torch.rand(8, 3, 32, 32) + shift for shift in (0.0, 0.5)]
    before = copy.deepcopy(model.state_dict())
    network = pliant.recalibrated(model, "TFT", images)
    stem = network.conv1
    means = torch.stack([stem(image).mean((0, 2, 3)) for image in images]).mean(0)
    torch.testing.assert_close(network.bn1.running_mean, means)
    assert network.bn1.momentum == 0.1 and not network.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="no batches"):
        pliant.recalibrated(model, "TFT", [])


def test_a_network_without_batch_norms_is_extracted_as_it_is():
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=12, num_heads=2, num_classes=2)
    model, images = pliant.adapt_(vit, pliant.Depth()).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images, subnet="FTTT")
        assert torch.equal(pliant.recalibrated(model, "FTTT", [images])(images), expected)
    assert "no batch norms" in why_not(model)


def test_which_sub_networks_have_statistics_to_take_anew(model):
    anew = {str(subnet) for subnet in model.subnets if not why_not(model, subnet)}
    assert anew == {str(subnet) for subnet in model.subnets} - {"TTT", "FFF"}
    assert why_not(model) == ""
    assert "no sub-networks" in why_not(pliant.extract(model, "FTT"))


@pytest.mark.parametrize("count", [1, 100, 256, 300, 301])
def test_training_images_are_as_many_as_asked_and_the_same_each_time(tmp_path_factory, count):
    digits = pliant.load_data("digits", cache=tmp_path_factory.getbasetemp() / "cache", image_size=8)
    batches = training_images(digits, count)
    first, second = list(batches()), list(batches())
    assert sum(map(len, first)) == count
    assert max(map(len, first)) <= 128
    assert max(map(len, first)) - min(map(len, first)) <= 2
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
