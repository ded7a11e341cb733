"""Contract 5. Adapted models are pickled and sent to other processes; parts are copied, put back and taken apart."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pliant
from pliant.models.resnet import CifarResNet

AXES = {
    "depth": (pliant.Depth(),),
    "exits": (pliant.Exits(),),
    "exits of their own": (pliant.Exits(classifier="convolutions", collaboration="linear"),),
    "width": (pliant.Width(choices=(0.5, 1.0)),),
    "width, private norms": (pliant.Width(choices=(0.5, 1.0), norms="private"),),
    "gate": (pliant.Width(choices=(0.5, 0.75, 1.0), gate=pliant.Gate(behind=2)),),
    "depth and exits": (pliant.Depth(), pliant.Exits()),
    "depth and width": (pliant.Depth(), pliant.Width(choices=(0.5, 1.0))),
}


@pytest.fixture(params=AXES)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    model = pliant.adapt_(CifarResNet(14, shortcut="projection"), *AXES[request.param]).eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def answers(model: Any, x: Tensor) -> list[Tensor]:
    return [model(x, subnet=subnet) for subnet in model.subnets]


def assert_same(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected) > 1
    assert not torch.equal(expected[0], expected[-1])
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def saved_by_torch(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copy.deepcopy, pickled, saved_by_torch])
def test_a_copy_has_the_same_sub_networks(model, x, way: Callable[[Any], Any]):
    again = way(model)
    assert type(again) is type(model)
    assert_same(answers(again, x), answers(model, x))
    with torch.no_grad():
        for subnet in model.subnets:
            assert torch.equal(pliant.extract(again, subnet)(x), model(x, subnet=subnet))


@pytest.mark.parametrize("way", [copy.deepcopy, pickled])
def test_a_copy_has_a_choice_of_its_own(model, x, way: Callable[[Any], Any]):
    """It runs another sub-network while the original is in the middle of a pass."""
    again = way(model)
    with torch.no_grad():
        expected = model(x)
    seen: list[Tensor] = []
    hook = model.conv1.register_forward_hook(lambda *_: seen.append(again(x)))
    with torch.no_grad():
        model(x, subnet="smallest")
    hook.remove()
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("way", [copy.deepcopy, pickled])
def test_a_copy_of_a_copy_has_a_choice_of_its_own_too(model, x, way: Callable[[Any], Any]):
    first = way(model)
    second = copy.deepcopy(first)
    assert second._pliant_adaptation.switch is not first._pliant_adaptation.switch
    assert_same(answers(second, x), answers(model, x))


def test_a_part_that_was_copied_and_put_back_follows_the_model(model, x):
    expected = answers(model, x)
    for name in ("layer1", "layer2", "layer3", "conv1"):
        setattr(model, name, copy.deepcopy(getattr(model, name)))
    assert_same(answers(model, x), expected)
    assert torch.equal(pliant.extract(model, "smallest")(x), expected[0])


def test_a_copy_of_a_model_with_a_copied_part_is_one_model(model, x):
    model.layer2 = copy.deepcopy(model.layer2)
    assert_same(answers(copy.deepcopy(model), x), answers(model, x))


def test_gradients_of_a_copy_are_those_of_the_model(model, x):
    again = pickled(model)
    for one in (model, again):
        one.train()
        one(x, subnet="smallest").sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in again.named_parameters():
        assert (parameter.grad is None) == (expected[name] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, expected[name])


def answer_in_another_process(model: Any, x: Tensor, connection: Connection) -> None:
    torch.set_num_threads(1)
    connection.send([answer.numpy() for answer in answers(model, x)])


def test_a_model_is_sent_to_another_process(x):
    torch.manual_seed(0)
    model = pliant.adapt_(CifarResNet(14, shortcut="projection"), *AXES["depth and width"]).eval()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=answer_in_another_process, args=(model, x, there))
    process.start()
    got = [torch.from_numpy(answer) for answer in here.recv()]
    process.join()
    for one, other in zip(got, answers(model, x), strict=True):
        torch.testing.assert_close(one, other)


def test_a_network_that_is_copied_in_a_way_of_its_own_is_refused_by_name():
    class Own(CifarResNet):
        def __reduce__(self) -> tuple[Any, ...]:
            return Own, (14,)

    model = pliant.adapt_(Own(14), pliant.Depth())
    with pytest.raises(ValueError, match=r"Own is copied and pickled in a way of its own.*pliant\.save"):
        pickle.dumps(model)


class Holder(nn.Module):
    """As an averaged model holds it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)


def test_a_copy_within_another_module_is_the_models(model, x):
    holder = copy.deepcopy(Holder(model))
    assert_same(answers(holder.module, x), answers(model, x))
