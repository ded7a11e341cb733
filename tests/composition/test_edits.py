"""Small edits of an adapted model and its parts: both sets of a norm have them, or the next call says why not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import pliant

CONFIGS: dict[str, Any] = {
    "depth": pliant.Depth(),
    "exits": pliant.Exits(classifier="convolutions"),
    "width": pliant.Width(norms="private"),
}
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def plain() -> Any:
    torch.manual_seed(0)
    return pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection").eval()


def adapted(axis: str) -> Any:
    return pliant.adapt_(plain(), CONFIGS[axis]).eval()


@torch.no_grad()
def answers(model: Any) -> dict[str, Tensor]:
    return {str(subnet): model(IMAGES, subnet=subnet) for subnet in model.subnets}


@torch.no_grad()
def assert_as_extracted(model: Any) -> None:
    for subnet, logits in answers(model).items():
        torch.testing.assert_close(pliant.extract(model, subnet).eval()(IMAGES), logits, msg=subnet)


def replace_in_the_dictionary(model: Any) -> None:
    model.layer1[2]._modules["bn1"] = nn.BatchNorm2d(16).eval()
    model._modules["layer2"]._modules["2"] = copy.deepcopy(plain().layer2[2])


def change_the_class(model: Any) -> None:
    model.layer1[0].bn1.__class__ = nn.BatchNorm2d
    model.layer1[2].__class__ = type(plain().layer1[2])


def bypass(model: Any) -> None:
    model.layer2[2].forward = lambda x: 0.5 * x


EDITS: dict[str, Callable[[Any], object]] = {
    "the dictionary of children": replace_in_the_dictionary,
    "del": lambda model: model.layer2.__delitem__(-1),
    "pop": lambda model: model.layer2.pop(-1),
    "the class": change_the_class,
    "forward": bypass,
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("axis", ["depth", "exits"])
def test_an_edit_that_registers_nothing_is_named_by_the_next_pass(axis, edit):
    model = adapted(axis)
    answers(model)
    EDITS[edit](model)
    with pytest.raises(ValueError, match=r"forward: .*'layer\d\.\d"):
        model(IMAGES, subnet="smallest")


@pytest.mark.parametrize("axis", ["depth", "exits"])
def test_a_part_in_another_place_is_named(axis):
    model = adapted(axis)
    model.layer3[2] = copy.deepcopy(model.layer2[2])
    with pytest.raises(ValueError, match=r"module 'layer3\.2.*another place"):
        model(IMAGES, subnet="smallest")


@pytest.mark.parametrize("axis", CONFIGS)
def test_statistics_that_were_loaded_after_a_reset_stay(axis):
    model = adapted(axis).train()
    for subnet in model.subnets:
        model(2 * IMAGES + 1, subnet=subnet, exits=axis == "exits")
    state, expected = copy.deepcopy(model.state_dict()), answers(copy.deepcopy(model).eval())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    model.load_state_dict(state)
    for subnet, logits in answers(model.eval()).items():
        torch.testing.assert_close(logits, expected[subnet])


@pytest.mark.parametrize("axis", ["depth", "width"])
def test_a_checkpoint_that_is_loaded_in_parts(axis):
    model = adapted(axis)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".skip." in name or ".widths." in name:
                parameter.mul_(2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in reversed(state):
        model.load_state_dict({name: state[name]}, strict=False)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_recalibrate_asks_for_the_adapted_model_itself():
    for axis in CONFIGS:
        around = nn.Sequential(nn.Identity(), adapted(axis))
        before = copy.deepcopy(around.state_dict())
        with pytest.raises(ValueError, match="got a Sequential around an adapted model"):
            pliant.recalibrate_(around, [IMAGES])
        assert all(torch.equal(tensor, before[name]) for name, tensor in around.state_dict().items())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_hooks_of_a_norm_run_once_and_are_extracted(moment):
    model, path = plain(), "layer1.0.bn1"
    if moment == "before":
        model.get_submodule(path).register_forward_hook(lambda module, args, output: output * 2)
    pliant.adapt_(model, pliant.Depth()).eval()
    if moment == "after":
        model.get_submodule(path).register_forward_hook(lambda module, args, output: output * 2)
    assert_as_extracted(model)


def test_what_is_set_of_a_norm_is_set_of_both_sets():
    early, late = plain(), adapted("depth")
    early.layer1[0].bn1.eps = 1.0
    late.layer1[0].bn1.eps = 1.0
    expected = answers(pliant.adapt_(early, pliant.Depth()))
    for subnet, logits in answers(late).items():
        torch.testing.assert_close(logits, expected[subnet])


@pytest.mark.parametrize("head", [nn.Sequential(nn.Dropout(0.1), nn.Linear(64, 7)), nn.Identity()])
def test_a_new_head_of_other_classes_than_the_exits_is_named(head):
    model = adapted("exits")
    model.fc = head.eval()
    with pytest.raises(ValueError, match="the classifier 'fc' has"):
        model(IMAGES, subnet="smallest")


class Keeps(nn.Linear):
    """Keeps what it answered, as attention maps are kept."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


class Recorder:
    seen: Tensor

    def hook(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.seen = output


def test_a_network_that_keeps_tensors_of_its_last_pass_is_extracted_or_refused():
    model = plain()
    model.fc = Keeps(64, 10)
    pliant.adapt_(model, pliant.Depth())(IMAGES, subnet="smallest").sum().backward()
    assert_as_extracted(model.eval())
    recorded = adapted("depth")
    recorded.layer1.register_forward_hook(Recorder().hook)
    recorded(IMAGES).sum()
    with pytest.raises(ValueError, match="keeps a tensor of the last pass"):
        pliant.extract(recorded, "smallest")


def test_a_part_that_is_copied_before_the_model():
    class Both(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.trunk, self.model = model.layer1, model

    for axis in CONFIGS:
        model = adapted(axis)
        expected = answers(model)
        copied = copy.deepcopy(Both(model)).model
        one, two = (copy.deepcopy(copy.copy(model)) for _ in range(2))
        for other in (copied, one, two):
            assert all(torch.equal(logits, expected[subnet]) for subnet, logits in answers(other).items())
        assert answers(model).keys() == expected.keys()


def test_a_norm_whose_weight_is_computed_is_refused_before_anything_changes():
    model = plain()
    prune.l1_unstructured(model.layer2[0].bn1, "weight", 0.5)
    with pytest.raises(ValueError, match=r"'layer2\.0\.bn1'.*prune\.remove"):
        pliant.adapt_(model, pliant.Depth())
    assert type(model.layer1[0].bn1) is nn.BatchNorm2d


def test_numbers_of_a_layer_whose_width_changes_cannot_be_set():
    model = adapted("width")
    with pytest.raises(ValueError, match="the out_channels of a SlicedConv2d"):
        model.layer1[0].conv1.out_channels = 8


def test_a_layer_of_the_class_of_an_adapted_one_is_plain():
    model = adapted("width")
    made = type(model.layer1[0].conv1)(3, 4, 1)
    assert type(made) is nn.Conv2d and made(torch.rand(1, 3, 2, 2)).shape == (1, 4, 2, 2)


def test_a_trace_by_fx_says_what_to_trace():
    with pytest.raises(ValueError, match=r"torch\.fx .* pliant\.extract"):
        torch.fx.symbolic_trace(adapted("depth"))
