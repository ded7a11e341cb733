from __future__ import annotations

import json
from pathlib import Path

import pytest

import pliant
from pliant.checkpoint import read_info, save
from pliant.measure.gate_table import GateTable


@pytest.fixture
def gate_folder(run_folder) -> Path:
    """A run folder with a network of two classes whose gate chooses among two widths."""
    model = pliant.create_model("pliant:resnet20", num_classes=2, shortcut="projection")
    pliant.adapt_(model, pliant.Width(choices=(0.5, 1.0), gate=pliant.Gate()))
    return save(model, run_folder.parent / "gate", info=read_info(run_folder)["info"])


def test_the_gate_and_every_width(cli, gate_folder, image_folder) -> None:
    arguments = ("--data", image_folder, "--policy", "gate", "--rounds", 2, "--threads", 1)
    result = cli("measure", gate_folder, *arguments, "--json")
    assert result.status == 0, result.err
    gated, *static = json.loads(result.out)
    assert gated["subnet"] == "gate" and list(gated["shares"]) == ["width=0.5", "width=0.5/1.0/1.0"]
    assert [row["subnet"] for row in static] == ["width=0.5", "width=0.5/1.0/1.0", "width=1.0"]
    table = GateTable.load(gate_folder / "gate.json")
    assert table.rows == [gated, *static] and table.info["rounds"] == 2
    equal = table.equal_accuracy
    said = f"costs {equal['gmacs_ratio']:.2f} of the static width" if equal else "more accurate than every static width"
    assert said in result.err and "gate.json" in result.err
    assert not (gate_folder / "table.json").exists()


def test_for_people_and_a_page(cli, gate_folder, image_folder) -> None:
    result = cli("measure", gate_folder, "--data", image_folder, "--policy", "gate", "--rounds", 1)
    assert result.status == 0, result.err
    assert all(word in result.out for word in ("GMACs", "mean ms", "width=0.5 %")) and "in latency" in result.err
    result = cli("report", gate_folder)
    assert result.status == 0, result.err
    assert "What the gate buys" in (gate_folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budgets", 3), "--budgets needs --policy confidence"),
        (("--budget", 0.03), "--budget needs --policy confidence"),
        (("--confidence", "margin"), "--confidence needs --policy confidence"),
        (("--calibrate",), "--calibrate needs --policy confidence"),
        (("--subnet", "width=0.5"), "--subnet needs --policy confidence"),
        (("--split", "val"), "--split does not go with --policy"),
        (("--rounds", 0), "rounds=0"),
    ],
)
def test_options_that_do_not_fit(refused, gate_folder, image_folder, options, words) -> None:
    assert words in refused("measure", gate_folder, "--data", image_folder, "--policy", "gate", *options)


def test_a_network_without_a_gate(refused, run_folder, image_folder) -> None:
    assert "has no gate" in refused("measure", run_folder, "--data", image_folder, "--policy", "gate")
