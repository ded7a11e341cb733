"""One network for all depths against networks trained one by one, on real images, and against its own beginnings.

    python benchmarks/evidence.py cifar10 --data PATH [--seeds 0 1] [--runs NAME ...] [--threads 2]
    python benchmarks/evidence.py cifar10-finetune --data PATH
    python benchmarks/evidence.py cifar10 --summary
    python benchmarks/evidence.py cifar10-vit --data digits --epochs 1 --seeds 0 --out runs/try

Each run is one recipe of recipes/ with one plan (or one sub-network on its own), trained, then measured on the test
images, all sub-networks. Every sub-network of every run has the same recipe, images and number of epochs. A run is
resumed where it was interrupted and never repeated; its figures, with the whole recipe, go to
results/<study>/<run>-seed<k>.json, and the mean and spread over seeds to results/<study>.json. Nothing is chosen on
test images: plans were compared by the validation accuracies that stand beside them.

The study cifar10-finetune takes the network that the run `super` of the study cifar10 trains, and measures all its
sub-networks before and after it was made skippable.

With --epochs the script is only tried out: its figures go to OUT/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, notes_of, write_result
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.adapt import adapt_
from pliant.core.adaptive import AdaptiveModule
from pliant.create import create_model
from pliant.data import ImageData, load_data
from pliant.measure import measure
from pliant.train.engine import train
from pliant.train.recipe import Adapt, PlanChoice, Recipe
from pliant.train.records import Row

# The recipe of each study.
STUDIES = {
    "cifar10": "recipes/cifar10_resnet20.yaml",
    "cifar10-resnet32": "recipes/cifar10_resnet32.yaml",
    "cifar10-vit": "recipes/cifar10_vit.yaml",
    "cifar10-swin": "recipes/cifar10_swin.yaml",
    "cifar10-mobilenetv2": "recipes/cifar10_mobilenetv2.yaml",
    "cifar10-finetune": "recipes/finetune_cifar10_resnet20.yaml",
    "cifar10-width": "recipes/cifar10_width_resnet20.yaml",
    # Once more, with strided 1x1 convolutions kept from oneDNN's fault (src/pliant/core/pointwise.py).
    "cifar10-width-again": "recipes/cifar10_width_resnet20.yaml",
    "cifar10-width-vit": "recipes/cifar10_width_vit.yaml",
    "cifar10-width-ds-mbnet": "recipes/cifar10_ds_mbnet.yaml",
}
RECALIBRATION_IMAGES = 5_120
# Networks trained on their own, by the sub-network that they are.
ALONE = {"super": "largest", "base": "smallest"}
ALONE |= {f"alone-{width}": f"width={width}" for width in (0.25, 0.5, 0.75, 1.0)}
# Networks with all sub-networks, by their plan.
ADAPTIVE = {
    "adn": PlanChoice(name="adn"),
    "adn-logits": PlanChoice(name="adn", options={"features": False}),
    "adn-sum": PlanChoice(name="adn-sum"),
    "adn-sum-features": PlanChoice(name="adn-sum", options={"features": True}),
    "no-distillation": PlanChoice(name="no-distillation"),
    "adn-shared-norms": PlanChoice(name="adn"),
}
# Networks with all widths, as changes of the recipe, which has a moving average as its teacher.
SANDWICH = PlanChoice(name="sandwich")
HALF_LABELS = PlanChoice(name="sandwich", options={"labels": 0.5})
WIDTHS: dict[str, dict[str, Any]] = {
    "slimmable": {"plan": PlanChoice(name="slimmable"), "teacher": "live", "views": 1},
    "sandwich": {"plan": SANDWICH, "teacher": "live", "views": 1},
    "bootstrapping": {"plan": SANDWICH, "views": 1},
    "bootstrapping-labels": {"plan": HALF_LABELS, "views": 1},
    "multi-view": {"plan": SANDWICH, "views": 2},
    "multi-view-labels": {"plan": HALF_LABELS, "views": 2},
    "ensemble": {"plan": PlanChoice(name="sandwich", options={"ensemble": True}), "views": 1},
}
FINETUNE = "cifar10-finetune"
STARTS_FROM = ("cifar10", "super")
USUAL = ["super", "base", "adn", "adn-sum"]
USUAL_WIDTHS = ["alone-0.25", "alone-0.5", "alone-0.75", "alone-1.0", "slimmable", "sandwich", "bootstrapping"]
ORDER = [*ALONE, *ADAPTIVE, *WIDTHS, "before", "after"]


@dataclass(frozen=True)
class Place:
    """Where networks and figures go, and for how long to train if not as the recipe says."""

    out: Path
    epochs: int | None

    def folder(self, study: str, name: str, seed: int) -> Path:
        return self.out / study / f"{name}-seed{seed}"

    @property
    def results(self) -> Path:
        return ROOT / "results" if self.epochs is None else self.out.resolve() / "results"

    def figures(self, study: str, name: str, seed: int) -> Path:
        return self.results / study / f"{name}-seed{seed}.json"


def recipe_of(study: str, name: str, seed: int, place: Place) -> Recipe:
    """The recipe of a study, without phases for gates, with what makes it this run."""
    recipe = Recipe.load(ROOT / STUDIES[study]).phases[0].replace(seed=seed)
    if place.epochs is not None:
        warmup = min(recipe.schedule.warmup_epochs, place.epochs / 2)
        recipe = recipe.replace(epochs=place.epochs, schedule=recipe.schedule.replace(warmup_epochs=warmup))
    if name in ALONE:
        return recipe.replace(only=end_of(recipe, ALONE[name]), recalibrate=0, views=1)
    if name in WIDTHS:
        assert recipe.adapt is not None and recipe.adapt.width is not None
        own = recipe.adapt.width.replace(norms="private", gate=None)
        changes = {"adapt": Adapt(depth=None, width=own)} if name == "slimmable" else {}
        return recipe.replace(**WIDTHS[name], **changes)
    if name == "after":
        start = os.path.relpath(place.folder(*STARTS_FROM, seed))
        return recipe.replace(model=recipe.model.replace(start_from=start))
    if name == "adn-shared-norms":
        assert recipe.adapt is not None and recipe.adapt.depth is not None
        recipe = recipe.replace(adapt=Adapt(depth=recipe.adapt.depth.replace(skip_aware_norms=False)))
    return recipe.replace(plan=ADAPTIVE[name]) if name in ADAPTIVE else recipe


def end_of(recipe: Recipe, end: str) -> str:
    """The largest or smallest sub-network of a recipe's network, as text."""
    assert recipe.adapt is not None
    model = adapt_(create_model(recipe.model.name, **recipe.model.options), *recipe.adapt.configs)
    assert isinstance(model, AdaptiveModule)
    return str(model.space.parse(end))


