from __future__ import annotations

import json

import pytest

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


@pytest.mark.parametrize("option", [("--threads", 0), ("--rounds", 0), ("--batch-size", 0), ("--device", "abacus")])
def test_impossible_conditions(refused, run_folder, image_folder, option: tuple[str, object]) -> None:
    assert str(option[1]) in refused("measure", run_folder, "--data", image_folder, *option)
