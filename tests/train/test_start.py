"""The fine-tuning door: a network that was trained plainly becomes skippable."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pliant
from pliant.checkpoint import CheckpointError, load
from pliant.core.adaptive import AdaptiveModule
from pliant.create import create_model
from pliant.data import ImageData
from pliant.train.engine import train
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]
STANDING = {"optimizer": {"lr": 1e-30, "momentum": 0.0, "weight_decay": 0.0}, "epochs": 1}
"""Nothing learns: what comes out is what the training started from, but for the norms' statistics."""


def model(start: object, name: str = "pliant:resnet20") -> dict[str, object]:
    return {"name": name, "start_from": str(start)}


@pytest.fixture
def plain(tiny: Tiny, images: ImageData, tmp_path: Path) -> Path:
    """The run folder of a plain network."""
    return train(tiny(adapt=None, epochs=1), data=images, out=tmp_path / "plain", log=None).out


def test_both_norm_sets_start_from_the_plain_weights(
    tiny: Tiny, images: ImageData, plain: Path, tmp_path: Path
) -> None:
    result = train(tiny(model=model(plain), **STANDING), data=images, out=tmp_path / "run", log=None)
    assert isinstance(result.model, AdaptiveModule)
    before, after = load(plain).state_dict(), result.model.state_dict()
    seconds = [name for name in after if ".skip." in name and name.endswith("weight")]
    assert seconds
    for name in (*seconds, "conv1.weight", "layer3.2.bn2.weight", "fc.bias"):
        assert torch.equal(after[name], before[name.replace(".skip.", ".")]), name


def test_a_file_of_weights_will_do(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    """Of the network that the recipe names: it need not be found out."""
    before = create_model("timm:resnet18", num_classes=3)
    torch.save(before.state_dict(), tmp_path / "weights.pth")
    recipe = tiny(model=model(tmp_path / "weights.pth", "timm:resnet18"), **STANDING)
    after = train(recipe, data=images, out=tmp_path / "run", log=None).model.state_dict()
    for name in ("conv1.weight", "layer2.0.bn1.skip.weight", "fc.bias"):
        assert torch.equal(after[name], before.state_dict()[name.replace(".skip.", ".")]), name
    other = tiny(model=model(tmp_path / "weights.pth", "timm:resnet26"), **STANDING)
    with pytest.raises(CheckpointError, match=r"weights\.pth does not fit timm:resnet26: layer1\.0\.conv3\.weight"):
        train(other, data=images, out=tmp_path / "other", log=None)


def test_one_sub_network_alone_starts_from_its_part(tiny: Tiny, images: ImageData, plain: Path, tmp_path: Path) -> None:
    recipe = tiny(model=model(plain), only="TTT", **STANDING)
    after = train(recipe, data=images, out=tmp_path / "run", log=None).model.state_dict()
    assert "layer1.2.conv1.weight" not in after
    assert torch.equal(after["layer1.1.conv1.weight"], load(plain).state_dict()["layer1.1.conv1.weight"])


def test_an_adapted_network_goes_on_with_each_of_its_norm_sets(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    first = train(tiny(epochs=1), data=images, out=tmp_path / "first", log=None)
    again = train(tiny(model=model(first.out), **STANDING), data=images, out=tmp_path / "again", log=None)
    before, after = first.model.state_dict(), again.model.state_dict()
    assert not torch.equal(before["layer1.0.bn1.skip.weight"], before["layer1.0.bn1.weight"])
    for name in ("layer1.0.bn1.skip.weight", "layer1.0.bn1.weight", "fc.weight"):
        assert torch.equal(after[name], before[name]), name


def test_an_interrupted_fine_tuning_goes_on_without_its_start(
    tiny: Tiny, images: ImageData, plain: Path, tmp_path: Path
) -> None:
    recipe = tiny(model=model(plain))
    first = train(recipe, data=images, out=tmp_path / "run", log=None)
    shutil.rmtree(plain)
    again = train(recipe, data=images, out=tmp_path / "run", resume=True, log=None)
    assert again.rows == first.rows


def test_another_architecture_is_refused_with_the_keys(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    pliant.save(create_model("pliant:resnet32", num_classes=3), tmp_path / "other")
    with pytest.raises(CheckpointError) as refusal:
        train(tiny(model=model(tmp_path / "other")), data=images, out=tmp_path / "run", log=None)
    message = str(refusal.value)
    assert "cannot start from" in message
    assert "layer1.3.conv1.weight is unknown" in message
    assert message.count(";") == 2
    assert "\n" not in message
    assert not (tmp_path / "run").exists()


def test_other_classes_are_refused_with_the_shapes(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    pliant.save(create_model("pliant:resnet20", num_classes=7), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"fc.weight is \[7, 64\], expected \[3, 64\]"):
        train(tiny(model=model(tmp_path / "other")), data=images, out=tmp_path / "run", log=None)


def test_a_start_that_is_not_there_is_named(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        train(tiny(model=model(tmp_path / "nowhere")), data=images, out=tmp_path / "run", log=None)
