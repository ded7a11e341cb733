"""DS-ViT: blocks of different widths in one residual stream."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pliant
from pliant.cli.app import app
from pliant.models.ds_vit import DSViT
from pliant.width.gates import gate_of

WIDTHS = ["width=0.5", "width=0.5/0.67", "width=0.5/0.83", "width=0.5/1.0", "width=1.0"]


@pytest.fixture
def x():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return adapted(pliant.Width())


def adapted(*configs):
    torch.manual_seed(0)
    network = DSViT(10, image_size=32, patch_size=8, head_dim=8, num_blocks=5, num_early=2).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return pliant.adapt_(network, *configs)


def test_the_whole_network_costs_what_a_deit_costs_and_each_width_less_than_the_next():
    result = CliRunner().invoke(app, ["describe", "pliant:ds_vit_small", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["subnet"] for row in rows] == WIDTHS
    assert [row["gmacs"] for row in rows] == pytest.approx([0.934, 1.386, 2.316, 3.683, 4.599], rel=0.002)
    assert rows[-1]["gmacs"] == pytest.approx(4.6, rel=0.02)  # DeiT-S
    assert rows[-1]["params_m"] == pytest.approx(22, rel=0.02)


@torch.no_grad()
def test_an_extracted_width_is_a_ds_vit_with_smaller_blocks(model, x):
    for subnet in model.subnets:
        network = pliant.extract(model, subnet)
        assert type(network) is DSViT
        assert torch.equal(network(x), model(x, subnet=subnet))
        early, late = network.blocks[1], network.blocks[2]
        heads = [round(6 * share) for share in subnet.width]
        assert [len(block.norm1.weight) for block in (early, late)] == [8 * count for count in heads]
        ratio = {3: 2, 4: 2, 5: 3, 6: 4}[heads[1]]
        assert late.mlp.expand.weight.shape == (8 * heads[1] * ratio, 8 * heads[1])
        assert late.attention.project.out_features == 8 * heads[1]
        assert network.norm.normalized_shape == (48,)


@torch.no_grad()
def test_idle_channels_pass_a_block_unchanged(model, x):
    seen = []
    block = model.get_submodule("blocks.3")
    block.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    model(x, subnet="width=0.5/0.67")
    before, after = seen[0]
    assert torch.equal(after[..., 32:], before[..., 32:])
    assert not torch.isclose(after[..., :32], before[..., :32]).any(0).all()
    model(x)
    assert not torch.equal(seen[1][1][..., 32:], seen[1][0][..., 32:])


@torch.no_grad()
def test_a_narrow_block_runs_views_of_its_weights(model, x):
    seen = {}
    for path in ("attention.query", "attention.value", "mlp.expand", "mlp.reduce", "norm1"):
        layer = model.get_submodule(f"blocks.0.{path}")
        layer.register_forward_pre_hook(lambda layer, args: seen.__setitem__(layer, layer.weight))
    model(x, subnet="smallest")
    assert len(seen) == 5
    for layer, running in seen.items():
        assert running.numel() < layer._parameters["weight"].numel()
        assert running.data_ptr() == layer._parameters["weight"].data_ptr()


@torch.no_grad()
def test_a_gate_chooses_the_late_blocks_image_by_image(x):
    model = adapted(pliant.Width(gate=pliant.Gate()))
    gate = gate_of(model)
    nn.init.normal_(gate.expand.weight, std=0.2)
    assert [str(route) for route in model.routes] == WIDTHS[:4]
    gate.choose.weight.copy_(torch.linalg.pinv(model.seen_by_gate(x)[1][:4]).T)  # image i takes route i
    logits, places = pliant.predict(model, x, policy="gate")
    assert places[:4].tolist() == [0, 1, 2, 3]
    every = torch.stack([model(x, subnet=route) for route in model.routes])
    torch.testing.assert_close(logits, every[places, torch.arange(len(x))], atol=1e-4, rtol=1e-4)
    for route in model.routes:
        torch.testing.assert_close(pliant.extract(model, route)(x), model(x, subnet=route), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("norms", ["statistics", "private"])
def test_widths_and_depths_multiply(norms, x):
    model = adapted(pliant.Width(norms=norms), pliant.Depth())
    assert len(model.subnets) == 5 * 4
    for subnet in model.subnets:
        assert torch.equal(pliant.extract(model, subnet)(x), model(x, subnet=subnet)), subnet


def test_every_width_learns(model, x):
    objective = pliant.Objective(model.train())
    objective(x, torch.arange(6)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 4}, "got heads=4, expected a multiple of 6"),
        ({"num_early": 12}, "got num_early=12, expected 1 to 11 of 12 blocks"),
        ({"image_size": 30}, "got image_size=30, expected a multiple of patch_size=16"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        DSViT(**options)


def test_it_brings_its_widths():
    with pytest.raises(ValueError, match=r"got \[0\.5, 1\.0\], but this DS-ViT brings its widths"):
        adapted(pliant.Width(choices=(0.5, 1.0)))
