"""One recipe of two phases: the network learns, then its classifiers alone (IMTA)."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import pliant
from pliant.checkpoint import CheckpointError
from pliant.data import ImageData
from pliant.train import engine, objective
from pliant.train.engine import RunResult, train
from pliant.train.losses import Loss
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]
STANDING = {"lr": 1e-30, "momentum": 0.0, "weight_decay": 0.0}
EXITS = {"depth": None, "exits": {}}
COLLABORATING = {"depth": None, "exits": {"collaboration": "concatenate"}}
SECOND = {
    "epochs": 2,
    "adapt": COLLABORATING,
    "plan": {"name": "one-for-all"},
    "learns": "classifiers",
    "teacher": "frozen",
}


@pytest.fixture
def two(tiny: Tiny) -> Tiny:
    """Make a recipe of two phases, as the paper has them."""

    def make(second: dict[str, Any] | None = None, **changes: Any) -> Recipe:
        first = {"adapt": EXITS, "plan": {"name": "exits"}}
        return tiny(**first | changes, then=[SECOND | (second or {})])

    return make


def learns(name: str) -> bool:
    return ".linear." in name or name.startswith("fc.")


@torch.no_grad()
def answers(out: Path) -> list[torch.Tensor]:
    return pliant.load(out)(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), exits=True)


def test_the_second_phase_goes_on_from_the_first(two: Tiny, images: ImageData, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(two(), data=images, out=tmp_path / "run", log=said.append)
    assert [line.partition("  ")[0] for line in said] == [
        f"phase {phase} of 2, epoch {epoch}/2" for phase in (1, 2) for epoch in (1, 2)
    ]
    assert result.out == tmp_path / "run"
    assert Recipe.load(result.out / "recipe.yaml") == two()
    assert Recipe.load(result.out / "phase-1" / "recipe.yaml") == two().phases[0]
    assert all(parameter.requires_grad for parameter in result.model.parameters())


@pytest.mark.parametrize(
    "changes", [{}, {"ema": {"decay": 0.5}}, {"precision": "bf16", "channels_last": True, "backward": "sequential"}]
)
def test_classifiers_learn_and_all_else_stays_bit_for_bit(
    two: Tiny, images: ImageData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = train(two(**changes), data=images, out=tmp_path / "run", log=None).out
    first, last = pliant.load(out / "phase-1").state_dict(), pliant.load(out).state_dict()
    for name, tensor in first.items():
        assert torch.equal(last[name], tensor) != learns(name), name
    new = set(last) - set(first)
    assert len(new) == 14  # two layers that collaborate, of a linear layer and a norm each
    assert all(".collaboration." in name for name in new)


def test_where_nothing_learns_nothing_is_differentiated_and_norms_do_not_train(
    two: Tiny, images: ImageData, tmp_path: Path
) -> None:
    seen: dict[bool, set[tuple[bool, bool]]] = {False: set(), True: set()}

    def note(module: nn.Module, given: object, output: torch.Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d) and torch.is_grad_enabled():
            seen[(tmp_path / "run" / "phase-1" / "model.safetensors").exists()].add(
                (module.training, output.requires_grad)
            )

    handle = register_module_forward_hook(note)
    try:
        train(two(), data=images, out=tmp_path / "run", log=None)
    finally:
        handle.remove()
    assert seen == {False: {(True, True)}, True: {(False, False)}}


@pytest.mark.parametrize("kind", ["linear", "concatenate"])
def test_the_second_phase_begins_with_the_answers_of_the_first(
    two: Tiny, images: ImageData, tmp_path: Path, kind: str
) -> None:
    second = {"optimizer": STANDING, "adapt": {"depth": None, "exits": {"collaboration": kind}}}
    out = train(two(second), data=images, out=tmp_path / "run", log=None).out
    torch.testing.assert_close(answers(out), answers(out / "phase-1"))


@pytest.mark.parametrize("teacher", ["frozen", "live"])
def test_the_frozen_teacher_is_the_network_of_the_first_phase(
    two: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str
) -> None:
    teachers: list[nn.Module | None] = []

    def noted(*given: Any, **options: Any) -> objective.Objective:
        teachers.append(options["teacher"])
        return objective.Objective(*given, **options)

    monkeypatch.setattr(engine, "Objective", noted)
    out = train(two({"teacher": teacher}), data=images, out=tmp_path / "run", log=None).out
    last = teachers[-1]
    assert teachers[-2] is None  # of the first phase
    assert (last is None) == (teacher == "live")
    if last is not None:
        assert not last.training
        first = pliant.load(out / "phase-1").state_dict()
        assert all(torch.equal(tensor, first[name]) for name, tensor in last.state_dict().items())


def test_what_a_phase_leaves_out_stays(tiny: Tiny) -> None:
    recipe = tiny(adapt=EXITS, plan={"name": "exits"}, then=[{"epochs": 3}, {"epochs": 1, "learns": "classifiers"}])
    first, second, third = recipe.phases
    assert first == recipe.replace(then=())
    changed = {"epochs": (2, 3), "model.start_from": (None, "phase-1")}
    assert first.differences(second) == changed
    assert (third.model.start_from, third.learns, third.plan) == ("phase-2", "classifiers", first.plan)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert tiny().phases == (tiny(),)


def test_a_plain_phase_can_come_first(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    second = {"epochs": 1, "adapt": {}, "plan": {"name": "adn", "features": False}, "teacher": "frozen"}
    recipe = tiny(adapt=None, epochs=1, then=[second | {"optimizer": STANDING}])
    out = train(recipe, data=images, out=tmp_path / "run", log=None).out
    plain, skippable = (pliant.load(folder).state_dict() for folder in (out / "phase-1", out))
    assert torch.equal(skippable["layer1.0.bn1.skip.weight"], plain["layer1.0.bn1.weight"])


# Resuming: three losses a step, three steps an epoch, two epochs a phase.
TIMES = ("images_per_s", "seconds")


def metrics(out: Path) -> list[dict[str, str]]:
    rows = []
    for folder in (out / "phase-1", out):
        with open(folder / "metrics.csv", newline="") as file:
            rows += [{name: row[name] for name in row if name not in TIMES} for row in csv.DictReader(file)]
    return rows


@pytest.fixture(scope="module")
def straight(images: ImageData, tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    """Filled by the first that needs it: the training that nobody interrupts."""
    return []


@pytest.mark.parametrize(
    ("function", "call", "finished"),
    [
        ("labels", 5, 0),  # in the first epoch
        ("labels", 14, 0),  # in the second
        ("save_network", 1, 0),  # at the end of the first phase
        ("build_network", 4, 1),  # between the phases: before, both were built to see whether they fit
        ("labels", 20, 1),
        ("labels", 30, 1),
        ("save_network", 2, 1),
    ],
)
def test_an_interrupted_training_goes_on_in_its_phase(
    two: Tiny,
    images: ImageData,
    straight: list[RunResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    call: int,
    finished: int,
) -> None:
    changes = {"schedule": {"name": "step", "milestones": [1]}, "data": {"source": "photos", "val_fraction": 0.25}}
    recipe = two({"optimizer": {"lr": 0.01}}, **changes)
    room: Any = Loss if function == "labels" else engine
    original, calls = getattr(room, function), itertools.count(1)

    def interrupted(*given: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(room, function, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data=images, out=tmp_path / "run", log=None)
    said: list[str] = []
    resumed = train(recipe, data=images, out=tmp_path / "run", resume=True, log=said.append)
    assert ("phase 1 of 2 is finished" in said) == bool(finished)
    assert not finished or not any(line.startswith("phase 1 of 2, ") for line in said)
    if not straight:
        straight.append(train(recipe, data=images, out=tmp_path / "straight", log=None))
        shutil.copytree(tmp_path / "straight", tmp_path.parent / "straight-kept")
    kept = tmp_path.parent / "straight-kept"
    assert metrics(resumed.out) == metrics(kept)
    for name, tensor in straight[0].model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    assert (resumed.out / "model.safetensors").read_bytes() == (kept / "model.safetensors").read_bytes()


def test_another_recipe_is_refused_in_either_phase(two: Tiny, images: ImageData, tmp_path: Path) -> None:
    out = train(two(), data=images, out=tmp_path / "run", log=None).out
    with pytest.raises(ValueError, match=r"run/phase-1 holds a training already \(last.ckpt\)"):
        train(two(), data=images, out=out, log=None)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"another recipe: then\.0\.epochs was 2, is 3$"):
            train(two({"epochs": 3}), data=images, out=out, resume=True, log=None)
        with pytest.raises(ValueError, match="another recipe: then was "):
            train(two().phases[0], data=images, out=out, resume=True, log=None)
        (out / "last.ckpt").unlink(missing_ok=True)  # as if it had been killed in the first phase


def test_the_second_phase_goes_on_without_the_first(two: Tiny, images: ImageData, tmp_path: Path) -> None:
    first = train(two({"teacher": "live"}), data=images, out=tmp_path / "run", log=None)
    shutil.rmtree(first.out / "phase-1")
    again = train(two({"teacher": "live"}), data=images, out=first.out, resume=True, log=None)
    assert again.rows == first.rows
    assert not (first.out / "phase-1").exists()


# Starting from elsewhere.


def from_(path: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of classifiers alone."""
    model = {"name": "pliant:resnet20", "start_from": str(path)}
    return {"model": model, "adapt": EXITS, "plan": {"name": "exits"}, "learns": "classifiers", "epochs": 1} | changes


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return pliant.save(pliant.create_model("pliant:resnet20", num_classes=3), tmp_path / "plain")


