"""The commands on a run of 2^32 sub-networks: what lists them shows a few and their number, or says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pliant
from pliant.measure import describe as description

COUNT = 2**32


@pytest.fixture
def run(huge, huge_source, tmp_path: Path) -> Path:
    return pliant.save(huge, tmp_path / "run", source=huge_source, info={"image_size": 32})


def test_describe_shows_the_number_and_not_the_list(cli, run, monkeypatch) -> None:
    monkeypatch.setattr(description, "FEW", 2)  # each of 8 takes a second
    shown = cli("describe", run)
    assert f"{COUNT} sub-networks in" in shown.out
    assert f"2 of {COUNT}, evenly spaced from the smallest to the largest; others: --subnet" in shown.out
    rows = json.loads(cli("describe", run, "--json").out)
    assert [row["subnet"] for row in rows] == ["T" * 32, "F" * 32]
    assert {row["num_subnets"] for row in rows} == {COUNT}


def test_describe_shows_those_that_are_named(cli, refused, run) -> None:
    shown = cli("describe", run, "--subnet", "largest")
    assert f"{COUNT} sub-networks in" in shown.out and "evenly spaced" not in shown.out
    rows = json.loads(cli("describe", run, "--subnet", "largest", "--subnet", "FT" * 16, "--json").out)
    assert [row["subnet"] for row in rows] == ["FT" * 16, "F" * 32]
    assert "no sub-network 'TT'" in refused("describe", run, "--subnet", "TT")


def test_measure_asks_for_names_before_it_loads_data(refused, run) -> None:
    said = refused("measure", run, "--data", "no/such/folder")
    assert f"subnets: got all {COUNT} sub-networks" in said and "--subnet smallest --subnet largest" in said


def test_export_asks_for_one(refused, run, tmp_path: Path) -> None:
    said = refused("export", run, tmp_path / "net.onnx", "--switchable")
    assert f"switchable: got all {COUNT} sub-networks" in said and "--subnet" in said
