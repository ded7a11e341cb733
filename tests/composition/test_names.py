"""Contract 5. A network that has a name which pliant adds is refused by both names, before anything of it changes."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pliant

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
WIDTHS = pliant.Width(choices=(0.5, 1.0))
GATE = pliant.Width(choices=(0.5, 0.75, 1.0), gate=pliant.Gate())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(self.norm(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


ROOT_NAMES = ["anatomy", "configs", "gated", "leave_early", "routes", "seen_by_gate", "space", "subnets"]


@pytest.mark.parametrize("config", [pliant.Depth(), pliant.Exits(), WIDTHS], ids=["depth", "exits", "width"])
@pytest.mark.parametrize("name", ROOT_NAMES)
def test_a_child_of_the_network_with_such_a_name(name, config):
    model = network()
    model.add_module(name, nn.Linear(3, 3))
    assert_refused(model, config, "the model, a Net", name)


@pytest.mark.parametrize("name", ["subnets", "routes"])
def test_a_method_a_buffer_and_an_attribute_of_such_a_name(name):
    class Named(Net):
        pass

    setattr(Named, name, lambda self: None)
    assert_refused(Named().eval(), pliant.Depth(), "the model, a Named", name)
    model = network()
    model.register_buffer(name, torch.zeros(1))
    assert_refused(model, pliant.Depth(), "the model, a Net", name)
    model = network()
    setattr(model, name, 3)
    assert_refused(model, pliant.Depth(), "the model, a Net", name)


@pytest.mark.parametrize(
    ("config", "path", "name"),
    [
        (pliant.Depth(), "blocks.0.norm", "skip"),
        (pliant.Depth(), "blocks.5", "unmake_"),
        (pliant.Exits(at=(4,)), "blocks.3", "exit"),
        (pliant.Exits(at=(4,), collaboration="linear"), "head", "collaboration"),
        (pliant.Width(choices=(0.5, 1.0), norms="private"), "blocks.0.norm", "widths"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_part_that_has_the_name_of_what_is_added_to_it(config, path, name):
    model = network()
    setattr(model.get_submodule(path), name, 3.0)
    kind = type(model.get_submodule(path)).__name__
    assert_refused(model, config, f"module '{path}', a {kind}", name)


def test_where_a_gate_would_stand():
    model = pliant.create_model("pliant:resnet20", shortcut="projection")
    model.get_submodule("layer1.2").gate = None
    with pytest.raises(ValueError, match=r"'layer1\.2', a \w+, has 'gate' already"):
        pliant.adapt_(model, GATE)


@pytest.mark.parametrize(
    "name", ["_stage", "_switch", "_stream", "_number", "_parts", "_numbers", "_recorder", "_kind"]
)
@pytest.mark.parametrize(
    "config", [pliant.Depth(groups=2), pliant.Exits(at=(4,)), WIDTHS], ids=["depth", "exits", "width"]
)
def test_private_names_of_others_are_left_alone(config, name):
    """Numbers under names as people choose them, with which their blocks compute."""

    class Scaled(Block):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.fc(self.norm(x)) * getattr(self, name)

    plain = network()
    plain.blocks = nn.ModuleList(Scaled() for _ in range(6))
    for number, block in enumerate(plain.blocks):
        for module in block.modules():
            setattr(module, name, float(number + 1))
    model: Any = pliant.adapt_(copy.deepcopy(plain).eval(), config, example=X)
    with torch.no_grad():
        assert torch.equal(model(X), plain(X))
        network_ = pliant.extract(model, "largest")
        assert torch.equal(network_(X), plain(X))
        torch.testing.assert_close(pliant.extract(model, "smallest")(X), model(X, subnet="smallest"))
    assert getattr(network_.get_submodule("blocks.2"), name) == 3.0


def assert_refused(model: nn.Module, config: Any, where: str, name: str) -> None:
    before = {path: type(module) for path, module in model.named_modules()}
    with pytest.raises(ValueError, match=re.escape(f"{where}, has {name!r} already")) as error:
        pliant.adapt_(model, config, example=X)
    assert "\n" not in str(error.value)
    assert {path: type(module) for path, module in model.named_modules()} == before
