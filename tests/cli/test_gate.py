from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import pliant
from pliant.checkpoint import read_info, save
from pliant.measure.gate_table import GateTable
from pliant.width.gates import gate_of


@pytest.fixture
def gate_folder(run_folder) -> Path:
    """A run folder with a network of two classes whose gate chooses among two widths."""
    return save(gated_network(), run_folder.parent / "gate", info=read_info(run_folder)["info"])


def gated_network() -> nn.Module:
    model = pliant.create_model("pliant:resnet20", num_classes=2, shortcut="projection")
    return pliant.adapt_(model, pliant.Width(choices=(0.5, 1.0), gate=pliant.Gate()))


def test_the_gate_and_every_width(cli, gate_folder, image_folder) -> None:
    arguments = ("--data", image_folder, "--policy", "gate", "--budgets", 1, "--rounds", 2, "--threads", 1)
    result = cli("measure", gate_folder, *arguments, "--json")
    assert result.status == 0, result.err
    gated, spent, *static = json.loads(result.out)
    assert spent["subnet"] == "gate" and static[0]["gmacs"] < spent["budget"] < static[1]["gmacs"]
    assert gated["subnet"] == "gate" and list(gated["shares"]) == ["width=0.5", "width=0.5/1.0/1.0"]
    assert [row["subnet"] for row in static] == ["width=0.5", "width=0.5/1.0/1.0", "width=1.0"]
    table = GateTable.load(gate_folder / "gate.json")
    assert table.rows == [gated, spent, *static] and table.info["rounds"] == 2
    equal = gated["equal_accuracy"]
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
        (("--budgets", 3, "--budget", 0.03), "--budgets is how many, --budget which"),
        (("--budget", 0.001), "budget 0.001 cannot be met"),
        (("--confidence", "margin"), "--confidence needs --policy confidence"),
        (("--calibrate",), "--calibrate needs --policy confidence"),
        (("--subnet", "width=0.5"), "--subnet does not go with --policy gate"),
        (("--split", "val"), "--split does not go with --policy"),
        (("--rounds", 0), "rounds=0"),
    ],
)
def test_options_that_do_not_fit(refused, gate_folder, image_folder, options, words) -> None:
    assert words in refused("measure", gate_folder, "--data", image_folder, "--policy", "gate", *options)


def test_a_network_without_a_gate(refused, run_folder, image_folder) -> None:
    assert "has no gate" in refused("measure", run_folder, "--data", image_folder, "--policy", "gate")


def test_a_budget_goes_into_a_file(cli, refused, gate_folder, image_folder, tmp_path) -> None:
    measured = ("--data", image_folder, "--policy", "gate", "--budgets", 2, "--rounds", 1)
    assert cli("measure", gate_folder, *measured).status == 0
    table, path = GateTable.load(gate_folder / "gate.json"), tmp_path / "net.onnx"
    row = table.budgets[-1]
    result = cli("export", gate_folder, path, "--policy", gate_folder / "gate.json", "--budget", row["budget"])
    assert result.status == 0, result.err
    network = pliant.load(gate_folder)
    gate_of(network).offsets.copy_(torch.tensor(row["offsets"]))
    session = onnxruntime.InferenceSession(path)
    for seed in range(8):
        image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        _, place = pliant.predict(network, image, policy="gate")
        assert session.run(["route"], {session.get_inputs()[0].name: image.numpy()})[0].item() == place.item()
    least = f"{table.budgets[0]['budget']:.4g}"
    options = ("--policy", gate_folder / "gate.json", "--budget", 0.001)
    assert f"budgets of {least}" in refused("export", gate_folder, tmp_path / "other.onnx", *options)
    options = ("--policy", "gate", "--budget", 0.02)
    assert "gate.json of a run" in refused("export", gate_folder, tmp_path / "other.onnx", *options)
    save(gated_network(), gate_folder, info=read_info(gate_folder)["info"])
    options = ("--policy", gate_folder / "gate.json", "--budget", row["budget"])
    assert "of fingerprint" in refused("export", gate_folder, tmp_path / "other.onnx", *options)
    assert not (tmp_path / "other.onnx").exists()
