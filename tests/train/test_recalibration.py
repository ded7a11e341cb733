"""Norm statistics of all widths after the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pliant
from pliant.checkpoint import read_info
from pliant.core.adaptive import AdaptiveModule
from pliant.data import ImageData
from pliant.train.engine import train
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]

WIDTH: dict[str, Any] = {
    "model": {"name": "pliant:resnet20", "options": {"shortcut": "projection"}},
    "adapt": {"depth": None, "width": {"choices": [0.5, 0.75, 1.0]}},
    "plan": {"name": "sandwich", "random": 1},
    "data": {"source": "photos", "val_fraction": 0.25, "augment": {"padding": 2, "mixup": 0.4}},
    "epochs": 1,
}
PROGRESS = "recalibration.safetensors"


@pytest.mark.parametrize("changes", [{}, {"ema": {"decay": 0.5}, "channels_last": True}])
def test_every_width_has_the_statistics_that_measure_would_take(
    tiny: Tiny, images: ImageData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = tiny(**WIDTH, **changes)
    plain = train(recipe, data=images, out=tmp_path / "plain", log=None).model
    said: list[str] = []
    result = train(recipe.replace(recalibrate=24), data=images, out=tmp_path / "run", log=said.append)
    names = ["width=0.5", "width=0.75", "width=1.0"]
    assert said[1:] == [f"norm statistics of {name}: {number} of 3" for number, name in enumerate(names, start=1)]

    saved = pliant.load(result.out)
    assert isinstance(saved, AdaptiveModule)
    assert all(torch.equal(value, plain.get_parameter(name)) for name, value in saved.named_parameters())
    batches = [x for x, _ in images.train.batches(24, augment=recipe.data.augment, shuffle=True)][:1]
    for name in names:
        expected = pliant.recalibrated(plain, name, batches).state_dict()
        for network in (saved, result.model):
            found = pliant.extract(network, name).state_dict()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(value, plain.get_buffer(name)) for name, value in saved.named_buffers())
    assert read_info(result.out)["info"]["recalibrated"] == 24
    assert not (result.out / PROGRESS).exists()


def test_a_run_that_is_killed_meanwhile_goes_on_at_its_width(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    recipe = tiny(**WIDTH, recalibrate=24)
    out = tmp_path / "run"

    def stop_after_two(text: str) -> None:
        if text.endswith("2 of 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data=images, out=out, log=stop_after_two)
    assert (out / PROGRESS).exists()
    assert not (out / "model.safetensors").exists()
    kept = (out / PROGRESS).read_bytes()
    straight = train(recipe, data=images, out=tmp_path / "straight", log=None)

    # Of another network, damaged, or not there: anew, with the same result.
    for content, passes in ((kept, 1), (kept[:200], 3), (None, 3)):
        if content is not None:
            (out / PROGRESS).write_bytes(content)
        said: list[str] = []
        train(recipe, data=images, out=out, resume=True, log=said.append)
        assert len(said) == passes
        assert (out / "model.safetensors").read_bytes() == (straight.out / "model.safetensors").read_bytes()
        assert not (out / PROGRESS).exists()

    other = train(recipe.replace(seed=1), data=images, out=tmp_path / "other", log=None)
    (other.out / PROGRESS).write_bytes(kept)
    train(recipe.replace(seed=1), data=images, out=other.out, resume=True, log=said.append)
    assert len(said) == 6


def test_each_phase_takes_them_from_its_own_network(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    recipe = tiny(**WIDTH, recalibrate=24, then=[{"epochs": 1}, {"epochs": 1, "recalibrate": 0}])
    out = train(recipe, data=images, out=tmp_path / "run", log=None).out
    counts = [read_info(folder)["info"]["recalibrated"] for folder in (out / "phase-1", out / "phase-2", out)]
    assert counts == [24, 24, 0]
    first, second = (pliant.load(out / name).state_dict() for name in ("phase-1", "phase-2"))
    assert any(not torch.equal(value, second[name]) for name, value in first.items() if "running_mean" in name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recalibrate": -1}, r"Recipe\.recalibrate: got -1, expected at least 0"),
        (
            {"adapt": {"depth": {"skip_aware_norms": False}}, "plan": {"name": "adn"}},
            r"Recipe\.recalibrate: got 24, but 'adapt\.depth\.skip_aware_norms' is false",
        ),
        ({"adapt": {"depth": None, "width": {"norms": "shared"}}}, r"'adapt\.width\.norms' is 'shared'"),
        ({"only": "width=0.5"}, r"Recipe\.recalibrate: got 24, but 'only' is 'width=0\.5'"),
    ],
)
def test_a_recipe_without_statistics_to_keep_is_refused(tiny: Tiny, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        tiny(**WIDTH | {"recalibrate": 24} | changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("adapt", "plan"), [({"depth": {}}, "adn"), ({"depth": None, "exits": {"classifier": "convolutions"}}, "exits")]
)
def test_depths_and_exits_keep_statistics_too(
    tiny: Tiny, images: ImageData, tmp_path: Path, adapt: dict[str, Any], plan: str
) -> None:
    said: list[str] = []
    recipe = tiny(adapt=adapt, plan={"name": plan}, recalibrate=24)
    train(recipe, data=images, out=tmp_path / "run", log=said.append)
    model = pliant.load(tmp_path / "run")
    assert read_info(tmp_path / "run")["info"]["recalibrated"] == 24
    counts = {int(buffer) for name, buffer in model.named_buffers() if "num_batches_tracked" in name}
    assert counts <= {1, 2}  # one batch of 24 images, or one for each of two depths


def test_what_cannot_be_done_is_refused_before_the_training(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    vit = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
    without_norms = {"model": {"name": "timm:vit_tiny_patch16_224", "options": vit}}
    adapt = {"depth": None, "width": {"choices": [0.5, 1.0]}}
    for recipe, message in [
        (
            tiny(**WIDTH | without_norms | {"adapt": adapt, "recalibrate": 24}),
            r"^Recipe\.recalibrate: .*no batch norms",
        ),
        (tiny(**WIDTH, recalibrate=37), "^recalibrate=37: allowed are 0 to 36"),
        (tiny(**WIDTH, then=[{"epochs": 1, "recalibrate": 37}]), "^phase 2 of 2: recalibrate=37: allowed are 0 to 36"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(recipe, data=images, out=tmp_path / "run", log=None)
    assert not (tmp_path / "run").exists()
