"""One way to call the commands, and small things to call them on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from pliant.adapt import adapt_
from pliant.checkpoint import save
from pliant.cli.app import main
from pliant.create import create_model
from pliant.depth.config import Depth
from pliant.measure.table import Table


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call `pliant` with arguments, as the shell does, without a new process."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["pliant", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def refused(cli: Cli) -> Callable[..., str]:
    """Call `pliant`, expect status 2 and exactly one line on stderr, and return that line."""

    def call(*arguments: object) -> str:
        result = cli(*arguments)
        lines = result.err.splitlines()
        assert result.status == 2, result
        assert result.out == ""
        assert len(lines) == 1, result.err
        assert lines[0].startswith("error: "), lines
        return lines[0]

    return call


INFO = {
    "data": "folder",
    "class_names": ["dark", "light"],
    "image_size": 16,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run folder with a network of three stages and two classes, as good as a coin."""
    model = adapt_(create_model("pliant:resnet20", num_classes=2), Depth())
    return save(model, tmp_path / "run", info=INFO)


@pytest.fixture
def measured(run_folder: Path) -> Path:
    """A run folder with a table."""
    rows = [
        {
            "subnet": "TTT",
            "gmacs": 0.026,
            "params_m": 0.17,
            "acc1": 90.0,
            "latency_ms": 2.0,
            "latency_ms_p95": 2.2,
        },
        {
            "subnet": "FTT",
            "gmacs": 0.031,
            "params_m": 0.18,
            "acc1": 91.5,
            "latency_ms": 3.0,
            "latency_ms_p95": 3.1,
        },
        {
            "subnet": "FFF",
            "gmacs": 0.041,
            "params_m": 0.27,
            "acc1": 92.0,
            "latency_ms": 4.0,
            "latency_ms_p95": 4.5,
        },
    ]
    Table(rows, {"model": "pliant:resnet20"}).save(run_folder / "table.json")
    return run_folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Eight dark and eight light images to train on, half as many to test on."""
    root = tmp_path / "images"
    for part, count in (("train", 8), ("test", 4)):
        for name, level in (("dark", 60), ("light", 200)):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (16, 16), (level + index,) * 3).save(root / part / name / f"{index}.png")
    return root
