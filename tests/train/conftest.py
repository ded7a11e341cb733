"""Sixty small coloured images, and recipes that train on them in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pliant.data import ImageData, load_data
from pliant.train.recipe import Recipe

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 40, 50)}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: noise around three colours, 16 images each to train on, 4 to test on."""
    root = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 16), ("test", 4)):
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(-60, 60, (8, 8, 3), generator=generator)
                pixels = (torch.tensor(colour) + noise).clamp(0, 255).to(torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def images(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """The same as tensors: 36 images to train on, 12 to validate."""
    return load_data(photos, val_fraction=0.25, cache=tmp_path_factory.mktemp("cache"))


def tiny_tree(source: str = "photos", **changes: Any) -> dict[str, Any]:
    """The fields of a recipe of two epochs of three steps."""
    return {
        "model": {"name": "pliant:resnet20"},
        "data": {"source": str(source), "val_fraction": 0.25, "augment": {"padding": 1}},
        "plan": {"name": "adn-sum", "features": True},
        "optimizer": {"lr": 0.05},
        "epochs": 2,
        "batch_size": 12,
        **changes,
    }


@pytest.fixture
def tiny() -> Callable[..., Recipe]:
    """Make a recipe of two epochs of three steps, with some fields changed."""

    def make(**changes: Any) -> Recipe:
        return Recipe.from_dict(tiny_tree(**changes))

    return make


@pytest.fixture
def new_python(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python in a process of its own, with this library and one thread."""
    started: list[subprocess.Popen[str]] = []
    source = str(Path(__file__).parents[2] / "src")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "PLIANT_CACHE": str(tmp_path / "cache"),
    }

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
