"""Norms that count the images of all processes are those of the network that was named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pliant.create import ModelSource
from pliant.train.network import build_network
from pliant.train.recipe import Data, Model, Recipe


class TwoDevices:
    """Only the building is looked at: nothing runs in a second process, or on a CUDA device."""

    world_size, rank, device = 2, 0, torch.device("cuda")


@pytest.mark.parametrize("name", ["timm:efficientnet_b0", "timm:resnet26d", "torchvision:resnet18", "pliant:resnet20"])
def test_the_network_is_the_same(name):
    built: dict[bool, Any] = {}
    for sync in (False, True):
        model, data = Model(name=name), Data(source="digits", image_size=32)
        recipe = Recipe(model=model, data=data, epochs=1, sync_batchnorm=sync)
        source = ModelSource(name=name, num_classes=10)
        place: Any = TwoDevices()
        built[sync] = build_network(source, recipe, place, image_size=32, fresh=True).eval()
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in built[True].modules())
    built[True].load_state_dict(built[False].state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for subnet in ("largest", "smallest"):
            torch.testing.assert_close(built[True](x, subnet=subnet), built[False](x, subnet=subnet))
