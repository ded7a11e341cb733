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
