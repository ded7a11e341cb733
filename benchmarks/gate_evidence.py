"""A gate against static widths, on CIFAR-10: Stage I and II of DS-Net.

    python benchmarks/gate_evidence.py resnet20 --data PATH [--seeds 0 1] [--runs bootstrapping sandwich]
    python benchmarks/gate_evidence.py resnet20 --summary

For each seed and way of teaching, both stages are trained as the recipe says. Then everything is measured on test
images: every width alone, and what the gate chooses, as trained and with budgets, which are found on validation images
(`pliant.measure.gates`). Latency is that of single images, of a machine that may train something else meanwhile: all
take turns, and its ratios mean more than its milliseconds. Figures go to
results/cifar10-gate-<network>/<run>-seed<k>.json, the means and spreads over seeds to
results/cifar10-gate-<network>.json. A training is resumed where it was interrupted and never repeated. With --epochs
the script is only tried out: its figures go to OUT/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, notes_of, write_result

from pliant.data import ImageData, load_data
from pliant.measure.gate_table import equal_accuracy
from pliant.measure.gates import measure_gate
from pliant.train.engine import train
from pliant.train.recipe import Recipe

RECIPES = {"resnet20": "recipes/cifar10_dsnet_resnet20.yaml", "ds-mbnet": "recipes/cifar10_ds_mbnet.yaml"}
# Who teaches in Stage I: the moving average, as in DS-Net, or the network itself.
RUNS: dict[str, dict[str, Any]] = {"bootstrapping": {}, "sandwich": {"teacher": "live"}}
BUDGETS = 5
ROUNDS = 300


def run(network: str, name: str, seed: int, data: ImageData, out: Path, results: Path, epochs: int | None) -> None:
    """Train and measure one network and its gate, unless the figures are there."""
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
    train(first, data=data, out=start, resume=True, progress=False)
    second = second.replace(model=second.model.replace(start_from=os.path.relpath(start)))
    trained = train(second, data=data, out=folder / f"{name}-seed{seed}-gate", resume=True, progress=False)
    table = measure_gate(trained.model, data, budgets=BUDGETS, rounds=ROUNDS)
    document: dict[str, Any] = {"run": name, "seed": seed, "phases": [first.to_dict(), second.to_dict()]}
    gates = [without(row, "offsets", "equal_accuracy") for row in (table.gated, *table.budgets)]
    write_result(result, document | {"info": table.info, "widths": table.static, "gates": gates})


def without(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


def summarise(network: str, results: Path) -> None:
    """Means over seeds, and standard deviations where there are two or more.

    Latencies are those of the seeds whose widths were timed as they ship. The first ones were not: their weights were
    parts of the wide ones, which takes time at every pass.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((results / f"cifar10-gate-{network}").glob("*-seed*.json")):
        document = json.loads(path.read_text())
        if document["info"].get("latency_of") != "extracted":
            for part in ("widths", "gates"):
                document[part] = [without(row, *(key for key in row if "latency" in key)) for row in document[part]]
        runs.setdefault(document["run"], []).append(document)
    summary = {}
    for name, documents in runs.items():
        widths, gates = (together([document[part] for document in documents]) for part in ("widths", "gates"))
        summary[name] = {
            "seeds": [document["seed"] for document in documents],
            "timed": [document["seed"] for document in documents if "latency_ms_mean" in document["gates"][0]],
            "epochs": [phase["epochs"] for phase in documents[0]["phases"]],
            "widths": widths,
            "gates": [row | {"equal_accuracy": equal_accuracy(row, widths)} for row in gates],
        }
    notes = notes_of(document for documents in runs.values() for document in documents)
    document = {"study": f"cifar10-gate-{network}", "recipe": RECIPES[network], **notes, "gates": summary}
    write_result(results / f"cifar10-gate-{network}.json", document)


def together(seeds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Row by row the means of all numbers, and the standard deviations of the accuracies.

    What a gate costs beside a width of equal accuracy is compared after that: of one seed alone it is mostly noise.
    """
    rows = []
    for same in zip(*seeds, strict=True):
        row = {}
        for key, value in {key: value for one in same for key, value in one.items()}.items():
            values = [one[key] for one in same if key in one]
            row[key] = statistics.fmean(values) if isinstance(value, float) else value
            if key == "shares":
                row[key] = {route: statistics.fmean(shares[route] for shares in values) for route in value}
            if key == "acc1" and len(values) > 1:
                row["acc1_std"] = statistics.stdev(values)
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
