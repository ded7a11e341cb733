"""Early exits on real images: gradient equilibrium, collaboration and distillation, each alone and all together.

    python benchmarks/early_exit_evidence.py --data PATH_OF_CIFAR10 [--seeds 0 1] [--runs none ge isc ofa all]
    python benchmarks/early_exit_evidence.py --data PATH_OF_CIFAR10 --runs cascade
    python benchmarks/early_exit_evidence.py --summary

The ablation of the IMTA paper with recipes/cifar10_msdnet_small.yaml, an MSDNet of five exits, in two phases:
the whole network, with its losses added or with gradient equilibrium (`ge`, `all`); then the last layer of every
classifier, learning from the labels alone, with inline collaboration (`isc`, `all`), with one-for-all distillation
(`ofa`, `all`). All have the same epochs; the runs of one seed share the first phases. `cascade` trains nothing: it
takes the skippable ResNet-20 that benchmarks/evidence.py trained as the run adn-sum-features of the study cifar10, and
lets its depths answer one after the other.

Each run is measured on test images: every exit alone (anytime prediction), and budgeted batches, whose thresholds come
from validation images. Figures go to results/cifar10-msdnet/<run>-seed<k>.json; their means and spreads, beside
ResNet-20s that were trained on their own, to results/cifar10-msdnet.json and docs/images/budgeted-batches.png. A
training is resumed where it was interrupted, and a run that was measured is not repeated. With --epochs the script is
only tried out: its figures go to OUT/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, write_result
from torch import nn

import pliant
from pliant.data import ImageData, load_data
from pliant.exits.config import Exits
from pliant.measure.policies import measure_policies
from pliant.train.engine import train
from pliant.train.recipe import Adapt, PlanChoice, Recipe

STUDY = "cifar10-msdnet"
RECIPE = "recipes/cifar10_msdnet_small.yaml"
CASCADE = "cascade"
CASCADE_SUBNETS = ("TTT", "TTF", "TFF", "FFF")
BUDGETS = 9
IMAGE = ROOT / "docs" / "images" / "budgeted-batches.png"


@dataclass(frozen=True)
class Techniques:
    """One row of the ablation: which of the three techniques."""

    equilibrium: bool = False
    collaboration: bool = False
    distillation: bool = False


RUNS = {
    "none": Techniques(),
    "ge": Techniques(equilibrium=True),
    "isc": Techniques(collaboration=True),
    "ofa": Techniques(distillation=True),
    "all": Techniques(equilibrium=True, collaboration=True, distillation=True),
}


@dataclass(frozen=True)
class Place:
    """Where networks and figures go, and for how long to train if not as the recipe says."""

    out: Path
    epochs: int | None

    @property
    def results(self) -> Path:
        return ROOT / "results" if self.epochs is None else self.out.resolve() / "results"

    def figures(self, name: str, seed: int) -> Path:
        return self.results / STUDY / f"{name}-seed{seed}.json"


def recipes(techniques: Techniques, seed: int, place: Place) -> tuple[Recipe, Recipe]:
    """The two phases of a run, each as a recipe of its own; the second does not say yet where it starts."""
    whole = Recipe.load(ROOT / RECIPE).replace(seed=seed)
    phase = whole.then[-1]
    equilibrium = "coarsest" if techniques.equilibrium else "none"
    collaboration = "concatenate" if techniques.collaboration else "none"
    whole = whole.replace(
        adapt=Adapt(depth=None, exits=Exits(equilibrium=equilibrium)),
        then=(
            phase.replace(
                adapt=Adapt(depth=None, exits=Exits(equilibrium=equilibrium, collaboration=collaboration)),
                plan=PlanChoice(name="one-for-all" if techniques.distillation else "exits"),
                teacher="frozen" if techniques.distillation else "live",
            ),
        ),
    )
    first, second = whole.phases
    if place.epochs is not None:
        first, second = first.replace(epochs=place.epochs), second.replace(epochs=place.epochs)
    return first, second


def run(name: str, seed: int, data: ImageData, place: Place) -> None:
    """Train and measure one network, unless its figures are there."""
    result = place.figures(name, seed)
    if result.exists():
        print(f"{result.relative_to(place.results.parent)} is there")
        return
    if name == CASCADE:
        model = pliant.load(place.out / "cifar10" / f"adn-sum-features-seed{seed}")
        write_result(result, {"run": name, "seed": seed, **figures(model, data, CASCADE_SUBNETS)})
        return
    techniques = RUNS[name]
    first, second = recipes(techniques, seed, place)
    shared = place.out / STUDY / f"phase-1-{first.adapt.exits.equilibrium}-seed{seed}"  # type: ignore[union-attr]
    before = train(first, data=data, out=shared, resume=True, progress=False)
    second = second.replace(model=second.model.replace(start_from=os.path.relpath(shared)))
    trained = train(second, data=data, out=place.out / STUDY / f"{name}-seed{seed}", resume=True, progress=False)
    took = sum(row["seconds"] for row in [*before.rows, *trained.rows]) / 60
    document = {"run": name, "seed": seed, "phases": [first.to_dict(), second.to_dict()], "minutes": took}
    write_result(result, document | figures(trained.model, data))


def figures(model: nn.Module, data: ImageData, subnets: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Accuracy of every sub-network alone, and under each budget."""
    table = measure_policies(model, data, budgets=BUDGETS, subnets=subnets, rounds=0)
    kept = ("budget", "gmacs", "paper_gmacs", "acc1", "shares")
    return {
        "subnets": table.info["subnets"],
        "cumulative_gmacs": table.info["cumulative_gmacs"],
        "anytime": table.anytime,
        "budgeted": [{key: row[key] for key in kept if key in row} for row in table.rows],
    }


