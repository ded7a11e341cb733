from __future__ import annotations


def test_a_page_and_charts(cli, measured) -> None:
    result = cli("report", measured)
    assert result.status == 0, result.err
    page = measured / "report.html"
    assert result.out.strip() == str(page)
    assert "FTT" in page.read_text(encoding="utf-8")
    assert list(measured.glob("*.png"))


def test_a_run_that_was_not_measured(refused, run_folder) -> None:
    assert "table.json" in refused("report", run_folder)


def test_a_baseline_that_is_not_there(refused, measured, tmp_path) -> None:
    assert "never" in refused("report", measured, "--baseline", tmp_path / "never")


def test_policies_that_measure_wrote(cli, run_folder, image_folder) -> None:
    arguments = ("--data", image_folder, "--policy", "confidence", "--budgets", 3, "--rounds", 1)
    assert cli("measure", run_folder, *arguments).status == 0
    result = cli("report", run_folder / "policies.json")
    assert result.status == 0, result.err
    page = run_folder / "policies.html"
    assert result.out.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    assert "All budgets" in text and "data:image/png;base64," in text


def test_a_file_that_is_neither_table_nor_policies(refused, run_folder) -> None:
    assert "pliant.json is neither a table nor policies" in refused("report", run_folder / "pliant.json")
