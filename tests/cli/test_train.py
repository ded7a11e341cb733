from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import pliant
from pliant.checkpoint import read_info
from pliant.cli.measure import load_data_of
from pliant.cli.train import changed
from pliant.train.recipe import Recipe

RECIPE = """
model: {name: "pliant:resnet20"}
data: {source: digits, image_size: 8, val_fraction: 0.25}
epochs: 2
batch_size: 4
optimizer: {lr: 0.01}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def train(cli, recipe, image_folder, tmp_path):
    def call(*more: object):
        return cli("train", "--recipe", recipe, "--data", image_folder, "--out", tmp_path / "out", *more)

    return call


@pytest.fixture
def train_refused(refused, recipe, image_folder, tmp_path):
    def call(*more: object, data: object = image_folder, out: object = tmp_path / "out") -> str:
        return refused("train", "--recipe", recipe, "--data", data, "--out", out, *more)

    return call


def test_a_folder_of_images_becomes_a_network(train, tmp_path) -> None:
    result = train()
    assert result.status == 0, result.err
    assert "epoch 2/2" in result.out
    assert "pliant measure" in result.err
    model = pliant.load(tmp_path / "out")
    assert len(model.subnets) == 8
    assert Recipe.load(tmp_path / "out" / "recipe.yaml").data.source == str(tmp_path / "images")


def test_resume_goes_on_where_it_ended_and_names_another_recipe(train, train_refused, tmp_path) -> None:
    assert train("--epochs", 1, "--set", "schedule.name=step").status == 0
    line = train_refused("--epochs", 1, "--resume", "--set", "schedule.name=step", "--set", "optimizer.lr=0.02")
    assert "optimizer.lr" in line
    assert "0.02" in line
    assert train("--epochs", 1, "--resume", "--set", "schedule.name=step").status == 0
    assert len((tmp_path / "out" / "metrics.csv").read_text().splitlines()) == 2  # the heading and one epoch


def test_a_second_training_into_the_same_folder_is_refused(train, train_refused) -> None:
    assert train("--epochs", 1).status == 0
    assert "resume" in train_refused("--epochs", 1)


def test_fields_can_be_set() -> None:
    tree = {"optimizer": {"lr": 0.1}, "ema": None, "epochs": 3, "then": [{"epochs": 1, "plan": None}]}
    changes = [
        "then.0.epochs=2",
        "then.0.plan.name=exits",
        "optimizer.lr=1e-3",
        "ema.decay=0.9",
        "epochs=5",
        "schedule.milestones=[1, 2]",
        "clip_norm=null",
    ]
    assert changed(tree, changes) == {
        "optimizer": {"lr": 0.001},
        "ema": {"decay": 0.9},
        "epochs": 5,
        "schedule": {"milestones": [1, 2]},
        "clip_norm": None,
        "then": [{"epochs": 2, "plan": {"name": "exits"}}],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimizer.lrr=1", "lrr"),
        ("optimizer.lr=fast", "fast"),
        ("optimizer.lr=-1", "-1"),
        ("epochs", "FIELD=VALUE"),
        ("epochs.much=1", "epochs"),
        ("plan.name=magic", "magic"),
        ("then.0.epochs=1", "got '0', expected nothing, as this list is empty"),
        ("model.name=torchvision:resnet5", "resnet5"),
        ("model.name=torchvision:alexnet", "no reader knows this AlexNet, and it fails on the example [1, 3, 8, 8]"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused(train_refused, change: str, said: str, tmp_path) -> None:
    assert said in train_refused("--set", change)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_recipe_that_is_not_there(refused, tmp_path) -> None:
    assert "never.yaml" in refused("train", "--recipe", tmp_path / "never.yaml", "--out", tmp_path / "out")


def test_data_that_is_not_there(train_refused, tmp_path) -> None:
    assert "never" in train_refused(data=tmp_path / "never")


def test_an_empty_folder(train_refused, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in train_refused(data=tmp_path / "empty")


def test_an_unreadable_image_is_named(train_refused, image_folder) -> None:
    broken = image_folder / "train" / "dark" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert str(broken) in train_refused()


def test_an_archive_that_escapes(train_refused, tmp_path, monkeypatch) -> None:
    import tarfile

    monkeypatch.setenv("PLIANT_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(tmp_path / "recipe.yaml", arcname="../escaped.yaml")
    assert "escaped.yaml" in train_refused(data=tmp_path / "bad.tar")
    assert not list(tmp_path.rglob("escaped.yaml"))


def test_a_loss_that_is_no_number_says_where(train, tmp_path) -> None:
    result = train("--set", "optimizer.lr=1e30", "--set", "schedule.name=step")
    assert result.status == 2
    line = result.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert "epoch" in line
    assert "step" in line


def test_an_interruption_says_how_to_go_on(train, monkeypatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("pliant.train.engine"), "train", interrupt)
    result = train()
    assert result.status == 130
    assert "--resume" in result.err


def test_a_start_can_be_named(train, train_refused, tmp_path) -> None:
    plain = pliant.create_model("pliant:resnet20", num_classes=2)
    pliant.save(plain, tmp_path / "plain")
    assert train("--epochs", 1, "--set", "optimizer.lr=1e-30", "--start-from", tmp_path / "plain").status == 0
    trained = pliant.load(tmp_path / "out")
    assert torch.equal(trained.state_dict()["layer1.0.bn1.skip.weight"], plain.state_dict()["layer1.0.bn1.weight"])
    assert torch.equal(trained.state_dict()["conv1.weight"], plain.state_dict()["conv1.weight"])
    line = train_refused("--start-from", tmp_path / "plain", "--set", "model.name=pliant:resnet32", out=tmp_path / "2")
    assert "layer1.3.conv1.weight is missing" in line


def test_the_white_of_integer_images_reaches_training_and_measuring(cli, recipe, refused, tmp_path) -> None:
    """Twelve bits stored in 32: the values alone do not say whether 4095 or 65535 is white."""
    for label, brightest in (("dark", 1000), ("light", 4095)):
        folder = tmp_path / "scans" / "train" / label
        folder.mkdir(parents=True)
        for number in range(8):
            Image.fromarray(numpy.full((8, 8), brightest - number, "i4")).save(folder / f"{number}.tif")
    given = ("train", "--recipe", recipe, "--data", tmp_path / "scans", "--out", tmp_path / "out", "--epochs", 1)
    line = refused(*given)
    assert "white" in line and "4095" in line and str(tmp_path / "scans") in line
    assert cli(*given, "--set", "data.white=4095").status == 0
    assert read_info(tmp_path / "out")["info"]["mean"][0] == pytest.approx((996.5 + 4091.5) / 2 / 4095, abs=1 / 255)
    seen = load_data_of(tmp_path / "out", None, read_info(tmp_path / "out")["info"])
    assert seen.train.style.whites == {"I": 4095, "F": 4095}
