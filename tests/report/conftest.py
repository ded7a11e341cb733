"""Run folders as training and measuring leave them, with made-up numbers."""

import csv
import json
import math
from itertools import product
from pathlib import Path

import pytest

from pliant.measure.table import Table
from pliant.train.recipe import Data, Model, Recipe

INFO = {
    "model": "pliant:resnet20",
    "data": "cifar10",
    "split": "test",
    "images": 10000,
    "image_size": 32,
    "batch_size": 1,
    "threads": 2,
    "rounds": 30,
    "dtype": "float32",
    "device": "cpu",
    "cpu": "A Processor",
    "versions": {"python": "3.12.1", "pliant": "0.1.0", "torch": "2.14.1"},
    "date": "2026-05-09T07:35:25+00:00",
}
# TTT is the cheapest, FFF the best; of the others only TTF is worth its cost.
ACCURACIES = {"TTT": 83.2, "FTT": 82.7, "TFT": 82.9, "TTF": 83.7, "FFT": 83.1, "FTF": 83.5, "TFF": 83.4, "FFF": 84.0}


class Folders:
    """Makes run folders in a temporary place."""

    def __init__(self, root: Path):
        self.root = root

    def rows(self, stages: int = 3, latency: bool = True) -> list[dict]:
        result = []
        for number, skips in enumerate(sorted(product("TF", repeat=stages), key=lambda skips: skips.count("F"))):
            name = "".join(skips)
            share = 1 - sum(0.1 + 0.02 * stage for stage, letter in enumerate(skips) if letter == "T")
            row = {"subnet": name, "gmacs": 0.0408 * share, "params_m": 0.27 * share, "acc5": 99.0, "operators": 90}
            row["acc1"] = ACCURACIES.get(name, 83 + share + 0.3 * math.sin(7 * number))
            if latency:
                row |= {"latency_ms": 2 * share, "latency_ms_p95": 2.5 * share}
            result.append(row)
        return result

    def table(self, name: str, rows: list[dict], **info) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        Table(rows, INFO | info).save(folder / "table.json")
        return folder

    def recipe(self, folder: Path, **fields) -> None:
        recipe = Recipe(model=Model(name="pliant:resnet20"), data=Data(source="cifar10"), epochs=3, **fields)
        (folder / "recipe.yaml").write_text(recipe.to_yaml())

    def metrics(self, folder: Path, lines: list[dict]) -> None:
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)

    def epochs(self, count: int = 3) -> list[dict]:
        return [
            {
                "epoch": epoch,
                "step": 100 * epoch,
                "train_loss": 2.51 / epoch,
                "loss_FFF<-labels": 2 / epoch,
                "loss_TTT<-FFF/logits": 0.5 / epoch,
                "loss_TTT<-FFF/features": 0.01 / epoch,
                "lr": 0.1 / epoch,
                # Not validated in the second epoch.
                "val_acc1_FFF": "" if epoch == 2 else 80 + epoch,
                "val_acc1_TTT": "" if epoch == 2 else 79 + epoch,
                "images_per_s": 2340.5,
                "seconds": 21.0,
            }
            for epoch in range(1, count + 1)
        ]

    def run(self, name: str = "run", **info) -> Path:
        folder = self.table(name, self.rows(), **info)
        self.recipe(folder)
        self.metrics(folder, self.epochs())
        return folder

    def alone(self, name: str, only: str, acc1: float, **info) -> Path:
        """A network trained on its own: its table calls it by its model, its card says which sub-network it is."""
        own = next(row for row in self.rows() if row["subnet"] == only)
        folder = self.table(name, [own | {"subnet": "pliant:resnet20", "acc1": acc1}], **info)
        card = {"format": 1, "model": {"name": "pliant:resnet20"}, "adapt": {}, "only": only, "info": {}}
        (folder / "pliant.json").write_text(json.dumps(card))
        return folder


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path)
