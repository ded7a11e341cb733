"""The studies train what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pliant.data import load_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "benchmarks" / "evidence.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "evidence", module)  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("study", "largest", "smallest"),
    [
        ("cifar10", "FFF", "TTT"),
        ("cifar10-vit", "FFF", "TTT"),
        ("cifar10-swin", "FFFF", "TTTF"),
        ("cifar10-mobilenetv2", "FFFFF", "TTTTT"),
    ],
)
def test_networks_trained_alone_are_the_ends(
    script: ModuleType, tmp_path: Path, study: str, largest: str, smallest: str
) -> None:
    place = script.Place(tmp_path, None)
    names = [script.recipe_of(study, name, 0, place).only for name in ("super", "base", "adn")]
    assert names == [largest, smallest, ""]
    assert place.results == ROOT / "results"


def test_an_ablation_of_the_norms_leaves_the_blocks_as_they_are(script: ModuleType, tmp_path: Path) -> None:
    recipe = script.recipe_of("cifar10-swin", "adn-shared-norms", 3, script.Place(tmp_path, None))
    assert (recipe.plan.name, recipe.seed) == ("adn", 3)
    assert recipe.adapt.depth.skip_aware_norms is False
    assert recipe.adapt.depth.mandatory == (1, 1, 3, 2)


def test_a_run_of_another_study_is_refused(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"cifar10-finetune has no run 'super'; allowed: before, after"):
        script.chosen_runs("cifar10-finetune", ["super"])


def test_a_note_of_one_training_stands_in_the_summary_and_below_the_table(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tables

    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "evidence.py")])
    place = script.Place(tmp_path, 1)
    figures = {"gmacs": 0.5, "val_acc1": 80.0, "test_acc1": 79.0}
    for seed, note in enumerate([{"note": "Trained with another plan."}, {}]):
        path = place.figures("cifar10-width", "slimmable", seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = {"seed": seed, "epochs": 1}
        path.write_text(json.dumps({"run": "slimmable", **note, "recipe": recipe, "subnets": {"width=1.0": figures}}))
    script.summarise("cifar10-width", place)
    shown = tables.tables(place.results / "cifar10-width.json").split("\n\n")
    assert shown[-2] == "Trained with another plan." and shown[-1].startswith("<sub>")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plain_network_is_measured_before_and_after_it_is_made_skippable(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = script.Place(Path("runs"), 1)
    data = load_data("digits", image_size=8)
    for name in ("before", "after"):
        script.run("cifar10-finetune", name, 0, data, place)
    trained = (tmp_path / "runs" / "cifar10" / "super-seed0" / "model.safetensors").stat().st_mtime_ns
    script.run("cifar10-finetune", "after", 0, data, place)
    assert (tmp_path / "runs" / "cifar10" / "super-seed0" / "model.safetensors").stat().st_mtime_ns == trained
    script.summarise("cifar10-finetune", place)
    document = json.loads((tmp_path / "runs" / "results" / "cifar10-finetune.json").read_text())
    assert document["recipe"] == "recipes/finetune_cifar10_resnet20.yaml"
    assert list(document["runs"]) == ["before", "after"]
    for run in document["runs"].values():
        assert len(run["subnets"]) == 8
        assert {"test_acc1", "test_acc1_recalibrated", "val_acc1"} <= set(run["subnets"]["TTT"])
    after = json.loads((tmp_path / "runs" / "results" / "cifar10-finetune" / "after-seed0.json").read_text())
    assert after["recipe"]["model"]["start_from"] == "runs/cifar10/super-seed0"
