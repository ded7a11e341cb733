from __future__ import annotations

import json

import pytest
import torch

from pliant.checkpoint import load, read_info, save
from pliant.cli.measure import load_data_of
from pliant.create import ModelSource
from pliant.data import load_data
from pliant.export import read_metadata
from pliant.extract import extract
from pliant.measure.table import Table


def test_a_table_of_all_sub_networks(cli, run_folder, image_folder) -> None:
    result = cli("measure", run_folder, "--data", image_folder, "--rounds", 2, "--threads", 1, "--json")
    assert result.status == 0, result.err
    rows = json.loads(result.out)
    assert (rows[0]["subnet"], rows[-1]["subnet"], len(rows)) == ("TTT", "FFF", 8)
    assert {"gmacs", "params_m", "acc1", "latency_ms", "latency_ms_p95", "peak_memory_mb"} <= set(rows[0])
    table = Table.load(run_folder / "table.json")
    assert table.rows == rows
    assert table.info["split"] == "test"
    assert table.info["threads"] == 1


def test_for_people(cli, run_folder, image_folder) -> None:
    result = cli("measure", run_folder, "--data", image_folder, "--rounds", 1, "--split", "val")
    assert result.status == 0, result.err
    assert "GMACs" in result.out
    assert "pliant pick" in result.err


def test_a_run_that_names_no_data(refused, run_folder) -> None:
    assert "--data" in refused("measure", run_folder)


def test_another_number_of_classes(refused, run_folder) -> None:
    line = refused("measure", run_folder, "--data", "digits", "--rounds", 1)
    assert "2" in line
    assert "10" in line


def test_data_that_is_not_there(refused, run_folder, tmp_path) -> None:
    assert "never" in refused("measure", run_folder, "--data", tmp_path / "never")


def test_a_run_that_is_not_there(refused, tmp_path) -> None:
    assert "never" in refused("measure", tmp_path / "never", "--data", "digits")


def test_as_long_as_one_says(cli, run_folder, image_folder) -> None:
    result = cli("measure", run_folder, "--data", image_folder, "--budget-seconds", 0.5, "--no-energy")
    assert result.status == 0, result.err
    info = Table.load(run_folder / "table.json").info
    assert info["budget_seconds"] == 0.5 and info["rounds"] >= 6
    assert "No energy" not in result.err and "no_energy" not in info
    assert "low ms" in result.out and "p75" not in result.out


def test_energy_by_a_meter_of_ones_own_or_why_there_is_none(cli, refused, run_folder, image_folder, tmp_path) -> None:
    (tmp_path / "plug.py").write_text(
        "import time\n\n\ndef joules():\n    return 10 * time.monotonic()\n\n\ndef broken():\n    pass\n"
    )
    model = load(run_folder)
    info = read_info(run_folder)["info"]
    source = ModelSource(name="pliant:resnet20", num_classes=2)
    alone = save(
        extract(model, "TTT"), tmp_path / "alone", only="TTT", adapted_with=model.configs, source=source, info=info
    )
    common = ("measure", alone, "--data", image_folder, "--rounds", 1)
    result = cli(*common, "--meter", f"{tmp_path / 'plug.py'}:joules")
    assert result.status == 0, result.err
    assert "energy mJ" in result.out and "No energy" not in result.err
    table = Table.load(alone / "table.json")
    assert table.rows[0]["energy_mj"] > 0 and table.info["energy_of"] == "joules"
    result = cli(*common)
    assert "No energy: there is no RAPL counter" in result.err and "energy" not in result.out
    assert "there is no function 'jules'" in refused(*common, "--meter", f"{tmp_path / 'plug.py'}:jules")
    assert "does not go with --no-energy" in refused(*common, "--no-energy", "--meter", "plug.py:joules")
    assert "returned None; expected joules" in refused(*common, "--meter", f"{tmp_path / 'plug.py'}:broken")


@pytest.mark.parametrize(
    "option",
    [("--threads", 0), ("--rounds", 0), ("--batch-size", 0), ("--device", "abacus"), ("--budget-seconds", -1)],
)
def test_impossible_conditions(refused, run_folder, image_folder, option: tuple[str, object]) -> None:
    assert str(option[1]) in refused("measure", run_folder, "--data", image_folder, *option)


def test_a_network_trained_on_its_own_is_called_by_its_sub_network(cli, run_folder, image_folder, tmp_path) -> None:
    model = load(run_folder)
    source = ModelSource(name="pliant:resnet20", num_classes=2)
    info = read_info(run_folder)["info"]
    alone = save(
        extract(model, "TFT"), tmp_path / "alone", only="TFT", adapted_with=model.configs, source=source, info=info
    )
    result = cli("measure", alone, "--data", image_folder, "--rounds", 1, "--json")
    assert result.status == 0, result.err
    assert [row["subnet"] for row in json.loads(result.out)] == ["TFT"]
    assert Table.load(alone / "table.json").info["model"] == "pliant:resnet20"


def test_an_exported_file_says_what_was_measured(cli, run_folder, image_folder, tmp_path) -> None:
    cli("measure", run_folder, "--data", image_folder, "--rounds", 1, "--json")
    assert cli("export", run_folder, tmp_path / "net.pt2", "--subnet", "TTF").status == 0
    row = next(row for row in Table.load(run_folder / "table.json").rows if row["subnet"] == "TTF")
    metadata = read_metadata(tmp_path / "net.pt2")
    assert (metadata["acc1"], metadata["gmacs"]) == (row["acc1"], row["gmacs"])
    assert metadata["model"] == "pliant:resnet20"
    # The table of a network that has changed since says nothing of this one.
    model = load(run_folder)
    model.fc.bias.data += 1
    save(model, run_folder, info=read_info(run_folder)["info"])
    assert cli("export", run_folder, tmp_path / "later.pt2", "--subnet", "TTF").status == 0
    assert "acc1" not in read_metadata(tmp_path / "later.pt2")


