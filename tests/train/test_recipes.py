"""The recipes and examples that come with the project."""

import csv
import importlib.util
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pliant.checkpoint import save
from pliant.create import create_model
from pliant.data import ImageData, load_data
from pliant.train.engine import RunResult, train
from pliant.train.recipe import Recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").glob("*.yaml"))
PHOTOGRAPHS = [path for path in RECIPES if "imagenet" in path.name]
SMALL = [path for path in RECIPES if path not in PHOTOGRAPHS]
HEAVY = ("imagenet_vit_b_16", "imagenet_swin_t")
HALF = 112
"""Pixels of a side of the photographs: half of what the recipes say, and still read as large images are."""
SIZE_OPTION = {"vit_b_16": "image_size", "swin_tiny_patch4_window7_224": "img_size"}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], ImageData]:
    """Eight images of noise, larger than what is kept in memory, as a recipe wants to have them."""
    root = tmp_path_factory.mktemp("photographs")
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = torch.randint(0, 256, (120, 160, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / part / name / f"{number}.png")

    def load(recipe: Recipe) -> ImageData:
        resize = recipe.data.resize and recipe.data.resize // 2
        return load_data(
            root,
            image_size=HALF,
            resize=resize,
            interpolation=recipe.data.interpolation,
            val_fraction=0.0,
            workers=0,
        )

    return load


@pytest.fixture
def plain_run(tmp_path: Path) -> str:
    """A plain network of three classes, to start from."""
    save(create_model("pliant:resnet20", num_classes=3), tmp_path / "plain")
    return str(tmp_path / "plain")


def two_steps(recipe: Recipe, images: int) -> Recipe:
    """Of one epoch a phase, the first of them in the warm-up if the recipe has one.

    The rate is as much smaller as the batch, or plans of many passes would leave for good in the first step.
    """
    schedule = recipe.schedule.replace(warmup_epochs=min(0.5, recipe.schedule.warmup_epochs))
    then = tuple(phase.replace(epochs=1) for phase in recipe.then)
    optimizer = recipe.optimizer.replace(lr=recipe.optimizer.lr * images / 2 / recipe.batch_size)
    few = {"epochs": 1, "batch_size": images // 2, "recalibrate": min(recipe.recalibrate, images)}
    return recipe.replace(**few, schedule=schedule, then=then, optimizer=optimizer)


def check(result: RunResult, recipe: Recipe) -> None:
    """Two steps were made in every phase, with sensible losses in the first.

    After so few, norms in eval mode still have statistics that are far from the truth, and later phases huge losses.
    """
    rows = [result.rows[-1]]
    for number in range(len(recipe.then), 0, -1):
        with open(result.out / f"phase-{number}" / "metrics.csv", newline="") as file:
            rows.insert(0, {name: float(value) for name, value in list(csv.DictReader(file))[-1].items() if value})
    assert [row["step"] for row in rows] == [2] * (1 + len(recipe.then))
    assert 0 < rows[0]["train_loss"] < 100
    assert all(math.isfinite(row["train_loss"]) for row in rows)


def test_there_are_recipes() -> None:
    assert len(SMALL) > 5
    assert len(PHOTOGRAPHS) > 4


@pytest.mark.parametrize("path", SMALL, ids=str)
def test_a_recipe_runs(path: Path, images: ImageData, plain_run: str, tmp_path: Path) -> None:
    recipe = two_steps(Recipe.load(ROOT / path), len(images.train))
    if recipe.model.start_from:
        recipe = recipe.replace(model=recipe.model.replace(start_from=plain_run))
    sizes = {name: images.image_size for name in ("img_size", "image_size") if name in recipe.model.options}
    recipe = recipe.replace(model=recipe.model.replace(options=recipe.model.options | sizes))
    check(train(recipe, data=images, out=tmp_path / "run", device="cpu", log=None), recipe)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem in HEAVY else path for path in PHOTOGRAPHS],
    ids=str,
)
def test_a_recipe_for_photographs_runs(path: Path, photographs: Callable[[Recipe], ImageData], tmp_path: Path) -> None:
    recipe = Recipe.load(ROOT / path)
    images = photographs(recipe)
    recipe = two_steps(recipe, len(images.train))
    augment = recipe.data.augment
    augment = augment.replace(crop=augment.crop and augment.crop // 2)
    size = {SIZE_OPTION[name]: HALF for name in SIZE_OPTION if recipe.model.name.endswith(name)}
    model = recipe.model.replace(pretrained=False, options=recipe.model.options | size)
    recipe = recipe.replace(model=model, data=recipe.data.replace(augment=augment))
    check(train(recipe, data=images, out=tmp_path / "run", device="cpu", log=None), recipe)
    shutil.rmtree(tmp_path / "run")  # gigabytes, for a ViT-B


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_a_header_says_command_time_and_accuracy(path: Path) -> None:
    lines = (ROOT / path).read_text().splitlines()
    header = "\n".join(line[1:].strip() for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])
    assert re.search(
        rf"^(torchrun .*)?pliant train --recipe {re.escape(str(path))} .*--out runs/", header, re.MULTILINE
    )
    assert re.search(r"^Expected time: .*\d", header, re.MULTILINE)
    assert re.search(r"^Expected accuracy: ", header, re.MULTILINE)


def test_published_figures_are_said_to_be_published() -> None:
    for path in PHOTOGRAPHS:
        if not path.stem.startswith("finetune"):
            assert "Expected accuracy: not measured here. Published (ImageNet top-1): the " in (ROOT / path).read_text()


def test_the_example_of_an_own_loop_learns(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("own_loop", ROOT / "examples" / "own_loop.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    accuracies = example.main(epochs=2)
    assert len(accuracies) == 8
    assert min(accuracies["TTT"], accuracies["FFF"]) > 30
    assert len(capsys.readouterr().out.splitlines()) == 2
