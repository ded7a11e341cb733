"""A network of one's own at the shell: described by its name, trained by a recipe, and only run where it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import pliant

NETWORK = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()


def make_net(num_classes=10, width=8):
    blocks = [Block(width) for _ in range(4)]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.Sequential(*blocks), pool, nn.Linear(width, num_classes))
"""
NAME = "my_net.py:make_net"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_described_by_its_name(cli, refused, folder) -> None:
    said = cli("describe", NAME, "--image-size", "16")
    assert "4 sub-networks" in said.out
    assert "1.0-1: 2 Block (1 mandatory, 1 skippable), 8 channels" in said.out
    row = json.loads(cli("describe", NAME, "--image-size", "16", "--json").out)[0]
    assert row["subnet"] == "TT" and len(row["stages"]) == 2
    assert "say it with --image-size" in refused("describe", NAME)
    assert "at least 1" in refused("describe", NAME, "--image-size", "0")


@pytest.mark.parametrize("only", ["", "smallest"], ids=["adaptive", "alone"])
def test_it_is_trained_by_a_recipe_and_needs_its_name_again(
    cli, refused, folder, image_folder, monkeypatch, only
) -> None:
    recipe = {"model": {"name": NAME}, "data": {"source": str(image_folder)}, "epochs": 1, "batch_size": 4}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | ({"only": only} if only else {})))
    monkeypatch.setenv("PLIANT_CACHE", str(folder / "cache"))
    trained = cli("train", "--recipe", "recipe.yaml", "--out", "run")
    assert trained.status == 0, trained.err
    assert f"made by {NAME}, which is code" in refused("describe", "run")
    described = cli("describe", "run", "--model", NAME)
    assert described.status == 0, described.err
    assert ("Block" in described.out) == (not only)
    model = pliant.load("run", model=NAME)
    assert len(model[1]) == (2 if only else 4) and model[3].out_features == 2
    for command in (("measure", "run", "--rounds", "1"), ("export", "run", "net.pt2")):
        result = cli(*command, "--model", NAME)
        assert result.status == 0, result.err
