from __future__ import annotations

import json

import pytest


def rows_of(cli, *arguments: object) -> dict[str, dict]:
    result = cli("describe", *arguments, "--json")
    assert result.status == 0, result.err
    return {row["subnet"]: row for row in json.loads(result.out)}


def test_resnet50_has_the_numbers_of_the_paper(cli) -> None:
    rows = rows_of(cli, "torchvision:resnet50")
    assert len(rows) == 16
    assert rows["FFFF"]["gmacs"] == pytest.approx(4.09, rel=0.01)
    assert rows["TTTT"]["gmacs"] == pytest.approx(2.56, rel=0.01)
    assert rows["FFFF"]["params_m"] == pytest.approx(25.56, abs=0.01)
    assert {round(row["adapted_params_m"], 2) for row in rows.values()} == {25.58}


def test_rows_go_from_the_smallest_to_the_largest(cli) -> None:
    rows = list(rows_of(cli, "pliant:resnet20").values())
    assert rows[0]["subnet"] == "TTT"
    assert rows[-1]["subnet"] == "FFF"
    assert [row["gmacs"] for row in rows] == sorted(row["gmacs"] for row in rows)


def test_resnet101_base_net(cli) -> None:
    assert rows_of(cli, "torchvision:resnet101")["TTTT"]["gmacs"] == pytest.approx(4.53, rel=0.01)


def test_image_size_changes_macs_and_not_parameters(cli) -> None:
    small, large = (rows_of(cli, "pliant:resnet20", "--image-size", size)["FFF"] for size in (16, 32))
    assert large["gmacs"] > 3 * small["gmacs"]
    assert large["params_m"] == small["params_m"]


def test_a_table_for_people(cli) -> None:
    result = cli("describe", "pliant:resnet20")
    assert "8 sub-networks" in result.out
    assert "GMACs" in result.out


def test_a_run_folder_is_described_at_its_own_image_size(cli, run_folder) -> None:
    trained = rows_of(cli, run_folder)
    assert trained["FFF"]["gmacs"] == rows_of(cli, "pliant:resnet20", "--image-size", 16)["FFF"]["gmacs"] - 64 * 8 / 1e9


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("torchvision:resnet5", "resnet50"),
        ("torchvison:resnet50", "torchvision"),
        ("runs/never", "neither a run folder nor a model"),
        ("timm:resnet10t", "no skippable stage"),
        ("torchvision:alexnet", "ResNeXt"),
    ],
)
def test_what_cannot_be_described_is_refused(refused, model: str, said: str) -> None:
    line = refused("describe", model)
    assert said in line


def test_an_image_size_of_zero_is_refused(refused) -> None:
    assert "0" in refused("describe", "pliant:resnet20", "--image-size", "0")
