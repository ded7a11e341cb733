"""Figures on pages come from files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVENANCE = {
    "command": "python benchmarks/x.py",
    "date": "2026-01-02",
    "device": "cpu",
    "cpu": "a processor",
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_on_the_pages_are_those_of_the_results(script) -> None:
    for path in script.PAGES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- results: " in text
        assert script.page(text) == text, f"{path.name} is out of date: run python benchmarks/tables.py"


def write(folder: Path, name: str, figures: dict) -> None:
    (folder / name).write_text(json.dumps({"provenance": PROVENANCE, **figures}))


def test_a_study_has_mean_and_spread_and_the_networks_trained_alone(script, tmp_path) -> None:
    def subnet(gmacs: float, mean: float) -> dict[str, float]:
        return {"gmacs": gmacs, "test_acc1": mean, "test_acc1_std": 0.25}

    common = {"seeds": [0, 1], "epochs": 20}
    runs = {
        "super": common | {"subnets": {"FF": subnet(0.04, 84.0)}},
        "base": common | {"subnets": {"TT": subnet(0.02, 83.1)}},
        "adn": common | {"subnets": {"TT": subnet(0.02, 82.5), "FT": subnet(0.03, 82.8), "FF": subnet(0.04, 83.1)}},
    }
    write(tmp_path, "some.json", {"study": "some", "recipe": "recipes/some.yaml", "runs": runs})
    text = script.page("<!-- results: some -->\nold\n<!-- end of results -->", tmp_path)
    assert "| TT | 0.0200 | 83.10 ± 0.25 | 82.50 ± 0.25 |" in text
    assert "| FT | 0.0300 | - | 82.80 ± 0.25 |" in text
    assert "(`recipes/some.yaml`; seeds 0, 1; 20 epochs)" in text
    assert "a processor" in text
    assert "old" not in text


def test_accuracies_with_norm_statistics_taken_anew_stand_beside_the_plain_ones(script, tmp_path) -> None:
    def run(anew: float | None) -> dict:
        untrained = {"gmacs": 0.03, "test_acc1": 66.6, "test_acc1_std": 1.8}
        if anew is not None:
            untrained |= {"test_acc1_recalibrated": anew, "test_acc1_recalibrated_std": 0.1}
        trained = {"gmacs": 0.02, "test_acc1": 83.1, "test_acc1_recalibrated": 83.1}
        return {"seeds": [0, 1], "epochs": 4, "subnets": {"TT": trained, "FT": untrained}}

    runs = {"after": run(82.4), "same": run(66.6), "none": run(None)}
    runs["same"]["subnets"]["FT"]["test_acc1_recalibrated_std"] = 1.8
    write(tmp_path, "some.json", {"study": "some", "runs": runs})
    text = script.page("<!-- results: some -->\n<!-- end of results -->", tmp_path)
    assert "| sub-network | GMACs | `after` | `after`, recalibrated | `same` | `none` |" in text
    assert "| TT | 0.0200 | 83.10 | 83.10 | 83.10 | 83.10 |" in text
    assert "| FT | 0.0300 | 66.60 ± 1.80 | 82.40 ± 0.10 | 66.60 ± 1.80 | 66.60 ± 1.80 |" in text
    assert "pliant export --recalibrate" in text
    write(tmp_path, "some.json", {"study": "some", "runs": {"none": run(None)}})
    assert "ecalibrate" not in script.page("<!-- results: some -->\n<!-- end of results -->", tmp_path)


def test_a_page_can_name_the_trainings_to_show(script, tmp_path) -> None:
    run = {"seeds": [0], "epochs": 1, "subnets": {"TT": {"gmacs": 0.1, "test_acc1": 80.0}, "FF": {"gmacs": 0.2}}}
    write(tmp_path, "some.json", {"study": "some", "runs": {"adn": run, "adn-sum": run, "no": run}})
    text = script.page("<!-- results: some, adn-sum no -->\n<!-- end of results -->", tmp_path)
    assert "| sub-network | GMACs | `adn-sum` | `no` |" in text
    assert text.startswith("<!-- results: some, adn-sum no -->\n")


def test_early_exits_have_a_line_a_training_and_a_line_a_budget(script, tmp_path) -> None:
    def run(accuracy: float, epochs: list[int]) -> dict:
        anytime = [{"subnet": "exit=1", "gmacs": 0.01, "acc1": accuracy, "acc1_std": 0.5}]
        return {"seeds": [0, 1], "epochs": epochs, "anytime": anytime, "budgeted": [{"gmacs": 0.012, "acc1": accuracy}]}

    write(
        tmp_path, "some.json", {"recipe": "recipes/some.yaml", "exits": {"none": run(70, [3, 1]), "all": run(72, [])}}
    )
    text = script.page("<!-- results: some -->\n<!-- end of results -->", tmp_path)
    assert "| `none` | 70.00 ± 0.50 |" in text
    assert "| budget | `none` | `all` |" in text and "| 1 | 70.00 (12.0) | 72.00 (12.0) |" in text
    assert "`none`: seeds 0, 1, 3 + 1 epochs; `all`: seeds 0, 1)" in text


def test_runs_of_unequal_length_say_how_long_each_was(script, tmp_path) -> None:
    rows = {"TT": {"gmacs": 0.02, "test_acc1": 50.0}, "FF": {"gmacs": 0.04, "test_acc1": 90.0}}
    runs = {name: {"seeds": [0], "epochs": epochs, "subnets": rows} for name, epochs in (("before", 20), ("after", 4))}
    write(tmp_path, "some.json", {"study": "some", "runs": runs})
    text = script.page("<!-- results: some -->\n<!-- end of results -->", tmp_path)
    assert "(before: seeds 0, 20 epochs; after: seeds 0, 4 epochs)" in text


def test_what_was_not_measured_is_said_to_be_missing(script, tmp_path) -> None:
    assert "not measured" in script.page("<!-- results: none -->\n<!-- end of results -->", tmp_path)


def test_rows_of_any_kind_become_a_table(script, tmp_path) -> None:
    write(tmp_path, "cost.json", {"threads": 2, "rows": [{"model": "a", "ms": 1.23456}, {"model": "b", "over": 1}]})
    text = script.page("<!-- results: cost -->\n<!-- end of results -->", tmp_path)
    assert "| model | ms | over |" in text
    assert "| a | 1.235 | - |" in text
    assert "threads 2" in text


def test_the_structure_stands_beside_the_paper_s(script, tmp_path) -> None:
    counted = {"super_gmacs": 4.0893, "base_gmacs": 2.5607, "adaptive_params_m": 25.5831}
    row = counted | {"network": "net", "super_params_m": 25.557, "base_params_m": 17.1123, "super_gmacs_paper": 4.11}
    row |= {"mandatory_blocks": [2, 2], "skippable_blocks": [1, 0], "note": "A misprint."}
    write(tmp_path, "table1.json", {"structure": [row]})
    text = script.page("<!-- results: table1 -->\n<!-- end of results -->", tmp_path)
    assert "| net | 2+1, 2+0 | 4.089 (4.11) | 2.561 | 25.583 | 25.557 | 17.112 |" in text
    assert "- net: A misprint." in text