def run(study: str, name: str, seed: int, data: ImageData, place: Place) -> None:
    """Train and measure one network, unless its figures are there."""
    result = place.figures(study, name, seed)
    if result.exists():
        print(f"{result.relative_to(place.results.parent)} is there")
        return
    recipe = recipe_of(study, name, seed, place)
    if study == FINETUNE:
        plain = recipe_of(*STARTS_FROM, seed, place)
        started = train(plain, data=data, out=place.folder(*STARTS_FROM, seed), resume=True, progress=False)
        if name == "before":
            assert recipe.adapt is not None
            adapted = adapt_(started.model, *recipe.adapt.configs)
            document = {"run": name, "recipe": plain.to_dict(), **figures(adapted, started.rows, plain, data)}
            write_result(result, document)
            return
    trained = train(recipe, data=data, out=place.folder(study, name, seed), resume=True, progress=False)
    document = {"run": name, "recipe": recipe.to_dict(), **figures(trained.model, trained.rows, recipe, data)}
    write_result(result, document)


def figures(model: nn.Module, epochs: list[Row], recipe: Recipe, data: ImageData) -> dict[str, Any]:
    """Accuracy of every sub-network on validation and on test images, and what the training took."""
    only = "" if isinstance(model, AdaptiveModule) else recipe.only
    # A network that was trained has its own statistics, and one without batch norms has none at all.
    has_statistics = not only and any(isinstance(module, _BatchNorm) for module in model.modules())
    recalibration = min(RECALIBRATION_IMAGES, len(data.train)) if has_statistics else 0
    rows: dict[str, dict[str, float]] = {}
    for split in ("val", "test"):
        for suffix, images in {"": 0, "_recalibrated": recalibration}.items():
            if suffix and not images:
                continue
            table = measure(
                model,
                data,
                split=split,
                latency=False,
                memory=False,
                recalibrate=images,
                augment=recipe.data.augment,
                name=only or type(model).__name__,
            )
            for row in table.rows:
                kept = rows.setdefault(row["subnet"], {"gmacs": row["gmacs"], "params_m": row["params_m"]})
                kept[f"{split}_acc1{suffix}"] = row["acc1"]
    return {
        "subnets": rows,
        "minutes": sum(row["seconds"] for row in epochs) / 60,
        "last_epoch": epochs[-1],
    }


