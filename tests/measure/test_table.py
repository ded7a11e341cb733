import json
import math
import os
import sys

import pytest

from pliant.measure.environment import describe_environment
from pliant.measure.table import Table, TableError

ROWS = [
    {"subnet": "TT", "gmacs": 1.0, "acc1": 90.0, "operators": 7},
    {"subnet": "TF", "gmacs": 2.0, "acc1": 89.0},
    {"subnet": "FT", "gmacs": 2.0, "acc1": 92.0},
    {"subnet": "FF", "gmacs": 4.0, "acc1": 92.0},
]


def test_what_was_not_measured_is_absent():
    table = Table([{"subnet": "TT", "gmacs": 1.0, "acc1": math.nan, "latency_ms": None, "acc5": math.inf}])
    assert table.rows == [{"subnet": "TT", "gmacs": 1.0}]
    assert table.columns == ["subnet", "gmacs"]


@pytest.mark.parametrize("row", [{}, {"gmacs": 1.0}, {"subnet": 3}, "TT", None])
def test_a_row_without_a_name_is_refused(row):
    with pytest.raises(TableError, match="expected a mapping with a text under 'subnet'"):
        Table([row])


def test_the_front_holds_what_nothing_beats():
    assert [row["subnet"] for row in Table(ROWS).pareto()] == ["TT", "FT"]
    assert [row["subnet"] for row in Table(ROWS[::-1]).pareto()] == ["TT", "FT"]


def test_of_equal_cost_the_front_holds_the_better():
    rows = [{"subnet": name, "gmacs": 1.0, "acc1": acc1} for name, acc1 in (("A", 1.0), ("B", 3.0), ("C", 2.0))]
    assert [row["subnet"] for row in Table(rows).pareto()] == ["B"]


def test_the_front_of_equals_is_the_first_and_of_one_that_one():
    twice = Table([ROWS[0], ROWS[0] | {"subnet": "again"}])
    assert [row["subnet"] for row in twice.pareto()] == ["TT"]
    assert Table(ROWS[:1]).pareto() == [ROWS[0]]


def test_the_front_over_several_costs_holds_what_is_best_in_one_of_them():
    rows = [
        {"subnet": "A", "latency_ms": 1.0, "energy_mj": 9.0, "acc1": 90.0},
        {"subnet": "B", "latency_ms": 2.0, "energy_mj": 5.0, "acc1": 90.0},
        {"subnet": "C", "latency_ms": 3.0, "energy_mj": 6.0, "acc1": 90.0},
        {"subnet": "D", "latency_ms": 3.0, "energy_mj": 6.0, "acc1": 91.0},
        {"subnet": "E", "latency_ms": 0.5, "acc1": 99.0},
    ]
    table = Table(rows[::-1])
    assert [row["subnet"] for row in table.pareto(("latency_ms", "energy_mj"))] == ["A", "B", "D"]
    assert [row["subnet"] for row in table.pareto(["energy_mj"])] == ["B", "D"]
    with pytest.raises(TableError, match="no row has all of gmacs, energy_mj, acc1; this table has subnet, "):
        table.pareto(["gmacs", "energy_mj"])


def test_a_table_of_another_machine_says_so():
    here = describe_environment()
    assert Table(ROWS, here | {"device": "cpu"}).other_machine() == ""
    assert Table(ROWS, {}).other_machine() == ""
    said = Table(ROWS, here | {"cpu": "Abacus 3"}).other_machine()
    assert said == f"on Abacus 3; this is {here['cpu']}"
    assert "on Wheel 7000; here is " in Table(ROWS, here | {"device": "cuda:0 (Wheel 7000)"}).other_machine()


def test_the_front_leaves_out_what_was_not_measured():
    rows = [ROWS[0], {"subnet": "FF", "gmacs": 0.5}, {"subnet": "TF", "gmacs": 0.5, "acc1": math.nan}]
    assert [row["subnet"] for row in Table(rows).pareto()] == ["TT"]
    with pytest.raises(TableError, match="no row has both latency_ms and acc1; this table has subnet, gmacs"):
        Table(ROWS).pareto("latency_ms")


def test_pick_returns_a_copy_of_the_row():
    table = Table(ROWS)
    row = table.pick(gmacs=3)
    assert row["subnet"] == "FT"
    row["subnet"] = "changed"
    assert table.pick(gmacs=3)["subnet"] == "FT"
    with pytest.raises(ValueError, match="cannot be met"):
        table.pick(gmacs=0.1)


def test_saving_round_trips(tmp_path):
    table = Table(ROWS, {"device": "cpu", "versions": {"torch": "2"}})
    table.save(tmp_path / "table.json")
    assert Table.load(tmp_path / "table.json") == table
    document = json.loads((tmp_path / "table.json").read_text())
    assert document["rows"] == ROWS and document["version"] == 1


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    Table(ROWS).save(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TableError, match=r"table\.json: the table cannot be written here \(No space left"):
        Table(ROWS[:1]).save(path)
    monkeypatch.undo()
    assert Table.load(path).rows == ROWS
    assert os.listdir(tmp_path) == ["table.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1, "ro', "not a table: "),
        ("[]", "not a table: expected a JSON object"),
        ('{"version": 1}', "not a table: expected a JSON object"),
        ('{"rows": []}', "not a table: expected a JSON object"),
        ('{"version": 99, "rows": []}', "version 99 is newer than this pliant knows"),
        (
            '{"version": 1, "info": {}, "rows": [{"gmacs": 1}]}',
            "expected a mapping with a text under 'subnet'",
        ),
        ('{"version": 1, "info": 3, "rows": []}', "not a table: expected a JSON object"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_path(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(TableError, match=message) as caught:
        Table.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_missing_and_a_binary_file_are_refused_with_their_path(tmp_path):
    with pytest.raises(TableError, match=r"none\.json: no table can be read here \(No such file"):
        Table.load(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(TableError, match=r"binary\.json: no table can be read here \(not a text file"):
        Table.load(tmp_path / "binary.json")


def test_numbers_that_json_does_not_have_are_read_as_not_measured(tmp_path):
    path = tmp_path / "table.json"
    path.write_text('{"version": 1, "info": {}, "rows": [{"subnet": "TT", "gmacs": 1.0, "acc1": NaN}]}')
    assert Table.load(path).rows == [{"subnet": "TT", "gmacs": 1.0}]


def test_people_are_not_shown_what_is_there_to_choose_by():
    row = {"subnet": "TT", "latency_ms": 1.25, "latency_ms_high": 1.5, "latency_ms_p95": 2.5, "energy_mj": 7.75}
    heading, line = Table([row | {"latency_ms_p99": 3.5, "latency_ms_p95_high": 4.5}]).text().splitlines()[::2]
    assert line.split() == ["TT", "1.25", "1.50", "2.50", "7.75"]
    assert heading.split() == ["sub-network", "latency", "ms", "high", "ms", "p95", "ms", "energy", "mJ"]


@pytest.mark.parametrize("with_rich", [True, False])
def test_people_see_every_row_and_every_measured_column(monkeypatch, with_rich):
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    lines = Table(ROWS).text().splitlines()
    assert "GMACs" in lines[0] and "top-1 %" in lines[0] and "latency" not in lines[0]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:] if line.split()[0] in ("TT", "TF", "FF")}
    assert rows == {"TT": ["1.000", "90.00", "7"], "TF": ["2.000", "89.00"], "FF": ["4.000", "92.00"]}
