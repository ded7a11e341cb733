import copy

import pytest
import torch

import pliant


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
