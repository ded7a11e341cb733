"""Kernels larger than 3 run their centre at small widths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pliant
from pliant.core.macs import count_macs

HALF = (0.5, 1.0)
# The kernels that there are, and those that run at half of the width.
NETWORKS = {
    "torchvision:mobilenet_v3_small": ({1, 3, 5}, {1, 3}),
    "torchvision:efficientnet_b0": ({1, 3, 5}, {1, 3}),
    "timm:convnext_atto": ({1, 4, 7, 2}, {1, 4, 5, 2}),
    "timm:tf_efficientnet_b0": ({1, 3, 5}, {1, 3, 5}),  # two layers pad in a way of their own, and keep theirs
}


def sides(network: nn.Module) -> set[int]:
    return {module.kernel_size[0] for module in network.modules() if isinstance(module, nn.Conv2d)}


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_small_widths_have_small_kernels_and_cost_less(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    plain, model = (pliant.create_model(name, num_classes=5).eval() for _ in range(2))
    model.load_state_dict(plain.state_dict())
    expected = plain(x)
    pliant.adapt_(plain, pliant.Width(choices=HALF))
    pliant.adapt_(model, pliant.Width(choices=HALF, kernels=True))
    whole, small = NETWORKS[name]
    assert torch.equal(model(x), expected)
    assert sides(pliant.extract(model, "largest")) == whole
    network = pliant.extract(model, "width=0.5")
    assert sides(network) == small
    torch.testing.assert_close(network(x), model(x, subnet="width=0.5"), rtol=1e-5, atol=1e-5)
    macs = [count_macs(lambda one=one: one(x, subnet="width=0.5")) for one in (model, plain)]
    assert macs[0] < macs[1]
    assert count_macs(lambda: network(x)) == macs[0]


class Net(nn.Module):
    """A stem, and a block of one convolution."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, padding=2)
        self.layer1 = nn.Sequential(Block(**settings), Block(**settings))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.layer1(self.stem(x)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, **settings) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, **settings)

    def forward(self, x):
        return x + self.conv(x).relu()


def adapted(**settings):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    model = Net(**settings).eval()
    return pliant.adapt_(model, pliant.Width(choices=HALF, kernels=True), example=x), x


@torch.no_grad()
@pytest.mark.parametrize(
    ("settings", "kernel", "padding"),
    [
        ({"kernel_size": 5, "padding": 2}, (3, 3), (1, 1)),
        ({"kernel_size": 7, "padding": 6, "dilation": 2}, (5, 5), (4, 4)),
        ({"kernel_size": (1, 7), "padding": (0, 3), "padding_mode": "reflect"}, (1, 5), (0, 2)),
        ({"kernel_size": 5, "padding": "same"}, (3, 3), "same"),
        ({"kernel_size": 5, "padding": 2, "groups": 8}, (3, 3), (1, 1)),
    ],
)
def test_a_small_kernel_is_the_whole_one_without_its_rim(settings, kernel, padding) -> None:
    model, x = adapted(**settings)
    answer = model(x, subnet="width=0.5")
    network = pliant.extract(model, "width=0.5")
    layer = network.layer1[0].conv
    assert type(layer) is nn.Conv2d
    assert (layer.kernel_size, layer.padding, layer.weight.shape[2:]) == (kernel, padding, kernel)
    assert network.stem.kernel_size == (5, 5)
    assert repr(layer) == repr(
        nn.Conv2d(4, 4, **settings | {"kernel_size": kernel, "padding": padding} | _groups(settings))
    )
    assert torch.equal(network(x), answer)

    silent = Net(**settings).eval()
    silent.load_state_dict(pliant.extract(model, "largest").state_dict())
    for block in silent.layer1:
        weight = torch.zeros_like(block.conv.weight)
        rims = [(whole - less) // 2 for whole, less in zip(weight.shape[2:], kernel, strict=True)]
        inside = tuple(slice(rim, size - rim) for rim, size in zip(rims, weight.shape[2:], strict=True))
        weight[(..., *inside)] = block.conv.weight[(..., *inside)]
        block.conv.weight.copy_(weight)
    half = pliant.adapt_(silent, pliant.Width(choices=HALF), example=x)
    torch.testing.assert_close(half(x, subnet="width=0.5"), answer)


def _groups(settings):
    return {"groups": 4} if "groups" in settings else {}


def test_the_centre_is_a_view_that_learns() -> None:
    model, x = adapted(kernel_size=5, padding=2)
    layer = model.get_submodule("layer1.0.conv")
    seen = []
    layer.register_forward_pre_hook(lambda layer, args: seen.append(layer.weight))
    model(x, subnet="width=0.5").sum().backward()
    whole = layer._parameters["weight"]
    assert seen[0].shape == (4, 4, 3, 3)
    assert seen[0].data_ptr() == whole[:, :, 1:, 1:].data_ptr()
    assert whole.grad[:4, :4, 1:4, 1:4].abs().sum() > 0
    rim = whole.grad.clone()
    rim[:, :, 1:4, 1:4] = 0
    assert not rim.any()


def test_a_saved_network_has_the_same_kernels(tmp_path) -> None:
    model = pliant.create_model("torchvision:mobilenet_v3_small", num_classes=5).eval()
    pliant.adapt_(model, pliant.Width(choices=HALF, kernels=True))
    loaded = pliant.load(pliant.save(model, tmp_path)).eval()
    assert sides(pliant.extract(loaded, "width=0.5")) == {1, 3}
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x, subnet="width=0.5"), model(x, subnet="width=0.5"))


def test_a_gate_chooses_kernels_too() -> None:
    torch.manual_seed(0)
    model = pliant.create_model("torchvision:mobilenet_v3_small", num_classes=5).eval()
    pliant.adapt_(model, pliant.Width(choices=HALF, kernels=True, gate=pliant.Gate()))
    x = torch.randn(3, 3, 64, 64)
    logits, places = pliant.predict(model, x, policy="gate")
    every = torch.stack([model(x, subnet=route) for route in model.routes])
    torch.testing.assert_close(logits, every[places, torch.arange(3)], atol=1e-5, rtol=1e-4)
    assert sides(pliant.extract(model, model.routes[0])) == {1, 3}
    assert sides(pliant.extract(model, model.routes[1])) == {1, 3, 5}


@pytest.mark.parametrize("name", ["pliant:ds_vit_cifar10", "torchvision:resnet18"])
def test_a_network_without_large_kernels_is_refused(name: str) -> None:
    model = pliant.create_model(name)  # the one of ResNet that is larger reads the images
    keys, kind = list(model.state_dict()), type(model)
    with pytest.raises(ValueError, match=r"Width\.kernels: got true, but this .* has no kernel larger than 3"):
        pliant.adapt_(model, pliant.Width(kernels=True))
    assert list(model.state_dict()) == keys
    assert type(model) is kind
