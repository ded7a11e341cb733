"""`pliant export RUN FILE --policy POLICY`: one file that stops at the first sure answer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import pliant
from pliant.checkpoint import load, read_info, save
from pliant.core.fingerprint import fingerprint
from pliant.depth.config import Depth
from pliant.export import read_metadata
from pliant.measure.policy_table import PolicyTable
from pliant.policy.confidence import ConfidencePolicy

EXITS = ("exit=1", "exit=2", "exit=3")


@pytest.fixture
def exits_folder(run_folder) -> Path:
    """A run folder with a network of three exits and two classes."""
    model = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=2), pliant.Exits())
    return save(model, run_folder.parent / "exits", info=read_info(run_folder)["info"])


def policy_for(folder: Path, budget: float | None = None, **options) -> ConfidencePolicy:
    found = {"fingerprint": fingerprint(load(folder)), "budget": budget, "expected_cost": 0.021}
    given = {"subnets": EXITS, "thresholds": (0.6, 0.7, -math.inf), "num_classes": 2}
    return ConfidencePolicy(**(given | found | options))


@pytest.fixture
def policy(exits_folder, tmp_path) -> Path:
    policy_for(exits_folder).save(tmp_path / "policy.json")
    return tmp_path / "policy.json"


@pytest.fixture
def policies(exits_folder) -> Path:
    """What `pliant measure --policy` writes, for two budgets."""
    found = [policy_for(exits_folder, budget) for budget in (0.0201234, 0.0301234)]
    rows = [
        {"budget": one.budget, "gmacs": gmacs, "acc1": 51.0} for one, gmacs in zip(found, (0.02, 0.03), strict=True)
    ]
    PolicyTable(rows, [], found, {}).save(exits_folder / "policies.json")
    return exits_folder / "policies.json"


def test_a_policy(cli, exits_folder, policy, tmp_path) -> None:
    result = cli("export", exits_folder, tmp_path / "net.onnx", "--policy", policy, "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["subnets"] == list(EXITS)
    found = read_metadata(tmp_path / "net.onnx")
    assert ConfidencePolicy.from_dict(found["policy"]) == ConfidencePolicy.load(policy)
    assert found["gmacs"] == 0.021 and found["class_names"] == ["dark", "light"] and "acc1" not in found


# The second as `pliant measure` prints it, which is less than it is.
@pytest.mark.parametrize(("budget", "gmacs"), [(0.025, 0.02), ("0.03012", 0.03), (9, 0.03)])
def test_one_of_several_policies_by_its_budget(cli, exits_folder, policies, tmp_path, budget, gmacs) -> None:
    result = cli("export", exits_folder, tmp_path / "net.onnx", "--policy", policies, "--budget", budget)
    assert result.status == 0, result.err
    assert "first sure answer" in result.out
    found = read_metadata(tmp_path / "net.onnx")
    assert (found["gmacs"], found["acc1"]) == (gmacs, 51.0)


def refuses(refused, words: str, folder: Path, target: Path, *options: object) -> None:
    assert words in refused("export", folder, target, *options)
    assert not target.exists()
    assert not list(target.parent.glob(".pliant*"))


def test_what_chooses_no_policy(refused, exits_folder, policy, policies, tmp_path) -> None:
    target, both = tmp_path / "net.onnx", "holds policies for budgets of 0.02012, 0.03012 GMACs"
    refuses(refused, f"{both}; choose one with --budget", exits_folder, target, "--policy", policies)
    refuses(refused, f"{both}, none within", exits_folder, target, "--policy", policies, "--budget", 0.01)
    refuses(refused, "holds one policy; leave --budget out", exits_folder, target, "--policy", policy, "--budget", 1)
    refuses(refused, "add --policy with their file", exits_folder, target, "--budget", 1)


def test_what_is_no_policy(refused, exits_folder, tmp_path) -> None:
    target, file = tmp_path / "net.onnx", tmp_path / "policy.json"
    refuses(refused, f"{file}: no policy can be read here", exits_folder, target, "--policy", file)
    for text in ("{", "[]", '{"subnets": 3}', '{"policies": 3}'):
        file.write_text(text)
        refuses(refused, f"{file}: no polic", exits_folder, target, "--policy", file)


def test_what_does_not_go_with_a_policy(refused, run_folder, exits_folder, policy, tmp_path) -> None:
    target = tmp_path / "net.onnx"
    refuses(refused, "no sub-network 'exit=1'", run_folder, target, "--policy", policy)
    refuses(refused, "has to be ONNX", exits_folder, tmp_path / "net.pt2", "--policy", policy)
    refuses(refused, "one input at a time", exits_folder, target, "--policy", policy, "--batch", 4)
    refuses(refused, "subnet: not together", exits_folder, target, "--policy", policy, "--subnet", "exit=1")
    refuses(refused, "not with --policy", exits_folder, target, "--policy", policy, "--recalibrate", 4)


def test_other_networks(refused, run_folder, exits_folder, policy, tmp_path) -> None:
    target, info = tmp_path / "net.onnx", read_info(run_folder)["info"]
    retrained = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=2), pliant.Exits())
    refuses(refused, "fingerprint", save(retrained, tmp_path / "b", info=info), target, "--policy", policy)
    classes = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=3), Depth(), pliant.Exits())
    refuses(refused, "is for 2 classes", save(classes, tmp_path / "c", info={}), target, "--policy", policy)
    plain = save(pliant.create_model("pliant:resnet20", num_classes=2), tmp_path / "d", info=info)
    refuses(refused, "has no sub-networks", plain, target, "--policy", policy)
