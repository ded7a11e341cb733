from __future__ import annotations

import json
from pathlib import Path

import pytest

from pliant.measure.environment import describe_environment
from pliant.measure.table import Table


def add(run: Path, info: dict[str, object], **values: list[float]) -> None:
    """Add to the table of a run where it was measured, and columns."""
    table = Table.load(run / "table.json")
    table.info |= info
    for key, column in values.items():
        for row, value in zip(table.rows, column, strict=True):
            row[key] = value
    table.save(run / "table.json")


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (("--latency-ms", 3.5), "FTT"),
        (("--gmacs", 0.03), "TTT"),
        (("--params-m", 1), "FFF"),
        (("--acc1", 91), "FTT"),
        (("--latency-ms", 10, "--gmacs", 0.035), "FTT"),
    ],
)
def test_the_best_for_a_budget(cli, measured, budget: tuple[object, ...], chosen: str) -> None:
    (row,) = json.loads(cli("pick", measured, *budget, "--json").out)
    assert row["subnet"] == chosen
    assert chosen in cli("pick", measured, *budget).out


def test_an_impossible_budget_names_the_nearest(refused, measured) -> None:
    line = refused("pick", measured, "--latency-ms", 1)
    assert "TTT" in line
    assert "2 ms" in line


def test_no_budget_is_refused(refused, measured) -> None:
    assert "latency_ms" in refused("pick", measured)


def test_a_run_that_was_not_measured_says_what_to_do(refused, run_folder) -> None:
    assert "pliant measure" in refused("pick", run_folder, "--latency-ms", 1)


def test_a_run_that_is_not_there(refused, tmp_path) -> None:
    assert str(tmp_path / "never") in refused("pick", tmp_path / "never", "--latency-ms", 1)


def test_a_damaged_table(refused, measured) -> None:
    (measured / "table.json").write_text('{"rows": [')
    assert "table.json" in refused("pick", measured, "--latency-ms", 1)


def test_a_percentile_that_holds_energy_and_95th_percentile(cli, refused, measured) -> None:
    assert "72 rounds" in refused("pick", measured, "--slo-ms", 4)
    columns = {"energy_mj": [10, 20, 30], "latency_ms_p95_high": [2.5, 4.1, 6], "latency_ms_p90_high": [2.2, 3.9, 5]}
    add(measured, {}, **columns)
    for budget, chosen in (
        (("--slo-ms", 4.2), "FTT"),
        (("--slo-ms", 4.0), "TTT"),
        (("--slo-ms", 4.0, "--percentile", 90), "FTT"),
        (("--latency-ms-p95", 4.0), "FTT"),
        (("--energy-mj", 25), "FTT"),
        (("--energy-mj", 25, "--slo-ms", 3), "TTT"),
    ):
        (row,) = json.loads(cli("pick", measured, *budget, "--json").out)
        assert row["subnet"] == chosen, budget
    assert "allowed are 50, 75, 90, 95, 99" in refused("pick", measured, "--slo-ms", 4, "--percentile", 96)


def test_times_of_another_machine_are_refused(cli, refused, measured) -> None:
    add(measured, describe_environment() | {"device": "cpu", "cpu": "Abacus 3"}, energy_mj=[1, 2, 3])
    for budget in (("--latency-ms", 3.5), ("--energy-mj", 2), ("--slo-ms", 3), ("--latency-ms-p95", 3, "--gmacs", 1)):
        line = refused("pick", measured, *budget)
        assert "on Abacus 3; this is" in line and "--other-machine" in line and "pliant measure" in line
    result = cli("pick", measured, "--latency-ms", 3.5, "--other-machine", "--json")
    assert json.loads(result.out)[0]["subnet"] == "FTT"
    for budget in (("--gmacs", 0.035), ("--params-m", 0.2), ("--acc1", 91)):
        assert json.loads(cli("pick", measured, *budget, "--json").out)[0]["subnet"] == "FTT"


def test_another_pytorch_is_told_and_this_one_is_not(cli, measured) -> None:
    here = describe_environment() | {"device": "cpu"}
    add(measured, here)
    assert cli("pick", measured, "--latency-ms", 3.5).err == ""
    add(measured, here | {"versions": {"torch": "0.1"}})
    result = cli("pick", measured, "--latency-ms", 3.5)
    assert result.status == 0 and "PyTorch 0.1" in result.err and "FTT" in result.out
