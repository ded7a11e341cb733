"""DS-ResNet-50 is torchvision's ResNet-50 with norms of whole groups at every width."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torchvision.models import ResNet
from typer.testing import CliRunner

import pliant
from pliant.cli.app import app
from pliant.core.macs import count_macs
from pliant.create import ModelSource, identify


def test_its_widths_cost_what_is_published_for_slimmable_networks():
    result = CliRunner().invoke(app, ["describe", "pliant:ds_resnet50", "--axes", "width", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["subnet"] for row in rows] == ["width=0.25", "width=0.5", "width=0.75", "width=1.0"]
    # 278 million, 1.1, 2.3 and 4.1 billion.
    assert [float(f"{row['gmacs']:.2g}") for row in rows] == [0.28, 1.1, 2.3, 4.1]
    assert [row["gmacs"] for row in rows] == pytest.approx([0.278, 1.052, 2.323, 4.089], rel=0.002)


@pytest.fixture(scope="module")
def gated():
    torch.manual_seed(0)
    model = pliant.create_model("pliant:ds_resnet50", num_classes=10).eval()
    return pliant.adapt_(model, pliant.Width(gate=pliant.Gate()))


@torch.no_grad()
def test_every_width_is_a_smaller_resnet_with_whole_groups(gated):
    x = torch.randn(2, 3, 64, 64)
    macs = []
    for subnet in gated.subnets:
        network = pliant.extract(gated, subnet, share=True)
        assert type(network) is ResNet
        torch.testing.assert_close(network(x), gated(x, subnet=subnet), rtol=0, atol=0)
        norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
        assert len(norms) == 53
        assert all(norm.num_channels == len(norm.weight) == 16 * norm.num_groups for norm in norms)
        macs.append(count_macs(lambda network=network: network(x)))
    assert macs == sorted(set(macs))


def test_the_gate_chooses_among_four_routes(gated):
    behind = ["width=0.25", *(f"width=0.25/{width}/{width}/{width}" for width in (0.5, 0.75, 1.0))]
    assert [str(route) for route in gated.routes] == behind
    x = torch.randn(3, 3, 64, 64)
    logits, places = pliant.predict(gated, x, policy="gate")
    for image, answer, place in zip(x, logits, places, strict=True):
        expected = gated(image[None], subnet=gated.routes[place])[0]
        torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)


def test_its_name_is_found_again_although_its_class_is_torchvisions():
    source = ModelSource(name="pliant:ds_resnet50", num_classes=7)
    assert identify(source.create()) == source
