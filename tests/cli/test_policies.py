from __future__ import annotations

import json
from pathlib import Path

import pytest

import pliant
from pliant.checkpoint import load, read_info, save
from pliant.cli.measure import Confidence
from pliant.core.fingerprint import fingerprint
from pliant.measure.policy_table import PolicyTable
from pliant.policy.certainty import MEASURES


@pytest.fixture
def exits_folder(run_folder) -> Path:
    """A run folder with a network of three exits and two classes."""
    model = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=2), pliant.Exits())
    return save(model, run_folder.parent / "exits", info=read_info(run_folder)["info"])


def test_a_row_a_budget(cli, exits_folder, image_folder) -> None:
    result = cli(
        "measure", exits_folder, "--data", image_folder, "--policy", "confidence", "--budgets", 3, "--rounds", 2,
        "--threads", 1, "--confidence", "margin", "--calibrate", "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    rows = json.loads(result.out)
    assert len(rows) == 3
    assert {"budget", "gmacs", "acc1", "latency_ms_mean", "latency_ms_p95", "shares"} <= set(rows[0])
    assert list(rows[0]["shares"]) == ["exit=1", "exit=2", "exit=3"]
    table = PolicyTable.load(exits_folder / "policies.json")
    assert table.rows == rows
    assert table.info["model"] == "pliant:resnet20" and table.info["threads"] == 1 and table.info["images"] == 8
    assert (table.policies[0].measure, len(table.policies[0].temperatures)) == ("margin", 3)
    table.policies[0].check(fingerprint=fingerprint(load(exits_folder)))
    assert not (exits_folder / "table.json").exists()


def test_for_people(cli, run_folder, image_folder) -> None:
    arguments = ("--data", image_folder, "--policy", "confidence", "--budgets", 1, "--rounds", 1)
    result = cli("measure", run_folder, *arguments, "--subnet", "TTT", "--subnet", "TFF", "--subnet", "FFF")
    assert result.status == 0, result.err
    assert all(word in result.out for word in ("GMACs", "mean ms", "TFF %")) and "policies.json" in result.err


def test_budgets_one_by_one(cli, exits_folder, image_folder) -> None:
    arguments = ("--data", image_folder, "--policy", "confidence", "--rounds", 1, "--json")
    result = cli("measure", exits_folder, *arguments, "--budget", 0.03, "--budget", 0.04)
    assert result.status == 0, result.err
    assert [row["budget"] for row in json.loads(result.out)] == [0.03, 0.04]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget", 0.03), "--budget needs --policy"),
        (("--policy", "confidence", "--budget", 0.03, "--budgets", 3), "--budgets is how many, --budget which"),
        (("--policy", "confidence", "--budget", 0.0001), "0.0001"),
        (("--budgets", 3), "--budgets needs --policy"),
        (("--subnet", "XXX"), "'XXX'"),
        (("--calibrate",), "--calibrate needs --policy"),
        (("--policy", "confidence", "--batch-size", 2), "--batch-size does not go with --policy"),
        (("--policy", "confidence", "--split", "val"), "--split does not go with --policy"),
        (("--policy", "confidence", "--recalibrate", 8), "--recalibrate does not go with --policy"),
        (("--policy", "confidence", "--budget-seconds", 3), "--budget-seconds does not go with --policy"),
        (("--policy", "confidence", "--no-energy"), "--no-energy does not go with --policy"),
        (("--policy", "confidence", "--meter", "plug.py:joules"), "--meter does not go with --policy"),
        (("--policy", "confidence", "--budgets", 0), "budgets=0"),
        (("--policy", "confidence", "--rounds", 0), "rounds=0"),
        (("--policy", "confidence", "--threads", 0), "threads=0"),
        (("--policy", "confidence", "--device", "abacus"), "abacus"),
        (("--policy", "confidence", "--subnet", "FFF", "--subnet", "XXX"), "no sub-network 'XXX'"),
        (("--policy", "confidence", "--subnet", "FFF"), "expected one each, of 2 or more"),
    ],
)
def test_options_that_do_not_fit(refused, run_folder, image_folder, options, words) -> None:
    assert words in refused("measure", run_folder, "--data", image_folder, *options)


def test_the_measures_of_the_command_are_those_of_the_library() -> None:
    assert [str(one.value) for one in Confidence] == list(MEASURES)
