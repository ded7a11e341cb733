"""Contract 5. A forward that was replaced on the instance, as by hooks: nothing is skipped without a word."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pliant
from pliant.models.resnet import CifarResNet

CONFIGS = {
    "depth": (pliant.Depth(), "layer1.2"),
    "exits": (pliant.Exits(), "layer1.2"),
    "width": (pliant.Width(choices=(0.5, 1.0)), "layer2.0.conv1"),
    "norms": (pliant.Depth(), "layer1.0.bn1"),
    "the model": (pliant.Depth(), ""),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(20, shortcut="projection").eval()


def hook_(module: Any, calls: list[str]) -> None:
    """As accelerate does it: the instance gets a function that calls the forward from before."""
    plain = module.forward

    def hooked(before: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(type(module).__name__)
        return before(*args, **kwargs)

    module.forward = partial(hooked, plain)


@pytest.mark.parametrize("case", CONFIGS)
def test_before_adapt_it_is_refused_by_name(case):
    config, path = CONFIGS[case]
    model = network()
    hook_(model.get_submodule(path), [])
    where = f"'{path}'" if path else "the model"
    with pytest.raises(ValueError, match=rf"adapt_: the forward of .*{where}.* was replaced on the instance"):
        pliant.adapt_(model, config)
    assert type(model) is CifarResNet


@pytest.mark.parametrize("case", CONFIGS)
def test_afterwards_it_follows_and_is_refused_where_it_could_not(case, tmp_path):
    config, path = CONFIGS[case]
    model: Any = pliant.adapt_(network(), config)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected: list[Tensor] = [model(x, subnet=subnet) for subnet in model.subnets]
        calls: list[str] = []
        hooked = copy.deepcopy(model)
        hook_(hooked.get_submodule(path), calls)
        for subnet, logits in zip(model.subnets, expected, strict=True):
            assert torch.equal(hooked(x, subnet=subnet), logits)
    assert calls
    where = f"'{path}'" if path else "the model"
    with pytest.raises(ValueError, match=rf"extract: the forward of .*{where}.* was replaced on the instance"):
        pliant.extract(hooked, "smallest")
    with pytest.raises(ValueError, match=rf"save: the forward of .*{where}.* was replaced on the instance"):
        pliant.save(hooked, tmp_path)


class Recorder:
    """Holds the forward from before as an attribute."""

    def __init__(self, module: Any) -> None:
        self.before = module.forward

    def record(self, *args: Any, **kwargs: Any) -> Any:
        return self.before(*args, **kwargs)


@pytest.mark.parametrize("case", ["depth", "exits", "norms", "the model"])
def test_one_that_does_not_call_the_forward_from_before_is_named(case):
    config, path = CONFIGS[case]
    model: Any = pliant.adapt_(network(), config)
    module = model.get_submodule(path)
    module.forward = Recorder(module).record
    model.eval()
    module.forward = lambda *args, **kwargs: args[0]
    where = f"'{path}'" if path else "the model"
    for call in (model.eval, model.train, lambda: pliant.Objective(model), lambda: pliant.extract(model, "smallest")):
        with pytest.raises(ValueError, match=rf"the forward of .*{where}.* was replaced on the instance"):
            call()


def test_a_part_that_is_not_changed_may_have_a_forward_of_its_own():
    model, calls = network(), []
    hook_(model.get_submodule("fc"), calls)
    pliant.adapt_(model, pliant.Depth())
    model(torch.randn(2, 3, 16, 16), subnet="smallest")
    assert calls == ["Linear"]
