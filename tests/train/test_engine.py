import csv
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pliant
from pliant.checkpoint import read_info
from pliant.core.adaptive import AdaptiveModule
from pliant.create import create_model
from pliant.data import ImageData, load_data
from pliant.train.engine import TrainingStopped, train
from pliant.train.losses import Loss
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def test_the_run_folder_holds_all_that_later_commands_need(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    recipe = tiny()
    result = train(recipe, data=images, out=tmp_path / "run", log=None)

    rows = rows_of(result.out)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["3", "6"]
    columns = ["loss_FFF<-labels", "loss_TTT<-FFF/logits", "loss_TTT<-FFF/features", "lr", "val_acc1_TTT"]
    assert list(rows[0]) == ["epoch", "step", "train_loss", *columns, "val_acc1_FFF", "images_per_s", "seconds"]
    terms = sum(float(value) for name, value in rows[0].items() if name.startswith("loss_"))
    assert float(rows[0]["train_loss"]) == pytest.approx(terms, rel=1e-5)

    model = pliant.load(result.out)
    x = torch.randn(2, 3, 8, 8)
    for subnet in ("TTT", "FTF", "FFF"):
        torch.testing.assert_close(model(x, subnet=subnet), result.model(x, subnet=subnet), rtol=0, atol=0)
    info = read_info(result.out)["info"]
    assert info["class_names"] == ["blue", "green", "red"]
    assert (info["image_size"], info["mean"], info["std"]) == (8, list(images.mean), list(images.std))
    assert Recipe.load(result.out / "recipe.yaml") == recipe
    assert list((result.out / "tensorboard").iterdir())
    assert not list(result.out.glob(".*"))


def test_a_network_learns(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(epochs=12, schedule={"name": "one_cycle"}), data=images, out=tmp_path / "run", log=None)
    assert result.rows[-1]["train_loss"] < 0.5 * result.rows[0]["train_loss"]
    assert result.rows[-1]["val_acc1_FFF"] > 80
    assert result.rows[-1]["val_acc1_TTT"] > 80


def test_sequential_backward_trains_the_same_network(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    options = {"clip_norm": 1.0, "schedule": {"name": "cosine", "warmup_epochs": 1}}
    joint = train(tiny(**options), data=images, out=tmp_path / "joint", log=None)
    sequential = train(tiny(backward="sequential", **options), data=images, out=tmp_path / "sequential", log=None)
    assert [row["lr"] for row in sequential.rows] == [row["lr"] for row in joint.rows]
    for row, other in zip(sequential.rows, joint.rows, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    for name, tensor in weights(joint.model).items():
        torch.testing.assert_close(weights(sequential.model)[name], tensor, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("precision", [32, "bf16"])
@pytest.mark.parametrize("backward", ["joint", "sequential"])
def test_gradients_are_clipped(
    tiny: Tiny, images: ImageData, tmp_path: Path, backward: str, precision: str | int
) -> None:
    """Of any optimizer; a plain gradient step is then no longer than learning rate times limit."""
    options = {
        "epochs": 1,
        "batch_size": 36,
        "backward": backward,
        "precision": precision,
        "schedule": {"name": "step"},
    }
    optimizer = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    fresh = train(tiny(**options, optimizer=optimizer | {"lr": 1e-12}), data=images, out=tmp_path / "a", log=None)
    clipped = train(tiny(**options, optimizer=optimizer, clip_norm=0.01), data=images, out=tmp_path / "b", log=None)
    before, after = dict(fresh.model.named_parameters()), dict(clipped.model.named_parameters())
    moved = torch.stack([(after[name] - before[name]).norm() for name in before]).norm().item()
    assert moved == pytest.approx(0.01, rel=0.01)
    adamw = tiny(**options, optimizer={"name": "adamw", "lr": 1e-3}, clip_norm=0.01)
    assert train(adamw, data=images, out=tmp_path / "c", log=None).rows[0]["step"] == 1


def test_the_same_recipe_gives_the_same_network_and_another_seed_another(
    tiny: Tiny, images: ImageData, tmp_path: Path
) -> None:
    first, second, other = (
        train(tiny(epochs=1, seed=seed), data=images, out=tmp_path / str(number), log=None).rows[0]
        for number, seed in enumerate((5, 5, 6))
    )
    assert first["train_loss"] == second["train_loss"] != other["train_loss"]


def test_one_sub_network_on_its_own_is_a_plain_network(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(only="TTT"), data=images, out=tmp_path / "run", log=None)
    assert not isinstance(result.model, AdaptiveModule)
    assert list(rows_of(result.out)[0])[2:6] == ["train_loss", "loss_largest<-labels", "lr", "val_acc1_TTT"]
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(pliant.load(result.out)(x), result.model(x), rtol=0, atol=0)


def test_a_network_that_is_not_adapted_can_be_trained(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(adapt=None, epochs=1), data=images, out=tmp_path / "run", log=None)
    assert type(result.model) is type(create_model("pliant:resnet20"))
    assert "val_acc1" in result.rows[0]


def test_the_moving_average_is_what_is_validated_and_saved(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    plain = train(tiny(), data=images, out=tmp_path / "plain", log=None)
    averaged = train(tiny(ema={"decay": 0.5}), data=images, out=tmp_path / "averaged", log=None)
    assert averaged.rows[1]["train_loss"] == plain.rows[1]["train_loss"]
    state = torch.load(tmp_path / "averaged" / "last.ckpt", weights_only=True)
    saved, trained = weights(pliant.load(averaged.out)), state["state_dict"]
    for name in ("conv1.weight", "bn1.running_mean", "fc.bias"):
        assert not torch.equal(saved[name], trained[f"objective.model.{name}"]), name
        average = state["callbacks"]["WeightAverage"][f"module.{name}"]
        assert torch.equal(saved[name], average), name


def test_the_average_follows_the_weights_during_the_warm_up(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    recipe = tiny(epochs=2, ema={"decay": 0.999}, schedule={"name": "cosine", "warmup_epochs": 1.9})
    result = train(recipe, data=images, out=tmp_path / "run", log=None)
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in weights(result.model).items():
        torch.testing.assert_close(tensor, state[f"objective.model.{name}"], rtol=0, atol=0, msg=name)


def test_mixed_precision_mixing_and_smoothing_run_together(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    """And the network comes back as `load` gives it, whatever the layout was in training."""
    recipe = tiny(
        precision="bf16",
        channels_last=True,
        label_smoothing=0.1,
        optimizer={"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
        schedule={"name": "step", "milestones": [1]},
        data={"source": "photos", "augment": {"mixup": 0.2, "cutmix": 1.0, "erase": 0.1}},
    )
    result = train(recipe, data=images, out=tmp_path / "run", log=None)
    assert [row["lr"] for row in result.rows] == pytest.approx([1e-3, 1e-4])
    assert all(parameter.dtype == torch.float32 for parameter in result.model.parameters())
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(pliant.load(result.out)(x), result.model(x), rtol=0, atol=0)


def test_a_term_that_starts_late_appears_late(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(plan={"name": "adn-sum", "base_start": 0.5}), data=images, out=tmp_path / "run", log=None)
    first, second = rows_of(result.out)
    assert first["loss_TTT<-FFF/logits"] == ""
    assert float(second["loss_TTT<-FFF/logits"]) > 0


def test_validation_every_few_epochs_and_after_the_last(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(epochs=5, validate_every=2), data=images, out=tmp_path / "run", log=None)
    assert [bool(row["val_acc1_FFF"]) for row in rows_of(result.out)] == [False, True, False, True, True]


def test_without_validation_images(tiny: Tiny, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIANT_CACHE", str(tmp_path / "cache"))
    recipe = tiny(epochs=1, data={"source": "elsewhere", "val_fraction": 0.0})
    result = train(recipe, data=photos, out=tmp_path / "run", log=None)
    assert not [name for name in result.rows[0] if name.startswith("val")]
    assert Recipe.load(result.out / "recipe.yaml").data.source == str(photos)


def test_a_line_an_epoch(tiny: Tiny, images: ImageData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(), data=images, out=tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ")
    assert "val FFF " in lines[1]
    assert "images/s" in lines[1]


@pytest.mark.parametrize("backward", ["joint", "sequential"])
def test_a_loss_that_is_not_finite_stops_the_training(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backward: str
) -> None:
    steps = itertools.count(1)

    def labels(self: Loss, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return logits.mean() * (float("nan") if next(steps) == 5 else 1.0)

    monkeypatch.setattr(Loss, "labels", labels)
    with pytest.raises(TrainingStopped) as stop:
        train(tiny(epochs=4, backward=backward), data=images, out=tmp_path / "run", log=None)
    assert str(stop.value) == (
        "training stopped in epoch 2: the loss term 'FFF<-labels' became nan in step 5; "
        "the checkpoint of epoch 1 is kept"
    )
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 3
    assert all(tensor.isfinite().all() for tensor in state["state_dict"].values())
    assert len(rows_of(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 37}, "37 is more than the 36 training images"),
        ({"model": {"name": "pliant:resnet21"}}, "unknown model 'pliant:resnet21'"),
        ({"only": "TTX"}, "no sub-network 'TTX'"),
        ({"class_weights": [1, 2]}, "class_weights: got 2, expected 3"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_anything_is_written(
    tiny: Tiny, images: ImageData, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny(**changes), data=images, out=tmp_path / "run", log=None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99"])
def test_an_unknown_device_is_refused(tiny: Tiny, images: ImageData, tmp_path: Path, device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}'"):
        train(tiny(), data=images, out=tmp_path / "run", device=device)


@pytest.mark.slow
def test_a_compiled_network_trains_the_same(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    eager = train(tiny(ema={"decay": 0.5}), data=images, out=tmp_path / "eager", log=None)
    compiled = train(tiny(ema={"decay": 0.5}, compile=True), data=images, out=tmp_path / "compiled", log=None)
    for row, other in zip(compiled.rows, eager.rows, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-2)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(pliant.load(compiled.out)(x), compiled.model(x), rtol=0, atol=0)


OTHER_OUTPUTS = """
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()


def dense():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(*[Block() for _ in range(4)]), nn.Conv2d(8, 3, 1))


def one_logit():
    return nn.Sequential(*dense()[:2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
"""


def test_a_network_with_one_logit_is_trained_and_right_where_its_sign_is(
    tiny: Tiny, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OTHER_OUTPUTS)
    for part in ("train", "test"):
        for name in ("blue", "red"):
            shutil.copytree(photos / part / name, Path("photos", part, name))
    data = load_data("photos", val_fraction=0.25, cache=tmp_path / "cache")
    recipe = tiny(model={"name": "own.py:one_logit"}, epochs=3, class_weights=[1.0, 2.0])
    result = train(recipe, data=data, out="run", log=None)
    assert isinstance(result.model, AdaptiveModule)
    x, y = next(data.val.batches(99))
    right = (result.model(x, subnet="largest")[:, 0] > 0) == y
    column = f"val_acc1_{result.model.space.largest}"
    assert result.rows[-1][column] == pytest.approx(100 * right.float().mean().item(), abs=1e-3)


def test_a_network_with_dense_outputs_is_refused(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OTHER_OUTPUTS)
    with pytest.raises(ValueError, match=r"y: got int64 \[12\], expected class numbers \[12, 6, 6\]"):
        train(tiny(model={"name": "own.py:dense"}), data=images, out="run", log=None)


def test_classes_have_weights(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    """With all the weight on one class, the network learns to name no other."""
    result = train(tiny(epochs=4, class_weights=[0, 1, 0]), data=images, out=tmp_path / "run", log=None)
    labels = torch.cat([labels for _, labels in images.val.batches(99)])
    assert result.rows[-1]["val_acc1_FFF"] == pytest.approx(100 * (labels == 1).float().mean().item(), abs=1e-3)
