"""Training contracts, for every reader: gradients, and stochastic depth, which acts in the super-net alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pliant

pytestmark = pytest.mark.filterwarnings("ignore:.* one block, and nothing to skip")


def freeze_randomness(model: nn.Module) -> None:
    """Keep everything: what a network drops at random would differ between two passes that are to be equal."""
    set_stochastic_depth(model, 0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0


def set_stochastic_depth(model: nn.Module, rate: float) -> int:
    """Let residual branches be dropped with this probability; returns how many modules do it."""
    count = 0
    for module in model.modules():
        for name in ("p", "drop_prob"):
            if type(module).__name__.endswith(("StochasticDepth", "DropPath")) and hasattr(module, name):
                setattr(module, name, rate)
                count += 1
    return count


# Reader x way of writing stochastic depth; options that switch it on where the library's default is off, and that let
# branches count from the start: a branch times a layer scale of 1e-6 is less than float32 shows.
STOCHASTIC = {
    "torchvision:swin_t": {},
    "torchvision:convnext_tiny": {"layer_scale": 1.0},
    "torchvision:efficientnet_b0": {},
    "timm:convnext_atto": {"drop_path_rate": 0.1, "ls_init_value": 1.0},
    "timm:vit_tiny_patch16_224": {"drop_path_rate": 0.1, "img_size": 32},
    "timm:resnet26d": {"drop_path_rate": 0.1, "zero_init_last": False},
}


@torch.no_grad()
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_depth_is_off_in_the_base_net_s_passes_and_on_in_the_super_net_s(name):
    model = pliant.adapt_(pliant.create_model(name, num_classes=10, **STOCHASTIC[name]), pliant.Depth()).train()
    freeze_randomness(model)
    images = torch.rand(2, 3, 32, 32)
    kept = {subnet: model(images, subnet=subnet) for subnet in ("smallest", "largest")}
    assert set_stochastic_depth(model, 1 - 1e-6) > 5
    assert torch.equal(model(images, subnet="smallest"), kept["smallest"])
    assert not torch.allclose(model(images), kept["largest"])
    # A network of its own has it again.
    base = pliant.extract(model, "smallest")
    assert not torch.allclose(base(images), kept["smallest"])


def test_4_joint_and_sequential_backward_give_the_same_gradients(case):
    model = copy.deepcopy(case.adapted).double().train()
    freeze_randomness(model)
    inputs = case.args[0]
    labels = torch.tensor([1, 7]) if case.family.classifies else inputs.roll(-1, dims=1)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    objective = pliant.Objective(model)
    joint_loss = objective(inputs, labels)
    joint_loss.backward()
    joint = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    sequential_loss = objective.backward(inputs, labels)

    assert joint_loss.item() == pytest.approx(sequential_loss.item(), rel=1e-12)
    for name, parameter in model.named_parameters():
        gradient = joint[name]
        if gradient is None:
            assert unused(case, name), f"{name} learns nothing"
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12, msg=name)


def unused(case, name: str) -> bool:
    """Whether the original leaves a parameter without a gradient too, such as the token of a masked pretraining."""
    model = copy.deepcopy(case.original).train()
    case.logits(model).sum().backward()
    return dict(model.named_parameters())[name].grad is None
