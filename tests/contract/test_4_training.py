"""Contract 4: a training step equals the written formula, and joint equals sequential backward.

Also what the formula takes for granted: the features that it compares, and stochastic depth in the super-net alone.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pliant
from pliant.core.inputs import logits_of
from pliant.core.subnet import SubNet
from pliant.plans import build_plan, default_plan


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
def test_4_stochastic_depth_is_off_in_the_base_net_s_passes_and_on_in_the_super_net_s(name):
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


@pytest.mark.costly
def test_4_a_step_is_the_written_formula_and_joint_and_sequential_backward_agree(case):
    model = copy.deepcopy(case.adapted).double().train()
    freeze_randomness(model)
    inputs = case.args[0]
    labels = torch.tensor([1, 7]) if case.family.classifies else inputs
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    # No sub-network is drawn at random: the steps that are compared have the same.
    options = {"random": 0} if "width" in case.axes else {}
    objective = pliant.Objective(model, build_plan(default_plan(model.space), model.space, **options))
    joint_loss = objective(inputs, labels)
    joint_loss.backward()
    joint = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    sequential_loss = objective.backward(inputs, labels)

    assert joint_loss.item() == pytest.approx(sequential_loss.item(), rel=1e-12)
    assert joint_loss.item() == pytest.approx(written_loss(case, model, inputs, labels), rel=1e-5)
    for name, parameter in model.named_parameters():
        gradient = joint[name]
        if gradient is None:
            assert unused(case, name), f"{name} learns nothing"
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12, msg=name)


@torch.no_grad()
def written_loss(case, model: Any, inputs: Tensor, labels: Tensor) -> float:
    """Compute the loss of the default plans, from one pass for every sub-network.

    Every exit of the super-net learns from the labels. Each teaches the same exit of the smallest depth, and the
    super-net the smallest width. A language model predicts the token after each but the last.
    """
    is_text = not case.family.classifies
    labels = labels[:, 1:] if is_text else labels

    def logits(subnet: SubNet) -> Tensor:
        found = logits_of(model(inputs, subnet=subnet))
        return (found[:, :-1] if is_text else found).flatten(0, -2)

    space = model.space
    students = [space.smallest] if "width" in case.axes else []
    exits = range(1, len(space.exit_stages) + 1) if "exits" in case.axes else [None]
    teachers = {number: dataclasses.replace(space.largest, exit=number) for number in exits}
    if "depth" in case.axes:
        students += [space.parse(dataclasses.replace(one, depth=case.all_skipped)) for one in teachers.values()]
    loss = sum(F.cross_entropy(logits(teacher), labels.flatten()).item() for teacher in teachers.values())
    for student in students:
        own, other = (logits(one).log_softmax(-1) for one in (student, teachers[student.exit]))
        loss += F.kl_div(own, other, reduction="batchmean", log_target=True).item()
    return loss


def unused(case, name: str) -> bool:
    """Whether the original leaves a parameter without a gradient too, such as the token of a masked pretraining."""
    model = copy.deepcopy(case.original).train()
    case.logits(model).sum().backward()
    return dict(model.named_parameters())[name].grad is None


@torch.no_grad()
def test_4_features_are_the_pooled_outputs_of_the_stages(case):
    model, outputs = case.adapted, []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    stages = model.anatomy.stages
    subnet = model.space.parse(dataclasses.replace(model.space.smallest, exit=model.space.largest.exit))
    hooks = [model.get_submodule(stage.blocks[-1].path).register_forward_hook(keep) for stage in stages]
    output, features = model(*case.args, **case.kwargs, subnet=subnet, features=True)
    for hook in hooks:
        hook.remove()
    assert torch.equal(logits_of(output), case.logits(model, subnet=subnet))
    assert len(outputs) == len(features) == len(stages)
    for stage, output, feature in zip(stages, outputs, features, strict=True):
        by_channel = output.movedim(stage.channel_dim, 1).flatten(2)
        assert "width" in case.axes or by_channel.shape[1] == stage.channels
        torch.testing.assert_close(feature, by_channel.mean(2), rtol=1e-5, atol=1e-6)
