import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from pliant.data import ImageData
from pliant.train import progress
from pliant.train.engine import TrainingStopped, train
from pliant.train.losses import Loss
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REFRESH_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_a_terminal_shows_speed_and_time_left(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    with redirect_stdout(Terminal()) as terminal:
        train(tiny(), data=images, out=tmp_path / "run")
    shown = terminal.getvalue()
    assert "epoch 2/2" in shown
    assert "6/6" in shown
    assert "images/s" in shown
    assert "0:00:00" in shown
    assert "val FFF" in shown


def test_the_bar_can_be_switched_off(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    with redirect_stdout(Terminal()) as terminal:
        train(tiny(), data=images, out=tmp_path / "run", progress=False)
    assert len(terminal.getvalue().splitlines()) == 2
    assert "\x1b" not in terminal.getvalue()


def test_a_stopped_training_gives_the_cursor_back(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loss, "labels", lambda self, logits, y: logits.mean() * torch.nan)
    with redirect_stdout(Terminal()) as terminal, pytest.raises(TrainingStopped):
        train(tiny(), data=images, out=tmp_path / "run")
    shown = terminal.getvalue()
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
