"""A gate against static widths, on CIFAR-10: Stage I and II of DS-Net.

    python benchmarks/gate_evidence.py resnet20 --data PATH [--seeds 0 1] [--runs bootstrapping sandwich]
    python benchmarks/gate_evidence.py resnet20 --summary

Stage I is trained once for each seed and way of teaching; Stage II several times, with more and more weight on the
cost, which gives a curve. Each is measured on validation and on test images: every width alone, and what the gate
chooses. Nothing is chosen on test images. Figures go to results/cifar10-gate-<network>/<run>-seed<k>.json, the means
and spreads over seeds to results/cifar10-gate-<network>.json. A training is resumed where it was interrupted and never
repeated. With --epochs the script is only tried out: its figures go to OUT/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, write_result

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.core.macs import count_gmacs
from pliant.data import ImageData, Split, load_data
from pliant.measure import measure
from pliant.train.engine import train
from pliant.train.recipe import PlanChoice, Recipe
from pliant.width.gates import gate_of

RECIPES = {"resnet20": "recipes/cifar10_dsnet_resnet20.yaml", "ds-mbnet": "recipes/cifar10_ds_mbnet.yaml"}
# Who teaches in Stage I: the moving average, as in DS-Net, or the network itself.
RUNS: dict[str, dict[str, Any]] = {"bootstrapping": {}, "sandwich": {"teacher": "live"}}
# Of the recipe's own weight of the cost.
COSTS = (0.0, 0.25, 1.0, 4.0)
PARTS = ("val", "test")


def run(network: str, name: str, seed: int, data: ImageData, out: Path, results: Path, epochs: int | None) -> None:
    """Train and measure one network and its gates, unless the figures are there."""
    result = results / f"cifar10-gate-{network}" / f"{name}-seed{seed}.json"
    if result.exists():
        print(f"{result.relative_to(results.parent)} is there")
        return
    first, second = Recipe.load(ROOT / RECIPES[network]).replace(seed=seed, **RUNS[name]).phases
    if epochs:
        first, second = first.replace(epochs=epochs), second.replace(epochs=epochs)
    first = first.replace(recalibrate=min(first.recalibrate, len(data.train)))
    folder = out / f"cifar10-gate-{network}"
    start = folder / f"{name}-seed{seed}"
    widths = train(first, data=data, out=start, resume=True, progress=False)
    document: dict[str, Any] = {"run": name, "seed": seed, "phases": [first.to_dict(), second.to_dict()]}
    document |= {"widths": static_rows(widths.model, data), "gates": []}
    for factor in COSTS:
        cost = factor * second.plan.options["cost"]
        plan = PlanChoice(name="gates", options={"cost": cost})
        recipe = second.replace(plan=plan, model=second.model.replace(start_from=os.path.relpath(start)))
        trained = train(recipe, data=data, out=folder / f"{name}-seed{seed}-{factor:g}", resume=True, progress=False)
        document["gates"].append({"cost": cost} | gated_row(trained.model, data))
    write_result(result, document)


def static_rows(model: torch.nn.Module, data: ImageData) -> list[dict[str, Any]]:
    """Every width alone, with the norm statistics that Stage I ends with."""
    tables = {part: measure(model, data, split=part, latency=False, memory=False) for part in PARTS}
    rows = zip(*(tables[part].rows for part in PARTS), strict=True)
    return [
        {"subnet": first["subnet"], "gmacs": first["gmacs"]}
        | {f"{part}_acc1": row["acc1"] for part, row in zip(PARTS, (first, *others), strict=True)}
        for first, *others in rows
    ]


def gated_row(model: torch.nn.Module, data: ImageData) -> dict[str, Any]:
    """What the gate chooses, and what that gives and costs, the gate itself included."""
    assert isinstance(model, AdaptiveModule)
    assert data.test is not None
    choose = gate_of(model).choose
    own = choose.weight.numel() / 1e9
    costs = [own + count_gmacs(pliant.extract(model, route).eval(), data.image_size) for route in model.routes]
    row: dict[str, Any] = {"routes": [str(route) for route in model.routes]}
    for part, split in (("val", data.val), ("test", data.test)):
        right, shares = gated_answers(model, split)
        gmacs = sum(share * cost for share, cost in zip(shares, costs, strict=True))
        row |= {f"{part}_acc1": 100 * right, f"{part}_gmacs": gmacs, f"{part}_shares": shares}
    return row


def gated_answers(model: AdaptiveModule, split: Split) -> tuple[float, list[float]]:
    """Return the fraction of right answers, and which part of the images goes each way."""
    right, counts = 0, torch.zeros(len(model.routes))
    for images, labels in split.batches(256):
        logits, places = pliant.predict(model, images, policy="gate")
        right += int((logits.argmax(1) == labels).sum())
        counts += places.bincount(minlength=len(counts))
    return right / len(split), (counts / len(split)).tolist()


def summarise(network: str, results: Path) -> None:
    """Means over seeds, and standard deviations where there are two or more."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((results / f"cifar10-gate-{network}").glob("*-seed*.json")):
        document = json.loads(path.read_text())
        runs.setdefault(document["run"], []).append(document)
    summary = {
        name: {
            "seeds": [document["seed"] for document in documents],
            "epochs": [phase["epochs"] for phase in documents[0]["phases"]],
            "widths": together([document["widths"] for document in documents]),
            "gates": together([document["gates"] for document in documents]),
        }
        for name, documents in runs.items()
    }
    document = {"study": f"cifar10-gate-{network}", "recipe": RECIPES[network], "gates": summary}
    write_result(results / f"cifar10-gate-{network}.json", document)


def together(seeds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Row by row the means of all numbers, and the standard deviations of the accuracies."""
    rows = []
    for same in zip(*seeds, strict=True):
        row = {}
        for key, value in same[0].items():
            values = [one[key] for one in same]
            row[key] = statistics.fmean(values) if isinstance(value, float) else value
            if key.endswith("_shares"):
                row[key] = [statistics.fmean(shares) for shares in zip(*values, strict=True)]
            if key.endswith("_acc1") and len(values) > 1:
                row[f"{key}_std"] = statistics.stdev(values)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("--data", default="cifar10", help="folder or archive of class folders, or a data set")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["bootstrapping"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--epochs", type=int, help="only try the script out, with so many epochs")
    parser.add_argument("--summary", action="store_true", help="train nothing, only sum up what is there")
    arguments = parser.parse_args()
    results = ROOT / "results" if arguments.epochs is None else arguments.out.resolve() / "results"
    if not arguments.summary:
        torch.set_num_threads(arguments.threads)
        data = load_data(arguments.data, seed=0)
        for seed in arguments.seeds:
            for name in arguments.runs:
                run(arguments.network, name, seed, data, arguments.out, results, arguments.epochs)
    summarise(arguments.network, results)


if __name__ == "__main__":
    main()
