"""The fixture `case`: a network of `families.py` as its library makes it, and the same network adapted along some axes.

Every test that takes it runs for every family and every axis, and for pairs of axes. Two marks restrict that: `axis`
to the cases with an axis or without one; `costly`, in the default run, to depths, and to a few families otherwise.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pliant
from pliant.core.inputs import logits_of
from pliant.core.subnet import SubNet


def _load_table() -> ModuleType:
    # Not an import: pytest runs these files without their folder on the path.
    spec = importlib.util.spec_from_file_location("families", Path(__file__).with_name("families.py"))
    assert spec is not None and spec.loader is not None
    sys.modules["families"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = _load_table()
FAMILIES = {family.name: family for family in TABLE.FAMILIES}
# What each axis adds to the keys of a model.
ADDED = {"depth": ".skip.", "exits": ".exit.", "width": ".widths."}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "axis(name, without=name): in tests/contract, which cases")
    config.addinivalue_line("markers", "costly: in tests/contract, for all depths and a few other cases by default")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests their cases: pairs (axes, name of a family), in an order in which a family comes once."""
    fixture = next((name for name in ("case", "refused") if name in metafunc.fixturenames), None)
    if fixture is not None:
        axis = metafunc.definition.get_closest_marker("axis")
        costly = metafunc.definition.get_closest_marker("costly") is not None
        cases = [
            pytest.param((axes, family.name), id=f"{axes}-{family.name}", marks=_marks(axes, family, costly=costly))
            for family in TABLE.FAMILIES
            for axes in TABLE.AXES
            if (TABLE.refusal(axes, family) is not None) == (fixture == "refused")
            and (axis is None or _has(axes.split("+"), *axis.args, **axis.kwargs))
        ]
        metafunc.parametrize(fixture, cases, indirect=True)


def _has(axes: list[str], wanted: str | None = None, without: str | None = None) -> bool:
    return (wanted is None or wanted in axes) and without not in axes


def _marks(axes: str, family: Any, *, costly: bool) -> list[pytest.MarkDecorator]:
    usual = axes == "depth" if costly else "+" not in axes
    is_slow = family.slow or not (usual or family.name in TABLE.REPRESENTATIVES)
    return [pytest.mark.slow] if is_slow else []


@dataclass
class Case:
    """One family with some axes.

    Attributes:
        axes: their names.
        family: what the table says of it.
        original: the network as its library makes it; all cases of a family share it.
        adapted: a copy of it, adapted.
        fresh: the tensors that this had before the ones that it got were made to differ.
        args: what both take.
        kwargs: what both take by name.
    """

    axes: tuple[str, ...]
    family: Any
    original: nn.Module
    adapted: Any
    fresh: dict[str, Tensor]
    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]

    def logits(self, network: nn.Module, **more: Any) -> Tensor:
        """The logits of the case's inputs, whatever the library wraps them in."""
        return logits_of(network(*self.args, **self.kwargs, **more))

    def assert_same(self, one: Tensor, other: Tensor) -> None:
        """Bit for bit; but a part of a weight may run in another kernel than a whole weight of its size."""
        if "width" in self.axes:
            torch.testing.assert_close(one, other)
        else:
            assert torch.equal(one, other)

    def is_added(self, key: str) -> bool:
        """Whether a key of the adapted model is one that an axis adds."""
        return any(ADDED[axis] in key for axis in self.axes)

    @property
    def subnets(self) -> list[SubNet]:
        """The largest, those that differ from it in one choice, and all of these with every stage skipped.

        So every exit, every width and every stage's own flag counts. All sub-networks would be hundreds.
        """
        space = self.adapted.space
        near = [subnet for subnet in space if _choices(subnet, space.largest) <= 1]
        short = [space.parse(dataclasses.replace(subnet, depth=self.all_skipped)) for subnet in near]
        return sorted({*near, *short}, key=space.place)

    @cached_property
    def extracted(self) -> nn.Module:
        """The smallest sub-network, extracted; tests that look at it share it."""
        return pliant.extract(self.adapted, "smallest")

    @property
    def all_skipped(self) -> tuple[bool, ...]:
        """The smallest depth."""
        return tuple(count > 0 for count in self.adapted.space.skippable_blocks)


def _choices(one: SubNet, other: SubNet) -> int:
    """In how many choices two sub-networks differ: at an exit, in the width, or at a stage."""
    stages = zip(one.depth, other.depth, strict=True)
    return (one.exit != other.exit) + (one.width != other.width) + sum(own != theirs for own, theirs in stages)


@torch.no_grad()
def pretend_trained(model: nn.Module) -> None:
    """Vary what starts as zeros or ones (norms, layer scales, some heads): nothing is constant after a training.

    Otherwise a block scaled by 1e-6 could be skipped, or the wrong one of two norm sets used, and no output
    would tell.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.numel() and parameter.min() == parameter.max():
            if parameter.flatten()[0] == 0:
                parameter.normal_(0, 0.1, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


@lru_cache(maxsize=1)
def original_of(name: str) -> nn.Module:
    """The network of a family, which no test changes."""
    if name.startswith("transformers:"):
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    original = FAMILIES[name].source().create().eval()
    pretend_trained(original)
    return original


def adapt_(model: nn.Module, axes: str, family: Any) -> Any:
    """Adapt the network of a family. For widths, an example says for which size it was made."""
    example = family.inputs()[0][0] if "width" in axes else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* one block, and nothing to skip")
        return pliant.adapt_(model, *TABLE.AXES[axes], example=example)


@pytest.fixture(scope="package")
def case(request: pytest.FixtureRequest) -> Case:
    axes, name = request.param
    original = original_of(name)
    adapted = adapt_(copy.deepcopy(original), axes, FAMILIES[name])
    fresh = {key: tensor.clone() for key, tensor in adapted.state_dict().items()}
    made = Case(tuple(axes.split("+")), FAMILIES[name], original, adapted, fresh, *FAMILIES[name].inputs())
    with torch.no_grad():
        for key, tensor in adapted.state_dict().items():
            if made.is_added(key) and tensor.is_floating_point():
                tensor.add_(0.1)  # as after a training, it differs from what it started as a copy of
    return made


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> tuple[nn.Module, Callable[[], Any], str]:
    """A network, what would adapt it, and what the refusal names."""
    axes, name = request.param
    model = copy.deepcopy(original_of(name))
    return model, partial(adapt_, model, axes, FAMILIES[name]), TABLE.refusal(axes, FAMILIES[name])
