"""An optimizer that was made before `adapt_` misses what that added; the objective says so after a few steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import pliant

CONFIGS: dict[str, tuple[Any, ...]] = {
    "depth": (pliant.Depth(),),
    "exits": (pliant.Exits(),),
    "width": (pliant.Width(norms="private"),),
    "depth and exits": (pliant.Depth(), pliant.Exits()),
    "depth and width": (pliant.Depth(), pliant.Width(norms="private")),
}
OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    "AdamW, fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, fused=True),
}


def step(objective: pliant.Objective, optimizer: torch.optim.Optimizer, *, joint: bool = True) -> None:
    objective.model.zero_grad()
    x, y = torch.rand(4, 3, 16, 16), torch.arange(4)
    if joint:
        objective(x, y).backward()
    else:
        objective.backward(x, y)
    optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("axes", CONFIGS)
@pytest.mark.parametrize("joint", [True, False], ids=["joint", "sequential"])
def test_an_optimizer_from_before_is_refused_and_one_from_after_is_not(axes, make, joint):
    torch.manual_seed(0)
    model = pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection")
    before = OPTIMIZERS[make](list(model.parameters()))
    pliant.adapt_(model, *CONFIGS[axes])
    after, objective = OPTIMIZERS[make](list(model.parameters())), pliant.Objective(model)
    for _ in range(3):
        step(objective, after, joint=joint)
    del after
    objective = pliant.Objective(model)
    with pytest.raises(ValueError, match=r"updates '[\w.]+' but not '[\w.]+\.(skip|exit|widths)\.[\w.]+'"):
        for _ in range(3):
            step(objective, before, joint=joint)


def test_frozen_norms_are_no_matter():
    model: Any = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=10), pliant.Depth())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.requires_grad_(False)
    objective = pliant.Objective(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(5):
        step(objective, optimizer)


def test_several_optimizers_are_no_matter():
    torch.manual_seed(0)
    model: Any = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=10), pliant.Depth())
    added = [parameter for name, parameter in model.named_parameters() if ".skip." in name]
    others = [parameter for name, parameter in model.named_parameters() if ".skip." not in name]
    optimizers = [torch.optim.SGD(parameters, lr=0.01) for parameters in (others, added)]
    objective = pliant.Objective(model)
    for _ in range(4):
        for optimizer in optimizers:
            step(objective, optimizer)


def test_an_optimizer_that_steps_less_often_is_waited_for():
    torch.manual_seed(0)
    model: Any = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=10), pliant.Depth())
    added = [parameter for name, parameter in model.named_parameters() if ".skip." in name]
    others = [parameter for name, parameter in model.named_parameters() if ".skip." not in name]
    often, seldom = (torch.optim.SGD(parameters, lr=0.01) for parameters in (others, added))
    objective = pliant.Objective(model)
    for _ in range(5):
        step(objective, often)
    assert seldom.param_groups


def test_a_copied_objective_watches_its_own_model():
    torch.manual_seed(0)
    model: Any = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=10), pliant.Depth())
    first = pliant.Objective(model)
    step(first, torch.optim.SGD(model.parameters(), lr=0.01))
    copied = copy.deepcopy(first)
    old = torch.optim.SGD([p for name, p in copied.model.named_parameters() if ".skip." not in name], lr=0.01)
    with pytest.raises(ValueError, match=r"not '[\w.]+\.skip\.[\w.]+'"):
        for _ in range(4):
            step(copied, old)
