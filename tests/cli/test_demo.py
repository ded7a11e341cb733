from __future__ import annotations

import json


def test_the_whole_path_on_real_digits(cli, tmp_path) -> None:
    out = tmp_path / "demo"
    result = cli("demo", "--out", out, "--epochs", 1)
    assert result.status == 0, result.err
    assert result.out.count("TTT") > 1
    assert "at most" in result.out
    assert (out / "report.html").exists()
    (exported,) = out.glob("*.onnx")
    assert "differs from eager" in result.out
    assert exported.name in result.out
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert len(rows) == 8
