"""Whether a network can be saved is found out before it is trained; a trained one is kept in any case."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pliant
from pliant import checkpoint
from pliant.checkpoint import DifferentNetworkError, read_info
from pliant.create import ModelSource
from pliant.data import ImageData
from pliant.train.engine import train
from pliant.train.network import build_network, save_network, verify_network
from pliant.train.processes import choose_place
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]
ENGINE = sys.modules["pliant.train.engine"]  # `pliant.train` is a function

FORGETFUL = """
import itertools
from torch import nn

SLOPES = itertools.count(1)


class Block(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.conv, self.norm, self.slope = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), slope

    def forward(self, x):
        return x + nn.functional.leaky_relu(self.norm(self.conv(x)), self.slope)


class Net(nn.Module):
    def __init__(self, slope, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(slope) for _ in range(4)])
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def another_each_time(num_classes):
    return Net(0.1 * next(SLOPES), num_classes)


def the_same(num_classes, slope=0.1):
    return Net(slope, num_classes)
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    monkeypatch.chdir(tmp_path)
    return "forgetful.py"


@pytest.mark.parametrize("changes", [{}, {"adapt": {"depth": {"groups": 2}}, "only": "TT"}], ids=["adapted", "only"])
def test_a_network_that_cannot_be_saved_is_not_trained(
    tiny: Tiny, images: ImageData, own_file: str, changes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(model={"name": f"{own_file}:another_each_time"}, **changes)
    monkeypatch.setattr(ENGINE, "_fit", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(DifferentNetworkError, match=r"forgetful\.py:another_each_time .* gives another output"):
        train(recipe, data=images, out="run", log=None)
    assert not Path("run/pliant.json").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "forgetful.py:the_same", "options": {"slope": 0.3}}},
        {"only": "TTT"},
        {"adapt": {"exits": {}}, "plan": {"name": "exits"}},
        {"sync_batchnorm": True, "ema": {"decay": 0.9}},
    ],
    ids=["own", "only", "exits", "average"],
)
def test_a_trained_network_is_verified(tiny: Tiny, images: ImageData, own_file: str, changes: dict) -> None:
    result = train(tiny(**changes), data=images, out="run", log=None)
    assert read_info(result.out)["verified"] is True


def test_verifying_leaves_the_training_as_it_was(tiny: Tiny, images: ImageData) -> None:
    recipe, source = tiny(only="TTT"), ModelSource(name="pliant:resnet20", num_classes=3)
    model = build_network(source, recipe, choose_place("cpu"), image_size=8, fresh=True)
    assert model.training
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    verify_network(model, source, recipe, images)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_trained_network_is_kept_even_if_it_would_be_refused(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> bool:
        raise DifferentNetworkError("save: the saved network would compute something else")

    def verify_and_go_on(*args: object) -> None:
        monkeypatch.setattr(checkpoint, "_verified", refuse)

    monkeypatch.setattr(ENGINE, "verify_network", verify_and_go_on)
    with pytest.warns(UserWarning, match="the trained network is kept, unverified; save: .* something else"):
        result = train(tiny(), data=images, out=tmp_path / "run", log=None)
    assert read_info(result.out)["verified"] is False
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(pliant.load(result.out)(x), result.model(x))


def test_a_trained_network_whose_output_is_not_finite_is_kept_without_a_warning(
    tiny: Tiny, images: ImageData, tmp_path: Path
) -> None:
    recipe, source = tiny(), ModelSource(name="pliant:resnet20", num_classes=3)
    model = build_network(source, recipe, choose_place("cpu"), image_size=8, fresh=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    save_network(model, source, recipe, images, tmp_path / "run")
    assert read_info(tmp_path / "run")["verified"] is False
    assert pliant.load(tmp_path / "run").state_dict()["fc.weight"].isnan().all()
