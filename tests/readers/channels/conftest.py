"""What cuts networks by their groups of channels: written apart from the library's own trial."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pliant.core.anatomy import ChannelGroup, Cut

Kept = Callable[[int, ChannelGroup], int]


def split_up(tensor: Tensor, cut: Cut) -> Tensor:
    """Return the tensor with the dimension of a cut as three: parts, units, entries of a unit."""
    assert cut.dim is not None
    return tensor.detach().unflatten(cut.dim, (cut.parts, -1, cut.per_unit))


def cut_down(model: nn.Module, groups: Iterable[ChannelGroup], kept: Kept) -> nn.Module:
    """Return a copy in which each group has the first units that `kept` tells."""
    model = copy.deepcopy(model)
    for index, group in enumerate(groups):
        units = kept(index, group)
        for cut in group.cuts:
            module = model.get_submodule(cut.path)
            value: Any = getattr(module, cut.name)
            if cut.dim is None:
                (before,) = value if isinstance(value, tuple) else (value,)
                assert before == cut.parts * group.units * cut.per_unit
                number = cut.parts * units * cut.per_unit
                setattr(module, cut.name, (number,) if isinstance(value, tuple) else number)
                continue
            divided = split_up(value, cut)
            assert divided.shape[cut.dim + 1] == group.units
            smaller = divided.narrow(cut.dim + 1, 0, units).flatten(cut.dim, cut.dim + 2).clone()
            setattr(module, cut.name, nn.Parameter(smaller) if isinstance(value, nn.Parameter) else smaller)
    return model


def silence(model: nn.Module, groups: Iterable[ChannelGroup], kept: Kept) -> nn.Module:
    """Return a copy in which all that would be cut off gives zeros: what layers and norms give out lies in dim 0."""
    model = copy.deepcopy(model)
    for index, group in enumerate(groups):
        units = kept(index, group)
        for cut in group.cuts:
            value = getattr(model.get_submodule(cut.path), cut.name)
            if cut.dim == 0 and isinstance(value, nn.Parameter):
                split_up(value, cut).narrow(1, units, group.units - units).zero_()
    return model


def half(index: int, group: ChannelGroup) -> int:
    return max(1, group.units // 2)


def everything(index: int, group: ChannelGroup) -> int:
    return group.units


def mixed(index: int, group: ChannelGroup) -> int:
    return max(1, group.units * (3 - index % 3) // 4)


@torch.no_grad()
def with_statistics(model: nn.Module) -> nn.Module:
    """Give all parameters and statistics values of about 1, as outputs have then too, so that mistakes show."""
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.dim() > 1 and isinstance(tensor, nn.Parameter):
                tensor.normal_(std=tensor[0].numel() ** -0.5, generator=generator)
            elif tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator)
                if name in ("bias", "running_mean"):
                    tensor.sub_(1)
    return model.eval()


@pytest.fixture(scope="session")
def own() -> ModuleType:
    """The networks of people, which the tests of the traced reader have as well."""
    spec = importlib.util.spec_from_file_location("own_networks", Path(__file__).parent.parent / "own_networks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("own_networks", module)  # its dataclasses ask for it
    spec.loader.exec_module(module)
    return module
