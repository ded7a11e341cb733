"""The families that every contract is tested with: one line here, and a new family has all the tests."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import pliant

FAMILIES = {
    "pliant:resnet20": 32,
    "torchvision:resnet18": 64,
    "torchvision:resnet50": 64,
    "torchvision:resnext50_32x4d": 64,
    "timm:resnet26d": 64,
    "timm:resnetrs50": 64,
    "timm:resnet50d": 64,
    "timm:seresnet50": 64,
    "timm:ecaresnet26t": 64,
    "timm:resnext50_32x4d": 64,
}


@dataclass
class Case:
    """One family: the model as its library makes it, the same model adapted, and images for it."""

    name: str
    original: nn.Module
    adapted: nn.Module
    images: torch.Tensor


def pretend_pretrained(model: nn.Module) -> None:
    """Give norms the statistics of a trained network, so that the choice between two sets can be seen."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)


def differ(model: nn.Module) -> None:
    """Make the second norm sets differ from the first ones, as they do after training."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if ".skip." in name:
                tensor.add_(0.1)


@pytest.fixture(scope="package", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    original = pliant.create_model(request.param, num_classes=10).eval()
    pretend_pretrained(original)
    adapted = pliant.adapt_(copy.deepcopy(original), pliant.Depth())
    differ(adapted)
    size = FAMILIES[request.param]
    return Case(request.param, original, adapted, torch.rand(2, 3, size, size))