def test_a_plain_network_gets_exits_and_stays_what_it_is(
    tiny: Tiny, images: ImageData, plain: Path, tmp_path: Path
) -> None:
    out = train(tiny(**from_(plain, teacher="frozen")), data=images, out=tmp_path / "run", log=None).out
    before, after = pliant.load(plain).state_dict(), pliant.load(out).state_dict()
    assert len(after) == len(before) + 4
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) != learns(name), name


def test_convolutions_that_nobody_trained_are_not_left_random(
    tiny: Tiny, images: ImageData, plain: Path, tmp_path: Path
) -> None:
    adapt = {"depth": None, "exits": {"classifier": "convolutions"}}
    with pytest.raises(ValueError, match=r"has no layer1\.2\.exit\.convolutions\.0\.weight, which would stay random"):
        train(tiny(**from_(plain, adapt=adapt)), data=images, out=tmp_path / "run", log=None)


def test_exits_at_other_places_are_refused_with_the_keys(two: Tiny, images: ImageData, tmp_path: Path) -> None:
    out = train(two(epochs=1), data=images, out=tmp_path / "run", log=None).out
    other = two(epochs=1).phases[0].to_dict() | from_(out / "phase-1", adapt={"depth": None, "exits": {"at": [1]}})
    with pytest.raises(CheckpointError, match=r"another network: layer2\.2\.exit\.linear\.weight is unknown"):
        train(Recipe.from_dict(other), data=images, out=tmp_path / "other", log=None)


def test_what_the_second_phase_cannot_do_is_refused_before_the_first(
    two: Tiny, images: ImageData, tmp_path: Path
) -> None:
    for second, message in [
        ({"plan": {"name": "adn"}}, r"^phase 2 of 2: plan 'adn' is for networks whose depth can be chosen"),
        ({"batch_size": 37}, r"^phase 2 of 2: Recipe\.batch_size: 37 is more than the 36 training images"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(two(second), data=images, out=tmp_path / "run", log=None)
    assert not (tmp_path / "run").exists()
