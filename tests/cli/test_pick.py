from __future__ import annotations

import json

import pytest


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