def test_other_data_are_normalised_as_those_the_network_was_trained_on(run_folder, image_folder) -> None:
    info = read_info(run_folder)["info"]
    images = load_data_of(run_folder, str(image_folder), info)
    assert (list(images.mean), list(images.std)) == (info["mean"], info["std"])
    own = load_data(image_folder, image_size=16)
    for name in ("train", "val", "test"):
        (batch, _), (raw, _) = (next(getattr(data, name).batches(4)) for data in (images, own))
        pixels = raw * torch.tensor(own.std).view(3, 1, 1) + torch.tensor(own.mean).view(3, 1, 1)
        torch.testing.assert_close(batch, (pixels - 0.5) / 0.5)


def test_images_are_scaled_as_the_recipe_of_the_run_says(run_folder, image_folder) -> None:
    (run_folder / "recipe.yaml").write_text(
        "model: {name: 'pliant:resnet20'}\nepochs: 1\n"
        f"data: {{source: '{image_folder}', resize: 120, interpolation: bicubic}}\n"
    )
    images = load_data_of(run_folder, None, read_info(run_folder)["info"])
    assert images.test is not None
    assert (images.test.style.resize, images.test.style.interpolation) == (120, "bicubic")


def test_some_sub_networks_alone(cli, run_folder, image_folder) -> None:
    options = ("--data", image_folder, "--rounds", 1, "--no-energy", "--json")
    assert "more sub-networks" not in cli("measure", run_folder, *options).err
    result = cli("measure", run_folder, *options, "--subnet", "FFF", "--subnet", "TTF")
    assert [row["subnet"] for row in json.loads(result.out)] == ["TTF", "FFF"]
    assert [row["subnet"] for row in Table.load(run_folder / "table.json").rows] == ["TTF", "FFF"]
    assert "table.json had 6 more sub-networks: it is table.before.json now" in result.err
    assert len(Table.load(run_folder / "table.before.json").rows) == 8
    (run_folder / "table.json").write_text("{")
    assert cli("measure", run_folder, *options, "--subnet", "FFF").status == 0, "a damaged table is in nobody's way"


def test_other_classes_are_refused_by_name(refused, run_folder, image_folder) -> None:
    for part in ("train", "test"):
        (image_folder / part / "light").rename(image_folder / part / "loud")
    line = refused("measure", run_folder, "--data", image_folder)
    assert "'loud'" in line
    assert "'light'" in line


def test_an_exported_file_is_measured_and_picked_from(cli, refused, run_folder, image_folder, tmp_path) -> None:
    net = tmp_path / "net.onnx"
    assert cli("export", run_folder, net, "--switchable").status == 0
    options = ("--data", image_folder, "--rounds", 2, "--threads", 1)
    result = cli("measure", net, *options, "--json")
    assert result.status == 0, result.err
    rows = json.loads(result.out)
    assert (rows[0]["subnet"], rows[-1]["subnet"], len(rows)) == ("TTT", "FFF", 8)
    assert {"gmacs", "params_m", "acc1", "latency_ms", "latency_ms_p95", "file_mb"} <= set(rows[0])
    assert Table.load(tmp_path / "net.onnx.table.json").rows == rows
    few = json.loads(cli("measure", net, *options, "--subnet", "TTF", "--subnet", "TTT", "--json").out)
    assert [row["subnet"] for row in few] == ["TTT", "TTF"]
    assert "allowed are TTT, FTT" in refused("measure", net, *options, "--subnet", "TT")
    picked = cli("pick", net, "--gmacs", rows[0]["gmacs"], "--json")
    assert json.loads(picked.out)[0]["subnet"] == "TTT"
    itself = cli("measure", net, *options, "--beside", net, "--subnet", "TTF", "--json")
    assert [row["subnet"] for row in json.loads(itself.out)] == ["TTF"]
    assert "ONNX Runtime" in cli("measure", net, *options).out
    result = cli("measure", net, "--data", image_folder, "--budget-seconds", 0.3)
    assert "No energy: there is no RAPL counter" in result.err
    assert Table.load(tmp_path / "net.onnx.table.json").info["budget_seconds"] == 0.3
    assert "budget_seconds=-1" in refused("measure", net, "--data", image_folder, "--budget-seconds", -1)
    assert "--data" in refused("measure", net)
    assert "--device is for networks" in refused("measure", net, *options, "--device", "cuda")
    assert "--runtime is for exported files" in refused("measure", run_folder, *options, "--runtime", "openvino")
    assert "classes" in refused("measure", net, "--data", "digits", "--rounds", 1)


def test_an_int8_file_beside_the_same_in_float32(cli, refused, run_folder, image_folder, tmp_path) -> None:
    plain, small = tmp_path / "net.onnx", tmp_path / "int8.onnx"
    assert cli("export", run_folder, plain, "--subnet", "TTT").status == 0
    quantize = ("export", run_folder, small, "--subnet", "TTT", "--data", image_folder)
    assert cli(*quantize, "--int8", 8, "--tolerance", 1).status == 0
    result = cli("measure", plain, "--beside", small, "--data", image_folder, "--rounds", 1, "--json")
    assert [(row["subnet"], row["precision"]) for row in json.loads(result.out)] == [
        ("TTT", "float32"),
        ("TTT", "int8"),
    ]
    assert "allowed are 1 to 14" in refused(*quantize, "--int8", 1000)
