"""One network for all depths against networks trained one by one, on real images.

    python benchmarks/evidence.py cifar10 --data PATH [--seeds 0 1] [--runs super base adn adn-sum] [--threads 2]
    python benchmarks/evidence.py cifar10 --summary

Each run is one recipe of recipes/ with one plan (or one sub-network on its own), trained, then measured on the test
images, all sub-networks. Every sub-network of every run has the same recipe, images and number of epochs. A run is
resumed where it was interrupted and never repeated; its figures go to results/<study>/<run>-seed<k>.json, and the
mean and spread over seeds to results/<study>.json. Nothing is chosen on test images: plans were compared by the
validation accuracies that stand beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, write_result

from pliant.data import ImageData, load_data
from pliant.depth.config import Depth
from pliant.measure import measure
from pliant.train.engine import RunResult, train
from pliant.train.recipe import Adapt, PlanChoice, Recipe

# The recipe of each study, and its runs: what differs from the recipe.
STUDIES = {"cifar10": "recipes/cifar10_resnet20.yaml", "cifar10-resnet32": "recipes/cifar10_resnet32.yaml"}
RECALIBRATION_IMAGES = 12_800
RUNS: dict[str, dict[str, Any]] = {
    "super": {"only": "FFF"},
    "base": {"only": "TTT"},
    "adn": {"plan": PlanChoice(name="adn")},
    "adn-logits": {"plan": PlanChoice(name="adn", options={"features": False})},
    "adn-sum": {"plan": PlanChoice(name="adn-sum")},
    "adn-sum-logits": {"plan": PlanChoice(name="adn-sum", options={"features": False})},
    "no-distillation": {"plan": PlanChoice(name="no-distillation")},
    "adn-shared-norms": {"plan": PlanChoice(name="adn"), "adapt": Adapt(depth=Depth(skip_aware_norms=False))},
}


def run(study: str, name: str, seed: int, data: ImageData, out: Path) -> None:
    """Train and measure one network, unless its figures are there."""
    result = Path("results") / study / f"{name}-seed{seed}.json"
    if (ROOT / result).exists():
        print(f"{result} is there")
        return
    recipe = Recipe.load(ROOT / STUDIES[study]).replace(seed=seed, **RUNS[name])
    folder = out / study / f"{name}-seed{seed}"
    trained = train(recipe, data=data, out=folder, resume=True, progress=False)
    write_result(result, {"run": name, "recipe": recipe.to_dict(), **figures(trained, recipe, data)})


def figures(trained: RunResult, recipe: Recipe, data: ImageData) -> dict[str, Any]:
    """Accuracy of every sub-network on validation and on test images, and what the training took."""
    rows: dict[str, dict[str, float]] = {}
    for split in ("val", "test"):
        for suffix, images in (("", 0), ("_recalibrated", RECALIBRATION_IMAGES)):
            if recipe.only and images:
                continue  # a network that was trained has its own statistics
            table = measure(
                trained.model,
                data,
                split=split,
                latency=False,
                memory=False,
                recalibrate=images,
                augment=recipe.data.augment,
                name=recipe.only or None,
            )
            for row in table.rows:
                kept = rows.setdefault(row["subnet"], {"gmacs": row["gmacs"], "params_m": row["params_m"]})
                kept[f"{split}_acc1{suffix}"] = row["acc1"]
    return {
        "subnets": rows,
        "minutes": sum(row["seconds"] for row in trained.rows) / 60,
        "last_epoch": trained.rows[-1],
    }


def summarise(study: str) -> None:
    """Mean and standard deviation over seeds of everything there is for this study."""
    by_run: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((ROOT / "results" / study).glob("*-seed*.json")):
        document = json.loads(path.read_text())
        by_run.setdefault(document["run"], []).append(document)
    runs = {}
    for name in sorted(by_run, key=list(RUNS).index):
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
    write_result(f"results/{study}.json", {"study": study, "runs": runs})


def spread(values: list[float]) -> dict[str, float]:
    """The mean, and with two or more values the standard deviation."""
    return {"": statistics.mean(values)} | ({"_std": statistics.stdev(values)} if len(values) > 1 else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", help="folder or archive of class folders, or the name of a data set")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["super", "base", "adn", "adn-sum"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--summary", action="store_true", help="train nothing, only sum up what is there")
    arguments = parser.parse_args()
    if not arguments.summary:
        torch.set_num_threads(arguments.threads)
        data = load_data(arguments.data or "cifar10", seed=0)
        for seed in arguments.seeds:
            for name in arguments.runs:
                run(arguments.study, name, seed, data, arguments.out)
    summarise(arguments.study)


if __name__ == "__main__":
    main()
