"""The recipes and examples that come with the project."""

import importlib.util
import re
from pathlib import Path

import pytest

from pliant.data import ImageData
from pliant.train.engine import train
from pliant.train.recipe import Recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").glob("*.yaml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_a_recipe_runs(path: Path, images: ImageData, tmp_path: Path) -> None:
    recipe = Recipe.load(ROOT / path)
    schedule = recipe.schedule.replace(warmup_epochs=0.0)
    two_steps = recipe.replace(epochs=1, batch_size=len(images.train) // 2, schedule=schedule)
    result = train(two_steps, data=images, out=tmp_path / "run", device="cpu", log=None)
    assert result.rows[-1]["step"] == 2
    assert 0 < result.rows[-1]["train_loss"] < 100


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_a_header_says_command_time_and_accuracy(path: Path) -> None:
    lines = (ROOT / path).read_text().splitlines()
    header = "\n".join(line[1:].strip() for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])
    assert re.search(
        rf"^(torchrun .*)?pliant train --recipe {re.escape(str(path))} .*--out runs/", header, re.MULTILINE
    )
    assert re.search(r"^Expected time: .*\d", header, re.MULTILINE)
    assert re.search(r"^Expected accuracy: ", header, re.MULTILINE)


def test_the_example_of_an_own_loop_learns(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("own_loop", ROOT / "examples" / "own_loop.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    accuracies = example.main(epochs=2)
    assert len(accuracies) == 8
    assert min(accuracies["TTT"], accuracies["FFF"]) > 30
    assert len(capsys.readouterr().out.splitlines()) == 2
