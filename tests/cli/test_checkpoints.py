"""A checkpoint file of other people goes through the commands as a run folder does."""

from __future__ import annotations

import json

import pytest
import torch

from pliant.create import create_model


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(create_model("pliant:resnet20", num_classes=2).state_dict(), path)
    return path


def test_measured_picked_and_exported(cli, checkpoint, image_folder) -> None:
    measured = cli("measure", checkpoint, "--data", image_folder, "--rounds", 1, "--threads", 1, "--json")
    assert measured.status == 0, measured.err
    rows = json.loads(measured.out)
    assert [row["subnet"] for row in (rows[0], rows[-1])] == ["TTT", "FFF"]
    picked = cli("pick", checkpoint, "--gmacs", 1, "--json")
    assert json.loads(picked.out)[0] in rows, picked.err
    exported = cli("export", checkpoint, checkpoint.with_name("net.pt2"), "--subnet", "TTF", "--json")
    assert exported.status == 0, exported.err
    assert checkpoint.with_name("net.pt2").is_file()


def test_a_checkpoint_that_was_not_measured(refused, checkpoint) -> None:
    assert "weights.pth.table.json does not exist: measure first" in refused("pick", checkpoint, "--gmacs", 1)
