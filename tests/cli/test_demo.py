from __future__ import annotations

import json
from pathlib import Path

from pliant.cli.demo import demo_recipe
from pliant.train.recipe import Recipe


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


def test_the_demo_trains_what_the_recipe_says() -> None:
    path = Path(__file__).resolve().parents[2] / "recipes" / "digits_resnet20.yaml"
    assert demo_recipe(20) == Recipe.load(path)
