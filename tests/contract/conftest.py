"""One fixture, `case`: a network of `families.py` as its library makes it, and the same network adapted."""

from __future__ import annotations

import copy
import importlib.util
import sys
from dataclasses import dataclass
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


FAMILIES = _load_table().FAMILIES


@dataclass
class Case:
    """One family: what the table says of it, the original, the adapted model, and inputs for both."""

    family: Any
    original: nn.Module
    adapted: Any
    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]

    def logits(self, network: nn.Module, **more: Any) -> Tensor:
        """The logits of the case's inputs, whatever the library wraps them in."""
        return logits_of(network(*self.args, **self.kwargs, **more))

    @property
    def subnets(self) -> list[SubNet]:
        """Base-net, super-net, and those that skip in one stage only: every stage's own flag counts.

        All sub-networks would be 64 of some families.
        """
        space = self.adapted.space
        return [space.smallest, *(s for s in space if sum(s.depth) == 1 and s != space.smallest), space.largest]


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


@torch.no_grad()
def differ(model: nn.Module) -> None:
    """Make the second norm sets differ from the first ones, as they do after training."""
    for name, tensor in model.state_dict().items():
        if ".skip." in name and tensor.is_floating_point():
            tensor.add_(0.1)


@pytest.fixture(
    scope="package",
    params=[
        pytest.param(family, id=family.name, marks=[pytest.mark.slow] if family.slow else []) for family in FAMILIES
    ],
)
def case(request: pytest.FixtureRequest) -> Case:
    family = request.param
    if family.name.startswith("transformers:"):
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    original = family.source().create().eval()
    pretend_trained(original)
    adapted = pliant.adapt_(copy.deepcopy(original), pliant.Depth())
    differ(adapted)
    return Case(family, original, adapted, *family.inputs())
