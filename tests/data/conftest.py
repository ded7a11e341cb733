import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

Parts = Mapping[str, Mapping[str, int]]
MakeFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PLIANT_CACHE", str(folder))
    return folder


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes a folder of class folders; image number n, counted over all parts, has the colour (n, n // 256, 77).

    With `rough`, each image is noise instead, so that where it is cut shows.
    """

    def make(parts: Parts, *, size: tuple[int, int] = (8, 8), name: str = "pets", rough: bool = False) -> Path:
        number = 0
        for part, classes in parts.items():
            for label, count in classes.items():
                folder = tmp_path / name / part / label
                folder.mkdir(parents=True)
                for place in range(count):
                    if rough:
                        noise = random.Random(number).randbytes(3 * size[0] * size[1])
                        image = Image.frombytes("RGB", size, noise)
                    else:
                        image = Image.new("RGB", size, (number % 256, number // 256, 77))
                    image.save(folder / f"{place:04}.png")
                    number += 1
        return tmp_path / name

    return make


def numbers(data, split) -> list[int]:
    """Which images, by the number that their colour stands for."""
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    found = []
    for images, _ in split.batches(7):
        colours = ((images.mean(dim=(2, 3)) * std + mean) * 255).round().long()
        assert (colours[:, 2] == 77).all()
        found += (colours[:, 0] + 256 * colours[:, 1]).tolist()
    return found