def summarise(place: Place) -> dict[str, Any]:
    """Mean and standard deviation over seeds of everything there is."""
    runs = {}
    for name in (*RUNS, CASCADE):
        paths = sorted((place.results / STUDY).glob(f"{name}-seed*.json"))
        documents = [json.loads(path.read_text()) for path in paths]
        if documents:
            runs[name] = {
                "seeds": [document["seed"] for document in documents],
                "epochs": [phase["epochs"] for phase in documents[0].get("phases", [])],
                "anytime": together([document["anytime"] for document in documents]),
                "budgeted": together([document["budgeted"] for document in documents]),
            }
    alone = trained_alone(place)
    document = {"study": STUDY, "recipe": RECIPE, "exits": runs, "trained_individually": alone}
    write_result(place.results / f"{STUDY}.json", document)
    return document


def together(seeds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Row by row the means over seeds, and the standard deviation of the accuracies."""
    rows = []
    for same in map(list, zip(*seeds, strict=True)):
        row: dict[str, Any] = {key: same[0][key] for key in ("subnet", "budget") if key in same[0]}
        for key in ("gmacs", "paper_gmacs"):
            if all(key in one for one in same):
                row[key] = statistics.fmean(one[key] for one in same)
        row["acc1"] = statistics.fmean(one["acc1"] for one in same)
        if len(same) > 1:
            row["acc1_std"] = statistics.stdev(one["acc1"] for one in same)
        if "shares" in same[0]:
            row["shares"] = {key: statistics.fmean(one["shares"][key] for one in same) for key in same[0]["shares"]}
        rows.append(row)
    return rows


def trained_alone(place: Place) -> list[dict[str, Any]]:
    """The ResNet-20s of the study cifar10 that were trained on their own, its super-net and its base-net."""
    path = place.results / "cifar10.json"
    if not path.exists():
        return []
    runs = json.loads(path.read_text())["runs"]
    rows = []
    for name in ("base", "super"):
        for subnet, row in runs.get(name, {}).get("subnets", {}).items():
            rows.append({"network": f"ResNet-20 {subnet}", "gmacs": row["gmacs"], "acc1": row["test_acc1"]})
    return rows


def draw(document: Mapping[str, Any]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    labels = {"none": "MSDNet, no technique", "all": "MSDNet, all three", CASCADE: "skippable ResNet-20, cascade"}
    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for name, run_ in document["exits"].items():
        rows = run_["budgeted"]
        thin = name not in labels
        axes.plot(
            [row["gmacs"] * 1e3 for row in rows],
            [row["acc1"] for row in rows],
            marker="o",
            markersize=2 if thin else 4,
            linewidth=0.8 if thin else 1.8,
            label=labels.get(name, f"MSDNet, {name}"),
        )
    alone = document["trained_individually"]
    if alone:
        points = [row["gmacs"] * 1e3 for row in alone], [row["acc1"] for row in alone]
        axes.plot(*points, marker="s", linestyle="none", color="black", label="ResNet-20, trained individually")
    axes.set_xlabel("average computation of an image, 10$^6$ multiply-accumulates")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or archive of class folders, or the name of a data set")
    parser.add_argument("--runs", nargs="+", choices=[*RUNS, CASCADE], default=list(RUNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--epochs", type=int, help="only try the script out, with so many epochs in each phase")
    parser.add_argument("--summary", action="store_true", help="train nothing, only sum up what is there")
    arguments = parser.parse_args()
    place = Place(arguments.out, arguments.epochs)
    if not arguments.summary:
        torch.set_num_threads(arguments.threads)
        data = load_data(arguments.data or "cifar10", seed=0)
        for seed in arguments.seeds:
            for name in arguments.runs:
                run(name, seed, data, place)
    document = summarise(place)
    if place.epochs is None:
        draw(document)


if __name__ == "__main__":
    main()
