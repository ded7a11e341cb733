"""Which images leave where, as small pictures in the file of the policies."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import pliant
from pliant.measure.policies import measure_policies
from pliant.measure.policy_table import PolicyTable
from pliant.policy.certainty import confidence_of
from pliant.policy.runner import all_logits

from .conftest import FixedData, FixedSplit

CLASSES = ("none", "one", "two")
EXITS = ["exit=1", "exit=2", "exit=3"]


@dataclass
class Choosable(FixedSplit):
    def subset(self, rows: torch.Tensor) -> Choosable:
        return Choosable(self.images[rows], self.labels[rows])


def split(count: int, seed: int, side: int = 16) -> Choosable:
    """Images of bytes, normalised as those of data sets are."""
    pixels = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed))
    return Choosable((pixels / 255 - 0.5) / 0.25, torch.arange(count) % 3)


@pytest.fixture(scope="module")
def exits() -> torch.nn.Module:
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=3), pliant.Exits()).eval()


@pytest.fixture(scope="module")
def data() -> FixedData:
    return FixedData(CLASSES, val=split(40, 1), test=split(60, 2), image_size=16)


def picture(example) -> Image.Image:
    return Image.open(BytesIO(b64decode(example["png"])))


@pytest.mark.parametrize("calibrate", [False, True])
def test_the_first_images_of_each_exit_with_what_was_answered(exits, data, calibrate):
    table = measure_policies(exits, data, budgets=3, rounds=0, measure="margin", calibrate=calibrate)
    policy = table.policies[1]
    logits = all_logits(exits, data.test.images, EXITS)
    answers, chosen = policy.apply(logits)
    assert {example["row"] for example in table.examples} == {1}, "of the policy in the middle"
    for place, subnet in enumerate(EXITS):
        found = [example for example in table.examples if example["subnet"] == subnet]
        indices = [index for index in range(60) if chosen[index] == place][:8]
        assert indices and [example["index"] for example in found] == indices, "none chosen by hand"
        sure = confidence_of(logits[place], "margin", policy.temperatures[place] if calibrate else 1.0)
        for example in found:
            assert example["label"] == CLASSES[example["index"] % 3]
            assert example["predicted"] == CLASSES[answers[example["index"]].argmax()]
            assert example["certainty"] == pytest.approx(float(sure[example["index"]]), rel=1e-5)
            assert example["certainty"] >= policy.thresholds[place]
    assert any(sum(example["subnet"] == subnet for example in table.examples) == 8 for subnet in EXITS)


def test_pictures_are_the_images_of_before_they_were_normalised(exits, data):
    for example in measure_policies(exits, data, budgets=3, rounds=0).examples:
        pixels = torch.from_numpy(np.array(picture(example))).permute(2, 0, 1)
        assert torch.equal(pixels, ((data.test.images[example["index"]] * 0.25 + 0.5) * 255).round().byte())


def test_grey_images_stay_grey_and_large_ones_become_small(exits, data):
    test = split(4, 3, side=96)
    test.images[:] = test.images[:, :1]
    examples = measure_policies(exits, replace(data, test=test), budgets=1, rounds=0).examples
    assert examples and all((picture(one).mode, picture(one).size) == ("L", (64, 64)) for one in examples)


def test_the_file_holds_them_and_older_files_without_them_are_read(exits, data, tmp_path):
    table = measure_policies(exits, data, budgets=3, rounds=0)
    path = tmp_path / "policies.json"
    table.save(path)
    assert PolicyTable.load(path) == table and table.examples
    document = json.loads(path.read_text())
    del document["examples"]
    path.write_text(json.dumps(document))
    assert PolicyTable.load(path) == replace(table, examples=[])
    path.write_text(json.dumps(document | {"examples": 5}))
    with pytest.raises(ValueError, match=r"policies\.json: no policies can be read here"):
        PolicyTable.load(path)
