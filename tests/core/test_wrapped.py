"""What torch wraps around a network is refused where a network is expected, with the name of what to pass."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import pliant


@pytest.fixture(scope="module")
def network():
    return pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth())


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A group of one, which DistributedDataParallel asks for."""
    meeting = tmp_path_factory.mktemp("meeting") / "place"
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


CALLERS = {
    "extract": lambda model, folder: pliant.extract(model, "TTT"),
    "recalibrated": lambda model, folder: pliant.recalibrated(model, "FTT", [torch.rand(2, 3, 32, 32)]),
    "recalibrate_": lambda model, folder: pliant.recalibrate_(model, [torch.rand(2, 3, 32, 32)]),
    "export": lambda model, folder: pliant.export(model, folder / "net.pt2", image_size=32),
    "measure": lambda model, folder: pliant.measure(model, image_size=32, rounds=1),
    "save": lambda model, folder: pliant.save(model, folder / "run"),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_each_says_what_to_pass(network, one_process, tmp_path, caller):
    compiled = cast(nn.Module, torch.compile(network, backend="eager"))
    expected = {
        DistributedDataParallel(network): "got a DistributedDataParallel around .*: pass its .module",
        DataParallel(network): "got a DataParallel around .*: pass its .module",
        AveragedModel(network): "got an AveragedModel around .*: pass its .module",
        DataParallel(compiled): "got a DataParallel around .*: pass its .module._orig_mod",
        compiled: "got a compiled AdaptiveCifarResNet, .*that torch.compile was given, which is its ._orig_mod",
    }
    for wrapped, said in expected.items():
        with pytest.raises(ValueError, match=f"^{caller}: {said}$"):
            CALLERS[caller](wrapped, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plain_network_is_told_the_same(network):
    wrapped = DataParallel(pliant.extract(network, "TTT"))
    with pytest.raises(ValueError, match=r"a DataParallel around a network of class CifarResNet.*pass its .module"):
        pliant.measure(wrapped, image_size=32)


def test_what_is_said_to_be_passed_works(network):
    pliant.extract(DataParallel(network).module, "TTT")
    pliant.extract(torch.compile(network, backend="eager")._orig_mod, "TTT")
