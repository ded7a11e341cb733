"""Contract 5. A part that was replaced after `adapt_` and follows no sub-network is named before an answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers.norm_act import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import nn

import pliant
from pliant.models.resnet import CifarResNet

CONFIGS = {
    "depth": pliant.Depth(),
    "exits": pliant.Exits(),
    "width": pliant.Width(choices=(0.5, 1.0)),
}
# What people do to a model, and which wings have changed what is replaced.
OPERATIONS: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "torch's synchronised batch norms": (nn.SyncBatchNorm.convert_sync_batchnorm, {"depth", "width"}),
    "timm's synchronised batch norms": (convert_sync_batchnorm, {"depth", "width"}),
    "timm's frozen batch norms": (freeze_batch_norm_2d, {"depth", "width"}),
    "a new block": (lambda model: replaced(model, "layer1.2", copy.deepcopy(PLAIN.layer1[2])), set(CONFIGS)),
    "a new norm": (lambda model: replaced(model, "layer1.0.bn1", nn.BatchNorm2d(16)), {"depth", "width"}),
}
PLAIN = CifarResNet(20, shortcut="projection")
VERBS: dict[str, Callable[[Any], object]] = {
    "extract": lambda model: pliant.extract(model, "smallest"),
    "measure": lambda model: pliant.measure(model, image_size=16, rounds=1, energy=False),
    "Objective": pliant.Objective,
    "export": lambda model: pliant.export(model, "net.onnx", subnet="smallest", image_size=16),
    "save": lambda model: pliant.save(model, "saved"),
    "train": lambda model: model.train(),
    "eval": lambda model: model.eval(),
    "a pass": lambda model: model(torch.rand(1, 3, 16, 16), subnet="smallest"),
    "a compiled pass": lambda model: compiled(model)(torch.rand(1, 3, 16, 16)),
}


def compiled(model: nn.Module) -> Callable[..., Any]:
    torch._dynamo.reset()  # all models of a process share one limit of how often code is made again
    return torch.compile(model, backend="eager")


def replaced(model: Any, path: str, module: nn.Module) -> Any:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent).add_module(name, module)
    return model


@pytest.mark.parametrize("axis", CONFIGS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_no_longer_follows_is_named(axis, operation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    operate, concerned = OPERATIONS[operation]
    torch.manual_seed(0)
    model: Any = pliant.adapt_(CifarResNet(20, shortcut="projection"), CONFIGS[axis]).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = [model(x, subnet=subnet) for subnet in model.subnets]
    model = operate(model)
    if axis not in concerned:
        with torch.no_grad():
            for subnet, logits in zip(model.subnets, expected, strict=True):
                torch.testing.assert_close(model.eval()(x, subnet=subnet), logits)
        return
    for call in VERBS.values():
        with pytest.raises(ValueError, match=r"module '[\w.]+' was replaced after pliant\.adapt_ by a \w+") as error:
            call(model)
        assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def adapted(axis: str) -> Any:
    return pliant.adapt_(CifarResNet(20, shortcut="projection"), CONFIGS[axis]).eval()


@pytest.mark.parametrize("axis", CONFIGS)
def test_a_part_of_another_adapted_model_is_named(axis):
    model = replaced(adapted(axis), "layer1.2", adapted(axis).layer1[2])
    for call in VERBS.values():
        with pytest.raises(ValueError, match=r"module 'layer1\.2.*' is part of another adapted model"):
            call(model)


@pytest.mark.parametrize("axis", CONFIGS)
def test_a_part_that_was_removed_is_named(axis):
    model = adapted(axis)
    del model.layer2[2]
    with pytest.raises(ValueError, match=r"eval: module 'layer2\.2.*' was removed"):
        model.eval()


def test_a_new_block_that_keeps_the_norms_of_the_old_one_is_named():
    model = adapted("depth")
    block = copy.deepcopy(PLAIN.layer2[2])
    block.bn1 = model.layer2[0].bn1
    with pytest.raises(ValueError, match=r"forward: module 'layer2\.2' was replaced"):
        replaced(model, "layer2.2", block)(torch.rand(1, 3, 16, 16), subnet="smallest")


def test_a_wrapper_that_has_the_part_inside_is_let_pass():
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    model: Any = pliant.adapt_(CifarResNet(20, shortcut="projection"), pliant.Depth()).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = [model(x, subnet=subnet) for subnet in model.subnets]
        replaced(model, "layer2.2", Wrapper(model.layer2[2]))
        for subnet, logits in zip(model.subnets, expected, strict=True):
            assert torch.equal(model.eval()(x, subnet=subnet), logits)
