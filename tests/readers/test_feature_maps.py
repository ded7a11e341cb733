"""Backbones that return feature maps: a sub-network that is taken out returns the same ones."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

import pliant

IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x))


class Own(nn.Module):
    """Returns the outputs of some blocks, by their number, in a list or a dictionary."""

    def __init__(self, form: type) -> None:
        super().__init__()
        self.stem, self.blocks, self.form = nn.Conv2d(3, 8, 8, 8), nn.ModuleList(Block() for _ in range(6)), form

    def forward(self, x: Tensor) -> Any:
        x, maps = self.stem(x), {}
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in (1, 4, 5):
                maps[f"block{number}"] = x
        return maps if self.form is dict else list(maps.values())


RESNET = {"hidden_sizes": [8, 16, 24, 32], "depths": [2, 2, 3, 2], "embedding_size": 8}
SWIN = {"embed_dim": 12, "depths": [2, 2, 4, 2], "num_heads": [1, 2, 3, 4], "window_size": 4, "image_size": 64}
VIT = {"hidden_size": 16, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 64}
NAMED = {"out_features": ["stage1", "stage4"]}
VIT_OPTIONS = {"img_size": 64, "embed_dim": 48, "depth": 8, "num_heads": 2}

BACKBONES = {
    "timm resnet": lambda: timm.create_model("resnet18", features_only=True),
    "timm resnet, two of them": lambda: timm.create_model("resnet18", features_only=True, out_indices=(1, 3)),
    "timm vit": lambda: timm.create_model("vit_tiny_patch16_224", features_only=True, **VIT_OPTIONS),
    "transformers resnet": lambda: transformers.ResNetBackbone(transformers.ResNetConfig(**RESNET, **NAMED)),
    "transformers swin": lambda: transformers.SwinBackbone(transformers.SwinConfig(**SWIN, **NAMED)),
    "own list": lambda: Own(list),
    "own dictionary": lambda: Own(dict),
}


def maps_of(output: Any) -> list[Tensor]:
    output = getattr(output, "feature_maps", output)
    return list(output.values()) if isinstance(output, dict) else list(output)


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_every_sub_network_returns_the_same_maps_when_it_is_taken_out(name):
    torch.manual_seed(0)
    backbone = BACKBONES[name]().eval()
    expected = maps_of(backbone(IMAGES))
    model: Any = pliant.adapt_(backbone, pliant.Depth(), example=IMAGES).eval()
    assert all(map(torch.equal, maps_of(model(IMAGES)), expected))
    some = {model.subnets[0], model.subnets[1], model.subnets[len(model.subnets) // 2], model.subnets[-1]}
    for subnet in some:
        maps, taken_out = maps_of(model(IMAGES, subnet=subnet)), maps_of(pliant.extract(model, subnet)(IMAGES))
        assert len(taken_out) == len(maps) == len(expected)
        assert [one.shape for one in maps] == [one.shape for one in expected]
        assert all(map(torch.equal, taken_out, maps)), subnet


@pytest.mark.parametrize(
    "make",
    [
        lambda: transformers.Dinov2Backbone(transformers.Dinov2Config(**VIT, out_features=["stage2", "stage8"])),
        lambda: transformers.BeitBackbone(transformers.BeitConfig(**VIT, out_features=["stage2", "stage8"])),
    ],
    ids=["read", "traced"],
)
def test_maps_of_layers_by_their_number_are_refused_in_one_line(make):
    model = make().eval()
    before = type(model)
    with pytest.raises(ValueError, match=rf"^[^\n]*{before.__name__}[^\n]*(number|counted)[^\n]*$"):
        pliant.adapt_(model, pliant.Depth(), example=IMAGES)
    assert type(model) is before


def test_a_backbone_with_maps_is_measured_and_saved(tmp_path):
    model = pliant.adapt_(BACKBONES["own list"]().eval(), pliant.Depth(groups=2), example=IMAGES)
    table = pliant.measure(model, rounds=6, energy=False)
    assert len(table.rows) == 4 and table.rows[0]["gmacs"] < table.rows[-1]["gmacs"]
    with pytest.raises(ValueError, match=r"returns a list; expected logits"):
        pliant.export(model, tmp_path / "net.onnx")