def summarise(study: str, place: Place) -> None:
    """Mean and standard deviation over seeds of everything there is for this study."""
    by_run: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((place.results / study).glob("*-seed*.json")):
        document = json.loads(path.read_text())
        by_run.setdefault(document["run"], []).append(document)
    runs = {}
    for name in sorted(by_run, key=ORDER.index):
        documents = by_run[name]
        runs[name] = {
            "seeds": [document["recipe"]["seed"] for document in documents],
            "epochs": documents[0]["recipe"]["epochs"],
            "subnets": {
                subnet: {
                    "gmacs": documents[0]["subnets"][subnet]["gmacs"],
                    **{
                        f"{key}{suffix}": value
                        for key in documents[0]["subnets"][subnet]
                        if "acc1" in key
                        for suffix, value in spread([d["subnets"][subnet][key] for d in documents]).items()
                    },
                }
                for subnet in documents[0]["subnets"]
            },
        }
    notes = notes_of(document for documents in by_run.values() for document in documents)
    write_result(place.results / f"{study}.json", {"study": study, "recipe": STUDIES[study], **notes, "runs": runs})


def spread(values: list[float]) -> dict[str, float]:
    """The mean, and with two or more values the standard deviation."""
    return {"": statistics.mean(values)} | ({"_std": statistics.stdev(values)} if len(values) > 1 else {})


def chosen_runs(study: str, names: list[str] | None) -> list[str]:
    """The runs that were asked for, or the usual ones; ends the program if the study has no such run."""
    usual = ["before", "after"] if study == FINETUNE else USUAL_WIDTHS if "width" in study else USUAL
    allowed = usual if study == FINETUNE else [*ALONE, *WIDTHS] if "width" in study else [*ALONE, *ADAPTIVE]
    strange = [name for name in names or [] if name not in allowed]
    if strange:
        raise SystemExit(f"error: the study {study} has no run {strange[0]!r}; allowed: {', '.join(allowed)}")
    return names or usual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", help="folder or archive of class folders, or the name of a data set")
    parser.add_argument("--runs", nargs="+", help="default: the usual ones of the study")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--epochs", type=int, help="only try the script out, with so many epochs")
    parser.add_argument("--summary", action="store_true", help="train nothing, only sum up what is there")
    arguments = parser.parse_args()
    runs = chosen_runs(arguments.study, arguments.runs)
    place = Place(arguments.out, arguments.epochs)
    if not arguments.summary:
        torch.set_num_threads(arguments.threads)
        data = load_data(arguments.data or "cifar10", seed=0)
        for seed in arguments.seeds:
            for name in runs:
                run(arguments.study, name, seed, data, place)
    summarise(arguments.study, place)


if __name__ == "__main__":
    main()
