from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = ("describe", "train", "measure", "pick", "export", "report", "push", "demo")
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "onnx",
    "matplotlib",
    "sklearn",
    "numpy",
}


def test_help_names_every_command(cli) -> None:
    result = cli("--help")
    assert result.status == 0
    assert all(command in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_loads_nothing_heavy(command: str | None) -> None:
    arguments = ["pliant", *([command] if command else []), "--help"]
    code = (
        f"import sys\nsys.argv = {arguments}\nfrom pliant.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "print('LOADED', *sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    text, _, loaded = out.rpartition("LOADED ")
    assert "Usage" in text
    assert not HEAVY.intersection(loaded.split())


def test_version(cli) -> None:
    assert cli("--version").out.startswith("pliant ")


@pytest.mark.parametrize("arguments", [("nothing",), ("pick",), ("pick", "runs/x", "--latency-ms", "soon")])
def test_wrong_usage_ends_with_status_2_and_no_traceback(cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.status == 2
    assert "Traceback" not in result.err


def test_debugging_shows_the_traceback(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIANT_DEBUG", "1")
    with pytest.raises(ValueError, match="neither a run folder"):
        cli("describe", "runs/never")
