"""Contract 5. A classifier that is replaced after `adapt_`, for other classes: followed, or refused by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import pliant
from pliant.measure.policies import find_policies


def with_seven_classes(config: Any) -> Any:
    torch.manual_seed(0)
    model: Any = pliant.adapt_(pliant.create_model("torchvision:resnet18", num_classes=10), config).eval()
    model.fc = nn.Linear(512, 7)
    return model


def test_a_network_of_depths_follows(tmp_path):
    model, x = with_seven_classes(pliant.Depth()), torch.randn(16, 3, 32, 32)
    policy = find_policies(model, x, torch.arange(16) % 7, budgets=2, subnets=("TTTT", "FFFF"))[0]
    logits, _ = pliant.predict(model, x, policy)
    assert logits.shape == (16, 7)
    again: Any = pliant.load(pliant.save(model, tmp_path))
    with torch.no_grad():
        for subnet in ("smallest", "largest"):
            expected = model(x, subnet=subnet)
            assert torch.equal(again(x, subnet=subnet), expected)
            assert torch.equal(pliant.extract(model, subnet)(x), expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (pliant.Exits(), "save: "),
        (pliant.Exits(collaboration="linear"), "save: module 'fc' was replaced after pliant.adapt_ by a Linear"),
        (pliant.Width(choices=(0.5, 1.0)), "save: module 'fc' was replaced after pliant.adapt_ by a Linear"),
    ],
    ids=["exits", "exits that collaborate", "width"],
)
def test_others_are_not_saved(tmp_path, config, expected):
    """Exits keep ten classes, and a narrow width has too few features for the new classifier."""
    model = with_seven_classes(config)
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        pliant.save(model, tmp_path / "saved")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "saved" / "pliant.json").exists()
